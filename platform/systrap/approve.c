// Clones need our approval: a stub process or thread comes into being only where an operation that we
// queued makes it (seccomp user notification, seccomp_unotify(2)). What a guest tries by itself, by
// jumping into the stub's system calls, is refused. Approval cannot be raced: all that counts is in
// the blocked thread's registers.
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "platform/systrap/internal.h"

// A signal (a kick, a freezer's) makes the host start a clone again, before or after our approval: then it asks again,
// so many times a clone.
#define AGAIN 4
#define MAX_AGAIN 64u

// c has queued operations that will clone. What its address space may do is counted as a whole: which of its threads asks
// is not known, and the one that is asked for need not be the first to come to its end.
void st_expect_clone(struct st_ctx *c, bool fork)
{
	struct systrap *st = ctx_st(c);
	struct st_as *as = ctx_as(c);

	if (st->notif_fd < 0)
		return;
	if (!c->expected) {
		c->expected = true;
		if (as->n_expected++ == 0)
			LIST_INSERT_HEAD(&st->expected, as, alink);
	}
	if (fork)
		as->may_fork++;
	else
		as->may_thread++;
	as->may_again = MIN(as->may_again + AGAIN, MAX_AGAIN);
}

// c's operations are over, one way or another.
void st_expect_none(struct st_ctx *c)
{
	struct st_as *as = ctx_as(c);

	if (!c->expected)
		return;
	c->expected = false;
	kassert(as->n_expected > 0);
	if (--as->n_expected)
		return;
	as->may_fork = as->may_thread = as->may_again = 0;
	LIST_REMOVE(as, alink);
}

// tid is a thread of a stub that is about to clone with flags: is that what we wait for?
static bool is_expected(struct systrap *st, uint32_t tid, uint64_t flags)
{
	struct st_as *as;

	LIST_FOREACH(as, &st->expected, alink) {
		uint32_t *may = flags == STUB_FORK_FLAGS ? &as->may_fork : &as->may_thread;

		if (!*may)
			may = &as->may_again;
		if (!*may || !as->pid || syscall(SYS_tgkill, as->pid, tid, 0) < 0)
			continue;
		--*may;
		return true;
	}
	return false;
}

void st_approve(struct systrap *st)
{
	struct pollfd p = {.fd = st->notif_fd, .events = POLLIN};

	while (poll(&p, 1, 0) == 1 && p.revents & POLLIN) {
		struct seccomp_notif n = {0};
		struct seccomp_notif_resp r = {0};

		if (ioctl(st->notif_fd, SECCOMP_IOCTL_NOTIF_RECV, &n) < 0)
			continue; // it died meanwhile
		r.id = n.id;
		if (n.pid && n.data.nr == SYS_clone && is_expected(st, n.pid, n.data.args[0]))
			r.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
		else
			r.error = -EPERM;
		if (r.error)
			log_warn("systrap: a guest tried to clone its stub by itself");
		ioctl(st->notif_fd, SECCOMP_IOCTL_NOTIF_SEND, &r); // or it died
	}
}
