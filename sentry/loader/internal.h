// The loader's own parts: parsing (knows no file and no address space), mapping, the first stack.
#pragma once
#include <elf.h>

#include "platform/base/base.h"
#include "sentry/loader/loader.h"

#define HEAD_SIZE 256 // BINPRM_BUF_SIZE: what decides the format, and the longest #! line
#define PHDRS_MAX (65536 / sizeof(Elf64_Phdr))

// Reads n bytes at off into kernel memory: bytes read (short at the end of the file) or -errno.
typedef ssize_t (*elf_read_fn)(void *arg, void *buf, size_t n, uint64_t off);

// --- elf.c: a checked ELF file ------------------------------------------------------------------
struct elf_load {
	uint64_t vaddr, memsz, off, filesz; // as in the file; within bounds, congruent modulo a page
	int prot;
};
struct elf_image {
	refcount_t refs;
	bool dyn, exec_stack;  // ET_DYN; PT_GNU_STACK asks for an executable stack
	uint64_t entry, phoff; // unrelocated
	uint64_t phdr_vaddr;   // where the program headers are in memory; 0: not loaded
	uint16_t phnum;
	uint64_t lo, hi;       // page-aligned extent of all segments, unrelocated
	uint64_t align;        // what the base must be a multiple of; at least a page
	uint64_t start_code, end_code, start_data, end_data, brk;
	char *interp;          // PT_INTERP; NULL: none
	unsigned nloads;
	struct elf_load loads[];
};
// head: the first bytes of a file of size bytes. A reference to ret. -ENOEXEC, -EINVAL, -EFAULT, -EIO, -ENOMEM.
int elf_parse(const void *head, size_t head_len, uint64_t size, elf_read_fn read, void *arg, struct elf_image **ret);
void elf_put(struct elf_image *e); // NULL is fine
bool elf_is(const void *head, size_t len);

// --- map.c --------------------------------------------------------------------------------------
// Maps every segment, its addresses moved by bias. -errno leaves part of them mapped.
int elf_map(struct mm *mm, struct pf_ctx *ctx, const struct elf_image *e, struct mobj *obj, uint64_t bias);
// Where an image may go: its bias. 0 or -ENOMEM. main_pie: the region for programs, not that for libraries.
int elf_place(struct mm *mm, const struct elf_image *e, bool main_pie, uint64_t *ret_bias);

// --- script.c -----------------------------------------------------------------------------------
// Splits a "#!" line. interp and arg (NULL: none) point into buf, which is changed and ends with a NUL
// beyond len. -ENOEXEC.
int script_parse(char *buf, size_t len, char **ret_interp, char **ret_arg);

// --- stack.c ------------------------------------------------------------------------------------
#define LEAD_MAX 16
struct args { // argv = lead[0..nlead) and then the request's strings after the first `skip`
	const char *lead[LEAD_MAX];
	unsigned nlead, skip;
	unsigned argc; // with lead
};
struct stack_image { // what goes where; computed before anything is mapped
	uint64_t entry, phdr, phnum, base; // auxiliary vector
	struct loader_identity id;
	bool exec;
};
// Maps the stack and writes arguments, environment and auxiliary vector. *ret_sp: the stack pointer.
int stack_build(struct mm *mm, struct pf_ctx *ctx, const struct loader_request *req, const struct args *a,
		const struct stack_image *si, uint64_t *ret_sp);
int args_check(const struct loader_request *req, const struct args *a); // -E2BIG, -EINVAL
