// Room for the platform's trampolines (pf_hooks.patch_area): ranges near the guest's code that no
// mapping of the guest's ever uses. Each is a VMA of its own that the guest does not see: so the
// search for free places goes around it, and fork copies it.
#include "sentry/mm/vma.h"

#define REACH (1900UL << 20) // of a 32-bit displacement, with a margin for the code between

static bool in_reach(uint64_t site, uint64_t start, uint64_t len)
{
	return start > site ? start + len - site < REACH : site - start < REACH;
}

// Above the mappings, below the stack, where the search never looks, if the code is near enough to
// that; else right below the code.
static uint64_t find_room(const struct mm *mm, const struct vma *code, uint64_t site, uint64_t len)
{
	uint64_t a = 0;

	if (site < mm->mmap_base && mm->mmap_base - site < REACH / 2)
		a = vma_find_gap(mm, mm->mmap_base, MIN(site + REACH, PF_GUEST_TOP), len, false);
	if (!a)
		a = vma_find_gap(mm, site > REACH + PF_GUEST_MIN ? site - REACH : PF_GUEST_MIN, code->start, len, true);
	return a && in_reach(site, a, len) ? a : 0;
}

uint64_t mm_patch_area(struct pf_as *as, uint64_t site, uint64_t len)
{
	struct mm *mm = as->owner;
	const struct vma *code;
	struct vma *v;
	uint64_t a;

	// The loop asks, while a task may wait in the middle of a change.
	if (!mm || mm->lock.holder)
		return 0;
	code = vma_at(mm, site);
	if (!code || !code->obj || vma_shared(code) || code->prot != (PROT_READ | PROT_EXEC) || code->end - site < 16)
		return 0;
	for (unsigned i = 0; i < mm->n_patch_areas; i++)
		if (mm->patch_area_len == len && in_reach(site, mm->patch_areas[i], len))
			return mm->patch_areas[i];
	if (mm->n_patch_areas == ARRAY_SIZE(mm->patch_areas) || mm->map_count >= MM_MAX_MAPS)
		return 0;
	a = find_room(mm, code, site, len);
	v = a ? vma_new(a, a + len, MAP_PRIVATE, NULL, 0) : NULL;
	if (!v)
		return 0;
	v->prot = v->max_prot = PROT_READ | PROT_EXEC;
	v->vm_flags = MM_VM_PATCH;
	vma_link(mm, v);
	mm->patch_areas[mm->n_patch_areas++] = a;
	mm->patch_area_len = len;
	return a;
}

bool mm_patch_overlap(const struct mm *mm, uint64_t start, uint64_t end)
{
	for (unsigned i = 0; i < mm->n_patch_areas; i++)
		if (start < mm->patch_areas[i] + mm->patch_area_len && end > mm->patch_areas[i])
			return true;
	return false;
}
