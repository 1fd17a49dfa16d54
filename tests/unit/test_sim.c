// The whole kernel under a storm: guests on the fake platform make system calls with arguments that are
// half sensible and half garbage, fork, make threads, get signals and are killed, all from a seed.
// Nothing may fail but the calls: no assertion, no sanitizer report, no task that SIGKILL does not end,
// and nothing left alive afterwards.
//
//   test_sim [FIRST-SEED [COUNT]]    (SIM_TRACE=1 prints the calls)
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/base/assert.h"
#include "tests/unit/guest.h"

#define POOL 0x20000000UL // what mapping calls play with; never the guests' own memory
#define SCRATCH G_MEM     // argument memory, up to the page of the helpers
#define PROCS 4
#define DEPTH 3

static uint64_t first_seed, nr_seeds = 150, seed_now;
static bool trace;
static unsigned nr_started;

// --- what was called last -----------------------------------------------------------------------------

static struct last_call {
	long nr;
	uint64_t a[6];
	int64_t pid;
} last[32];
static unsigned nr_last;

static void tell(void)
{
	fprintf(stderr, "seed %lu; the last calls:\n", seed_now);
	for (unsigned i = nr_last > 32 ? nr_last - 32 : 0; i < nr_last; i++) {
		struct last_call *c = &last[i % 32];

		fprintf(stderr, "  [%ld] %ld(%lx, %lx, %lx, %lx, %lx, %lx)\n", c->pid, c->nr, c->a[0], c->a[1], c->a[2],
			c->a[3], c->a[4], c->a[5]);
	}
}

// --- random things ------------------------------------------------------------------------------------

struct storm {
	uint64_t rng;
	int depth;
	int64_t pid;
};

static uint64_t rnd(struct storm *s)
{
	s->rng ^= s->rng << 13;
	s->rng ^= s->rng >> 7;
	s->rng ^= s->rng << 17;
	return s->rng * 0x2545f4914f6cdd1dULL >> 16;
}

#define PICK(s, array) ((array)[rnd(s) % ARRAY_SIZE(array)])

static const char *const paths[] = {"/", ".", "..", "a", "b", "/tmp", "/tmp/a", "/bin/0", "/bin", "a/b/c", "/tmp/../a", "",
				    "//a///b/", "link", "/nowhere/at/all", "dir", "dir/x", "dir/../dir/y", "/proc/self/maps", "/proc/self/status", "/proc/1/stat", "/proc/self/fd/3",
				    "/proc/self/task", "/proc/sys/kernel/hostname", "/dev/null", "/dev/zero", "/dev/ptmx",
				    "/dev/random", "/dev/full", "/sys", "/proc", "/proc/mounts", "/tmp2/x", "/tmp2",
				    "/proc/self/mem", "/proc/self/exe", "/proc/self/cwd/a"};
#define PATH_AT(i) (SCRATCH + (i) * 64UL)
#define MADE_AT(i) (SCRATCH + 0x1000 + (i) * 128UL) // well-formed structs
#define RANDOM_AREA (SCRATCH + 0x2000UL)
#define RANDOM_SIZE 0xb000UL

static uint64_t random_pointer(struct storm *s)
{
	static const uint64_t bad[] = {0, 1, 8, 0xfff, 0x7fff00000000, 0x7ffeffffffff, 0xffffffff81000000, UINT64_MAX,
				       UINT64_MAX - 4095, SCRATCH - 8, 0x8000000000000000};

	switch (rnd(s) % 8) {
	case 0:
		return PICK(s, bad);
	case 1:
	case 2:
		return PATH_AT(rnd(s) % ARRAY_SIZE(paths));
	default:
		return RANDOM_AREA + rnd(s) % (RANDOM_SIZE - 0x800) / 8 * (rnd(s) % 4 ? 8 : 1);
	}
}

static uint64_t random_number(struct storm *s)
{
	static const uint64_t sizes[] = {0, 1, 2, 3, 4, 7, 8, 16, 24, 32, 48, 64, 100, 128, 256, 512, 1000, 1024, 4095, 4096, 4097,
					 8192, 65536, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, UINT64_MAX, INT64_MAX};

	switch (rnd(s) % 6) {
	case 0:
		return PICK(s, sizes);
	case 1:
		return 1ULL << rnd(s) % 64;
	case 2:
		return 1ULL << rnd(s) % 20 | 1ULL << rnd(s) % 20 | 1ULL << rnd(s) % 20;
	case 3:
		return rnd(s) % 64;
	case 4:
		return (uint64_t)-(int64_t)(rnd(s) % 200);
	default:
		return rnd(s) % 12;
	}
}

// Anything at all, for the one argument in a dozen that is not what the call wants.
static uint64_t random_arg(struct storm *s)
{
	switch (rnd(s) % 8) {
	case 0:
	case 1:
		return rnd(s) % 24; // a descriptor, a pid, a small number
	case 2:
		return (uint64_t)(int64_t)AT_FDCWD;
	case 3:
	case 4:
	case 5:
		return random_pointer(s);
	default:
		return random_number(s);
	}
}

static void fill_random(struct storm *s)
{
	uint64_t words[64];
	size_t n = 1 + rnd(s) % ARRAY_SIZE(words);

	if (rnd(s) % 3 == 0) { // pointers and lengths, as in struct iovec
		for (size_t i = 0; i + 1 < n; i += 2) {
			words[i] = random_pointer(s);
			words[i + 1] = rnd(s) % 8 ? rnd(s) % 300 : random_number(s);
		}
		n &= ~1UL;
	} else {
		for (size_t i = 0; i < n; i++)
			words[i] = rnd(s) % 3 ? random_arg(s) : rnd(s) % 2 ? rnd(s) << 16 ^ rnd(s) : 0;
	}
	g_try_put(RANDOM_AREA + rnd(s) % (RANDOM_SIZE - 0x800), words, n * 8);
}

// Structs that calls accept, so that they get further.
enum { MADE_SUN, MADE_SUN_ABSTRACT, MADE_TS, MADE_TV, MADE_ITS, MADE_SET, MADE_IOV, MADE_POLL, MADE_EPOLL, MADE_MSG, MADE_FLOCK,
       MADE_SEMBUF, MADE_SIGEVENT, NR_MADE };

static void put_made(struct storm *s)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX, .sun_path = "/tmp/sock"}, hidden = {.sun_family = AF_UNIX};
	uint64_t ts[2] = {0, 2000000}, tv[2] = {0, 1500}, its[4] = {0, 1000000, 0, 1000000}, set = rnd(s);
	uint64_t iov[8] = {RANDOM_AREA, 100, RANDOM_AREA + 0x1000, 3000, 0, 0, RANDOM_AREA + 0x40, 5};
	struct pollfd pfd[8];
	struct epoll_event ev = {.events = (uint32_t)rnd(s), .data.u64 = rnd(s)};
	struct {
		struct msghdr h;
		struct { size_t cmsg_len; int cmsg_level, cmsg_type; } c; // a struct cmsghdr with its data behind it
		int fds[4];
	} msg = {.h = {.msg_iov = (struct iovec *)MADE_AT(MADE_IOV), .msg_iovlen = 1 + rnd(s) % 4,
		       .msg_control = (void *)(MADE_AT(MADE_MSG) + sizeof(struct msghdr)), .msg_controllen = sizeof(msg.c) + 8},
		 .c = {.cmsg_len = CMSG_LEN(8), .cmsg_level = SOL_SOCKET, .cmsg_type = rnd(s) % 2 ? SCM_RIGHTS : SCM_CREDENTIALS},
		 .fds = {(int)(rnd(s) % 16), (int)(rnd(s) % 16)}};
	struct flock fl = {.l_type = (short)(rnd(s) % 3), .l_start = (off_t)(rnd(s) % 50), .l_len = (off_t)(rnd(s) % 50)};
	struct sembuf sb[4] = {{0, 1, 0}, {1, -1, IPC_NOWAIT}, {0, -1, SEM_UNDO}};
	uint64_t sev[8] = {rnd(s), SIGALRM | (rnd(s) % 5) << 32, (uint64_t)s->pid};
	static const size_t len[NR_MADE] = {sizeof(sun), sizeof(sun), sizeof(ts), sizeof(tv), sizeof(its), sizeof(set), sizeof(iov),
					    sizeof(pfd), sizeof(ev), sizeof(msg), sizeof(fl), sizeof(sb), sizeof(sev)};
	const void *made[NR_MADE] = {&sun, &hidden, ts, tv, its, &set, iov, pfd, &ev, &msg, &fl, sb, sev};

	memcpy(hidden.sun_path, "\0hidden", 7);
	for (size_t i = 0; i < ARRAY_SIZE(pfd); i++)
		pfd[i] = (struct pollfd){(int)(rnd(s) % 16), (short)rnd(s), 0};
	for (unsigned i = 0; i < NR_MADE; i++)
		g_try_put(MADE_AT(i), made[i], MIN(len[i], 128UL));
}

static void put_paths(void)
{
	char buf[64];

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		memset(buf, 0, sizeof(buf));
		strcpy(buf, paths[i]);
		g_try_put(PATH_AT(i), buf, sizeof(buf));
	}
}

// What the list of system calls says about each argument.
static const char *const formats[512] = {
#define SC(nr, name, state, args, note) [nr] = args,
#include "sentry/syscalls/syscalls.def"
#undef SC
};

enum { FULL = 1, PARTIAL = 1, NONE = 0, NOPERM = 0 };
static const bool implemented[512] = {
#define SC(nr, name, state, args, note) [nr] = state,
#include "sentry/syscalls/syscalls.def"
#undef SC
};

static bool starts(const char *w, const char *with)
{
	return strncmp(w, with, strlen(with)) == 0;
}

static uint64_t typed_arg(struct storm *s, const char *w)
{
	if (rnd(s) % 12 == 0)
		return random_arg(s);
	if (starts(w, "fd"))
		return rnd(s) % 16;
	if (starts(w, "dfd"))
		return rnd(s) % 4 ? (uint64_t)(int64_t)AT_FDCWD : rnd(s) % 16;
	if (starts(w, "path") || starts(w, "str"))
		return rnd(s) % 16 ? PATH_AT(rnd(s) % ARRAY_SIZE(paths)) : random_pointer(s);
	if ((starts(w, "in") && w[2] != 't') || ((starts(w, "ptr") || starts(w, "iov") || starts(w, "pollfds")) && rnd(s) % 2))
		return rnd(s) % 2 ? MADE_AT(rnd(s) % NR_MADE) : RANDOM_AREA + rnd(s) % (RANDOM_SIZE - 0x800) / 8 * 8;
	if (starts(w, "out") || starts(w, "iov") || starts(w, "ptr") || starts(w, "pollfds"))
		return rnd(s) % 4 ? RANDOM_AREA + rnd(s) % (RANDOM_SIZE - 0x800) / 8 * 8 : rnd(s) % 2 ? 0 : random_pointer(s);
	if (starts(w, "size"))
		return rnd(s) % 8 ? rnd(s) % (rnd(s) % 2 ? 64 : 8192) : random_number(s);
	if (starts(w, "sig"))
		return 1 + rnd(s) % 64;
	if (starts(w, "mode") || starts(w, "accmode"))
		return rnd(s) % 01000;
	if (starts(w, "prot"))
		return rnd(s) % 8;
	if (starts(w, "oflags"))
		return (rnd(s) % 3) | (rnd(s) % 2 ? O_CREAT : 0) | (rnd(s) % 4 ? 0 : 1u << (6 + rnd(s) % 16));
	if (starts(w, "int") || starts(w, "uint"))
		return rnd(s) % 4 ? rnd(s) % 8 : random_number(s);
	if (starts(w, "hex"))
		return rnd(s) % 2 ? 0 : rnd(s) % 2 ? 1ULL << rnd(s) % 20 : random_arg(s);
	return random_arg(s);
}

static void typed_args(struct storm *s, long nr, uint64_t a[6])
{
	const char *w = formats[nr] ? formats[nr] : "";

	for (int i = 0; i < 6; i++) {
		a[i] = *w ? typed_arg(s, w) : random_arg(s);
		while (*w && *w != ' ')
			w++;
		while (*w == ' ')
			w++;
	}
}

// --- the calls ------------------------------------------------------------------------------------------

// Calls that change what the harness itself stands on (registers, stacks, its handlers), or that would
// only stop the test.
static bool excluded(long nr)
{
	switch (nr) {
	case SYS_rt_sigreturn:
	case SYS_rt_sigaction:
	case SYS_arch_prctl:
	case SYS_sigaltstack:
	case SYS_clone:
	case SYS_clone3:
	case SYS_fork:
	case SYS_vfork:
	case SYS_execve:
	case SYS_execveat:
	case SYS_reboot:
	case SYS_exit:
	case SYS_exit_group:
		return true;
	}
	return false;
}

static bool is_mapping_call(long nr)
{
	switch (nr) {
	case SYS_mmap:
	case SYS_munmap:
	case SYS_mprotect:
	case SYS_pkey_mprotect:
	case SYS_mremap:
	case SYS_madvise:
	case SYS_remap_file_pages:
	case SYS_shmat:
	case SYS_shmdt:
	case SYS_brk:
		return true;
	}
	return false;
}

static uint64_t pool_addr(struct storm *s)
{
	uint64_t a = POOL + rnd(s) % 64 * 4096;

	return rnd(s) % 16 ? a : a + rnd(s) % 4096;
}

static void mapping_args(struct storm *s, long nr, uint64_t a[6])
{
	uint64_t len = rnd(s) % 8 ? (1 + rnd(s) % 16) * 4096 : rnd(s) % 2 ? 0 : rnd(s) % 70000;

	a[0] = pool_addr(s);
	a[1] = len;
	a[2] = rnd(s) % 8;
	if (nr == SYS_mmap) {
		// Somewhere of the kernel's choice, or fixed in the pool.
		a[3] = (rnd(s) % 2 ? MAP_PRIVATE : MAP_SHARED) | (rnd(s) % 2 ? MAP_FIXED : 0) | (rnd(s) % 3 ? MAP_ANONYMOUS : 0) |
		       (rnd(s) % 8 ? 0 : 1u << rnd(s) % 20);
		a[3] &= ~(uint64_t)MAP_HUGETLB;
		a[4] = rnd(s) % 16;
		a[5] = rnd(s) % 4 * 4096;
	} else if (nr == SYS_mremap) {
		a[2] = (1 + rnd(s) % 20) * 4096;
		a[3] = rnd(s) % 8;
		a[4] = pool_addr(s);
	} else if (nr == SYS_madvise) {
		a[2] = rnd(s) % 30;
	} else if (nr == SYS_shmat) {
		a[0] = rnd(s) % 8;
		a[1] = rnd(s) % 2 ? 0 : pool_addr(s);
		a[2] = rnd(s) % 4 ? 0 : 1u << rnd(s) % 16;
	} else if (nr == SYS_shmdt) {
		a[0] = pool_addr(s);
	}
}

// Arguments that would make the harness, not the kernel, fail: the supervisor must stay what it is, and
// what is asked of memory must be there.
static void tame(struct storm *s, long nr, uint64_t a[6])
{
	switch (nr) {
	case SYS_ptrace:
		a[0] %= 40;
		if (rnd(s) % 8 == 0)
			a[0] = 0x4200 + rnd(s) % 16;
		a[1] = 2 + rnd(s) % 30;
		break;
	case SYS_process_vm_writev:
	case SYS_process_madvise:
	case SYS_kill:
	case SYS_tgkill:
	case SYS_tkill:
	case SYS_rt_sigqueueinfo:
	case SYS_rt_tgsigqueueinfo:
	case SYS_prlimit64:
		a[0] = nr == SYS_process_madvise ? a[0] : 2 + rnd(s) % 30;
		break;
	case SYS_fallocate:
	case SYS_ftruncate:
	case SYS_truncate:
		for (int i = 1; i < 4; i++)
			a[i] = a[i] > INT64_MAX ? a[i] : a[i] & 0xfffff;
		break;
	case SYS_kexec_load:
		a[0] = 0;
		break;
	}
}

// What chance alone would hardly find.
static void help(struct storm *s, long nr, uint64_t a[6])
{
	switch (nr) {
	case SYS_socket:
	case SYS_socketpair:
		a[0] = AF_UNIX;
		a[1] = (rnd(s) % 3 ? 1 + rnd(s) % 2 : SOCK_SEQPACKET) | (rnd(s) % 2 ? SOCK_NONBLOCK : 0);
		a[2] = 0;
		break;
	case SYS_bind:
	case SYS_connect:
		a[1] = MADE_AT(rnd(s) % 2 ? MADE_SUN : MADE_SUN_ABSTRACT);
		a[2] = rnd(s) % 2 ? 110 : 9;
		break;
	case SYS_sendmsg:
	case SYS_recvmsg:
		a[1] = MADE_AT(MADE_MSG);
		a[2] = rnd(s) % 2 ? MSG_DONTWAIT : 0;
		break;
	case SYS_poll:
	case SYS_ppoll:
		a[0] = MADE_AT(MADE_POLL);
		a[1] = rnd(s) % 9;
		break;
	case SYS_epoll_ctl:
		a[1] = 1 + rnd(s) % 3;
		a[3] = MADE_AT(MADE_EPOLL);
		break;
	case SYS_rt_sigprocmask:
	case SYS_signalfd4:
	case SYS_rt_sigtimedwait:
	case SYS_rt_sigpending:
	case SYS_rt_sigsuspend:
		a[nr == SYS_rt_sigpending || nr == SYS_rt_sigsuspend ? 1 : nr == SYS_signalfd4 ? 2 : 3] = 8;
		break;
	case SYS_setsockopt:
	case SYS_getsockopt:
		a[1] = SOL_SOCKET;
		a[2] = rnd(s) % 64;
		a[4] = nr == SYS_setsockopt ? 4 : MADE_AT(MADE_TS);
		break;
	case SYS_fcntl:
		a[1] = rnd(s) % 2 ? rnd(s) % 17 : 1024 + rnd(s) % 16;
		a[2] = rnd(s) % 2 ? MADE_AT(MADE_FLOCK) : rnd(s) % 32;
		break;
	case SYS_futex:
		a[0] = RANDOM_AREA + rnd(s) % 8 * 4;
		a[2] = rnd(s) % 3;
		a[4] = RANDOM_AREA + rnd(s) % 8 * 4;
		break;
	case SYS_timerfd_create:
	case SYS_timer_create:
		a[0] = rnd(s) % 2;
		a[1] = nr == SYS_timer_create ? (rnd(s) % 2 ? 0 : MADE_AT(MADE_SIGEVENT)) : 0;
		break;
	}
}

static int64_t do_call(struct storm *s, long nr, const uint64_t a[6])
{
	struct last_call *c = &last[nr_last++ % 32];
	int64_t r;

	*c = (struct last_call){.nr = nr, .pid = s->pid};
	memcpy(c->a, a, sizeof(c->a));
	if (trace)
		fprintf(stderr, "[%ld] %ld(%lx, %lx, %lx, %lx, %lx, %lx)\n", s->pid, nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	r = g_call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	if (trace)
		fprintf(stderr, "[%ld] %ld = %ld\n", s->pid, nr, r);
	return r;
}

static void random_call(struct storm *s)
{
	// Calls that give the others something to work on come more often.
	static const uint16_t useful[] = {SYS_openat, SYS_open, SYS_pipe2, SYS_socketpair, SYS_eventfd2, SYS_timerfd_create,
					  SYS_epoll_create1, SYS_epoll_ctl, SYS_dup2, SYS_mkdir, SYS_memfd_create, SYS_write,
					  SYS_read, SYS_mmap, SYS_munmap, SYS_mprotect, SYS_mremap, SYS_close, SYS_sendmsg,
					  SYS_recvmsg, SYS_poll, SYS_ppoll, SYS_futex, SYS_fcntl, SYS_rename, SYS_unlink,
					  SYS_symlink, SYS_link, SYS_setitimer, SYS_timer_create, SYS_timer_settime,
					  SYS_signalfd4, SYS_shmget, SYS_semget, SYS_msgget, SYS_semop, SYS_shmat, SYS_socket,
					  SYS_bind, SYS_listen, SYS_connect, SYS_accept4, SYS_splice, SYS_tee, SYS_sendfile,
					  SYS_inotify_init1, SYS_inotify_add_watch, SYS_mount, SYS_umount2, SYS_wait4};
	uint64_t a[6];
	long nr;

	do
		nr = rnd(s) % 3 == 0 ? PICK(s, useful) : (long)(rnd(s) % 470);
	while (excluded(nr) || (!implemented[nr] && rnd(s) % 64));
	typed_args(s, nr, a);
	if (is_mapping_call(nr))
		mapping_args(s, nr, a);
	if (rnd(s) % 8)
		help(s, nr, a);
	tame(s, nr, a);
	do_call(s, nr, a);
}

// --- guests -----------------------------------------------------------------------------------------------

static void on_signal(int sig, uint64_t info, uint64_t uc)
{
	guest_checks++;
}

static int storm_main(void *arg);

static struct storm *storm_new(struct storm *parent)
{
	static struct storm all[64];
	struct storm *n = &all[nr_started % ARRAY_SIZE(all)];

	memset(n, 0, sizeof(*n));
	n->rng = rnd(parent) | 1;
	n->depth = parent->depth + 1;
	nr_started++;
	return n;
}

static void multiply(struct storm *s)
{
	static const uint64_t process[] = {SIGCHLD, SIGCHLD, 0, CLONE_VFORK | CLONE_VM | SIGCHLD, CLONE_FILES | SIGCHLD,
					   CLONE_FS | SIGCHLD, CLONE_PARENT | SIGCHLD, CLONE_NEWNS | SIGCHLD,
					   CLONE_NEWPID | SIGCHLD, CLONE_VM | SIGUSR1};
	const uint64_t thread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
				CLONE_CHILD_CLEARTID | CLONE_PARENT_SETTID;

	if (s->depth >= DEPTH || nr_started > 40)
		return;
	if (rnd(s) % 2)
		g_clone(thread, storm_main, storm_new(s), RANDOM_AREA, RANDOM_AREA + 8);
	else
		g_clone(PICK(s, process), storm_main, storm_new(s), random_pointer(s), random_pointer(s));
}

static int storm_main(void *arg)
{
	struct storm *s = arg;
	uint64_t every[4] = {0, 3000, 0, 5000}; // microseconds: whatever blocks is interrupted
	int calls = 30 + (int)(rnd(s) % 60);

	s->pid = G(gettid);
	put_paths();
	put_made(s);
	G(mmap, POOL, 64L * 4096, 3L, (long)(MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED), -1L, 0L);
	g_sigaction(SIGALRM, on_signal, 0, 0);
	g_try_put(RANDOM_AREA, every, sizeof(every));
	G(setitimer, 0L, RANDOM_AREA, 0L);
	for (int i = 0; i < calls; i++) {
		switch (rnd(s) % 24) {
		case 0:
			multiply(s);
			break;
		case 1:
			g_sigaction(1 + (int)(rnd(s) % 31), rnd(s) % 3 ? on_signal : NULL, 1ULL << rnd(s) % 31 & 0xd0000000, rnd(s));
			break;
		case 2:
			G(kill, 2 + rnd(s) % 20, 1 + rnd(s) % 64);
			break;
		case 3:
			if (rnd(s) % 8 == 0)
				g_fault(SIGSEGV, SEGV_MAPERR, random_pointer(s));
			break;
		case 4:
		case 5:
			fill_random(s);
			put_made(s);
			break;
		default:
			random_call(s);
		}
	}
	return (int)(rnd(s) % 256);
}

static const char mounts[][2][16] = {{"/proc", "proc"}, {"/sys", "sysfs"}, {"/tmp2", "tmpfs"}, {"/dev", "tmpfs"}};
static const struct {
	char name[16];
	uint64_t dev;
} devices[] = {{"/dev/null", 0x103}, {"/dev/zero", 0x105}, {"/dev/full", 0x107}, {"/dev/random", 0x108}, {"/dev/ptmx", 0x502},
	       {"/dev/tty", 0x500}};

// Lets them rage, then ends them all: SIGKILL must be enough.
static int supervisor(void *arg)
{
	struct storm s = {.rng = *(uint64_t *)arg * 0x9e3779b97f4a7c15ULL | 1};
	int st;

	put_paths();
	G(mkdir, PATH_AT(5), 0777L);
	for (unsigned i = 0; i < ARRAY_SIZE(mounts); i++) {
		g_try_put(RANDOM_AREA, mounts[i], 32);
		G(mkdir, RANDOM_AREA, 0755L);
		CHECK_EQ(G(mount, RANDOM_AREA, RANDOM_AREA, RANDOM_AREA + 16, 0L, 0L), 0);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(devices); i++) {
		g_try_put(RANDOM_AREA, devices[i].name, sizeof(devices[i].name));
		CHECK_EQ(G(mknod, RANDOM_AREA, 0020666L, devices[i].dev), 0);
	}
	for (int i = 0; i < PROCS; i++)
		g_fork(storm_main, storm_new(&s));
	for (int i = 0; i < 20; i++) {
		g_sleep_ns(20000000);
		while (g_wait(-1, WNOHANG | 0x40000000 /* __WALL */, &st) > 0)
			;
	}
	G(kill, -1L, SIGKILL);
	while (g_wait(-1, 0x40000000, &st) > 0)
		G(kill, -1L, SIGKILL);
	// Sockets that only messages in their own queues refer to are looked for when others close.
	for (int i = 0; i < 40; i++)
		G(close, G(socket, (long)AF_UNIX, (long)SOCK_STREAM, 0L));
	return 0;
}

// A crash is for the sanitizer to tell about, or for a core file: not for cmocka's handlers.
static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
static struct sigaction own_handlers[ARRAY_SIZE(crashes)];

static void test_storm(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(crashes); i++)
		sigaction(crashes[i], &own_handlers[i], NULL);
	for (uint64_t i = 0; i < nr_seeds; i++) {
		seed_now = first_seed + i;
		nr_last = nr_started = 0;
		guest_failures = 0;
		if (getenv("SIM_SEEDS"))
			fprintf(stderr, "%lu\n", seed_now);
		if (guest_run(seed_now, supervisor, &seed_now) != 0 || guest_failures) {
			tell();
			fail();
		}
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_storm)};

	first_seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
	if (argc > 2)
		nr_seeds = strtoull(argv[2], NULL, 0);
	trace = getenv("SIM_TRACE") != NULL;
	panic_hook = tell;
	for (size_t i = 0; i < ARRAY_SIZE(crashes); i++)
		sigaction(crashes[i], NULL, &own_handlers[i]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
