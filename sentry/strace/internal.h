// Shared by the files of this room.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// A line under construction: what does not fit is cut off.
struct line {
	char *buf;
	size_t size, len;
};
void put(struct line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

struct flag_name {
	uint64_t value;
	const char *name;
};
// The words of one argument format that stands for a set of flags or a value by name; NULL: no such format.
struct flag_set {
	const char *format;
	const struct flag_name *names;
	unsigned n;
	bool value; // one of them, not a set
};
const struct flag_set *flags_find(const char *format, size_t len);
void put_flags(struct line *l, const struct flag_set *set, uint64_t v);
