#include "runsc-cli/launch.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gofer/server/gofer.h"
#include "platform/base/base.h"
#include "runsc-cli/cli.h"
#include "runsc-cli/conf.h"
#include "sentry/boot/boot.h"
#include "sentry/boot/doc.h"
#include "sentry/boot/jail.h"

#define CAPBIT(c) (1ULL << (c))
#define GOFER_CAPS (CAPBIT(CAP_CHOWN) | CAPBIT(CAP_DAC_OVERRIDE) | CAPBIT(CAP_DAC_READ_SEARCH) | CAPBIT(CAP_FOWNER) | CAPBIT(CAP_FSETID))
#define MAX_FILES (1u << 20)
#define GOFER_SPIN_NS 100000

// A host file or directory that the gofer serves.
struct tree {
	char path[4096];
	bool read_only, recursive, is_file;
	unsigned long attr; // MOUNT_ATTR_*
	int mount;          // index in the spec; -1: the root
};

struct launch {
	const struct launch_cfg *cfg;
	struct tree *trees;
	unsigned ntrees;
	struct boot_doc doc;
	int doc_fd, exe, null, gofer_sock[2], ctl[2], err[2], sync[2];
};

// --- what is to be served -------------------------------------------------------------------
static int add_tree(struct launch *l, const char *field, const char *path, bool ro, bool recursive, int mount)
{
	struct tree *t = &l->trees[l->ntrees];
	struct stat st;
	int n;

	n = path[0] == '/' ? snprintf(t->path, sizeof(t->path), "%s", path)
			   : snprintf(t->path, sizeof(t->path), "%s/%s", l->cfg->bundle, path);
	if (n >= (int)sizeof(t->path))
		return cli_fail("%s: path is too long", field);
	if (stat(t->path, &st) < 0)
		return cli_errno(errno, "%s: %s", field, t->path);
	t->is_file = !S_ISDIR(st.st_mode);
	if (t->is_file && (mount < 0 || !S_ISREG(st.st_mode)))
		return cli_fail("%s: %s is not a directory%s", field, t->path, mount < 0 ? "" : " or a regular file");
	t->read_only = ro;
	t->recursive = recursive;
	t->mount = mount;
	l->ntrees++;
	return 0;
}

static int collect_trees(struct launch *l)
{
	const struct spec *s = l->cfg->spec;
	char field[64];
	int r;

	l->trees = calloc(s->nmounts + 1, sizeof(*l->trees));
	l->doc.mount_tree = calloc(s->nmounts + 1, sizeof(int));
	l->doc.mount_is_file = calloc(s->nmounts + 1, sizeof(bool));
	if (!l->trees || !l->doc.mount_tree || !l->doc.mount_is_file)
		return cli_fail("out of memory");
	r = add_tree(l, "root.path", s->root_path, s->root_readonly || conf.overlay_root, true, -1);
	for (unsigned i = 0; i < s->nmounts && !r; i++) {
		const struct spec_mount *m = &s->mounts[i];

		l->doc.mount_tree[i] = -1;
		if (!m->bind)
			continue;
		if (l->ntrees == GOFER_MAX_TREES)
			return cli_fail("mounts: more than %u bind mounts", GOFER_MAX_TREES - 1);
		snprintf(field, sizeof(field), "mounts[%u].source", i);
		l->doc.mount_tree[i] = l->ntrees;
		r = add_tree(l, field, m->source, m->ms_flags & MS_RDONLY, m->ms_flags & MS_REC, i);
		if (!r)
			l->doc.mount_is_file[i] = l->trees[l->ntrees - 1].is_file;
	}
	return r;
}

static int make_doc(struct launch *l)
{
	cleanup_free char *text = NULL;
	cpu_set_t cpus;
	size_t len = 0;

	l->doc.id = (char *)l->cfg->id;
	l->doc.platform = (char *)conf.platform;
	l->doc.debug = conf.debug;
	l->doc.strace = conf.strace;
	l->doc.no_patching = conf.no_patching;
	l->doc.wait_start = l->cfg->wait_start;
	l->doc.overlay = conf.overlay_root; // a read-only root too: mount points are made in it
	l->doc.overlay_size = conf.overlay_size;
	l->doc.root_readonly = l->trees[0].read_only;
	l->doc.ntrees = l->ntrees;
	l->doc.spec = (struct spec *)l->cfg->spec;
	l->doc.host_cpus = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
	for (unsigned i = 0; i < 16; i++) {
		struct rlimit r = {RLIM_INFINITY, RLIM_INFINITY};

		getrlimit(i, &r);
		l->doc.rlim[i][0] = r.rlim_cur;
		l->doc.rlim[i][1] = r.rlim_max;
	}
	text = boot_doc_encode(&l->doc, l->cfg->config, l->cfg->config_len, &len);
	if (!text)
		return cli_fail("out of memory");
	l->doc_fd = memfd_create("runsc-boot", MFD_CLOEXEC);
	if (l->doc_fd < 0 || write(l->doc_fd, text, len) != (ssize_t)len)
		return cli_errno(errno, "memfd");
	return 0;
}

// --- the children, between clone and exec -----------------------------------------------------
static int open_tree_of(const struct tree *t)
{
	unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
	int fd = syscall(SYS_open_tree, AT_FDCWD, t->path, flags | (t->recursive ? AT_RECURSIVE : 0));

	// In a user namespace of its own, a mount may be taken only with what is mounted below it.
	if (fd < 0 && errno == EINVAL && !t->recursive)
		fd = syscall(SYS_open_tree, AT_FDCWD, t->path, flags | AT_RECURSIVE);
	if (fd < 0)
		jail_die(t->path);
	struct mount_attr attr = {
		.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (t->read_only ? MOUNT_ATTR_RDONLY : 0),
		.propagation = MS_PRIVATE,
	};

	if (syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof(attr)) < 0)
		jail_die("mount_setattr");
	if (t->is_file) { // the gofer cannot open it again: see struct gofer_tree
		char path[64];

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		fd = open(path, (t->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
		if (fd < 0)
			jail_die(t->path);
	}
	return fd;
}

static void await_go(struct launch *l)
{
	char c;

	close(l->sync[1]);
	if (read(l->sync[0], &c, 1) != 1)
		_exit(EXIT_FAILURE); // the parent has failed and says why
}

_Noreturn static void gofer_child(struct launch *l)
{
	int fds[5] = {-1, -1, l->cfg->err_fd, l->gofer_sock[1], -1};
	cleanup_free char *ro = calloc(l->ntrees + 1, 1), *id = NULL;
	int exe, log = -1;

	jail_init(l->err[1]);
	if (conf.rootless)
		await_go(l);
	setsid();
	jail_reset_signals();
	if (!ro || asprintf(&id, "--id=%s", l->cfg->id) < 0)
		jail_die("memory");
	int *all = calloc(l->ntrees + ARRAY_SIZE(fds), sizeof(int));

	if (!all)
		jail_die("memory");
	if (conf_open_debug_log(l->cfg->id, "gofer", &log) != 0)
		_exit(EXIT_FAILURE);
	fds[GOFER_FD_LOG] = log;
	memcpy(all, fds, sizeof(fds));
	for (unsigned i = 0; i < l->ntrees; i++) {
		all[ARRAY_SIZE(fds) + i] = open_tree_of(&l->trees[i]);
		ro[i] = l->trees[i].read_only ? 'r' : 'w';
	}
	jail_rlimit(RLIMIT_NOFILE, MAX_FILES);
	jail_rlimit(RLIMIT_CORE, 0);
	exe = jail_place_fds(all, ARRAY_SIZE(fds) + l->ntrees, l->null, l->exe);
	if (!BOOT_SANITIZED)
		jail_empty_root();
	jail_set_caps(GOFER_CAPS, false);
	jail_exec(exe, (char *const[]){(char *)BOOT_GOFER_NAME, id, ro, (char *)(log >= 0 ? "log" : "nolog"), NULL});
}

_Noreturn static void sentry_child(struct launch *l, int log_fd)
{
	const int fds[BOOT_FD_END] = {l->cfg->stdio[0], l->cfg->stdio[1], l->cfg->stdio[2], log_fd >= 0 ? log_fd : l->cfg->err_fd,
				      l->ctl[1], l->gofer_sock[0], l->doc_fd, l->cfg->listen_fd};
	char id[300];
	int exe;

	jail_init(l->err[1]);
	await_go(l);
	setsid();
	jail_reset_signals();
	if (!conf.rootless && setgroups(0, NULL) < 0)
		jail_die("setgroups");
	if (setresgid(BOOT_NOBODY, BOOT_NOBODY, BOOT_NOBODY) < 0 || setresuid(BOOT_NOBODY, BOOT_NOBODY, BOOT_NOBODY) < 0)
		jail_die("cannot become nobody");
	jail_rlimit(RLIMIT_NOFILE, MAX_FILES);
	jail_rlimit(RLIMIT_CORE, 0);
	exe = jail_place_fds(fds, BOOT_FD_END, l->null, l->exe);
	// Mounting is for the empty root, which boot_main() goes to once the zygote is started.
	jail_set_caps(CAPBIT(CAP_SYS_ADMIN) | CAPBIT(CAP_SETPCAP), true);
	snprintf(id, sizeof(id), "--id=%s", l->cfg->id);
	jail_exec(exe, (char *const[]){(char *)BOOT_SENTRY_NAME, id, NULL});
}

// --- the parent's side ------------------------------------------------------------------------
static pid_t clone_ns(uint64_t flags, int *ret_pidfd)
{
	struct clone_args a = {.flags = flags | CLONE_PIDFD, .pidfd = (uintptr_t)ret_pidfd, .exit_signal = SIGCHLD};

	return syscall(SYS_clone3, &a, sizeof(a));
}

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), r = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		r = -errno;
	close(fd);
	return r;
}

// The one id the process has inside, and who that is outside.
static int map_ids(pid_t pid, unsigned inside, unsigned uid, unsigned gid)
{
	char path[64], line[64];
	int r;

	if (conf.rootless) {
		snprintf(path, sizeof(path), "/proc/%d/setgroups", pid);
		r = write_file(path, "deny");
		if (r < 0)
			return r;
	}
	snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
	snprintf(line, sizeof(line), "%u %u 1", inside, uid);
	r = write_file(path, line);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "/proc/%d/gid_map", pid);
	snprintf(line, sizeof(line), "%u %u 1", inside, gid);
	return write_file(path, line);
}

static int start_gofer(struct launch *l, struct sandbox *sb)
{
	uint64_t flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
	int r;

	sb->gofer = clone_ns(flags | (conf.rootless ? CLONE_NEWUSER : 0), &sb->gofer_pidfd);
	if (sb->gofer == 0)
		gofer_child(l);
	if (sb->gofer < 0)
		return cli_errno(errno, "cannot start the gofer");
	if (conf.rootless) {
		r = map_ids(sb->gofer, 0, geteuid(), getegid());
		if (r < 0)
			return cli_errno(-r, "cannot map ids of the gofer");
	}
	return 0;
}

static int start_sentry(struct launch *l, struct sandbox *sb)
{
	uint64_t flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
	bool own = conf.rootless;
	int r;

	sb->sentry = clone_ns(flags, &sb->sentry_pidfd);
	if (sb->sentry == 0)
		sentry_child(l, sb->log_fd);
	if (sb->sentry < 0)
		return cli_errno(errno, "cannot start the sentry");
	r = map_ids(sb->sentry, BOOT_NOBODY, own ? geteuid() : BOOT_NOBODY, own ? getegid() : BOOT_NOBODY);
	if (r < 0)
		return cli_errno(-r, "cannot map ids of the sentry");
	if (write(l->sync[1], "gg", 2) != 2) // one for each child that waits
		return cli_errno(errno, "cannot let the sandbox go on");
	return 0;
}

static void kill_and_reap(pid_t pid)
{
	if (pid <= 0)
		return;
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static int start_both(struct launch *l, struct sandbox *sb)
{
	int r = collect_trees(l);

	if (!r)
		r = conf_open_debug_log(l->cfg->id, l->cfg->command, &sb->log_fd);
	l->doc.log_file = sb->log_fd >= 0;
	l->doc.plain_first = l->cfg->plain_first;
	if (!r)
		r = make_doc(l);
	if (r)
		return r;
	// The sandbox's own descriptors are many; the container's limit is its kernel's business. Best effort.
	struct rlimit files = {MAX_FILES, MAX_FILES};

	setrlimit(RLIMIT_NOFILE, &files);
	l->exe = open("/proc/self/exe", O_PATH | O_CLOEXEC);
	if (l->exe < 0)
		return cli_errno(errno, "/proc/self/exe");
	l->null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (l->null < 0)
		return cli_errno(errno, "/dev/null");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, l->gofer_sock) < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, l->ctl) < 0 || pipe2(l->err, O_CLOEXEC) < 0 ||
	    pipe2(l->sync, O_CLOEXEC) < 0)
		return cli_errno(errno, "cannot make sockets");
	r = start_gofer(l, sb);
	return r ? r : start_sentry(l, sb);
}

int launch_start(const struct launch_cfg *cfg, struct sandbox *ret)
{
	struct launch l = {.cfg = cfg, .doc_fd = -1, .exe = -1, .null = -1, .gofer_sock = {-1, -1}, .ctl = {-1, -1}, .err = {-1, -1}, .sync = {-1, -1}};
	struct sandbox sb = {.sentry = -1, .gofer = -1, .sentry_pidfd = -1, .gofer_pidfd = -1, .log_fd = -1};
	int r = start_both(&l, &sb);
	int *fds[] = {&l.doc_fd, &l.exe, &l.null, &l.gofer_sock[0], &l.gofer_sock[1], &l.ctl[1], &l.err[1], &l.sync[0], &l.sync[1], &sb.log_fd};

	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++)
		close_fd(fds[i]);
	free(l.trees);
	free(l.doc.mount_tree);
	free(l.doc.mount_is_file);
	if (r) {
		kill_and_reap(sb.sentry);
		kill_and_reap(sb.gofer);
		int *rest[] = {&l.ctl[0], &l.err[0], &sb.sentry_pidfd, &sb.gofer_pidfd};

		for (unsigned i = 0; i < ARRAY_SIZE(rest); i++)
			close_fd(rest[i]);
		return r;
	}
	sb.ctl = l.ctl[0];
	sb.err_pipe = l.err[0];
	*ret = sb;
	return 0;
}

int launch_gofer_main(int argc, char **argv)
{
	struct gofer_tree *trees;
	struct gofer_config cfg;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, BOOT_GOFER_NAME);
	if (argc != 4 || strlen(argv[2]) == 0 || strlen(argv[2]) > GOFER_MAX_TREES)
		return EXIT_OWN;
	cfg = (struct gofer_config){.sock = GOFER_FD_SOCK, .log_fd = strcmp(argv[3], "log") == 0 ? GOFER_FD_LOG : -1, .ntrees = strlen(argv[2])};
	trees = calloc(cfg.ntrees, sizeof(*trees));
	if (!trees)
		return EXIT_OWN;
	for (unsigned i = 0; i < cfg.ntrees; i++)
		trees[i] = (struct gofer_tree){.root_fd = GOFER_FD_LOG + 1 + i, .read_only = argv[2][i] != 'w'};
	cfg.trees = trees;
	cfg.no_filter = BOOT_SANITIZED;
	// Polls for the next request for about as long as a wake-up takes, unless a core is needed for that.
	cfg.spin_ns = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? GOFER_SPIN_NS : 0;
	return gofer_main(&cfg);
}
