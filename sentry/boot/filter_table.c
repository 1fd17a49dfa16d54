// What the sentry may ask of the host once it is locked down: its memory and threads, descriptors it
// holds already, its event loop, and the stubs, which are its children. Nothing here takes a path,
// makes a socket, starts a program or maps executable memory; seccomp(2).
#include <asm/termbits.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <stdio.h>
#include <asm/ioctls.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "platform/filter/filter.h"

#define CALL(name) {.call = name}
#define IOCTL(cmd) {.call = "ioctl", .cmp = {ARG_INT_EQ(1, cmd)}}
#define FCNTL(cmd) {.call = "fcntl", .cmp = {ARG_INT_EQ(1, cmd)}}
#define FUTEX(op) {.call = "futex", .cmp = {ARG_MASK(1, ~(uint64_t)(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME), op)}}
// A thread of glibc's, and nothing else.
#define THREAD (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)

#ifdef FILTER_PTRACE
#define FILTER_NAME "sentry_filter_ptrace"
#else
#define FILTER_NAME "sentry_filter"
#endif

extern const struct filter_table filter_table;

static const struct filter_row rows[] = {
	// Descriptors that it was given.
	CALL("read"),
	CALL("write"),
	CALL("pread64"),
	CALL("pwrite64"),
	CALL("preadv2"),
	CALL("pwritev2"),
	CALL("close"),
	CALL("lseek"),
	CALL("ftruncate"),
	CALL("fallocate"),
	CALL("fsync"),
	CALL("fdatasync"),
	CALL("fstatfs"),
	{.call = "newfstatat", .cmp = {ARG_EQ(3, AT_EMPTY_PATH)}},
	{.call = "poll", .cmp = {ARG_LE(1, 1)}},
	FCNTL(F_GETFL),
	FCNTL(F_SETFL),
	FCNTL(F_GETFD),
	FCNTL(F_DUPFD_CLOEXEC),
	FCNTL(F_ADD_SEALS),
	FCNTL(F_GET_SEALS),
	IOCTL(TCGETS),
	IOCTL(TCGETS2),
	IOCTL(TCSETS),
	IOCTL(TCSETSW),
	IOCTL(TCSETSF),
	IOCTL(TCSETS2),
	IOCTL(TCSETSW2),
	IOCTL(TCSETSF2),
	IOCTL(TIOCGWINSZ),
	IOCTL(TIOCSWINSZ),
	IOCTL(TCFLSH),
	IOCTL(TCXONC),
	IOCTL(TCSBRK),
	IOCTL(TCSBRKP),
	IOCTL(FIONREAD),
	IOCTL(TIOCOUTQ),
	// The gofer, the stubs and whoever controls it.
	CALL("recvmsg"),
	CALL("sendmsg"),
	{.call = "sendto", .cmp = {ARG_EQ(4, 0)}},
	{.call = "recvfrom", .cmp = {ARG_EQ(4, 0)}},
	{.call = "accept4", .cmp = {ARG_EQ(1, 0)}},
	{.call = "socketpair", .cmp = {ARG_EQ(0, AF_UNIX), ARG_EQ(1, SOCK_SEQPACKET | SOCK_CLOEXEC), ARG_EQ(2, 0)}},
	CALL("process_vm_readv"),
	CALL("process_vm_writev"),
	CALL("kill"),
	CALL("tgkill"),
	// The event loop and time.
	CALL("epoll_wait"),
	CALL("epoll_pwait2"),
	CALL("epoll_ctl"),
	CALL("epoll_create1"),
	CALL("eventfd2"),
	CALL("clock_gettime"),
	CALL("clock_nanosleep"),
	CALL("restart_syscall"),
	// Memory: never executable.
	{.call = "mmap", .cmp = {ARG_MASK(2, PROT_EXEC, 0)}},
	{.call = "mprotect", .cmp = {ARG_MASK(2, PROT_EXEC, 0)}},
	CALL("munmap"),
	CALL("mremap"),
	CALL("madvise"),
	CALL("brk"),
	{.call = "memfd_create", .cmp = {ARG_MASK(1, ~(uint64_t)(MFD_CLOEXEC | MFD_ALLOW_SEALING | 8 | 16), 0)}},
	// Threads for host work.
	{.call = "clone", .cmp = {ARG_EQ(0, THREAD)}},
	{.call = "clone3", .action = FILTER_ERRNO, .error = 38},
	FUTEX(FUTEX_WAIT),
	FUTEX(FUTEX_WAKE),
	FUTEX(FUTEX_WAIT_BITSET),
	FUTEX(FUTEX_WAKE_BITSET),
	FUTEX(FUTEX_REQUEUE),
	FUTEX(FUTEX_CMP_REQUEUE),
	{.call = "prctl", .cmp = {ARG_EQ(0, PR_SET_NAME)}},
	CALL("set_robust_list"),
	CALL("rseq"),
	CALL("sched_getaffinity"),
	CALL("rt_sigprocmask"),
	CALL("rt_sigaction"),
	CALL("rt_sigreturn"),
	CALL("getpid"),
	CALL("gettid"),
	CALL("sysinfo"),
	CALL("getrandom"),
	CALL("exit"),
	CALL("exit_group"),
#ifdef FILTER_PTRACE
	// The tracer of the ptrace platform: it has no tracees but the stubs.
	CALL("ptrace"),
	CALL("wait4"),
#else
	// Systrap vouches for its stubs, approves what they clone, and reaps them.
	{.call = "setsockopt", .cmp = {ARG_EQ(1, SOL_SOCKET), ARG_EQ(2, SO_PASSCRED)}},
	IOCTL(0xc0502100), // SECCOMP_IOCTL_NOTIF_RECV
	IOCTL(0xc0182101), // SECCOMP_IOCTL_NOTIF_SEND
	{.call = "waitid", .cmp = {ARG_LE(0, P_PID)}}, // or P_ALL
#endif
};

const struct filter_table filter_table = {
	.name = FILTER_NAME, .otherwise = FILTER_KILL, .max_calls = 60, .rows = rows, .nrows = sizeof(rows) / sizeof(rows[0])};
