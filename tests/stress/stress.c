// Puts a kernel under load: `stress NAME [COUNT]` does one thing COUNT times, prints "done NAME COUNT" and exits 0, or
// says what went wrong. It must pass on Linux first.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *self;

static void die(const char *fmt, ...)
{
	int e = errno;
	va_list ap;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf(" (errno %d: %s)\n", e, strerror(e));
	fflush(stdout);
	_exit(1);
}

#define MUST(x) ({ long r_ = (long)(x); if (r_ < 0) die("line %d: %s", __LINE__, #x); r_; })

static void reap(pid_t pid, int want)
{
	int st;

	for (;;) {
		pid_t r = waitpid(pid, &st, 0);

		if (r == pid)
			break;
		if (r < 0 && errno == EINTR)
			continue;
		die("wait for %d gave %d", pid, r);
	}
	if (st != want)
		die("process %d ended with status %#x, not %#x", pid, st, want);
}

static void nap_us(long us)
{
	struct timespec ts = {us / 1000000, us % 1000000 * 1000};

	nanosleep(&ts, NULL);
}

static int msec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

// --- many at once -------------------------------------------------------------------------------
static void procs(int n)
{
	pid_t *pids = calloc(n, sizeof(*pids));
	int up[2], go[2];
	char c;

	MUST(pipe(up));
	MUST(pipe(go));
	for (int i = 0; i < n; i++) {
		pids[i] = MUST(fork());
		if (!pids[i]) {
			close(go[1]);
			MUST(write(up[1], "u", 1));
			if (read(go[0], &c, 1) != 0)
				_exit(2);
			_exit(i % 100);
		}
	}
	for (int i = 0; i < n; i++)
		if (read(up[0], &c, 1) != 1)
			die("read");
	close(go[1]);
	for (int i = 0; i < n; i++)
		reap(pids[i], (i % 100) << 8);
	free(pids);
	close(up[0]);
	close(up[1]);
	close(go[0]);
}

static pthread_barrier_t barrier;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long counter;

static void *one_of_many(void *arg)
{
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < 100; i++) {
		pthread_mutex_lock(&lock);
		counter++;
		pthread_mutex_unlock(&lock);
		if (i % 10 == 0)
			getppid();
	}
	return arg;
}

static void threads(int n)
{
	pthread_t *t = calloc(n, sizeof(*t));
	pthread_attr_t a;
	void *ret;

	counter = 0;
	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, 65536);
	pthread_barrier_init(&barrier, NULL, n + 1);
	for (long i = 0; i < n; i++)
		if ((errno = pthread_create(&t[i], &a, one_of_many, (void *)i)))
			die("thread %ld", i);
	pthread_barrier_wait(&barrier);
	for (long i = 0; i < n; i++)
		if (pthread_join(t[i], &ret) || (long)ret != i)
			die("join %ld", i);
	if (counter != 100L * n)
		die("counter is %ld", counter);
	free(t);
}

static void tree(int n)
{
	pid_t pid;

	if (n == 0)
		return;
	pid = MUST(fork());
	if (!pid) {
		tree(n - 1);
		_exit(n);
	}
	reap(pid, n << 8);
}

// --- one after the other --------------------------------------------------------------------------
static void forks(int n)
{
	for (int i = 0; i < n; i++) {
		pid_t pid = MUST(fork());

		if (!pid)
			_exit(i & 63);
		reap(pid, (i & 63) << 8);
	}
}

static void execs(int n)
{
	char count[16];

	// in place: each instance runs the next
	snprintf(count, sizeof(count), "%d", n - 1);
	if (n > 0) {
		execl(self, self, "execs", count, NULL);
		die("exec");
	}
}

static void forkexecs(int n)
{
	for (int i = 0; i < n; i++) {
		pid_t pid = MUST(fork());

		if (!pid) {
			execl(self, self, "nothing", NULL);
			_exit(127);
		}
		reap(pid, 0);
	}
}

static void vforks(int n)
{
	for (int i = 0; i < n; i++) {
		pid_t pid = MUST(vfork());

		if (!pid) {
			if (i & 1)
				execl(self, self, "nothing", NULL);
			_exit(i & 1 ? 127 : 3);
		}
		reap(pid, i & 1 ? 0 : 3 << 8);
	}
}

static void *vfork_thread(void *arg)
{
	vforks((long)arg);
	return NULL;
}

static void vforkstorm(int n) // from several threads of one process
{
	pthread_t t[8];

	for (int i = 0; i < 8; i++)
		if ((errno = pthread_create(&t[i], NULL, vfork_thread, (void *)(long)(n / 8))))
			die("thread");
	for (int i = 0; i < 8; i++)
		pthread_join(t[i], NULL);
}

static void *nothing_thread(void *arg)
{
	return arg;
}

static void joins(int n)
{
	pthread_t t;

	for (int i = 0; i < n; i++) {
		if ((errno = pthread_create(&t, NULL, nothing_thread, NULL)))
			die("thread %d", i);
		pthread_join(t, NULL);
	}
}

static void *exec_thread(void *arg)
{
	for (;;)
		nap_us(100 + random() % 500);
	return arg;
}

static void threadexec(int n) // exec and exit_group while other threads are at work
{
	for (int i = 0; i < n; i++) {
		pid_t pid = MUST(fork());
		pthread_t t;

		if (!pid) {
			for (int k = 0; k < 8; k++)
				pthread_create(&t, NULL, exec_thread, NULL);
			nap_us(random() % 2000);
			if (i & 1)
				execl(self, self, "nothing", NULL);
			_exit(0);
		}
		reap(pid, 0);
	}
}

// --- what a victim does -----------------------------------------------------------------------------
static volatile int sig_seen;

static void on_signal(int sig)
{
	sig_seen++;
}

static void *lock_thread(void *arg)
{
	for (;;)
		one_of_many(arg);
}

static void busy_with(int what)
{
	char buf[65536];
	int p[2], sv[2], fd, ep;
	struct epoll_event ev = {.events = EPOLLIN};
	struct pollfd pfd;
	pthread_t t;
	pid_t pid;

	switch (what % 20) {
	case 0: // sleeping calls
		for (;;)
			nap_us(50);
	case 1:
		pipe(p);
		for (;;)
			read(p[0], buf, 1);
	case 2:
		pipe(p);
		for (;;) {
			write(p[1], buf, 4096);
			read(p[0], buf, 4096);
		}
	case 3:
		socketpair(AF_UNIX, SOCK_STREAM, 0, sv);
		for (;;) {
			write(sv[0], buf, sizeof(buf) / 2);
			read(sv[1], buf, sizeof(buf) / 2);
		}
	case 4: // files
		for (;;) {
			snprintf(buf, 64, "/tmp/victim.%d", getpid());
			fd = open(buf, O_CREAT | O_RDWR, 0600);
			pwrite(fd, buf, sizeof(buf), 0);
			ftruncate(fd, 100);
			close(fd);
			unlink(buf);
		}
	case 5:
		for (;;) {
			struct stat st;

			stat("/etc/passwd", &st);
			fd = open("/etc/passwd", O_RDONLY);
			read(fd, buf, sizeof(buf));
			close(fd);
			access("/etc/nothing/there", F_OK);
		}
	case 6: // memory
		for (;;) {
			char *m = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

			memset(m, 1, 65536);
			mprotect(m, 4096, PROT_READ);
			munmap(m, 1 << 20);
		}
	case 7:
		for (;;) {
			char *m = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

			m[5000] = 1;
			munmap(m, 1 << 16);
		}
	case 8: // processes
		for (;;) {
			pid = fork();
			if (!pid)
				_exit(0);
			waitpid(pid, NULL, 0);
		}
	case 9:
		for (;;) {
			pid = vfork();
			if (!pid) {
				execl(self, self, "nothing", NULL);
				_exit(127);
			}
			waitpid(pid, NULL, 0);
		}
	case 10: // threads
		for (;;) {
			pthread_create(&t, NULL, nothing_thread, NULL);
			pthread_join(t, NULL);
		}
	case 11:
		pthread_barrier_init(&barrier, NULL, 1);
		for (int i = 0; i < 4; i++)
			pthread_create(&t, NULL, lock_thread, NULL);
		pause();
		return;
	case 12: // signals
		signal(SIGUSR1, on_signal);
		for (;;)
			kill(getpid(), SIGUSR1);
	case 13: {
		struct itimerval it = {{0, 100}, {0, 100}};

		signal(SIGALRM, on_signal);
		setitimer(ITIMER_REAL, &it, NULL);
		for (;;)
			pause();
	}
	case 14: // waiting for several things
		pipe(p);
		ep = epoll_create1(0);
		epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev);
		for (;;) {
			epoll_wait(ep, &ev, 1, 1);
			write(p[1], "x", 1);
			epoll_wait(ep, &ev, 1, 1);
			read(p[0], buf, 1);
		}
	case 15:
		pipe(p);
		pfd = (struct pollfd){.fd = p[0], .events = POLLIN};
		for (;;)
			poll(&pfd, 1, 1);
	case 16: // no calls at all
		for (;;)
			sig_seen++;
	case 17:
		for (;;)
			getppid();
	case 18: // over and over a new program
		execl(self, self, "nothing-again", NULL);
		return;
	case 19:
		pid = fork();
		if (!pid) // left to its own devices for a short while
			for (int i = 0; i < 20; i++)
				nap_us(100);
		else
			waitpid(pid, NULL, 0);
		for (int i = 0;; i++) {
			snprintf(buf, 64, "/proc/%d/stat", 1 + i % 100);
			fd = open(buf, O_RDONLY);
			read(fd, buf, 1000);
			close(fd);
			if (!pid && i > 1000)
				_exit(0);
		}
	}
}

static void kills(int n)
{
	for (int i = 0; i < n; i++) {
		pid_t pid = MUST(fork());

		if (!pid) {
			setpgid(0, 0);
			busy_with(i);
			_exit(0);
		}
		setpgid(pid, pid);
		nap_us(random() % (i % 3 ? 1000 : 10000));
		if (i & 1)
			kill(-pid, SIGKILL);
		MUST(kill(pid, SIGKILL));
		reap(pid, SIGKILL);
		kill(-pid, SIGKILL);
	}
}

static void stops(int n) // SIGSTOP and SIGCONT at random moments
{
	for (int i = 0; i < n; i++) {
		pid_t pid = MUST(fork());
		int st;

		if (!pid) {
			setpgid(0, 0);
			busy_with(i);
			_exit(0);
		}
		setpgid(pid, pid);
		for (int k = 0; k < 3; k++) {
			nap_us(random() % 1000);
			MUST(kill(pid, SIGSTOP));
			MUST(waitpid(pid, &st, WUNTRACED));
			if (!WIFSTOPPED(st))
				die("status %#x after SIGSTOP", st);
			MUST(kill(pid, SIGCONT));
			MUST(waitpid(pid, &st, WCONTINUED));
			if (!WIFCONTINUED(st))
				die("status %#x after SIGCONT", st);
		}
		kill(-pid, SIGKILL);
		reap(pid, SIGKILL);
	}
}

// --- 8 processes talk ---------------------------------------------------------------------------------
#define PEERS 8

static void talk(int n)
{
	int ring[PEERS][2], done[2];
	pid_t pids[PEERS];

	// A token goes round for each process; each hop is an epoll wait, and a signal goes to the neighbour.
	signal(SIGUSR1, on_signal);
	for (int i = 0; i < PEERS; i++)
		MUST(pipe(ring[i]));
	MUST(pipe(done));
	for (int i = 0; i < PEERS; i++) {
		pids[i] = MUST(fork());
		if (pids[i])
			continue;
		int in = ring[i][0], out = ring[(i + 1) % PEERS][1], ep = MUST(epoll_create1(0)), efd = MUST(eventfd(0, 0));
		struct epoll_event ev = {.events = EPOLLIN, .data.fd = in};
		uint64_t one = 1, v;
		int tok = 0, last = msec(), stuck = 0;

		MUST(epoll_ctl(ep, EPOLL_CTL_ADD, in, &ev));
		ev.data.fd = efd;
		MUST(epoll_ctl(ep, EPOLL_CTL_ADD, efd, &ev));
		MUST(write(out, &tok, sizeof(tok)));
		for (int got = 0; got < n;) {
			int r = epoll_wait(ep, &ev, 1, 10000);

			if (r < 0 && errno == EINTR)
				continue;
			if (r == 0 && stuck++ > 1)
				die("peer %d: nothing for %d ms after %d", i, msec() - last, got);
			if (r != 1)
				continue;
			last = msec();
			if (ev.data.fd == efd) {
				if (read(efd, &v, 8) != 8)
					die("eventfd");
				continue;
			}
			while ((r = read(in, &tok, sizeof(tok))) < 0 && errno == EINTR)
				;
			if (r == 0)
				break;
			if (r != sizeof(tok))
				die("token");
			got++;
			tok++;
			if (got % 16 == 0)
				MUST(write(efd, &one, 8));
			if (got % 8 == 0)
				kill(getppid(), SIGUSR1);
			while ((r = write(out, &tok, sizeof(tok))) < 0 && errno == EINTR)
				;
			if (r != sizeof(tok))
				die("write");
		}
		MUST(write(done[1], "d", 1));
		pause(); // the token of the others may still come
		_exit(0);
	}
	for (int i = 0; i < PEERS; i++) {
		char c;
		int r;

		while ((r = read(done[0], &c, 1)) < 0 && errno == EINTR)
			;
		if (r != 1)
			die("done");
	}
	for (int i = 0; i < PEERS; i++) {
		kill(pids[i], SIGKILL);
		reap(pids[i], SIGKILL);
		close(ring[i][0]);
		close(ring[i][1]);
	}
	close(done[0]);
	close(done[1]);
}

static void pingsig(int n) // two processes signal each other, each waits for its turn
{
	sigset_t set;
	pid_t pid, peer;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	pid = MUST(fork());
	peer = pid ? pid : getppid();
	for (int i = 0; i < n; i++) {
		if (pid)
			MUST(kill(peer, SIGUSR1));
		if (sigwait(&set, &sig))
			die("sigwait");
		if (!pid)
			MUST(kill(peer, SIGUSR1));
	}
	if (!pid)
		_exit(0);
	reap(pid, 0);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void fds(int n) // descriptors of every kind come and go
{
	for (int i = 0; i < n; i++) {
		int p[2], sv[2], e, ep, f;

		MUST(pipe(p));
		MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
		e = MUST(eventfd(0, 0));
		ep = MUST(epoll_create1(0));
		for (int k = 0; k < 2; k++) {
			struct epoll_event ev = {.events = EPOLLIN};

			MUST(epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev));
			MUST(epoll_ctl(ep, EPOLL_CTL_ADD, sv[k], &ev));
			if (k == 0)
				MUST(epoll_ctl(ep, EPOLL_CTL_DEL, p[0], NULL));
		}
		// a descriptor that is on its way when both ends close
		struct msghdr m = {};
		char cb[CMSG_SPACE(sizeof(int))], x = 'x';
		struct iovec iov = {&x, 1};

		m.msg_iov = &iov;
		m.msg_iovlen = 1;
		m.msg_control = cb;
		m.msg_controllen = sizeof(cb);
		*CMSG_FIRSTHDR(&m) = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &p[0], sizeof(int));
		MUST(sendmsg(sv[0], &m, 0));
		f = MUST(open("/tmp/fds", O_CREAT | O_RDWR, 0600));
		MUST(write(f, "hello", 5));
		char *map = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, f, 0);

		if (map == MAP_FAILED || map[0] != 'h')
			die("mmap");
		munmap(map, 4096);
		close(f);
		MUST(unlink("/tmp/fds"));
		f = MUST(memfd_create("fds", 0));
		MUST(ftruncate(f, 8192));
		map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0);
		if (map == MAP_FAILED)
			die("mmap");
		map[5000] = 1;
		munmap(map, 8192);
		close(f);
		close(p[0]);
		close(p[1]);
		close(sv[0]);
		close(sv[1]);
		close(e);
		close(ep);
	}
}

static void files(int n) // names that come, move and go
{
	char a[64], b[64];

	MUST(mkdir("/tmp/names", 0700));
	for (int i = 0; i < n; i++) {
		struct stat st;
		int f;

		snprintf(a, sizeof(a), "/tmp/names/a%d", i);
		snprintf(b, sizeof(b), "/tmp/names/b%d", i);
		f = MUST(open(a, O_CREAT | O_EXCL | O_RDWR, 0600));
		MUST(write(f, a, 64));
		MUST(rename(a, b));
		MUST(link(b, a));
		MUST(stat(b, &st));
		MUST(unlink(a));
		if (stat(a, &st) == 0 || errno != ENOENT)
			die("stat");
		MUST(unlink(b));
		close(f);
		snprintf(a, sizeof(a), "/usr/nothing%d", i);
		if (stat(a, &st) == 0)
			die("stat");
	}
	MUST(rmdir("/tmp/names"));
}

static void maps(int n)
{
	for (int i = 0; i < n; i++) {
		char *m = mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (m == MAP_FAILED)
			die("mmap %d", i);
		for (int k = 0; k < 64; k += 2)
			m[k * 4096] = k;
		for (int k = 0; k < 64; k += 2)
			MUST(mprotect(m + k * 4096, 4096, PROT_READ));
		for (int k = 1; k < 64; k += 2)
			MUST(munmap(m + k * 4096, 4096));
		for (int k = 0; k < 64; k += 2)
			if (m[k * 4096] != k)
				die("page %d is wrong", k);
		MUST(munmap(m, 64 * 4096));
	}
}

static void nothing(int n)
{
}

static const struct load {
	const char *name;
	void (*fn)(int n);
	int count;
} loads[] = {
	{"procs", procs, 200}, {"threads", threads, 500}, {"tree", tree, 64}, {"forks", forks, 100000}, {"execs", execs, 10000},
	{"forkexecs", forkexecs, 10000}, {"joins", joins, 10000}, {"vforks", vforks, 5000}, {"vforkstorm", vforkstorm, 4000},
	{"threadexec", threadexec, 500}, {"kills", kills, 500}, {"stops", stops, 200}, {"talk", talk, 20000},
	{"pingsig", pingsig, 20000}, {"fds", fds, 20000}, {"files", files, 20000}, {"maps", maps, 500}, {"nothing", nothing, 1},
};

// Reads "NAME COUNT" lines, does each, answers each with a line: the reader can look at the sandbox in between.
static int serve(void)
{
	char name[64], line[128];
	int n;

	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) && sscanf(line, "%63s %d", name, &n) == 2) {
		pid_t pid = MUST(fork());
		char count[16];
		int st;

		if (!pid) {
			snprintf(count, sizeof(count), "%d", n);
			execl(self, self, name, count, NULL);
			_exit(127);
		}
		MUST(waitpid(pid, &st, 0));
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		printf("status %#x\n", st);
		fflush(stdout);
	}
	return 0;
}

int main(int argc, char **argv)
{
	int start = msec();

	self = argv[0];
	srandom(getpid() * 31 + time(NULL));
	if (argc < 2)
		return serve();
	if (!strcmp(argv[1], "nothing-again")) {
		execv(self, argv);
		return 1;
	}
	for (size_t i = 0; i < sizeof(loads) / sizeof(loads[0]); i++) {
		if (strcmp(argv[1], loads[i].name))
			continue;
		int n = argc > 2 ? atoi(argv[2]) : loads[i].count;

		loads[i].fn(n);
		if (strcmp(argv[1], "nothing") && !(argc > 2 && !strcmp(argv[1], "execs")))
			printf("done %s %d (%d ms)\n", argv[1], n, msec() - start);
		return 0;
	}
	printf("unknown load %s\n", argv[1]);
	return 1;
}
