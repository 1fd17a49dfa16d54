// File data of tmpfs: chunks of kernel memory, or a memfd.
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "sentry/fs/tmpfs/internal.h"

bool tmpfs_charge(struct tmpfs *fs, uint64_t pages)
{
	if (fs->max_pages && (fs->used_pages > fs->max_pages || pages > fs->max_pages - fs->used_pages))
		return false;
	fs->used_pages += pages;
	return true;
}

void tmpfs_uncharge(struct tmpfs *fs, uint64_t pages)
{
	kassert(fs->used_pages >= pages);
	fs->used_pages -= pages;
}

static void set_pages(struct tinode *t, uint64_t pages)
{
	t->file.pages = pages;
	t->inode.blocks = pages * (PAGE_SIZE / 512);
}

// --- chunks -------------------------------------------------------------------------------------------

static struct tchunk *chunk_at(const struct tfile *f, uint64_t index)
{
	return index < f->nchunks ? &f->chunks[index] : NULL;
}

// Makes room for chunk `index` in the array.
static bool chunks_reserve(struct tfile *f, uint64_t index)
{
	uint32_t want = (uint32_t)index + 1, n = f->nchunks;
	struct tchunk *c;

	if (index < n)
		return true;
	if (want == 1) {
		f->chunks = &f->first;
		f->nchunks = 1;
		return true;
	}
	n = MAX(want, n * 2);
	if (f->chunks == &f->first || !f->chunks) {
		c = kalloc(n * sizeof(*c));
		if (c && f->chunks) {
			c[0] = f->first;
			f->first = (struct tchunk){0};
		}
	} else {
		c = krealloc(f->chunks, f->nchunks * sizeof(*c), n * sizeof(*c));
	}
	if (!c)
		return false;
	f->chunks = c;
	f->nchunks = n;
	return true;
}

// Makes the pages first..last of a chunk addressable.
static bool chunk_grow(struct tchunk *c, unsigned last)
{
	uint8_t order = c->mem ? c->order : 0;
	char *mem;

	while (last >> order)
		order++;
	if (c->mem && order == c->order)
		return true;
	mem = krealloc(c->mem, c->mem ? PAGE_SIZE << c->order : 0, PAGE_SIZE << order);
	if (!mem)
		return false;
	c->mem = mem;
	c->order = order;
	return true;
}

static inline uint16_t page_bits(unsigned first, unsigned last)
{
	return (uint16_t)((2u << last) - (1u << first));
}

static void chunk_free(struct tchunk *c)
{
	kfree(c->mem);
	*c = (struct tchunk){0};
}

static void chunks_free(struct tinode *t)
{
	struct tfile *f = &t->file;

	for (uint32_t i = 0; i < f->nchunks; i++)
		if (f->chunks[i].mem)
			chunk_free(&f->chunks[i]);
	if (f->chunks != &f->first)
		kfree(f->chunks);
	f->chunks = NULL;
	f->nchunks = 0;
}

// Drops the pages first..last of the chunk; their number.
static unsigned chunk_drop(struct tchunk *c, unsigned first, unsigned last)
{
	uint16_t gone = c->present & page_bits(first, last);
	unsigned n = (unsigned)__builtin_popcount(gone);

	c->present &= (uint16_t)~gone;
	if (!c->present) {
		chunk_free(c);
		return n;
	}
	for (; gone; gone &= (uint16_t)(gone - 1))
		memset(c->mem + (unsigned)__builtin_ctz(gone) * PAGE_SIZE, 0, PAGE_SIZE);
	return n;
}

// Zeroes [off, end): whole pages go, the edges are cleared.
static void chunks_punch(struct tinode *t, uint64_t off, uint64_t end)
{
	struct tfile *f = &t->file;
	uint64_t dropped = 0;

	end = MIN(end, (uint64_t)f->nchunks * CHUNK_SIZE);
	while (off < end) {
		struct tchunk *c = &f->chunks[off / CHUNK_SIZE];
		uint64_t base = off / CHUNK_SIZE * CHUNK_SIZE, stop = MIN(end, base + CHUNK_SIZE);
		uint64_t in = PAGE_OFF(off) ? MIN(stop, PAGE_DOWN(off) + PAGE_SIZE) : off;

		if (c->mem) {
			unsigned page = (unsigned)((off - base) / PAGE_SIZE);

			if (in > off && c->present >> page & 1)
				memset(c->mem + (off - base), 0, in - off);
			if (PAGE_DOWN(stop) > in)
				dropped += chunk_drop(c, (unsigned)((in - base) / PAGE_SIZE),
						      (unsigned)((PAGE_DOWN(stop) - base) / PAGE_SIZE) - 1);
			page = (unsigned)((stop - base) / PAGE_SIZE);
			if (PAGE_OFF(stop) && PAGE_DOWN(stop) >= in && c->present >> page & 1)
				memset(c->mem + (PAGE_DOWN(stop) - base), 0, PAGE_OFF(stop));
		}
		off = stop;
	}
	tmpfs_uncharge(t->fs, dropped);
	set_pages(t, f->pages - dropped);
}

// Makes the pages of [off, off+len), within one chunk, present. -ENOSPC, -ENOMEM. *ret_new: those that were not.
static int chunk_prepare(struct tinode *t, uint64_t off, size_t len, struct tchunk **ret, uint16_t *ret_new)
{
	struct tfile *f = &t->file;
	unsigned first = (unsigned)(off % CHUNK_SIZE / PAGE_SIZE), last = (unsigned)((off + len - 1) % CHUNK_SIZE / PAGE_SIZE);
	struct tchunk *c;
	uint16_t missing;
	unsigned n;

	if (!chunks_reserve(f, off / CHUNK_SIZE))
		return -ENOMEM;
	c = &f->chunks[off / CHUNK_SIZE];
	missing = page_bits(first, last) & (uint16_t)~c->present;
	n = (unsigned)__builtin_popcount(missing);
	if (missing) {
		if (!tmpfs_charge(t->fs, n))
			return -ENOSPC;
		if (!chunk_grow(c, last)) {
			tmpfs_uncharge(t->fs, n);
			return -ENOMEM;
		}
		c->present |= missing;
		set_pages(t, f->pages + n);
	}
	*ret = c;
	*ret_new = missing;
	return 0;
}

// Gives back pages that were prepared and not written after all.
static void chunk_unprepare(struct tinode *t, struct tchunk *c, uint16_t bits)
{
	unsigned n = (unsigned)__builtin_popcount(bits);

	if (!bits)
		return;
	c->present &= (uint16_t)~bits;
	if (!c->present)
		chunk_free(c);
	tmpfs_uncharge(t->fs, n);
	set_pages(t, t->file.pages - n);
}

static ssize_t chunks_write(struct tinode *t, struct uio *u, uint64_t off)
{
	size_t done = 0;

	while (u->resid) {
		uint64_t at = off + done;
		size_t n = MIN(u->resid, CHUNK_SIZE - at % CHUNK_SIZE);
		struct tchunk *c;
		uint16_t fresh;
		int err = chunk_prepare(t, at, n, &c, &fresh);
		ssize_t got;

		if (err == -ENOSPC && PAGE_OFF(at) + n > PAGE_SIZE) { // what still fits
			n = PAGE_SIZE - PAGE_OFF(at);
			err = chunk_prepare(t, at, n, &c, &fresh);
		}
		if (err)
			return done ? (ssize_t)done : err;
		got = uio_get(u, c->mem + at % CHUNK_SIZE, n);
		if (got < (ssize_t)n) {
			uint16_t kept = got > 0 ? page_bits((unsigned)(at % CHUNK_SIZE / PAGE_SIZE),
							    (unsigned)((at % CHUNK_SIZE + (size_t)got - 1) / PAGE_SIZE)) : 0;

			chunk_unprepare(t, c, fresh & (uint16_t)~kept);
			if (got > 0)
				done += (size_t)got;
			return done ? (ssize_t)done : got;
		}
		done += n;
	}
	return (ssize_t)done;
}

// Bytes from off in the same state (data or hole) within one chunk; NULL: a hole.
static size_t chunk_run(const struct tfile *f, uint64_t off, size_t n, const char **ret)
{
	const struct tchunk *c = chunk_at(f, off / CHUNK_SIZE);
	unsigned page = (unsigned)(off % CHUNK_SIZE / PAGE_SIZE), end;
	unsigned state;

	n = MIN(n, CHUNK_SIZE - off % CHUNK_SIZE);
	*ret = NULL;
	if (!c || !c->mem)
		return n;
	state = c->present >> page & 1;
	for (end = page + 1; end < CHUNK_PAGES && (c->present >> end & 1u) == state; end++)
		;
	if (state)
		*ret = c->mem + off % CHUNK_SIZE;
	return MIN(n, end * PAGE_SIZE - off % CHUNK_SIZE);
}

static ssize_t chunks_read(struct tinode *t, struct uio *u, uint64_t off, size_t n)
{
	size_t done = 0;

	while (done < n) {
		const char *p;
		size_t run = chunk_run(&t->file, off + done, n - done, &p);
		ssize_t r = p ? uio_put(u, p, run) : uio_put_zero(u, run);

		if (r > 0)
			done += (size_t)r;
		if (r < (ssize_t)run)
			return done ? (ssize_t)done : r;
	}
	return (ssize_t)done;
}

// --- the memfd ------------------------------------------------------------------------------------------

// Counts the pages of the memfd anew: after writes into holes, and mappings, which nobody tells us about.
static void memfd_recount(struct tinode *t)
{
	struct stat st;
	uint64_t pages;

	if (fstat(t->file.memfd, &st) < 0)
		return;
	pages = (uint64_t)st.st_blocks / (PAGE_SIZE / 512);
	if (pages > t->file.pages)
		t->fs->used_pages += pages - t->file.pages;
	else
		tmpfs_uncharge(t->fs, t->file.pages - pages);
	set_pages(t, pages);
}

static int write_all(int fd, const char *p, size_t n, uint64_t off)
{
	while (n) {
		ssize_t r = pwrite(fd, p, n, (off_t)off);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r < 0 ? -errno : -EIO;
		p += r;
		n -= (size_t)r;
		off += (uint64_t)r;
	}
	return 0;
}

static int to_memfd(struct tinode *t)
{
	struct tfile *f = &t->file;
	int fd, err = 0;

	if (f->memfd >= 0)
		return 0;
	fd = memfd_create("tmpfs", MFD_CLOEXEC);
	if (fd < 0)
		return errno == EMFILE || errno == ENFILE ? -ENFILE : -errno;
	if (ftruncate(fd, (off_t)t->inode.size) < 0)
		err = -errno;
	for (uint64_t off = 0; !err && off < (uint64_t)f->nchunks * CHUNK_SIZE;) {
		const char *p;
		size_t run = chunk_run(f, off, CHUNK_SIZE, &p);

		if (p)
			err = write_all(fd, p, run, off);
		off += run;
	}
	// A page that was present beyond the end made the memfd longer.
	if (!err && ftruncate(fd, (off_t)t->inode.size) < 0)
		err = -errno;
	if (err) {
		close(fd);
		return err;
	}
	chunks_free(t);
	f->memfd = fd;
	f->dense = 0;
	memfd_recount(t);
	return 0;
}

// Room for a write of [off, end) to the memfd: counts what is not known to be there already.
static bool memfd_charge(struct tinode *t, uint64_t off, uint64_t end)
{
	struct tfile *f = &t->file;
	uint64_t first = off >> PAGE_SHIFT, last = (end + PAGE_SIZE - 1) >> PAGE_SHIFT;
	uint64_t room, need;

	if (last <= f->dense || !t->fs->max_pages)
		return true;
	need = last - MAX(first, f->dense);
	room = t->fs->max_pages > t->fs->used_pages ? t->fs->max_pages - t->fs->used_pages : 0;
	if (need <= room)
		return true;
	memfd_recount(t); // perhaps most of them are there: be exact when it gets tight
	room = t->fs->max_pages > t->fs->used_pages ? t->fs->max_pages - t->fs->used_pages : 0;
	for (uint64_t p = first; p < last && need > room; p++) {
		off_t data = lseek(f->memfd, (off_t)(p << PAGE_SHIFT), SEEK_DATA);

		if (data < 0 || (uint64_t)data >= end)
			break;
		p = MAX(p, (uint64_t)data >> PAGE_SHIFT);
		need--;
	}
	return need <= room;
}

static void memfd_wrote(struct tinode *t, uint64_t off, uint64_t end)
{
	struct tfile *f = &t->file;
	uint64_t first = off >> PAGE_SHIFT, last = (end + PAGE_SIZE - 1) >> PAGE_SHIFT;

	if (last <= f->dense)
		return;
	if (first <= f->dense && f->pages == f->dense) { // a file without holes, written in order
		t->fs->used_pages += last - f->dense;
		set_pages(t, last);
		f->dense = last;
		return;
	}
	memfd_recount(t);
	if (first <= f->dense)
		f->dense = last;
}

// --- file operations --------------------------------------------------------------------------------------

static ssize_t tmpfs_read(struct file *file, struct uio *u, int64_t *pos)
{
	struct tinode *t = tinode_of(file->inode);
	ssize_t n = 0;

	klock_lock(&t->inode.lock);
	if ((uint64_t)*pos < t->inode.size && u->resid) {
		size_t len = MIN(u->resid, t->inode.size - (uint64_t)*pos);

		if (t->file.memfd >= 0) {
			size_t beyond = u->resid - len;

			u->resid = len;
			n = uio_host_read(u, t->file.memfd, *pos, 0);
			u->resid += beyond;
		} else {
			n = chunks_read(t, u, (uint64_t)*pos, len);
		}
		if (n > 0)
			*pos += n;
	}
	if (n >= 0)
		file_accessed(file);
	klock_unlock(&t->inode.lock);
	return n;
}

static ssize_t write_locked(struct tinode *t, struct uio *u, uint64_t off)
{
	uint64_t end = off + u->resid;
	ssize_t n;

	if (t->file.seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
		return -EPERM;
	if (t->file.seals & F_SEAL_GROW && end > t->inode.size) {
		if (off >= t->inode.size)
			return -EPERM;
		u->resid = t->inode.size - off;
		end = t->inode.size;
	}
	if (t->file.memfd < 0 && end > KERNEL_MAX) {
		int err = to_memfd(t);

		if (err && (err != -ENFILE || end > KERNEL_HARD_MAX))
			return err;
	}
	if (t->file.memfd < 0) {
		n = chunks_write(t, u, off);
	} else {
		if (!memfd_charge(t, off, end))
			return -ENOSPC;
		n = uio_host_write(u, t->file.memfd, (int64_t)off, 0);
		if (n > 0)
			memfd_wrote(t, off, off + (uint64_t)n);
	}
	if (n > 0 && off + (uint64_t)n > t->inode.size)
		t->inode.size = off + (uint64_t)n;
	return n;
}

static ssize_t tmpfs_write(struct file *file, struct uio *u, int64_t *pos)
{
	struct tinode *t = tinode_of(file->inode);
	ssize_t n = 0;

	klock_lock(&t->inode.lock);
	if (file->flags & O_APPEND)
		*pos = (int64_t)t->inode.size;
	if (u->resid) {
		n = write_locked(t, u, (uint64_t)*pos);
		if (n > 0) {
			*pos += n;
			file_modified(&t->inode);
		}
	}
	klock_unlock(&t->inode.lock);
	return n;
}

static int64_t seek_data(struct tinode *t, uint64_t off, bool data)
{
	uint64_t size = t->inode.size;

	if (t->file.memfd >= 0) {
		off_t r = lseek(t->file.memfd, (off_t)off, data ? SEEK_DATA : SEEK_HOLE);

		return r < 0 ? -errno : r;
	}
	while (off < size) {
		const char *p;
		size_t run = chunk_run(&t->file, off, CHUNK_SIZE, &p);

		if ((p != NULL) == data)
			return (int64_t)off;
		off += run;
	}
	return data ? -ENXIO : (int64_t)size;
}

static int64_t tmpfs_llseek(struct file *file, int64_t off, int whence)
{
	struct tinode *t = tinode_of(file->inode);

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return generic_llseek(file, off, whence, t->inode.size);
	if (off < 0 || (uint64_t)off >= t->inode.size)
		return -ENXIO;
	off = seek_data(t, (uint64_t)off, whence == SEEK_DATA);
	if (off >= 0)
		file->pos = off;
	return off;
}

static int tmpfs_map_fd(struct file *file, uint64_t off, uint64_t len, int prot, bool shared, int *ret_fd, uint64_t *ret_off)
{
	struct tinode *t = tinode_of(file->inode);
	int err;

	if (shared && prot & PROT_WRITE && t->file.seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
		return -EPERM;
	klock_lock(&t->inode.lock);
	err = to_memfd(t);
	klock_unlock(&t->inode.lock);
	if (err)
		return err;
	*ret_fd = t->file.memfd;
	*ret_off = off;
	return 0;
}

static int tmpfs_fsync(struct file *file, bool datasync)
{
	return 0;
}

int tmpfs_set_size(struct tinode *t, uint64_t size)
{
	uint64_t old = t->inode.size;

	if (size < old && t->file.seals & F_SEAL_SHRINK)
		return -EPERM;
	if (size > old && t->file.seals & F_SEAL_GROW)
		return -EPERM;
	if (t->file.memfd >= 0) {
		if (ftruncate(t->file.memfd, (off_t)size) < 0)
			return -errno;
		t->inode.size = size;
		if (size < old) {
			t->file.dense = MIN(t->file.dense, (size + PAGE_SIZE - 1) >> PAGE_SHIFT);
			memfd_recount(t);
		}
		return 0;
	}
	if (size < old) {
		if (size == 0) {
			tmpfs_uncharge(t->fs, t->file.pages);
			set_pages(t, 0);
			chunks_free(t);
		} else {
			chunks_punch(t, size, UINT64_MAX);
		}
	}
	t->inode.size = size;
	return 0;
}

void tmpfs_free_data(struct tinode *t)
{
	tmpfs_uncharge(t->fs, t->file.pages);
	set_pages(t, 0);
	chunks_free(t);
	if (t->file.memfd >= 0)
		close(t->file.memfd);
	t->file.memfd = -1;
}

static int chunks_allocate(struct tinode *t, uint64_t off, uint64_t end)
{
	while (off < end) {
		size_t n = MIN(end - off, CHUNK_SIZE - off % CHUNK_SIZE);
		struct tchunk *c;
		uint16_t fresh;
		int err = chunk_prepare(t, off, n, &c, &fresh);

		if (err)
			return err;
		off += n;
		cond_resched();
	}
	return 0;
}

static int memfd_fallocate(struct tinode *t, int mode, uint64_t off, uint64_t len)
{
	if (!(mode & FALLOC_FL_PUNCH_HOLE) && !memfd_charge(t, off, off + len))
		return -ENOSPC;
	if (fallocate(t->file.memfd, mode, (off_t)off, (off_t)len) < 0)
		return -errno;
	if (mode & FALLOC_FL_PUNCH_HOLE)
		t->file.dense = MIN(t->file.dense, off >> PAGE_SHIFT);
	memfd_recount(t);
	return 0;
}

static int fallocate_locked(struct tinode *t, int mode, uint64_t off, uint64_t len)
{
	uint64_t end = off + len;
	bool grows = !(mode & FALLOC_FL_KEEP_SIZE) && end > t->inode.size;
	int err = 0;

	if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		return -EOPNOTSUPP;
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) && t->file.seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
		return -EPERM;
	if (grows && t->file.seals & F_SEAL_GROW)
		return -EPERM;
	if (!(mode & FALLOC_FL_PUNCH_HOLE) && t->file.memfd < 0 && end > KERNEL_MAX) {
		if (t->fs->max_pages && (len >> PAGE_SHIFT) > t->fs->max_pages)
			return -ENOSPC;
		err = to_memfd(t);
		if (err && (err != -ENFILE || end > KERNEL_HARD_MAX))
			return err;
	}
	err = 0;
	if (t->file.memfd >= 0) {
		// shmem knows no ZERO_RANGE: a hole that is then filled is the same.
		if (mode & FALLOC_FL_ZERO_RANGE)
			err = memfd_fallocate(t, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len);
		if (!err)
			err = memfd_fallocate(t, mode & ~FALLOC_FL_ZERO_RANGE, off, len);
	} else {
		if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
			chunks_punch(t, off, end);
		if (!(mode & FALLOC_FL_PUNCH_HOLE))
			err = chunks_allocate(t, off, end);
	}
	if (!err && grows)
		t->inode.size = end;
	return err;
}

static int tmpfs_fallocate(struct file *file, int mode, uint64_t off, uint64_t len)
{
	struct tinode *t = tinode_of(file->inode);
	int err;

	klock_lock(&t->inode.lock);
	err = fallocate_locked(t, mode, off, len);
	if (!err)
		file_modified(&t->inode);
	klock_unlock(&t->inode.lock);
	return err;
}

const struct file_ops tmpfs_file_ops = {
	.read = tmpfs_read,
	.write = tmpfs_write,
	.llseek = tmpfs_llseek,
	.map_fd = tmpfs_map_fd,
	.fsync = tmpfs_fsync,
	.fallocate = tmpfs_fallocate,
};
