// Bundles: a directory with config.json.
#pragma once
#include <stddef.h>

#include "sentry/boot/spec.h"

struct bundle {
	char *dir;       // absolute
	char *config;    // the file's text
	size_t config_len;
	struct spec *spec;
};
// 0 or an exit status after a message.
int bundle_load(const char *dir, struct bundle *ret);
// A bundle from a text made here.
int bundle_from_text(const char *dir, char *text, struct bundle *ret);
void bundle_free(struct bundle *b);
