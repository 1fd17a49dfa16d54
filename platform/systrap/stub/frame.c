// Signal frames of our own making, and vector state.
#include "platform/systrap/stub/stub.h"

uint64_t stub_fp_features;
uint32_t stub_fp_size;

static inline void xsave(void *area)
{
	__asm__ volatile("xsave64 (%0)"
			 :
			 : "r"(area), "a"((uint32_t)stub_fp_features), "d"((uint32_t)(stub_fp_features >> 32))
			 : "memory");
}

static inline void xrstor(const void *area)
{
	__asm__ volatile("xrstor64 (%0)"
			 :
			 : "r"(area), "a"((uint32_t)stub_fp_features), "d"((uint32_t)(stub_fp_features >> 32))
			 : "memory");
}

static uint64_t slot_of(const struct stub_ctx *c)
{
	return ((uint64_t)c - STUB_CTX_BASE) / STUB_CTX_SIZE;
}

static uint8_t *fp_area(struct stub_ctx *c)
{
	return (uint8_t *)c + STUB_FP_OFF;
}

// The far end of the stack slot, which no frame reaches: room for an image.
static uint8_t *slot_image(const struct stub_ctx *c)
{
	return (uint8_t *)(STUB_STACK_BASE + slot_of(c) * STUB_STACK_SIZE);
}

void stub_frame_init(struct abi_ucontext *uc, const struct stub_ctx *c)
{
	memset(uc, 0, sizeof(*uc));
	uc->flags = ABI_UC_SIGCONTEXT_SS | ABI_UC_STRICT_RESTORE_SS;
	uc->stack.sp = STUB_STACK_BASE + slot_of(c) * STUB_STACK_SIZE;
	uc->stack.size = STUB_STACK_SIZE - STUB_THREAD_ROOM;
	uc->mc.cs = ABI_USER_CS;
	uc->mc.ss = ABI_USER_SS;
	uc->mc.eflags = ABI_EFLAGS_FIXED;
}

static void describe_image(uint8_t *image, uint64_t features, uint64_t size)
{
	struct abi_fx_sw *sw = (struct abi_fx_sw *)(image + ABI_FX_SW_OFFSET);

	memset(sw, 0, sizeof(*sw));
	sw->magic1 = ABI_FP_XSTATE_MAGIC1;
	sw->extended_size = (uint32_t)size + 4;
	sw->xfeatures = features;
	sw->xstate_size = (uint32_t)size;
	*(uint32_t *)(image + size) = ABI_FP_XSTATE_MAGIC2;
}

void stub_fp_save(uint8_t *image)
{
	memset(image + ABI_XSAVE_LEGACY, 0, ABI_XSAVE_HEADER);
	xsave(image);
	describe_image(image, stub_fp_features, stub_fp_size);
}

void stub_frame_make(struct abi_ucontext *uc, const struct stub_ctx *c)
{
	uint8_t *image = slot_image(c);

	stub_frame_init(uc, c);
	stub_fp_save(image);
	uc->mc.fpstate = (uint64_t)image;
	uc->flags |= ABI_UC_FP_XSTATE;
}

static void fp_init(uint8_t *image)
{
	memset(image, 0, ABI_XSAVE_LEGACY + ABI_XSAVE_HEADER);
	*(uint16_t *)(image + ABI_FXSAVE_FCW) = ABI_FCW_DEFAULT;
	*(uint32_t *)(image + ABI_FXSAVE_MXCSR) = ABI_MXCSR_DEFAULT;
	*(uint32_t *)(image + ABI_FXSAVE_MXCSR_MASK) = 0xffff;
}

void stub_fp_get(struct stub_ctx *c, const struct abi_ucontext *uc)
{
	const struct abi_fx_sw *sw;
	uint64_t size;

	if (!uc) {
		memset(fp_area(c) + ABI_XSAVE_LEGACY, 0, ABI_XSAVE_HEADER);
		xsave(fp_area(c));
		return;
	}
	if (!uc->mc.fpstate) {
		fp_init(fp_area(c));
		return;
	}
	sw = (const struct abi_fx_sw *)(uc->mc.fpstate + ABI_FX_SW_OFFSET);
	size = sw->magic1 == ABI_FP_XSTATE_MAGIC1 ? sw->xstate_size : ABI_XSAVE_LEGACY;
	memcpy(fp_area(c), (const void *)uc->mc.fpstate, size < STUB_FP_SIZE ? size : STUB_FP_SIZE);
}

// Vector state from the fp area, which the sentry has checked. The words that describe a frame's
// format stay as they are; a frame without an image gets one.
int64_t stub_fp_set(struct stub_ctx *c, struct abi_ucontext *uc, uint64_t features, uint64_t size)
{
	const uint8_t *area = fp_area(c);
	struct abi_fx_sw *sw;
	uint8_t *image;

	if (size < ABI_XSAVE_LEGACY + ABI_XSAVE_HEADER || size > STUB_FP_SIZE - 4)
		return -EINVAL;
	if (!uc) {
		xrstor(area);
		return 0;
	}
	image = (uint8_t *)uc->mc.fpstate;
	if (!image) {
		image = slot_image(c);
		describe_image(image, features, size);
		uc->mc.fpstate = (uint64_t)image;
		uc->flags |= ABI_UC_FP_XSTATE;
	}
	sw = (struct abi_fx_sw *)(image + ABI_FX_SW_OFFSET);
	if (size > sw->xstate_size)
		size = sw->xstate_size;
	memcpy(image, area, ABI_FX_SW_OFFSET);
	memcpy(image + ABI_XSAVE_LEGACY, area + ABI_XSAVE_LEGACY, size - ABI_XSAVE_LEGACY);
	return 0;
}

void stub_fp_reset(struct stub_ctx *c, struct abi_ucontext *uc)
{
	if (uc) {
		uc->mc.fpstate = 0;
		return;
	}
	fp_init(fp_area(c));
	xrstor(fp_area(c));
}
