// Typed access to JSON objects with errors that name the field. Private to spec*.c.
// The bool functions return false after an error was noted in c->err (or memory ran out).
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "sentry/boot/spec.h"

struct jctx {
	struct spec_err *err;
	const char *where; // path of the object whose fields are read; NULL: the top
};

// Always false.
bool jfail(const struct jctx *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool jnomem(const struct jctx *c);
// obj NULL or no such key: *ret stays. A JSON null counts as absent, as Go's encoders write it.
bool jget(const struct jctx *c, json_t *obj, const char *key, json_type type, bool required, json_t **ret);
bool jget_str(const struct jctx *c, json_t *obj, const char *key, bool required, char **ret); // absent: ""
bool jget_strv(const struct jctx *c, json_t *obj, const char *key, struct spec_strv *ret);    // absent: empty
bool jget_bool(const struct jctx *c, json_t *obj, const char *key, bool *ret);
bool jget_u64(const struct jctx *c, json_t *obj, const char *key, bool required, uint64_t *ret);
bool jget_i64(const struct jctx *c, json_t *obj, const char *key, int64_t *ret);
bool jint(json_t *v, uint64_t *ret, bool *ret_negative); // false: not a whole number
// Notes which of these keys the object has.
void jignored(struct spec *s, json_t *obj, const char *where, const char *const *keys);

bool strv_add(struct spec_strv *v, const char *s); // false: no memory
void strv_free(struct spec_strv *v);

bool spec_parse_mounts(const struct jctx *c, json_t *root, struct spec *s);
