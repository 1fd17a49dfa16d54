// A conformance program prints one line a check, "ok NAME" or "not ok NAME (errno)", and exits 0 when
// all hold. It must pass on Linux first; then it must print the same in the sandbox.
#pragma once
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_failures;

static inline void check_report(const char *name, int ok)
{
	int e = errno;

	if (ok)
		printf("ok %s\n", name);
	else {
		printf("not ok %s (errno %d: %s)\n", name, e, strerror(e));
		check_failures++;
	}
	fflush(stdout);
	errno = 0;
}
// cond holds
#define CHECK(name, cond) check_report(name, !!(cond))
// expr fails with that errno
#define CHECK_ERR(name, expr, err) (errno = 0, check_report(name, (long)(expr) == -1 && errno == (err)))
#define CHECK_DONE() return check_failures != 0
