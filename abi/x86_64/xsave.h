// The XSAVE area in standard format (Intel SDM vol. 1, 13.4), and what Linux adds to it in signal
// frames.
#pragma once
#include <stdint.h>

#define ABI_XSAVE_LEGACY 512 // bytes of the FXSAVE part; the header follows
#define ABI_XSAVE_HEADER 64
#define ABI_FXSAVE_FCW        0
#define ABI_FXSAVE_MXCSR      24
#define ABI_FXSAVE_MXCSR_MASK 28
#define ABI_MXCSR_DEFAULT 0x1f80u
#define ABI_FCW_DEFAULT   0x37fu

#define ABI_XFEATURE_X87 (1ULL << 0)
#define ABI_XFEATURE_SSE (1ULL << 1)
// x87 SSE AVX, three of AVX-512, PKRU: what a process has without asking (arch_prctl(2),
// ARCH_REQ_XCOMP_PERM).
#define ABI_XFEATURES_DEFAULT 0x2e7ULL

struct abi_xsave_header {
	uint64_t xstate_bv, xcomp_bv, reserved[6];
};
_Static_assert(sizeof(struct abi_xsave_header) == ABI_XSAVE_HEADER, "xsave header");

// Bytes 464.. of the legacy part of a signal frame's image; a magic word follows the image.
#define ABI_FX_SW_OFFSET 464
#define ABI_FP_XSTATE_MAGIC1 0x46505853u
#define ABI_FP_XSTATE_MAGIC2 0x46505845u
struct abi_fx_sw {
	uint32_t magic1;
	uint32_t extended_size; // of the image with the trailing magic word
	uint64_t xfeatures;
	uint32_t xstate_size;
	uint32_t padding[7];
};
_Static_assert(sizeof(struct abi_fx_sw) == 48, "fx_sw");
