// Facts about the machine that only the host's files know, read while there still are any.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "platform/base/base.h"
#include "platform/base/log.h"
#include "platform/base/slab.h"
#include "sentry/boot/internal.h"
#include "sentry/fs/proc/proc.h"

#define TEXT_MAX (1UL << 20)

// The file's text in memory that lives as long as the process; NULL: cannot be read.
static char *read_text(const char *path, size_t *ret_len)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0, cap = 64UL << 10;
	char *buf, *more;
	ssize_t n;

	if (fd < 0)
		return NULL;
	buf = malloc(cap);
	while (buf && (n = read(fd, buf + len, cap - len - 1)) > 0) {
		len += n;
		if (cap - len > 1)
			continue;
		if (cap >= TEXT_MAX)
			break;
		more = realloc(buf, cap *= 2);
		if (!more)
			break;
		buf = more;
	}
	if (!buf)
		return NULL;
	buf[len] = 0;
	more = realloc(buf, len + 1);
	*ret_len = len;
	return more ? more : buf;
}

void boot_host_info(void)
{
	size_t len;
	long n = sysconf(_SC_NPROCESSORS_CONF);

	host_info.cpuinfo = read_text("/proc/cpuinfo", &host_info.cpuinfo_len);
	host_info.thp_enabled = read_text("/sys/kernel/mm/transparent_hugepage/enabled", &len);
	host_info.ncpus = n > 0 ? (unsigned)n : 1;
	if (!host_info.cpuinfo)
		log_warn("the host's /proc/cpuinfo cannot be read: a short one is made up");
}
