// A checked image into an address space: few operations, since each costs the new process time.
#include "platform/base/random.h"
#include "platform/platform.h"
#include "sentry/loader/internal.h"
#include "sentry/uaccess/uaccess.h"

#include <sys/mman.h>

int elf_place(struct mm *mm, const struct elf_image *e, bool main_pie, uint64_t *ret_bias)
{
	uint64_t span = e->hi - e->lo, at;

	if (!e->dyn) {
		*ret_bias = 0;
		return 0;
	}
	at = main_pie ? mm->pie_base & ~(e->align - 1) : 0;
	if (!at || span > mm->mmap_base || at > mm->mmap_base - span)
		at = mm_find_free(mm, span, e->align);
	if (!at)
		return -ENOMEM;
	*ret_bias = at - e->lo;
	return 0;
}

// The file's pages of [from, to) segments that lie side by side in the file and in memory.
static unsigned group_end(const struct elf_image *e, unsigned i)
{
	unsigned k = i + 1;

	for (; k < e->nloads; k++) {
		const struct elf_load *a = &e->loads[k - 1], *b = &e->loads[k];

		if (!a->filesz || !b->filesz || a->filesz != a->memsz || (a->prot & PROT_WRITE) || (b->prot & PROT_WRITE) ||
		    a->vaddr - a->off != b->vaddr - b->off || PAGE_UP(a->vaddr + a->filesz) != PAGE_DOWN(b->vaddr))
			break;
	}
	return k;
}

// What memory has beyond the file: zeroes to the end of the page, then anonymous pages.
static int map_bss(struct mm *mm, struct pf_ctx *ctx, const struct elf_load *l, uint64_t bias)
{
	uint64_t file_end = bias + l->vaddr + l->filesz, end = bias + l->vaddr + l->memsz;
	uint64_t page = l->filesz ? PAGE_UP(file_end) : PAGE_DOWN(file_end);
	int64_t r;

	if (l->memsz == l->filesz)
		return 0;
	if (l->filesz && page > file_end && (l->prot & PROT_WRITE)) {
		r = copy_out_ctx(ctx, GADDR(file_end), NULL, page - file_end);
		if (r < 0)
			return (int)r;
	}
	end = PAGE_UP(end);
	if (end <= page)
		return 0;
	r = mm_mmap(mm, ctx, page, end - page, l->prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, NULL, 0);
	return r < 0 ? (int)r : 0;
}

// Neighbouring read-only segments are one mapping of the file with protections put on parts of it:
// every descriptor that goes to the new process costs more than a protection.
static int map_group(struct mm *mm, struct pf_ctx *ctx, const struct elf_image *e, unsigned from, unsigned to,
		     struct mobj *obj, uint64_t bias)
{
	const struct elf_load *first = &e->loads[from], *last = &e->loads[to - 1];
	uint64_t start = PAGE_DOWN(bias + first->vaddr), end = PAGE_UP(bias + last->vaddr + last->filesz);
	int64_t r = mm_mmap(mm, ctx, start, end - start, first->prot, MAP_PRIVATE | MAP_FIXED, obj, PAGE_DOWN(first->off));

	for (unsigned i = from + 1; i < to && r >= 0; i++) {
		const struct elf_load *l = &e->loads[i];
		uint64_t a = PAGE_DOWN(bias + l->vaddr), b = PAGE_UP(bias + l->vaddr + l->filesz);

		if (l->prot != first->prot)
			r = mm_mprotect(mm, ctx, a, b - a, l->prot);
	}
	return r < 0 ? (int)r : 0;
}

int elf_map(struct mm *mm, struct pf_ctx *ctx, const struct elf_image *e, struct mobj *obj, uint64_t bias)
{
	int r = 0;

	for (unsigned i = 0, k; i < e->nloads && r == 0; i = k) {
		k = i + 1;
		if (e->loads[i].filesz) {
			k = group_end(e, i);
			r = map_group(mm, ctx, e, i, k, obj, bias);
		}
		if (r == 0)
			r = map_bss(mm, ctx, &e->loads[k - 1], bias);
	}
	return r;
}
