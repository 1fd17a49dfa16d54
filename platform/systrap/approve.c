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

// A signal (a kick, a freezer's) makes the host start a clone again, before or after our approval: then it asks again.
#define MAX_AGAIN 16

// c has queued operations that will clone.
void st_expect_clone(struct st_ctx *c, bool fork)
{
	struct systrap *st = ctx_st(c);

	if (st->notif_fd < 0)
		return;
	if (!c->expected) {
		TAILQ_INSERT_TAIL(&st->expected, c, alink);
		c->expected = true;
		c->may_again = 0;
	}
	if (fork)
		c->may_fork++;
	else
		c->may_thread++;
}

void st_expect_none(struct st_ctx *c)
{
	if (!c->expected)
		return;
	c->expected = false;
	c->may_fork = c->may_thread = 0;
	TAILQ_REMOVE(&ctx_st(c)->expected, c, alink);
}

// tid is a thread of a stub that is about to clone with flags: is that what we wait for?
static bool is_expected(struct systrap *st, uint32_t tid, uint64_t flags)
{
	struct st_ctx *c;

	TAILQ_FOREACH(c, &st->expected, alink) {
		uint32_t *may = flags == STUB_FORK_FLAGS ? &c->may_fork : &c->may_thread;
		pid_t pid = ctx_as(c)->pid;

		if (!pid || (!*may && (!c->may_again || c->cloner != tid || c->clone_flags != flags)) ||
		    syscall(SYS_tgkill, pid, tid, 0) < 0)
			continue;
		if (!*may) {
			c->may_again--;
			return true;
		}
		--*may;
		if (!c->may_again || c->cloner != tid || c->clone_flags != flags)
			c->may_again = MAX_AGAIN;
		c->cloner = tid;
		c->clone_flags = flags;
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
