// The kernel: processes, threads, signals, timers, through guests on the fake platform.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/unit/guest.h"

static uint64_t seed;

static void run(guest_fn fn, int want_status)
{
	for (seed = 0; seed < 8; seed++) {
		guest_failures = 0;
		assert_int_equal(guest_run(seed * 77, fn, NULL), want_status);
		assert_int_equal(guest_failures, 0);
	}
}

// --- fork, wait, exit ---------------------------------------------------------------------------

static int child_exit(void *arg)
{
	return (int)(intptr_t)arg;
}

static int t_fork(void *arg)
{
	int64_t pid, w;
	int st;

	CHECK_EQ(G(getpid), 1);
	CHECK_EQ(G(getppid), 0);
	pid = g_fork(child_exit, (void *)7);
	CHECK(pid > 1);
	CHECK_EQ(g_wait(-1, 0, &st), pid);
	CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 7);
	CHECK_EQ(g_wait(-1, 0, &st), -ECHILD);
	pid = g_fork(child_exit, (void *)9);
	w = g_wait(pid, WNOHANG, &st);
	CHECK(w == 0 || w == pid);
	if (w == 0)
		CHECK_EQ(g_wait(pid, 0, &st), pid);
	CHECK_EQ(WEXITSTATUS(st), 9);
	CHECK_EQ(G(wait4, 12345L, 0L, 0L, 0L), -ECHILD);
	CHECK_EQ(G(wait4, -1L, 0L, 0x10000L, 0L), -EINVAL);
	return 3;
}

static void test_fork(void **state)
{
	run(t_fork, 3 << 8);
}

static int tree(void *arg)
{
	intptr_t depth = (intptr_t)arg;
	int st, sum = 1;

	if (depth == 0)
		return 1;
	for (int i = 0; i < 3; i++)
		CHECK(g_fork(tree, (void *)(depth - 1)) > 0);
	for (int i = 0; i < 3; i++) {
		CHECK(g_wait(-1, 0, &st) > 0);
		sum += WEXITSTATUS(st);
	}
	return sum;
}

static int t_tree(void *arg)
{
	return tree((void *)3);
}

static void test_tree(void **state)
{
	run(t_tree, 40 << 8);
}

static int many(void *arg)
{
	int st;

	for (int i = 0; i < 3000; i++) {
		int64_t pid = g_fork(child_exit, NULL);

		if (g_wait(pid, 0, &st) != pid)
			return 1;
	}
	CHECK_EQ(kernel_ntasks(), 1);
	return 0;
}

static void test_many(void **state)
{
	guest_failures = 0;
	assert_int_equal(guest_run(0, many, NULL), 0);
	assert_int_equal(guest_failures, 0);
}

static int64_t reaper; // who takes over orphans

static int grandchild(void *arg)
{
	g_sleep_ns(1000000);
	CHECK_EQ(G(getppid), reaper); // its parent is gone
	return 4;
}

static int orphaning(void *arg)
{
	g_fork(grandchild, NULL);
	return 0;
}

static int t_reparent(void *arg)
{
	int st, n = 0;

	reaper = 1;
	g_fork(orphaning, NULL);
	while (g_wait(-1, 0, &st) > 0)
		n++;
	CHECK_EQ(n, 2);
	return 0;
}

static void test_reparent(void **state)
{
	run(t_reparent, 0);
}

static int subreaper_child(void *arg)
{
	int st, n = 0;

	CHECK_EQ(G(prctl, 36L, 1L), 0); // PR_SET_CHILD_SUBREAPER
	reaper = G(getpid);
	g_fork(orphaning, NULL);
	while (g_wait(-1, 0, &st) > 0)
		n++;
	CHECK_EQ(n, 2);
	return 0;
}

static int t_subreaper(void *arg)
{
	int64_t pid = g_fork(subreaper_child, NULL);
	int st;

	CHECK_EQ(g_wait(pid, 0, &st), pid);
	return WEXITSTATUS(st);
}

static void test_subreaper(void **state)
{
	run(t_subreaper, 0);
}

static int sleeper(void *arg)
{
	for (;;)
		g_sleep_ns(NSEC_PER_SEC);
	return 0;
}

static int t_init_dies(void *arg)
{
	for (int i = 0; i < 5; i++)
		g_fork(sleeper, NULL);
	g_sleep_ns(3 * NSEC_PER_SEC);
	return 5;
}

static void test_init_dies(void **state)
{
	run(t_init_dies, 5 << 8);
}

static int t_autoreap(void *arg)
{
	int st;

	g_sigignore(SIGCHLD);
	for (int i = 0; i < 3; i++)
		CHECK(g_fork(child_exit, NULL) > 0);
	CHECK_EQ(g_wait(-1, 0, &st), -ECHILD); // waits for all of them
	CHECK_EQ(kernel_ntasks(), 1);
	return 0;
}

static void test_autoreap(void **state)
{
	run(t_autoreap, 0);
}

static int t_waitid(void *arg)
{
	int64_t pid = g_fork(child_exit, (void *)5);
	int st;

	CHECK_EQ(G(waitid, (long)P_PID, pid, G_MEM, (long)(WEXITED | WNOWAIT)), 0);
	CHECK_EQ(g_get32(G_MEM), SIGCHLD);
	CHECK_EQ(g_get32(G_MEM + 8), CLD_EXITED);
	CHECK_EQ(g_get32(G_MEM + 16), pid);
	CHECK_EQ(g_get32(G_MEM + 24), 5);
	CHECK_EQ(g_wait(pid, 0, &st), pid); // it is still there
	CHECK_EQ(G(waitid, (long)P_ALL, 0L, G_MEM, 0L), -EINVAL);
	CHECK_EQ(G(waitid, (long)P_ALL, 0L, G_MEM, (long)WEXITED), -ECHILD);
	return 0;
}

static void test_waitid(void **state)
{
	run(t_waitid, 0);
}

// --- exec ---------------------------------------------------------------------------------------

static int exec_target(void *arg)
{
	CHECK_EQ(G(getppid), 1);
	return 42;
}

static int exec_target_any(void *arg)
{
	return 0;
}

static int exec_child(void *arg)
{
	g_exec(1);
	return 1;
}

static int t_exec(void *arg)
{
	int st;
	int64_t pid = g_fork(exec_child, NULL);

	CHECK_EQ(g_wait(pid, 0, &st), pid);
	CHECK_EQ(WEXITSTATUS(st), 42);
	CHECK_EQ(G(execve, 0L, 0L, 0L), -EFAULT);
	g_put(G_MEM, "/nothing", 9);
	CHECK_EQ(G(execve, G_MEM, 0L, 0L), -ENOENT);
	return 0;
}

static void test_exec(void **state)
{
	guest_program(1, exec_target);
	run(t_exec, 0);
}

static int t_vfork(void *arg)
{
	int64_t pid = g_clone(CLONE_VM | CLONE_VFORK | SIGCHLD, exec_child, NULL, 0, 0);
	int st;

	CHECK_EQ(g_wait(pid, 0, &st), pid);
	CHECK_EQ(WEXITSTATUS(st), 42);
	pid = g_clone(CLONE_VM | CLONE_VFORK | SIGCHLD, child_exit, (void *)3, 0, 0);
	CHECK_EQ(g_wait(pid, WNOHANG, &st), pid); // it ended before the parent went on
	CHECK_EQ(WEXITSTATUS(st), 3);
	return 0;
}

static void test_vfork(void **state)
{
	guest_program(1, exec_target);
	run(t_vfork, 0);
}

// --- threads ------------------------------------------------------------------------------------

#define THREAD_FLAGS (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)

static int thread_short(void *arg)
{
	g_call(SYS_exit, 0L, 0L, 0L, 0L, 0L, 0L);
	return 0;
}

static int t_threads(void *arg)
{
	uint32_t one = 1;
	int64_t tid;

	g_put(G_MEM, &one, 4);
	tid = g_clone(THREAD_FLAGS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID, thread_short, NULL, G_MEM + 4, G_MEM);
	CHECK(tid > 1);
	CHECK_EQ(g_get32(G_MEM + 4), tid);
	for (int i = 0; i < 100 && g_get32(G_MEM); i++)
		g_sleep_ns(1000);
	CHECK_EQ(g_get32(G_MEM), 0);
	CHECK_EQ(kernel_ntasks(), 1);
	CHECK_EQ(G(clone, (long)CLONE_THREAD, 0L, 0L, 0L, 0L), -EINVAL);
	CHECK_EQ(G(clone, (long)CLONE_SIGHAND, 0L, 0L, 0L, 0L), -EINVAL);
	return 0;
}

static void test_threads(void **state)
{
	run(t_threads, 0);
}

static int thread_exec(void *arg)
{
	g_exec(2);
	return 1;
}

static int after_thread_exec(void *arg)
{
	CHECK_EQ(G(getpid), 2); // the leader's number
	CHECK_EQ(G(gettid), 2);
	CHECK_EQ(kernel_ntasks(), 2);
	return 11;
}

static int multi(void *arg)
{
	g_clone(THREAD_FLAGS, sleeper, NULL, 0, 0);
	g_clone(THREAD_FLAGS, thread_exec, NULL, 0, 0);
	return sleeper(NULL);
}

static int t_dethread(void *arg)
{
	int64_t pid = g_fork(multi, NULL);
	int st;

	CHECK_EQ(g_wait(pid, 0, &st), pid);
	CHECK_EQ(WEXITSTATUS(st), 11);
	return 0;
}

static void test_dethread(void **state)
{
	guest_program(2, after_thread_exec);
	run(t_dethread, 0);
}

static bool never(void *arg)
{
	return false;
}

static int spinner(void *arg)
{
	g_park(never, NULL); // in the guest for ever
	return 0;
}

static int group(void *arg)
{
	g_clone(THREAD_FLAGS, spinner, NULL, 0, 0);
	g_clone(THREAD_FLAGS, sleeper, NULL, 0, 0);
	return spinner(NULL);
}

static int t_kill_group(void *arg)
{
	int64_t pid = g_fork(group, NULL);
	int st;

	g_sleep_ns(1000000);
	CHECK_EQ(G(kill, pid, (long)SIGTERM), 0);
	CHECK_EQ(g_wait(pid, 0, &st), pid);
	CHECK(WIFSIGNALED(st) && WTERMSIG(st) == SIGTERM);
	return 0;
}

static void test_kill_group(void **state)
{
	run(t_kill_group, 0);
}

// --- signals ------------------------------------------------------------------------------------

static int hits, last_sig, last_code, last_pid;
static uint64_t last_value;

static void count(int sig, uint64_t info, uint64_t uc)
{
	hits++;
	last_sig = sig;
	last_code = (int)g_get32(info + 8);
	last_pid = (int)g_get32(info + 16);
	g_get(info + 24, &last_value, 8);
}

static int t_handler(void *arg)
{
	uint64_t old, pend;
	int64_t me = G(getpid);

	hits = 0;
	CHECK_EQ(g_sigaction(SIGUSR1, count, 4, 0), 0);
	CHECK_EQ(G(kill, me, (long)SIGUSR1), 0);
	CHECK_EQ(hits, 1);
	CHECK_EQ(last_code, SI_USER);
	CHECK_EQ(last_pid, me);
	CHECK_EQ(g_mask(SIG_BLOCK, SIGBIT(SIGUSR1), &old), 0);
	CHECK_EQ(old, 0);
	CHECK_EQ(G(tkill, G(gettid), (long)SIGUSR1), 0);
	CHECK_EQ(G(tkill, G(gettid), (long)SIGUSR1), 0);
	CHECK_EQ(hits, 1);
	CHECK_EQ(G(rt_sigpending, G_MEM, 8L), 0);
	g_get(G_MEM, &pend, 8);
	CHECK_EQ(pend, SIGBIT(SIGUSR1));
	CHECK_EQ(g_mask(SIG_SETMASK, 0, NULL), 0);
	CHECK_EQ(hits, 2); // one, though sent twice
	CHECK_EQ(last_code, SI_TKILL);
	CHECK_EQ(g_sigaction(SIGKILL, count, 0, 0), -EINVAL);
	CHECK_EQ(G(rt_sigaction, 65L, 0L, 0L, 8L), -EINVAL);
	CHECK_EQ(G(kill, 99999L, 0L), -ESRCH);
	CHECK_EQ(G(kill, me, 65L), -EINVAL);
	CHECK_EQ(G(kill, me, (long)SIGTERM), 0); // init does not mind
	return 0;
}

static void test_handler(void **state)
{
	run(t_handler, 0);
}

static int t_queue(void *arg)
{
	uint32_t info[32] = {0};
	int rt = 40;

	hits = 0;
	g_sigaction(rt, count, 4, 0);
	g_mask(SIG_BLOCK, SIGBIT(rt), NULL);
	info[2] = (uint32_t)SI_QUEUE;
	for (uint32_t i = 0; i < 5; i++) {
		info[6] = i;
		g_put(G_MEM, info, sizeof(info));
		CHECK_EQ(G(rt_sigqueueinfo, 1L, (long)rt, G_MEM), 0);
	}
	g_mask(SIG_UNBLOCK, SIGBIT(rt), NULL);
	CHECK_EQ(hits, 5);
	CHECK_EQ(last_value, 4); // in the order sent
	g_mask(SIG_BLOCK, SIGBIT(rt), NULL);
	info[6] = 77;
	g_put(G_MEM, info, sizeof(info));
	G(rt_sigqueueinfo, 1L, (long)rt, G_MEM);
	{
		uint64_t set = SIGBIT(rt), ts[2] = {0, 1000};

		g_put(G_MEM + 256, &set, 8);
		g_put(G_MEM + 264, ts, 16);
		CHECK_EQ(G(rt_sigtimedwait, G_MEM + 256, G_MEM + 512, G_MEM + 264, 8L), rt);
		CHECK_EQ(g_get32(G_MEM + 512 + 24), 77);
		CHECK_EQ(G(rt_sigtimedwait, G_MEM + 256, G_MEM + 512, G_MEM + 264, 8L), -EAGAIN);
	}
	info[2] = 0;
	g_put(G_MEM, info, sizeof(info));
	CHECK_EQ(G(rt_sigqueueinfo, 12345L, (long)rt, G_MEM), -EPERM); // SI_USER may not be forged
	return 0;
}

static void test_queue(void **state)
{
	run(t_queue, 0);
}

static int kill_parent_later(void *arg)
{
	g_sleep_ns(1000000);
	G(kill, 1L, (long)SIGUSR1);
	g_sleep_ns(1000000);
	return 0;
}

static int t_restart(void *arg)
{
	int64_t pid;
	int st;

	hits = 0;
	g_sigaction(SIGUSR1, count, 0x10000000, 0); // SA_RESTART
	pid = g_fork(kill_parent_later, NULL);
	CHECK_EQ(g_wait(pid, 0, &st), pid);
	CHECK_EQ(hits, 1);
	g_sigaction(SIGUSR1, count, 0, 0);
	pid = g_fork(kill_parent_later, NULL);
	CHECK_EQ(g_wait(pid, 0, &st), -EINTR);
	CHECK_EQ(hits, 2);
	CHECK_EQ(g_wait(pid, 0, &st), pid);
	pid = g_fork(kill_parent_later, NULL);
	CHECK_EQ(g_sleep_ns(5 * NSEC_PER_SEC), -EINTR);
	{
		uint64_t rem[2];

		g_get(g_args() + 16, rem, 16);
		CHECK(rem[0] == 4 && rem[1] > 900000000);
	}
	CHECK_EQ(g_wait(pid, 0, &st), pid);
	pid = g_fork(kill_parent_later, NULL);
	CHECK_EQ(G(pause), -EINTR);
	CHECK_EQ(hits, 4);
	CHECK_EQ(g_wait(pid, 0, &st), pid);
	return 0;
}

static void test_restart(void **state)
{
	run(t_restart, 0);
}

static int stopped_child(void *arg)
{
	uint64_t before, after;

	G(clock_gettime, (long)CLOCK_MONOTONIC, G_MEM);
	g_get(G_MEM, &before, 8);
	CHECK_EQ(g_sleep_ns(20 * NSEC_PER_SEC), 0); // goes on after being stopped
	G(clock_gettime, (long)CLOCK_MONOTONIC, G_MEM);
	g_get(G_MEM, &after, 8);
	CHECK(after - before >= 19 && after - before <= 21);
	return 6;
}

static int t_stop(void *arg)
{
	int64_t pid = g_fork(stopped_child, NULL);
	int st;

	g_sleep_ns(NSEC_PER_SEC);
	CHECK_EQ(G(kill, pid, (long)SIGSTOP), 0);
	CHECK_EQ(g_wait(pid, WUNTRACED, &st), pid);
	CHECK(WIFSTOPPED(st) && WSTOPSIG(st) == SIGSTOP);
	CHECK_EQ(g_wait(pid, WUNTRACED | WNOHANG, &st), 0);
	g_sleep_ns(NSEC_PER_SEC);
	CHECK_EQ(G(kill, pid, (long)SIGCONT), 0);
	CHECK_EQ(g_wait(pid, WCONTINUED, &st), pid);
	CHECK(WIFCONTINUED(st));
	CHECK_EQ(g_wait(pid, 0, &st), pid);
	CHECK_EQ(WEXITSTATUS(st), 6);
	pid = g_fork(group, NULL);
	g_sleep_ns(1000000);
	G(kill, pid, (long)SIGSTOP);
	CHECK_EQ(g_wait(pid, WUNTRACED, &st), pid);
	CHECK_EQ(G(kill, pid, (long)SIGKILL), 0); // even while stopped
	CHECK_EQ(g_wait(pid, 0, &st), pid);
	CHECK_EQ(WTERMSIG(st), SIGKILL);
	return 0;
}

static void test_stop(void **state)
{
	run(t_stop, 0);
}

static void nop(int sig, uint64_t info, uint64_t uc)
{
}

static int t_sigchld(void *arg)
{
	int st;
	int64_t pid;

	hits = 0;
	g_sigaction(SIGCHLD, count, 4, 0);
	pid = g_fork(child_exit, (void *)8);
	g_sleep_ns(NSEC_PER_SEC);
	CHECK_EQ(hits, 1);
	CHECK_EQ(last_code, CLD_EXITED);
	CHECK_EQ(last_pid, pid);
	CHECK_EQ(last_value & 0xffffffff, 8);
	CHECK_EQ(g_wait(pid, 0, &st), pid);
	g_sigaction(SIGCHLD, nop, 4, 0);
	return 0;
}

static void test_sigchld(void **state)
{
	run(t_sigchld, 0);
}

static uint64_t seen_addr;

static void on_segv(int sig, uint64_t info, uint64_t uc)
{
	g_get(info + 16, &seen_addr, 8);
	last_code = (int)g_get32(info + 8);
}

static int segv_dies(void *arg)
{
	g_fault(SIGSEGV, SEGV_MAPERR, 0x1234);
	return 1;
}

static int segv_blocked(void *arg)
{
	g_sigaction(SIGSEGV, on_segv, 4, 0);
	g_mask(SIG_BLOCK, SIGBIT(SIGSEGV), NULL);
	g_fault(SIGSEGV, SEGV_MAPERR, 0x1234);
	return 1;
}

static int t_fault(void *arg)
{
	int st;
	int64_t pid;

	g_sigaction(SIGSEGV, on_segv, 4, 0);
	g_fault(SIGSEGV, SEGV_MAPERR, 0x7777);
	CHECK_EQ(seen_addr, 0x7777);
	CHECK_EQ(last_code, SEGV_MAPERR);
	g_sigaction(SIGSEGV, NULL, 0, 0);
	pid = g_fork(segv_dies, NULL);
	CHECK_EQ(g_wait(pid, 0, &st), pid);
	CHECK_EQ(WTERMSIG(st), SIGSEGV);
	pid = g_fork(segv_blocked, NULL);
	CHECK_EQ(g_wait(pid, 0, &st), pid);
	CHECK_EQ(WTERMSIG(st), SIGSEGV);
	return 0;
}

static void test_fault(void **state)
{
	run(t_fault, 0);
}

static uint64_t handler_sp;

static void note_sp(int sig, uint64_t info, uint64_t uc)
{
	handler_sp = uc;
	hits++;
}

static int t_altstack(void *arg)
{
	struct { uint64_t sp; uint32_t flags, pad; uint64_t size; } ss = {G_MEM + 0x4000, 0, 0, 0x4000}, old;

	hits = 0;
	g_put(G_MEM, &ss, sizeof(ss));
	CHECK_EQ(G(sigaltstack, G_MEM, 0L), 0);
	g_sigaction(SIGUSR2, note_sp, 0x08000000, 0);
	G(kill, 1L, (long)SIGUSR2);
	CHECK_EQ(hits, 1);
	CHECK(handler_sp > G_MEM + 0x4000 && handler_sp < G_MEM + 0x8000);
	CHECK_EQ(G(sigaltstack, 0L, G_MEM), 0);
	g_get(G_MEM, &old, sizeof(old));
	CHECK(old.sp == ss.sp && old.size == ss.size && old.flags == 0);
	ss.size = 100;
	g_put(G_MEM, &ss, sizeof(ss));
	CHECK_EQ(G(sigaltstack, G_MEM, 0L), -ENOMEM);
	ss.flags = 2;
	g_put(G_MEM, &ss, sizeof(ss));
	CHECK_EQ(G(sigaltstack, G_MEM, 0L), 0);
	return 0;
}

static void test_altstack(void **state)
{
	run(t_altstack, 0);
}

static int t_suspend(void *arg)
{
	uint64_t empty = 0, old;
	int64_t pid;
	int st;

	hits = 0;
	g_sigaction(SIGUSR1, count, 0, 0);
	g_mask(SIG_BLOCK, SIGBIT(SIGUSR1), NULL);
	pid = g_fork(kill_parent_later, NULL);
	g_put(G_MEM, &empty, 8);
	CHECK_EQ(G(rt_sigsuspend, G_MEM, 8L), -EINTR);
	CHECK_EQ(hits, 1);
	g_mask(SIG_BLOCK, 0, &old);
	CHECK_EQ(old, SIGBIT(SIGUSR1));
	CHECK_EQ(g_wait(pid, 0, &st), pid);
	return 0;
}

static void test_suspend(void **state)
{
	run(t_suspend, 0);
}

// --- sessions and groups ------------------------------------------------------------------------

static int session_child(void *arg)
{
	int64_t me = G(getpid);

	CHECK_EQ(G(getpgrp), 1);
	CHECK_EQ(G(setsid), me);
	CHECK_EQ(G(getpgrp), me);
	CHECK_EQ(G(getsid, 0L), me);
	CHECK_EQ(G(setsid), -EPERM);
	CHECK_EQ(G(setpgid, 0L, 0L), -EPERM);
	return 0;
}

static int t_session(void *arg)
{
	int64_t a, b;
	int st;

	a = g_fork(session_child, NULL);
	CHECK_EQ(g_wait(a, 0, &st), a);
	CHECK_EQ(G(setsid), -EPERM);
	a = g_fork(sleeper, NULL);
	b = g_fork(sleeper, NULL);
	CHECK_EQ(G(setpgid, a, a), 0);
	CHECK_EQ(G(setpgid, b, a), 0);
	CHECK_EQ(G(getpgid, b), a);
	CHECK_EQ(G(setpgid, b, 9999L), -EPERM);
	CHECK_EQ(G(kill, -a, (long)SIGTERM), 0);
	CHECK(g_wait(-a, 0, &st) > 0);
	CHECK_EQ(WTERMSIG(st), SIGTERM);
	CHECK(g_wait(-a, 0, &st) > 0);
	CHECK_EQ(g_wait(-a, 0, &st), -ECHILD);
	CHECK_EQ(G(kill, -a, (long)SIGTERM), -ESRCH);
	return 0;
}

static void test_session(void **state)
{
	run(t_session, 0);
}

static int stopped_orphan(void *arg)
{
	g_sigaction(SIGHUP, NULL, 0, 0);
	return sleeper(NULL);
}

static int job_shell(void *arg)
{
	int64_t c;
	int st;

	G(setsid);
	c = g_fork(stopped_orphan, NULL);
	G(setpgid, c, c);
	G(kill, c, (long)SIGSTOP);
	CHECK_EQ(g_wait(c, WUNTRACED, &st), c);
	return 0; // the stopped job is an orphan now
}

static int t_orphan_group(void *arg)
{
	int st, n = 0, hup = 0;

	g_fork(job_shell, NULL);
	while (g_wait(-1, 0, &st) > 0) {
		n++;
		hup += WIFSIGNALED(st) && WTERMSIG(st) == SIGHUP;
	}
	CHECK_EQ(n, 2);
	CHECK_EQ(hup, 1);
	return 0;
}

static void test_orphan_group(void **state)
{
	run(t_orphan_group, 0);
}

// --- timers -------------------------------------------------------------------------------------

static int t_itimer(void *arg)
{
	uint64_t it[4] = {0, 100000, 0, 100000}, now[2], start[2]; // every 100 ms

	hits = 0;
	g_sigaction(SIGALRM, count, 0x10000000, 0);
	G(clock_gettime, (long)CLOCK_MONOTONIC, G_MEM + 64);
	g_get(G_MEM + 64, start, 16);
	g_put(G_MEM, it, sizeof(it));
	CHECK_EQ(G(setitimer, (long)ITIMER_REAL, G_MEM, 0L), 0);
	while (hits < 5)
		G(pause);
	G(clock_gettime, (long)CLOCK_MONOTONIC, G_MEM + 64);
	g_get(G_MEM + 64, now, 16);
	CHECK(((now[0] - start[0]) * NSEC_PER_SEC + now[1] - start[1]) / 1000000 == 500);
	memset(it, 0, sizeof(it));
	g_put(G_MEM, it, sizeof(it));
	CHECK_EQ(G(setitimer, (long)ITIMER_REAL, G_MEM, G_MEM + 32), 0);
	g_get(G_MEM + 32, it, sizeof(it));
	CHECK_EQ(it[1], 100000);
	CHECK_EQ(G(alarm, 3L), 0);
	CHECK_EQ(G(alarm, 0L), 3);
	CHECK_EQ(G(setitimer, 7L, G_MEM, 0L), -EINVAL);
	return 0;
}

static void test_itimer(void **state)
{
	run(t_itimer, 0);
}

static int t_ptimer(void *arg)
{
	uint32_t ev[16] = {0};
	uint64_t its[4] = {0, 10000000, 0, 10000000}; // every 10 ms

	hits = 0;
	ev[0] = 0x55;
	ev[2] = 41;
	g_sigaction(41, count, 4, 0);
	g_put(G_MEM, ev, sizeof(ev));
	CHECK_EQ(G(timer_create, (long)CLOCK_MONOTONIC, G_MEM, G_MEM + 128), 0);
	CHECK_EQ(g_get32(G_MEM + 128), 0);
	g_put(G_MEM, its, sizeof(its));
	CHECK_EQ(G(timer_settime, 0L, 0L, G_MEM, 0L), 0);
	G(pause);
	CHECK_EQ(hits, 1);
	CHECK_EQ(last_code, SI_TIMER);
	CHECK_EQ(last_value, 0x55);
	CHECK_EQ(G(timer_getoverrun, 0L), 0);
	g_mask(SIG_BLOCK, SIGBIT(41), NULL);
	g_sleep_ns(105000000);
	g_mask(SIG_UNBLOCK, SIGBIT(41), NULL);
	CHECK_EQ(hits, 2);
	CHECK(G(timer_getoverrun, 0L) >= 9);
	CHECK_EQ(G(timer_gettime, 0L, G_MEM), 0);
	CHECK_EQ(G(timer_delete, 0L), 0);
	CHECK_EQ(G(timer_delete, 0L), -EINVAL);
	CHECK_EQ(G(timer_create, 77L, 0L, G_MEM), -EINVAL);
	return 0;
}

static void test_ptimer(void **state)
{
	run(t_ptimer, 0);
}

// --- credentials and the rest -------------------------------------------------------------------

static int t_creds(void *arg)
{
	CHECK_EQ(G(getuid), 0);
	CHECK_EQ(G(prctl, 8L, 0L), 0);                   // PR_SET_KEEPCAPS
	CHECK_EQ(G(setresuid, 1000L, 1000L, 0L), 0);
	CHECK_EQ(G(geteuid), 1000);
	CHECK_EQ(G(setuid, 2000L), -EPERM);
	CHECK_EQ(G(setuid, 0L), 0); // the saved id
	CHECK_EQ(G(geteuid), 0);
	CHECK_EQ(G(setresuid, 1000L, 1000L, 1000L), 0);
	CHECK_EQ(G(setuid, 0L), -EPERM);
	CHECK_EQ(G(sethostname, G_MEM, 3L), -EPERM);
	CHECK_EQ(G(kill, 1L, 0L), 0);
	CHECK_EQ(G(unshare, (long)CLONE_NEWUTS), -EPERM);
	return 0;
}

static void test_creds(void **state)
{
	run(t_creds, 0);
}

static int install_filter(const struct sock_filter *p, uint16_t n)
{
	struct { uint16_t len, pad[3]; uint64_t filter; } prog = {n, {0}, G_MEM + 64};

	g_put(G_MEM, &prog, sizeof(prog));
	g_put(G_MEM + 64, p, n * sizeof(*p));
	return (int)G(seccomp, 1L, 0L, G_MEM);
}

static int sandboxed(void *arg)
{
	const struct sock_filter p[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 77),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sync, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP | 5),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_uname, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_filter bad = BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 64);

	CHECK_EQ(install_filter(&bad, 1), -EINVAL);
	CHECK_EQ(G(setresuid, 1000L, 1000L, 1000L), 0);
	CHECK_EQ(install_filter(p, ARRAY_SIZE(p)), -EACCES);
	CHECK_EQ(G(prctl, 38L, 1L), 0); // PR_SET_NO_NEW_PRIVS
	CHECK_EQ(install_filter(p, ARRAY_SIZE(p)), 0);
	CHECK_EQ(G(getppid), -77);
	CHECK_EQ(G(prctl, 21L), 2); // PR_GET_SECCOMP
	G(uname, G_MEM);
	return 1;
}

static int sandboxed_trap(void *arg)
{
	const struct sock_filter p[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sync, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP | 5),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};

	hits = 0;
	g_sigaction(SIGSYS, count, 4, 0);
	CHECK_EQ(install_filter(p, ARRAY_SIZE(p)), 0);
	CHECK_EQ(G(sync), SYS_sync);
	CHECK_EQ(hits, 1);
	CHECK_EQ(last_value & 0xffffffff, SYS_sync);
	CHECK_EQ(G(seccomp, 0L, 0L, 0L), -EINVAL); // strict after a filter
	return 2;
}

static int t_seccomp(void *arg)
{
	int64_t pid = g_fork(sandboxed, NULL);
	int st;

	CHECK_EQ(g_wait(pid, 0, &st), pid);
	CHECK(WIFSIGNALED(st) && WTERMSIG(st) == SIGSYS);
	pid = g_fork(sandboxed_trap, NULL);
	CHECK_EQ(g_wait(pid, 0, &st), pid);
	CHECK_EQ(WEXITSTATUS(st), 2);
	return 0;
}

static void test_seccomp(void **state)
{
	run(t_seccomp, 0);
}

static int t_misc(void *arg)
{
	struct rlimit rl = {100, 200};
	char name[16] = "a name";

	CHECK_EQ(G(uname, G_MEM), 0);
	g_put(G_MEM, &rl, sizeof(rl));
	CHECK_EQ(G(prlimit64, 0L, (long)RLIMIT_CORE, G_MEM, 0L), 0);
	CHECK_EQ(G(prlimit64, 0L, (long)RLIMIT_CORE, 0L, G_MEM + 64), 0);
	CHECK_EQ(g_get32(G_MEM + 64), 100);
	g_put(G_MEM, name, sizeof(name));
	CHECK_EQ(G(prctl, 15L, G_MEM), 0);
	CHECK_EQ(G(prctl, 16L, G_MEM + 64), 0);
	g_get(G_MEM + 64, name, sizeof(name));
	CHECK(!strcmp(name, "a name"));
	CHECK_EQ(G(getrandom, G_MEM, 5000L, 0L), 5000);
	CHECK_EQ(G(getrandom, G_MEM, 10L, 64L), -EINVAL);
	CHECK_EQ(G(kcmp, 1L, 1L, 1L, 0L, 0L), 0);
	CHECK(G(pidfd_open, 1L, 0L) >= 0);
	CHECK_EQ(g_call(999999, 0L, 0L, 0L, 0L, 0L, 0L), -ENOSYS);
	CHECK_EQ(g_call(UINT32_MAX, 0L, 0L, 0L, 0L, 0L, 0L), -ENOSYS);
	CHECK_EQ(G(getpriority, 0L, 0L), 20);
	CHECK_EQ(G(setpriority, 0L, 0L, 5L), 0);
	CHECK_EQ(G(getpriority, 0L, 0L), 15);
	return 0;
}

static void test_misc(void **state)
{
	run(t_misc, 0);
}

// --- anything goes ------------------------------------------------------------------------------

static uint64_t rnd_state;

static uint64_t rnd(uint64_t n)
{
	rnd_state ^= rnd_state << 13;
	rnd_state ^= rnd_state >> 7;
	rnd_state ^= rnd_state << 17;
	return rnd_state % n;
}

static int chaos(void *arg);

static int chaos_thread(void *arg)
{
	chaos(arg);
	g_call(SYS_exit, 1L, 0L, 0L, 0L, 0L, 0L);
	return 0;
}

static bool coin(void *arg)
{
	return rnd(4) == 0;
}

static void chaos_signal(void)
{
	static const int sigs[] = {SIGUSR1, SIGUSR1, SIGSTOP, SIGCONT, SIGCONT, SIGTERM, SIGKILL, SIGCHLD, 40, SIGTSTP};
	int64_t pid = 1 + (int64_t)rnd(40);
	long sig = sigs[rnd(ARRAY_SIZE(sigs))];

	if (rnd(3) == 0)
		G(tkill, pid, sig);
	else
		G(kill, rnd(8) == 0 ? -pid : pid, sig);
}

static void chaos_step(intptr_t depth)
{
	uint64_t it[4] = {0, 0, 0, 1 + rnd(2000)};
	int st;

	switch (rnd(16)) {
	case 0:
		if (depth)
			g_fork(chaos, (void *)(depth - 1));
		break;
	case 1:
		if (depth)
			g_clone(THREAD_FLAGS | CLONE_CHILD_CLEARTID, chaos_thread, (void *)(depth - 1), 0, G_MEM + 0x100);
		break;
	case 2:
		if (depth)
			g_clone(CLONE_VM | CLONE_VFORK | SIGCHLD, rnd(2) ? exec_child : chaos, (void *)(depth - 1), 0, 0);
		break;
	case 3:
		g_wait(-1, (int)rnd(2) * WNOHANG | (int)rnd(2) * WUNTRACED, &st);
		break;
	case 4:
		g_sleep_ns(rnd(100000));
		break;
	case 5:
		g_mask(rnd(2) ? SIG_BLOCK : SIG_UNBLOCK, SIGBIT(SIGUSR1) | SIGBIT(40), NULL);
		break;
	case 6:
		if (rnd(2))
			G(setsid);
		else
			G(setpgid, 0L, (long)rnd(40));
		break;
	case 7:
		g_park(coin, NULL);
		break;
	case 8:
		g_put(G_MEM + 0x200, it, sizeof(it));
		G(setitimer, (long)ITIMER_REAL, G_MEM + 0x200, 0L);
		break;
	case 9:
		if (rnd(6) == 0)
			g_exec(3);
		break;
	case 10:
		if (rnd(10) == 0)
			g_exit(1);
		break;
	case 11:
		G(prctl, 36L, (long)rnd(2)); // a subreaper, or not
		break;
	case 12:
		if (rnd(20) == 0)
			g_fault(SIGSEGV, SEGV_MAPERR, 0x10);
		break;
	default:
		chaos_signal();
	}
}

static int chaos(void *arg)
{
	for (int i = 0; i < 15; i++)
		chaos_step((intptr_t)arg);
	return 0;
}

static void show(struct thread_group *tg, void *arg)
{
	struct task *t;

	print_error("process %d of %d: state %d, %u threads, %u live, exit %d, exec %d, stopped %d\n", tg->pid->nr,
		    tg->parent ? tg->parent->pid->nr : 0, tg->state, tg->nthreads, tg->live_threads, tg->group_exit,
		    tg->execing, tg->stopped);
	TAILQ_FOREACH(t, &tg->threads, tg_link)
		print_error("  %d: call %u%s%s%s%s\n", t->tid->nr, t->sc_nr, t->in_syscall ? " in call" : "",
			    t->exiting ? " exiting" : "", t->killed ? " killed" : "", t->vt.st.sleeping ? " asleep" : "");
}

static int t_chaos(void *arg)
{
	int st;

	g_sigaction(SIGUSR1, nop, rnd(2) * 0x10000000, 0);
	g_sigaction(40, nop, 0, 0);
	g_sigaction(SIGALRM, nop, 0, 0);
	for (int i = 0; i < 4; i++)
		g_fork(chaos, (void *)3);
	g_sleep_ns(3000000);
	for (int i = 0; i < 100 && G(kill, -1L, (long)SIGKILL) != -ESRCH; i++) {
		g_sleep_ns(1000);
		while (g_wait(-1, WNOHANG | __WALL, &st) > 0)
			;
	}
	if (kernel_ntasks() != 1)
		kernel_each_group(show, NULL);
	CHECK_EQ(kernel_ntasks(), 1);
	return 0;
}

static void test_chaos(void **state)
{
	guest_program(1, exec_target_any);
	guest_program(3, exec_target_any);
	for (seed = 1; seed <= 400; seed++) {
		guest_failures = 0;
		rnd_state = seed * 0x9e3779b97f4a7c15ULL;
		if (guest_run(seed, t_chaos, NULL) != 0 || guest_failures) {
			print_error("seed %lu\n", seed);
			fail();
		}
	}
}

static void test_number_of_checks(void **state)
{
	assert_true(guest_checks > 60);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fork), cmocka_unit_test(test_tree), cmocka_unit_test(test_many),
		cmocka_unit_test(test_reparent), cmocka_unit_test(test_subreaper), cmocka_unit_test(test_init_dies),
		cmocka_unit_test(test_autoreap), cmocka_unit_test(test_waitid), cmocka_unit_test(test_exec),
		cmocka_unit_test(test_vfork), cmocka_unit_test(test_threads), cmocka_unit_test(test_dethread),
		cmocka_unit_test(test_kill_group), cmocka_unit_test(test_handler), cmocka_unit_test(test_queue),
		cmocka_unit_test(test_restart), cmocka_unit_test(test_stop), cmocka_unit_test(test_sigchld),
		cmocka_unit_test(test_fault), cmocka_unit_test(test_altstack), cmocka_unit_test(test_suspend),
		cmocka_unit_test(test_session), cmocka_unit_test(test_orphan_group), cmocka_unit_test(test_itimer),
		cmocka_unit_test(test_ptimer), cmocka_unit_test(test_creds), cmocka_unit_test(test_misc), cmocka_unit_test(test_seccomp),
		cmocka_unit_test(test_chaos), cmocka_unit_test(test_number_of_checks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
