#include "sentry/boot/spec.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/resource.h>

#include "platform/base/base.h"
#include "sentry/boot/spec_json.h"

static bool parse_caps_set(const struct jctx *c, json_t *caps, const char *key, uint64_t *ret)
{
	struct spec_strv names = {0};
	uint64_t set = 0;

	if (!jget_strv(c, caps, key, &names))
		return false;
	for (unsigned i = 0; i < names.n; i++) {
		cap_value_t v;

		if (cap_from_name(names.v[i], &v) != 0 || v < 0 || v > 63) {
			bool ok = jfail(c, "process.capabilities.%s: unknown capability %s", key, names.v[i]);

			strv_free(&names);
			return ok;
		}
		set |= 1ULL << v;
	}
	strv_free(&names);
	*ret = set;
	return true;
}

static bool parse_caps(const struct jctx *c, json_t *proc, struct spec *s)
{
	json_t *caps = NULL;

	if (!jget(c, proc, "capabilities", JSON_OBJECT, false, &caps))
		return false;
	if (!caps)
		return true;
	s->caps.given = true;
	return parse_caps_set(c, caps, "bounding", &s->caps.bounding) &&
	       parse_caps_set(c, caps, "effective", &s->caps.effective) &&
	       parse_caps_set(c, caps, "permitted", &s->caps.permitted) &&
	       parse_caps_set(c, caps, "inheritable", &s->caps.inheritable) &&
	       parse_caps_set(c, caps, "ambient", &s->caps.ambient);
}

static const struct {
	const char *name;
	int nr;
} rlimit_names[] = {
	{"RLIMIT_CPU", RLIMIT_CPU}, {"RLIMIT_FSIZE", RLIMIT_FSIZE}, {"RLIMIT_DATA", RLIMIT_DATA},
	{"RLIMIT_STACK", RLIMIT_STACK}, {"RLIMIT_CORE", RLIMIT_CORE}, {"RLIMIT_RSS", RLIMIT_RSS},
	{"RLIMIT_NPROC", RLIMIT_NPROC}, {"RLIMIT_NOFILE", RLIMIT_NOFILE}, {"RLIMIT_MEMLOCK", RLIMIT_MEMLOCK},
	{"RLIMIT_AS", RLIMIT_AS}, {"RLIMIT_LOCKS", RLIMIT_LOCKS}, {"RLIMIT_SIGPENDING", RLIMIT_SIGPENDING},
	{"RLIMIT_MSGQUEUE", RLIMIT_MSGQUEUE}, {"RLIMIT_NICE", RLIMIT_NICE}, {"RLIMIT_RTPRIO", RLIMIT_RTPRIO},
	{"RLIMIT_RTTIME", RLIMIT_RTTIME},
};

static bool parse_rlimits(const struct jctx *c, json_t *proc, struct spec *s)
{
	json_t *list = NULL, *r;
	size_t i;

	if (!jget(c, proc, "rlimits", JSON_ARRAY, false, &list))
		return false;
	json_array_foreach (list, i, r) {
		cleanup_free char *name = NULL;
		uint64_t soft, hard;
		unsigned k;

		if (!json_is_object(r))
			return jfail(c, "process.rlimits[%zu]: must be an object", i);
		if (!jget_str(c, r, "type", true, &name) || !jget_u64(c, r, "soft", true, &soft) ||
		    !jget_u64(c, r, "hard", true, &hard))
			return false;
		for (k = 0; k < ARRAY_SIZE(rlimit_names) && strcmp(rlimit_names[k].name, name) != 0; k++)
			;
		if (k == ARRAY_SIZE(rlimit_names))
			return jfail(c, "process.rlimits[%zu].type: unknown limit %s", i, name);
		if (soft > hard)
			return jfail(c, "process.rlimits[%zu]: soft limit is above the hard one", i);
		k = rlimit_names[k].nr;
		if (s->rlim_set & (1u << k))
			return jfail(c, "process.rlimits[%zu].type: %s is given twice", i, name);
		s->rlim[k][0] = soft;
		s->rlim[k][1] = hard;
		s->rlim_set |= 1u << k;
	}
	return true;
}

static bool parse_user(const struct jctx *c, json_t *proc, struct spec *s)
{
	json_t *user = NULL, *groups = NULL, *g;
	uint64_t uid = 0, gid = 0, mask = UINT64_MAX;
	size_t i;

	if (!jget(c, proc, "user", JSON_OBJECT, false, &user))
		return false;
	if (!user)
		return true;
	struct jctx cu = {.err = c->err, .where = "process.user"};

	if (!jget_u64(&cu, user, "uid", false, &uid) || !jget_u64(&cu, user, "gid", false, &gid) ||
	    !jget_u64(&cu, user, "umask", false, &mask) || !jget(&cu, user, "additionalGids", JSON_ARRAY, false, &groups))
		return false;
	if (uid >= UINT32_MAX || gid >= UINT32_MAX)
		return jfail(c, "process.user: uid or gid is out of range");
	if (mask != UINT64_MAX && mask > 0777)
		return jfail(c, "process.user.umask: out of range");
	s->user.uid = uid;
	s->user.gid = gid;
	s->user.has_umask = mask != UINT64_MAX;
	s->user.umask = s->user.has_umask ? mask : 022;
	if (json_array_size(groups) > 65536)
		return jfail(c, "process.user.additionalGids: more than 65536");
	if (json_array_size(groups) > 0) {
		s->user.groups = calloc(json_array_size(groups), sizeof(uint32_t));
		if (!s->user.groups)
			return jnomem(c);
	}
	json_array_foreach (groups, i, g) {
		bool negative = false;
		uint64_t n = 0;

		if (!jint(g, &n, &negative) || negative || n >= UINT32_MAX)
			return jfail(c, "process.user.additionalGids[%zu]: must be a group number", i);
		s->user.groups[s->user.ngroups++] = n;
	}
	return true;
}

static bool parse_process(const struct jctx *top, json_t *root, struct spec *s)
{
	struct jctx c = {.err = top->err, .where = "process"};
	json_t *p = NULL;
	int64_t oom = 0;

	if (!jget(top, root, "process", JSON_OBJECT, true, &p))
		return false;
	if (!jget_strv(&c, p, "args", &s->args) || !jget_strv(&c, p, "env", &s->env) ||
	    !jget_str(&c, p, "cwd", true, &s->cwd) || !jget_bool(&c, p, "terminal", &s->terminal) ||
	    !jget_bool(&c, p, "noNewPrivileges", &s->no_new_privs) || !jget_i64(&c, p, "oomScoreAdj", &oom))
		return false;
	if (s->args.n == 0)
		return jfail(&c, "process.args: must name a program");
	if (s->cwd[0] != '/')
		return jfail(&c, "process.cwd: must be an absolute path");
	for (unsigned i = 0; i < s->env.n; i++)
		if (!strchr(s->env.v[i], '=') || s->env.v[i][0] == '=')
			return jfail(&c, "process.env[%u]: must be NAME=value", i);
	if (oom < -1000 || oom > 1000)
		return jfail(&c, "process.oomScoreAdj: must lie between -1000 and 1000");
	s->oom_score_adj = oom;
	jignored(s, p, "process", (const char *const[]){"apparmorProfile", "selinuxLabel", "scheduler", "ioPriority",
							"execCPUAffinity", NULL});
	return parse_user(&c, p, s) && parse_caps(&c, p, s) && parse_rlimits(&c, p, s);
}

static const struct {
	const char *name;
	unsigned bit;
} ns_names[] = {
	{"pid", SPEC_NS_PID}, {"network", SPEC_NS_NET}, {"ipc", SPEC_NS_IPC}, {"uts", SPEC_NS_UTS},
	{"mount", SPEC_NS_MNT}, {"user", SPEC_NS_USER}, {"cgroup", SPEC_NS_CGROUP}, {"time", SPEC_NS_TIME},
};

static bool parse_namespaces(const struct jctx *c, json_t *linux_, struct spec *s)
{
	json_t *list = NULL, *n;
	size_t i;

	if (!jget(c, linux_, "namespaces", JSON_ARRAY, false, &list))
		return false;
	json_array_foreach (list, i, n) {
		cleanup_free char *type = NULL, *path = NULL;
		unsigned k;

		if (!json_is_object(n))
			return jfail(c, "linux.namespaces[%zu]: must be an object", i);
		if (!jget_str(c, n, "type", true, &type) || !jget_str(c, n, "path", false, &path))
			return false;
		for (k = 0; k < ARRAY_SIZE(ns_names) && strcmp(ns_names[k].name, type) != 0; k++)
			;
		if (k == ARRAY_SIZE(ns_names))
			return jfail(c, "linux.namespaces[%zu].type: unknown namespace %s", i, type);
		if (s->namespaces & ns_names[k].bit)
			return jfail(c, "linux.namespaces[%zu].type: %s is given twice", i, type);
		if (path[0] && path[0] != '/')
			return jfail(c, "linux.namespaces[%zu].path: must be an absolute path", i);
		s->namespaces |= ns_names[k].bit;
		if (ns_names[k].bit == SPEC_NS_NET) {
			free(s->netns_path);
			s->netns_path = steal_ptr(&path);
		}
	}
	return true;
}

static bool parse_sysctls(const struct jctx *c, json_t *linux_, struct spec *s)
{
	json_t *map = NULL, *v;
	const char *k;

	if (!jget(c, linux_, "sysctl", JSON_OBJECT, false, &map))
		return false;
	if (json_object_size(map) == 0)
		return true;
	s->sysctls = calloc(json_object_size(map), sizeof(*s->sysctls));
	if (!s->sysctls)
		return jnomem(c);
	json_object_foreach (map, k, v) {
		struct spec_sysctl *e = &s->sysctls[s->nsysctls];

		if (!json_is_string(v))
			return jfail(c, "linux.sysctl.%s: must be a string", k);
		if (strstr(k, "..") || k[0] == '/' || k[0] == '.')
			return jfail(c, "linux.sysctl.%s: not a name of a setting", k);
		s->nsysctls++;
		e->name = strdup(k);
		e->value = strdup(json_string_value(v));
		if (!e->name || !e->value)
			return jnomem(c);
	}
	return true;
}

static bool check_paths(const struct jctx *c, const char *field, const struct spec_strv *v)
{
	for (unsigned i = 0; i < v->n; i++)
		if (v->v[i][0] != '/')
			return jfail(c, "linux.%s[%u]: must be an absolute path", field, i);
	return true;
}

static bool parse_linux(const struct jctx *top, json_t *root, struct spec *s)
{
	struct jctx c = {.err = top->err, .where = "linux"};
	json_t *l = NULL;

	if (!jget(top, root, "linux", JSON_OBJECT, false, &l))
		return false;
	if (!jget_strv(&c, l, "maskedPaths", &s->masked) || !jget_strv(&c, l, "readonlyPaths", &s->readonly) ||
	    !jget_str(&c, l, "cgroupsPath", false, &s->cgroups_path) || !check_paths(&c, "maskedPaths", &s->masked) ||
	    !check_paths(&c, "readonlyPaths", &s->readonly))
		return false;
	jignored(s, l, "linux", (const char *const[]){"devices", "resources", "seccomp", "rootfsPropagation", "mountLabel",
						      "intelRdt", "personality", "uidMappings", "gidMappings",
						      "timeOffsets", NULL});
	return parse_namespaces(&c, l, s) && parse_sysctls(&c, l, s);
}

static bool parse_root(const struct jctx *top, json_t *root, struct spec *s)
{
	struct jctx c = {.err = top->err, .where = "root"};
	json_t *r = NULL;

	if (!jget(top, root, "root", JSON_OBJECT, true, &r))
		return false;
	if (!jget_str(&c, r, "path", true, &s->root_path) || !jget_bool(&c, r, "readonly", &s->root_readonly))
		return false;
	if (!s->root_path[0])
		return jfail(&c, "root.path: must not be empty");
	return true;
}

static bool parse_annotations(const struct jctx *c, json_t *root, struct spec *s)
{
	json_t *map = NULL, *v;
	const char *k;

	if (!jget(c, root, "annotations", JSON_OBJECT, false, &map))
		return false;
	json_object_foreach (map, k, v) {
		if (!json_is_string(v))
			return jfail(c, "annotations.%s: must be a string", k);
		if (!strv_add(&s->annotation_keys, k) || !strv_add(&s->annotation_values, json_string_value(v)))
			return jnomem(c);
	}
	return true;
}

static bool check_name(const struct jctx *c, const char *field, const char *name)
{
	return strlen(name) <= 64 ? true : jfail(c, "%s: longer than 64 bytes", field);
}

static bool parse_top(const struct jctx *c, json_t *root, struct spec *s)
{
	if (!json_is_object(root))
		return jfail(c, "config.json: must be an object");
	if (!jget_str(c, root, "ociVersion", true, &s->version) || !jget_str(c, root, "hostname", false, &s->hostname) ||
	    !jget_str(c, root, "domainname", false, &s->domainname))
		return false;
	if (strncmp(s->version, "1.", 2) != 0)
		return jfail(c, "ociVersion: %s is not supported (1.x is)", s->version);
	jignored(s, root, NULL, (const char *const[]){"hooks", "vm", "windows", "solaris", "zos", NULL});
	return check_name(c, "hostname", s->hostname) && check_name(c, "domainname", s->domainname) &&
	       parse_process(c, root, s) && parse_root(c, root, s) && spec_parse_mounts(c, root, s) &&
	       parse_linux(c, root, s) && parse_annotations(c, root, s);
}

int spec_parse(const char *text, size_t len, struct spec **ret_spec, struct spec_err *err)
{
	struct jctx c = {.err = err, .where = NULL};
	json_error_t je;
	struct spec *s;
	json_t *root;
	bool ok;

	err->msg[0] = 0;
	if (len > SPEC_MAX_BYTES)
		return jfail(&c, "config.json: larger than %u bytes", SPEC_MAX_BYTES), -EINVAL;
	root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &je);
	// Go programs write RLIM_INFINITY as 2^64-1, which does not fit the reader's integers.
	if (!root && json_error_code(&je) == json_error_numeric_overflow)
		root = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &je);
	if (!root)
		return jfail(&c, "config.json: line %d, column %d: %s", je.line, je.column, je.text), -EINVAL;
	s = calloc(1, sizeof(*s));
	if (!s) {
		json_decref(root);
		return -ENOMEM;
	}
	s->user.umask = 022;
	ok = parse_top(&c, root, s);
	if (ok && !s->netns_path)
		ok = (s->netns_path = strdup("")) != NULL;
	if (ok && !s->cgroups_path)
		ok = (s->cgroups_path = strdup("")) != NULL;
	json_decref(root);
	if (!ok) {
		spec_free(s);
		return err->msg[0] ? -EINVAL : -ENOMEM;
	}
	*ret_spec = s;
	return 0;
}

void spec_free(struct spec *s)
{
	if (!s)
		return;
	for (unsigned i = 0; i < s->nmounts; i++) {
		free(s->mounts[i].dest);
		free(s->mounts[i].type);
		free(s->mounts[i].source);
		free(s->mounts[i].data);
	}
	for (unsigned i = 0; i < s->nsysctls; i++) {
		free(s->sysctls[i].name);
		free(s->sysctls[i].value);
	}
	struct spec_strv *lists[] = {&s->args, &s->env, &s->masked, &s->readonly, &s->annotation_keys,
				     &s->annotation_values, &s->ignored};

	for (unsigned i = 0; i < ARRAY_SIZE(lists); i++)
		strv_free(lists[i]);
	char *strings[] = {s->version, s->cwd, s->root_path, s->hostname, s->domainname, s->netns_path, s->cgroups_path};

	for (unsigned i = 0; i < ARRAY_SIZE(strings); i++)
		free(strings[i]);
	free(s->mounts);
	free(s->sysctls);
	free(s->user.groups);
	free(s);
}

const char *spec_annotation(const struct spec *s, const char *key)
{
	for (unsigned i = 0; i < s->annotation_keys.n; i++)
		if (strcmp(s->annotation_keys.v[i], key) == 0)
			return s->annotation_values.v[i];
	return NULL;
}
