// The platforms, driven by a loop of its own: tiny guests in machine code. What the contract leaves to
// a backend (snapshots, details of faults) is asked of systrap only.
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#include "platform/base/base.h"
#include "platform/platform.h"
#include "platform/ptrace/zygote.h"
#include "platform/systrap/zygote.h"

#define CODE 0x400000UL
#define DATA 0x500000UL
#define STACK 0x600000UL

static struct platform *pf;
static bool is_systrap;
static struct pf_ctx *last_event;

// --- a loop ---------------------------------------------------------------------------------
// owner counts the events of a context that nobody has taken yet.
static void on_event(struct pf_ctx *ctx)
{
	last_event = ctx;
	ctx->owner = (void *)((uintptr_t)ctx->owner + 1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

static void loop_once(void)
{
	uint64_t spin, start;

	if (pf_poll(pf))
		return;
	spin = pf_spin_ns(pf);
	for (start = now_ns(); spin && now_ns() - start < spin;)
		for (int i = 0; i < 16; i++)
			if (pf_poll(pf))
				return;
	if (pf_prepare_sleep(pf)) {
		struct pollfd p = {pf_poll_fd(pf), POLLIN, 0};

		assert_int_equal(poll(&p, 1, 5000), 1);
		pf_woke(pf);
	}
}

static void usual_on_wait(struct pf_ctx *ctx)
{
	while (!ctx->owner)
		loop_once();
	ctx->owner = (void *)((uintptr_t)ctx->owner - 1);
}

static void (*wait_hook)(struct pf_ctx *) = usual_on_wait;

static void on_wait(struct pf_ctx *ctx)
{
	wait_hook(ctx);
}

static const struct pf_event *run(struct pf_ctx *ctx)
{
	pf_resume(ctx);
	on_wait(ctx);
	return &ctx->ev;
}

#define AREA 0x20000000UL
static uint64_t patch_from; // 0: leave code alone

static uint64_t patch_area(struct pf_as *as, uint64_t site, uint64_t len)
{
	return patch_from && site >= patch_from && site < CODE + 0x2000 ? AREA : 0;
}

static int zygote_sock;

static int setup(const char *name)
{
	wait_hook = usual_on_wait;
	char id[32];
	struct zygote_config zc = {.id = id};
	struct pf_config cfg = {.hooks = {.event = on_event, .wait = on_wait, .patch_area = patch_area}, .host_cpus = 2};
	pid_t pid;

	snprintf(id, sizeof(id), "unit-%d", getpid());
	is_systrap = strcmp(name, "systrap") == 0;
	if (is_systrap ? zygote_start(&zc, &cfg.zygote_sock, &pid)
		       : ptrace_zygote_start(zc.id, &cfg.zygote_sock, &pid))
		return -1;
	cfg.zygote_pid = pid;
	zygote_sock = cfg.zygote_sock;
	return pf_create(name, &cfg, &pf);
}

static int setup_systrap(void **state)
{
	return setup("systrap");
}

static int setup_ptrace(void **state)
{
	return setup("ptrace");
}

static int teardown(void **state)
{
	pf_destroy(pf);
	if (!is_systrap)
		close(zygote_sock);
	// Everything that was started is gone and reaped.
	return waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD ? 0 : -1;
}

// --- guests ---------------------------------------------------------------------------------
static void map(struct pf_ctx *c, uint64_t addr, uint64_t len, int prot)
{
	struct pf_op op = {.kind = PF_OP_MAP_ANON, .addr = addr, .len = len, .prot = (uint32_t)prot, .flags = MAP_PRIVATE, .fd = -1};

	assert_int_equal(pf_queue_op(c, &op), 0);
}

static struct pf_ctx *guest(const void *code, size_t len)
{
	struct pf_as *as;
	struct pf_ctx *c;
	struct abi_regs r;

	assert_int_equal(pf_as_new(pf, &as, &c), 0);
	c->owner = NULL;
	map(c, CODE, 0x2000, PROT_READ | PROT_WRITE | PROT_EXEC);
	map(c, DATA, 0x2000, PROT_READ | PROT_WRITE);
	map(c, STACK, 0x4000, PROT_READ | PROT_WRITE);
	assert_int_equal(pf_flush(c), 0);
	assert_int_equal(pf_write(as, CODE, code, len), len);
	pf_get_regs(c, &r);
	r.rip = CODE;
	r.rsp = STACK + 0x3000;
	pf_set_regs(c, &r);
	return c;
}

static void end(struct pf_ctx *c)
{
	struct pf_as *as = c->as;

	pf_ctx_exit(c);
	pf_as_free(as);
}

static void expect_call(const struct pf_event *ev, uint32_t nr)
{
	assert_int_equal(ev->kind, PF_EV_SYSCALL);
	assert_int_equal(ev->sc.nr, nr);
}

static void result(struct pf_ctx *c, int64_t r)
{
	pf_set_result(c, r);
}

#define GUEST(name, asm_text)                                                                                  \
	extern const char guest_##name[], guest_##name##_end[];                                               \
	__asm__(".pushsection .rodata\n.globl guest_" #name "\nguest_" #name ":\n" asm_text "\nguest_" #name \
		"_end:\n.popsection\n")
#define RUN(name) guest(guest_##name, (size_t)(guest_##name##_end - guest_##name))

GUEST(calls, "mov $1,%edi; mov $2,%esi; mov $3,%edx; mov $4,%r10d; mov $5,%r8d; mov $6,%r9d\n"
	     "mov $1000,%eax; syscall\n"
	     "mov %rax,%rdi; mov %rcx,%rsi; mov %r11,%rdx; mov $1001,%eax; syscall\n hlt");

static void test_calls(void **state)
{
	struct pf_ctx *c = RUN(calls);
	const struct pf_event *ev = run(c);
	struct abi_regs r;

	expect_call(ev, 1000);
	for (int i = 0; i < 6; i++)
		assert_int_equal(ev->sc.args[i], i + 1);
	pf_get_regs(c, &r);
	assert_int_equal(r.orig_rax, 1000);
	assert_int_equal(r.rsp, STACK + 0x3000);
	assert_int_equal(r.cs, 0x33);
	result(c, -38);
	ev = run(c);
	expect_call(ev, 1001);
	assert_int_equal(ev->sc.args[0], -38);
	assert_int_equal(ev->sc.args[1], r.rip);
	assert_int_equal(ev->sc.args[2] & 0xcff, 0x246 & 0xcff & ev->sc.args[2]);
	ev = run(c); // hlt
	assert_int_equal(ev->kind, PF_EV_FAULT);
	assert_int_equal(ev->fault.signo, SIGSEGV);
	assert_int_equal(ev->fault.trapno, 13);
	end(c);
}

GUEST(regs, "mov $0x1111,%ebx; mov $0x2222,%r15d; mov $77,%eax; syscall\n"
	    "mov %rbx,%rdi; mov %r15,%rsi; rdfsbase %rdx; mov $78,%eax; syscall");

static void test_regs(void **state)
{
	struct pf_ctx *c = RUN(regs);
	const struct pf_event *ev = run(c);
	struct abi_regs r;

	expect_call(ev, 77);
	pf_get_regs(c, &r);
	assert_int_equal(r.rbx, 0x1111);
	assert_int_equal(r.r15, 0x2222);
	r.rbx = 0xdeadbeefcafe;
	r.r15 = 5;
	r.fs_base = DATA;
	pf_set_regs(c, &r);
	ev = run(c);
	expect_call(ev, 78);
	assert_int_equal(ev->sc.args[0], 0xdeadbeefcafe);
	assert_int_equal(ev->sc.args[1], 5);
	assert_int_equal(ev->sc.args[2], DATA);
	end(c);
}

GUEST(fault, "mov $0x12345678,%eax; movl $1,(%rax); ud2; int3; mov $20,%eax; int $0x80; hlt");

static void test_faults(void **state)
{
	struct pf_ctx *c = RUN(fault);
	const struct pf_event *ev = run(c);
	struct abi_regs r;

	assert_int_equal(ev->kind, PF_EV_FAULT);
	assert_int_equal(ev->fault.signo, SIGSEGV);
	assert_int_equal(ev->fault.code, SEGV_MAPERR);
	assert_int_equal(ev->fault.addr, 0x12345678);
	assert_int_equal(ev->fault.trapno, 14);
	assert_int_equal(ev->fault.err & (is_systrap ? 7 : 5), is_systrap ? 6 : 4);
	pf_get_regs(c, &r);
	assert_int_equal(r.rip, CODE + 5);
	assert_int_equal(r.orig_rax, UINT64_MAX);
	r.rip += 6;
	pf_set_regs(c, &r);
	ev = run(c);
	assert_int_equal(ev->fault.signo, SIGILL);
	pf_get_regs(c, &r);
	r.rip += 2;
	pf_set_regs(c, &r);
	ev = run(c);
	assert_int_equal(ev->fault.signo, SIGTRAP);
	ev = run(c); // int $0x80
	assert_int_equal(ev->fault.signo, SIGSEGV);
	end(c);
}

static const char path[] = "/usr/share/whatever";
// open(path), write(1, DATA+1, 100), getpid
GUEST(payload, "mov $0x500100,%edi; xor %esi,%esi; mov $2,%eax; syscall\n"
	       "mov $1,%edi; mov $0x500001,%esi; mov $100,%edx; mov $1,%eax; syscall\n"
	       "mov $0x666000,%edi; mov $2,%eax; syscall\n"
	       "mov $39,%eax; syscall; mov %rax,%rdi; mov $1000,%eax; syscall; hlt");

static void test_payload(void **state)
{
	struct pf_ctx *c = RUN(payload);
	const struct pf_identity id = {42, 43, 0, 0, 0, 0};
	const volatile void *p;
	char buf[64];
	char *s;

	assert_int_equal(pf_write(c->as, DATA + 0x100, path, sizeof(path)), sizeof(path));
	expect_call(run(c), 2);
	if (is_systrap) {
		assert_int_equal(pf_snapshot(c, DATA + 0x100, &p), sizeof(path));
		assert_string_equal((const char *)(uintptr_t)p, path);
		assert_int_equal(pf_snapshot(c, DATA + 0x105, &p), sizeof(path) - 5);
	}
	assert_int_equal(pf_snapshot(c, DATA + 0x114, &p), 0);
	s = pf_store(c, DATA + 0x200, 32);
	assert_non_null(s);
	memcpy(s, "stored", 7);
	pf_store_trim(c, 7);
	result(c, 3);
	expect_call(run(c), 1);
	assert_int_equal(pf_read(c->as, DATA + 0x200, buf, 8), 8);
	assert_string_equal(buf, "stored");
	if (is_systrap)
		assert_int_equal(pf_snapshot(c, DATA + 1, &p), 100);
	// A store that is waiting is seen after pf_store_sync.
	s = pf_store(c, DATA + 0x300, 6);
	memcpy(s, "hello", 6);
	assert_int_equal(pf_store_sync(c, DATA + 0x303, 1), 0);
	assert_int_equal(pf_read(c->as, DATA + 0x300, buf, 6), 6);
	assert_string_equal(buf, "hello");
	// A store to a bad address.
	s = pf_store(c, DATA + 0x400, 4);
	memcpy(s, "abc", 4);
	s = pf_store(c, 0x700000, 4);
	memcpy(s, "abc", 4);
	result(c, 0);
	assert_int_equal(run(c)->kind, PF_EV_STORE_FAULT);
	assert_int_equal(c->ev.ops.index, 2); // the one applied early counts
	assert_int_equal(c->ev.ops.addr, 0x700000);
	expect_call(run(c), 2); // a path at a bad address: no snapshot
	assert_int_equal(pf_snapshot(c, 0x666000, &p), 0);
	pf_set_identity(c, &id);
	pf_set_local_calls(c, true);
	result(c, 0);
	expect_call(run(c), 1000);
	assert_int_equal(c->ev.sc.args[0], 42);
	end(c);
}

GUEST(count, "1: incq 0x500000; mov $1000,%eax; syscall; jmp 1b");

static uint64_t peek(struct pf_as *as, uint64_t addr)
{
	uint64_t v = 0;

	assert_int_equal(pf_read(as, addr, &v, 8), 8);
	return v;
}

static void test_memory(void **state)
{
	struct pf_ctx *c = RUN(count);
	struct pf_op op = {.kind = PF_OP_UNMAP, .addr = DATA, .len = 0x1000};
	int fd = memfd_create("x", 0);
	uint64_t v = 500;

	expect_call(run(c), 1000);
	assert_int_equal(peek(c->as, DATA), 1);
	assert_int_equal(pf_queue_op(c, &op), 0);
	assert_int_equal(run(c)->kind, PF_EV_FAULT);
	// Shared memory.
	assert_int_equal(ftruncate(fd, 8192), 0);
	assert_int_equal(pwrite(fd, &v, 8, 4096), 8);
	op = (struct pf_op){.kind = PF_OP_MAP_FD, .addr = DATA, .len = 0x1000, .prot = 3, .flags = MAP_SHARED, .fd = fd, .off = 4096};
	assert_int_equal(pf_queue_op(c, &op), 0);
	close(fd);
	expect_call(run(c), 1000);
	assert_int_equal(peek(c->as, DATA), 501);
	op = (struct pf_op){.kind = PF_OP_PROTECT, .addr = DATA, .len = 0x1000, .prot = PROT_READ};
	assert_int_equal(pf_queue_op(c, &op), 0);
	assert_int_equal(run(c)->kind, PF_EV_FAULT);
	assert_int_equal(c->ev.fault.code, SEGV_ACCERR);
	op.prot = 3;
	assert_int_equal(pf_queue_op(c, &op), 0);
	assert_int_equal(pf_flush(c), 0);
	op = (struct pf_op){.kind = PF_OP_REMAP, .addr = DATA, .len = 0x1000, .new_addr = 0x900000, .new_len = 0x1000};
	assert_int_equal(pf_queue_op(c, &op), 0);
	op = (struct pf_op){.kind = PF_OP_REMAP, .addr = 0x900000, .len = 0x1000, .new_addr = DATA, .new_len = 0x1000};
	assert_int_equal(pf_queue_op(c, &op), 0);
	expect_call(run(c), 1000);
	assert_int_equal(peek(c->as, DATA), 502);
	// A failure says which, and what comes after it is not done, its descriptors are not mistaken.
	op = (struct pf_op){.kind = PF_OP_PROTECT, .addr = 0x700000, .len = 0x1000, .prot = 3};
	assert_int_equal(pf_queue_op(c, &op), 0);
	fd = memfd_create("y", 0);
	assert_int_equal(ftruncate(fd, 4096), 0);
	op = (struct pf_op){.kind = PF_OP_MAP_FD, .addr = DATA, .len = 0x1000, .prot = 3, .flags = MAP_SHARED, .fd = fd};
	assert_int_equal(pf_queue_op(c, &op), 0);
	assert_int_equal(run(c)->kind, PF_EV_OPS_FAILED);
	assert_int_equal(c->ev.ops.index, 0);
	assert_int_equal(c->ev.ops.error, -ENOMEM);
	assert_int_equal(pf_queue_op(c, &op), 0);
	close(fd);
	expect_call(run(c), 1000);
	assert_int_equal(peek(c->as, DATA), 1);
	// Many operations: the list overflows into flushes.
	for (unsigned i = 0; i < 200; i++)
		map(c, 0x10000000 + i * 0x2000, 0x1000, 3);
	expect_call(run(c), 1000);
	for (unsigned i = 0; i < 200; i++)
		assert_int_equal(pf_write(c->as, 0x10000000 + i * 0x2000, &v, 8), 8);
	op.addr = PF_GUEST_TOP;
	assert_int_equal(pf_queue_op(c, &op), -EINVAL);
	assert_int_equal(pf_read(c->as, PF_GUEST_TOP + 0x10000, &v, 8), -EFAULT);
	end(c);
}

static void test_fork(void **state)
{
	struct pf_ctx *c = RUN(count), *k, *kk;
	struct pf_as *as, *as2;

	for (int i = 1; i < 4; i++) {
		expect_call(run(c), 1000);
		assert_int_equal(peek(c->as, DATA), i);
	}
	assert_int_equal(pf_fork(c, &as, &k), 0);
	expect_call(&c->ev, 1000);
	result(k, 0);
	k->owner = NULL;
	expect_call(run(k), 1000);
	expect_call(run(k), 1000);
	assert_int_equal(peek(as, DATA), 5);
	expect_call(run(c), 1000);
	assert_int_equal(peek(c->as, DATA), 4);
	assert_int_equal(pf_fork(k, &as2, &kk), 0);
	kk->owner = NULL;
	end(c);
	expect_call(run(kk), 1000);
	assert_int_equal(peek(as2, DATA), 6);
	pf_as_kill(as);
	assert_int_equal(run(k)->kind, PF_EV_DEAD);
	end(k);
	end(kk);
}

GUEST(thread, "mov $1000,%eax; syscall; 1: incq 0x500000(,%rdi,8); mov $1001,%eax; syscall; jmp 1b");

static void test_threads(void **state)
{
	struct pf_ctx *c = RUN(thread), *t[8];
	struct abi_regs r;

	expect_call(run(c), 1000);
	for (int round = 0; round < 3; round++) {
		for (uint64_t i = 0; i < 8; i++) {
			assert_int_equal(pf_thread_new(c, &t[i]), 0);
			t[i]->owner = NULL;
			pf_get_regs(t[i], &r);
			r.rdi = i + 1;
			pf_set_regs(t[i], &r);
			if (i < 4)
				pf_resume(t[i]);
		}
		assert_int_equal(pf_flush(c), 0);
		for (uint64_t i = 0; i < 8; i++) {
			if (i >= 4)
				pf_resume(t[i]);
			on_wait(t[i]);
			expect_call(&t[i]->ev, 1001);
			expect_call(run(t[i]), 1001);
			assert_int_equal(peek(c->as, DATA + 8 * (i + 1)), 2 * (round + 1));
		}
		for (int i = 0; i < 8; i++)
			pf_ctx_exit(t[i]);
	}
	end(c);
}

GUEST(spin, "mov $1000,%eax; syscall; 1: incq 0x500000; jmp 1b");

static void test_kick(void **state)
{
	struct pf_ctx *c = RUN(spin);
	uint64_t last = 0;

	expect_call(run(c), 1000);
	for (int i = 0; i < 200; i++) {
		struct timespec pause = {0, i % 3 * 20000};

		pf_resume(c);
		assert_true(pf_in_guest(c));
		if (pause.tv_nsec)
			nanosleep(&pause, NULL);
		pf_kick(c);
		pf_kick(c);
		on_wait(c);
		assert_int_equal(c->ev.kind, PF_EV_INTERRUPT);
		assert_true(peek(c->as, DATA) >= last);
		last = peek(c->as, DATA);
	}
	assert_true(pf_as_cpu_ns(c->as) > 0);
	end(c);
}

// Counts, faults, and counts again at `side`, which it goes to when interrupted.
GUEST(storm, "1: incq 0x500000; ud2; jmp 1b\n.org guest_storm + 0x100\nmov $1002,%eax; syscall");

// However kicks and faults meet: each fault is seen once, where it happened, and nothing of it is
// left when the thread has been sent elsewhere meanwhile.
static void test_kick_fault(void **state)
{
	struct pf_ctx *c = RUN(storm);
	struct abi_regs r, saved;
	uint64_t faults = 0, kicks = 0, fault_rip = 0;
	uint32_t rnd = 1;

	for (int i = 0; i < 3000; i++) {
		rnd = rnd * 1664525 + 1013904223;
		pf_resume(c);
		for (uint32_t n = (rnd >> 16) % 4 * ((rnd >> 24) % 64) * 20; n; n--)
			__asm__ volatile("pause");
		if (rnd >> 31)
			pf_kick(c);
		on_wait(c);
		pf_get_regs(c, &r);
		if (c->ev.kind == PF_EV_FAULT) {
			faults++;
			if (!fault_rip)
				fault_rip = r.rip;
			assert_int_equal(c->ev.fault.signo, SIGILL);
			assert_int_equal(r.rip, fault_rip);
			assert_int_equal(peek(c->as, DATA), faults);
			r.rip += 2;
			pf_set_regs(c, &r);
			continue;
		}
		assert_int_equal(c->ev.kind, PF_EV_INTERRUPT);
		kicks++;
		saved = r;
		r.rip = CODE + 0x100;
		pf_set_regs(c, &r);
		expect_call(run(c), 1002);
		pf_set_regs(c, &saved);
	}
	assert_true(faults > 1000 && kicks > 10);
	end(c);
}

// futex(DATA, WAIT, 0, timeout at DATA+16) and report; forever
GUEST(futex, "1: mov $0x500000,%edi; mov 0x500008,%esi; xor %edx,%edx; mov 0x500030,%r10; mov $202,%eax; syscall\n"
	     "mov %rax,%rdi; mov $1000,%eax; syscall; jmp 1b");

static void poke(struct pf_as *as, uint64_t addr, uint64_t v)
{
	assert_int_equal(pf_write(as, addr, &v, 8), 8);
}

// Until what was resumed has got to where it waits.
static void settle(void)
{
	uint64_t start = now_ns();

	while (now_ns() - start < 5000000)
		assert_int_equal(pf_poll(pf), 0);
}

// Where the machine is busy the guest may not have got to its futex yet.
static void kick_out_of_futex(struct pf_ctx *c)
{
	for (int i = 0; i < 1000; i++) {
		pf_kick(c);
		on_wait(c);
		if (c->ev.kind != PF_EV_INTERRUPT)
			break;
		pf_resume(c);
		usleep(1000);
	}
	expect_call(&c->ev, SYS_futex);
}

static void test_futex(void **state)
{
	struct pf_ctx *c = RUN(futex), *t;
	struct timespec pause = {0, 5000000};
	uint64_t start;

	pf_set_local_calls(c, true);
	poke(c->as, DATA, 1);
	expect_call(run(c), 1000); // EAGAIN
	assert_int_equal(c->ev.sc.args[0], -EAGAIN);
	poke(c->as, DATA, 0);
	pf_resume(c);
	settle();
	kick_out_of_futex(c);
	// Nothing to do: it waits again, and a wake-up from another thread of the stub ends it.
	result(c, -EINTR);
	expect_call(run(c), 1000);
	assert_int_equal(c->ev.sc.args[0], -EINTR);
	assert_int_equal(pf_thread_new(c, &t), 0);
	t->owner = NULL;
	pf_set_local_calls(t, true);
	pf_resume(t); // waits on the futex
	assert_int_equal(pf_flush(c), 0);
	settle();
	kick_out_of_futex(t);
	pf_retry_call(t);
	pf_resume(t);
	settle();
	assert_int_equal(pf_futex_wake(c, DATA, 1, true), 0);
	poke(c->as, DATA, 1);
	assert_int_equal(pf_flush(c), 0);
	on_wait(t);
	expect_call(&t->ev, 1000);
	assert_int_equal(t->ev.sc.args[0], 0);
	pf_ctx_exit(t);
	// A relative timeout keeps running across a kick.
	poke(c->as, DATA, 0);
	poke(c->as, DATA + 0x30, DATA + 0x40);
	poke(c->as, DATA + 0x40, 0);
	poke(c->as, DATA + 0x48, 400000000);
	start = now_ns();
	pf_resume(c);
	for (int i = 0; i < 5; i++) {
		nanosleep(&pause, NULL);
		kick_out_of_futex(c);
		pf_retry_call(c);
		pf_resume(c);
	}
	on_wait(c);
	expect_call(&c->ev, 1000);
	assert_int_equal(c->ev.sc.args[0], -ETIMEDOUT);
	assert_true(now_ns() - start >= 400000000 && now_ns() - start < 1200000000);
	end(c);
}

GUEST(fp, "movq %rdi,%xmm3; mov $1000,%eax; syscall; movq %xmm3,%rdi; stmxcsr 0x500000; mov 0x500000,%esi; mov $1001,%eax; syscall\n"
	  "movq %xmm3,%rdi; stmxcsr 0x500000; mov 0x500000,%esi; mov $1002,%eax; syscall");

static void test_fp(void **state)
{
	struct pf_ctx *c = RUN(fp), *k;
	struct pf_as *as;
	uint8_t *buf = aligned_alloc(64, 16384), *buf2 = aligned_alloc(64, 16384);
	struct abi_regs r;
	uint64_t v = 0x1122334455667788;

	assert_true(pf_fp_size(pf) >= 576 && pf_fp_size(pf) <= 8192);
	pf_get_regs(c, &r);
	r.rdi = v;
	pf_set_regs(c, &r);
	// A context that never ran: initial state; what is set is what runs.
	assert_int_equal(pf_get_fp(c, buf), 0);
	assert_int_equal(*(uint32_t *)(buf + 24), 0x1f80);
	expect_call(run(c), 1000);
	assert_int_equal(pf_get_fp(c, buf), 0);
	assert_memory_equal(buf + 160 + 48, &v, 8);
	v++;
	memcpy(buf + 160 + 48, &v, 8);
	*(uint32_t *)(buf + 24) = 0x9fc0;
	buf[512] |= 3;
	assert_int_equal(pf_set_fp(c, buf), 0);
	expect_call(run(c), 1001);
	assert_int_equal(c->ev.sc.args[0], v);
	assert_int_equal(c->ev.sc.args[1], 0x9fc0);
	assert_int_equal(pf_fork(c, &as, &k), 0);
	assert_int_equal(pf_get_fp(k, buf2), 0);
	assert_memory_equal(buf2 + 160 + 48, &v, 8);
	k->owner = NULL;
	expect_call(run(k), 1002);
	assert_int_equal(k->ev.sc.args[0], v);
	assert_int_equal(pf_reset_fp(c), 0);
	expect_call(run(c), 1002);
	assert_int_equal(c->ev.sc.args[0], 0);
	assert_int_equal(c->ev.sc.args[1], 0x1f80);
	buf[512 + 7] = 0x80;
	assert_int_equal(pf_set_fp(c, buf), -EINVAL);
	end(k);
	// A blank context can be given vector state.
	end(c);
	c = RUN(fp);
	buf[512 + 7] = 0;
	assert_int_equal(pf_set_fp(c, buf), 0);
	pf_get_regs(c, &r);
	r.rip += 5;
	r.rax = 999;
	r.rdi = 0;
	pf_set_regs(c, &r);
	expect_call(run(c), 1000);
	expect_call(run(c), 1001);
	assert_int_equal(c->ev.sc.args[0], v);
	assert_int_equal(c->ev.sc.args[1], 0x9fc0);
	end(c);
	free(buf);
	free(buf2);
}

// What the stub's filter does not allow comes to us as a call, from wherever it is made.
GUEST(hostile, "mov $2,%edi; mov $1,%esi; xor %edx,%edx; mov $41,%eax; mov $0x7fff0001000e,%rcx; jmp 1f\n"
	       "1: mov $41,%eax; syscall; mov $0x7fff00010000,%rbx; mov $41,%edi; call *%rbx; hlt");

GUEST(hostile_ptrace, "mov $2,%edi; mov $1,%esi; xor %edx,%edx; mov $41,%eax; syscall\n"
		      "mov $41,%eax; mov $0x7fff00010100,%rbx; jmp *%rbx");

static void test_hostile(void **state)
{
	struct pf_ctx *c = is_systrap ? RUN(hostile) : RUN(hostile_ptrace);

	expect_call(run(c), 41);
	expect_call(run(c), 41); // through the backend's own page
	end(c);
}

// Nor does a guest clone its stub by itself.
GUEST(cloner, "mov $0x7fff00010000,%rbx\n"
	      "mov $56,%edi; mov $0x8011,%esi; xor %edx,%edx; xor %ecx,%ecx; xor %r8d,%r8d; xor %r9d,%r9d; call *%rbx\n"
	      "mov %rax,%r12; mov $56,%edi; mov $0x350f00,%esi; call *%rbx\n"
	      "mov %rax,%rdi; mov %r12,%rsi; mov $1000,%eax; syscall; hlt");

static void test_cloner(void **state)
{
	struct pf_ctx *c;

	if (!is_systrap)
		skip();
	c = RUN(cloner);
	expect_call(run(c), 1000);
	assert_int_equal(c->ev.sc.args[0], -EPERM);
	assert_int_equal(c->ev.sc.args[1], -EPERM);
	end(c);
}

static void test_dead(void **state)
{
	struct pf_ctx *c = RUN(spin), *d;

	expect_call(run(c), 1000);
	pf_resume(c);
	pf_as_kill(c->as);
	pf_as_kill(c->as);
	on_wait(c);
	assert_int_equal(c->ev.kind, PF_EV_DEAD);
	assert_int_equal(run(c)->kind, PF_EV_DEAD);
	assert_int_equal(pf_flush(c), 0);
	end(c);
	if (!is_systrap)
		return;
	// One that dies by itself: exit_group is not filtered.
	GUEST(exits, "mov $1000,%eax; syscall; mov $231,%edi; mov $0x7fff00010000,%rbx; call *%rbx");
	d = RUN(exits);
	expect_call(run(d), 1000);
	assert_int_equal(run(d)->kind, PF_EV_DEAD);
	end(d);
}

static void test_vdso(void **state)
{
	uint64_t start, stop, vdso = pf_vdso(pf, &start, &stop);

	print_message("vdso at %lx, %lx-%lx\n", vdso, start, stop);
	assert_true(vdso >= PF_GUEST_TOP && start <= vdso && stop > vdso);
}

// --- rewritten call sites -------------------------------------------------------------------
// Many calls from one site of each form; checks registers and flags each time. Reports a mistake by
// call 2000.
GUEST(hot, "mov $0x1234,%ebx; mov $77,%ebp; mov $0x99,%r12d; mov $0x98,%r15d; xor %r13d,%r13d\n"
	   "1: mov $1,%edi; mov $2,%esi; mov $3,%edx; mov $4,%r10d; mov $5,%r8d; mov $6,%r9d; stc\n"
	   "push $0x55; push $0x66; mov %rsp,%r14; movq %r13,%xmm5\n"
	   "movq $0x77,-8(%rsp); movq $0x88,-128(%rsp)\n"
	   "mov $1000,%eax; syscall\n"
	   "jnc 9f; cmpq $0x77,-8(%rsp); jne 9f; cmpq $0x88,-128(%rsp); jne 9f; cmp %rsp,%r14; jne 9f\n"
	   "cmp %r13,%rax; jne 9f; cmp $1,%rdi; jne 9f; cmp $2,%rsi; jne 9f; cmp $3,%rdx; jne 9f\n"
	   "cmp $4,%r10; jne 9f; cmp $5,%r8; jne 9f; cmp $6,%r9; jne 9f; cmp $0x1234,%rbx; jne 9f\n"
	   "cmp $77,%rbp; jne 9f; cmp $0x99,%r12; jne 9f; cmp $0x98,%r15; jne 9f; movq %xmm5,%r14; cmp %r13,%r14; jne 9f\n"
	   "pop %rax; cmp $0x66,%rax; jne 9f; pop %rax; cmp $0x55,%rax; jne 9f\n"
	   "mov %r13,%rdi; mov $1001,%eax; xor %ecx,%ecx; clc; syscall; cmp $-4096,%rax; ja 8f; jmp 9f\n"
	   "8: cmp $-1,%rax; jne 9f; inc %r13; jmp 1b\n"
	   "9: mov $2000,%eax; syscall; hlt");

static void hot_round(struct pf_ctx *c, int i)
{
	result(c, i ? -1 : 0);
	expect_call(run(c), 1000);
	for (int j = 0; j < 6; j++)
		assert_int_equal(c->ev.sc.args[j], j + 1);
	result(c, i);
	expect_call(run(c), 1001);
	assert_int_equal(c->ev.sc.args[0], i);
}

static void test_patch(void **state)
{
	struct pf_ctx *c, *k, *t;
	struct pf_as *as;
	uint8_t code[64];
	struct abi_regs r;
	int i;

	if (!is_systrap)
		skip();
	patch_from = CODE;
	c = RUN(hot);
	for (i = 0; i < 100; i++)
		hot_round(c, i);
	assert_int_equal(pf_read(c->as, CODE + 0x67, code, 5), 5);
	assert_int_equal(pf_read(c->as, AREA, code, 64), 64); // there is an area
	// A fork has the trampolines, and threads do.
	assert_int_equal(pf_fork(c, &as, &k), 0);
	k->owner = NULL;
	for (; i < 120; i++) {
		hot_round(k, i);
		hot_round(c, i);
	}
	end(k);
	assert_int_equal(pf_thread_new(c, &t), 0);
	t->owner = NULL;
	pf_get_regs(t, &r);
	r.rsp -= 0x1000;
	r.rax = (uint64_t)-1;
	pf_set_regs(t, &r);
	assert_int_equal(pf_flush(c), 0);
	expect_call(run(t), 1000);
	for (int j = i; j < 140; j++) {
		result(t, j);
		expect_call(run(t), 1001);
		result(t, -1);
		expect_call(run(t), 1000);
	}
	pf_ctx_exit(t);
	// Registers can be set at a rewritten site, vector state too.
	for (; i < 150; i++) {
		uint8_t *fp = aligned_alloc(64, 16384);
		uint64_t x = (uint64_t)i, y;

		result(c, -1);
		expect_call(run(c), 1000);
		pf_get_regs(c, &r);
		assert_int_equal(r.r13, i);
		assert_int_equal(r.rcx, r.rip);
		assert_int_equal(r.r11, r.eflags);
		assert_int_equal(r.gs_base, 0);
		r.rax = (uint64_t)i;
		pf_set_regs(c, &r);
		assert_int_equal(pf_get_fp(c, fp), 0);
		assert_memory_equal(fp + 160 + 80, &x, 8);
		y = ~x;
		memcpy(fp + 160 + 80, &y, 8);
		assert_int_equal(pf_set_fp(c, fp), 0);
		assert_int_equal(pf_get_fp(c, fp), 0);
		assert_memory_equal(fp + 160 + 80, &y, 8);
		memcpy(fp + 160 + 80, &x, 8);
		assert_int_equal(pf_set_fp(c, fp), 0);
		free(fp);
		expect_call(run(c), 1001);
		pf_get_regs(c, &r); // goes on at the second form's address
		r.rax = (uint64_t)-1;
		r.eflags |= 0x40000; // and with a flag that the fast way does not do
		pf_set_regs(c, &r);
		expect_call(run(c), 1000);
		result(c, i + 1);
		pf_get_regs(c, &r);
		assert_true(r.eflags & 0x40000);
		r.eflags &= ~0x40000UL;
		r.rax = (uint64_t)++i;
		pf_set_regs(c, &r);
		expect_call(run(c), 1001);
		assert_int_equal(c->ev.sc.args[0], i);
	}
	// %gs of its own: the sites trap, and work.
	result(c, -1);
	expect_call(run(c), 1000);
	pf_get_regs(c, &r);
	r.gs_base = DATA;
	r.rax = (uint64_t)i;
	pf_set_regs(c, &r);
	expect_call(run(c), 1001);
	for (i++; i < 160; i++) {
		hot_round(c, i);
		pf_get_regs(c, &r);
		assert_int_equal(r.gs_base, DATA);
	}
	r.gs_base = 0;
	r.rax = (uint64_t)-1;
	pf_set_regs(c, &r);
	expect_call(run(c), 1000);
	result(c, i);
	expect_call(run(c), 1001);
	for (i++; i < 170; i++)
		hot_round(c, i);
	end(c);
	patch_from = 0;
}

// A kick finds the guest anywhere: in its code, in a trampoline, on the way into the stub or out of it.
GUEST(busy, "mov $1000,%eax; syscall; 1: incq 0x500000; mov $39,%eax; syscall; cmp $42,%rax; jne 2f\n"
	    "mov $186,%eax; nop; syscall; cmp $43,%rax; je 1b; 2: ud2");

static void test_patch_kick(void **state)
{
	const struct pf_identity id = {42, 43, 0, 0, 0, 0};
	struct pf_ctx *c;
	struct abi_regs r;

	if (!is_systrap)
		skip();
	patch_from = CODE;
	c = RUN(busy);
	pf_set_identity(c, &id);
	pf_set_local_calls(c, true);
	expect_call(run(c), 1000);
	for (int i = 0; i < 3000; i++) {
		pf_resume(c);
		for (volatile int j = 0; j < i % 700; j++)
			;
		if (i < 50)
			usleep(100);
		pf_kick(c);
		on_wait(c);
		assert_int_equal(c->ev.kind, PF_EV_INTERRUPT);
		pf_get_regs(c, &r);
		assert_true(r.rip >= CODE && r.rip < CODE + 0x100);
		if (i % 3 == 0)
			pf_set_regs(c, &r);
	}
	end(c);
	patch_from = 0;
}

// Threads run through sites while these are rewritten.
GUEST(race, "mov $1000,%eax; syscall; 1: mov $39,%eax; syscall; cmp $42,%rax; jne 2f\n"
	    "mov $186,%eax; nop; syscall; cmp $43,%rax; jne 2f\n"
	    "mov $102,%eax; nop; syscall; test %rax,%rax; jne 2f\n"
	    "dec %rdi; jnz 1b; mov $1001,%eax; syscall; 2: ud2");

static void test_patch_race(void **state)
{
	const struct pf_identity id = {42, 43, 0, 0, 0, 0};
	struct pf_ctx *c, *t[4];
	struct abi_regs r;

	if (!is_systrap)
		skip();
	patch_from = CODE;
	for (int round = 0; round < 20; round++) {
		c = RUN(race);
		expect_call(run(c), 1000);
		for (int i = 0; i < 4; i++) {
			assert_int_equal(pf_thread_new(c, &t[i]), 0);
			t[i]->owner = NULL;
			pf_set_identity(t[i], &id);
			pf_set_local_calls(t[i], true);
			pf_get_regs(t[i], &r);
			r.rdi = 2000;
			pf_set_regs(t[i], &r);
			pf_resume(t[i]);
		}
		assert_int_equal(pf_flush(c), 0);
		for (int i = 0; i < 4; i++) {
			on_wait(t[i]);
			expect_call(&t[i]->ev, 1001);
			pf_ctx_exit(t[i]);
		}
		end(c);
	}
	patch_from = 0;
}

// Other work on the machine disturbs: the best of many batches counts.
static void round_trips(const char *what, struct pf_ctx *c)
{
	enum { BATCH = 500 };
	uint64_t best = UINT64_MAX, sum = 0, t;
	int n = is_systrap ? 200 : 10;

	for (int i = 0; i < n; i++) {
		t = now_ns();
		for (int j = 0; j < BATCH; j++) {
			pf_set_result(c, 0);
			pf_resume(c);
			on_wait(c);
		}
		t = now_ns() - t;
		sum += t;
		best = MIN(best, t);
	}
	print_message("%s: best %lu ns, mean %lu ns\n", what, best / BATCH, sum / BATCH / (unsigned)n);
}

static void test_cost(void **state)
{
	struct pf_ctx *c = RUN(count), *k;
	struct pf_as *as;
	uint64_t t;
	enum { F = 200 };

	expect_call(run(c), 1000);
	round_trips("round trip", c);
	if (is_systrap) {
		struct pf_ctx *p;

		patch_from = CODE;
		p = RUN(count);
		for (int i = 0; i < 100; i++)
			expect_call(run(p), 1000);
		round_trips("round trip of a rewritten site", p);
		end(p);
		patch_from = 0;
	}
	t = now_ns();
	for (int i = 0; i < F; i++) {
		assert_int_equal(pf_fork(c, &as, &k), 0);
		k->owner = NULL;
		end(k);
	}
	print_message("fork and kill: %lu ns\n", (now_ns() - t) / F);
	t = now_ns();
	for (int i = 0; i < F; i++) {
		assert_int_equal(pf_as_new(pf, &as, &k), 0);
		k->owner = NULL;
		end(k);
	}
	print_message("new address space and kill: %lu ns\n", (now_ns() - t) / F);
	end(c);
}

// A guest that overwrites what it shares with us while it makes calls: whatever we read there, we go
// on, and it can always be killed.
GUEST(scribble, "mov $1000,%eax; syscall\n"
		// rdi: seed; the first thread (rsi == 0) calls, the second writes
		"test %rsi,%rsi; jnz 2f\n"
		"1: mov $1000,%eax; mov $0x500100,%edi; xor %esi,%esi; syscall; mov $39,%eax; syscall\n"
		"mov $2,%eax; mov $0x500100,%edi; nop; syscall; jmp 1b\n"
		"2: mov $0x7fff20000000,%r8; mov %rdi,%rax\n"
		"3: mov $6364136223846793005,%rcx; imul %rcx,%rax; mov $1442695040888963407,%rcx; add %rcx,%rax\n"
		"mov %rax,%rdx; shr $33,%rdx; and %r9d,%edx; mov %rax,%rbx; shr $20,%rbx\n"
		"test $0x100000,%eax; jz 4f; and $15,%ebx; 4: mov %ebx,(%r8,%rdx,4)\n"
		"mov $300,%ecx; 5: dec %ecx; jnz 5b; jmp 3b");

static void wait_or_kill(struct pf_ctx *ctx)
{
	uint64_t start = now_ns();

	while (!ctx->owner) {
		pf_poll(pf);
		if (start && now_ns() - start > 200000000) {
			pf_as_kill(ctx->as);
			start = 0;
		}
	}
	ctx->owner = (void *)((uintptr_t)ctx->owner - 1);
}

static uint32_t rnd_state = 12345;
static uint32_t rnd(uint32_t n)
{
	rnd_state = rnd_state * 1103515245 + 12345;
	return (rnd_state >> 8) % n;
}

static void scribble_step(struct pf_ctx *c)
{
	struct pf_op op = {.kind = PF_OP_PROTECT, .addr = DATA + 0x1000, .len = 0x1000, .prot = 3};
	const volatile void *p;
	struct abi_regs r;
	struct pf_as *as;
	struct pf_ctx *k;
	static uint8_t fp[8192];
	void *s;

	switch (rnd(12)) {
	case 0:
		pf_queue_op(c, &op);
		break;
	case 1:
		s = pf_store(c, DATA + 0x200, 16);
		if (s)
			memset(s, 1, 16);
		break;
	case 2:
		pf_queue_op(c, &op);
		pf_flush(c);
		break;
	case 3:
		pf_get_regs(c, &r);
		break;
	case 4:
		pf_get_fp(c, fp);
		break;
	case 5:
		if (pf_snapshot(c, DATA + 0x100, &p))
			assert_in_range(*(const volatile uint8_t *)p, 0, 255);
		break;
	case 6:
		if (rnd(20) == 0 && pf_fork(c, &as, &k) == 0) {
			k->owner = NULL;
			pf_ctx_exit(k);
			pf_as_free(as);
		}
		break;
	case 7:
		op.fd = zygote_sock;
		op.kind = PF_OP_MAP_FD;
		pf_queue_op(c, &op);
		break;
	default:
		pf_set_result(c, -38);
	}
}

static void test_scribble(void **state)
{
	uint64_t until = now_ns() + 3000000000ULL;
	int lives = 0;

	if (!is_systrap)
		skip();
	patch_from = CODE;
	while (now_ns() < until) {
		struct pf_ctx *c = (wait_hook = usual_on_wait, RUN(scribble)), *t = NULL;
		struct pf_as *as = c->as;
		struct abi_regs r;

		expect_call(run(c), 1000);
		assert_int_equal(pf_thread_new(c, &t), 0);
		t->owner = NULL;
		pf_get_regs(t, &r);
		r.rdi = rnd(1 << 30);
		r.rsi = 1;
		r.r9 = rnd(2) ? 0x3f : 0x7ff; // the control words only, or all of them
		pf_set_regs(t, &r);
		pf_get_regs(c, &r);
		r.rsi = 0;
		pf_set_regs(c, &r);
		wait_hook = wait_or_kill;
		pf_resume(t);
		for (int i = 0; i < 3000 && c->ev.kind != PF_EV_DEAD; i++) {
			c->owner = NULL;
			pf_resume(c);
			if (rnd(50) == 0)
				pf_kick(c);
			wait_or_kill(c);
			if (c->ev.kind == PF_EV_DEAD)
				break;
			scribble_step(c);
			if (c->ev.kind == PF_EV_FAULT)
				break;
		}
		pf_as_kill(as);
		wait_or_kill(t);
		pf_ctx_exit(t);
		pf_ctx_exit(c);
		pf_as_free(as);
		lives++;
	}
	print_message("%d lives\n", lives);
	wait_hook = usual_on_wait;
	patch_from = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_calls),  cmocka_unit_test(test_regs),    cmocka_unit_test(test_faults),
		cmocka_unit_test(test_payload), cmocka_unit_test(test_memory), cmocka_unit_test(test_fork),
		cmocka_unit_test(test_threads), cmocka_unit_test(test_kick),   cmocka_unit_test(test_futex),
		cmocka_unit_test(test_kick_fault),
		cmocka_unit_test(test_fp),     cmocka_unit_test(test_hostile), cmocka_unit_test(test_dead),
		cmocka_unit_test(test_vdso),   cmocka_unit_test(test_cost),    cmocka_unit_test(test_patch),
		cmocka_unit_test(test_patch_kick), cmocka_unit_test(test_patch_race), cmocka_unit_test(test_scribble), cmocka_unit_test(test_cloner),
	};

	if (getenv("ONLY"))
		cmocka_set_test_filter(getenv("ONLY"));
	return cmocka_run_group_tests_name("systrap", tests, setup_systrap, teardown) +
	       cmocka_run_group_tests_name("ptrace", tests, setup_ptrace, teardown);
}
