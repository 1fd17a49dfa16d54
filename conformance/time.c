// Clocks, sleeps, timers: clock_gettime(2), nanosleep(2), timer_create(2), timerfd_create(2), setitimer(2).
#include "check.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile int count, val;
static void on(int s, siginfo_t *si, void *uc) { count++; val = si->si_value.sival_int; }
static double now(clockid_t c)
{
	struct timespec t;
	clock_gettime(c, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}
static void burn(double s)
{
	double e = now(CLOCK_PROCESS_CPUTIME_ID) + s;
	while (now(CLOCK_PROCESS_CPUTIME_ID) < e)
		;
}

int main(void)
{
	struct timespec ts, req = {0, 20000000}, abs_ts;
	struct sigaction sa = {.sa_sigaction = on, .sa_flags = SA_SIGINFO};
	struct itimerspec its = {{0, 0}, {0, 20000000}}, got;
	struct itimerval itv, oitv;
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value = {.sival_int = 99}};
	struct pollfd pf;
	struct rusage ru;
	uint64_t n;
	timer_t t;
	double a, b;
	int fd;

	sigaction(SIGUSR1, &sa, NULL);
	sigaction(SIGALRM, &sa, NULL);
	sigaction(SIGPROF, &sa, NULL);
	for (int c = 0; c <= 11; c++) {
		char name[32];
		if (c == 8 || c == 9 || c == 10)
			continue;
		snprintf(name, sizeof(name), "clock_gettime.%d", c);
		CHECK(name, clock_gettime(c, &ts) == 0);
	}
	CHECK_ERR("clock_gettime.bad", clock_gettime(77, &ts), EINVAL);
	CHECK("clock_getres", clock_getres(CLOCK_MONOTONIC, &ts) == 0 && ts.tv_nsec == 1);
	CHECK_ERR("clock_settime.bad", clock_settime(CLOCK_MONOTONIC, &ts), EINVAL);
	a = now(CLOCK_MONOTONIC);
	CHECK("nanosleep", nanosleep(&req, NULL) == 0 && now(CLOCK_MONOTONIC) - a >= 0.0199);
	ts = (struct timespec){0, 1000000000};
	CHECK_ERR("nanosleep.einval", nanosleep(&ts, NULL), EINVAL);
	clock_gettime(CLOCK_REALTIME, &abs_ts);
	abs_ts.tv_nsec += 20000000;
	if (abs_ts.tv_nsec >= 1000000000)
		abs_ts.tv_sec++, abs_ts.tv_nsec -= 1000000000;
	CHECK("clock_nanosleep.abs", clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &abs_ts, NULL) == 0);
	CHECK("clock_nanosleep.past", clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &(struct timespec){0, 0}, NULL) == 0);
	CHECK("clock_nanosleep.thread_cpu", clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &req, NULL) == EINVAL);
	a = now(CLOCK_PROCESS_CPUTIME_ID);
	b = now(CLOCK_THREAD_CPUTIME_ID);
	burn(0.05);
	CHECK("cputime.process", now(CLOCK_PROCESS_CPUTIME_ID) - a >= 0.05);
	CHECK("cputime.thread", now(CLOCK_THREAD_CPUTIME_ID) - b >= 0.03);
	CHECK("getrusage.cpu", getrusage(RUSAGE_SELF, &ru) == 0 && ru.ru_utime.tv_sec * 1000000 + ru.ru_utime.tv_usec + ru.ru_stime.tv_sec * 1000000 + ru.ru_stime.tv_usec >= 45000);
	CHECK("timer_create", timer_create(CLOCK_MONOTONIC, &ev, &t) == 0);
	CHECK("timer_settime", timer_settime(t, 0, &its, NULL) == 0 && timer_gettime(t, &got) == 0 && got.it_value.tv_nsec > 0);
	while (!count)
		pause();
	CHECK("timer.fires", count == 1 && val == 99);
	CHECK("timer.disarmed", timer_gettime(t, &got) == 0 && got.it_value.tv_sec == 0 && got.it_value.tv_nsec == 0);
	sigset_t m, o;
	sigemptyset(&m);
	sigaddset(&m, SIGUSR1);
	sigprocmask(SIG_BLOCK, &m, &o);
	its.it_interval.tv_nsec = its.it_value.tv_nsec = 5000000;
	timer_settime(t, 0, &its, NULL);
	usleep(52000);
	its.it_interval.tv_nsec = its.it_value.tv_nsec = 0;
	count = 0;
	sigprocmask(SIG_SETMASK, &o, NULL);
	CHECK("timer.overrun", count == 1 && timer_getoverrun(t) >= 5);
	timer_settime(t, 0, &its, NULL);
	CHECK("timer_delete", timer_delete(t) == 0);
	CHECK_ERR("timer_delete.bad", syscall(SYS_timer_delete, 12345), EINVAL);
	ev.sigev_notify = 77;
	CHECK_ERR("timer_create.bad_notify", timer_create(CLOCK_REALTIME, &ev, &t), EINVAL);
	itv = (struct itimerval){{0, 0}, {0, 20000}};
	count = 0;
	setitimer(ITIMER_REAL, &itv, NULL);
	CHECK("getitimer", getitimer(ITIMER_REAL, &oitv) == 0 && oitv.it_value.tv_usec > 0 && oitv.it_value.tv_usec <= 20000);
	while (!count)
		pause();
	CHECK("itimer.real", count == 1);
	itv = (struct itimerval){{0, 0}, {0, 30000}};
	count = 0;
	setitimer(ITIMER_PROF, &itv, NULL);
	burn(0.1);
	CHECK("itimer.prof", count == 1);
	CHECK_ERR("setitimer.bad", setitimer(9, &itv, NULL), EINVAL);
	alarm(10);
	CHECK("alarm.left", alarm(0) == 10);
	fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	CHECK_ERR("timerfd.eagain", read(fd, &n, 8), EAGAIN);
	its = (struct itimerspec){{0, 5000000}, {0, 10000000}};
	CHECK("timerfd.set", timerfd_settime(fd, 0, &its, NULL) == 0);
	pf = (struct pollfd){fd, POLLIN, 0};
	CHECK("timerfd.poll", poll(&pf, 1, 1000) == 1 && pf.revents == POLLIN);
	usleep(30000);
	CHECK("timerfd.read", read(fd, &n, 8) == 8 && n >= 4);
	CHECK_ERR("timerfd.short_read", read(fd, &n, 4), EINVAL);
	CHECK("timerfd.get", timerfd_gettime(fd, &its) == 0 && its.it_interval.tv_nsec == 5000000);
	close(fd);
	CHECK_ERR("timerfd.bad_clock", timerfd_create(55, 0), EINVAL);
	CHECK_ERR("timerfd.bad_flags", timerfd_create(CLOCK_MONOTONIC, 0x1), EINVAL);
	struct timeval tv;
	CHECK("gettimeofday", gettimeofday(&tv, NULL) == 0 && tv.tv_sec > 1500000000);
	CHECK("time", time(NULL) >= tv.tv_sec - 1);
	clockid_t c;
	CHECK("clock_getcpuclockid", clock_getcpuclockid(getpid(), &c) == 0 && clock_gettime(c, &ts) == 0);
	CHECK("pthread_getcpuclockid", pthread_getcpuclockid(pthread_self(), &c) == 0 && clock_gettime(c, &ts) == 0);
	CHECK_DONE();
}
