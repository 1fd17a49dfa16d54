#include "sentry/kernel/seccomp.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/syscall.h>

#include "sentry/kernel/internal.h"

#define INSNS_TOTAL_MAX 32768 // of a whole chain; each filter costs four more
#define SYS_SECCOMP_CODE 1

struct seccomp_filter {
	refcount_t refs;
	struct seccomp_filter *prev; // owned; NULL: the first
	unsigned n, total;
	bool log, wants_ip;
	struct sock_filter insn[];
};

// --- the chain ----------------------------------------------------------------------------------

static void filter_put(struct seccomp_filter *f)
{
	while (f && ref_put(&f->refs)) {
		struct seccomp_filter *prev = f->prev;

		kfree(f);
		f = prev;
	}
}

void seccomp_drop(struct task *t)
{
	filter_put(t->seccomp);
	t->seccomp = NULL;
	t->seccomp_strict = false;
}

void seccomp_inherit(struct task *child, const struct task *t)
{
	struct seccomp_filter *f = t->seccomp;

	if (f)
		ref_get(&f->refs);
	child->seccomp = f;
	child->seccomp_strict = t->seccomp_strict;
}

int seccomp_mode(const struct task *t)
{
	return t->seccomp_strict ? SECCOMP_MODE_STRICT : t->seccomp ? SECCOMP_MODE_FILTER : 0;
}

// --- checking a program -------------------------------------------------------------------------

static bool insn_ok(const struct sock_filter *i, unsigned pc, unsigned n)
{
	switch (i->code) {
	case BPF_LD | BPF_W | BPF_ABS:
		return i->k < sizeof(struct seccomp_data) && !(i->k & 3);
	case BPF_LD | BPF_W | BPF_LEN:
	case BPF_LDX | BPF_W | BPF_LEN:
	case BPF_LD | BPF_IMM:
	case BPF_LDX | BPF_IMM:
	case BPF_RET | BPF_K:
	case BPF_RET | BPF_A:
	case BPF_MISC | BPF_TAX:
	case BPF_MISC | BPF_TXA:
	case BPF_ALU | BPF_NEG:
	case BPF_ALU | BPF_ADD | BPF_K:
	case BPF_ALU | BPF_ADD | BPF_X:
	case BPF_ALU | BPF_SUB | BPF_K:
	case BPF_ALU | BPF_SUB | BPF_X:
	case BPF_ALU | BPF_MUL | BPF_K:
	case BPF_ALU | BPF_MUL | BPF_X:
	case BPF_ALU | BPF_DIV | BPF_X:
	case BPF_ALU | BPF_AND | BPF_K:
	case BPF_ALU | BPF_AND | BPF_X:
	case BPF_ALU | BPF_OR | BPF_K:
	case BPF_ALU | BPF_OR | BPF_X:
	case BPF_ALU | BPF_XOR | BPF_K:
	case BPF_ALU | BPF_XOR | BPF_X:
	case BPF_ALU | BPF_LSH | BPF_X:
	case BPF_ALU | BPF_RSH | BPF_X:
		return true;
	case BPF_ALU | BPF_DIV | BPF_K:
		return i->k != 0;
	case BPF_ALU | BPF_LSH | BPF_K:
	case BPF_ALU | BPF_RSH | BPF_K:
		return i->k < 32;
	case BPF_LD | BPF_MEM:
	case BPF_LDX | BPF_MEM:
	case BPF_ST:
	case BPF_STX:
		return i->k < BPF_MEMWORDS;
	case BPF_JMP | BPF_JA:
		return i->k < n - pc - 1;
	case BPF_JMP | BPF_JEQ | BPF_K:
	case BPF_JMP | BPF_JEQ | BPF_X:
	case BPF_JMP | BPF_JGE | BPF_K:
	case BPF_JMP | BPF_JGE | BPF_X:
	case BPF_JMP | BPF_JGT | BPF_K:
	case BPF_JMP | BPF_JGT | BPF_X:
	case BPF_JMP | BPF_JSET | BPF_K:
	case BPF_JMP | BPF_JSET | BPF_X:
		return pc + i->jt + 1 < n && pc + i->jf + 1 < n;
	default:
		return false;
	}
}

// Jumps go forward only, so a program that ends in a return always ends. Scratch words start as zero
// here, so that reading one before it was written shows nothing.
static bool program_ok(const struct sock_filter *p, unsigned n)
{
	for (unsigned pc = 0; pc < n; pc++)
		if (!insn_ok(&p[pc], pc, n))
			return false;
	return BPF_CLASS(p[n - 1].code) == BPF_RET;
}

// --- running ------------------------------------------------------------------------------------

static uint32_t alu(uint16_t op, uint32_t a, uint32_t b)
{
	switch (op) {
	case BPF_ADD: return a + b;
	case BPF_SUB: return a - b;
	case BPF_MUL: return a * b;
	case BPF_DIV: return b ? a / b : 0;
	case BPF_AND: return a & b;
	case BPF_OR: return a | b;
	case BPF_XOR: return a ^ b;
	case BPF_LSH: return b < 32 ? a << b : 0;
	case BPF_RSH: return b < 32 ? a >> b : 0;
	default: return -a; // BPF_NEG
	}
}

static bool jump(uint16_t op, uint32_t a, uint32_t b)
{
	switch (op) {
	case BPF_JEQ: return a == b;
	case BPF_JGT: return a > b;
	case BPF_JGE: return a >= b;
	default: return a & b; // BPF_JSET
	}
}

static uint32_t run(const struct seccomp_filter *f, const struct seccomp_data *d)
{
	uint32_t a = 0, x = 0, mem[BPF_MEMWORDS] = {0};

	for (unsigned pc = 0; pc < f->n; pc++) {
		const struct sock_filter *i = &f->insn[pc];
		uint32_t src = BPF_SRC(i->code) == BPF_X ? x : i->k;

		switch (BPF_CLASS(i->code)) {
		case BPF_LD:
			if (BPF_MODE(i->code) == BPF_ABS)
				memcpy(&a, (const char *)d + i->k, sizeof(a));
			else
				a = BPF_MODE(i->code) == BPF_MEM ? mem[i->k] : BPF_MODE(i->code) == BPF_LEN ? sizeof(*d) : i->k;
			break;
		case BPF_LDX:
			x = BPF_MODE(i->code) == BPF_MEM ? mem[i->k] : BPF_MODE(i->code) == BPF_LEN ? sizeof(*d) : i->k;
			break;
		case BPF_ST:
			mem[i->k] = a;
			break;
		case BPF_STX:
			mem[i->k] = x;
			break;
		case BPF_ALU:
			if (BPF_OP(i->code) == BPF_DIV && !src)
				return SECCOMP_RET_KILL_THREAD; // a division by zero ends a filter with 0
			a = alu(BPF_OP(i->code), a, src);
			break;
		case BPF_JMP:
			if (BPF_OP(i->code) == BPF_JA)
				pc += i->k;
			else
				pc += jump(BPF_OP(i->code), a, src) ? i->jt : i->jf;
			break;
		case BPF_RET:
			return BPF_RVAL(i->code) == BPF_A ? a : i->k;
		default: // BPF_MISC
			if (BPF_MISCOP(i->code) == BPF_TAX)
				x = a;
			else
				a = x;
		}
	}
	panic("a seccomp filter ran past its end");
}

// The strictest answer of all filters; of equal ones the newest filter's.
static uint32_t decide(const struct task *t, const struct seccomp_filter *first, uint64_t ip, bool *ret_log)
{
	struct seccomp_data d = {.nr = (int)t->sc_nr, .arch = AUDIT_ARCH_X86_64, .instruction_pointer = ip};
	uint32_t best = SECCOMP_RET_ALLOW;

	memcpy(d.args, t->sc_args, sizeof(d.args));
	for (const struct seccomp_filter *f = first; f; f = f->prev) {
		uint32_t r = run(f, &d);

		if ((int32_t)(r & SECCOMP_RET_ACTION_FULL) < (int32_t)(best & SECCOMP_RET_ACTION_FULL)) {
			best = r;
			*ret_log = f->log;
		}
	}
	return best;
}

static void trap(struct task *t, uint32_t data, uint64_t ip)
{
	struct ksiginfo info = {.signo = SIGSYS, .code = SYS_SECCOMP_CODE, .errno_ = (int)data, .addr = ip,
				.status = (int)t->sc_nr, .value = AUDIT_ARCH_X86_64};
	struct abi_regs regs;

	// As if the call had not been made: the handler sees its number in rax.
	pf_get_regs(t->ctx, &regs);
	regs.rax = t->sc_nr;
	pf_set_regs(t->ctx, &regs);
	t->no_result = true;
	signal_force(t, &info);
}

static bool strict_allows(uint32_t nr)
{
	return nr == SYS_read || nr == SYS_write || nr == SYS_exit || nr == SYS_rt_sigreturn;
}

bool seccomp_deny(struct task *t, int64_t *ret)
{
	const struct seccomp_filter *f = t->seccomp;
	struct abi_regs regs = {.rip = 0};
	bool log = false;
	uint32_t r, data;

	if (t->seccomp_strict) {
		if (strict_allows(t->sc_nr))
			return false;
		task_exit(t, SIGKILL);
	}
	if (f->wants_ip)
		pf_get_regs(t->ctx, &regs);
	r = decide(t, f, regs.rip, &log);
	data = r & SECCOMP_RET_DATA;
	if (unlikely(log))
		log_info("%s[%d]: seccomp answers call %u with %#x", t->comm, t->tid->nr, t->sc_nr, r);
	switch (r & SECCOMP_RET_ACTION_FULL) {
	case SECCOMP_RET_ALLOW:
	case SECCOMP_RET_LOG:
		return false;
	case SECCOMP_RET_ERRNO:
		*ret = -(int64_t)MIN(data, 4095U);
		return true;
	case SECCOMP_RET_TRAP:
		pf_get_regs(t->ctx, &regs);
		trap(t, data, regs.rip);
		*ret = 0;
		return true;
	case SECCOMP_RET_TRACE: // nobody traces, nobody listens
	case SECCOMP_RET_USER_NOTIF:
		*ret = -ENOSYS;
		return true;
	case SECCOMP_RET_KILL_THREAD:
		if (t->tg->live_threads > 1)
			task_exit(t, SIGSYS);
		task_exit_group(t, SIGSYS);
	default:
		task_exit_group(t, SIGSYS);
	}
}

// --- attaching ----------------------------------------------------------------------------------

static bool is_ancestor(const struct seccomp_filter *old, const struct seccomp_filter *f)
{
	for (; f; f = f->prev)
		if (f == old)
			return true;
	return old == NULL;
}

static void apply(struct task *t, struct seccomp_filter *f)
{
	struct seccomp_filter *old = t->seccomp;

	if (f)
		ref_get(&f->refs);
	t->seccomp = f;
	filter_put(old);
	// From now on every call comes here, also those that the backend would answer.
	if (t->ctx && !pf_in_guest(t->ctx))
		pf_set_local_calls(t->ctx, false);
	else
		t->local_calls_off = true;
}

// The tid of a thread whose filters are not a beginning of the caller's; 0: none.
static int32_t find_divergent(const struct task *t)
{
	struct task *o;

	TAILQ_FOREACH(o, &t->tg->threads, tg_link)
		if (o != t && !o->exiting && (o->seccomp_strict || !is_ancestor(o->seccomp, t->seccomp)))
			return o->tid->nr;
	return 0;
}

static void sync_threads(struct task *t, struct seccomp_filter *f)
{
	struct task *o;

	TAILQ_FOREACH(o, &t->tg->threads, tg_link) {
		if (o == t || o->exiting)
			continue;
		apply(o, f);
		if (t->vt.cred->no_new_privs && !o->vt.cred->no_new_privs) {
			struct cred *c = cred_dup(o->vt.cred);

			if (c) {
				c->no_new_privs = true;
				cred_put(o->vt.cred);
				o->vt.cred = c;
			}
		}
		// Its next call must not be answered without us.
		if (o->local_calls_off)
			signal_wake(o, false);
	}
}

int seccomp_attach(struct task *t, const void *insns, unsigned n, unsigned flags)
{
	struct seccomp_filter *f, *prev = t->seccomp;
	int32_t other;

	if (n == 0 || n > BPF_MAXINSNS || t->seccomp_strict || !program_ok(insns, n))
		return -EINVAL;
	if ((prev ? prev->total : 0) + n + 4 > INSNS_TOTAL_MAX)
		return -ENOMEM;
	if (flags & SECCOMP_FILTER_FLAG_TSYNC) {
		other = find_divergent(t);
		if (other)
			return flags & SECCOMP_FILTER_FLAG_TSYNC_ESRCH ? -ESRCH : other;
	}
	f = kalloc(sizeof(*f) + n * sizeof(f->insn[0]));
	if (!f)
		return -ENOMEM;
	ref_init(&f->refs, 1);
	f->n = n;
	f->total = (prev ? prev->total : 0) + n + 4;
	f->log = flags & SECCOMP_FILTER_FLAG_LOG;
	f->wants_ip = prev && prev->wants_ip;
	memcpy(f->insn, insns, n * sizeof(f->insn[0]));
	for (unsigned i = 0; i < n; i++)
		if (f->insn[i].code == (BPF_LD | BPF_W | BPF_ABS) && (f->insn[i].k == 8 || f->insn[i].k == 12))
			f->wants_ip = true;
	f->prev = prev;
	if (prev)
		ref_get(&prev->refs);
	apply(t, f);
	if (flags & SECCOMP_FILTER_FLAG_TSYNC)
		sync_threads(t, f);
	filter_put(f);
	return 0;
}

int seccomp_set_strict(struct task *t)
{
	if (t->seccomp)
		return -EINVAL;
	t->seccomp_strict = true;
	pf_set_local_calls(t->ctx, false);
	return 0;
}
