// What is read from a process's memory, or about it: cmdline, environ, auxv, maps, smaps, mem.
#include "sentry/fs/proc/internal.h"

#define AREA_MAX (4UL << 20) // cmdline and environ

// Up to len bytes at addr into b; how many.
static size_t copy_area(struct pbuf *b, struct mm *mm, uint64_t addr, uint64_t len)
{
	size_t done = 0;

	len = MIN(len, AREA_MAX);
	while (done < len) {
		size_t n = MIN(len - done, 4 * PAGE_SIZE);
		char *p = proom(b, n);
		ssize_t r = p ? copy_in_as(mm->as, p, GADDR(addr + done), n) : 0;

		if (r <= 0)
			break;
		b->len += r;
		done += r;
		if ((size_t)r < n)
			break;
	}
	return done;
}

// A process that overwrote the NUL at the end of its arguments (setproctitle) is read on into its
// environment, up to the first NUL.
int show_cmdline(struct pbuf *b, struct pnode *n)
{
	struct task *t = pnode_task(n);
	struct mm *mm;
	uint64_t arg_end, env_end;
	size_t got;

	if (!t)
		return -ESRCH;
	if (!t->mm || t->mm->arg_end <= t->mm->arg_start)
		return 0;
	mm = mm_get(t->mm);
	arg_end = mm->arg_end;
	env_end = mm->env_end;
	got = copy_area(b, mm, mm->arg_start, arg_end - mm->arg_start);
	if (got && got == arg_end - mm->arg_start && b->p[b->len - 1] && mm->env_start == arg_end && env_end > arg_end) {
		size_t from = b->len, end;

		copy_area(b, mm, arg_end, env_end - arg_end);
		end = strnlen(b->p + from, b->len - from);
		b->len = MIN(b->len, from + end + 1);
		end = strnlen(b->p, b->len);
		b->len = MIN(b->len, end + 1);
	}
	mm_put(mm);
	return 0;
}

int show_environ(struct pbuf *b, struct pnode *n)
{
	struct task *t = pnode_task(n);
	struct mm *mm;

	if (!t)
		return -ESRCH;
	if (!t->mm || t->mm->env_end <= t->mm->env_start)
		return 0;
	mm = mm_get(t->mm);
	copy_area(b, mm, mm->env_start, mm->env_end - mm->env_start);
	mm_put(mm);
	return 0;
}

int show_auxv(struct pbuf *b, struct pnode *n)
{
	struct task *t = pnode_task(n);

	if (!t)
		return -ESRCH;
	if (t->mm)
		pwrite_text(b, (const char *)t->mm->auxv, MIN(t->mm->nauxv, 64U) * sizeof(t->mm->auxv[0]));
	return 0;
}

static int show_with(struct pbuf *b, struct pnode *n, ssize_t (*next)(struct mm *, uint64_t *, char *, size_t))
{
	struct task *t = pnode_task(n);
	struct mm *mm;
	uint64_t pos = 0;
	ssize_t r;
	char *p;

	if (!t)
		return -ESRCH;
	if (!t->mm)
		return 0;
	mm = mm_get(t->mm);
	while ((p = proom(b, 8192)) && (r = next(mm, &pos, p, 8192)) > 0) {
		b->len += r;
		cond_resched();
	}
	mm_put(mm);
	return 0;
}

int show_maps(struct pbuf *b, struct pnode *n)
{
	return show_with(b, n, mm_maps_next);
}

int show_smaps(struct pbuf *b, struct pnode *n)
{
	return show_with(b, n, mm_smaps_next);
}

// The sums of smaps.
int show_smaps_rollup(struct pbuf *b, struct pnode *n)
{
	static const char *const fields[] = {"Rss", "Pss", "Pss_Dirty", "Pss_Anon", "Pss_File", "Pss_Shmem", "Shared_Clean", "Shared_Dirty",
					     "Private_Clean", "Private_Dirty", "Referenced", "Anonymous", "KSM", "LazyFree",
					     "AnonHugePages", "ShmemPmdMapped", "FilePmdMapped", "Shared_Hugetlb", "Private_Hugetlb",
					     "Swap", "SwapPss", "Locked"};
	unsigned long long sums[ARRAY_SIZE(fields)] = {}, lo = 0, hi = 0, v, a, z;
	struct pbuf s = {};
	char key[32], *line, *end;
	int r = show_smaps(&s, n);

	if (!r && !s.failed && s.len && proom(&s, 1)) {
		s.p[s.len] = 0;
		for (line = s.p; *line; line = end + 1) {
			end = strchr(line, '\n');
			if (!end)
				break;
			*end = 0;
			if (sscanf(line, "%llx-%llx ", &a, &z) == 2) {
				lo = lo ? lo : a;
				hi = z;
			} else if (sscanf(line, "%31[^:]: %llu kB", key, &v) == 2) {
				for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
					if (strcmp(fields[i], key) == 0)
						sums[i] += v;
			}
		}
		pprintf(b, "%08llx-%08llx ---p 00000000 00:00 0                          [rollup]\n", lo, hi);
		for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
			pprintf(b, "%s:%*s%8llu kB\n", fields[i], (int)(15 - strlen(fields[i])), "", sums[i]);
	}
	kfree(s.p);
	return r;
}

// --- mem --------------------------------------------------------------------------------------------------

static int mem_open(struct inode *inode, struct file *f)
{
	struct pnode *n = pnode_of(inode);
	struct task *t = pnode_task(n);

	if (!t)
		return -ESRCH;
	if (!pnode_may_inspect(n))
		return -EACCES;
	f->priv = t->mm ? mm_get(t->mm) : NULL; // this memory, even if the process executes something else
	return 0;
}

static void mem_release(struct file *f)
{
	if (f->priv)
		mm_put(f->priv);
}

static ssize_t mem_move(struct file *f, struct uio *u, int64_t *pos, bool write)
{
	struct mm *mm = f->priv;
	char buf[2048];
	ssize_t done = 0, r = 0;

	if (!mm)
		return 0;
	while (u->resid) {
		size_t n = MIN(u->resid, sizeof(buf));

		if (write) {
			r = uio_get(u, buf, n);
			if (r > 0)
				r = copy_out_as(mm->as, GADDR(*pos), buf, r);
		} else {
			r = copy_in_as(mm->as, buf, GADDR(*pos), n);
			if (r > 0)
				r = uio_put(u, buf, r);
		}
		if (r <= 0)
			break;
		done += r;
		*pos += r;
		cond_resched();
	}
	if (done)
		return done;
	return r == -EFAULT ? -EIO : r;
}

static ssize_t mem_read(struct file *f, struct uio *u, int64_t *pos)
{
	return mem_move(f, u, pos, false);
}

static ssize_t mem_write(struct file *f, struct uio *u, int64_t *pos)
{
	return mem_move(f, u, pos, true);
}

static int64_t mem_llseek(struct file *f, int64_t off, int whence)
{
	if (whence == 1)
		off += f->pos;
	else if (whence)
		return -EINVAL;
	return f->pos = off;
}

const struct file_ops mem_fops = {
	.open = mem_open,
	.release = mem_release,
	.read = mem_read,
	.write = mem_write,
	.llseek = mem_llseek,
};
