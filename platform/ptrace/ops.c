// Memory: operations and stores of a context, and direct access.
//
// Operations are performed as they are queued, since the thread is stopped and at hand; only their
// failure waits for the way back, as the contract says. Stores wait, so that several of them and
// the reading that may follow cost no call of their own.
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "platform/base/checked.h"
#include "platform/base/fdpass.h"
#include "platform/ptrace/internal.h"

#define IOV_MANY 1024
#define MAP_OK (MAP_SHARED | MAP_PRIVATE | MAP_GROWSDOWN | MAP_NORESERVE | MAP_POPULATE)

static void fail(struct pt_ctx *c, enum pf_event_kind kind, unsigned index, int error, uint64_t addr, uint64_t len)
{
	if (c->has_failure)
		return;
	c->has_failure = true;
	c->failure = (struct pf_event){.kind = kind, .ops = {.index = index, .error = error, .addr = addr, .len = len}};
}

// --- direct access --------------------------------------------------------------------------------

static bool span(uint64_t addr, const struct iovec *local, int n, uint64_t *ret_len)
{
	uint64_t len = 0;

	if (n < 0 || n > IOV_MANY || addr >= PF_GUEST_TOP)
		return false;
	for (int i = 0; i < n; i++)
		if (!add_u64(len, local[i].iov_len, &len))
			return false;
	*ret_len = MIN(len, PF_GUEST_TOP - addr);
	return true;
}

static ssize_t vm_rw(struct pt_as *as, bool write, uint64_t addr, const struct iovec *local, int n, size_t len)
{
	struct iovec remote = {(void *)addr, len};

	return write ? process_vm_writev(as->pid, local, (unsigned long)n, &remote, 1, 0)
		     : process_vm_readv(as->pid, local, (unsigned long)n, &remote, 1, 0);
}

// Access from outside does not make a stack grow; a touch of the process's own does.
static bool touch(struct pt_as *as, uint64_t addr, bool write)
{
	struct pt_ctx *c;

	LIST_FOREACH(c, &as->ctxs, as_link)
		if (c->state == PT_SENTRY && !c->gone)
			return pt_touch(c, addr, write) == 0;
	return false;
}

static ssize_t access_memory(struct pf_as *pf_as, bool write, uint64_t addr, const struct iovec *local, int n)
{
	struct pt_as *as = pt_as_of(pf_as);
	uint64_t len;
	ssize_t r;

	if (!span(addr, local, n, &len) || as->leader->gone)
		return -EFAULT;
	if (len == 0)
		return 0;
	r = vm_rw(as, write, addr, local, n, len);
	if (r < (ssize_t)len && touch(as, addr + (r > 0 ? (uint64_t)r : 0), write))
		r = vm_rw(as, write, addr, local, n, len);
	return r > 0 ? r : -EFAULT;
}

ssize_t pt_readv(struct pf_as *as, uint64_t addr, const struct iovec *local, int n)
{
	return access_memory(as, false, addr, local, n);
}

ssize_t pt_writev(struct pf_as *as, uint64_t addr, const struct iovec *local, int n)
{
	return access_memory(as, true, addr, local, n);
}

bool pt_poke(struct pt_as *as, uint64_t addr, const void *buf, size_t len)
{
	struct iovec iov = {(void *)(uintptr_t)buf, len};

	return vm_rw(as, true, addr, &iov, 1, len) == (ssize_t)len;
}

bool pt_peek(struct pt_as *as, uint64_t addr, void *buf, size_t len)
{
	struct iovec iov = {buf, len};

	return vm_rw(as, false, addr, &iov, 1, len) == (ssize_t)len;
}

// --- stores -----------------------------------------------------------------------------------------

static int apply(struct pt_ctx *c, const struct pt_store *s)
{
	struct iovec iov = {c->store_buf + s->at, s->len};

	return s->len == 0 || pt_writev(c->base.as, s->addr, &iov, 1) == (ssize_t)s->len ? 0 : -EFAULT;
}

void pt_apply_stores(struct pt_ctx *c)
{
	for (uint32_t i = 0; i < c->n_stores && !c->has_failure; i++)
		if (apply(c, &c->stores[i]))
			fail(c, PF_EV_STORE_FAULT, i, -EFAULT, c->stores[i].addr, c->stores[i].len);
	c->n_stores = c->store_used = 0;
}

void *pt_store(struct pf_ctx *ctx, uint64_t addr, size_t len)
{
	struct pt_ctx *c = pt_ctx_of(ctx);
	struct pt_store *s = &c->stores[c->n_stores];

	pt_own(c);
	if (c->n_stores == PT_STORES || len > PT_STORE_BYTES - c->store_used)
		return NULL;
	if (!c->store_buf) {
		c->store_buf = kalloc(PT_STORE_BYTES);
		if (!c->store_buf)
			return NULL;
	}
	*s = (struct pt_store){.addr = addr, .len = (uint32_t)len, .at = c->store_used};
	c->n_stores++;
	c->store_used += (uint32_t)len;
	return c->store_buf + s->at;
}

void pt_store_trim(struct pf_ctx *ctx, size_t len)
{
	struct pt_ctx *c = pt_ctx_of(ctx);
	struct pt_store *s;

	kassert(c->n_stores > 0);
	s = &c->stores[c->n_stores - 1];
	kassert(len <= s->len);
	c->store_used -= s->len - (uint32_t)len;
	s->len = (uint32_t)len;
}

int pt_store_sync(struct pf_ctx *ctx, uint64_t addr, size_t len)
{
	struct pt_ctx *c = pt_ctx_of(ctx);
	uint32_t end = 0;
	int r = 0;

	pt_own(c);
	for (uint32_t i = 0; i < c->n_stores; i++)
		if (c->stores[i].addr < addr + len && addr < c->stores[i].addr + c->stores[i].len)
			end = i + 1;
	for (uint32_t i = 0; i < end && !r; i++) {
		r = apply(c, &c->stores[i]);
		c->stores[i].len = 0;
	}
	return r;
}

size_t pt_snapshot(struct pf_ctx *ctx, uint64_t addr, const volatile void **ret)
{
	return 0;
}

// --- operations -------------------------------------------------------------------------------------

static bool range_ok(uint64_t addr, uint64_t len)
{
	uint64_t end;

	return len && !PAGE_OFF(addr) && !PAGE_OFF(len) && add_u64(addr, len, &end) && end <= PF_GUEST_TOP;
}

static bool op_ok(const struct pf_op *op)
{
	return range_ok(op->addr, op->len) && !(op->prot & ~7u) &&
	       (op->kind != PF_OP_REMAP || range_ok(op->new_addr, op->new_len));
}

// The descriptor becomes PTL_FD_TEMP of the process: nothing else is open there but the socket. What
// the guest may do to the message meanwhile can only make the call that uses it fail.
static int send_descriptor(struct pt_ctx *c, int fd)
{
	struct {
		struct msghdr msg;
		struct iovec iov;
		uint64_t byte;
		char control[CMSG_SPACE(sizeof(int))];
	} m = {0};
	uint64_t at = PTL_DATA_MSG;
	int64_t n;
	int r;

	m.msg.msg_iov = (struct iovec *)(at + offsetof(__typeof__(m), iov));
	m.msg.msg_iovlen = 1;
	m.msg.msg_control = (void *)(at + offsetof(__typeof__(m), control));
	m.msg.msg_controllen = sizeof(m.control);
	m.iov.iov_base = (void *)(at + offsetof(__typeof__(m), byte));
	m.iov.iov_len = 1;
	if (!pt_poke(ctx_as(c), at, &m, sizeof(m)))
		return -ESRCH;
	r = send_fds(ctx_pt(c)->sock, "f", 1, &fd, 1);
	if (r)
		return r;
	n = pt_call(c, SYS_recvmsg, PTL_FD_SOCK, at, MSG_DONTWAIT, 0, 0, 0);
	if (n == 1)
		return 0;
	// It must not wait for the next process that asks.
	r = recv_fds(ctx_pt(c)->sock, &(char){0}, 1, MSG_DONTWAIT, NULL, 0, NULL);
	return n < 0 ? (int)n : -EIO;
}

static int64_t map_fd(struct pt_ctx *c, const struct pf_op *op)
{
	int64_t r = send_descriptor(c, op->fd);

	if (r)
		return r;
	r = pt_call(c, SYS_mmap, op->addr, op->len, op->prot, (op->flags & MAP_OK) | MAP_FIXED, PTL_FD_TEMP, op->off);
	pt_call(c, SYS_close, PTL_FD_TEMP, 0, 0, 0, 0, 0);
	return r;
}

static int64_t perform(struct pt_ctx *c, const struct pf_op *op)
{
	uint64_t flags;

	switch (op->kind) {
	case PF_OP_MAP_ANON:
		flags = (op->flags & MAP_OK) | MAP_FIXED | MAP_ANONYMOUS;
		return pt_call(c, SYS_mmap, op->addr, op->len, op->prot, flags, UINT64_MAX, 0);
	case PF_OP_MAP_FD:
		return map_fd(c, op);
	case PF_OP_UNMAP:
		return pt_call(c, SYS_munmap, op->addr, op->len, 0, 0, 0, 0);
	case PF_OP_PROTECT:
		return pt_call(c, SYS_mprotect, op->addr, op->len, op->prot, 0, 0, 0);
	case PF_OP_REMAP:
		if (op->new_addr == op->addr)
			return pt_call(c, SYS_mremap, op->addr, op->len, op->new_len, 0, 0, 0);
		flags = MREMAP_MAYMOVE | MREMAP_FIXED | (op->flags & MREMAP_DONTUNMAP);
		return pt_call(c, SYS_mremap, op->addr, op->len, op->new_len, flags, op->new_addr, 0);
	case PF_OP_ADVISE:
		return pt_call(c, SYS_madvise, op->addr, op->len, op->flags, 0, 0, 0);
	case PF_OP_MSYNC:
		return pt_call(c, SYS_msync, op->addr, op->len, op->flags, 0, 0, 0);
	}
	return -EINVAL;
}

int pt_queue_op(struct pf_ctx *ctx, const struct pf_op *op)
{
	struct pt_ctx *c = pt_ctx_of(ctx);
	unsigned index = c->op_index++;
	int64_t r;

	pt_own(c);
	if (!op_ok(op))
		return -EINVAL;
	if (c->gone)
		return -ESRCH;
	pt_apply_stores(c); // they come first
	if (c->has_failure)
		return 0;
	r = perform(c, op);
	if (r < 0 && r > -4096)
		fail(c, PF_EV_OPS_FAILED, index, (int)r, op->addr, op->len);
	return 0;
}

int pt_flush(struct pf_ctx *ctx)
{
	struct pt_ctx *c = pt_ctx_of(ctx);

	pt_own(c);
	if (c->gone)
		return 0; // the next resume says so
	pt_apply_stores(c);
	c->op_index = 0;
	if (!c->has_failure)
		return 0;
	c->has_failure = false;
	return c->failure.ops.error;
}

int pt_futex_wake(struct pf_ctx *ctx, uint64_t addr, uint32_t count, bool shared)
{
	struct pt_ctx *c = pt_ctx_of(ctx);

	pt_own(c);
	if (c->gone)
		return -ESRCH;
	pt_apply_stores(c); // waiters look at what was stored
	pt_call(c, SYS_futex, addr, FUTEX_WAKE | (shared ? 0 : FUTEX_PRIVATE_FLAG), count, 0, 0, 0);
	return 0;
}
