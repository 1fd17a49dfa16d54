// The text of /proc/PID/maps and smaps (proc(5)).
#include <stdarg.h>
#include <stdio.h>

#include "sentry/mm/mm.h"
#include "sentry/mm/vma.h"

#define NAME_COLUMN 73
#define PATH_ROOM 4096

struct text {
	char *buf;
	size_t size, len;
	bool full;
};

static void text_add(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void text_add(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (t->full)
		return;
	va_start(ap, fmt);
	n = vsnprintf(t->buf + t->len, t->size - t->len, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= t->size - t->len)
		t->full = true;
	else
		t->len += (size_t)n;
}

// A new line in a file name would look like another mapping.
static void text_add_path(struct text *t, const char *s)
{
	for (; *s; s++)
		text_add(t, *s == '\n' ? "\\012" : "%c", *s);
}

// The mappings in order: the tree, then what the host put above it.
static bool next_mapping(struct mm *mm, uint64_t addr, struct vma_info *ret)
{
	uint64_t start = 0, end = 0, vdso;

	if (mm_next_vma(mm, addr, ret))
		return true;
	vdso = mm->as ? pf_vdso(mm->as->pf, &start, &end) : 0;
	if (!vdso || start >= end)
		return false;
	*ret = (struct vma_info){.flags = MAP_PRIVATE, .prot = PROT_READ, .vm_flags = MM_VM_DONTDUMP};
	if (start < vdso && addr < vdso) {
		ret->start = start;
		ret->end = vdso;
		ret->name = "[vvar]";
		return true;
	}
	if (addr >= end)
		return false;
	ret->start = vdso;
	ret->end = end;
	ret->prot = PROT_READ | PROT_EXEC;
	ret->vm_flags = 0;
	ret->name = "[vdso]";
	return true;
}

static void map_line(struct text *t, const struct vma_info *i)
{
	uint64_t dev = 0, ino = 0;
	char path[PATH_ROOM];
	size_t from = t->len;
	const char *name = i->name ? i->name : "";
	bool is_path = false;

	if (i->obj) {
		path[0] = 0;
		if (i->obj->ops->describe)
			i->obj->ops->describe(i->obj, path, sizeof(path), &dev, &ino);
		path[sizeof(path) - 1] = 0;
		if (!*name) {
			name = path;
			is_path = true;
		}
	}
	text_add(t, "%08lx-%08lx %c%c%c%c %08lx %02x:%02x %lu ", i->start, i->end, i->prot & PROT_READ ? 'r' : '-',
		 i->prot & PROT_WRITE ? 'w' : '-', i->prot & PROT_EXEC ? 'x' : '-', i->flags & MAP_SHARED ? 's' : 'p', i->off,
		 (unsigned)(dev >> 8 & 0xfff), (unsigned)((dev & 0xff) | (dev >> 12 & 0xfff00)), ino);
	if (*name) {
		size_t col = t->len - from;

		text_add(t, "%*s", col < NAME_COLUMN ? (int)(NAME_COLUMN - col) : 0, "");
		if (is_path)
			text_add_path(t, name);
		else
			text_add(t, "%s", name);
	}
	text_add(t, "\n");
}

ssize_t mm_maps_next(struct mm *mm, uint64_t *pos, char *buf, size_t size)
{
	struct text t = {.buf = buf, .size = size};
	struct vma_info i;

	if (!next_mapping(mm, *pos, &i))
		return 0;
	map_line(&t, &i);
	if (t.full)
		return -ENOSPC;
	*pos = i.end;
	return (ssize_t)t.len;
}

// --- resident sizes ----------------------------------------------------------------------------

// Pages of the mapping that may be resident, as mm_rss_pages() explains.
static uint64_t resident_pages(const struct mm *mm, const struct vma_info *i)
{
	uint64_t start = i->start;

	if (i->start >= PF_GUEST_TOP)
		return 0;
	if (i->prot == PROT_NONE || (i->vm_flags & MM_VM_NORESERVE))
		return 0;
	if ((i->flags & MAP_GROWSDOWN) && mm->start_stack > i->start && mm->start_stack < i->end)
		start = PAGE_DOWN(mm->start_stack);
	return (i->end - start) >> PAGE_SHIFT;
}

uint64_t mm_rss_pages(struct mm *mm, uint64_t *ret_shared)
{
	uint64_t n = 0, shared = 0, pages;
	struct vma_info i;

	for (uint64_t at = 0; mm_next_vma(mm, at, &i); at = i.end) {
		if (!(i.flags & MAP_SHARED) && !(i.prot & (PROT_WRITE | PROT_EXEC)))
			continue;
		pages = resident_pages(mm, &i);
		n += pages;
		if (i.flags & MAP_SHARED || (i.obj && !(i.prot & PROT_WRITE)))
			shared += pages;
	}
	if (ret_shared)
		*ret_shared = shared;
	return n;
}

static void vm_flags_line(struct text *t, const struct vma_info *i)
{
	static const struct { unsigned bit; const char *s; } names[] = {
		{MM_VM_LOCKED, "lo"}, {MM_VM_DONTFORK, "dc"}, {MM_VM_NORESERVE, "nr"}, {MM_VM_WIPEONFORK, "wf"},
		{MM_VM_DONTDUMP, "dd"}, {MM_VM_HUGEPAGE, "hg"}, {MM_VM_NOHUGEPAGE, "nh"}, {MM_VM_MERGEABLE, "mg"},
	};
	bool shared = i->flags & MAP_SHARED;

	text_add(t, "VmFlags: %s%s%s%smr mw me %s%s", i->prot & PROT_READ ? "rd " : "", i->prot & PROT_WRITE ? "wr " : "",
		 i->prot & PROT_EXEC ? "ex " : "", shared ? "sh " : "", shared ? "ms " : "", i->flags & MAP_GROWSDOWN ? "gd " : "");
	if (i->vm_flags & MM_VM_ACCOUNT)
		text_add(t, "ac ");
	for (size_t k = 0; k < ARRAY_SIZE(names); k++)
		if (i->vm_flags & names[k].bit)
			text_add(t, "%s ", names[k].s);
	text_add(t, "\n");
}

ssize_t mm_smaps_next(struct mm *mm, uint64_t *pos, char *buf, size_t size)
{
	static const char *const zero1[] = {"KSM", "LazyFree", "AnonHugePages", "ShmemPmdMapped", "FilePmdMapped",
					    "Shared_Hugetlb", "Private_Hugetlb", "Swap", "SwapPss"};
	struct text t = {.buf = buf, .size = size};
	struct vma_info i;
	uint64_t rss, clean, anon;

	if (!next_mapping(mm, *pos, &i))
		return 0;
	map_line(&t, &i);
	rss = resident_pages(mm, &i) * 4;
	clean = i.obj && !(i.prot & PROT_WRITE) ? rss : 0;
	anon = !i.obj || (!(i.flags & MAP_SHARED) && !clean) ? rss : 0;
	text_add(&t, "%-16s%8lu kB\n%-16s%8d kB\n%-16s%8d kB\n", "Size:", (i.end - i.start) >> 10, "KernelPageSize:", 4, "MMUPageSize:", 4);
	text_add(&t, "%-16s%8lu kB\n%-16s%8lu kB\n%-16s%8lu kB\n", "Rss:", rss, "Pss:", rss, "Pss_Dirty:", rss - clean);
	text_add(&t, "%-16s%8d kB\n%-16s%8d kB\n", "Shared_Clean:", 0, "Shared_Dirty:", 0);
	text_add(&t, "%-16s%8lu kB\n%-16s%8lu kB\n", "Private_Clean:", clean, "Private_Dirty:", rss - clean);
	text_add(&t, "%-16s%8lu kB\n%-16s%8lu kB\n", "Referenced:", rss, "Anonymous:", anon);
	for (size_t k = 0; k < ARRAY_SIZE(zero1); k++)
		text_add(&t, "%s:%*d kB\n", zero1[k], (int)(23 - strlen(zero1[k])), 0);
	text_add(&t, "%-16s%8lu kB\n", "Locked:", i.vm_flags & MM_VM_LOCKED ? rss : 0);
	text_add(&t, "THPeligible:    %8d\n", i.start < PF_GUEST_TOP && (i.vm_flags & MM_VM_HUGEPAGE) ? 1 : 0);
	vm_flags_line(&t, &i);
	if (t.full)
		return -ENOSPC;
	*pos = i.end;
	return (ssize_t)t.len;
}
