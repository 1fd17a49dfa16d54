#include "sentry/boot/jail.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "platform/base/base.h"

static int err_fd = -1;
static void (*say_line)(const char *line);

void jail_init(int fd)
{
	err_fd = fd;
}

void jail_init_fn(void (*say)(const char *line))
{
	say_line = say;
}

void jail_die(const char *what)
{
	char line[512];
	int n = snprintf(line, sizeof(line), "%s: %s", what, strerror(errno));

	if (say_line)
		say_line(line);
	else if (n > 0 && write(err_fd, line, MIN((size_t)n, sizeof(line) - 1)) < 0)
		_exit(EXIT_FAILURE);
	_exit(EXIT_FAILURE);
}

void jail_empty_root(void)
{
	// Any directory that exists will do: it is covered, and gone a moment later.
	const char *at = "/proc";

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		jail_die("cannot make mounts private");
	if (mount("none", at, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0,nr_inodes=2,mode=555") < 0)
		jail_die("cannot mount an empty root");
	if (chdir(at) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
		jail_die("cannot change to the empty root");
	if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		jail_die("cannot leave the host's root");
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		jail_die("cannot make the empty root read-only");
}

int jail_place_fds(const int *fds, unsigned n, int null, int exe)
{
	int *high = calloc(n + 1, sizeof(int)), above = n + 10;

	if (!high)
		jail_die("descriptors");
	for (unsigned i = 0; i < n; i++) {
		high[i] = fcntl(fds[i] < 0 ? null : fds[i], F_DUPFD_CLOEXEC, above);
		if (high[i] < 0)
			jail_die("cannot duplicate a descriptor");
	}
	exe = fcntl(exe, F_DUPFD_CLOEXEC, above);
	int err = fcntl(err_fd, F_DUPFD_CLOEXEC, above);

	if (exe < 0 || err < 0)
		jail_die("cannot duplicate a descriptor");
	err_fd = err;
	for (unsigned i = 0; i < n; i++)
		if (dup2(high[i], i) < 0)
			jail_die("cannot place a descriptor");
	if (dup3(exe, n, O_CLOEXEC) < 0 || dup3(err_fd, n + 1, O_CLOEXEC) < 0)
		jail_die("cannot place a descriptor");
	err_fd = n + 1;
	if (syscall(SYS_close_range, n + 2, ~0u, 0) < 0)
		jail_die("close_range");
	return n;
}

void jail_set_caps(uint64_t caps, bool ambient)
{
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct d[2] = {
		{caps, caps, caps}, {caps >> 32, caps >> 32, caps >> 32}};

	for (int cap = 0; cap < 64; cap++) {
		if (caps & (1ULL << cap))
			continue;
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
			if (errno == EINVAL)
				break; // past the last one this kernel knows
			jail_die("cannot drop capabilities");
		}
	}
	if (syscall(SYS_capset, &h, d) < 0)
		jail_die("cannot set capabilities");
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		jail_die("cannot clear ambient capabilities");
	for (int cap = 0; ambient && cap < 64; cap++)
		if (caps & (1ULL << cap) && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
			jail_die("cannot set ambient capabilities");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		jail_die("no_new_privs");
}

void jail_reset_signals(void)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
}

void jail_rlimit(int which, uint64_t value)
{
	struct rlimit r;

	if (getrlimit(which, &r) < 0)
		jail_die("getrlimit");
	if (value < r.rlim_max)
		r.rlim_max = value;
	r.rlim_cur = r.rlim_max;
	if (setrlimit(which, &r) < 0)
		jail_die("setrlimit");
}

void jail_exec(int exe, char *const *argv)
{
	char *const env[] = {NULL};

	syscall(SYS_execveat, exe, "", argv, env, AT_EMPTY_PATH);
	jail_die("cannot start runsc's own binary (it must be executable by everyone)");
}
