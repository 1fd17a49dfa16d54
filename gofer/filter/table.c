// What a gofer may ask of the host: files below its directory descriptors, one socket, its memory.
// No path resolution beyond one component can be asked for here: seccomp cannot see names, but each
// open has O_NOFOLLOW, and names with a slash are refused when a request is parsed.
#include <fcntl.h>
#include <linux/futex.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "gofer/server/gofer.h"
#include "platform/filter/filter.h"

#define OPEN_ALWAYS (O_NOFOLLOW | O_CLOEXEC)
#define FILE_OPEN (OPEN_ALWAYS | O_NONBLOCK | O_NOCTTY)
#define NAME_FLAGS (AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)
#define CALL(name) {.call = name}
#define SOCK(n) ARG_INT_EQ(n, GOFER_FD_SOCK)

extern const struct filter_table filter_table;

static const struct filter_row rows[] = {
	// The sentry.
	{.call = "recvfrom", .cmp = {SOCK(0), ARG_EQ(4, 0), ARG_EQ(5, 0)}},
	{.call = "sendmsg", .cmp = {SOCK(0), ARG_ONLY(2, MSG_NOSIGNAL)}},
	// Finding and opening: O_PATH or directories, or regular files in the one way that cannot hang.
	{.call = "openat", .cmp = {ARG_EQ(2, O_PATH | OPEN_ALWAYS)}},
	{.call = "openat", .cmp = {ARG_EQ(2, O_PATH | O_DIRECTORY | OPEN_ALWAYS)}},
	{.call = "openat", .cmp = {ARG_EQ(2, O_RDONLY | O_DIRECTORY | OPEN_ALWAYS)}},
	{.call = "openat", .cmp = {ARG_MASK(2, ~(uint64_t)(O_ACCMODE | O_TRUNC), FILE_OPEN)}},
	{.call = "openat", .cmp = {ARG_EQ(2, O_RDWR | O_CREAT | O_EXCL | FILE_OPEN), ARG_ONLY(3, 0777)}},
	CALL("close"),
	{.call = "statx", .cmp = {ARG_MASK(2, AT_SYMLINK_NOFOLLOW | AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW)}},
	CALL("readlinkat"),
	CALL("getdents64"),
	CALL("fstatfs"),
	CALL("fgetxattr"),
	CALL("flistxattr"),
	{.call = "fcntl", .cmp = {ARG_EQ(1, F_DUPFD_CLOEXEC)}},
	// Changing.
	CALL("mkdirat"),
	CALL("symlinkat"),
	{.call = "mknodat", .cmp = {ARG_MASK(2, S_IFMT, S_IFIFO), ARG_EQ(3, 0)}},
	{.call = "mknodat", .cmp = {ARG_MASK(2, S_IFMT, S_IFSOCK), ARG_EQ(3, 0)}},
	{.call = "mknodat", .cmp = {ARG_MASK(2, S_IFMT, S_IFREG), ARG_EQ(3, 0)}},
	{.call = "linkat", .cmp = {ARG_ONLY(4, AT_EMPTY_PATH)}},
	{.call = "unlinkat", .cmp = {ARG_ONLY(2, AT_REMOVEDIR)}},
	{.call = "renameat2", .cmp = {ARG_ONLY(4, RENAME_NOREPLACE | RENAME_EXCHANGE)}},
	CALL("ftruncate"),
	CALL("fchown"),
	CALL("fchmod"),
	{.call = "fchownat", .cmp = {ARG_MASK(4, ~(uint64_t)AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW)}},
	{.nr = 452, .cmp = {ARG_MASK(3, ~(uint64_t)AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW)}}, // fchmodat2
	{.call = "utimensat", .cmp = {ARG_MASK(3, ~(uint64_t)AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW)}},
	CALL("fsetxattr"),
	CALL("fremovexattr"),
	CALL("fsync"),
	// Itself.
	{.call = "write", .cmp = {ARG_INT_EQ(0, 2)}},
	{.call = "write", .cmp = {ARG_INT_EQ(0, GOFER_FD_LOG)}},
	CALL("brk"),
	{.call = "mmap", .cmp = {ARG_ONLY(2, PROT_READ | PROT_WRITE),
				 ARG_MASK(3, MAP_SHARED | MAP_PRIVATE | MAP_ANONYMOUS, MAP_PRIVATE | MAP_ANONYMOUS)}},
	CALL("munmap"),
	CALL("mremap"),
	{.call = "madvise"},
	CALL("clock_gettime"),
	{.call = "futex", .cmp = {ARG_ONLY(1, FUTEX_WAKE | FUTEX_PRIVATE_FLAG)}},
	CALL("rt_sigreturn"),
	CALL("rt_sigprocmask"), // abort()
	CALL("getpid"),
	CALL("gettid"),
	CALL("tgkill"),
	CALL("exit_group"),
};

const struct filter_table filter_table = {
	.name = "gofer_filter", .otherwise = FILTER_KILL, .max_calls = 45, .rows = rows, .nrows = sizeof(rows) / sizeof(rows[0])};
