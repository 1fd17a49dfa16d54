#include "platform/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "platform/base/assert.h"

static int log_fd = -1;
static enum log_level log_max = LOG_ERR;
static char log_ident[64] = "runsc";

void (*panic_hook)(void);

void log_init(int fd, enum log_level max, const char *ident)
{
	log_fd = fd;
	log_max = fd >= 0 ? max : LOG_ERR;
	snprintf(log_ident, sizeof(log_ident), "%s", ident);
}

bool log_enabled(enum log_level level)
{
	return level <= log_max;
}

void log_vwrite(enum log_level level, const char *fmt, va_list ap)
{
	static const char letters[] = "EWID";
	char line[4096];
	struct timespec ts;
	int n, m;

	if (!log_enabled(level))
		return;
	clock_gettime(CLOCK_REALTIME, &ts);
	n = snprintf(line, sizeof(line), "%c %lld.%06ld %s: ", letters[level], (long long)ts.tv_sec,
		     ts.tv_nsec / 1000, log_ident);
	m = vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
	n = m < 0 ? n : n + m;
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	if (write(log_fd >= 0 ? log_fd : STDERR_FILENO, line, n) < 0)
		return; // there is nowhere left to say so
}

void log_write(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_vwrite(level, fmt, ap);
	va_end(ap);
}

_Noreturn void panic(const char *fmt, ...)
{
	char msg[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	log_write(LOG_ERR, "panic: %s", msg);
	if (panic_hook)
		panic_hook();
	abort();
}
