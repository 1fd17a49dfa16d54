// The flags before the command: gVisor's names where the meaning is the same.
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "platform/base/base.h"
#include "runsc-cli/cli.h"
#include "runsc-cli/conf.h"

struct conf conf = {
	.platform = "systrap",
	.network = "sandbox",
	.overlay2 = "root:self",
	.log_format = "text",
	.file_access = "exclusive",
};

const struct opt global_opts[] = {
	{"root", 0, OPT_STR, &conf.root, "DIR", "where the state of containers is kept (default /var/run/runsc)"},
	{"platform", 0, OPT_STR, &conf.platform, "NAME", "how guest code is run: systrap (default) or ptrace"},
	{"network", 0, OPT_STR, &conf.network, "KIND",
	 "none, or sandbox (default; has no interfaces yet: the same as none); host is refused"},
	{"overlay2", 0, OPT_STR, &conf.overlay2, "WHAT",
	 "none, or root:MEDIUM[,size=BYTES] (default root:self); MEDIUM is memory or self, both kept in memory"},
	{"file-access", 0, OPT_STR, &conf.file_access, "HOW",
	 "exclusive (default): nobody else changes the root file system; shared is refused for now"},
	{"debug", 0, OPT_BOOL, &conf.debug, NULL, "log in detail"},
	{"debug-log", 0, OPT_STR, &conf.debug_log, "PATH",
	 "the sandbox's log: a file, or a directory if it ends in /; %ID% and %COMMAND% are replaced"},
	{"log", 0, OPT_STR, &conf.log, "FILE", "append errors of this command to FILE"},
	{"log-format", 0, OPT_STR, &conf.log_format, "FORMAT", "of --log: text (default) or json"},
	{"strace", 0, OPT_BOOL, &conf.strace, NULL, "log each system call of the guest (to --debug-log, else stderr)"},
	{"ignore-cgroups", 0, OPT_BOOL, &conf.ignore_cgroups, NULL, "do not set up cgroups (the only way for now)"},
	{"rootless", 0, OPT_BOOL, &conf.rootless, NULL, "run without privileges (implied when not started by root)"},
	{"systrap-disable-syscall-patching", 0, OPT_BOOL, &conf.no_patching, NULL, "systrap: trap each system call"},
	{"systemd-cgroup", 0, OPT_BOOL, &conf.systemd_cgroup, NULL, "no effect: cgroups are not set up yet"},
	{"alsologtostderr", 0, OPT_BOOL, &conf.alsologtostderr, NULL, "no effect: the log goes to --debug-log alone"},
	{0},
};

static int parse_size(const char *text, uint64_t *ret)
{
	unsigned shift = 0;
	uint64_t n;
	char *end;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (end == text || errno || text[0] == '-')
		return -EINVAL;
	switch (*end) {
	case 'k': case 'K': shift = 10; end++; break;
	case 'm': case 'M': shift = 20; end++; break;
	case 'g': case 'G': shift = 30; end++; break;
	}
	if (*end || n == 0 || n > (UINT64_MAX >> 1 >> shift))
		return -EINVAL;
	*ret = n << shift;
	return 0;
}

static int parse_overlay(const char *text)
{
	const char *size = strstr(text, ",size=");
	size_t len = size ? (size_t)(size - text) : strlen(text);

	conf.overlay_root = false;
	if (len == 4 && memcmp(text, "none", 4) == 0)
		return size ? cli_fail("--overlay2: none takes no size") : 0;
	if (!((len == 9 && memcmp(text, "root:self", 9) == 0) || (len == 11 && memcmp(text, "root:memory", 11) == 0)))
		return cli_fail("--overlay2: %s is not supported (none, root:memory, root:self [,size=BYTES])", text);
	if (size && parse_size(size + 6, &conf.overlay_size) < 0)
		return cli_fail("--overlay2: %s is not a size", size + 6);
	conf.overlay_root = true;
	return 0;
}

int conf_check(void)
{
	if (strcmp(conf.platform, "systrap") != 0 && strcmp(conf.platform, "ptrace") != 0)
		return cli_fail("--platform: %s is not known (systrap, ptrace)", conf.platform);
	if (strcmp(conf.network, "none") != 0 && strcmp(conf.network, "sandbox") != 0)
		return cli_fail("--network: %s is not supported (none, sandbox)", conf.network);
	if (strcmp(conf.file_access, "exclusive") != 0)
		return cli_fail("--file-access: %s is not supported (exclusive)", conf.file_access);
	if (strcmp(conf.log_format, "text") != 0 && strcmp(conf.log_format, "json") != 0)
		return cli_fail("--log-format: %s is not known (text, json)", conf.log_format);
	conf.json_log = strcmp(conf.log_format, "json") == 0;
	conf.rootless |= geteuid() != 0;
	if (!conf.root) {
		const char *run = getenv("XDG_RUNTIME_DIR");
		static char path[4096];

		conf.root = "/var/run/runsc";
		if (geteuid() != 0) {
			if (run && run[0] == '/')
				snprintf(path, sizeof(path), "%s/runsc", run);
			else
				snprintf(path, sizeof(path), "/tmp/runsc-%u", geteuid());
			conf.root = path;
		}
	}
	return parse_overlay(conf.overlay2);
}

// A string as JSON writes it, without the quotes.
static void json_escape(FILE *f, const char *s)
{
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			fprintf(f, "\\%c", *s);
		else if ((unsigned char)*s < 0x20)
			fprintf(f, "\\u%04x", *s);
		else
			fputc(*s, f);
	}
}

static void log_error(const char *msg)
{
	struct timespec ts;
	struct tm tm;
	char when[40];
	FILE *f;
	int fd;

	fd = open(conf.log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
	f = fd >= 0 ? fdopen(fd, "a") : NULL;
	if (!f)
		return;
	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
	if (conf.json_log) {
		fputs("{\"level\":\"error\",\"msg\":\"", f);
		json_escape(f, msg);
		fprintf(f, "\",\"time\":\"%s\"}\n", when);
	} else {
		fprintf(f, "%s error %s\n", when, msg);
	}
	fclose(f);
}

static int fail_msg(const char *msg)
{
	fprintf(stderr, "runsc: %s\n", msg);
	if (conf.log && conf.log[0])
		log_error(msg);
	return EXIT_OWN;
}

int cli_fail(const char *fmt, ...)
{
	char msg[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	return fail_msg(msg);
}

int cli_errno(int err, const char *fmt, ...)
{
	char msg[1024];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	if (n >= 0 && n < (int)sizeof(msg))
		snprintf(msg + n, sizeof(msg) - n, ": %s", strerror(err));
	return fail_msg(msg);
}

// Replaces %ID%, %COMMAND% and %TIMESTAMP% as gVisor does; a path that ends in '/' gets a file name.
static int debug_log_path(const char *id, const char *command, char *buf, size_t size)
{
	const char *s = conf.debug_log;
	char stamp[32];
	size_t n = 0;

	snprintf(stamp, sizeof(stamp), "%lld", (long long)time(NULL));
	while (*s && n < size) {
		const char *with = NULL;
		size_t skip = 0;

		if (strncmp(s, "%ID%", 4) == 0)
			with = id, skip = 4;
		else if (strncmp(s, "%COMMAND%", 9) == 0)
			with = command, skip = 9;
		else if (strncmp(s, "%TIMESTAMP%", 11) == 0)
			with = stamp, skip = 11;
		if (with) {
			n += snprintf(buf + n, size - n, "%s", with);
			s += skip;
		} else {
			buf[n++] = *s++;
		}
	}
	if (n && n < size && buf[n - 1] == '/')
		n += snprintf(buf + n, size - n, "runsc.log.%s.%s.txt", id, command);
	if (n >= size)
		return -ENAMETOOLONG;
	buf[n] = 0;
	return 0;
}

int conf_open_debug_log(const char *id, const char *command, int *ret_fd)
{
	char path[4096];
	int fd;

	if (!conf.debug_log || !conf.debug_log[0]) {
		*ret_fd = -1;
		return 0;
	}
	if (debug_log_path(id, command, path, sizeof(path)) < 0)
		return cli_fail("--debug-log: path is too long");
	fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
	if (fd < 0)
		return cli_errno(errno, "--debug-log: %s", path);
	*ret_fd = fd;
	return 0;
}
