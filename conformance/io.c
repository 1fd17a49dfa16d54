// Pipes, FIFOs, eventfd, epoll, poll, select, timerfd, signalfd, inotify.
#include "check.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

static char dir[64], big[1 << 20], back[1 << 20];
static volatile int got_sig;
static void on_sig(int s) { got_sig = s; }

static long ms_since(const struct timespec *a)
{
	struct timespec b;

	clock_gettime(CLOCK_MONOTONIC, &b);
	return (b.tv_sec - a->tv_sec) * 1000 + (b.tv_nsec - a->tv_nsec) / 1000000;
}

static int pevents(int fd, short ev)
{
	struct pollfd p = {fd, ev};

	return poll(&p, 1, 0) < 0 ? -1 : p.revents;
}

static void pipes(void)
{
	int p[2], n, st;
	struct stat s;
	struct sigaction sa = {.sa_handler = on_sig}, old;
	char c;
	pid_t pid;

	CHECK("pipe2", pipe2(p, O_NONBLOCK | O_CLOEXEC) == 0);
	CHECK("pipe cloexec", fcntl(p[0], F_GETFD) == FD_CLOEXEC);
	CHECK("pipe flags", fcntl(p[0], F_GETFL) == (O_RDONLY | O_NONBLOCK) && fcntl(p[1], F_GETFL) == (O_WRONLY | O_NONBLOCK));
	CHECK_ERR("pipe2 bad flag", pipe2((int[2]){}, 0x10), EINVAL);
	CHECK_ERR("pipe2 fault", syscall(SYS_pipe2, (void *)8, 0), EFAULT);
	CHECK("fstat", fstat(p[0], &s) == 0 && S_ISFIFO(s.st_mode) && s.st_size == 0 && s.st_blksize == 4096);
	CHECK_ERR("read empty", read(p[0], &c, 1), EAGAIN);
	CHECK_ERR("read wrong end", read(p[1], &c, 1), EBADF);
	CHECK_ERR("write wrong end", write(p[0], &c, 1), EBADF);
	CHECK_ERR("lseek", lseek(p[0], 0, SEEK_SET), ESPIPE);
	CHECK_ERR("pread", pread(p[0], &c, 1, 0), ESPIPE);
	CHECK("poll empty", pevents(p[0], POLLIN) == 0 && pevents(p[1], POLLOUT) == POLLOUT);
	CHECK("size", fcntl(p[0], F_GETPIPE_SZ) == 65536);
	CHECK("write", write(p[1], "hello", 5) == 5 && ioctl(p[0], FIONREAD, &n) == 0 && n == 5);
	CHECK("poll full", pevents(p[0], POLLIN | POLLOUT) == POLLIN);
	CHECK("read", read(p[0], back, 100) == 5 && !memcmp(back, "hello", 5));
	CHECK("write all", write(p[1], big, sizeof(big)) == 65536);
	CHECK("poll no room", pevents(p[1], POLLOUT) == 0);
	CHECK_ERR("atomic write", write(p[1], big, 1), EAGAIN);
	CHECK("read page", read(p[0], back, 4096) == 4096 && pevents(p[1], POLLOUT) == POLLOUT);
	CHECK_ERR("shrink busy", fcntl(p[0], F_SETPIPE_SZ, 4096), EBUSY);
	CHECK("grow", fcntl(p[0], F_SETPIPE_SZ, 200000) == 262144);
	CHECK("bytes", read(p[0], back, sizeof(back)) == 61440 && !memcmp(back, big + 4096, 61440));
	CHECK("write 0", write(p[1], "", 0) == 0);
	close(p[1]);
	CHECK("hup", pevents(p[0], POLLIN) == POLLHUP);
	CHECK("eof", read(p[0], &c, 1) == 0);
	close(p[0]);

	CHECK("pipe", pipe(p) == 0);
	close(p[0]);
	sigaction(SIGPIPE, &sa, &old);
	got_sig = 0;
	CHECK("poll err", pevents(p[1], POLLOUT) == (POLLOUT | POLLERR));
	CHECK_ERR("epipe", write(p[1], "x", 1), EPIPE);
	CHECK("sigpipe", got_sig == SIGPIPE);
	sigaction(SIGPIPE, &old, NULL);
	close(p[1]);

	// A big blocking write meets a slow reader.
	CHECK("pipe", pipe(p) == 0);
	pid = fork();
	if (!pid) {
		close(p[0]);
		_exit(write(p[1], big, sizeof(big)) == sizeof(big) ? 0 : 1);
	}
	close(p[1]);
	for (n = 0; n < (int)sizeof(big);) {
		ssize_t r = read(p[0], back + n, 10007);
		if (r <= 0)
			break;
		n += r;
	}
	waitpid(pid, &st, 0);
	CHECK("bulk", n == sizeof(big) && !memcmp(big, back, n) && st == 0);
	close(p[0]);

	CHECK("packets", pipe2(p, O_DIRECT | O_NONBLOCK) == 0);
	write(p[1], "abcde", 5);
	write(p[1], "fg", 2);
	CHECK("packet cut", read(p[0], back, 3) == 3);
	CHECK("packet next", read(p[0], back, 100) == 2 && back[0] == 'f');
	close(p[0]);
	close(p[1]);
}

static void splices(void)
{
	int a[2], b[2], f = open("sp", O_RDWR | O_CREAT | O_TRUNC, 0600);
	loff_t off = 0;

	pipe(a);
	pipe(b);
	write(f, "0123456789", 10);
	CHECK("splice in", splice(f, &off, a[1], NULL, 6, 0) == 6 && off == 6);
	CHECK("tee", tee(a[0], b[1], 4, 0) == 4);
	CHECK("tee data", read(b[0], back, 100) == 4 && !memcmp(back, "0123", 4));
	CHECK("splice pipes", splice(a[0], NULL, b[1], NULL, 100, 0) == 6);
	off = 10;
	CHECK("splice out", splice(b[0], NULL, f, &off, 100, 0) == 6 && off == 16);
	CHECK("splice file", pread(f, back, 100, 0) == 16 && !memcmp(back, "0123456789012345", 16));
	CHECK_ERR("splice nonblock", splice(a[0], NULL, b[1], NULL, 1, SPLICE_F_NONBLOCK), EAGAIN);
	CHECK_ERR("splice no pipe", splice(f, NULL, f, NULL, 1, 0), EINVAL);
	CHECK("vmsplice", vmsplice(a[1], &(struct iovec){"wxyz", 4}, 1, 0) == 4 && read(a[0], back, 10) == 4);
	for (int i = 0; i < 2; i++)
		close(a[i]), close(b[i]);
	close(f);
}

static void *fifo_writer(void *arg)
{
	usleep(50000);
	return (void *)(long)open("fifo", O_WRONLY);
}

static void fifos(void)
{
	pthread_t th;
	void *w;
	int r, rw;
	char c;

	CHECK("mkfifo", mkfifo("fifo", 0600) == 0);
	CHECK_ERR("wr nonblock", open("fifo", O_WRONLY | O_NONBLOCK), ENXIO);
	r = open("fifo", O_RDONLY | O_NONBLOCK);
	CHECK("rd nonblock", r >= 0 && pevents(r, POLLIN) == 0 && read(r, &c, 1) == 0);
	rw = open("fifo", O_RDWR);
	CHECK("rdwr", rw >= 0);
	CHECK_ERR("rd empty", read(r, &c, 1), EAGAIN);
	close(rw);
	CHECK("hup after writer", pevents(r, POLLIN) == POLLHUP);
	close(r);
	pthread_create(&th, NULL, fifo_writer, NULL);
	r = open("fifo", O_RDONLY);
	pthread_join(th, &w);
	CHECK("meet", r >= 0 && (long)w >= 0);
	CHECK("through", write((long)w, "q", 1) == 1 && read(r, &c, 1) == 1 && c == 'q');
	close(r);
	close((long)w);
}

static void eventfds(void)
{
	int e = eventfd(3, EFD_NONBLOCK);
	uint64_t v = 0;

	CHECK("eventfd", e >= 0 && fcntl(e, F_GETFL) == (O_RDWR | O_NONBLOCK));
	CHECK_ERR("short", read(e, &v, 4), EINVAL);
	CHECK("read", read(e, &v, 8) == 8 && v == 3);
	CHECK_ERR("empty", read(e, &v, 8), EAGAIN);
	v = UINT64_MAX;
	CHECK_ERR("max", write(e, &v, 8), EINVAL);
	v = UINT64_MAX - 1;
	CHECK("big", write(e, &v, 8) == 8 && pevents(e, POLLIN | POLLOUT) == POLLIN);
	v = 1;
	CHECK_ERR("overflow", write(e, &v, 8), EAGAIN);
	close(e);
	e = eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK);
	CHECK("sem 1", read(e, &v, 8) == 8 && v == 1);
	CHECK("sem 2", read(e, &v, 8) == 8 && v == 1);
	CHECK_ERR("sem 3", read(e, &v, 8), EAGAIN);
	close(e);
	CHECK_ERR("bad flags", syscall(SYS_eventfd2, 0, 0x100), EINVAL);
}

static int ep_add(int ep, int fd, uint32_t events)
{
	return epoll_ctl(ep, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = events, .data.u64 = fd});
}

static void epolls(void)
{
	int ep = epoll_create1(EPOLL_CLOEXEC), p[2], ep2, f, e;
	struct epoll_event ev[8], oneshot = {.events = EPOLLIN | EPOLLONESHOT, .data.u32 = 5};
	struct timespec t0;
	char c;

	pipe(p);
	CHECK("create", ep >= 0);
	CHECK_ERR("create 0", epoll_create(0), EINVAL);
	CHECK_ERR("create1 flags", epoll_create1(1), EINVAL);
	CHECK("add", ep_add(ep, p[0], EPOLLIN) == 0);
	CHECK_ERR("add twice", ep_add(ep, p[0], EPOLLIN), EEXIST);
	CHECK_ERR("add self", ep_add(ep, ep, EPOLLIN), EINVAL);
	CHECK_ERR("add bad fd", ep_add(ep, 999, EPOLLIN), EBADF);
	f = open("reg", O_RDWR | O_CREAT, 0600);
	CHECK_ERR("add file", ep_add(ep, f, EPOLLIN), EPERM);
	CHECK_ERR("ctl on no epoll", epoll_ctl(f, EPOLL_CTL_ADD, p[0], ev), EINVAL);
	CHECK_ERR("del missing", epoll_ctl(ep, EPOLL_CTL_DEL, p[1], NULL), ENOENT);
	CHECK_ERR("bad op", epoll_ctl(ep, 99, p[0], ev), EINVAL);
	CHECK_ERR("max 0", epoll_wait(ep, ev, 0, 0), EINVAL);
	CHECK_ERR("wait no epoll", epoll_wait(f, ev, 1, 0), EINVAL);
	CHECK("none", epoll_wait(ep, ev, 8, 0) == 0);
	clock_gettime(CLOCK_MONOTONIC, &t0);
	CHECK("timeout", epoll_wait(ep, ev, 8, 50) == 0 && ms_since(&t0) >= 49);
	write(p[1], "ab", 2);
	CHECK("level", epoll_wait(ep, ev, 8, -1) == 1 && ev[0].events == EPOLLIN && ev[0].data.u64 == (uint64_t)p[0]);
	CHECK("level again", epoll_wait(ep, ev, 8, -1) == 1);
	CHECK("mod oneshot", epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &oneshot) == 0);
	CHECK("oneshot", epoll_wait(ep, ev, 8, 0) == 1 && ev[0].data.u32 == 5);
	CHECK("oneshot spent", epoll_wait(ep, ev, 8, 0) == 0);
	CHECK("rearm", epoll_ctl(ep, EPOLL_CTL_MOD, p[0], &oneshot) == 0 && epoll_wait(ep, ev, 8, 0) == 1);
	CHECK("del", epoll_ctl(ep, EPOLL_CTL_DEL, p[0], NULL) == 0);
	ep_add(ep, p[0], EPOLLIN | EPOLLET);
	CHECK("edge", epoll_wait(ep, ev, 8, 0) == 1 && epoll_wait(ep, ev, 8, 0) == 0);
	write(p[1], "c", 1);
	CHECK("edge new data", epoll_wait(ep, ev, 8, 0) == 1 && epoll_wait(ep, ev, 8, 0) == 0);
	read(p[0], &c, 1);
	CHECK("edge after read", epoll_wait(ep, ev, 8, 0) == 0);
	ep2 = epoll_create1(0);
	CHECK("nest", ep_add(ep2, ep, EPOLLIN) == 0);
	CHECK_ERR("loop", ep_add(ep, ep2, EPOLLIN), ELOOP);
	CHECK("nest idle", epoll_wait(ep2, ev, 8, 0) == 0);
	write(p[1], "d", 1);
	CHECK("nest ready", epoll_wait(ep2, ev, 8, 0) == 1 && ev[0].data.u64 == (uint64_t)ep);
	CHECK("poll epoll", pevents(ep, POLLIN) == POLLIN);
	close(p[1]);
	CHECK("hup", epoll_wait(ep, ev, 8, 0) == 1 && ev[0].events == (EPOLLIN | EPOLLHUP));
	close(p[0]);
	CHECK("closed", epoll_wait(ep, ev, 8, 0) == 0);
	e = eventfd(1, 0);
	CHECK_ERR("exclusive mod", (ep_add(ep, e, EPOLLIN), epoll_ctl(ep, EPOLL_CTL_MOD, e, &(struct epoll_event){EPOLLIN | EPOLLEXCLUSIVE})), EINVAL);
	CHECK_ERR("exclusive epoll", ep_add(ep2, epoll_create1(0), EPOLLIN | EPOLLEXCLUSIVE), EINVAL);
	CHECK("pwait2", syscall(SYS_epoll_pwait2, ep, ev, 8, &(struct timespec){0, 1000}, NULL, 8) == 1);
	CHECK_ERR("pwait2 bad time", syscall(SYS_epoll_pwait2, ep, ev, 8, &(struct timespec){0, -1}, NULL, 8), EINVAL);
	close(ep);
	close(ep2);
	close(f);
	close(e);
}

static void masks(void)
{
	struct sigaction sa = {.sa_handler = on_sig}, old;
	sigset_t block, none, was;
	struct timespec ts = {5, 0};
	int ep = epoll_create1(0);
	struct epoll_event ev;
	struct pollfd p = {-1};
	fd_set r;

	sigaction(SIGUSR1, &sa, &old);
	sigemptyset(&none);
	sigemptyset(&block);
	sigaddset(&block, SIGUSR1);
	sigprocmask(SIG_BLOCK, &block, &was);
	kill(getpid(), SIGUSR1);
	got_sig = 0;
	CHECK_ERR("ppoll", ppoll(&p, 1, &ts, &none), EINTR);
	CHECK("ppoll handler", got_sig == SIGUSR1);
	kill(getpid(), SIGUSR1);
	got_sig = 0;
	CHECK_ERR("epoll_pwait", epoll_pwait(ep, &ev, 1, 5000, &none), EINTR);
	CHECK("epoll_pwait handler", got_sig == SIGUSR1);
	kill(getpid(), SIGUSR1);
	got_sig = 0;
	FD_ZERO(&r);
	CHECK_ERR("pselect", pselect(0, &r, NULL, NULL, &ts, &none), EINTR);
	CHECK("pselect handler", got_sig == SIGUSR1);
	sigprocmask(SIG_BLOCK, NULL, &none);
	CHECK("mask is back", sigismember(&none, SIGUSR1));
	CHECK_ERR("bad size", syscall(SYS_ppoll, &p, 1, &ts, &none, 4), EINVAL);
	sigprocmask(SIG_SETMASK, &was, NULL);
	sigaction(SIGUSR1, &old, NULL);
	close(ep);
}

static void *late_writer(void *arg)
{
	usleep(30000);
	write((long)arg, "x", 1);
	return NULL;
}

static void polls(void)
{
	int p[2];
	struct pollfd f[3];
	struct timespec t0;
	struct timeval tv = {0, 30000};
	struct rlimit rl;
	fd_set r, w;
	pthread_t th;

	pipe(p);
	f[0] = (struct pollfd){p[0], POLLIN};
	f[1] = (struct pollfd){-5, POLLIN, 77};
	f[2] = (struct pollfd){900, POLLIN};
	CHECK("nval", poll(f, 3, 100) == 1 && f[0].revents == 0 && f[1].revents == 0 && f[2].revents == POLLNVAL);
	clock_gettime(CLOCK_MONOTONIC, &t0);
	CHECK("timeout", poll(f, 1, 30) == 0 && ms_since(&t0) >= 29);
	pthread_create(&th, NULL, late_writer, (void *)(long)p[1]);
	CHECK("wakes", poll(f, 1, 5000) == 1 && f[0].revents == POLLIN);
	pthread_join(th, NULL);
	getrlimit(RLIMIT_NOFILE, &rl);
	CHECK_ERR("too many", syscall(SYS_poll, f, rl.rlim_cur + 1, 0), EINVAL);
	CHECK_ERR("fault", syscall(SYS_poll, (void *)8, 1, 0), EFAULT);
	FD_ZERO(&r);
	FD_ZERO(&w);
	FD_SET(p[0], &r);
	FD_SET(p[1], &w);
	CHECK("select", select(20, &r, &w, NULL, NULL) == 2 && FD_ISSET(p[0], &r) && FD_ISSET(p[1], &w));
	read(p[0], back, 1);
	CHECK("select time", select(20, &r, NULL, NULL, &tv) == 0 && !FD_ISSET(p[0], &r) && tv.tv_sec == 0 && tv.tv_usec == 0);
	FD_SET(50, &r);
	CHECK_ERR("select badf", select(51, &r, NULL, NULL, &tv), EBADF);
	CHECK_ERR("select neg", select(-1, NULL, NULL, NULL, &tv), EINVAL);
	close(p[0]);
	close(p[1]);
	f[0] = (struct pollfd){open("reg", O_RDWR), POLLIN | POLLOUT};
	CHECK("regular", poll(f, 1, 0) == 1 && f[0].revents == (POLLIN | POLLOUT));
	close(f[0].fd);
}

static void timerfds(void)
{
	int t = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	struct itimerspec it = {.it_value.tv_nsec = 20000000, .it_interval.tv_nsec = 10000000}, cur;
	uint64_t n = 0;
	struct timespec now;

	CHECK("create", t >= 0);
	CHECK_ERR("bad clock", timerfd_create(77, 0), EINVAL);
	CHECK_ERR("bad flags", timerfd_create(CLOCK_MONOTONIC, 1), EINVAL);
	CHECK("settime", timerfd_settime(t, 0, &it, &cur) == 0 && cur.it_value.tv_nsec == 0);
	CHECK_ERR("early", read(t, &n, 8), EAGAIN);
	CHECK("gettime", timerfd_gettime(t, &cur) == 0 && cur.it_value.tv_nsec > 0 && cur.it_value.tv_nsec <= 20000000 && cur.it_interval.tv_nsec == 10000000);
	CHECK("poll", poll(&(struct pollfd){t, POLLIN}, 1, 1000) == 1);
	usleep(55000);
	CHECK("ticks", read(t, &n, 8) == 8 && n >= 5);
	CHECK_ERR("read again", read(t, &n, 8), EAGAIN);
	it = (struct itimerspec){};
	CHECK("disarm", timerfd_settime(t, 0, &it, NULL) == 0);
	it.it_value.tv_nsec = 1000000000;
	CHECK_ERR("bad nsec", timerfd_settime(t, 0, &it, NULL), EINVAL);
	CHECK_ERR("no timerfd", timerfd_settime(0, 0, &(struct itimerspec){}, NULL), EINVAL);
	close(t);
	t = timerfd_create(CLOCK_REALTIME, 0);
	clock_gettime(CLOCK_REALTIME, &now);
	it = (struct itimerspec){.it_value = {now.tv_sec - 5, 0}};
	CHECK("past", timerfd_settime(t, TFD_TIMER_ABSTIME, &it, NULL) == 0 && read(t, &n, 8) == 8 && n == 1);
	CHECK("cancel on set", timerfd_settime(t, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &(struct itimerspec){.it_value = {now.tv_sec + 100}}, NULL) == 0);
	close(t);
}

static void signalfds(void)
{
	sigset_t m, was;
	struct signalfd_siginfo si[2];
	int s;

	sigemptyset(&m);
	sigaddset(&m, SIGUSR1);
	sigaddset(&m, SIGUSR2);
	sigprocmask(SIG_BLOCK, &m, &was);
	s = signalfd(-1, &m, SFD_NONBLOCK);
	CHECK("create", s >= 0);
	CHECK_ERR("empty", read(s, si, sizeof(si)), EAGAIN);
	CHECK_ERR("short", read(s, si, 10), EINVAL);
	kill(getpid(), SIGUSR1);
	CHECK("poll", pevents(s, POLLIN) == POLLIN);
	sigqueue(getpid(), SIGUSR2, (union sigval){.sival_int = 42});
	CHECK("read two", read(s, si, sizeof(si)) == sizeof(si) && si[0].ssi_signo == SIGUSR1 && si[0].ssi_pid == (unsigned)getpid() && si[0].ssi_code == SI_USER && si[1].ssi_signo == SIGUSR2 && si[1].ssi_int == 42 && si[1].ssi_code == SI_QUEUE);
	sigdelset(&m, SIGUSR2);
	CHECK("change", signalfd(s, &m, 0) == s);
	CHECK_ERR("no signalfd", signalfd(0, &m, 0), EINVAL);
	close(s);
	sigprocmask(SIG_SETMASK, &was, NULL);
}

static int next_event(int fd, struct inotify_event **ret)
{
	static char buf[4096] __attribute__((aligned(8)));
	static ssize_t len, at;

	if (fd < 0) {
		len = at = 0;
		return 0;
	}
	if (at >= len) {
		len = read(fd, buf, sizeof(buf));
		at = 0;
		if (len <= 0)
			return -1;
	}
	*ret = (struct inotify_event *)(buf + at);
	at += sizeof(**ret) + (*ret)->len;
	return 0;
}

static int expect(int fd, int wd, uint32_t mask, const char *name)
{
	struct inotify_event *e;

	if (next_event(fd, &e))
		return 0;
	if (e->wd == wd && e->mask == mask && (name ? e->len && !strcmp(e->name, name) : !e->len))
		return 1;
	fprintf(stderr, "event wd %d mask %x name %s, wanted wd %d mask %x name %s\n", e->wd, e->mask, e->len ? e->name : "-", wd, mask, name ?: "-");
	return 0;
}

static void inotifies(void)
{
	int in = inotify_init1(IN_NONBLOCK), wd, wf, f, n;
	struct inotify_event *e, *e2;

	mkdir("watched", 0700);
	CHECK("init", in >= 0);
	CHECK_ERR("bad flags", inotify_init1(1), EINVAL);
	wd = inotify_add_watch(in, "watched", IN_ALL_EVENTS);
	CHECK("add", wd == 1);
	CHECK("same", inotify_add_watch(in, "watched", IN_ALL_EVENTS) == 1);
	CHECK_ERR("mask create", inotify_add_watch(in, "watched", IN_CREATE | IN_MASK_CREATE), EEXIST);
	CHECK_ERR("no events", inotify_add_watch(in, "watched", 0), EINVAL);
	CHECK_ERR("enoent", inotify_add_watch(in, "nothing", IN_CREATE), ENOENT);
	CHECK_ERR("only dir", inotify_add_watch(in, "reg", IN_CREATE | IN_ONLYDIR), ENOTDIR);
	CHECK_ERR("empty", read(in, back, 100), EAGAIN);
	f = open("watched/a", O_CREAT | O_WRONLY, 0600);
	CHECK("create", expect(in, 1, IN_CREATE, "a"));
	CHECK("open", expect(in, 1, IN_OPEN, "a"));
	write(f, "x", 1);
	write(f, "x", 1);
	CHECK("modify", expect(in, 1, IN_MODIFY, "a"));
	wf = inotify_add_watch(in, "watched/a", IN_CLOSE | IN_DELETE_SELF | IN_ATTRIB);
	CHECK("second", wf == 2);
	close(f);
	CHECK("close dir", expect(in, 1, IN_CLOSE_WRITE, "a"));
	CHECK("close file", expect(in, 2, IN_CLOSE_WRITE, NULL));
	CHECK("fionread", ioctl(in, FIONREAD, &n) == 0 && n == 0);
	rename("watched/a", "watched/b");
	CHECK("rename", !next_event(in, &e) && e->mask == IN_MOVED_FROM && (n = e->cookie) && !next_event(in, &e2) && e2->mask == IN_MOVED_TO && e2->cookie == (unsigned)n && !strcmp(e2->name, "b"));
	chmod("watched/b", 0644);
	CHECK("attrib dir", expect(in, 1, IN_ATTRIB, "b"));
	CHECK("attrib file", expect(in, 2, IN_ATTRIB, NULL));
	mkdir("watched/d", 0700);
	CHECK("mkdir", expect(in, 1, IN_CREATE | IN_ISDIR, "d"));
	rmdir("watched/d");
	CHECK("rmdir", expect(in, 1, IN_DELETE | IN_ISDIR, "d"));
	unlink("watched/b");
	CHECK("nlink attrib", expect(in, 2, IN_ATTRIB, NULL));
	CHECK("delete self", expect(in, 2, IN_DELETE_SELF, NULL));
	CHECK("ignored", expect(in, 2, IN_IGNORED, NULL));
	CHECK("delete", expect(in, 1, IN_DELETE, "b"));
	CHECK_ERR("rm gone", inotify_rm_watch(in, 2), EINVAL);
	CHECK("rm", inotify_rm_watch(in, 1) == 0 && expect(in, 1, IN_IGNORED, NULL));
	close(in);
}

static siginfo_t async_info;
static void on_async(int sig, siginfo_t *i, void *c) { got_sig = sig; async_info = *i; }

static void async(void)
{
	struct sigaction sa = {.sa_sigaction = on_async, .sa_flags = SA_SIGINFO};
	int p[2];

	pipe(p);
	sigaction(SIGIO, &sa, NULL);
	sigaction(SIGRTMIN + 3, &sa, NULL);
	got_sig = 0;
	CHECK("owner", fcntl(p[0], F_SETOWN, getpid()) == 0 && fcntl(p[0], F_GETOWN) == getpid());
	CHECK("async", fcntl(p[0], F_SETFL, O_ASYNC) == 0 && (fcntl(p[0], F_GETFL) & O_ASYNC));
	write(p[1], "x", 1);
	CHECK("sigio", got_sig == SIGIO);
	CHECK("setsig", fcntl(p[0], F_SETSIG, SIGRTMIN + 3) == 0 && fcntl(p[0], F_GETSIG) == SIGRTMIN + 3);
	read(p[0], back, 1);
	got_sig = 0;
	write(p[1], "x", 1);
	CHECK("signal with band", got_sig == SIGRTMIN + 3 && async_info.si_code == POLL_IN && (async_info.si_band & POLLIN));
	CHECK("off", fcntl(p[0], F_SETFL, 0) == 0);
	read(p[0], back, 1);
	got_sig = 0;
	write(p[1], "x", 1);
	CHECK("quiet", got_sig == 0);
	close(p[0]);
	close(p[1]);
}

int main(void)
{
	snprintf(dir, sizeof(dir), "/tmp/conf-io-%d", getpid());
	if (mkdir(dir, 0700) || chdir(dir))
		return 2;
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i * 31 + i / 4096);
	pipes();
	splices();
	fifos();
	eventfds();
	epolls();
	masks();
	polls();
	timerfds();
	signalfds();
	inotifies();
	async();
	CHECK_DONE();
}
