// Vector state.
#include <cpuid.h>

#include "platform/systrap/internal.h"

static uint64_t xgetbv0(void)
{
	uint32_t lo, hi;

	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return (uint64_t)hi << 32 | lo;
}

void st_fp_init(struct systrap *st)
{
	uint32_t a, b, c, d, mask = 0;
	uint8_t fx[ABI_XSAVE_LEGACY] __attribute__((aligned(64)));

	memset(fx, 0, sizeof(fx));
	__asm__ volatile("fxsave64 %0" : "+m"(fx));
	memcpy(&mask, fx + ABI_FXSAVE_MXCSR_MASK, sizeof(mask));
	st->mxcsr_mask = mask ? mask : 0xffbf;
	st->fp_size = ABI_XSAVE_LEGACY + ABI_XSAVE_HEADER;
	st->fp_features = ABI_XFEATURE_X87 | ABI_XFEATURE_SSE;
	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
		return;
	st->fp_features = xgetbv0() & ABI_XFEATURES_DEFAULT;
	for (uint32_t i = 2; i < 10; i++) {
		if (!(st->fp_features & (1ULL << i)))
			continue;
		__cpuid_count(0xd, i, a, b, c, d);
		if (b + a > st->fp_size)
			st->fp_size = b + a;
	}
	kassert(st->fp_size + 4 <= STUB_FP_SIZE);
}

size_t systrap_fp_size(const struct platform *pf)
{
	return st_of(pf)->fp_size;
}

static uint8_t *area(const struct st_ctx *c)
{
	return (uint8_t *)c->pg + STUB_FP_OFF;
}

static int fp_op(struct st_ctx *c, enum stub_op_kind kind)
{
	struct systrap *st = ctx_st(c);
	struct stub_op *op;
	int r = 0;

	if (c->flushing)
		r = st_ops_turn(c);
	if (!r && c->n_ops == STUB_OPS)
		r = st_flush(c);
	if (r)
		return r;
	if (ctx_as(c)->dead)
		return -ESRCH;
	op = st_op_add(c, kind, 0, st->fp_size);
	op->off = st->fp_features;
	return 0;
}

int systrap_get_fp(struct pf_ctx *ctx, void *buf)
{
	struct st_ctx *c = st_ctx_of(ctx);
	struct systrap *st = ctx_st(c);
	struct abi_xsave_header *h = (struct abi_xsave_header *)((uint8_t *)buf + ABI_XSAVE_LEGACY);
	int r = fp_op(c, STUB_OP_FP_GET);

	if (!r)
		r = st_flush(c);
	if (r)
		return r;
	memcpy(buf, area(c), st->fp_size);
	memset((uint8_t *)buf + ABI_FX_SW_OFFSET, 0, sizeof(struct abi_fx_sw));
	h->xstate_bv &= st->fp_features;
	h->xcomp_bv = 0;
	memset(h->reserved, 0, sizeof(h->reserved));
	return 0;
}

int systrap_set_fp(struct pf_ctx *ctx, const void *buf)
{
	struct st_ctx *c = st_ctx_of(ctx);
	struct systrap *st = ctx_st(c);
	struct abi_xsave_header h;
	uint32_t mxcsr;
	int r;

	memcpy(&h, (const uint8_t *)buf + ABI_XSAVE_LEGACY, sizeof(h));
	if (h.xstate_bv & ~st->fp_features || h.xcomp_bv)
		return -EINVAL;
	for (unsigned i = 0; i < ARRAY_SIZE(h.reserved); i++)
		if (h.reserved[i])
			return -EINVAL;
	r = fp_op(c, STUB_OP_FP_SET);
	if (r)
		return r;
	memcpy(area(c), buf, st->fp_size);
	memcpy(&mxcsr, (const uint8_t *)buf + ABI_FXSAVE_MXCSR, sizeof(mxcsr));
	mxcsr &= st->mxcsr_mask;
	memcpy(area(c) + ABI_FXSAVE_MXCSR, &mxcsr, sizeof(mxcsr));
	return 0;
}

int systrap_reset_fp(struct pf_ctx *ctx)
{
	return fp_op(st_ctx_of(ctx), STUB_OP_FP_RESET);
}
