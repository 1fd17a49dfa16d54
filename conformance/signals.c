// signal(7): delivery, masks, queues, alternate stacks, restarts, frames.
#include "check.h"

#include <fcntl.h>
#include <fenv.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static volatile sig_atomic_t count, last, order_n;
static int order[16];
static siginfo_t info;
static sigjmp_buf env;
static volatile char *volatile handler_sp;
static volatile int deep_done;

static void on_sig(int s)
{
	count++;
	last = s;
	if (order_n < 16)
		order[order_n++] = s;
}
static void on_info(int s, siginfo_t *si, void *uc)
{
	count++;
	info = *si;
}
static void on_fault(int s, siginfo_t *si, void *uc)
{
	info = *si;
	siglongjmp(env, 1);
}
static void on_skip(int s, siginfo_t *si, void *uc)
{
	((ucontext_t *)uc)->uc_mcontext.gregs[REG_RIP] += 2;
	count++;
}
static void on_fp(int s)
{
	volatile double d = 1.5;

	for (int i = 0; i < 100; i++)
		d = d * 1.01;
	fesetround(FE_UPWARD);
	count++;
}

static void set(int sig, void (*fn)(int, siginfo_t *, void *), int flags)
{
	struct sigaction sa = {.sa_sigaction = fn, .sa_flags = flags | SA_SIGINFO};

	sigaction(sig, &sa, NULL);
}

static void basics(void)
{
	struct sigaction sa, old;
	sigset_t m, p;

	signal(SIGUSR1, on_sig);
	raise(SIGUSR1);
	CHECK("raise", count == 1 && last == SIGUSR1);
	CHECK_ERR("sigaction.kill", sigaction(SIGKILL, &(struct sigaction){.sa_handler = on_sig}, NULL), EINVAL);
	CHECK_ERR("sigaction.bad", sigaction(65, NULL, &old), EINVAL);
	CHECK_ERR("rt_sigaction.size", syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 4), EINVAL);
	sigaction(SIGUSR1, NULL, &sa);
	CHECK("sigaction.old", sa.sa_handler == on_sig);
	sigemptyset(&m);
	sigaddset(&m, SIGUSR1);
	sigprocmask(SIG_BLOCK, &m, NULL);
	count = 0;
	raise(SIGUSR1);
	raise(SIGUSR1);
	sigpending(&p);
	CHECK("blocked.pending", count == 0 && sigismember(&p, SIGUSR1));
	sigprocmask(SIG_UNBLOCK, &m, NULL);
	CHECK("standard.coalesce", count == 1);
	signal(SIGRTMIN, on_sig);
	signal(SIGRTMIN + 1, on_sig);
	sigaddset(&m, SIGRTMIN);
	sigaddset(&m, SIGRTMIN + 1);
	sigprocmask(SIG_BLOCK, &m, NULL);
	count = order_n = 0;
	raise(SIGRTMIN + 1);
	raise(SIGRTMIN);
	raise(SIGRTMIN);
	raise(SIGUSR1);
	sigprocmask(SIG_UNBLOCK, &m, NULL);
	CHECK("realtime.queue", count == 4);
	CHECK("delivery.order", order_n == 4 && order[0] == SIGRTMIN + 1 && order[3] == SIGUSR1);
	signal(SIGUSR1, SIG_IGN);
	CHECK("ignored", raise(SIGUSR1) == 0);
	set(SIGUSR1, on_info, SA_RESETHAND);
	raise(SIGUSR1);
	sigaction(SIGUSR1, NULL, &sa);
	CHECK("resethand", sa.sa_handler == SIG_DFL);
	CHECK("siginfo.tkill", info.si_code == SI_TKILL && info.si_pid == getpid());
	CHECK_ERR("kill.esrch", kill(999999, 0), ESRCH);
	CHECK_ERR("kill.einval", kill(getpid(), 99), EINVAL);
	CHECK_ERR("tgkill.esrch", syscall(SYS_tgkill, getpid(), 999999, 0), ESRCH);
	CHECK("kill.zero", kill(getpid(), 0) == 0);
}

static void queue(void)
{
	union sigval v = {.sival_int = 4711};
	struct timespec ts = {0, 20000000}, zero = {0, 0};
	struct signalfd_siginfo sfi;
	struct pollfd pf;
	siginfo_t si;
	sigset_t m;
	int fd;

	set(SIGRTMIN + 2, on_info, 0);
	count = 0;
	CHECK("sigqueue", sigqueue(getpid(), SIGRTMIN + 2, v) == 0 && count == 1 && info.si_value.sival_int == 4711 && info.si_code == SI_QUEUE);
	sigemptyset(&m);
	sigaddset(&m, SIGRTMIN + 3);
	sigprocmask(SIG_BLOCK, &m, NULL);
	sigqueue(getpid(), SIGRTMIN + 3, v);
	CHECK("sigtimedwait", sigtimedwait(&m, &si, &ts) == SIGRTMIN + 3 && si.si_value.sival_int == 4711);
	CHECK_ERR("sigtimedwait.eagain", sigtimedwait(&m, &si, &ts), EAGAIN);
	CHECK_ERR("sigtimedwait.poll", sigtimedwait(&m, &si, &zero), EAGAIN);
	fd = signalfd(-1, &m, SFD_NONBLOCK | SFD_CLOEXEC);
	CHECK_ERR("signalfd.eagain", read(fd, &sfi, sizeof(sfi)), EAGAIN);
	sigqueue(getpid(), SIGRTMIN + 3, v);
	pf = (struct pollfd){fd, POLLIN, 0};
	CHECK("signalfd.poll", poll(&pf, 1, 0) == 1 && pf.revents == POLLIN);
	CHECK("signalfd.read", read(fd, &sfi, sizeof(sfi)) == sizeof(sfi) && sfi.ssi_signo == (unsigned)SIGRTMIN + 3 && sfi.ssi_int == 4711);
	close(fd);
	sigprocmask(SIG_UNBLOCK, &m, NULL);
}

static void restarts(void)
{
	struct itimerval it = {{0, 0}, {0, 30000}};
	struct timespec req = {5, 0}, rem = {0, 0}, ts = {1, 0};
	sigset_t m, o, now;
	int fds[2], s;
	char c;
	pid_t p;

	if (pipe(fds))
		return;
	set(SIGALRM, on_info, 0);
	setitimer(ITIMER_REAL, &it, NULL);
	CHECK_ERR("read.eintr", read(fds[0], &c, 1), EINTR);
	set(SIGALRM, on_info, SA_RESTART);
	count = 0;
	p = fork();
	if (!p) {
		usleep(80000);
		c = 'x';
		_exit(write(fds[1], &c, 1) != 1);
	}
	setitimer(ITIMER_REAL, &it, NULL);
	CHECK("read.restart", read(fds[0], &c, 1) == 1 && c == 'x' && count == 1);
	waitpid(p, NULL, 0);
	setitimer(ITIMER_REAL, &it, NULL);
	CHECK("nanosleep.eintr", nanosleep(&req, &rem) == -1 && errno == EINTR && rem.tv_sec == 4);
	setitimer(ITIMER_REAL, &it, NULL);
	CHECK_ERR("poll.eintr_despite_restart", poll(NULL, 0, 2000), EINTR);
	setitimer(ITIMER_REAL, &it, NULL);
	CHECK_ERR("pause", pause(), EINTR);
	sigemptyset(&m);
	sigaddset(&m, SIGALRM);
	sigprocmask(SIG_BLOCK, &m, &o);
	setitimer(ITIMER_REAL, &it, NULL);
	usleep(50000);
	count = 0;
	CHECK("sigsuspend", sigsuspend(&o) == -1 && errno == EINTR && count == 1);
	sigprocmask(SIG_SETMASK, NULL, &now);
	CHECK("sigsuspend.mask_back", sigismember(&now, SIGALRM));
	setitimer(ITIMER_REAL, &it, NULL);
	count = 0;
	CHECK("ppoll.mask", ppoll(NULL, 0, &ts, &o) == -1 && errno == EINTR && count == 1);
	sigprocmask(SIG_SETMASK, &o, NULL);
	p = fork();
	if (!p) {
		struct timespec t = {0, 150000000};
		_exit(nanosleep(&t, NULL) != 0);
	}
	usleep(30000);
	kill(p, SIGSTOP);
	usleep(20000);
	kill(p, SIGCONT);
	CHECK("nanosleep.stop_cont", waitpid(p, &s, 0) == p && s == 0);
	close(fds[0]);
	set(SIGPIPE, on_info, 0);
	count = 0;
	CHECK("sigpipe", write(fds[1], "x", 1) == -1 && errno == EPIPE && count == 1);
	close(fds[1]);
}

static void faults(void)
{
	char *p = mmap(0, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	volatile int zero = 0;
	int fd;

	set(SIGSEGV, on_fault, 0);
	set(SIGBUS, on_fault, 0);
	set(SIGFPE, on_fault, 0);
	set(SIGILL, on_fault, 0);
	set(SIGTRAP, on_fault, 0);
	if (!sigsetjmp(env, 1))
		*(volatile char *)(p + 5) = 1;
	CHECK("segv.accerr", info.si_signo == SIGSEGV && info.si_code == SEGV_ACCERR && info.si_addr == p + 5);
	munmap(p, 8192);
	if (!sigsetjmp(env, 1))
		*(volatile char *)(p + 9) = 1;
	CHECK("segv.maperr", info.si_signo == SIGSEGV && info.si_code == SEGV_MAPERR && info.si_addr == p + 9);
	if (!sigsetjmp(env, 1))
		zero = 77 / zero;
	CHECK("fpe.intdiv", info.si_signo == SIGFPE && info.si_code == FPE_INTDIV);
	if (!sigsetjmp(env, 1))
		__asm__ volatile("ud2");
	CHECK("ill", info.si_signo == SIGILL && info.si_code == ILL_ILLOPN);
	if (!sigsetjmp(env, 1))
		__asm__ volatile("int3");
	CHECK("trap", info.si_signo == SIGTRAP);
	fd = open("/tmp/conf_bus", O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (ftruncate(fd, 4096))
		perror("ftruncate");
	p = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (!sigsetjmp(env, 1))
		*(volatile char *)(p + 5000) = 1;
	CHECK("bus.beyond_eof", info.si_signo == SIGBUS && info.si_code == BUS_ADRERR && info.si_addr == p + 5000);
	munmap(p, 8192);
	close(fd);
	unlink("/tmp/conf_bus");
	set(SIGILL, on_skip, 0);
	count = 0;
	__asm__ volatile("ud2");
	CHECK("frame.rip_changed", count == 1);
	if (!sigsetjmp(env, 1))
		*(volatile long *)0xffff800000000000UL = 1;
	CHECK("segv.kernel_address", info.si_signo == SIGSEGV);
}


static void on_deep(int s, siginfo_t *si, void *uc)
{
	volatile char big[4096];

	for (unsigned i = 0; i < sizeof(big); i++)
		big[i] = s;
	deep_done = big[100];
	handler_sp = big;
}

static void stacks(void)
{
	static char alt[65536];
	stack_t ss = {.ss_sp = alt, .ss_size = sizeof(alt)}, old;
	volatile double x[8], sum = 0;

	CHECK("sigaltstack.set", sigaltstack(&ss, NULL) == 0 && sigaltstack(NULL, &old) == 0 && old.ss_sp == alt && old.ss_flags == 0);
	set(SIGUSR2, on_deep, SA_ONSTACK);
	raise(SIGUSR2);
	CHECK("onstack", (char *)handler_sp > alt && (char *)handler_sp < alt + sizeof(alt) && deep_done == SIGUSR2);
	set(SIGUSR2, on_deep, 0);
	raise(SIGUSR2);
	CHECK("not_onstack", !((char *)handler_sp > alt && (char *)handler_sp < alt + sizeof(alt)));
	ss.ss_size = 100;
	CHECK_ERR("sigaltstack.small", sigaltstack(&ss, NULL), ENOMEM);
	ss.ss_flags = 99;
	CHECK_ERR("sigaltstack.flags", sigaltstack(&ss, NULL), EINVAL);
	ss.ss_flags = SS_DISABLE;
	CHECK("sigaltstack.disable", sigaltstack(&ss, NULL) == 0 && sigaltstack(NULL, &old) == 0 && old.ss_flags == SS_DISABLE);
	signal(SIGUSR2, on_fp);
	for (int i = 0; i < 8; i++)
		x[i] = i * 1.25;
	count = 0;
	raise(SIGUSR2);
	for (int i = 0; i < 8; i++)
		sum += x[i];
	CHECK("fp.preserved", sum == 35.0 && fegetround() == FE_TONEAREST && count == 1);
}

static void *thr(void *a)
{
	sigset_t m;
	int s;

	sigemptyset(&m);
	sigaddset(&m, SIGUSR1);
	sigwait(&m, &s);
	return (void *)(long)s;
}

static void threads(void)
{
	pthread_t t;
	sigset_t m;
	void *r;

	sigemptyset(&m);
	sigaddset(&m, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &m, NULL);
	pthread_create(&t, NULL, thr, NULL);
	usleep(10000);
	pthread_kill(t, SIGUSR1);
	pthread_join(t, &r);
	CHECK("pthread_kill.sigwait", (long)r == SIGUSR1);
	pthread_create(&t, NULL, thr, NULL);
	usleep(10000);
	kill(getpid(), SIGUSR1);
	pthread_join(t, &r);
	CHECK("kill.any_thread", (long)r == SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &m, NULL);
}

static void spinners(void)
{
	int s;
	pid_t p = fork();

	if (!p)
		for (;;)
			__asm__ volatile("");
	usleep(20000);
	kill(p, SIGTERM);
	CHECK("kill.spinning", waitpid(p, &s, 0) == p && WIFSIGNALED(s) && WTERMSIG(s) == SIGTERM);
	p = fork();
	if (!p) {
		signal(SIGTERM, SIG_IGN);
		for (;;)
			__asm__ volatile("");
	}
	usleep(20000);
	kill(p, SIGTERM);
	usleep(10000);
	CHECK("kill.ignored", waitpid(p, &s, WNOHANG) == 0);
	kill(p, SIGKILL);
	CHECK("kill.sigkill", waitpid(p, &s, 0) == p && WTERMSIG(s) == SIGKILL);
}

int main(void)
{
	basics();
	queue();
	restarts();
	faults();
	stacks();
	threads();
	spinners();
	CHECK_DONE();
}
