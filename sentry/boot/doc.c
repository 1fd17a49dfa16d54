#include "sentry/boot/doc.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/boot/spec_json.h"

char *boot_doc_encode(const struct boot_doc *d, const char *config, size_t config_len, size_t *ret_len)
{
	json_t *o = json_pack("{s:s, s:s, s:b, s:b, s:b, s:b, s:b, s:b, s:b, s:I, s:b, s:i, s:i, s:[], s:[], s:[]}", "id", d->id, "platform",
			      d->platform, "debug", d->debug, "strace", d->strace, "log_file", d->log_file, "plain_first", d->plain_first, "no_patching", d->no_patching,
			      "wait_start", d->wait_start, "overlay", d->overlay, "overlay_size",
			      (json_int_t)d->overlay_size, "root_readonly", d->root_readonly, "host_cpus",
			      (int)d->host_cpus, "ntrees", (int)d->ntrees, "mount_tree", "mount_is_file", "rlimits");
	char *head, *text = NULL;
	size_t n;

	if (!o)
		return NULL;
	for (unsigned i = 0; i < d->spec->nmounts; i++)
		if (json_array_append_new(json_object_get(o, "mount_tree"), json_integer(d->mount_tree[i])) ||
		    json_array_append_new(json_object_get(o, "mount_is_file"), json_boolean(d->mount_is_file[i])))
			goto out;
	for (unsigned i = 0; i < 32; i++)
		if (json_array_append_new(json_object_get(o, "rlimits"), json_integer((json_int_t)d->rlim[i / 2][i % 2])))
			goto out;
	head = json_dumps(o, JSON_COMPACT);
	if (!head)
		goto out;
	n = strlen(head);
	text = malloc(n + 1 + config_len + 1);
	if (text) {
		memcpy(text, head, n);
		text[n] = '\n';
		memcpy(text + n + 1, config, config_len);
		*ret_len = n + 1 + config_len;
	}
	free(head);
out:
	json_decref(o);
	return text;
}

static bool parse_trees(const struct jctx *c, json_t *o, struct boot_doc *d)
{
	json_t *trees = NULL, *files = NULL, *v;
	size_t i;

	if (!jget(c, o, "mount_tree", JSON_ARRAY, true, &trees) || !jget(c, o, "mount_is_file", JSON_ARRAY, true, &files))
		return false;
	if (json_array_size(trees) != d->spec->nmounts || json_array_size(files) != d->spec->nmounts)
		return jfail(c, "mount_tree: wrong length");
	d->mount_tree = calloc(d->spec->nmounts + 1, sizeof(int));
	d->mount_is_file = calloc(d->spec->nmounts + 1, sizeof(bool));
	if (!d->mount_tree || !d->mount_is_file)
		return jnomem(c);
	json_array_foreach (trees, i, v) {
		if (!json_is_integer(v) || json_integer_value(v) < -1 || json_integer_value(v) >= d->ntrees)
			return jfail(c, "mount_tree[%zu]: not a tree", i);
		d->mount_tree[i] = json_integer_value(v);
	}
	json_array_foreach (files, i, v)
		d->mount_is_file[i] = json_is_true(v);
	return true;
}

static bool parse_rlimits(const struct jctx *c, json_t *o, struct boot_doc *d)
{
	json_t *list = NULL, *v;
	size_t i;

	if (!jget(c, o, "rlimits", JSON_ARRAY, true, &list))
		return false;
	if (json_array_size(list) != 32)
		return jfail(c, "rlimits: wrong length");
	json_array_foreach (list, i, v)
		d->rlim[i / 2][i % 2] = (uint64_t)json_integer_value(v); // -1: no limit
	return true;
}

static bool parse_head(const struct jctx *c, json_t *o, struct boot_doc *d)
{
	uint64_t cpus = 0, ntrees = 0;

	if (!jget_str(c, o, "id", true, &d->id) || !jget_str(c, o, "platform", true, &d->platform) ||
	    !jget_bool(c, o, "debug", &d->debug) || !jget_bool(c, o, "strace", &d->strace) ||
	    !jget_bool(c, o, "log_file", &d->log_file) || !jget_bool(c, o, "plain_first", &d->plain_first) ||
	    !jget_bool(c, o, "no_patching", &d->no_patching) || !jget_bool(c, o, "wait_start", &d->wait_start) ||
	    !jget_bool(c, o, "overlay", &d->overlay) || !jget_u64(c, o, "overlay_size", true, &d->overlay_size) ||
	    !jget_bool(c, o, "root_readonly", &d->root_readonly) || !jget_u64(c, o, "host_cpus", true, &cpus) ||
	    !jget_u64(c, o, "ntrees", true, &ntrees))
		return false;
	if (cpus == 0 || cpus > 4096 || ntrees == 0 || ntrees > 1024)
		return jfail(c, "host_cpus or ntrees: out of range");
	d->host_cpus = cpus;
	d->ntrees = ntrees;
	return parse_rlimits(c, o, d) && parse_trees(c, o, d);
}

int boot_doc_decode(const char *text, size_t len, struct boot_doc **ret, struct spec_err *err)
{
	struct jctx c = {.err = err, .where = "boot"};
	const char *nl = memchr(text, '\n', len);
	struct boot_doc *d;
	json_t *o;
	int r;
	bool ok;

	err->msg[0] = 0;
	if (!nl)
		return jfail(&c, "boot: no document"), -EINVAL;
	d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	r = spec_parse(nl + 1, len - (nl + 1 - text), &d->spec, err);
	if (r < 0) {
		boot_doc_free(d);
		return r;
	}
	o = json_loadb(text, nl - text, JSON_REJECT_DUPLICATES, NULL);
	ok = o ? parse_head(&c, o, d) : jfail(&c, "boot: malformed document");
	json_decref(o);
	if (!ok) {
		boot_doc_free(d);
		return err->msg[0] ? -EINVAL : -ENOMEM;
	}
	*ret = d;
	return 0;
}

void boot_doc_free(struct boot_doc *d)
{
	if (!d)
		return;
	spec_free(d->spec);
	free(d->id);
	free(d->platform);
	free(d->mount_tree);
	free(d->mount_is_file);
	free(d);
}
