// Descriptor tables: a dense array of files, a bitmap of what is taken, one of close-on-exec.
//
// A number that is reserved is taken in the bitmap and has no file yet. `next` is a lower bound of
// the lowest free number.
#include "sentry/vfs/internal.h"

struct fd_table {
	refcount_t refs;
	uint32_t size; // slots; a multiple of 64
	uint32_t next;
	struct file **files;
	uint64_t *taken, *cloexec;
};

#define FD_FIRST_SIZE 64u
#define FD_HARD_MAX (1u << 20)

DEFINE_SLAB(fd_table_slab, struct fd_table);

static bool table_resize(struct fd_table *t, uint32_t size)
{
	struct file **files = krealloc(t->files, t->size * sizeof(*files), size * sizeof(*files));
	uint64_t *bits;

	if (!files)
		return false;
	t->files = files;
	bits = kalloc(size / 64 * 2 * sizeof(*bits));
	if (!bits) {
		// The larger array stays; its allocated size must match t->size for the next resize.
		files = krealloc(t->files, size * sizeof(*files), t->size * sizeof(*files));
		kassert(files);
		t->files = files;
		return false;
	}
	if (t->size) {
		memcpy(bits, t->taken, t->size / 8);
		memcpy(bits + size / 64, t->cloexec, t->size / 8);
		kfree(t->taken);
	}
	t->taken = bits;
	t->cloexec = bits + size / 64;
	t->size = size;
	return true;
}

struct fd_table *fd_table_new(void)
{
	struct fd_table *t = SLAB_NEW(fd_table_slab, struct fd_table);

	if (!t)
		return NULL;
	ref_init(&t->refs, 1);
	if (!table_resize(t, FD_FIRST_SIZE)) {
		slab_free(&fd_table_slab, t);
		return NULL;
	}
	return t;
}

struct fd_table *fd_table_copy(struct fd_table *old, uint32_t from_close, uint32_t to_close)
{
	struct fd_table *t = fd_table_new();
	uint32_t size = FD_FIRST_SIZE, top = 0;

	if (!t)
		return NULL;
	for (uint32_t i = 0; i < old->size; i++)
		if (old->files[i] && !(i >= from_close && i <= to_close))
			top = i + 1;
	while (size < top)
		size *= 2;
	if (size != t->size && !table_resize(t, size)) {
		fd_table_put(t);
		return NULL;
	}
	for (uint32_t i = 0; i < top; i++) {
		if (!old->files[i] || (i >= from_close && i <= to_close))
			continue;
		t->files[i] = file_get(old->files[i]);
		t->taken[i / 64] |= 1ULL << (i % 64);
		t->cloexec[i / 64] |= old->cloexec[i / 64] & 1ULL << (i % 64);
	}
	return t;
}

struct fd_table *fd_table_get(struct fd_table *t)
{
	ref_get(&t->refs);
	return t;
}

unsigned fd_table_users(const struct fd_table *t)
{
	return ref_read(&t->refs);
}

// What close(2) does to a file that left table t. May wait.
static int filp_close(struct file *f, struct fd_table *t)
{
	int err = 0;

	if (f->ops && f->ops->flush)
		err = f->ops->flush(f);
	if (unlikely(f->inode && f->inode->locks) && !(f->mode & FMODE_PATH))
		locks_release_posix(f, t);
	file_put(f);
	return err;
}

void fd_table_put(struct fd_table *t)
{
	if (!t || !ref_put(&t->refs))
		return;
	for (uint32_t w = 0; w < t->size / 64; w++) {
		for (uint64_t bits = t->taken[w]; bits; bits &= bits - 1) {
			uint32_t i = w * 64 + (uint32_t)__builtin_ctzll(bits);
			struct file *f = t->files[i];

			t->files[i] = NULL;
			if (f)
				filp_close(f, t);
		}
	}
	kfree(t->files);
	kfree(t->taken);
	slab_free(&fd_table_slab, t);
}

struct file *fd_table_peek(struct fd_table *t, int fd)
{
	return (uint32_t)fd < t->size ? t->files[fd] : NULL;
}

struct file *fd_peek(int fd)
{
	const struct fd_table *t = vfs_self()->files;
	struct file *f = likely((uint32_t)fd < t->size) ? t->files[fd] : NULL;

	return likely(f && !(f->mode & FMODE_PATH)) ? f : NULL;
}

struct file *fd_get(int fd)
{
	struct file *f = fd_peek(fd);

	return f ? file_get(f) : NULL;
}

struct file *fd_get_path_ok(int fd)
{
	struct file *f = fd_table_peek(vfs_self()->files, fd);

	return f ? file_get(f) : NULL;
}

unsigned fd_table_size(const struct fd_table *t)
{
	return t->size;
}

int fd_table_next(struct fd_table *t, int fd)
{
	for (uint32_t i = fd < 0 ? 0 : (uint32_t)fd; i < t->size; i++)
		if (t->files[i])
			return (int)i;
	return -1;
}

// The lowest free number >= min becomes taken. -EMFILE, -EINVAL for a min above the limit, -ENOMEM.
static int table_take(struct fd_table *t, uint32_t min, unsigned o_cloexec)
{
	uint32_t limit = MIN(vfs_self()->nofile_limit, FD_HARD_MAX), start = MAX(min, t->next), fd;
	uint32_t w = start / 64;
	uint64_t free_bits = 0;

	while (w < t->size / 64) {
		free_bits = ~t->taken[w];
		if (w == start / 64)
			free_bits &= ~0ULL << (start % 64);
		if (free_bits)
			break;
		w++;
	}
	fd = w < t->size / 64 ? w * 64 + (uint32_t)__builtin_ctzll(free_bits) : MAX(start, t->size);
	if (fd >= limit)
		return -EMFILE;
	if (fd >= t->size) {
		uint32_t size = t->size;

		while (size <= fd)
			size *= 2;
		if (!table_resize(t, size))
			return -ENOMEM;
	}
	t->taken[fd / 64] |= 1ULL << (fd % 64);
	if (o_cloexec)
		t->cloexec[fd / 64] |= 1ULL << (fd % 64);
	else
		t->cloexec[fd / 64] &= ~(1ULL << (fd % 64));
	if (start == t->next)
		t->next = fd + 1;
	return (int)fd;
}

static void table_release(struct fd_table *t, uint32_t fd)
{
	t->taken[fd / 64] &= ~(1ULL << (fd % 64));
	t->cloexec[fd / 64] &= ~(1ULL << (fd % 64));
	if (fd < t->next)
		t->next = fd;
}

int fd_install_from(struct file *f, int min, unsigned o_cloexec)
{
	struct fd_table *t = vfs_self()->files;
	int fd;

	if (min < 0 || (uint32_t)min >= vfs_self()->nofile_limit)
		return -EINVAL;
	fd = table_take(t, (uint32_t)min, o_cloexec);
	if (fd >= 0)
		t->files[fd] = f;
	return fd;
}

int fd_install(struct file *f, unsigned o_cloexec)
{
	struct fd_table *t = vfs_self()->files;
	int fd = table_take(t, 0, o_cloexec);

	if (fd >= 0)
		t->files[fd] = f;
	return fd;
}

int fd_reserve(unsigned o_cloexec)
{
	return table_take(vfs_self()->files, 0, o_cloexec);
}

void fd_fill(int fd, struct file *f)
{
	struct fd_table *t = vfs_self()->files;

	kassert((uint32_t)fd < t->size && !t->files[fd] && t->taken[fd / 64] >> (fd % 64) & 1);
	t->files[fd] = f;
}

void fd_unreserve(int fd)
{
	struct fd_table *t = vfs_self()->files;

	kassert((uint32_t)fd < t->size && !t->files[fd]);
	table_release(t, (uint32_t)fd);
}

int fd_replace(struct file *f, int fd, unsigned o_cloexec)
{
	struct fd_table *t = vfs_self()->files;
	struct file *old;
	uint32_t size = t->size;

	if (fd < 0 || (uint32_t)fd >= MIN(vfs_self()->nofile_limit, FD_HARD_MAX))
		return -EBADF;
	while (size <= (uint32_t)fd)
		size *= 2;
	if (size != t->size && !table_resize(t, size))
		return -ENOMEM;
	old = t->files[fd];
	if (!old && t->taken[fd / 64] >> (fd % 64) & 1)
		return -EBUSY; // another thread has reserved it
	t->files[fd] = file_get(f);
	t->taken[fd / 64] |= 1ULL << (fd % 64);
	if (o_cloexec)
		t->cloexec[fd / 64] |= 1ULL << (fd % 64);
	else
		t->cloexec[fd / 64] &= ~(1ULL << (fd % 64));
	if (old)
		filp_close(old, t);
	return fd;
}

int fd_close(int fd)
{
	struct fd_table *t = vfs_self()->files;
	struct file *f = fd_table_peek(t, fd);

	if (!f)
		return -EBADF;
	t->files[fd] = NULL;
	table_release(t, (uint32_t)fd);
	return filp_close(f, t);
}

void fd_close_on_exec(struct fd_table *t)
{
	for (uint32_t w = 0; w < t->size / 64; w++) {
		while (t->cloexec[w] & t->taken[w]) {
			uint32_t fd = w * 64 + (uint32_t)__builtin_ctzll(t->cloexec[w] & t->taken[w]);
			struct file *f = t->files[fd];

			t->files[fd] = NULL;
			table_release(t, fd);
			if (f)
				filp_close(f, t);
		}
	}
}

int fd_get_flags(int fd)
{
	struct fd_table *t = vfs_self()->files;

	if (!fd_table_peek(t, fd))
		return -EBADF;
	return t->cloexec[fd / 64] >> (fd % 64) & 1 ? FD_CLOEXEC : 0;
}

int fd_set_flags(int fd, int flags)
{
	struct fd_table *t = vfs_self()->files;

	if (!fd_table_peek(t, fd))
		return -EBADF;
	if (flags & FD_CLOEXEC)
		t->cloexec[fd / 64] |= 1ULL << (fd % 64);
	else
		t->cloexec[fd / 64] &= ~(1ULL << (fd % 64));
	return 0;
}
