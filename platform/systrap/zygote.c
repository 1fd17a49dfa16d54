#include "platform/systrap/zygote.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "platform/base/base.h"
#include "platform/base/fdpass.h"
#include "platform/systrap/layout.h"
#include "platform/systrap/stub_image.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x10U
#endif

void *zygote_board;

// The stub's program in a sealed memfd.
static int image_fd(int *ret_fd)
{
	cleanup_close int fd = memfd_create("runsc-stub", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
	size_t done = 0;

	if (fd < 0 && errno == EINVAL) // before Linux 6.3
		fd = memfd_create("runsc-stub", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	while (done < stub_image_size) {
		ssize_t n = write(fd, stub_image + done, stub_image_size - done);

		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
		return -errno;
	*ret_fd = steal_fd(&fd);
	return 0;
}

static int shared_fd(const char *name, size_t size, int *ret_fd)
{
	cleanup_close int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, (off_t)size) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
		return -errno;
	*ret_fd = steal_fd(&fd);
	return 0;
}

struct zygote_fds {
	int wake, sock, ctx, board, image;
};

// Nothing of what a stub executes has any, whoever starts it.
static void drop_capabilities(void)
{
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct d[2] = {{0, 0, 0}, {0, 0, 0}};

	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	for (int cap = 0; cap < 64; cap++) // without the right to, there is nothing to drop
		prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	syscall(SYS_capset, &h, d);
}

// In the new process: puts the descriptors where the stub expects them and becomes the stub.
static void become_zygote(const struct zygote_fds *f, const char *id, pid_t parent)
{
	static const int target[] = {STUB_FD_WAKE, STUB_FD_SOCK, STUB_FD_CTX, STUB_FD_BOARD, 5};
	int from[] = {f->wake, f->sock, f->ctx, f->board, f->image};
	char *argv[] = {"runsc-stub", (char *)(uintptr_t)id, NULL}, *envp[] = {NULL};
	struct rlimit stack = {8 << 20, RLIM_INFINITY}, old, none = {0, 0};
	struct sigaction dfl = {.sa_handler = SIG_DFL};

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
		_exit(1);
	setsid();
	for (unsigned i = 0; i < ARRAY_SIZE(from); i++) {
		from[i] = fcntl(from[i], F_DUPFD, 16);
		if (from[i] < 0)
			_exit(2);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(from); i++)
		if (dup2(from[i], target[i]) < 0)
			_exit(3);
	close(2);
	if (syscall(SYS_close_range, 6, ~0U, 0) < 0)
		_exit(4);
	fcntl(5, F_SETFD, FD_CLOEXEC);
	for (int sig = 1; sig < 65; sig++)
		sigaction(sig, &dfl, NULL);
	// The stack limit decides where the host puts mappings; the stub lifts it again.
	if (getrlimit(RLIMIT_STACK, &old) == 0)
		stack.rlim_max = old.rlim_max;
	setrlimit(RLIMIT_STACK, &stack);
	setrlimit(RLIMIT_CORE, &none);
	drop_capabilities();
	if (personality(ADDR_NO_RANDOMIZE) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		_exit(5);
	syscall(SYS_execveat, 5, "", argv, envp, AT_EMPTY_PATH);
	_exit(6);
}

int zygote_start(const struct zygote_config *cfg, int *ret_sock, pid_t *ret_pid)
{
	cleanup_close int wake = -1, mine = -1, theirs = -1, ctx = -1, board = -1, image = -1;
	int pair[2], r;
	pid_t parent = getpid(), pid = -1;
	void *page;

	wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (wake < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	mine = pair[0];
	theirs = pair[1];
	r = image_fd(&image);
	if (!r)
		r = shared_fd("runsc-ctx", STUB_CTX_TOTAL, &ctx);
	if (!r)
		r = shared_fd("runsc-board", PAGE_SIZE, &board);
	if (r)
		return r;
	// Ours is the only mapping that will ever be writable.
	page = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, board, 0);
	if (page == MAP_FAILED)
		return -errno;
	r = fcntl(board, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0 ? -errno : 0;
	// What pf_create needs waits in the socket.
	if (!r)
		r = send_fds(theirs, "Z", 1, (int[]){ctx, wake}, 2);
	if (!r) {
		pid = fork();
		r = pid < 0 ? -errno : 0;
	}
	if (r) {
		munmap(page, PAGE_SIZE);
		return r;
	}
	if (pid == 0) {
		struct zygote_fds f = {wake, theirs, ctx, board, image};

		become_zygote(&f, cfg->id, parent);
		_exit(7);
	}
	zygote_board = page;
	*ret_sock = steal_fd(&mine);
	*ret_pid = pid;
	return 0;
}
