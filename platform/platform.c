// From the contract to the backend in use.
#include "platform/platform.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "platform/backend.h"
#include "platform/base/base.h"

#define MAX_BACKENDS 4
static const struct pf_backend *backends[MAX_BACKENDS] = {&systrap_backend, &ptrace_backend, &fake_backend};

void pf_register(const struct pf_backend *backend)
{
	for (unsigned i = 0; i < MAX_BACKENDS; i++)
		if (!backends[i] || backends[i] == backend) {
			backends[i] = backend;
			return;
		}
}

int pf_create(const char *name, const struct pf_config *cfg, struct platform **ret_pf)
{
	for (unsigned i = 0; i < MAX_BACKENDS && backends[i]; i++)
		if (strcmp(backends[i]->name, name) == 0)
			return backends[i]->create(cfg, ret_pf);
	return -ENOENT;
}

void pf_destroy(struct platform *pf)
{
	if (pf)
		pf->ops->destroy(pf);
}

const char *pf_name(const struct platform *pf)
{
	return pf->ops->name;
}

unsigned pf_poll(struct platform *pf)
{
	return pf->ops->poll(pf);
}

bool pf_prepare_sleep(struct platform *pf)
{
	return pf->ops->prepare_sleep(pf);
}

void pf_woke(struct platform *pf)
{
	pf->ops->woke(pf);
}

int pf_poll_fd(const struct platform *pf)
{
	return pf->ops->poll_fd(pf);
}

uint64_t pf_spin_ns(const struct platform *pf)
{
	return pf->ops->spin_ns(pf);
}

int pf_as_new(struct platform *pf, struct pf_as **ret_as, struct pf_ctx **ret_ctx)
{
	return pf->ops->as_new(pf, ret_as, ret_ctx);
}

static inline const struct pf_backend *as_ops(const struct pf_as *as)
{
	return as->pf->ops;
}

static inline const struct pf_backend *ctx_ops(const struct pf_ctx *ctx)
{
	return ctx->as->pf->ops;
}

int pf_fork(struct pf_ctx *parent, struct pf_as **ret_as, struct pf_ctx **ret_ctx)
{
	return ctx_ops(parent)->fork(parent, ret_as, ret_ctx);
}

int pf_thread_new(struct pf_ctx *creator, struct pf_ctx **ret_ctx)
{
	return ctx_ops(creator)->thread_new(creator, ret_ctx);
}

void pf_ctx_exit(struct pf_ctx *ctx)
{
	ctx_ops(ctx)->ctx_exit(ctx);
}

void pf_as_kill(struct pf_as *as)
{
	as_ops(as)->as_kill(as);
}

void pf_as_free(struct pf_as *as)
{
	as_ops(as)->as_free(as);
}

void pf_resume(struct pf_ctx *ctx)
{
	ctx_ops(ctx)->resume(ctx);
}

void pf_will_block(struct pf_ctx *ctx)
{
	ctx_ops(ctx)->will_block(ctx);
}

void pf_kick(struct pf_ctx *ctx)
{
	ctx_ops(ctx)->kick(ctx);
}

bool pf_in_guest(const struct pf_ctx *ctx)
{
	return ctx_ops(ctx)->in_guest(ctx);
}

void pf_retry_call(struct pf_ctx *ctx)
{
	ctx_ops(ctx)->retry_call(ctx);
}

void pf_get_regs(struct pf_ctx *ctx, struct abi_regs *ret)
{
	ctx_ops(ctx)->get_regs(ctx, ret);
}

void pf_set_regs(struct pf_ctx *ctx, const struct abi_regs *regs)
{
	ctx_ops(ctx)->set_regs(ctx, regs);
}

void pf_set_result(struct pf_ctx *ctx, int64_t rax)
{
	ctx_ops(ctx)->set_result(ctx, rax);
}

size_t pf_fp_size(const struct platform *pf)
{
	return pf->ops->fp_size(pf);
}

int pf_get_fp(struct pf_ctx *ctx, void *buf)
{
	return ctx_ops(ctx)->get_fp(ctx, buf);
}

int pf_set_fp(struct pf_ctx *ctx, const void *buf)
{
	return ctx_ops(ctx)->set_fp(ctx, buf);
}

int pf_reset_fp(struct pf_ctx *ctx)
{
	return ctx_ops(ctx)->reset_fp(ctx);
}

void pf_set_identity(struct pf_ctx *ctx, const struct pf_identity *id)
{
	ctx_ops(ctx)->set_identity(ctx, id);
}

void pf_set_local_calls(struct pf_ctx *ctx, bool on)
{
	ctx_ops(ctx)->set_local_calls(ctx, on);
}

int pf_queue_op(struct pf_ctx *ctx, const struct pf_op *op)
{
	return ctx_ops(ctx)->queue_op(ctx, op);
}

int pf_flush(struct pf_ctx *ctx)
{
	return ctx_ops(ctx)->flush(ctx);
}

ssize_t pf_readv(struct pf_as *as, uint64_t addr, const struct iovec *local, int n)
{
	return as_ops(as)->readv(as, addr, local, n);
}

ssize_t pf_writev(struct pf_as *as, uint64_t addr, const struct iovec *local, int n)
{
	return as_ops(as)->writev(as, addr, local, n);
}

ssize_t pf_read(struct pf_as *as, uint64_t addr, void *buf, size_t len)
{
	struct iovec iov = {buf, len};

	return pf_readv(as, addr, &iov, 1);
}

ssize_t pf_write(struct pf_as *as, uint64_t addr, const void *buf, size_t len)
{
	struct iovec iov = {(void *)(uintptr_t)buf, len};

	return pf_writev(as, addr, &iov, 1);
}

size_t pf_snapshot(struct pf_ctx *ctx, uint64_t addr, const volatile void **ret)
{
	return ctx_ops(ctx)->snapshot(ctx, addr, ret);
}

void *pf_store(struct pf_ctx *ctx, uint64_t addr, size_t len)
{
	return ctx_ops(ctx)->store(ctx, addr, len);
}

void pf_store_trim(struct pf_ctx *ctx, size_t len)
{
	ctx_ops(ctx)->store_trim(ctx, len);
}

int pf_store_sync(struct pf_ctx *ctx, uint64_t addr, size_t len)
{
	return ctx_ops(ctx)->store_sync(ctx, addr, len);
}

int pf_futex_wake(struct pf_ctx *ctx, uint64_t addr, uint32_t count, bool shared)
{
	return ctx_ops(ctx)->futex_wake(ctx, addr, count, shared);
}

uint64_t pf_as_cpu_ns(struct pf_as *as)
{
	return as_ops(as)->as_cpu_ns(as);
}

uint64_t pf_ctx_cpu_ns(struct pf_ctx *ctx)
{
	return ctx_ops(ctx)->ctx_cpu_ns(ctx);
}

uint64_t pf_vdso(const struct platform *pf, uint64_t *ret_start, uint64_t *ret_end)
{
	return pf->ops->vdso(pf, ret_start, ret_end);
}
