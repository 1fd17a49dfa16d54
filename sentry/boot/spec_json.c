#include "sentry/boot/spec_json.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool jfail(const struct jctx *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->err->msg, sizeof(c->err->msg), fmt, ap);
	va_end(ap);
	return false;
}

bool jnomem(const struct jctx *c)
{
	c->err->msg[0] = 0;
	return false;
}

static const char *type_name(json_type t)
{
	switch (t) {
	case JSON_OBJECT: return "an object";
	case JSON_ARRAY: return "a list";
	case JSON_STRING: return "a string";
	case JSON_INTEGER: return "a whole number";
	case JSON_TRUE: return "true or false";
	default: return "something else";
	}
}

bool jget(const struct jctx *c, json_t *obj, const char *key, json_type type, bool required, json_t **ret)
{
	const char *dot = c->where ? "." : "", *where = c->where ? c->where : "";
	json_t *v = obj ? json_object_get(obj, key) : NULL;

	if (!v || json_is_null(v))
		return required ? jfail(c, "%s%s%s: missing", where, dot, key) : true;
	if (json_typeof(v) != type && !(type == JSON_TRUE && json_is_false(v)))
		return jfail(c, "%s%s%s: must be %s", where, dot, key, type_name(type));
	*ret = v;
	return true;
}

bool jget_str(const struct jctx *c, json_t *obj, const char *key, bool required, char **ret)
{
	json_t *v = NULL;

	if (!jget(c, obj, key, JSON_STRING, required, &v))
		return false;
	char *s = strdup(v ? json_string_value(v) : "");

	if (!s)
		return jnomem(c);
	*ret = s;
	return true;
}

bool jget_strv(const struct jctx *c, json_t *obj, const char *key, struct spec_strv *ret)
{
	json_t *list = NULL, *v;
	size_t i;

	if (!jget(c, obj, key, JSON_ARRAY, false, &list))
		return false;
	if (json_array_size(list) > SPEC_MAX_STRINGS)
		return jfail(c, "%s%s%s: more than %u entries", c->where ? c->where : "", c->where ? "." : "", key, SPEC_MAX_STRINGS);
	json_array_foreach (list, i, v) {
		if (!json_is_string(v))
			return jfail(c, "%s%s%s[%zu]: must be a string", c->where ? c->where : "", c->where ? "." : "", key, i);
		if (!strv_add(ret, json_string_value(v)))
			return jnomem(c);
	}
	if (!ret->v) {
		ret->v = calloc(1, sizeof(char *));
		if (!ret->v)
			return jnomem(c);
	}
	return true;
}

bool jget_bool(const struct jctx *c, json_t *obj, const char *key, bool *ret)
{
	json_t *v = NULL;

	if (!jget(c, obj, key, JSON_TRUE, false, &v))
		return false;
	if (v)
		*ret = json_is_true(v);
	return true;
}

// A whole number, whichever way the reader represented it (see spec_parse() about big ones).
bool jint(json_t *v, uint64_t *ret, bool *ret_negative)
{
	double d;

	if (json_is_integer(v)) {
		*ret_negative = json_integer_value(v) < 0;
		*ret = (uint64_t)json_integer_value(v);
		return true;
	}
	if (!json_is_real(v))
		return false;
	d = json_real_value(v);
	if (d < -9223372036854775808.0 || d > 18446744073709551616.0)
		return false;
	*ret_negative = d < 0;
	*ret = d >= 18446744073709551615.0 ? UINT64_MAX : d < 0 ? (uint64_t)(int64_t)d : (uint64_t)d;
	return d >= 9007199254740992.0 || d <= -9007199254740992.0 || (double)(int64_t)d == d;
}

static bool get_int(const struct jctx *c, json_t *obj, const char *key, bool required, bool may_be_negative, uint64_t *ret)
{
	const char *dot = c->where ? "." : "", *where = c->where ? c->where : "";
	json_t *v = obj ? json_object_get(obj, key) : NULL;
	bool negative;
	uint64_t n;

	if (!v || json_is_null(v))
		return required ? jfail(c, "%s%s%s: missing", where, dot, key) : true;
	if (!jint(v, &n, &negative))
		return jfail(c, "%s%s%s: must be a whole number", where, dot, key);
	if (negative && !may_be_negative)
		return jfail(c, "%s%s%s: must not be negative", where, dot, key);
	*ret = n;
	return true;
}

bool jget_u64(const struct jctx *c, json_t *obj, const char *key, bool required, uint64_t *ret)
{
	return get_int(c, obj, key, required, false, ret);
}

bool jget_i64(const struct jctx *c, json_t *obj, const char *key, int64_t *ret)
{
	uint64_t n = (uint64_t)*ret;

	if (!get_int(c, obj, key, false, true, &n))
		return false;
	*ret = (int64_t)n;
	return true;
}

void jignored(struct spec *s, json_t *obj, const char *where, const char *const *keys)
{
	char name[128];

	for (; obj && *keys; keys++) {
		json_t *v = json_object_get(obj, *keys);

		if (!v || json_is_null(v) || (json_is_string(v) && !json_string_value(v)[0]))
			continue;
		snprintf(name, sizeof(name), "%s%s%s", where ? where : "", where ? "." : "", *keys);
		(void)strv_add(&s->ignored, name); // only for a log line
	}
}

bool strv_add(struct spec_strv *v, const char *s)
{
	// Grows when n + 1 is a power of two: room for n strings and the NULL.
	if (!v->v || ((v->n + 1) & v->n) == 0) {
		char **p = realloc(v->v, (v->v ? (v->n + 1) * 2 : 2) * sizeof(char *));

		if (!p)
			return false;
		v->v = p;
	}
	v->v[v->n] = strdup(s);
	if (!v->v[v->n])
		return false;
	v->v[++v->n] = NULL;
	return true;
}

void strv_free(struct spec_strv *v)
{
	for (unsigned i = 0; i < v->n; i++)
		free(v->v[i]);
	free(v->v);
	*v = (struct spec_strv){0};
}
