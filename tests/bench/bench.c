// Microbenchmarks: each prints "NAME ns". With arguments: only those named.
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int null_fd, file_fd, pipe_a[2], pipe_b[2];
static char *buf;

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

#define MUST(x) do { if (!(x)) { perror(#x); exit(1); } } while (0)
static void b_getppid(void) { syscall(SYS_getppid); }
static void b_clock(void) { struct timespec t; clock_gettime(CLOCK_REALTIME, &t); }
static void b_read_null(void) { MUST(read(null_fd, buf, 1) == 0); }
static void b_write_null(void) { MUST(write(null_fd, buf, 4096) == 4096); }
static void b_stat(void) { struct stat st; MUST(stat("/etc/passwd", &st) == 0); }
static void b_stat_missing(void) { struct stat st; MUST(stat("/etc/no-such-file", &st) < 0); }
static void b_open_close(void) { int fd = open("/etc/passwd", O_RDONLY); MUST(fd >= 0); close(fd); }
static void b_pread_4k(void) { MUST(pread(file_fd, buf, 4096, 0) == 4096); }
static void b_pread_1m(void) { MUST(pread(file_fd, buf, 1 << 20, 0) == 1 << 20); }
static void b_write_4k(void) { MUST(pwrite(file_fd, buf, 4096, 0) == 4096); }
static void b_create_unlink(void)
{
	int fd = open("/tmp/bench.x", O_RDWR | O_CREAT | O_EXCL, 0600);

	MUST(fd >= 0);
	close(fd);
	unlink("/tmp/bench.x");
}
static void b_readdir(void)
{
	DIR *d = opendir("/usr/bin");

	MUST(d);
	while (readdir(d))
		;
	closedir(d);
}
static void b_mmap_munmap(void) { void *p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); MUST(p != MAP_FAILED); munmap(p, 65536); }
static void b_fault_anon(void)
{
	static char *p;
	static size_t at;

	if (!p || at == 64 << 20) {
		if (p)
			munmap(p, 64 << 20);
		p = mmap(NULL, 64 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		madvise(p, 64 << 20, MADV_NOHUGEPAGE);
		at = 0;
	}
	p[at] = 1;
	at += 4096;
}
static void b_pipe_self(void) { MUST(write(pipe_a[1], buf, 1) == 1 && read(pipe_a[0], buf, 1) == 1); }
static void b_fork_wait(void) { pid_t p = fork(); if (!p) _exit(0); MUST(waitpid(p, NULL, 0) == p); }
static void b_fork_exec_wait(void)
{
	pid_t p = vfork();

	if (!p) {
		execl("/bin/true", "true", NULL);
		_exit(1);
	}
	MUST(waitpid(p, NULL, 0) == p);
}
static void *nothing(void *a) { return a; }
static void b_thread(void) { pthread_t t; MUST(pthread_create(&t, NULL, nothing, NULL) == 0); pthread_join(t, NULL); }
static void b_socketpair(void) { int s[2]; MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, s) == 0); close(s[0]); close(s[1]); }
static void b_signal_self(void) { MUST(raise(SIGUSR1) == 0); }
static void b_pingpong(void) { MUST(write(pipe_a[1], buf, 1) == 1 && read(pipe_b[0], buf, 1) == 1); }
static void handler(int s) {}

static const struct {
	const char *name;
	void (*fn)(void);
} rows[] = {
	{"getppid", b_getppid}, {"clock_gettime", b_clock}, {"read_null", b_read_null}, {"write_null_4k", b_write_null},
	{"stat", b_stat}, {"stat_missing", b_stat_missing}, {"open_close", b_open_close}, {"pread_4k", b_pread_4k},
	{"pread_1m", b_pread_1m}, {"pwrite_4k", b_write_4k}, {"create_unlink", b_create_unlink}, {"readdir", b_readdir},
	{"mmap_munmap", b_mmap_munmap}, {"fault_anon", b_fault_anon}, {"pipe_self", b_pipe_self}, {"signal_self", b_signal_self},
	{"socketpair", b_socketpair}, {"thread", b_thread}, {"fork_wait", b_fork_wait}, {"fork_exec_wait", b_fork_exec_wait},
	{"pipe_pingpong", b_pingpong},
};

// The best of five runs of about 30 ms each: other load on the machine only ever adds.
static double measure(void (*fn)(void))
{
	uint64_t n = 1, t, best = UINT64_MAX;

	for (;;) {
		t = now();
		for (uint64_t i = 0; i < n; i++)
			fn();
		t = now() - t;
		if (t > 10000000 || n > 1u << 24)
			break;
		n *= 2;
	}
	n = n * 30000000 / (t + 1) + 1;
	for (int k = 0; k < 5; k++) {
		t = now();
		for (uint64_t i = 0; i < n; i++)
			fn();
		t = now() - t;
		if (t < best)
			best = t;
	}
	return (double)best / n;
}

static pid_t echo(void)
{
	pid_t p = fork();
	char c;

	if (p == 0) {
		while (read(pipe_a[0], &c, 1) == 1 && write(pipe_b[1], &c, 1) == 1)
			;
		_exit(0);
	}
	return p;
}

int main(int argc, char **argv)
{
	buf = calloc(1, 1 << 20);
	null_fd = open("/dev/null", O_RDWR);
	file_fd = open("/tmp/bench.file", O_RDWR | O_CREAT | O_TRUNC, 0600);
	MUST(null_fd >= 0 && file_fd >= 0 && pwrite(file_fd, buf, 1 << 20, 0) == 1 << 20 && !pipe(pipe_a) && !pipe(pipe_b));
	signal(SIGUSR1, handler);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		pid_t p = 0;
		int wanted = argc < 2;

		for (int k = 1; k < argc; k++)
			wanted |= !strcmp(argv[k], rows[i].name);
		if (!wanted)
			continue;
		if (rows[i].fn == b_pingpong)
			p = echo();
		printf("%s %.1f\n", rows[i].name, measure(rows[i].fn));
		fflush(stdout);
		if (p) {
			kill(p, SIGKILL);
			waitpid(p, NULL, 0);
		}
	}
	unlink("/tmp/bench.file");
	return 0;
}
