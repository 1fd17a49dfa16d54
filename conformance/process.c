// fork(2), wait(2), execve(2), clone(2), sessions and process groups, credentials, rlimits, prctl(2).
#include "check.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/times.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static char *self;

static int child_status(void (*fn)(void))
{
	int s = -1;
	pid_t p = fork();

	if (p == 0) {
		fn();
		_exit(0);
	}
	return waitpid(p, &s, 0) == p ? s : -1;
}
static void exit_42(void) { _exit(42); }
static void die_kill(void) { kill(getpid(), SIGKILL); }
static void die_abort(void) { abort(); }
static void die_segv(void) { *(volatile int *)8 = 1; }

static void waits(void)
{
	siginfo_t si;
	struct rusage ru;
	int s;
	pid_t p;

	s = child_status(exit_42);
	CHECK("wait.exit_status", WIFEXITED(s) && WEXITSTATUS(s) == 42);
	s = child_status(die_kill);
	CHECK("wait.killed", WIFSIGNALED(s) && WTERMSIG(s) == SIGKILL && !WCOREDUMP(s));
	s = child_status(die_abort);
	CHECK("wait.abort", WIFSIGNALED(s) && WTERMSIG(s) == SIGABRT);
	s = child_status(die_segv);
	CHECK("wait.segv", WIFSIGNALED(s) && WTERMSIG(s) == SIGSEGV);
	CHECK_ERR("wait.echild", waitpid(-1, &s, 0), ECHILD);
	CHECK_ERR("wait.bad_options", waitpid(-1, &s, 0x40000), EINVAL);
	p = fork();
	if (!p) {
		pause();
		_exit(0);
	}
	CHECK("wait.nohang", waitpid(p, &s, WNOHANG) == 0);
	kill(p, SIGSTOP);
	CHECK("wait.stopped", waitpid(p, &s, WUNTRACED) == p && WIFSTOPPED(s) && WSTOPSIG(s) == SIGSTOP);
	kill(p, SIGCONT);
	CHECK("wait.continued", waitpid(p, &s, WCONTINUED) == p && WIFCONTINUED(s));
	kill(p, SIGTERM);
	memset(&si, 0, sizeof(si));
	CHECK("waitid.nowait", waitid(P_PID, p, &si, WEXITED | WNOWAIT) == 0 && si.si_pid == p && si.si_code == CLD_KILLED && si.si_status == SIGTERM);
	CHECK("wait4.rusage", wait4(p, &s, 0, &ru) == p && WTERMSIG(s) == SIGTERM);
	CHECK_ERR("waitid.no_event_kind", waitid(P_ALL, 0, &si, 0), EINVAL);
	p = fork();
	if (!p)
		_exit(3);
	CHECK("waitid.exited", waitid(P_ALL, 0, &si, WEXITED) == 0 && si.si_signo == SIGCHLD && si.si_code == CLD_EXITED && si.si_status == 3);
	p = fork();
	if (!p) {
		setpgid(0, 0);
		_exit(0);
	}
	setpgid(p, p);
	CHECK("wait.pgid", waitpid(-p, &s, 0) == p);
	signal(SIGCHLD, SIG_IGN);
	p = fork();
	if (!p)
		_exit(0);
	CHECK_ERR("wait.autoreap", waitpid(p, &s, 0), ECHILD);
	signal(SIGCHLD, SIG_DFL);
}

static int clone_fn(void *arg)
{
	*(int *)arg = 77;
	return 5;
}

static void clones(void)
{
	static char stack[65536] __attribute__((aligned(16)));
	struct clone_args ca = {.exit_signal = SIGCHLD};
	siginfo_t si;
	int v = 0, s, pidfd = -1;
	pid_t p, tid = 0;

	p = clone(clone_fn, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, &v);
	CHECK("clone.vm_vfork", p > 0 && v == 77 && waitpid(p, &s, 0) == p && WEXITSTATUS(s) == 5);
	p = clone(clone_fn, stack + sizeof(stack), CLONE_PARENT_SETTID | SIGCHLD, &v, &tid);
	CHECK("clone.parent_settid", p > 0 && tid == p && waitpid(p, &s, 0) == p);
	p = clone(clone_fn, stack + sizeof(stack), 0, &v);
	CHECK_ERR("clone.no_exit_signal_needs_wclone", waitpid(p, &s, 0), ECHILD);
	CHECK("clone.wclone", waitpid(p, &s, __WCLONE) == p);
	CHECK_ERR("clone.sighand_needs_vm", syscall(SYS_clone, CLONE_SIGHAND | SIGCHLD, 0, 0, 0, 0), EINVAL);
	CHECK_ERR("clone.thread_needs_sighand", syscall(SYS_clone, CLONE_THREAD | CLONE_VM, 0, 0, 0, 0), EINVAL);
	p = syscall(SYS_clone3, &ca, sizeof(ca));
	if (p == 0)
		_exit(9);
	CHECK("clone3.fork", p > 0 && waitpid(p, &s, 0) == p && WEXITSTATUS(s) == 9);
	ca.flags = CLONE_PIDFD;
	ca.pidfd = (unsigned long)&pidfd;
	p = syscall(SYS_clone3, &ca, sizeof(ca));
	if (p == 0)
		_exit(1);
	CHECK("clone3.pidfd", p > 0 && pidfd >= 0 && waitid(P_PIDFD, pidfd, &si, WEXITED) == 0 && si.si_pid == p);
	close(pidfd);
	CHECK_ERR("clone3.size_small", syscall(SYS_clone3, &ca, 8), EINVAL);
	p = vfork();
	if (p == 0)
		_exit(4);
	CHECK("vfork", waitpid(p, &s, 0) == p && WEXITSTATUS(s) == 4);
}

static void execs(void)
{
	char *argv[] = {self, "child", "a b", NULL}, *envp[] = {"X=1", NULL};
	int s, fds[2], fd;
	pid_t p;

	p = fork();
	if (!p) {
		execve(self, argv, envp);
		_exit(99);
	}
	CHECK("exec.args_env", waitpid(p, &s, 0) == p && WEXITSTATUS(s) == 21);
	CHECK("posix_spawn", posix_spawn(&p, self, NULL, NULL, argv, envp) == 0 && waitpid(p, &s, 0) == p && WEXITSTATUS(s) == 21);
	CHECK_ERR("exec.enoent", execve("/nonexistent", argv, envp), ENOENT);
	CHECK_ERR("exec.eacces_dir", execve("/", argv, envp), EACCES);
	fd = open("/tmp/conf_exec", O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0644);
	close(fd);
	CHECK_ERR("exec.eacces_mode", execve("/tmp/conf_exec", argv, envp), EACCES);
	chmod("/tmp/conf_exec", 0755);
	CHECK_ERR("exec.enoexec_empty", execve("/tmp/conf_exec", argv, envp), ENOEXEC);
	fd = open("/tmp/conf_exec", O_WRONLY | O_CLOEXEC);
	CHECK_ERR("exec.etxtbsy", execve("/tmp/conf_exec", argv, envp), ETXTBSY);
	CHECK("exec.write_script", write(fd, "#!/bin/sh\nexit 6\n", 17) == 17);
	close(fd);
	p = fork();
	if (!p) {
		execve("/tmp/conf_exec", argv, envp);
		_exit(99);
	}
	CHECK("exec.script", waitpid(p, &s, 0) == p && WEXITSTATUS(s) == 6);
	unlink("/tmp/conf_exec");
	if (pipe2(fds, O_CLOEXEC))
		perror("pipe2");
	p = fork();
	if (!p) {
		char num[16], *av[] = {self, "fdcheck", num, NULL};
		snprintf(num, sizeof(num), "%d", fds[0]);
		execve(self, av, envp);
		_exit(99);
	}
	CHECK("exec.cloexec", waitpid(p, &s, 0) == p && WEXITSTATUS(s) == 0);
	fd = open(self, O_RDONLY | O_CLOEXEC);
	p = fork();
	if (!p) {
		syscall(SYS_execveat, fd, "", argv, envp, AT_EMPTY_PATH);
		_exit(99);
	}
	CHECK("execveat.empty_path", waitpid(p, &s, 0) == p && WEXITSTATUS(s) == 21);
	close(fd);
	size_t big = 200 * 1024;
	char *huge = malloc(big), *hv[] = {self, huge, NULL};
	memset(huge, 'x', big);
	huge[big - 1] = 0;
	CHECK_ERR("exec.e2big_string", execve(self, hv, envp), E2BIG);
	free(huge);
}

static void sessions(void)
{
	int s;
	pid_t p;

	CHECK("getpgrp", getpgrp() == getpgid(0));
	CHECK("getsid", getsid(0) == getsid(getpid()));
	CHECK_ERR("getpgid.esrch", getpgid(999999), ESRCH);
	CHECK_ERR("setpgid.negative", setpgid(0, -1), EINVAL);
	p = fork();
	if (!p) {
		pid_t sid = setsid();
		int ok = sid == getpid() && getsid(0) == sid && getpgrp() == sid;
		ok = ok && setsid() == -1 && errno == EPERM;
		ok = ok && setpgid(0, 0) == -1 && errno == EPERM;
		_exit(!ok);
	}
	CHECK("setsid", waitpid(p, &s, 0) == p && s == 0);
	p = fork();
	if (!p) {
		pid_t q;
		prctl(PR_SET_CHILD_SUBREAPER, 1);
		q = fork();
		if (!q) {
			if (!fork()) {
				usleep(20000);
				_exit(8);
			}
			_exit(0);
		}
		waitpid(q, &s, 0);
		_exit(wait(&s) > 0 && WEXITSTATUS(s) == 8 ? 0 : 1);
	}
	CHECK("subreaper", waitpid(p, &s, 0) == p && s == 0);
}

static void limits(void)
{
	struct rlimit rl, old;
	struct rusage ru;
	struct tms tms;
	struct utsname u;
	char name[17] = "";
	cpu_set_t set;

	CHECK("getrlimit", getrlimit(RLIMIT_NOFILE, &old) == 0);
	rl = old;
	rl.rlim_cur = 64;
	CHECK("setrlimit", setrlimit(RLIMIT_NOFILE, &rl) == 0 && getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur == 64);
	CHECK_ERR("dup2.beyond_limit", dup2(0, 64), EBADF);
	setrlimit(RLIMIT_NOFILE, &old);
	rl.rlim_cur = 10;
	rl.rlim_max = 5;
	CHECK_ERR("setrlimit.cur_over_max", setrlimit(RLIMIT_CPU, &rl), EINVAL);
	CHECK_ERR("getrlimit.bad", syscall(SYS_getrlimit, 99, &rl), EINVAL);
	CHECK("prlimit.self", prlimit(0, RLIMIT_STACK, NULL, &rl) == 0);
	CHECK_ERR("prlimit.esrch", prlimit(999999, RLIMIT_STACK, NULL, &rl), ESRCH);
	CHECK("getrusage", getrusage(RUSAGE_SELF, &ru) == 0 && getrusage(RUSAGE_CHILDREN, &ru) == 0 && getrusage(RUSAGE_THREAD, &ru) == 0);
	CHECK_ERR("getrusage.bad", getrusage(7, &ru), EINVAL);
	CHECK("times", times(&tms) != (clock_t)-1);
	CHECK("uname", uname(&u) == 0 && !strcmp(u.sysname, "Linux") && !strcmp(u.machine, "x86_64"));
	CHECK("prctl.name", prctl(PR_SET_NAME, "conformance-long-name") == 0 && prctl(PR_GET_NAME, name) == 0 && !strcmp(name, "conformance-lon"));
	CHECK("prctl.pdeathsig", prctl(PR_SET_PDEATHSIG, SIGUSR1) == 0);
	CHECK_ERR("prctl.pdeathsig_bad", prctl(PR_SET_PDEATHSIG, 100), EINVAL);
	prctl(PR_SET_PDEATHSIG, 0);
	CHECK("prctl.dumpable", prctl(PR_GET_DUMPABLE) == 1);
	CHECK_ERR("prctl.bad", prctl(12345, 0, 0, 0, 0), EINVAL);
	CHECK("prctl.keepcaps", prctl(PR_SET_KEEPCAPS, 1) == 0 && prctl(PR_GET_KEEPCAPS) == 1 && prctl(PR_SET_KEEPCAPS, 0) == 0);
	errno = 0;
	int before = getpriority(PRIO_PROCESS, 0);
	CHECK("getpriority", errno == 0);
	CHECK("nice", nice(3) == before + 3 && getpriority(PRIO_PROCESS, 0) == before + 3);
	CHECK("personality", syscall(SYS_personality, 0xffffffff) == 0);
	CHECK("sched_getaffinity", sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0);
	CHECK("sched_getscheduler", sched_getscheduler(0) == SCHED_OTHER);
	CHECK("sched_prio", sched_get_priority_max(SCHED_FIFO) == 99 && sched_get_priority_min(SCHED_OTHER) == 0);
	CHECK_ERR("sched_prio.bad", sched_get_priority_max(42), EINVAL);
}

static void futexes(void)
{
	static unsigned word = 1;

	CHECK_ERR("futex.value_differs", syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 2, NULL), EAGAIN);
	CHECK_ERR("futex.bitset_differs", syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, 2, NULL, NULL, 1), EAGAIN);
	CHECK_ERR("futex.no_bitset", syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, 2, NULL, NULL, 0), EINVAL);
	CHECK_ERR("futex.wait_realtime", syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE | FUTEX_CLOCK_REALTIME, 2, NULL), ENOSYS);
	CHECK_ERR("futex.unaligned", syscall(SYS_futex, (char *)&word + 1, FUTEX_WAIT_PRIVATE, 2, NULL), EINVAL);
	CHECK_ERR("futex.efault", syscall(SYS_futex, (void *)64, FUTEX_WAIT_PRIVATE, 2, NULL), EFAULT);
	CHECK_ERR("futex.non_canonical", syscall(SYS_futex, (void *)0x8000000000000000UL, FUTEX_WAIT_PRIVATE, 2, NULL), EFAULT);
	CHECK("futex.wake_nobody", syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1) == 0);
}

static void creds_child(void)
{
	gid_t groups[3] = {5, 6, 7}, got[8];
	uid_t r, e, s;

	CHECK("setgroups", setgroups(3, groups) == 0 && getgroups(8, got) == 3);
	CHECK_ERR("getgroups.small", getgroups(1, got), EINVAL);
	CHECK("setresgid", setresgid(100, 101, 102) == 0 && getegid() == 101);
	CHECK("setresuid", setresuid(1000, 1001, 1002) == 0 && getresuid(&r, &e, &s) == 0 && r == 1000 && e == 1001 && s == 1002);
	CHECK_ERR("setuid.eperm", setuid(0), EPERM);
	CHECK("setreuid.swap", setreuid(1001, 1000) == 0 && getuid() == 1001 && geteuid() == 1000);
	CHECK_ERR("setgroups.eperm", setgroups(0, NULL), EPERM);
	CHECK_ERR("kill.init_eperm", kill(1, 0), EPERM);
	CHECK_ERR("chroot.eperm", chroot("/"), EPERM);
	CHECK_ERR("sethostname.eperm", sethostname("x", 1), EPERM);
	CHECK("no_new_privs", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
	_exit(check_failures != 0);
}

int main(int argc, char **argv)
{
	self = argv[0];
	if (argc == 3 && !strcmp(argv[1], "child"))
		return !strcmp(argv[2], "a b") && environ[0] && !strcmp(environ[0], "X=1") && !environ[1] ? 21 : 22;
	if (argc == 3 && !strcmp(argv[1], "fdcheck"))
		return fcntl(atoi(argv[2]), F_GETFD) == -1 && errno == EBADF ? 0 : 1;
	waits();
	clones();
	execs();
	sessions();
	limits();
	futexes();
	if (geteuid() == 0)
		check_failures += child_status(creds_child) != 0;
	CHECK_DONE();
}
