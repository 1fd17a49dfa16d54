// Rewriting of call sites that trap often, so that they jump to a trampoline.
//
// Two forms. "mov $nr,%eax; syscall": a jump takes the place of the mov; the syscall instruction stays
// as it is, for those who jump to it. "syscall; <instruction of 3 to 8 bytes>": a jump takes the place
// of the call and the first 3 bytes of what follows, which the trampoline executes. Somebody may be
// about to execute that instruction, or hold its address (a signal frame, a thread within the call): so
// the trampoline's address is chosen such that the jump's third byte is an invalid instruction, and
// stub_patch_trap() sends whoever executes it to the trampoline.
//
// While the bytes change, the places where instructions begin hold invalid instructions, and every
// processor that runs this process is made to see them before the others are written. The guest's code
// is readable and executable, not writable: the sentry has made sure of it.
#include "platform/systrap/stub/stub.h"

#define NR_mmap 9
#define NR_mprotect 10
#define NR_sched_yield 24
#define NR_membarrier 324
#define MEMBARRIER_SYNC_CORE 32
#define PROT_RX 5
#define PROT_RWX 7
#define PAGE 4096UL
#define INVALID 0x06 // an instruction that 64-bit mode does not have
#define JMP 0xe9
#define JMP_LEN 5

#define THRESHOLD 8    // traps after which a rewrite pays
#define RETRY_AFTER 200 // traps until the next attempt, if one failed
#define COUNTS 128
#define SITES 256
#define SITE_PROBES 8
#define AREA_SLOTS (STUB_AREA_SIZE / SLOT_SIZE)

enum form { FORM_NONE, FORM_MOV, FORM_TAIL };
struct plan {
	enum form form;
	uint64_t ret;    // the address after the call, as the guest knows it
	uint64_t start;  // where the jump goes
	uint32_t nr;     // FORM_MOV
	uint32_t tail_len;
	uint8_t tail[8]; // FORM_TAIL: the instruction after the call
};

static struct {
	uint32_t tag;
	int32_t n;
} counts[COUNTS];
// FORM_TAIL only: those whose instructions are to be found by the address after the call.
static struct site {
	uint64_t ret, slot;
} sites[SITES];
static struct area {
	uint64_t base;
	uint64_t used[AREA_SLOTS / 64];
} areas[STUB_AREAS];
static uint32_t n_areas, lock;
static uint64_t patching; // the site whose bytes change right now

static uint32_t hash(uint64_t addr)
{
	return (uint32_t)((addr * 0x9e3779b97f4a7c15ULL) >> 40);
}

void stub_patch_lock(void)
{
	while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
		SYS0(NR_sched_yield);
}

void stub_patch_unlock(void)
{
	__atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
}

// --- what can be rewritten ------------------------------------------------------------------------
// Length of the instruction at p, if it is one of the few that may be moved: register and stack
// operations that do not depend on where they are. 0: not one of them.
static uint32_t insn_length(const uint8_t *p)
{
	bool rex = (*p & 0xf0) == 0x40;
	uint32_t len = rex, imm = 0;
	uint8_t op = p[len++], modrm;

	if (op == 0x3d) // cmp $imm32,%eax
		return len + 4;
	if (op >= 0xb8 && op <= 0xbf && !(rex && (p[0] & 8))) // mov $imm32,reg
		return len + 4;
	switch (op) {
	case 0x83: // arithmetic with imm8
		imm = 1;
		break;
	case 0x81: // with imm32
	case 0xc7: // mov $imm32
		imm = 4;
		break;
	case 0x01: case 0x03: case 0x09: case 0x0b: case 0x21: case 0x23: case 0x29: case 0x2b:
	case 0x31: case 0x33: case 0x39: case 0x3b: case 0x63: case 0x85: case 0x89: case 0x8b: case 0x8d:
		break;
	default:
		return 0;
	}
	modrm = p[len++];
	if (modrm >> 6 == 3)
		return op == 0x8d ? 0 : len + imm;
	if (modrm >> 6 == 2 || (modrm >> 6 == 0 && (modrm & 7) >= 4))
		return 0;
	if ((modrm & 7) == 4)
		len++; // SIB; its base is a register: mod is 1
	return len + (modrm >> 6) + imm;
}

static void plan_site(uint64_t ret, uint32_t nr, struct plan *p)
{
	uint8_t pre[8], post[16];
	uint32_t got, len;

	p->form = FORM_NONE;
	if (ret < 0x10000 || stub_copy(pre, (const void *)(ret - 8), 8) || pre[6] != 0x0f || pre[7] != 0x05)
		return;
	p->ret = ret;
	p->nr = nr;
	// The byte before the mov must not be a prefix that makes another instruction of it.
	if (pre[1] == 0xb8 && *(uint32_t *)(pre + 2) == nr && (pre[0] & 0xf0) != 0x40 && pre[0] != 0x66) {
		p->form = FORM_MOV;
		p->start = ret - 7;
		return;
	}
	memset(post, 0xff, sizeof(post));
	got = 16 - (uint32_t)stub_copy(post, (const void *)ret, 16);
	len = insn_length(post);
	if (len < 3 || len > sizeof(p->tail) || len > got)
		return;
	p->form = FORM_TAIL;
	p->start = ret - 2;
	p->tail_len = len;
	memcpy(p->tail, post, len);
}

bool stub_patch_wanted(const struct stub_ctx *c)
{
	uint64_t ret = c->regs.rip;
	uint32_t i = hash(ret) % COUNTS;
	struct plan p;

	if (!stub_can_patch || !((const struct stub_board *)STUB_BOARD_BASE)->patch || ret >= STUB_TEXT_BASE)
		return false;
	if (counts[i].tag != (uint32_t)ret) {
		counts[i].tag = (uint32_t)ret;
		counts[i].n = 0;
	}
	if (++counts[i].n < THRESHOLD)
		return false;
	counts[i].n = -RETRY_AFTER;
	plan_site(ret, (uint32_t)c->regs.rax, &p);
	return p.form != FORM_NONE;
}

// --- trampolines ----------------------------------------------------------------------------------
// Does byte b begin an instruction that 64-bit mode does not have, now and as far as known?
static bool is_invalid(uint8_t b)
{
	return b == 0x06 || b == 0x07 || b == 0x0e || b == 0x16 || b == 0x17 || b == 0x1e || b == 0x1f || b == 0x27 ||
	       b == 0x2f || b == 0x37 || b == 0x3f || b == 0x60 || b == 0x61 || b == 0xce;
}

static bool reaches(const struct plan *p, uint64_t slot, int32_t *ret_rel)
{
	int64_t rel = (int64_t)(slot + SLOT_CODE) - (int64_t)(p->start + JMP_LEN);

	if (rel != (int32_t)rel)
		return false;
	*ret_rel = (int32_t)rel;
	return p->form == FORM_MOV || is_invalid((uint8_t)(rel >> 8));
}

static uint64_t take_slot(struct area *a, const struct plan *p, int32_t *ret_rel)
{
	for (uint32_t i = 1; i < AREA_SLOTS; i++) // the first holds the way in
		if (!(a->used[i / 64] >> (i % 64) & 1) && reaches(p, a->base + i * SLOT_SIZE, ret_rel)) {
			a->used[i / 64] |= 1ULL << (i % 64);
			return a->base + i * SLOT_SIZE;
		}
	return 0;
}

static uint8_t *put(uint8_t *to, const void *bytes, uint32_t n)
{
	memcpy(to, bytes, n);
	return to + n;
}

static uint8_t *put_rel(uint8_t *to, uint64_t target)
{
	int32_t rel = (int32_t)((int64_t)target - (int64_t)(to + 4));

	return put(to, &rel, 4);
}

static void write_slot(const struct area *a, uint64_t slot, const struct plan *p)
{
	static const uint8_t nop5[] = {0x0f, 0x1f, 0x44, 0x00, 0x00};
	static const uint8_t rdgsbase_r11[] = {0xf3, 0x49, 0x0f, 0xae, 0xcb};
	static const uint8_t rorx_r11_rcx[] = {0xc4, 0xc3, 0xfb, 0xf0, 0xcb, STUB_CTX_SHIFT};
	static const uint8_t lea_rcx_ecx[] = {0x8d, 0x89};
	// If the base is one of ours: over the trapping way to what comes next.
	static const uint8_t choose[] = {0xe3, 4, 0x0f, 0x05, 0xeb, SLOT_CONT - SLOT_TRAP - 4};
	static const uint8_t lea_slot_rcx[] = {0x48, 0x8d, 0x0d};
	static const uint8_t jmp_mem[] = {0xff, 0x25};
	int32_t minus_top = -(int32_t)(STUB_CTX_BASE >> STUB_CTX_SHIFT);
	uint8_t *to = (uint8_t *)slot;

	to = put(to, &p->ret, 8);
	if (p->form == FORM_MOV) {
		*to++ = 0xb8;
		to = put(to, &p->nr, 4);
	} else {
		to = put(to, nop5, 5);
	}
	to = put(to, rdgsbase_r11, 5);
	to = put(to, rorx_r11_rcx, 6);
	to = put(to, lea_rcx_ecx, 2);
	to = put(to, &minus_top, 4);
	to = put(to, choose, 6);
	to = put(to, lea_slot_rcx, 3);
	to = put_rel(to, slot);
	to = put(to, jmp_mem, 2);
	to = put_rel(to, a->base);
	if (p->form == FORM_TAIL)
		to = put(to, p->tail, p->tail_len);
	*to++ = JMP;
	put_rel(to, p->ret + (p->form == FORM_TAIL ? p->tail_len : 0));
}

static struct area *area_at(uint64_t base, bool fresh)
{
	struct area *a;
	uint64_t entry = (uint64_t)stub_fast_entry;

	for (uint32_t i = 0; i < n_areas; i++)
		if (areas[i].base == base)
			return &areas[i];
	if (!fresh || n_areas == STUB_AREAS)
		return NULL;
	// MAP_PRIVATE FIXED ANONYMOUS NORESERVE
	if (SYS6(NR_mmap, base, STUB_AREA_SIZE, 3, 0x4032, -1, 0) != (int64_t)base)
		return NULL;
	a = &areas[n_areas];
	memset(a, 0, sizeof(*a));
	a->base = base;
	memcpy((void *)base, &entry, sizeof(entry));
	if (SYS3(NR_mprotect, base, STUB_AREA_SIZE, PROT_RX) < 0)
		return NULL;
	n_areas++;
	return a;
}

// --- the code ---------------------------------------------------------------------------------------
static struct site *find_site(uint64_t ret)
{
	uint32_t h = hash(ret);

	for (uint32_t i = 0; i < SITE_PROBES; i++) {
		struct site *s = &sites[(h + i) % SITES];

		if (s->ret == ret)
			return s;
	}
	return NULL;
}

static bool add_site(uint64_t ret, uint64_t slot)
{
	struct site *s = find_site(ret); // rewritten before, and mapped anew since

	for (uint32_t i = 0; !s && i < SITE_PROBES; i++) {
		struct site *t = &sites[(hash(ret) + i) % SITES];

		if (!t->ret)
			s = t;
	}
	if (!s)
		return false;
	s->slot = slot;
	__atomic_store_n(&s->ret, ret, __ATOMIC_RELEASE);
	return true;
}

static bool sync_cores(void)
{
	return SYS2(NR_membarrier, MEMBARRIER_SYNC_CORE, 0) == 0;
}

static bool poke(const struct plan *p, int32_t rel)
{
	volatile uint8_t *at = (volatile uint8_t *)p->start;
	const uint8_t *r = (const uint8_t *)&rel;
	uint8_t old = at[0];
	uint64_t first = p->start & ~(PAGE - 1), len = ((p->start + JMP_LEN - 1) & ~(PAGE - 1)) + PAGE - first;

	if (SYS3(NR_mprotect, first, len, PROT_RWX) < 0)
		return false;
	__atomic_store_n(&patching, p->start, __ATOMIC_SEQ_CST);
	at[0] = INVALID;
	if (sync_cores()) {
		if (p->form == FORM_TAIL) { // at[2] begins an instruction as well
			at[2] = r[1];
			sync_cores();
		}
		at[1] = r[0], at[2] = r[1], at[3] = r[2], at[4] = r[3];
		sync_cores();
		at[0] = JMP;
	} else {
		at[0] = old;
	}
	__atomic_store_n(&patching, 0, __ATOMIC_SEQ_CST);
	SYS3(NR_mprotect, first, len, PROT_RX);
	return at[0] == JMP;
}

void stub_patch(const struct stub_ctx *c, uint64_t base, bool fresh)
{
	struct plan p;
	struct area *a;
	uint64_t slot, page;
	int32_t rel;

	stub_patch_lock();
	a = area_at(base, fresh);
	plan_site(c->regs.rip, (uint32_t)c->regs.rax, &p);
	if (!a || p.form == FORM_NONE)
		goto out;
	slot = take_slot(a, &p, &rel);
	if (!slot)
		goto out;
	page = slot & ~(PAGE - 1);
	if (SYS3(NR_mprotect, page, PAGE, PROT_RWX) < 0)
		goto out;
	write_slot(a, slot, &p);
	SYS3(NR_mprotect, page, PAGE, PROT_RX);
	if (p.form == FORM_MOV || add_site(p.ret, slot))
		poke(&p, rel);
out:
	stub_patch_unlock();
}

// --- addresses --------------------------------------------------------------------------------------
// The slot that stands for the instruction after the call that ends at ret; 0: none.
static uint64_t slot_of_ret(uint64_t ret)
{
	const struct site *s;
	uint8_t code[JMP_LEN];
	int32_t rel;

	if (!n_areas)
		return 0;
	s = find_site(ret);
	if (!s || stub_copy(code, (const void *)(ret - 2), JMP_LEN))
		return 0;
	if (__atomic_load_n(&patching, __ATOMIC_SEQ_CST) == ret - 2)
		return s->slot;
	// It may have been unmapped and replaced since.
	memcpy(&rel, code + 1, 4);
	return code[0] == JMP && ret - 2 + JMP_LEN + (uint64_t)(int64_t)rel == s->slot + SLOT_CODE ? s->slot : 0;
}

uint64_t stub_code_address(uint64_t rip)
{
	uint64_t slot = slot_of_ret(rip);

	return slot ? slot + SLOT_CONT : rip;
}

uint64_t stub_guest_address(uint64_t rip)
{
	for (uint32_t i = 0; i < n_areas; i++) {
		uint64_t slot = rip & ~(uint64_t)(SLOT_SIZE - 1), off = rip - slot, ret;

		if (rip - areas[i].base >= STUB_AREA_SIZE || slot == areas[i].base)
			continue;
		ret = *(const uint64_t *)slot;
		if (off == SLOT_TRAP + 2)
			return ret;
		if (off < SLOT_CONT) // nothing has happened yet
			return ret - (*(const uint8_t *)(slot + SLOT_CODE) == 0xb8 ? 7 : 2);
		return ret + (off - SLOT_CONT);
	}
	return rip;
}

bool stub_patch_step(uint64_t rip)
{
	for (uint32_t i = 0; i < n_areas; i++)
		if (rip - areas[i].base < STUB_AREA_SIZE)
			return rip % SLOT_SIZE < SLOT_CONT;
	return false;
}

bool stub_patch_trap(uint64_t rip, uint64_t *ret_rip)
{
	uint64_t slot = slot_of_ret(rip);

	if (slot) {
		*ret_rip = slot + SLOT_CONT;
		return true;
	}
	if (!n_areas || __atomic_load_n(&patching, __ATOMIC_SEQ_CST) != rip) {
		// Whole again by now?
		uint8_t b;

		return n_areas && !stub_copy(&b, (const void *)rip, 1) && b == JMP;
	}
	while (__atomic_load_n(&patching, __ATOMIC_SEQ_CST) == rip)
		SYS0(NR_sched_yield);
	return true;
}
