// Names of flags and values.
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "platform/base/base.h"
#include "sentry/strace/internal.h"

#define N(x) {(uint64_t)(x), #x}
static const struct flag_name open_flags[] = {
	N(O_WRONLY), N(O_RDWR), N(O_CREAT), N(O_EXCL), N(O_NOCTTY), N(O_TRUNC), N(O_APPEND), N(O_NONBLOCK), N(O_SYNC), N(O_DSYNC),
	N(O_TMPFILE), N(O_DIRECTORY), N(O_NOFOLLOW), N(O_DIRECT), N(O_NOATIME), N(O_CLOEXEC), N(O_PATH), {0100000, "O_LARGEFILE"}};
static const struct flag_name prot_flags[] = {N(PROT_READ), N(PROT_WRITE), N(PROT_EXEC), N(PROT_GROWSDOWN), N(PROT_GROWSUP)};
static const struct flag_name map_flags[] = {
	N(MAP_SHARED_VALIDATE), N(MAP_SHARED), N(MAP_PRIVATE), N(MAP_FIXED), N(MAP_ANONYMOUS), N(MAP_GROWSDOWN), N(MAP_DENYWRITE), N(MAP_EXECUTABLE), N(MAP_LOCKED),
	N(MAP_NORESERVE), N(MAP_POPULATE), N(MAP_NONBLOCK), N(MAP_STACK), N(MAP_HUGETLB), N(MAP_SYNC), N(MAP_FIXED_NOREPLACE)};
static const struct flag_name access_flags[] = {N(R_OK), N(W_OK), N(X_OK)};
static const struct flag_name clone_flags[] = {
	N(CLONE_VM), N(CLONE_FS), N(CLONE_FILES), N(CLONE_SIGHAND), N(CLONE_PIDFD), N(CLONE_PTRACE), N(CLONE_VFORK), N(CLONE_PARENT),
	N(CLONE_THREAD), N(CLONE_NEWNS), N(CLONE_SYSVSEM), N(CLONE_SETTLS), N(CLONE_PARENT_SETTID), N(CLONE_CHILD_CLEARTID),
	N(CLONE_DETACHED), N(CLONE_UNTRACED), N(CLONE_CHILD_SETTID), N(CLONE_NEWCGROUP), N(CLONE_NEWUTS), N(CLONE_NEWIPC),
	N(CLONE_NEWUSER), N(CLONE_NEWPID), N(CLONE_NEWNET), N(CLONE_IO)};
static const struct flag_name futex_ops[] = {
	N(FUTEX_WAIT), N(FUTEX_WAKE), N(FUTEX_REQUEUE), N(FUTEX_CMP_REQUEUE), N(FUTEX_WAKE_OP), N(FUTEX_LOCK_PI), N(FUTEX_UNLOCK_PI),
	N(FUTEX_TRYLOCK_PI), N(FUTEX_WAIT_BITSET), N(FUTEX_WAKE_BITSET), N(FUTEX_WAIT_REQUEUE_PI), N(FUTEX_CMP_REQUEUE_PI),
	N(FUTEX_WAIT_PRIVATE), N(FUTEX_WAKE_PRIVATE), N(FUTEX_REQUEUE_PRIVATE), N(FUTEX_CMP_REQUEUE_PRIVATE),
	N(FUTEX_WAIT_BITSET_PRIVATE), N(FUTEX_WAKE_BITSET_PRIVATE), {FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME, "FUTEX_WAIT_BITSET_PRIVATE|FUTEX_CLOCK_REALTIME"}};
static const struct flag_name fcntl_cmds[] = {
	N(F_DUPFD), N(F_GETFD), N(F_SETFD), N(F_GETFL), N(F_SETFL), N(F_GETLK), N(F_SETLK), N(F_SETLKW), N(F_SETOWN), N(F_GETOWN),
	N(F_SETSIG), N(F_GETSIG), N(F_OFD_GETLK), N(F_OFD_SETLK), N(F_OFD_SETLKW), N(F_SETLEASE), N(F_GETLEASE), N(F_DUPFD_CLOEXEC),
	N(F_SETPIPE_SZ), N(F_GETPIPE_SZ), N(F_ADD_SEALS), N(F_GET_SEALS)};
static const struct flag_name rlimits[] = {
	N(RLIMIT_CPU), N(RLIMIT_FSIZE), N(RLIMIT_DATA), N(RLIMIT_STACK), N(RLIMIT_CORE), N(RLIMIT_RSS), N(RLIMIT_NPROC), N(RLIMIT_NOFILE),
	N(RLIMIT_MEMLOCK), N(RLIMIT_AS), N(RLIMIT_LOCKS), N(RLIMIT_SIGPENDING), N(RLIMIT_MSGQUEUE), N(RLIMIT_NICE), N(RLIMIT_RTPRIO),
	N(RLIMIT_RTTIME)};

#define SET(f, a, v) {f, a, ARRAY_SIZE(a), v}
static const struct flag_set sets[] = {
	SET("oflags", open_flags, false), SET("prot", prot_flags, false), SET("mapflags", map_flags, false), SET("accmode", access_flags, false),
	SET("cloneflags", clone_flags, false), SET("futexop", futex_ops, true), SET("fcntlcmd", fcntl_cmds, true), SET("rlimit", rlimits, true)};

const struct flag_set *flags_find(const char *format, size_t len)
{
	for (unsigned i = 0; i < ARRAY_SIZE(sets); i++)
		if (strlen(sets[i].format) == len && memcmp(sets[i].format, format, len) == 0)
			return &sets[i];
	return NULL;
}

void put_flags(struct line *l, const struct flag_set *set, uint64_t v)
{
	const char *sep = "";

	if (set->value) {
		for (unsigned i = 0; i < set->n; i++) {
			if (set->names[i].value == (v & 0xffffffff)) {
				put(l, "%s", set->names[i].name);
				return;
			}
		}
		put(l, "%#llx", (unsigned long long)v);
		return;
	}
	if (set->names == open_flags && !(v & O_ACCMODE)) {
		put(l, "O_RDONLY");
		sep = "|";
	}
	for (unsigned i = 0; i < set->n && v; i++) {
		uint64_t f = set->names[i].value;

		if (f && (v & f) == f) {
			put(l, "%s%s", sep, set->names[i].name);
			sep = "|";
			v &= ~f;
		}
	}
	if (v || !*sep)
		put(l, "%s%#llx", sep, (unsigned long long)v);
}
