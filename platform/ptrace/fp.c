// Vector state: XSAVE images in standard format, cut to the features that every process has.
#include <cpuid.h>
#include <elf.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#include "platform/ptrace/internal.h"

#define LEGACY 512
#define HEADER 64
#define FEATURES 0x2e7ULL // x87 SSE AVX, AVX-512, PKRU
#define FCW_DEFAULT 0x37fu
#define MXCSR_DEFAULT 0x1f80u
#define MXCSR_AT 24
#define MXCSR_MASK_AT 28
#define SW_AT 464 // the part of the legacy area that is software's
#define SW_LEN 48

struct header {
	uint64_t bv, comp_bv, reserved[6];
};

static int regset(struct pt_ctx *c, bool set, void *buf, size_t *len)
{
	struct iovec iov = {buf, *len};

	if (c->gone)
		return -ESRCH;
	if (ptrace(set ? PTRACE_SETREGSET : PTRACE_GETREGSET, c->tid, NT_X86_XSTATE, &iov) < 0)
		return -errno;
	*len = iov.iov_len;
	return 0;
}

int pt_fp_init(struct pt_platform *pt, struct pt_ctx *c)
{
	cleanup_free char *buf = calloc(1, 64 << 10);
	size_t len = 64 << 10;
	uint64_t xcr0;
	int r;

	r = buf ? regset(c, false, buf, &len) : -ENOMEM;
	if (r)
		return r;
	pt->fp_full = len;
	memcpy(&xcr0, buf + SW_AT, sizeof(xcr0)); // the host puts its mask there
	pt->fp_features = (xcr0 ? xcr0 : 3) & FEATURES;
	pt->fp_size = LEGACY + HEADER;
	for (unsigned i = 2; i < 10; i++) {
		unsigned size, off, ecx, edx;

		if (!(pt->fp_features & (1ULL << i)))
			continue;
		__cpuid_count(0xd, i, size, off, ecx, edx);
		pt->fp_size = MAX(pt->fp_size, (size_t)size + off);
	}
	return pt->fp_size <= pt->fp_full ? 0 : -EIO;
}

size_t pt_fp_size(const struct platform *pf)
{
	return pt_of(pf)->fp_size;
}

int pt_get_fp(struct pf_ctx *ctx, void *buf)
{
	struct pt_ctx *c = pt_ctx_of(ctx);
	struct pt_platform *pt = ctx_pt(c);
	size_t len = pt->fp_full;
	struct header *h;
	char *full;
	int r;

	pt_own(c);
	full = kalloc(len);
	if (!full)
		return -ENOMEM;
	r = regset(c, false, full, &len);
	if (!r) {
		memcpy(buf, full, pt->fp_size);
		memset((char *)buf + SW_AT, 0, SW_LEN);
		h = (struct header *)((char *)buf + LEGACY);
		h->bv &= pt->fp_features;
		h->comp_bv = 0;
		memset(h->reserved, 0, sizeof(h->reserved));
	}
	kfree(full);
	return r;
}

int pt_set_fp(struct pf_ctx *ctx, const void *buf)
{
	struct pt_ctx *c = pt_ctx_of(ctx);
	struct pt_platform *pt = ctx_pt(c);
	size_t len = pt->fp_full;
	uint32_t mxcsr, mask;
	struct header h;
	char *full;
	int r;

	pt_own(c);
	memcpy(&h, (const char *)buf + LEGACY, sizeof(h));
	if (h.bv & ~pt->fp_features || h.comp_bv)
		return -EINVAL;
	for (unsigned i = 0; i < ARRAY_SIZE(h.reserved); i++)
		if (h.reserved[i])
			return -EINVAL;
	full = kalloc(len);
	if (!full)
		return -ENOMEM;
	r = regset(c, false, full, &len); // for the mask of MXCSR that this processor has
	if (!r) {
		memcpy(&mask, full + MXCSR_MASK_AT, sizeof(mask));
		memset(full, 0, len);
		memcpy(full, buf, pt->fp_size);
		memset(full + SW_AT, 0, SW_LEN);
		memcpy(&mxcsr, full + MXCSR_AT, sizeof(mxcsr));
		mxcsr &= mask ? mask : 0xffbf;
		memcpy(full + MXCSR_AT, &mxcsr, sizeof(mxcsr));
		r = regset(c, true, full, &len);
	}
	kfree(full);
	return r;
}

int pt_reset_fp(struct pf_ctx *ctx)
{
	struct pt_platform *pt = ctx_pt(pt_ctx_of(ctx));
	uint16_t fcw = FCW_DEFAULT;
	uint32_t mxcsr = MXCSR_DEFAULT;
	char *buf = kalloc(pt->fp_size);
	int r;

	if (!buf)
		return -ENOMEM;
	memcpy(buf, &fcw, sizeof(fcw));
	memcpy(buf + MXCSR_AT, &mxcsr, sizeof(mxcsr));
	r = pt_set_fp(ctx, buf);
	kfree(buf);
	return r;
}
