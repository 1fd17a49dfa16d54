// The fake platform: no host process, no guest code. A context runs a script, a C function that
// says which event the "guest" produces next; guest memory lies in this process. Everything is
// deterministic: contexts take turns in the order in which they were resumed.
//
// A futex call that the kernel hands back (pf_retry_call) is performed here, among the contexts of the
// platform; a timeout does not end it, only a wake-up or a kick does.
//
// For unit tests and simulations of the kernel (pf_create("fake", ...)).
#pragma once
#include "platform/platform.h"

// The next event of the guest thread. last_result is what the sentry answered to the last system
// call (pf_set_result; 0 at first). The script may read and write guest memory with
// pf_read/pf_write and may look at registers. PF_EV_NONE: the guest thread computes or waits on its
// own; it comes back after pf_kick() (as PF_EV_INTERRUPT) or fake_unpark().
typedef struct pf_event (*fake_step_fn)(void *arg, struct pf_ctx *ctx, int64_t last_result);

// New contexts have their creator's script (pf_fork, pf_thread_new), or none: they stay in the guest.
void fake_set_script(struct pf_ctx *ctx, fake_step_fn step, void *arg);
// The script of contexts that pf_as_new() makes from now on.
void fake_default_script(struct platform *pf, fake_step_fn step, void *arg);
// For scripts: the guest thread's registers, to read and to change.
struct abi_regs *fake_regs(struct pf_ctx *ctx);
void fake_unpark(struct pf_ctx *ctx);
static inline struct pf_event fake_syscall(uint32_t nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3,
					   uint64_t a4, uint64_t a5)
{
	return (struct pf_event){.kind = PF_EV_SYSCALL, .sc = {.nr = nr, .args = {a0, a1, a2, a3, a4, a5}}};
}
// For scripts, just before they return a system call: [addr, addr+len) of guest memory comes along
// with the event as its payload. False: bad address or too long.
bool fake_payload(struct pf_ctx *ctx, uint64_t addr, size_t len);
// Tests: lets the next n deferred stores find no room, so that uaccess has to write directly.
void fake_refuse_stores(struct pf_ctx *ctx, unsigned n);
// How many address spaces and contexts are alive.
unsigned fake_live(const struct platform *pf);
