// Hands every call of platform.h to the backend.
#include <sys/uio.h>

#include "platform/backend.h"
#include "platform/base/base.h"

static const struct pf_backend_ops *const backends[] = {
	&pf_fake_ops,
};

int pf_create(const char *name, const struct pf_config *cfg, struct platform **ret_pf)
{
	for (size_t i = 0; i < ARRAY_SIZE(backends); i++)
		if (!strcmp(backends[i]->name, name))
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

int pf_fork(struct pf_ctx *parent, struct pf_as **ret_as, struct pf_ctx **ret_ctx)
{
	return parent->as->pf->ops->fork(parent, ret_as, ret_ctx);
}

int pf_thread_new(struct pf_ctx *creator, struct pf_ctx **ret_ctx)
{
	return creator->as->pf->ops->thread_new(creator, ret_ctx);
}

void pf_ctx_exit(struct pf_ctx *ctx)
{
	ctx->as->pf->ops->ctx_exit(ctx);
}

void pf_as_kill(struct pf_as *as)
{
	as->pf->ops->as_kill(as);
}

void pf_as_free(struct pf_as *as)
{
	as->pf->ops->as_free(as);
}

void pf_resume(struct pf_ctx *ctx)
{
	ctx->as->pf->ops->resume(ctx);
}

void pf_will_block(struct pf_ctx *ctx)
{
	ctx->as->pf->ops->will_block(ctx);
}

void pf_kick(struct pf_ctx *ctx)
{
	ctx->as->pf->ops->kick(ctx);
}

bool pf_in_guest(const struct pf_ctx *ctx)
{
	return ctx->as->pf->ops->in_guest(ctx);
}

void pf_get_regs(struct pf_ctx *ctx, struct abi_regs *ret)
{
	ctx->as->pf->ops->get_regs(ctx, ret);
}

void pf_set_regs(struct pf_ctx *ctx, const struct abi_regs *regs)
{
	ctx->as->pf->ops->set_regs(ctx, regs);
}

void pf_set_result(struct pf_ctx *ctx, int64_t rax)
{
	ctx->as->pf->ops->set_result(ctx, rax);
}

size_t pf_fp_size(const struct platform *pf)
{
	return pf->ops->fp_size(pf);
}

int pf_get_fp(struct pf_ctx *ctx, void *buf)
{
	return ctx->as->pf->ops->get_fp(ctx, buf);
}

int pf_set_fp(struct pf_ctx *ctx, const void *buf)
{
	return ctx->as->pf->ops->set_fp(ctx, buf);
}

int pf_reset_fp(struct pf_ctx *ctx)
{
	return ctx->as->pf->ops->reset_fp(ctx);
}

void pf_set_identity(struct pf_ctx *ctx, const struct pf_identity *id)
{
	ctx->as->pf->ops->set_identity(ctx, id);
}

void pf_set_local_calls(struct pf_ctx *ctx, bool on)
{
	ctx->as->pf->ops->set_local_calls(ctx, on);
}

int pf_queue_op(struct pf_ctx *ctx, const struct pf_op *op)
{
	return ctx->as->pf->ops->queue_op(ctx, op);
}

int pf_flush(struct pf_ctx *ctx)
{
	return ctx->as->pf->ops->flush(ctx);
}

ssize_t pf_read(struct pf_as *as, uint64_t addr, void *buf, size_t len)
{
	struct iovec iov = {buf, len};

	return as->pf->ops->readv(as, addr, &iov, 1);
}

ssize_t pf_write(struct pf_as *as, uint64_t addr, const void *buf, size_t len)
{
	struct iovec iov = {(void *)buf, len};

	return as->pf->ops->writev(as, addr, &iov, 1);
}

ssize_t pf_readv(struct pf_as *as, uint64_t addr, const struct iovec *local, int n)
{
	return as->pf->ops->readv(as, addr, local, n);
}

ssize_t pf_writev(struct pf_as *as, uint64_t addr, const struct iovec *local, int n)
{
	return as->pf->ops->writev(as, addr, local, n);
}

size_t pf_snapshot(struct pf_ctx *ctx, uint64_t addr, const volatile void **ret)
{
	return ctx->as->pf->ops->snapshot(ctx, addr, ret);
}

void *pf_store(struct pf_ctx *ctx, uint64_t addr, size_t len)
{
	return ctx->as->pf->ops->store(ctx, addr, len);
}

void pf_store_trim(struct pf_ctx *ctx, size_t len)
{
	ctx->as->pf->ops->store_trim(ctx, len);
}

int pf_store_sync(struct pf_ctx *ctx, uint64_t addr, size_t len)
{
	return ctx->as->pf->ops->store_sync(ctx, addr, len);
}

int pf_futex_wake(struct pf_ctx *ctx, uint64_t addr, uint32_t count, bool shared)
{
	return ctx->as->pf->ops->futex_wake(ctx, addr, count, shared);
}

uint64_t pf_as_cpu_ns(struct pf_as *as)
{
	return as->pf->ops->as_cpu_ns(as);
}

uint64_t pf_ctx_cpu_ns(struct pf_ctx *ctx)
{
	return ctx->as->pf->ops->ctx_cpu_ns(ctx);
}

uint64_t pf_vdso(const struct platform *pf, uint64_t *ret_start, uint64_t *ret_end)
{
	return pf->ops->vdso(pf, ret_start, ret_end);
}
