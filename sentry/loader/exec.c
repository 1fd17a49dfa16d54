// execve(2)'s part that makes a new address space: formats, interpreters, the cache of headers.
#include <fcntl.h>
#include <sys/stat.h>

#include "platform/base/random.h"
#include "platform/base/slab.h"
#include "platform/platform.h"
#include "sentry/loader/internal.h"
#include "sentry/vfs/vfs.h"

#define SCRIPTS_MAX 5 // as Linux: the fifth nested script is one too many
#define CACHE_SIZE 32
#define BRK_RND (1UL << 30)

// --- headers, cached ---------------------------------------------------------------------------

// What was parsed stays true while the file is the same one, unchanged.
struct cached {
	struct super_block *sb; // compared, never followed
	uint64_t dev, ino, size, used;
	struct ktime mtime, ctime;
	struct elf_image *image; // owned; NULL: a free slot
};
static struct cached cache[CACHE_SIZE];
static uint64_t cache_clock;

static bool same_time(const struct ktime *a, const struct ktime *b)
{
	return a->sec == b->sec && a->nsec == b->nsec;
}

static struct cached *cache_find(const struct inode *i)
{
	for (size_t k = 0; k < CACHE_SIZE; k++) {
		struct cached *c = &cache[k];

		if (c->image && c->ino == i->ino && c->sb == i->sb && c->dev == i->sb->dev && c->size == i->size &&
		    same_time(&c->mtime, &i->mtime) && same_time(&c->ctime, &i->ctime)) {
			c->used = ++cache_clock;
			return c;
		}
	}
	return NULL;
}

static void cache_add(const struct inode *i, struct elf_image *e)
{
	struct cached *c = &cache[0];

	if (i->writers > 0)
		return; // about to change
	for (size_t k = 1; k < CACHE_SIZE && c->image; k++)
		if (!cache[k].image || cache[k].used < c->used)
			c = &cache[k];
	elf_put(c->image);
	ref_get(&e->refs);
	*c = (struct cached){.sb = i->sb, .dev = i->sb->dev, .ino = i->ino, .size = i->size, .used = ++cache_clock,
			     .mtime = i->mtime, .ctime = i->ctime, .image = e};
}

void loader_cache_drop(void)
{
	for (size_t k = 0; k < CACHE_SIZE; k++) {
		elf_put(cache[k].image);
		cache[k] = (struct cached){0};
	}
}

// --- opening and looking -----------------------------------------------------------------------

int loader_open(int dirfd, const char *path, unsigned walk_flags, struct file **ret)
{
	struct file *f;
	int r = vfs_openat(dirfd, path, O_RDONLY | VFS_O_EXEC, 0, walk_flags, &f);

	if (r < 0)
		return r;
	if (!S_ISREG(f->inode->mode)) {
		file_put(f);
		return -EACCES;
	}
	*ret = f;
	return 0;
}

static ssize_t read_file(void *arg, void *buf, size_t n, uint64_t off)
{
	return kernel_read(arg, buf, n, (int64_t)off);
}

// The parsed image of f, or -ENOEXEC with the file's first bytes in head. A reference to *ret.
static int get_image(struct file *f, char *head, size_t *ret_len, struct elf_image **ret)
{
	struct cached *c = cache_find(f->inode);
	ssize_t n;
	int r;

	*ret_len = 0;
	if (c) {
		ref_get(&c->image->refs);
		*ret = c->image;
		return 0;
	}
	n = kernel_read(f, head, HEAD_SIZE, 0);
	if (n < 0)
		return (int)n;
	*ret_len = (size_t)n;
	if (!elf_is(head, (size_t)n))
		return -ENOEXEC;
	r = elf_parse(head, (size_t)n, f->inode->size, read_file, f, ret);
	if (r == 0)
		cache_add(f->inode, *ret);
	return r;
}

// --- the program to run ------------------------------------------------------------------------

// What execve was asked for, resolved: the file that runs, its arguments, its ELF interpreter.
struct program {
	struct file *exe, *ld;            // references
	struct elf_image *image, *interp; // references
	struct args args;
	char *owned[LEAD_MAX];            // strings of args.lead that were made here
	unsigned nowned;
};

static void program_free(struct program *p)
{
	for (unsigned i = 0; i < p->nowned; i++)
		kfree(p->owned[i]);
	elf_put(p->image);
	elf_put(p->interp);
	file_put(p->exe);
	file_put(p->ld);
}

static char *own_string(struct program *p, const char *s)
{
	char *d = p->nowned < LEAD_MAX ? kstrdup(s) : NULL;

	if (d)
		p->owned[p->nowned++] = d;
	return d;
}

// argv becomes: interpreter, its argument, the script, and what followed argv[0].
static int push_script(struct program *p, const struct loader_request *req, const char *interp, const char *arg)
{
	struct args *a = &p->args;
	const char *lead[LEAD_MAX];
	unsigned n = 0;

	lead[n++] = own_string(p, interp);
	if (arg)
		lead[n++] = own_string(p, arg);
	if (a->nlead == 0) { // the script itself: argv[0] gives way to its path
		lead[n++] = req->filename;
		a->skip = MIN(req->argc, 1U);
	}
	for (unsigned i = 0; i < n; i++)
		if (!lead[i])
			return -ENOMEM;
	if (n + a->nlead > LEAD_MAX)
		return -ELOOP;
	memcpy(lead + n, a->lead, a->nlead * sizeof(lead[0]));
	a->nlead += n;
	memcpy(a->lead, lead, a->nlead * sizeof(lead[0]));
	a->argc = a->nlead + req->argc - a->skip;
	return 0;
}

static int find_program(const struct loader_request *req, struct program *p)
{
	char head[HEAD_SIZE + 1], *interp, *arg;
	size_t len;

	p->exe = file_get(req->file);
	p->args.argc = req->argc;
	if (req->argc == 0) { // nobody expects an empty argv
		p->args.lead[p->args.nlead++] = "";
		p->args.argc = 1;
	}
	for (unsigned depth = 0;; depth++) {
		struct file *next;
		int r = get_image(p->exe, head, &len, &p->image);

		if (r != -ENOEXEC || len == 0)
			return r;
		r = script_parse(head, len, &interp, &arg);
		if (r < 0)
			return r;
		if (req->path_inaccessible)
			return -ENOENT;
		if (depth + 1 > SCRIPTS_MAX)
			return -ELOOP;
		if (req->argc == 0 && depth == 0)
			p->args.nlead = 0;
		r = push_script(p, req, interp, arg);
		if (r == 0)
			r = loader_open(AT_FDCWD, interp, WALK_FOLLOW, &next);
		if (r < 0)
			return r;
		file_put(p->exe);
		p->exe = next;
	}
}

static int find_interp(struct program *p)
{
	char head[HEAD_SIZE];
	size_t len;
	int r;

	if (!p->image->interp)
		return 0;
	r = loader_open(AT_FDCWD, p->image->interp, WALK_FOLLOW, &p->ld);
	if (r < 0)
		return r;
	r = get_image(p->ld, head, &len, &p->interp);
	return r == -ENOEXEC || r == -EINVAL || r == -EPERM ? -ELIBBAD : r;
}

// Nobody may open for writing what runs (ETXTBSY), until the last mapping of it is gone.
static int deny_write(struct file *f)
{
	int r = f->mode & FMODE_DENY_WRITE ? 0 : inode_deny_write(f->inode);

	if (r == 0)
		f->mode |= FMODE_DENY_WRITE;
	return r;
}

// --- the address space -------------------------------------------------------------------------

static void place_brk(struct mm *mm, const struct elf_image *e, uint64_t bias)
{
	uint64_t brk = PAGE_UP(bias + e->brk);

	// A static PIE lies among the mappings, where there is no room to grow: its heap goes elsewhere.
	if (e->dyn && !e->interp && !mm->no_aslr)
		brk = PAGE_DOWN(PF_GUEST_TOP / 3 * 2);
	if (!mm->no_aslr)
		brk += random_below(BRK_RND >> PAGE_SHIFT) << PAGE_SHIFT;
	mm->brk = mm->start_brk = brk;
}

static int build(const struct loader_request *req, const struct program *p, struct loader_identity *id, struct loader_result *res)
{
	const struct elf_image *e = p->image;
	struct mm *mm = res->mm;
	uint64_t bias, ld_bias = 0, sp;
	struct stack_image si = {.id = *id, .exec = e->exec_stack, .phnum = e->phnum};
	int r = elf_place(mm, e, e->interp != NULL, &bias);

	if (r == 0)
		r = elf_map(mm, res->ctx, e, &p->exe->mobj, bias);
	if (r == 0 && p->interp) {
		r = elf_place(mm, p->interp, false, &ld_bias);
		if (r == 0)
			r = elf_map(mm, res->ctx, p->interp, &p->ld->mobj, ld_bias);
		si.base = ld_bias;
	}
	if (r < 0)
		return r;
	mm->start_code = bias + e->start_code;
	mm->end_code = bias + e->end_code;
	mm->start_data = bias + e->start_data;
	mm->end_data = bias + e->end_data;
	place_brk(mm, e, bias);
	si.entry = bias + e->entry;
	si.phdr = e->phdr_vaddr ? bias + e->phdr_vaddr : 0;
	r = stack_build(mm, res->ctx, req, &p->args, &si, &sp);
	if (r < 0)
		return r;
	res->regs = (struct abi_regs){.rip = p->interp ? ld_bias + p->interp->entry : si.entry, .rsp = sp, .eflags = 0x202,
				      .cs = 0x33, .ss = 0x2b, .orig_rax = UINT64_MAX};
	// An entry point outside user space would not fault as the guest's own mistake.
	if (res->regs.rip >= PF_GUEST_TOP)
		return -ENOEXEC;
	return 0;
}

int loader_exec(const struct loader_request *req, struct loader_result *ret)
{
	struct loader_result res = {0};
	struct loader_identity id = {0};
	struct program p = {0};
	int r = find_program(req, &p);

	if (r == 0)
		r = args_check(req, &p.args);
	if (r == 0)
		r = deny_write(p.exe);
	if (r == 0)
		r = find_interp(&p);
	if (r == 0 && req->identify)
		r = req->identify(req->arg, p.exe, &id);
	if (r == 0)
		r = mm_new(req->pf, req->no_aslr, &res.mm, &res.ctx);
	if (r < 0) {
		program_free(&p);
		return r;
	}
	res.mm->lim = req->lim;
	mm_layout(res.mm);
	res.mm->exe = &file_get(p.exe)->mobj;
	r = build(req, &p, &id, &res);
	if (r == 0)
		pf_set_regs(res.ctx, &res.regs);
	program_free(&p);
	if (r < 0) {
		pf_ctx_exit(res.ctx);
		mm_put(res.mm);
		return r;
	}
	*ret = res;
	return 0;
}
