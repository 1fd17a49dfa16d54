// Processes: fork(2), clone(2), execve(2), exit(2), wait(2) and who one is.
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

#include "platform/base/base.h"
#include "sentry/kernel/clone.h"
#include "sentry/kernel/exec.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/wait.h"
#include "sentry/syscalls/syscalls.h"
#include "sentry/syscalls/wire.h"

// --- new tasks ----------------------------------------------------------------------------------

SYSCALL(fork)
{
	struct clone_req q = {.exit_signal = SIGCHLD};

	return task_clone(t, &q);
}

SYSCALL(vfork)
{
	struct clone_req q = {.flags = CLONE_VFORK | CLONE_VM, .exit_signal = SIGCHLD};

	return task_clone(t, &q);
}

SYSCALL(clone)
{
	struct clone_req q = {.flags = (uint32_t)a[0] & ~(uint64_t)(CSIGNAL | CLONE_DETACHED),
			      .exit_signal = (int)(a[0] & CSIGNAL),
			      .pidfd = a[2], .parent_tid = a[2], .child_tid = a[3], .stack = a[1], .tls = a[4]};

	if ((q.flags & CLONE_PIDFD) && (q.flags & CLONE_PARENT_SETTID || a[0] & CLONE_DETACHED))
		return -EINVAL;
	if ((q.flags & CLONE_SETTLS) && q.tls >= PF_GUEST_TOP)
		return -EPERM;
	return task_clone(t, &q);
}

struct wire_clone_args {
	uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};
#define CLONE3_SIZE_VER0 64
#define CLONE3_FLAGS                                                                               \
	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_PIDFD | CLONE_PTRACE | CLONE_VFORK |              \
	 CLONE_PARENT | CLONE_THREAD | CLONE_NEWNS | CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID |            \
	 CLONE_CHILD_CLEARTID | CLONE_UNTRACED | CLONE_CHILD_SETTID | CLONE_NEWCGROUP | CLONE_NEWUTS |               \
	 CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_IO | KCLONE_CLEAR_SIGHAND | KCLONE_NEWTIME)

static int clone3_check(const struct task *t, const struct wire_clone_args *w)
{
	if (w->flags & KCLONE_INTO_CGROUP)
		return -EOPNOTSUPP;
	if (w->flags & ~(uint64_t)CLONE3_FLAGS || (w->flags & KCLONE_NEWTIME))
		return -EINVAL;
	if ((w->flags & (CLONE_SIGHAND | KCLONE_CLEAR_SIGHAND)) == (CLONE_SIGHAND | KCLONE_CLEAR_SIGHAND))
		return -EINVAL;
	if ((w->flags & (CLONE_THREAD | CLONE_PARENT)) && w->exit_signal)
		return -EINVAL;
	if (w->exit_signal > KNSIG)
		return -EINVAL;
	if (!w->stack != !w->stack_size || w->stack + w->stack_size < w->stack)
		return -EINVAL;
	if (w->stack && !access_ok(GADDR(w->stack), w->stack_size))
		return -EINVAL;
	if ((w->flags & CLONE_SETTLS) && w->tls >= PF_GUEST_TOP)
		return -EPERM;
	if (!w->set_tid != !w->set_tid_size || w->set_tid_size > 32)
		return -EINVAL;
	if (w->set_tid && !task_capable(t, CAP_SYS_ADMIN) && !task_capable(t, CAP_CHECKPOINT_RESTORE))
		return -EPERM;
	return w->set_tid_size > 1 ? -EINVAL : 0;
}

SYSCALL(clone3)
{
	struct wire_clone_args w;
	struct clone_req q;
	int r;

	if (a[1] < CLONE3_SIZE_VER0)
		return -EINVAL;
	if (a[1] > PAGE_SIZE)
		return -E2BIG;
	r = copy_in_struct(&w, sizeof(w), GADDR(a[0]), a[1]);
	if (r == 0)
		r = clone3_check(t, &w);
	if (r < 0)
		return r;
	q = (struct clone_req){.flags = w.flags, .exit_signal = (int)w.exit_signal, .pidfd = w.pidfd,
			       .child_tid = w.child_tid, .parent_tid = w.parent_tid,
			       .stack = w.stack + w.stack_size, .tls = w.tls};
	if (w.set_tid) {
		r = copy_in_obj(&q.set_tid, GADDR(w.set_tid));
		if (r < 0)
			return r;
		if (q.set_tid <= 0)
			return -EINVAL;
	}
	return task_clone(t, &q);
}

SYSCALL(set_tid_address)
{
	t->clear_child_tid = a[0];
	return t->tid->nr;
}

// --- exec ---------------------------------------------------------------------------------------

static int64_t do_exec(struct task *t, int dirfd, uint64_t path, uint64_t argv, uint64_t envp, int flags)
{
	struct exec_args e = {.dirfd = dirfd, .flags = flags};
	char *name;
	int r;

	r = copy_in_path(&name, GADDR(path));
	if (r == 0)
		r = exec_copy_strings(t, argv, envp, &e);
	if (r < 0)
		return r;
	e.path = name;
	r = task_exec(t, &e);
	exec_free_strings(&e);
	if (r == 0)
		t->no_result = true;
	return r;
}

SYSCALL(execve)
{
	return do_exec(t, AT_FDCWD, a[0], a[1], a[2], 0);
}

SYSCALL(execveat)
{
	int flags = arg_int(a[4]);

	if (flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW))
		return -EINVAL;
	return do_exec(t, arg_int(a[0]), a[1], a[2], a[3], flags);
}

// --- the end ------------------------------------------------------------------------------------

SYSCALL(exit)
{
	task_exit(t, (arg_int(a[0]) & 0xff) << 8);
}

SYSCALL(exit_group)
{
	task_exit_group(t, (arg_int(a[0]) & 0xff) << 8);
}

static int put_rusage(uint64_t addr, const struct rusage_ns *ru)
{
	struct wire_rusage w;

	wire_rusage(ru, &w);
	return copy_out(GADDR(addr), &w, sizeof(w));
}

// Numbers that exist only as somebody's group or session still count.
static int by_number(int32_t nr, struct pid **ret)
{
	struct pid *p = pid_find(nr);

	if (!p)
		return -ECHILD;
	*ret = pid_get(p);
	return 0;
}

static int wait4_whom(const struct task *t, int pid, struct wait_req *w)
{
	if (pid == -1)
		return 0;
	if (pid == INT32_MIN)
		return -ESRCH;
	if (pid == 0) {
		w->by_pgrp = pid_get(t->tg->pgrp);
		return 0;
	}
	return pid < 0 ? by_number(-pid, &w->by_pgrp) : by_number(pid, &w->by_pid);
}

SYSCALL(wait4)
{
	int options = arg_int(a[2]);
	struct wait_req w = {.options = options | WEXITED};
	struct wait_result res;
	int r;

	if (options & ~(WNOHANG | WUNTRACED | WCONTINUED | __WNOTHREAD | __WCLONE | __WALL))
		return -EINVAL;
	r = wait4_whom(t, arg_int(a[0]), &w);
	if (r < 0)
		return r;
	r = task_wait(t, &w, &res);
	pid_put(w.by_pid);
	pid_put(w.by_pgrp);
	if (r <= 0)
		return r;
	if (a[1] && copy_out(GADDR(a[1]), &res.status, sizeof(res.status)) < 0)
		return -EFAULT;
	if (a[3] && put_rusage(a[3], &res.ru) < 0)
		return -EFAULT;
	return res.pid;
}

static int waitid_whom(const struct task *t, int type, int id, struct wait_req *w)
{
	struct file *f;

	switch (type) {
	case P_ALL:
		return 0;
	case P_PID:
		return id <= 0 ? -EINVAL : by_number(id, &w->by_pid);
	case P_PGID:
		if (id < 0)
			return -EINVAL;
		if (id)
			return by_number(id, &w->by_pgrp);
		w->by_pgrp = pid_get(t->tg->pgrp);
		return 0;
	case P_PIDFD:
		if (id < 0)
			return -EINVAL;
		f = fd_peek(id);
		if (!f || !pidfd_pid(f))
			return -EBADF;
		w->by_pid = pid_get(pidfd_pid(f));
		if (f->flags & O_NONBLOCK)
			w->options |= WNOHANG;
		return 0;
	default:
		return -EINVAL;
	}
}

SYSCALL(waitid)
{
	struct { int32_t signo, err, code, pad, pid; uint32_t uid; int32_t status; } info = {0};
	struct wait_req w = {.options = arg_int(a[3])};
	bool nonblock_fd;
	struct wait_result res;
	int r;

	if (w.options & ~(WNOHANG | WNOWAIT | WEXITED | WSTOPPED | WCONTINUED | __WNOTHREAD | __WCLONE | __WALL))
		return -EINVAL;
	if (!(w.options & (WEXITED | WSTOPPED | WCONTINUED)))
		return -EINVAL;
	nonblock_fd = !(w.options & WNOHANG);
	r = waitid_whom(t, arg_int(a[0]), arg_int(a[1]), &w);
	if (r < 0)
		return r;
	nonblock_fd = nonblock_fd && (w.options & WNOHANG);
	r = task_wait(t, &w, &res);
	pid_put(w.by_pid);
	pid_put(w.by_pgrp);
	if (r < 0)
		return r;
	if (r == 0 && nonblock_fd)
		return -EAGAIN;
	if (r == 1) {
		info.signo = SIGCHLD;
		info.code = res.code;
		info.pid = res.pid;
		info.uid = res.uid;
		info.status = res.value;
		if (a[4] && put_rusage(a[4], &res.ru) < 0)
			return -EFAULT;
	}
	return a[2] && copy_out(GADDR(a[2]), &info, sizeof(info)) < 0 ? -EFAULT : 0;
}

// --- numbers ------------------------------------------------------------------------------------

SYSCALL(getpid)
{
	return t->tg->pid->nr;
}

SYSCALL(gettid)
{
	return t->tid->nr;
}

SYSCALL(getppid)
{
	const struct thread_group *p = t->tg->parent;

	return p && p->pid_ns == t->pid_ns ? p->pid->nr : 0;
}

SYSCALL(getpgrp)
{
	return t->tg->pgrp->nr;
}

SYSCALL(getpgid)
{
	struct task *o = arg_int(a[0]) ? task_find(arg_int(a[0])) : t;

	return o && o->tg->pgrp ? o->tg->pgrp->nr : -ESRCH;
}

SYSCALL(getsid)
{
	struct task *o = arg_int(a[0]) ? task_find(arg_int(a[0])) : t;

	return o && o->tg->session ? o->tg->session->nr : -ESRCH;
}

SYSCALL(setpgid)
{
	int32_t pid = arg_int(a[0]), pgid = arg_int(a[1]);
	struct thread_group *me = t->tg, *tg;
	struct pid *pgrp;

	if (pgid < 0)
		return -EINVAL;
	tg = pid ? process_find(pid) : me;
	if (!tg || tg->state == TG_ZOMBIE)
		return -ESRCH;
	if (tg->parent == me && tg != me) {
		if (tg->session != me->session)
			return -EPERM;
		if (tg->did_exec)
			return -EACCES;
	} else if (tg != me) {
		return -ESRCH;
	}
	if (tg->session_leader)
		return -EPERM;
	pgrp = pgid && pgid != tg->pid->nr ? pid_find(pgid) : tg->pid;
	if (!pgrp)
		return -EPERM;
	if (pgrp != tg->pid) {
		// It must be a group of this session.
		struct thread_group *member = LIST_FIRST(&pgrp->pgrp);

		if (!member || member->session != me->session)
			return -EPERM;
	}
	if (tg->pgrp != pgrp)
		tg_set_pgrp(tg, pgrp);
	return 0;
}

SYSCALL(setsid)
{
	struct thread_group *tg = t->tg;

	if (tg->session_leader || !LIST_EMPTY(&tg->pid->pgrp))
		return -EPERM;
	tg_set_session(tg, tg->pid);
	tg_set_pgrp(tg, tg->pid);
	tg->session_leader = true;
	tg->tty = NULL;
	return tg->pid->nr;
}
