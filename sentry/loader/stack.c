// The first stack of a program: strings, auxiliary vector, pointers (System V ABI, getauxval(3)).
#include "platform/base/random.h"
#include "platform/base/slab.h"
#include "platform/platform.h"
#include "sentry/loader/internal.h"

#include <sys/auxv.h>
#include <sys/mman.h>

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif
#define STACK_RESERVE (8UL << 20) // mapped at once; beyond it mm_fault_grow() takes over
#define STACK_SLACK (128UL << 10) // room below the arguments, whatever the limit says
#define STK_LIM (8UL << 20)
#define ARG_MIN (128UL << 10)
#define PLATFORM "x86_64"

uint64_t loader_arg_limit(uint64_t rlimit_stack)
{
	uint64_t limit = MIN(STK_LIM / 4 * 3, rlimit_stack / 4);

	return MAX(limit, ARG_MIN);
}

// Bytes of argv's strings that come from the request's strings: those after the first `skip`.
static size_t skipped(const struct loader_request *req, const struct args *a)
{
	size_t at = 0;

	for (unsigned i = 0; i < a->skip; i++)
		at += strlen(req->strings + at) + 1;
	return at;
}

static size_t lead_len(const struct args *a)
{
	size_t n = 0;

	for (unsigned i = 0; i < a->nlead; i++)
		n += strlen(a->lead[i]) + 1;
	return n;
}

// The packed strings are the caller's own copy, but their counts are checked all the same.
int args_check(const struct loader_request *req, const struct args *a)
{
	uint64_t limit = loader_arg_limit(req->lim.stack);
	uint64_t ptrs = ((uint64_t)MAX(a->argc, 1U) + req->envc) * 8;
	uint64_t n = 0, strings;
	const char *p = req->strings, *end = p + req->strings_len;

	while (p < end) {
		const char *nul = memchr(p, 0, (size_t)(end - p));

		if (!nul)
			return -EINVAL;
		if ((size_t)(nul - p) >= LOADER_MAX_STR)
			return -E2BIG;
		p = nul + 1;
		n++;
	}
	if (n != (uint64_t)req->argc + req->envc || a->skip > req->argc)
		return -EINVAL;
	strings = req->strings_len - skipped(req, a) + lead_len(a) + strlen(req->filename) + 1;
	if (limit <= ptrs || strings > limit - ptrs)
		return -E2BIG;
	return 0;
}

struct auxv {
	uint64_t v[64];
	unsigned n;
};

static void aux(struct auxv *x, uint64_t type, uint64_t val)
{
	x->v[x->n++] = type;
	x->v[x->n++] = val;
}

// In Linux's order. execfn, random and platform are addresses of theirs.
static void aux_fill(struct auxv *x, const struct loader_request *req, const struct stack_image *si, uint64_t execfn,
		     uint64_t random, uint64_t platform)
{
	uint64_t start, end, vdso = pf_vdso(req->pf, &start, &end);

	if (vdso)
		aux(x, AT_SYSINFO_EHDR, vdso);
	if (getauxval(AT_MINSIGSTKSZ))
		aux(x, AT_MINSIGSTKSZ, getauxval(AT_MINSIGSTKSZ));
	aux(x, AT_HWCAP, getauxval(AT_HWCAP));
	aux(x, AT_PAGESZ, PAGE_SIZE);
	aux(x, AT_CLKTCK, 100);
	aux(x, AT_PHDR, si->phdr);
	aux(x, AT_PHENT, sizeof(Elf64_Phdr));
	aux(x, AT_PHNUM, si->phnum);
	aux(x, AT_BASE, si->base);
	aux(x, AT_FLAGS, 0);
	aux(x, AT_ENTRY, si->entry);
	aux(x, AT_UID, si->id.uid);
	aux(x, AT_EUID, si->id.euid);
	aux(x, AT_GID, si->id.gid);
	aux(x, AT_EGID, si->id.egid);
	aux(x, AT_SECURE, si->id.secure);
	aux(x, AT_RANDOM, random);
	aux(x, AT_HWCAP2, getauxval(AT_HWCAP2));
	aux(x, AT_EXECFN, execfn);
	aux(x, AT_PLATFORM, platform);
	aux(x, AT_NULL, 0);
}

// Where everything is, from the top down:
//	8 zero bytes, filename, environment, arguments   (the strings)
//	up to 8 KiB at random, the platform's name, 16 random bytes
//	auxiliary vector, envp, argv, argc   (sp)
struct layout {
	uint64_t top, execfn, env, arg, strings;
	uint64_t platform, random, tables, sp;
	size_t lead, skip, ntables;
};

static void lay_out(struct layout *l, const struct mm *mm, const struct loader_request *req, const struct args *a, unsigned naux)
{
	size_t rest;

	l->top = mm->stack_top;
	l->execfn = l->top - 8 - (strlen(req->filename) + 1);
	l->skip = skipped(req, a);
	l->lead = lead_len(a);
	rest = req->strings_len - l->skip;
	l->arg = l->execfn - rest - l->lead;
	l->strings = l->arg;
	l->platform = l->arg - (mm->no_aslr ? 0 : random_below(8192));
	l->platform = ((l->platform & ~15UL) - sizeof(PLATFORM)) & ~15UL;
	l->random = l->platform - 16;
	l->ntables = 1 + a->argc + 1 + req->envc + 1 + naux;
	l->sp = (l->random - l->ntables * 8) & ~15UL;
}

static int map_stack(struct mm *mm, struct pf_ctx *ctx, const struct layout *l, bool exec)
{
	uint64_t least = PAGE_UP(l->top - l->sp) + STACK_SLACK, size, room = PAGE_DOWN(mm->lim.stack);
	int prot = PROT_READ | PROT_WRITE | (exec ? PROT_EXEC : 0);
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN;
	int64_t r;

	size = MAX(least, MIN(room, STACK_RESERVE));
	r = mm_mmap(mm, ctx, l->top - size, size, prot, flags, NULL, 0);
	if (r == -ENOMEM && size > least) // a tight RLIMIT_AS
		r = mm_mmap(mm, ctx, l->top - least, least, prot, flags, NULL, 0);
	return r < 0 ? (int)r : 0;
}

// Pointers to n strings from `at` on; *addr is where the first one is.
static const char *point_at(uint64_t **t, const char *at, unsigned n, uint64_t *addr)
{
	for (unsigned i = 0; i < n; i++) {
		size_t len = strlen(at) + 1;

		*(*t)++ = *addr;
		*addr += len;
		at += len;
	}
	return at;
}

// argc, argv, envp, auxv; returns where the environment's strings begin.
static void fill_tables(uint64_t *t, struct layout *l, const struct loader_request *req, const struct args *a, const struct auxv *x)
{
	uint64_t addr = l->arg;
	const char *rest = req->strings + l->skip;

	*t++ = a->argc;
	for (unsigned i = 0; i < a->nlead; i++)
		point_at(&t, a->lead[i], 1, &addr);
	rest = point_at(&t, rest, req->argc - a->skip, &addr);
	*t++ = 0;
	l->env = addr;
	point_at(&t, rest, req->envc, &addr);
	*t++ = 0;
	memcpy(t, x->v, x->n * sizeof(x->v[0]));
}

static void fill_strings(char *p, const struct layout *l, const struct loader_request *req, const struct args *a)
{
	size_t rest = req->strings_len - l->skip;

	for (unsigned i = 0; i < a->nlead; i++)
		p = stpcpy(p, a->lead[i]) + 1;
	memcpy(p, req->strings + l->skip, rest);
	memcpy(p + rest, req->filename, strlen(req->filename) + 1);
}

int stack_build(struct mm *mm, struct pf_ctx *ctx, const struct loader_request *req, const struct args *a,
		const struct stack_image *si, uint64_t *ret_sp)
{
	struct auxv x = {0};
	struct layout l = {0};
	size_t nstrings, ntables;
	char *buf;
	int r;

	aux_fill(&x, req, si, 0, 0, 0); // how many
	lay_out(&l, mm, req, a, x.n);
	x.n = 0;
	aux_fill(&x, req, si, l.execfn, l.random, l.platform);
	nstrings = l.top - l.strings;
	ntables = l.platform + sizeof(PLATFORM) - l.sp;
	buf = kalloc(nstrings + ntables);
	if (!buf)
		return -ENOMEM;
	fill_tables((uint64_t *)buf, &l, req, a, &x);
	random_bytes(buf + (l.random - l.sp), 16);
	memcpy(buf + (l.platform - l.sp), PLATFORM, sizeof(PLATFORM));
	fill_strings(buf + ntables, &l, req, a);
	r = map_stack(mm, ctx, &l, si->exec);
	if (r == 0)
		r = copy_out_ctx(ctx, GADDR(l.sp), buf, ntables);
	if (r == 0)
		r = copy_out_ctx(ctx, GADDR(l.strings), buf + ntables, nstrings);
	kfree(buf);
	if (r < 0)
		return r;
	mm->start_stack = l.sp;
	mm->arg_start = l.arg;
	mm->arg_end = mm->env_start = l.env;
	mm->env_end = l.execfn;
	memcpy(mm->auxv, x.v, sizeof(mm->auxv));
	mm->nauxv = x.n;
	*ret_sp = l.sp;
	return 0;
}
