// The operations that the sentry queues: performed in order, up to the first that fails.
#include "platform/systrap/stub/stub.h"

#define NR_close 3
#define NR_mmap 9
#define NR_mprotect 10
#define NR_munmap 11
#define NR_write 1
#define NR_mremap 25
#define NR_msync 26
#define NR_madvise 28
#define NR_dup2 33
#define NR_recvmsg 47
#define NR_clone 56
#define NR_prctl 157
#define NR_futex 202

#define PROT_RW 3
#define MAP_SHARED 0x01
#define MAP_FIXED 0x10
#define MAP_ANONYMOUS 0x20
#define MREMAP_MAYMOVE 1
#define MREMAP_FIXED 2
#define PR_SET_PDEATHSIG 1
#define PR_SET_NAME 15
#define SIGKILL 9
// Receives n (1 or 2) descriptors. 0 or -errno.
static int64_t recv_fds(uint32_t n, int32_t *ret_fds)
{
	char byte;
	struct iovec iov = {&byte, 1};
	struct cmsg cm;
	struct msghdr h;
	int64_t r;

	memset(&h, 0, sizeof(h));
	h.iov = &iov;
	h.iovlen = 1;
	do {
		h.control = &cm;
		h.controllen = sizeof(cm);
		r = SYS3(NR_recvmsg, STUB_FD_SOCK, &h, 0);
	} while (r == -EINTR);
	if (r <= 0)
		return r < 0 ? r : -32; // EPIPE: the sentry is gone
	if (h.controllen < 16 + 4 * n || cm.level != 1 || cm.type != 1 || cm.len != 16 + 4 * n)
		return -71; // EPROTO
	for (uint32_t i = 0; i < n; i++)
		ret_fds[i] = cm.fds[i];
	return 0;
}

static int64_t map_fd(const struct stub_op *o)
{
	int32_t fd;
	int64_t r = recv_fds(1, &fd);

	if (r < 0)
		return r;
	r = SYS6(NR_mmap, o->addr, o->len, o->prot, o->flags | MAP_FIXED, fd, o->off);
	SYS1(NR_close, fd);
	return r;
}

// Room for the vector state of a new thread at `top` of its stack: a copy of this thread's. Returns
// the image's address, or 0 for initial state.
static uint64_t copy_image(const struct abi_ucontext *uc, uint64_t top)
{
	const struct abi_fx_sw *sw;
	uint64_t size;

	if (!uc) {
		top = (top - stub_fp_size - 4) & ~63UL;
		stub_fp_save((uint8_t *)top);
		return top;
	}
	if (!uc->mc.fpstate)
		return 0;
	sw = (const struct abi_fx_sw *)(uc->mc.fpstate + ABI_FX_SW_OFFSET);
	size = sw->magic1 == ABI_FP_XSTATE_MAGIC1 ? sw->extended_size : ABI_XSAVE_LEGACY;
	if (size > STUB_IMAGE_MAX)
		return 0;
	top = (top - size) & ~63UL;
	memcpy((void *)top, (const void *)uc->mc.fpstate, size);
	return top;
}

// The new thread starts with a frame on its own stack. Its registers come from the sentry.
static int64_t start_thread(const struct abi_ucontext *uc, uint64_t slot)
{
	struct stub_ctx *c = stub_ctx_at(slot);
	struct abi_ucontext *nu;
	uint64_t top = stub_stack_top(slot), image;
	int64_t r;

	if (slot >= STUB_SLOTS)
		return -EINVAL;
	((struct stub_thread *)top)->timed = false;
	image = copy_image(uc, top);
	if (image)
		top = image;
	nu = (struct abi_ucontext *)((top - sizeof(*nu)) & ~15UL);
	stub_frame_init(nu, c);
	if (image) {
		nu->mc.fpstate = image;
		nu->flags |= ABI_UC_FP_XSTATE;
	}
	top = (uint64_t)nu - 16;
	*(uint64_t *)top = (uint64_t)nu;
	do // a kick may come while the sentry thinks about it
		r = stub_clone_thread(STUB_THREAD_FLAGS, (void *)top, &c->tid, &c->tid);
	while (r == -EINTR);
	return r < 0 ? r : 0;
}

// In the child: takes over the context memory and the socket that the sentry sent along.
static int64_t become_child(int32_t mem, int32_t sock)
{
	static const char name[16] = "runsc-stub";
	int64_t r;

	SYS2(NR_prctl, PR_SET_PDEATHSIG, SIGKILL);
	r = SYS6(NR_mmap, STUB_CTX_BASE, STUB_CTX_TOTAL, PROT_RW, MAP_SHARED | MAP_FIXED, mem, 0);
	if (r < 0)
		return r;
	SYS1(NR_close, mem);
	stub_thread_setup(stub_self(), false);
	r = SYS2(NR_dup2, sock, STUB_FD_SOCK);
	if (r < 0)
		return r;
	SYS1(NR_close, sock);
	SYS2(NR_prctl, PR_SET_NAME, name);
	r = SYS3(NR_write, STUB_FD_SOCK, name, 1); // lets the sentry see whose pid this is
	return r < 0 ? r : 0;
}

// 1 in the child, 0 in the parent, or -errno.
static int64_t fork_stub(void)
{
	int32_t fds[2];
	int64_t r = recv_fds(2, fds);

	if (r < 0)
		return r;
	stub_patch_lock(); // no call site half rewritten in the child
	do
		r = SYS2(NR_clone, STUB_FORK_FLAGS, 0);
	while (r == -EINTR);
	stub_patch_unlock();
	if (r == 0) {
		if (become_child(fds[0], fds[1]) < 0)
			for (;;)
				SYS1(231, 1); // exit_group
		return 1;
	}
	SYS1(NR_close, fds[0]);
	SYS1(NR_close, fds[1]);
	return r < 0 ? r : 0;
}

static int64_t run_op(struct stub_ctx *c, struct abi_ucontext *uc, const struct stub_op *o)
{
	switch (o->kind) {
	case STUB_OP_MAP_ANON:
		return SYS6(NR_mmap, o->addr, o->len, o->prot, o->flags | MAP_FIXED | MAP_ANONYMOUS, -1, 0);
	case STUB_OP_MAP_FD:
		return map_fd(o);
	case STUB_OP_UNMAP:
		return SYS2(NR_munmap, o->addr, o->len);
	case STUB_OP_PROTECT:
		return SYS3(NR_mprotect, o->addr, o->len, o->prot);
	case STUB_OP_REMAP:
		return SYS6(NR_mremap, o->addr, o->len, o->new_len, o->flags, o->new_addr, 0);
	case STUB_OP_ADVISE:
		return SYS3(NR_madvise, o->addr, o->len, o->flags);
	case STUB_OP_MSYNC:
		return SYS3(NR_msync, o->addr, o->len, o->flags);
	case STUB_OP_STORE:
		return stub_copy((void *)o->addr, stub_payload(c) + o->off, o->len) ? -EFAULT : 0;
	case STUB_OP_FUTEX_WAKE:
		SYS3(NR_futex, o->addr, 1 | (o->flags ? 0 : 128), o->len);
		return 0;
	case STUB_OP_CLONE:
		return start_thread(uc, o->addr);
	case STUB_OP_FORK:
		return fork_stub();
	case STUB_OP_FP_GET:
		stub_fp_get(c, uc);
		return 0;
	case STUB_OP_FP_SET:
		return stub_fp_set(c, uc, o->off, o->len);
	case STUB_OP_FP_RESET:
		stub_fp_reset(c, uc);
		return 0;
	default:
		return -EINVAL;
	}
}

// After a failure: descriptors of operations that will not be performed.
static void drop_fds(const struct stub_ctx *c, uint32_t i, uint32_t n)
{
	int32_t fds[2];

	for (; i < n; i++) {
		uint32_t kind = *(volatile const uint32_t *)&c->ops[i].kind;
		uint32_t count = kind == STUB_OP_FORK ? 2 : 1;

		if ((kind != STUB_OP_FORK && kind != STUB_OP_MAP_FD) || recv_fds(count, fds) < 0)
			continue;
		while (count > 0)
			SYS1(NR_close, fds[--count]);
	}
}

uint32_t stub_run_ops(struct stub_ctx *c, struct abi_ucontext *uc)
{
	uint32_t n = c->n_ops < STUB_OPS ? c->n_ops : STUB_OPS;

	for (uint32_t i = 0; i < n; i++) {
		struct stub_op o = c->ops[i];
		int64_t r = run_op(c, uc, &o);

		if (o.kind == STUB_OP_FORK && r == 1)
			return STUB_EV_READY;
		if (unlikely(r < 0 && r > -4096)) {
			drop_fds(c, i + 1, n);
			c->fail_index = i;
			c->fail_error = (int32_t)r;
			return o.kind == STUB_OP_STORE ? STUB_EV_STORE_FAULT : STUB_EV_OPS_FAILED;
		}
	}
	return STUB_EV_NONE;
}
