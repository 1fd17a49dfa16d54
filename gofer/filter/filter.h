// The gofer's seccomp filter; its table is table.c.
#pragma once

struct filter_prog;
extern const struct filter_prog gofer_filter;
int gofer_filter_install(void); // 0 or -errno
