// The stub's ELF file, embedded (made by stub/embed.py from the stub executable).
#pragma once
#include <stddef.h>

extern const unsigned char stub_image[];
extern const size_t stub_image_size;
