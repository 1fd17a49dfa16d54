// config.json's mounts: options as mount(8) names them become MS_* flags, the rest is the file system's.
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "platform/base/base.h"
#include "sentry/boot/spec_json.h"

static const struct mount_word {
	const char *name;
	unsigned long set, clear;
	bool bind;
} words[] = {
	{"defaults", 0, 0, false}, {"ro", MS_RDONLY, 0, false}, {"rw", 0, MS_RDONLY, false},
	{"nosuid", MS_NOSUID, 0, false}, {"suid", 0, MS_NOSUID, false}, {"nodev", MS_NODEV, 0, false},
	{"dev", 0, MS_NODEV, false}, {"noexec", MS_NOEXEC, 0, false}, {"exec", 0, MS_NOEXEC, false},
	{"sync", MS_SYNCHRONOUS, 0, false}, {"async", 0, MS_SYNCHRONOUS, false}, {"dirsync", MS_DIRSYNC, 0, false},
	{"remount", MS_REMOUNT, 0, false}, {"mand", MS_MANDLOCK, 0, false}, {"nomand", 0, MS_MANDLOCK, false},
	{"noatime", MS_NOATIME, 0, false}, {"atime", 0, MS_NOATIME, false}, {"nodiratime", MS_NODIRATIME, 0, false},
	{"diratime", 0, MS_NODIRATIME, false}, {"relatime", MS_RELATIME, 0, false},
	{"norelatime", 0, MS_RELATIME, false}, {"strictatime", MS_STRICTATIME, 0, false},
	{"nostrictatime", 0, MS_STRICTATIME, false}, {"bind", MS_BIND, 0, true}, {"rbind", MS_BIND | MS_REC, 0, true},
	{"private", MS_PRIVATE, 0, false}, {"rprivate", MS_PRIVATE | MS_REC, 0, false},
	{"shared", MS_SHARED, 0, false}, {"rshared", MS_SHARED | MS_REC, 0, false},
	{"slave", MS_SLAVE, 0, false}, {"rslave", MS_SLAVE | MS_REC, 0, false},
	{"unbindable", MS_UNBINDABLE, 0, false}, {"runbindable", MS_UNBINDABLE | MS_REC, 0, false},
};

static bool add_option(const struct jctx *c, struct spec_mount *m, const char *opt)
{
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
		if (strcmp(words[i].name, opt) != 0)
			continue;
		m->ms_flags = (m->ms_flags & ~words[i].clear) | words[i].set;
		m->bind |= words[i].bind;
		return true;
	}
	size_t old = strlen(m->data), add = strlen(opt);
	char *p = realloc(m->data, old + add + 2);

	if (!p)
		return jnomem(c);
	m->data = p;
	if (old)
		p[old++] = ',';
	memcpy(p + old, opt, add + 1);
	return true;
}

static bool parse_mount(const struct jctx *top, json_t *o, size_t i, struct spec_mount *m)
{
	char where[32];

	snprintf(where, sizeof(where), "mounts[%zu]", i);
	struct jctx c = {.err = top->err, .where = where};
	struct spec_strv opts = {0};
	bool ok = true;

	if (!json_is_object(o))
		return jfail(&c, "%s: must be an object", where);
	m->data = strdup("");
	if (!m->data)
		return jnomem(&c);
	if (!jget_str(&c, o, "destination", true, &m->dest) || !jget_str(&c, o, "type", false, &m->type) ||
	    !jget_str(&c, o, "source", false, &m->source) || !jget_strv(&c, o, "options", &opts)) {
		strv_free(&opts);
		return false;
	}
	for (unsigned k = 0; ok && k < opts.n; k++)
		ok = add_option(&c, m, opts.v[k]);
	strv_free(&opts);
	if (!ok)
		return false;
	if (m->dest[0] != '/')
		return jfail(&c, "%s.destination: must be an absolute path", where);
	m->bind |= strcmp(m->type, "bind") == 0;
	if (m->bind && !m->source[0])
		return jfail(&c, "%s.source: a bind mount needs one", where);
	if (!m->bind && !m->type[0])
		return jfail(&c, "%s.type: missing", where);
	return true;
}

bool spec_parse_mounts(const struct jctx *c, json_t *root, struct spec *s)
{
	json_t *list = NULL, *o;
	size_t i;

	if (!jget(c, root, "mounts", JSON_ARRAY, false, &list))
		return false;
	if (json_array_size(list) == 0)
		return true;
	if (json_array_size(list) > SPEC_MAX_MOUNTS)
		return jfail(c, "mounts: more than %u", SPEC_MAX_MOUNTS);
	s->mounts = calloc(json_array_size(list), sizeof(*s->mounts));
	if (!s->mounts)
		return jnomem(c);
	json_array_foreach (list, i, o) {
		s->nmounts = i + 1;
		if (!parse_mount(c, o, i, &s->mounts[i]))
			return false;
	}
	return true;
}
