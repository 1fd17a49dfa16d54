// What the files of sentry/uaccess share.
#pragma once
#include "platform/base/assert.h"
#include "platform/base/base.h"
#include "platform/platform.h"
#include "sentry/sched/sched.h"
#include "sentry/uaccess/uaccess.h"

// The current task's context; NULL for a kernel task, which has no guest memory.
static inline struct pf_ctx *ua_ctx(void)
{
	struct sched_task *t = sched_current();

	return t ? t->ctx : NULL;
}

// Direct access: bytes moved, 0 if none. [addr, addr+len) has passed access_ok.
size_t ua_read(struct pf_ctx *ctx, uint64_t addr, void *buf, size_t len);
size_t ua_write(struct pf_ctx *ctx, uint64_t addr, const void *buf, size_t len);
// Notes that the current call has changed [addr, addr+len).
void ua_wrote(uint64_t addr, size_t len);
// How many bytes of [addr, addr+len) are in the snapshot that came with the event, and are current.
size_t ua_snapshot(struct pf_ctx *ctx, uint64_t addr, size_t len, const char **ret);
// Room for a deferred store, noted as written; NULL: write directly.
void *ua_store(struct pf_ctx *ctx, uint64_t addr, size_t len);
size_t ua_copy_in(struct pf_ctx *ctx, uint64_t addr, void *dst, size_t len);
size_t ua_copy_out(struct pf_ctx *ctx, uint64_t addr, const void *src, size_t len);
size_t ua_clear(struct pf_ctx *ctx, uint64_t addr, size_t len);

#define UA_STORE_MAX 4096 // longer writes go directly: the page that carries stores is small
