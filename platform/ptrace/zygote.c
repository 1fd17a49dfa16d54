#include "platform/ptrace/zygote.h"

#include <elf.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "platform/base/base.h"
#include "platform/ptrace/layout.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x10U
#endif

#define IMAGE_FD 3

// A whole program: headers, then a few instructions that only ever run when the tracer says so.
struct image {
	Elf64_Ehdr eh;
	Elf64_Phdr text, stack;
	uint8_t pad[0x100 - sizeof(Elf64_Ehdr) - 2 * sizeof(Elf64_Phdr)];
	uint8_t syscall[16], touch_read[16], touch_write[16];
};
_Static_assert(offsetof(struct image, syscall) == PTL_SYSCALL - PTL_TEXT_BASE, "layout.h");
_Static_assert(offsetof(struct image, touch_read) == PTL_TOUCH_READ - PTL_TEXT_BASE, "layout.h");
_Static_assert(offsetof(struct image, touch_write) == PTL_TOUCH_WRITE - PTL_TEXT_BASE, "layout.h");

static const struct image image = {
	.eh = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
	       .e_type = ET_EXEC,
	       .e_machine = EM_X86_64,
	       .e_version = EV_CURRENT,
	       .e_entry = PTL_SYSCALL_DONE - 1, // the int3
	       .e_phoff = offsetof(struct image, text),
	       .e_ehsize = sizeof(Elf64_Ehdr),
	       .e_phentsize = sizeof(Elf64_Phdr),
	       .e_phnum = 2},
	.text = {.p_type = PT_LOAD,
		 .p_flags = PF_R | PF_X,
		 .p_vaddr = PTL_TEXT_BASE,
		 .p_paddr = PTL_TEXT_BASE,
		 .p_filesz = sizeof(struct image),
		 .p_memsz = sizeof(struct image),
		 .p_align = PAGE_SIZE},
	.stack = {.p_type = PT_GNU_STACK, .p_flags = PF_R | PF_W, .p_align = 16},
	.syscall = {0x0f, 0x05, 0xcc},                // syscall; int3
	.touch_read = {0x8a, 0x07, 0xcc},             // mov (%rdi),%al; int3
	.touch_write = {0xf0, 0x80, 0x0f, 0x00, 0xcc}, // lock orb $0,(%rdi); int3
};

static int image_fd(int *ret_fd)
{
	cleanup_close int fd = memfd_create("runsc-stub", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
	ssize_t n;

	if (fd < 0 && errno == EINVAL) // before Linux 6.3
		fd = memfd_create("runsc-stub", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	n = write(fd, &image, sizeof(image));
	if (n != (ssize_t)sizeof(image))
		return n < 0 ? -errno : -EIO;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
		return -errno;
	*ret_fd = steal_fd(&fd);
	return 0;
}

// Nothing of what a tracee executes has any, whoever starts it; and the sentry could not reach the
// memory of a process that has more than itself.
static void drop_capabilities(void)
{
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct d[2] = {{0, 0, 0}, {0, 0, 0}};

	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	for (int cap = 0; cap < 64; cap++) // without the right to, there is nothing to drop
		prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	syscall(SYS_capset, &h, d);
}

// In the new process.
static void become_zygote(int sock, int img, const char *id, pid_t parent)
{
	char *argv[] = {"runsc-stub", (char *)(uintptr_t)id, NULL}, *envp[] = {NULL};
	struct rlimit stack = {8 << 20, RLIM_INFINITY}, old, none = {0, 0};
	struct sigaction dfl = {.sa_handler = SIG_DFL};
	sigset_t empty;
	char go;

	// Until it is traced; from then on the tracer's end is its own.
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
		_exit(1);
	setsid();
	sock = fcntl(sock, F_DUPFD, 16);
	img = fcntl(img, F_DUPFD, 16);
	if (sock < 0 || img < 0 || dup2(sock, PTL_FD_SOCK) < 0 || dup2(img, IMAGE_FD) < 0)
		_exit(2);
	close(1);
	close(2);
	if (syscall(SYS_close_range, IMAGE_FD + 1, ~0U, 0) < 0 || fcntl(IMAGE_FD, F_SETFD, FD_CLOEXEC) < 0)
		_exit(3);
	for (int sig = 1; sig < 65; sig++)
		sigaction(sig, &dfl, NULL);
	sigemptyset(&empty);
	sigprocmask(SIG_SETMASK, &empty, NULL);
	// The stack limit decides where the host puts mappings.
	if (getrlimit(RLIMIT_STACK, &old) == 0)
		stack.rlim_max = old.rlim_max;
	setrlimit(RLIMIT_STACK, &stack);
	setrlimit(RLIMIT_CORE, &none);
	drop_capabilities();
	if (personality(ADDR_NO_RANDOMIZE) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		_exit(4);
	if (read(PTL_FD_SOCK, &go, 1) != 1)
		_exit(5);
	syscall(SYS_execveat, IMAGE_FD, "", argv, envp, AT_EMPTY_PATH);
	_exit(6);
}

int ptrace_zygote_start(const char *id, int *ret_sock, pid_t *ret_pid)
{
	cleanup_close int mine = -1, theirs = -1, img = -1;
	pid_t parent = getpid(), pid;
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	mine = pair[0];
	theirs = pair[1];
	r = image_fd(&img);
	if (r)
		return r;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		become_zygote(theirs, img, id, parent);
		_exit(7);
	}
	*ret_sock = steal_fd(&mine);
	*ret_pid = pid;
	return 0;
}
