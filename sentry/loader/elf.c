// ELF64 headers, checked in full (elf(5), and what Linux's binfmt_elf insists on).
#include "platform/base/assert.h"
#include "platform/base/checked.h"
#include "platform/base/slab.h"
#include "platform/platform.h"
#include "sentry/loader/internal.h"

#include <limits.h>
#include <sys/mman.h>

bool elf_is(const void *head, size_t len)
{
	return len >= SELFMAG && memcmp(head, ELFMAG, SELFMAG) == 0;
}

static int check_ehdr(const Elf64_Ehdr *h)
{
	if (memcmp(h->e_ident, ELFMAG, SELFMAG) != 0 || h->e_ident[EI_CLASS] != ELFCLASS64 || h->e_ident[EI_DATA] != ELFDATA2LSB)
		return -ENOEXEC;
	if ((h->e_type != ET_EXEC && h->e_type != ET_DYN) || h->e_machine != EM_X86_64)
		return -ENOEXEC;
	if (h->e_phentsize != sizeof(Elf64_Phdr) || h->e_phnum == 0 || h->e_phnum > PHDRS_MAX)
		return -ENOEXEC;
	if (h->e_phoff > INT64_MAX - 65536)
		return -ENOEXEC;
	return 0;
}

static int read_all(elf_read_fn read, void *arg, void *buf, size_t n, uint64_t off)
{
	ssize_t r = read(arg, buf, n, off);

	if (r < 0)
		return (int)r;
	return (size_t)r == n ? 0 : -ENOEXEC;
}

static int prot_of(uint32_t flags)
{
	return (flags & PF_R ? PROT_READ : 0) | (flags & PF_W ? PROT_WRITE : 0) | (flags & PF_X ? PROT_EXEC : 0);
}

// One PT_LOAD. Sums of its numbers are safe after this.
static int check_load(const Elf64_Phdr *p, bool dyn, uint64_t size)
{
	uint64_t end;

	if (p->p_filesz > p->p_memsz || p->p_memsz > PF_GUEST_TOP || p->p_vaddr > PF_GUEST_TOP - p->p_memsz)
		return -EINVAL;
	if (!add_u64(p->p_offset, p->p_filesz, &end) || end > INT64_MAX - PAGE_SIZE)
		return -EINVAL;
	if (p->p_filesz && PAGE_OFF(p->p_vaddr) != PAGE_OFF(p->p_offset))
		return -EINVAL;
	if (!dyn && p->p_vaddr < PF_GUEST_MIN)
		return -EPERM;
	// The rest of the last page is going to be zeroed, so the file must reach into it.
	if ((p->p_flags & PF_W) && p->p_memsz > p->p_filesz && PAGE_OFF(p->p_offset + p->p_filesz) && PAGE_DOWN(end) >= size)
		return -EFAULT;
	return 0;
}

static int take_load(struct elf_image *e, const Elf64_Phdr *p, uint64_t size)
{
	struct elf_load *l = &e->loads[e->nloads];
	uint64_t file_end = p->p_vaddr + p->p_filesz, mem_end = p->p_vaddr + p->p_memsz;
	int r = check_load(p, e->dyn, size);

	if (r < 0)
		return r;
	if (p->p_memsz == 0)
		return 0;
	*l = (struct elf_load){.vaddr = p->p_vaddr, .memsz = p->p_memsz, .off = p->p_offset, .filesz = p->p_filesz, .prot = prot_of(p->p_flags)};
	if (e->nloads == 0) {
		e->lo = PAGE_DOWN(p->p_vaddr);
		e->start_code = p->p_vaddr;
	}
	e->nloads++;
	e->lo = MIN(e->lo, PAGE_DOWN(p->p_vaddr));
	e->hi = MAX(e->hi, PAGE_UP(mem_end));
	if (p->p_align > PAGE_SIZE && (p->p_align & (p->p_align - 1)) == 0)
		e->align = MAX(e->align, p->p_align);
	if (p->p_offset <= e->phoff && e->phoff < p->p_offset + p->p_filesz)
		e->phdr_vaddr = e->phoff - p->p_offset + p->p_vaddr;
	if (p->p_flags & PF_X) {
		e->start_code = MIN(e->start_code, p->p_vaddr);
		e->end_code = MAX(e->end_code, file_end);
	}
	e->start_data = MAX(e->start_data, p->p_vaddr);
	e->end_data = MAX(e->end_data, file_end);
	e->brk = MAX(e->brk, mem_end);
	return 0;
}

static int take_interp(struct elf_image *e, const Elf64_Phdr *p, elf_read_fn read, void *arg)
{
	int r;

	if (e->interp)
		return -EINVAL;
	if (p->p_filesz < 2 || p->p_filesz > PATH_MAX || p->p_offset > INT64_MAX - PATH_MAX)
		return -ENOEXEC;
	e->interp = kalloc(p->p_filesz);
	if (!e->interp)
		return -ENOMEM;
	r = read_all(read, arg, e->interp, p->p_filesz, p->p_offset);
	if (r < 0)
		return r == -ENOEXEC ? -EIO : r;
	return e->interp[p->p_filesz - 1] == 0 && e->interp[0] ? 0 : -ENOEXEC;
}

static int take_phdrs(struct elf_image *e, const Elf64_Phdr *ph, uint64_t size, elf_read_fn read, void *arg)
{
	int r = 0;

	for (unsigned i = 0; i < e->phnum && r == 0; i++) {
		switch (ph[i].p_type) {
		case PT_LOAD:
			r = take_load(e, &ph[i], size);
			break;
		case PT_INTERP:
			r = take_interp(e, &ph[i], read, arg);
			break;
		case PT_GNU_STACK:
			e->exec_stack = (ph[i].p_flags & PF_X) != 0;
			break;
		default:
			break;
		}
	}
	if (r == 0 && e->nloads == 0)
		r = -ENOEXEC;
	// The base of a PIE is aligned; a segment's alignment must leave room for that.
	if (r == 0 && (e->align > PF_GUEST_TOP / 4 || e->hi > PF_GUEST_TOP))
		r = -ENOEXEC;
	return r;
}

int elf_parse(const void *head, size_t head_len, uint64_t size, elf_read_fn read, void *arg, struct elf_image **ret)
{
	struct elf_image *e;
	Elf64_Phdr *ph;
	Elf64_Ehdr h;
	int r;

	if (head_len < sizeof(h))
		return -ENOEXEC;
	memcpy(&h, head, sizeof(h));
	r = check_ehdr(&h);
	if (r < 0)
		return r;
	e = kalloc(sizeof(*e) + h.e_phnum * sizeof(e->loads[0]));
	ph = kalloc(h.e_phnum * sizeof(*ph));
	if (!e || !ph) {
		kfree(e);
		kfree(ph);
		return -ENOMEM;
	}
	ref_init(&e->refs, 1);
	e->dyn = h.e_type == ET_DYN;
	e->entry = h.e_entry;
	e->phoff = h.e_phoff;
	e->phnum = h.e_phnum;
	e->align = PAGE_SIZE;
	r = read_all(read, arg, ph, h.e_phnum * sizeof(*ph), h.e_phoff);
	if (r == 0)
		r = take_phdrs(e, ph, size, read, arg);
	kfree(ph);
	if (r < 0) {
		elf_put(e);
		return r;
	}
	*ret = e;
	return 0;
}

void elf_put(struct elf_image *e)
{
	if (!e || !ref_put(&e->refs))
		return;
	kfree(e->interp);
	kfree(e);
}
