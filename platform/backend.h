// What a backend implements: one function per function of platform.h, which says what each does.
#pragma once
#include "platform/platform.h"

struct pf_backend {
	const char *name;
	int (*create)(const struct pf_config *cfg, struct platform **ret_pf);
	void (*destroy)(struct platform *pf);
	unsigned (*poll)(struct platform *pf);
	bool (*prepare_sleep)(struct platform *pf);
	void (*woke)(struct platform *pf);
	int (*poll_fd)(const struct platform *pf);
	uint64_t (*spin_ns)(const struct platform *pf);
	int (*as_new)(struct platform *pf, struct pf_as **ret_as, struct pf_ctx **ret_ctx);
	int (*fork)(struct pf_ctx *parent, struct pf_as **ret_as, struct pf_ctx **ret_ctx);
	int (*thread_new)(struct pf_ctx *creator, struct pf_ctx **ret_ctx);
	void (*ctx_exit)(struct pf_ctx *ctx);
	void (*as_kill)(struct pf_as *as);
	void (*as_free)(struct pf_as *as);
	void (*resume)(struct pf_ctx *ctx);
	void (*will_block)(struct pf_ctx *ctx);
	void (*kick)(struct pf_ctx *ctx);
	bool (*in_guest)(const struct pf_ctx *ctx);
	void (*retry_call)(struct pf_ctx *ctx);
	void (*get_regs)(struct pf_ctx *ctx, struct abi_regs *ret);
	void (*set_regs)(struct pf_ctx *ctx, const struct abi_regs *regs);
	void (*set_result)(struct pf_ctx *ctx, int64_t rax);
	size_t (*fp_size)(const struct platform *pf);
	int (*get_fp)(struct pf_ctx *ctx, void *buf);
	int (*set_fp)(struct pf_ctx *ctx, const void *buf);
	int (*reset_fp)(struct pf_ctx *ctx);
	void (*set_identity)(struct pf_ctx *ctx, const struct pf_identity *id);
	void (*set_local_calls)(struct pf_ctx *ctx, bool on);
	int (*queue_op)(struct pf_ctx *ctx, const struct pf_op *op);
	int (*flush)(struct pf_ctx *ctx);
	ssize_t (*readv)(struct pf_as *as, uint64_t addr, const struct iovec *local, int n);
	ssize_t (*writev)(struct pf_as *as, uint64_t addr, const struct iovec *local, int n);
	size_t (*snapshot)(struct pf_ctx *ctx, uint64_t addr, const volatile void **ret);
	void *(*store)(struct pf_ctx *ctx, uint64_t addr, size_t len);
	void (*store_trim)(struct pf_ctx *ctx, size_t len);
	int (*store_sync)(struct pf_ctx *ctx, uint64_t addr, size_t len);
	int (*futex_wake)(struct pf_ctx *ctx, uint64_t addr, uint32_t count, bool shared);
	uint64_t (*as_cpu_ns)(struct pf_as *as);
	uint64_t (*ctx_cpu_ns)(struct pf_ctx *ctx);
	uint64_t (*vdso)(const struct platform *pf, uint64_t *ret_start, uint64_t *ret_end);
};

// The head of every backend's own struct.
struct platform {
	const struct pf_backend *ops;
	struct pf_config cfg;
};

extern const struct pf_backend systrap_backend, ptrace_backend, fake_backend;
// The others register here before pf_create (none so far).
void pf_register(const struct pf_backend *backend);
