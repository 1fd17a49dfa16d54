#include "tests/unit/guest.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <ucontext.h>

#include "platform/fake/fake.h"
#include "sentry/fs/dev/dev.h"
#include "sentry/fs/devpts/tty.h"
#include "sentry/fs/epoll/epoll.h"
#include "sentry/fs/inotify/inotify.h"
#include "sentry/fs/pipe/pipe.h"
#include "sentry/fs/proc/proc.h"
#include "sentry/fs/sys/sysfs.h"
#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/loader/loader.h"
#include "sentry/syscalls/fasync.h"
#include "sentry/syscalls/sys_socket.h"
#include "sentry/vfs/mount.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
const char *__asan_default_options(void);
// What a killed guest had on its stack is lost; what the kernel loses, slab_report() tells.
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}
#else // told about each switch of stacks
#define __sanitizer_start_switch_fiber(save, bottom, size) ((void)(save), (void)(bottom), (void)(size))
#define __sanitizer_finish_switch_fiber(fake, bottom, size) ((void)(fake), (void)(bottom), (void)(size))
#endif

#define STACK_SIZE (256 << 10)
#define PROGRAMS 8
#define ENTRY 0x401000UL // program n starts at ENTRY + 16 * n
#define SITE 0x402002UL  // where system calls return to
#define HANDLER 0x403000UL // of signal n: + 16 * n
#define RESTORER 0x404000UL
#define STACKS (G_MEM + 0x10000) // for signal frames: threads of one process must not share
#define STACK_ROOM 0x2000UL
#define NSTACKS 128
#define ARGS (STACKS + self->id % NSTACKS * STACK_ROOM) // of the helpers' calls: below the frames

unsigned guest_checks, guest_failures;

struct guest {
	uint64_t id;
	struct pf_ctx *ctx;
	ucontext_t uc;
	void *stack, *asan_fake;
	struct pf_event ev;
	guest_fn fn;
	void *arg;
	struct guest *next;
};
struct start { // of a new thread or process: found through its stack pointer
	guest_fn fn;
	void *arg;
};

static struct guest *guests, *self;
static ucontext_t loop_uc;
static const void *loop_stack;
static size_t loop_stack_size;
static uint64_t next_id;
static guest_fn programs[PROGRAMS];
static guest_handler handlers[KNSIG + 1];
static guest_fn main_fn;
static void *main_arg;
static struct platform *pf;
static int init_status;

void guest_program(unsigned n, guest_fn main)
{
	programs[n] = main;
}

// --- coroutines ---------------------------------------------------------------------------------

static void guest_entry(void)
{
	struct guest *g = self;

	__sanitizer_finish_switch_fiber(NULL, &loop_stack, &loop_stack_size);
	g_exit(g->fn(g->arg));
}

static struct guest *guest_new(struct pf_ctx *ctx, guest_fn fn, void *arg)
{
	struct guest *g = calloc(1, sizeof(*g));

	g->id = ++next_id;
	g->ctx = ctx;
	g->fn = fn;
	g->arg = arg;
	g->stack = malloc(STACK_SIZE);
	getcontext(&g->uc);
	g->uc.uc_stack.ss_sp = g->stack;
	g->uc.uc_stack.ss_size = STACK_SIZE;
	makecontext(&g->uc, guest_entry, 0);
	fake_regs(ctx)->fs_base = g->id;
	g->next = guests;
	guests = g;
	return g;
}

static struct guest *guest_of(struct pf_ctx *ctx)
{
	struct abi_regs *r = fake_regs(ctx);
	struct guest *g;

	for (g = guests; g; g = g->next)
		if (g->id == r->fs_base && g->ctx == ctx)
			return g;
	if (r->rip >= ENTRY && r->rip < ENTRY + 16 * PROGRAMS && r->fs_base == 0) {
		uint64_t n = (r->rip - ENTRY) / 16;

		return n ? guest_new(ctx, programs[n], NULL) : guest_new(ctx, main_fn, main_arg);
	}
	struct start *s = (struct start *)r->rsp;

	g = guest_new(ctx, s->fn, s->arg);
	r->rsp = STACKS + (g->id % NSTACKS + 1) * STACK_ROOM;
	free(s);
	return g;
}

static struct pf_event step(void *arg, struct pf_ctx *ctx, int64_t last)
{
	struct guest *g = guest_of(ctx);
	void *fake = NULL;

	self = g;
	__sanitizer_start_switch_fiber(&fake, g->stack, STACK_SIZE);
	swapcontext(&loop_uc, &g->uc);
	__sanitizer_finish_switch_fiber(fake, NULL, NULL);
	self = NULL;
	return g->ev;
}

static void yield(struct pf_event ev)
{
	struct guest *g = self;

	g->ev = ev;
	__sanitizer_start_switch_fiber(&g->asan_fake, loop_stack, loop_stack_size);
	swapcontext(&g->uc, &loop_uc);
	__sanitizer_finish_switch_fiber(g->asan_fake, &loop_stack, &loop_stack_size);
}

// Runs what the kernel has pointed the registers at: handlers, the same call again.
static void run_handlers(void)
{
	struct abi_regs *r = fake_regs(self->ctx);

	while (r->rip >= HANDLER && r->rip < HANDLER + 16 * (KNSIG + 1)) {
		uint64_t sp = r->rsp, word;
		int sig = (int)r->rdi;

		g_get(sp, &word, 8);
		if (word != RESTORER || r->rip != HANDLER + 16 * (uint64_t)sig || (sp & 15) != 8)
			print_error("bad signal frame: signal %d at %lx, return %lx, rip %lx\n", sig, sp, word, r->rip),
				guest_failures++;
		handlers[sig](sig, r->rsi, r->rdx);
		r->rsp = sp + 8;
		r->rip = SITE;
		yield(fake_syscall(SYS_rt_sigreturn, 0, 0, 0, 0, 0, 0));
	}
}

int64_t g_call(long nr, ...)
{
	struct abi_regs *r = fake_regs(self->ctx);
	uint64_t a[6];
	va_list ap;

	va_start(ap, nr);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, uint64_t);
	va_end(ap);
	for (;;) {
		r->rip = SITE;
		yield(fake_syscall((uint32_t)nr, a[0], a[1], a[2], a[3], a[4], a[5]));
		run_handlers();
		if (r->rip == SITE)
			return (int64_t)r->rax;
		nr = (long)r->rax;
	}
}

void g_park(bool (*until)(void *), void *arg)
{
	struct abi_regs *r = fake_regs(self->ctx);

	r->rip = SITE;
	while (!until(arg)) {
		yield((struct pf_event){.kind = PF_EV_NONE});
		run_handlers();
	}
}

void g_fault(int sig, int code, uint64_t addr)
{
	fake_regs(self->ctx)->rip = SITE;
	yield((struct pf_event){.kind = PF_EV_FAULT, .fault = {.signo = sig, .code = code, .addr = addr, .trapno = 14}});
	run_handlers();
}

// --- memory and the usual calls -----------------------------------------------------------------

void g_put(uint64_t addr, const void *buf, size_t n)
{
	if (pf_write(self->ctx->as, addr, buf, n) != (ssize_t)n)
		print_error("guest write at %lx\n", addr), guest_failures++;
}

bool g_try_put(uint64_t addr, const void *buf, size_t n)
{
	return pf_write(self->ctx->as, addr, buf, n) == (ssize_t)n;
}

void g_get(uint64_t addr, void *buf, size_t n)
{
	if (pf_read(self->ctx->as, addr, buf, n) != (ssize_t)n)
		print_error("guest read at %lx\n", addr), guest_failures++;
}

uint32_t g_get32(uint64_t addr)
{
	uint32_t v = 0;

	g_get(addr, &v, 4);
	return v;
}

uint64_t g_args(void)
{
	return ARGS;
}

int64_t g_clone(uint64_t flags, guest_fn fn, void *arg, uint64_t ptid, uint64_t ctid)
{
	struct start *s = malloc(sizeof(*s));
	int64_t r;

	s->fn = fn;
	s->arg = arg;
	r = G(clone, flags, s, ptid, ctid, 0L);
	if (r < 0)
		free(s);
	return r;
}

int64_t g_fork(guest_fn fn, void *arg)
{
	return g_clone(SIGCHLD, fn, arg, 0, 0);
}

int64_t g_exec(unsigned n)
{
	char path[16];
	uint64_t argv[2] = {ARGS, 0};

	snprintf(path, sizeof(path), "/bin/%u", n);
	g_put(ARGS, path, sizeof(path));
	g_put(ARGS + 64, argv, sizeof(argv));
	return G(execve, ARGS, ARGS + 64, ARGS + 72);
}

void g_exit(int status)
{
	for (;;)
		g_call(SYS_exit_group, (long)status, 0L, 0L, 0L, 0L, 0L);
}

int64_t g_wait(int64_t pid, int options, int *ret_status)
{
	int64_t r = G(wait4, pid, ARGS, (long)options, 0L);

	*ret_status = r > 0 ? (int)g_get32(ARGS) : 0;
	return r;
}

static int64_t set_action(int sig, uint64_t h, uint64_t flags, uint64_t mask)
{
	uint64_t w[4] = {h, flags | 0x04000000, RESTORER, mask};

	g_put(ARGS, w, sizeof(w));
	return G(rt_sigaction, (long)sig, ARGS, 0L, 8L);
}

int64_t g_sigaction(int sig, guest_handler fn, uint64_t flags, uint64_t mask)
{
	if (fn) // the table is shared by all guests
		handlers[sig] = fn;
	return set_action(sig, fn ? HANDLER + 16 * (uint64_t)sig : 0, flags, mask);
}

int64_t g_sigignore(int sig)
{
	return set_action(sig, 1, 0, 0);
}

int64_t g_mask(int how, uint64_t set, uint64_t *ret_old)
{
	int64_t r;

	g_put(ARGS, &set, 8);
	r = G(rt_sigprocmask, (long)how, ARGS, ARGS + 8, 8L);
	if (ret_old)
		g_get(ARGS + 8, ret_old, 8);
	return r;
}

int64_t g_sleep_ns(uint64_t ns)
{
	uint64_t ts[2] = {ns / NSEC_PER_SEC, ns % NSEC_PER_SEC};

	g_put(ARGS, ts, sizeof(ts));
	return G(nanosleep, ARGS, ARGS + 16);
}

// --- the sandbox --------------------------------------------------------------------------------

static struct vfs_task boot_task;

// A program is an ELF file whose only content is its entry point.
static void make_program(unsigned n)
{
	struct { Elf64_Ehdr h; Elf64_Phdr p[2]; } e = {0};
	char name[32];
	struct uio u = uio_kernel(&e, sizeof(e));
	struct file *f;

	memcpy(e.h.e_ident, ELFMAG, SELFMAG);
	e.h.e_ident[EI_CLASS] = ELFCLASS64;
	e.h.e_ident[EI_DATA] = ELFDATA2LSB;
	e.h.e_ident[EI_VERSION] = EV_CURRENT;
	e.h.e_type = ET_EXEC;
	e.h.e_machine = EM_X86_64;
	e.h.e_version = EV_CURRENT;
	e.h.e_entry = ENTRY + 16 * n;
	e.h.e_phoff = sizeof(e.h);
	e.h.e_ehsize = sizeof(e.h);
	e.h.e_phentsize = sizeof(e.p[0]);
	e.h.e_phnum = 2;
	e.p[0] = (Elf64_Phdr){.p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_vaddr = 0x400000, .p_filesz = sizeof(e),
			      .p_memsz = 0x5000, .p_align = 4096};
	e.p[1] = (Elf64_Phdr){.p_type = PT_LOAD, .p_flags = PF_R | PF_W, .p_vaddr = G_MEM, .p_memsz = 0x10000 + NSTACKS * STACK_ROOM,
			      .p_align = 4096};
	snprintf(name, sizeof(name), "/bin/%u", n);
	assert_int_equal(vfs_openat(AT_FDCWD, name, O_CREAT | O_WRONLY, 0755, WALK_FOLLOW, &f), 0);
	assert_int_equal(vfs_write(f, &u, &f->pos), sizeof(e));
	file_put(f);
}

// As boot does, once for all runs.
static void register_all(void)
{
	static bool done;

	if (done)
		return;
	done = true;
	pipe_fs_init();
	epoll_fs_init();
	inotify_fs_init();
	proc_fs_init();
	sysfs_init();
	devpts_init();
	sys_socket_init();
	fasync_init();
	assert_int_equal(dev_init(), 0);
	fs_register(&tmpfs_type);
}

static void on_init_exit(struct thread_group *tg, void *arg)
{
	init_status = tg->exit_code;
	sched_stop(0);
}

static void boot_main(void *arg)
{
	struct tmpfs_limits lim = {.mode = 0755};
	const char *argv[] = {"/bin/0", NULL}, *envp[] = {NULL};
	struct rlimits rl;
	struct boot_process bp = {.argv = argv, .envp = envp, .cwd = "/", .cred = (struct cred *)boot_task.cred, .rlim = &rl,
				  .fs = boot_task.fs, .files = boot_task.files, .on_exit = on_init_exit};
	struct fs_struct *fs = boot_task.fs;
	struct thread_group *tg;
	struct super_block *sb;
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(rl.v); i++)
		rl.v[i].cur = rl.v[i].max = UINT64_MAX;
	rl.v[RLIMIT_STACK].cur = 8 << 20;
	rl.v[RLIMIT_NOFILE].cur = rl.v[RLIMIT_NOFILE].max = 1024;
	rl.v[RLIMIT_SIGPENDING].cur = rl.v[RLIMIT_SIGPENDING].max = 1000;
	assert_int_equal(tmpfs_new_sb(&lim, &sb), 0);
	assert_int_equal(mnt_ns_new(sb, MNT_RELATIME, &fs->mnt_ns, &fs->root), 0);
	sb_put(sb);
	fs->cwd = fs->root;
	path_get(&fs->cwd);
	vfs_mkdir(AT_FDCWD, "/bin", 0755);
	for (unsigned i = 0; i < PROGRAMS; i++)
		make_program(i);
	bp.uts = uts_ns_new("guest", "(none)");
	r = kernel_start_process(&bp, &tg);
	if (r < 0)
		print_error("init did not start: %d\n", r), guest_failures++;
	uts_ns_put(bp.uts);
	fd_table_put(boot_task.files);
	fs_struct_put(fs);
	cred_put(boot_task.cred);
	if (r < 0)
		sched_stop(0);
}

static void report_live(const char *name, uint32_t live, void *arg)
{
	if (strcmp(name, "kalloc") == 0 || strcmp(name, "struct tmpfs") == 0)
		return;
	if ((strcmp(name, "struct tinode") == 0 || strcmp(name, "struct dentry") == 0) && live <= 1)
		return;
	print_error("alive: %u %s\n", live, name);
	*(uint32_t *)arg += live;
}

int guest_run(uint64_t seed, guest_fn main, void *arg)
{
	struct pf_config pc = {.hooks = {.event = sched_ctx_event, .wait = sched_ctx_wait}, .zygote_sock = -1, .host_cpus = 2};
	struct sched_config sc = {.virtual_clock = true, .seed = seed};
	uint32_t live = 0;
	int r;

	main_fn = main;
	main_arg = arg;
	init_status = -1;
	assert_int_equal(pf_create("fake", &pc, &pf), 0);
	fake_default_script(pf, step, NULL);
	sc.pf = pf;
	assert_int_equal(sched_init(&sc), 0);
	assert_int_equal(kernel_init(pf), 0);
	register_all();
	boot_task = (struct vfs_task){.fs = fs_struct_new(), .files = fd_table_new(), .cred = cred_new(),
				      .fsize_limit = UINT64_MAX, .nofile_limit = 1024};
	assert_int_equal(sched_spawn(&boot_task.st, "boot", boot_main, NULL), 0);
	r = sched_run();
	if (r != 0)
		print_error("the kernel stands still (%d)\n", r), guest_failures++;
	sched_run(); // what is still on its way out
	sched_fini();
	loader_cache_drop();
	assert_int_equal(fake_live(pf), 0);
	pf_destroy(pf);
	while (guests) {
		struct guest *g = guests;

		guests = g->next;
		free(g->stack);
		free(g);
	}
	slab_report(report_live, &live);
	assert_int_equal(live, 0);
	return init_status;
}
