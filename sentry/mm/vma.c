#include "sentry/mm/vma.h"

#include "platform/base/assert.h"
#include "platform/base/slab.h"

DEFINE_SLAB(vma_slab, struct vma);

// --- the augmented tree ------------------------------------------------------------------------

static uint64_t gap_between(uint64_t lo, uint64_t hi)
{
	return hi > lo ? hi - lo : 0;
}

// Computes v's subtree fields from its children; true if something changed.
static bool vma_augment(struct vma *v)
{
	const struct vma *l = RB_LEFT(v, node), *r = RB_RIGHT(v, node);
	uint64_t guard = vma_guard_start(v);
	uint64_t lo = l ? MIN(l->sub_lo, guard) : guard, hi = r ? r->sub_hi : v->end, gap = 0;

	if (l)
		gap = MAX(l->sub_gap, gap_between(l->sub_hi, guard));
	if (r) {
		gap = MAX(gap, r->sub_gap);
		gap = MAX(gap, gap_between(v->end, r->sub_lo));
	}
	if (v->sub_lo == lo && v->sub_hi == hi && v->sub_gap == gap)
		return false;
	v->sub_lo = lo;
	v->sub_hi = hi;
	v->sub_gap = gap;
	return true;
}

#undef RB_AUGMENT
#define RB_AUGMENT(v) ((void)vma_augment(v))

static inline int vma_cmp(const struct vma *a, const struct vma *b)
{
	return (a->start > b->start) - (a->start < b->start);
}
#ifndef __unused
#define __unused __attribute__((unused))
#endif
RB_GENERATE_STATIC(vma_tree, vma, node, vma_cmp)

static inline struct vma_tree *tree_of(const struct mm *mm)
{
	_Static_assert(sizeof(struct vma_tree) == sizeof(void *), "a tree is its root pointer");
	return (struct vma_tree *)&mm->vmas;
}

// A node's own extent changed: brings it and what is above it up to date.
static void augment_up(struct vma *v)
{
	for (; v; v = RB_PARENT(v, node))
		if (!vma_augment(v))
			break;
}

// The same where nodes were moved: a node that happens to be right says nothing about those above.
static void augment_up_all(struct vma *v)
{
	for (; v; v = RB_PARENT(v, node))
		vma_augment(v);
}

struct vma *vma_find(const struct mm *mm, uint64_t addr)
{
	struct vma *v = RB_ROOT(tree_of(mm)), *best = NULL;

	while (v) {
		if (v->end > addr) {
			best = v;
			if (v->start <= addr)
				break;
			v = RB_LEFT(v, node);
		} else {
			v = RB_RIGHT(v, node);
		}
	}
	return best;
}

struct vma *vma_at(const struct mm *mm, uint64_t addr)
{
	struct vma *v = vma_find(mm, addr);

	return v && v->start <= addr ? v : NULL;
}

struct vma *vma_overlap(const struct mm *mm, uint64_t start, uint64_t end)
{
	struct vma *v = vma_find(mm, start);

	return v && v->start < end ? v : NULL;
}

struct vma *vma_first(const struct mm *mm)
{
	return RB_MIN(vma_tree, tree_of(mm));
}

struct vma *vma_next(struct vma *v)
{
	return RB_NEXT(vma_tree, NULL, v);
}

struct vma *vma_prev(struct vma *v)
{
	return RB_PREV(vma_tree, NULL, v);
}

uint64_t vma_count_pages(const struct mm *mm, uint64_t start, uint64_t end, uint64_t *ret_data)
{
	uint64_t n = 0, data = 0;

	for (struct vma *v = vma_find(mm, start); v && v->start < end; v = vma_next(v)) {
		uint64_t part = (MIN(v->end, end) - MAX(v->start, start)) >> PAGE_SHIFT;

		n += part;
		if (vma_is_data(v))
			data += part;
	}
	*ret_data = data;
	return n;
}

// --- accounting and references -----------------------------------------------------------------

static void account(struct mm *mm, const struct vma *v, uint64_t pages, bool add)
{
	uint64_t n = add ? pages : -pages;

	mm->vm_pages += n;
	if (vma_is_data(v))
		mm->data_pages += n;
	if (v->vm_flags & MM_VM_LOCKED)
		mm->locked_pages += n;
	if (mm->vm_pages > mm->peak_pages)
		mm->peak_pages = mm->vm_pages;
}

static void name_put(struct vma_name *n)
{
	if (n && ref_put(&n->refs))
		kfree(n);
}

struct vma *vma_new(uint64_t start, uint64_t end, uint32_t flags, struct mobj *obj, uint64_t off)
{
	struct vma *v = SLAB_NEW(vma_slab, struct vma);

	if (!v)
		return NULL;
	v->start = start;
	v->end = end;
	v->flags = flags;
	if (obj) {
		v->obj = mobj_get(obj);
		v->off = off;
		if (obj->ops->mapped)
			obj->ops->mapped(obj, v);
	}
	return v;
}

struct vma *vma_dup(const struct vma *v)
{
	struct vma *n = vma_new(v->start, v->end, v->flags, v->obj, v->off);

	if (!n)
		return NULL;
	n->vm_flags = v->vm_flags;
	n->prot = v->prot;
	n->max_prot = v->max_prot;
	n->name = v->name;
	if (n->name)
		ref_get(&n->name->refs);
	return n;
}

void vma_free(struct vma *v)
{
	struct mobj *obj = v->obj;

	if (obj && obj->ops->unmapped)
		obj->ops->unmapped(obj, v);
	name_put(v->name);
	slab_free(&vma_slab, v);
	mobj_put(obj);
}

void vma_free_list(struct vma *dead)
{
	while (dead) {
		struct vma *next = dead->dead_next;

		vma_free(dead);
		dead = next;
	}
}

void vma_link(struct mm *mm, struct vma *v)
{
	kassert(v->start < v->end && v->end <= PF_GUEST_TOP);
	v->sub_lo = vma_guard_start(v);
	v->sub_hi = v->end;
	v->sub_gap = 0;
	kassert(!RB_INSERT(vma_tree, tree_of(mm), v));
	augment_up_all(v);
	mm->map_count++;
	account(mm, v, vma_pages(v), true);
}

void vma_unlink(struct mm *mm, struct vma *v)
{
	struct vma *from = RB_PARENT(v, node);

	// The node that takes v's place comes from its right subtree; all that changes lies on the way up
	// from where that one was.
	if (RB_LEFT(v, node) && RB_RIGHT(v, node)) {
		struct vma *heir = RB_RIGHT(v, node);

		while (RB_LEFT(heir, node))
			heir = RB_LEFT(heir, node);
		from = RB_PARENT(heir, node) == v ? heir : RB_PARENT(heir, node);
	}
	RB_REMOVE(vma_tree, tree_of(mm), v);
	augment_up_all(from);
	mm->map_count--;
	account(mm, v, vma_pages(v), false);
}

void vma_set_bounds(struct mm *mm, struct vma *v, uint64_t start, uint64_t end)
{
	account(mm, v, vma_pages(v), false);
	if (v->obj)
		v->off += start - v->start;
	v->start = start;
	v->end = end;
	account(mm, v, vma_pages(v), true);
	augment_up(v);
}

void vma_set_prot(struct mm *mm, struct vma *v, int prot)
{
	account(mm, v, vma_pages(v), false);
	v->prot = (uint8_t)prot;
	account(mm, v, vma_pages(v), true);
}

void vma_set_vm_flags(struct mm *mm, struct vma *v, unsigned vm_flags)
{
	account(mm, v, vma_pages(v), false);
	v->vm_flags = (uint16_t)vm_flags;
	account(mm, v, vma_pages(v), true);
}

// --- splitting and merging ---------------------------------------------------------------------

int vma_split(struct mm *mm, struct vma *v, uint64_t at)
{
	struct vma *n = vma_dup(v);
	uint64_t end = v->end;

	if (!n)
		return -ENOMEM;
	kassert(at > v->start && at < end);
	n->start = at;
	if (n->obj)
		n->off += at - v->start;
	vma_set_bounds(mm, v, v->start, at);
	vma_link(mm, n);
	return 0;
}

bool vma_mergeable(const struct vma *lower, const struct vma *upper)
{
	return lower->end == upper->start && lower->obj == upper->obj && lower->prot == upper->prot &&
	       lower->flags == upper->flags && lower->vm_flags == upper->vm_flags &&
	       lower->max_prot == upper->max_prot && lower->name == upper->name &&
	       (!lower->obj || lower->off + (lower->end - lower->start) == upper->off);
}

struct vma *vma_merge(struct mm *mm, struct vma *v)
{
	struct vma *n = vma_next(v), *p;

	if (n && vma_mergeable(v, n)) {
		uint64_t end = n->end;

		vma_unlink(mm, n);
		vma_set_bounds(mm, v, v->start, end);
		vma_free(n);
	}
	p = vma_prev(v);
	if (p && vma_mergeable(p, v)) {
		uint64_t end = v->end;

		vma_unlink(mm, v);
		vma_set_bounds(mm, p, p->start, end);
		vma_free(v);
		v = p;
	}
	return v;
}

struct vma *vma_add(struct mm *mm, struct vma *v)
{
	struct vma *n = vma_find(mm, v->start), *p = n ? vma_prev(n) : RB_MAX(vma_tree, tree_of(mm));
	uint64_t start = v->start, end = v->end;

	kassert_debug(!n || n->start >= end);
	if (p && vma_mergeable(p, v)) {
		vma_free(v);
		vma_set_bounds(mm, p, p->start, end);
		return n && vma_mergeable(p, n) ? vma_merge(mm, p) : p;
	}
	if (n && vma_mergeable(v, n)) {
		vma_free(v);
		vma_set_bounds(mm, n, start, n->end);
		return n;
	}
	vma_link(mm, v);
	return v;
}

int vma_isolate(struct mm *mm, uint64_t start, uint64_t end)
{
	struct vma *v = vma_at(mm, start);

	if (v && v->start < start && vma_split(mm, v, start) < 0)
		return -ENOMEM;
	v = vma_at(mm, end);
	if (v && v->start < end && vma_split(mm, v, end) < 0)
		return -ENOMEM;
	return 0;
}

int vma_clear(struct mm *mm, uint64_t start, uint64_t end, struct vma **dead)
{
	struct vma *v = vma_overlap(mm, start, end), *next;

	// Only a hole inside one VMA needs memory; that is also the whole of the work then.
	if (v && v->start < start && v->end > end && vma_split(mm, v, end) < 0)
		return -ENOMEM;
	for (; v && v->start < end; v = next) {
		next = vma_next(v);
		if (v->start < start) {
			vma_set_bounds(mm, v, v->start, start);
		} else if (v->end > end) {
			vma_set_bounds(mm, v, end, v->end);
		} else {
			vma_unlink(mm, v);
			v->dead_next = *dead;
			*dead = v;
		}
	}
	return 0;
}

// --- free places -------------------------------------------------------------------------------

struct gap_search {
	uint64_t lo, hi, len;
	uint64_t found;
};

// Looks for a gap in and around the subtree of v, which lies in (glo, ghi). At most two ways down
// the tree are clipped by lo or hi; everywhere else sub_gap decides, so this is O(log n).
static bool gap_walk(const struct vma *v, uint64_t glo, uint64_t ghi, bool top_down, struct gap_search *s)
{
	uint64_t lo = MAX(glo, s->lo), hi = MIN(ghi, s->hi);

	if (hi < lo || hi - lo < s->len)
		return false;
	if (!v) {
		s->found = top_down ? hi - s->len : lo;
		return true;
	}
	if (v->sub_gap < s->len && gap_between(glo, v->sub_lo) < s->len && gap_between(v->sub_hi, ghi) < s->len)
		return false;
	if (top_down)
		return gap_walk(RB_RIGHT(v, node), v->end, ghi, true, s) ||
		       gap_walk(RB_LEFT(v, node), glo, vma_guard_start(v), true, s);
	return gap_walk(RB_LEFT(v, node), glo, vma_guard_start(v), false, s) ||
	       gap_walk(RB_RIGHT(v, node), v->end, ghi, false, s);
}

uint64_t vma_find_gap(const struct mm *mm, uint64_t lo, uint64_t hi, uint64_t len, bool top_down)
{
	struct gap_search s = {.lo = MAX(lo, PF_GUEST_MIN), .hi = MIN(hi, PF_GUEST_TOP), .len = len};

	return gap_walk(RB_ROOT(tree_of(mm)), 0, PF_GUEST_TOP, top_down, &s) ? s.found : 0;
}
