#include "platform/filter/filter.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int filter_install(const struct filter_prog *p, unsigned flags)
{
	struct sock_fprog prog = {.len = p->len, .filter = (struct sock_filter *)p->code};
	long r;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
	if (r < 0)
		return -errno;
	// TSYNC answers with the id of a thread that could not follow.
	return r > 0 && (flags & SECCOMP_FILTER_FLAG_TSYNC) && !(flags & SECCOMP_FILTER_FLAG_NEW_LISTENER) ? -EBUSY : (int)r;
}
