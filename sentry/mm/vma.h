// The VMA tree: mm's own. Nothing here waits or talks to the platform; the caller holds mm->lock.
//
// An RB tree by start address. Each node also knows the extent of its subtree and the largest gap in
// it, so a free place is found in O(log n). A gap ends where the next VMA's guard begins: a stack
// that grows down keeps 256 pages free below it.
#pragma once
#include <bsd/sys/tree.h>
#include <sys/mman.h>

#include "platform/base/base.h"
#include "platform/platform.h"
#include "sentry/mm/mm.h"

#define STACK_GUARD_GAP (256 * PAGE_SIZE)
#define PROT_RWX (PROT_READ | PROT_WRITE | PROT_EXEC)

struct vma_name {
	refcount_t refs;
	char s[]; // "[anon:NAME]"
};

struct vma {
	RB_ENTRY(vma) node;
	struct vma *dead_next; // on a list of VMAs that left the tree
	uint64_t start, end;   // never empty
	uint64_t off;          // byte offset of start in obj; 0 without obj
	uint64_t sub_lo, sub_hi, sub_gap; // subtree: lowest guarded start, highest end, largest gap inside
	struct mobj *obj;      // owned; NULL: private anonymous
	struct vma_name *name; // owned; NULL: none
	uint32_t flags;        // MAP_SHARED or MAP_PRIVATE, and MAP_GROWSDOWN
	uint16_t vm_flags;     // MM_VM_*
	uint8_t prot, max_prot;
};
RB_HEAD(vma_tree, vma);

static inline uint64_t vma_pages(const struct vma *v) { return (v->end - v->start) >> PAGE_SHIFT; }
static inline bool vma_shared(const struct vma *v) { return (v->flags & MAP_SHARED) != 0; }
static inline bool vma_is_stack(const struct vma *v) { return (v->flags & MAP_GROWSDOWN) != 0; }
// What RLIMIT_DATA counts.
static inline bool vma_is_data(const struct vma *v) { return (v->prot & PROT_WRITE) && !vma_shared(v) && !vma_is_stack(v); }
static inline uint64_t vma_guard_start(const struct vma *v)
{
	if (!vma_is_stack(v))
		return v->start;
	return v->start > STACK_GUARD_GAP ? v->start - STACK_GUARD_GAP : 0;
}

struct vma *vma_find(const struct mm *mm, uint64_t addr); // the first that ends above addr; NULL
struct vma *vma_at(const struct mm *mm, uint64_t addr);   // the one that contains addr; NULL
struct vma *vma_first(const struct mm *mm);
struct vma *vma_next(struct vma *v);
struct vma *vma_prev(struct vma *v);
// The first one that overlaps [start, end); NULL: the range is free.
struct vma *vma_overlap(const struct mm *mm, uint64_t start, uint64_t end);
// Pages of [start, end) that are mapped; ret_data: those that RLIMIT_DATA counts.
uint64_t vma_count_pages(const struct mm *mm, uint64_t start, uint64_t end, uint64_t *ret_data);

// A VMA for [start, end) that is in no tree yet; flags as in struct vma, for good. Takes a reference to
// obj. NULL: no memory.
struct vma *vma_new(uint64_t start, uint64_t end, uint32_t flags, struct mobj *obj, uint64_t off);
// A copy of all but the place in the tree, with references of its own.
struct vma *vma_dup(const struct vma *v);
// Gives back references, then memory. May wait when the object's last reference goes.
void vma_free(struct vma *v);
void vma_free_list(struct vma *dead);

void vma_link(struct mm *mm, struct vma *v);   // the place is free
void vma_unlink(struct mm *mm, struct vma *v);
void vma_set_bounds(struct mm *mm, struct vma *v, uint64_t start, uint64_t end); // off follows start
// Changes what a whole VMA is, with the accounting.
void vma_set_prot(struct mm *mm, struct vma *v, int prot);
void vma_set_vm_flags(struct mm *mm, struct vma *v, unsigned vm_flags);
// Cuts v at `at`; v keeps the lower part. -ENOMEM.
int vma_split(struct mm *mm, struct vma *v, uint64_t at);
// Would a VMA like v (in the tree or not) be one with its neighbour?
bool vma_mergeable(const struct vma *lower, const struct vma *upper);
// Merges v with equal neighbours; returns the one that has v's range now.
struct vma *vma_merge(struct mm *mm, struct vma *v);
// Adds v, extending a neighbour instead where it is equal. v is in the tree or freed.
struct vma *vma_add(struct mm *mm, struct vma *v);
// Takes [start, end) out of the tree onto *dead. Nothing is changed if it fails with -ENOMEM.
int vma_clear(struct mm *mm, uint64_t start, uint64_t end, struct vma **dead);
// Cuts VMAs so that none crosses start or end. -ENOMEM (no harm done).
int vma_isolate(struct mm *mm, uint64_t start, uint64_t end);

// A free place of len bytes in [lo, hi); 0: none. top_down: the highest one.
uint64_t vma_find_gap(const struct mm *mm, uint64_t lo, uint64_t hi, uint64_t len, bool top_down);

// --- shared by mm's files ----------------------------------------------------------------------
// Queues op and remembers it for mm_op_failed().
int mm_queue(struct mm *mm, struct pf_ctx *ctx, const struct pf_op *op);
// May n more pages be mapped (data: of the kind that RLIMIT_DATA counts)?
bool mm_may_expand(const struct mm *mm, uint64_t n, bool data);
// May n more pages be locked? 0, -EPERM or `full`.
int mm_may_lock(const struct mm *mm, uint64_t n, int full);
int mm_unmap_locked(struct mm *mm, struct pf_ctx *ctx, uint64_t start, uint64_t end, struct vma **dead);
uint64_t mm_find_place(const struct mm *mm, uint64_t len, bool low32);
// Sets and clears vm_flags over what is mapped of [start, end). -ENOMEM for memory; *ret_hole: some was not mapped.
int mm_change_vm_flags(struct mm *mm, uint64_t start, uint64_t end, unsigned set, unsigned clear, bool *ret_hole);
// Page-aligned [addr, addr+len) of at least a page below PF_GUEST_TOP.
static inline bool mm_range_ok(uint64_t addr, uint64_t len)
{
	return addr <= PF_GUEST_TOP && len <= PF_GUEST_TOP - addr;
}
