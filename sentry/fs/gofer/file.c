// Regular files: the cache of host descriptors, and data.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "sentry/fs/gofer/internal.h"

#define FD_LIMIT_DEFAULT 4096u
#define LENT_FOR (10 * NSEC_PER_SEC) // a descriptor lent to mm stays open for so long at least
#define SLOW_CHUNK (256UL << 10)     // bytes a host-work thread writes at a time

DEFINE_SLAB(gfd_slab, struct gfd);
static TAILQ_HEAD(gfd_head, gfd) lru = TAILQ_HEAD_INITIALIZER(lru);   // in use by an inode
static struct gfd_head retired = TAILQ_HEAD_INITIALIZER(retired);      // to be closed later
static unsigned fd_limit = FD_LIMIT_DEFAULT, fd_count;

void gofer_set_fd_limit(unsigned n)
{
	fd_limit = MAX(n, 16u);
}

static bool gfd_lent(const struct gfd *g, nsec_t now)
{
	return g->mapped_at && now - g->mapped_at < LENT_FOR;
}

static void gfd_close(struct gfd *g)
{
	close(g->fd);
	slab_free(&gfd_slab, g);
	fd_count--;
}

// Out of its inode: closed now, or as soon as nobody can be using it.
static void gfd_retire(struct gfd *g)
{
	g->owner->gfd = NULL;
	g->owner = NULL;
	TAILQ_REMOVE(&lru, g, lru);
	if (g->busy || gfd_lent(g, sched_now()))
		TAILQ_INSERT_TAIL(&retired, g, lru);
	else
		gfd_close(g);
}

static void close_retired(nsec_t now)
{
	struct gfd *g, *next;

	for (g = TAILQ_FIRST(&retired); g; g = next) {
		next = TAILQ_NEXT(g, lru);
		if (g->busy || gfd_lent(g, now))
			continue;
		TAILQ_REMOVE(&retired, g, lru);
		gfd_close(g);
	}
}

void gfd_close_retired(void)
{
	close_retired(NSEC_INFINITE);
}

static void gfd_make_room(void)
{
	nsec_t now = sched_now();
	struct gfd *g, *next;

	close_retired(now);
	// Those of files nobody has open first.
	for (int pass = 0; pass < 2; pass++) {
		for (g = TAILQ_LAST(&lru, gfd_head); g && fd_count >= fd_limit; g = next) {
			next = TAILQ_PREV(g, gfd_head, lru);
			if (!g->busy && !gfd_lent(g, now) && (pass || !g->owner->opens))
				gfd_retire(g);
		}
	}
}

void gfd_install(struct gofer_inode *gi, int fd, bool writable)
{
	struct gfd *g;

	if (gi->gfd && (gi->gfd->writable || !writable)) {
		close(fd);
		return;
	}
	if (fd_count >= fd_limit)
		gfd_make_room();
	g = SLAB_NEW(gfd_slab, struct gfd);
	if (!g) {
		close(fd);
		return;
	}
	if (gi->gfd)
		gfd_retire(gi->gfd);
	g->fd = fd;
	g->writable = writable;
	g->owner = gi;
	gi->gfd = g;
	fd_count++;
	TAILQ_INSERT_HEAD(&lru, g, lru);
}

void gfd_drop(struct gofer_inode *gi)
{
	if (gi->gfd)
		gfd_retire(gi->gfd);
}

int gfd_use(struct gofer_inode *gi, bool write, struct gfd **ret)
{
	struct gofer_sb *gs = GSB(&gi->inode);
	struct gfd *g = gi->gfd;

	if (!g || (write && !g->writable)) {
		struct call c = {.q = {.h.op = GP_OPEN, .node = gi->node,
				       .flags = GP_OPEN_READ | (write ? GP_OPEN_WRITE : 0)}};
		int r = call_run(gs->conn, &c);

		if (!r) {
			gfd_install(gi, c.fd, write);
			c.fd = -1;
			if (!gs->exclusive)
				gofer_attr_apply(gi, (const struct gp_attr *)call_body(&c));
		}
		call_end(&c);
		if (r)
			return r;
		g = gi->gfd;
		if (!g || (write && !g->writable))
			return -ENOMEM;
	} else if (TAILQ_FIRST(&lru) != g) {
		TAILQ_REMOVE(&lru, g, lru);
		TAILQ_INSERT_HEAD(&lru, g, lru);
	}
	g->busy++;
	*ret = g;
	return 0;
}

void gfd_unuse(struct gfd *g)
{
	g->busy--; // if it is retired, the next one to need room closes it
}

// --- host work ----------------------------------------------------------------------------------

struct io_work {
	struct host_work w;
	enum { IO_WRITE, IO_FSYNC, IO_DATASYNC, IO_FALLOC } kind;
	int fd, mode;
	void *buf;
	uint64_t off, len;
	ssize_t r;
};

static void io_fn(struct host_work *w)
{
	struct io_work *io = container_of(w, struct io_work, w);

	switch (io->kind) {
	case IO_WRITE:
		io->r = pwritev2(io->fd, &(struct iovec){io->buf, io->len}, 1, (off_t)io->off, io->mode);
		break;
	case IO_FSYNC:
		io->r = fsync(io->fd);
		break;
	case IO_DATASYNC:
		io->r = fdatasync(io->fd);
		break;
	case IO_FALLOC:
		io->r = fallocate(io->fd, io->mode, (off_t)io->off, (off_t)io->len);
		break;
	}
	if (io->r < 0)
		io->r = -errno;
}

static ssize_t io_run(struct io_work *io)
{
	io->w.fn = io_fn;
	host_work_run(&io->w);
	return io->r;
}

// The host cannot take the bytes at once (it waits for memory to be written back, or for blocks):
// another thread writes them.
static ssize_t write_slow(int fd, struct uio *u, int64_t pos, int rwf)
{
	struct io_work io = {.kind = IO_WRITE, .fd = fd, .mode = rwf, .buf = kalloc(MIN(u->resid, SLOW_CHUNK)), .off = (uint64_t)pos};
	ssize_t r;

	if (!io.buf)
		return -ENOMEM;
	r = uio_get(u, io.buf, MIN(u->resid, SLOW_CHUNK));
	if (r > 0) {
		io.len = (uint64_t)r;
		r = io_run(&io);
	}
	kfree(io.buf);
	return r;
}

// --- files --------------------------------------------------------------------------------------

static int reg_open(struct inode *inode, struct file *f)
{
	struct gfd *g;
	int r;

	if (f->mode & FMODE_WRITE) { // told now if it may not be written
		if (GSB(inode)->read_only)
			return -EROFS;
		r = gfd_use(GI(inode), true, &g);
		if (r)
			return r;
		gfd_unuse(g);
	}
	GI(inode)->opens++;
	return 0;
}

static void reg_release(struct file *f)
{
	GI(f->inode)->opens--;
}

static ssize_t reg_read(struct file *f, struct uio *u, int64_t *pos)
{
	uint64_t size = f->inode->size;
	size_t beyond = 0;
	struct gfd *g;
	ssize_t n;

	if (GSB(f->inode)->exclusive) { // the size is known: no need to ask the host for the end
		if ((uint64_t)*pos >= size)
			return 0;
		if (u->resid > size - (uint64_t)*pos)
			beyond = u->resid - (size - (uint64_t)*pos);
	}
	n = gfd_use(GI(f->inode), false, &g);
	if (n)
		return n;
	u->resid -= beyond;
	n = uio_file_read(u, g->fd, *pos);
	u->resid += beyond;
	gfd_unuse(g);
	if (n > 0)
		*pos += n;
	return n;
}

// What the host makes of a write it knows best: where appended data went, what was allocated.
static void write_done(struct file *f, const struct gfd *g, int64_t *pos)
{
	struct inode *inode = f->inode;
	struct stat st;

	if (fstat(g->fd, &st))
		return;
	inode->size = (uint64_t)st.st_size;
	inode->blocks = (uint64_t)st.st_blocks;
	inode->mtime = (struct ktime){st.st_mtim.tv_sec, (uint32_t)st.st_mtim.tv_nsec};
	inode->ctime = (struct ktime){st.st_ctim.tv_sec, (uint32_t)st.st_ctim.tv_nsec};
	if (f->flags & O_APPEND)
		*pos = st.st_size;
}

static ssize_t reg_write(struct file *f, struct uio *u, int64_t *pos)
{
	struct gofer_sb *gs = GSB(f->inode);
	int rwf = (f->flags & O_APPEND) ? RWF_APPEND : 0;
	ssize_t done = 0, n = 0;
	struct gfd *g;
	int r = gfd_use(GI(f->inode), true, &g);

	if (r)
		return r;
	klock_lock(&f->inode->lock);
	while (u->resid > 0) {
		n = uio_host_write(u, g->fd, *pos, rwf | (gs->no_nowait ? 0 : RWF_NOWAIT));
		if (n == -EOPNOTSUPP && !gs->no_nowait) {
			gs->no_nowait = true; // this host file system cannot tell
			continue;
		}
		if (n == -EAGAIN)
			n = write_slow(g->fd, u, *pos, rwf);
		if (n <= 0)
			break;
		*pos += n;
		done += n;
	}
	if (done)
		write_done(f, g, pos);
	klock_unlock(&f->inode->lock);
	gfd_unuse(g);
	return done ? done : n;
}

static int64_t reg_llseek(struct file *f, int64_t off, int whence)
{
	int r = gofer_getattr(f->inode);

	return r ? r : generic_llseek(f, off, whence, f->inode->size);
}

static int reg_map_fd(struct file *f, uint64_t off, uint64_t len, int prot, bool shared, int *ret_fd, uint64_t *ret_off)
{
	struct gfd *g;
	int r = gfd_use(GI(f->inode), shared && (prot & PROT_WRITE) && (f->mode & FMODE_WRITE), &g);

	if (r)
		return r;
	g->mapped_at = sched_now();
	gfd_unuse(g);
	*ret_fd = g->fd;
	*ret_off = off;
	return 0;
}

static int reg_fsync(struct file *f, bool datasync)
{
	struct io_work io = {.kind = datasync ? IO_DATASYNC : IO_FSYNC};
	struct gfd *g;
	int r;

	if (GSB(f->inode)->read_only)
		return 0;
	r = gfd_use(GI(f->inode), false, &g);
	if (r)
		return r;
	io.fd = g->fd;
	r = (int)io_run(&io);
	gfd_unuse(g);
	return r;
}

static int reg_fallocate(struct file *f, int mode, uint64_t off, uint64_t len)
{
	struct io_work io = {.kind = IO_FALLOC, .mode = mode, .off = off, .len = len};
	struct gfd *g;
	int r;

	if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		return -EOPNOTSUPP;
	r = gfd_use(GI(f->inode), true, &g);
	if (r)
		return r;
	io.fd = g->fd;
	r = (int)io_run(&io);
	gfd_unuse(g);
	GI(f->inode)->valid_until = 0;
	return r ? r : gofer_getattr(f->inode);
}

const struct file_ops gofer_reg_fops = {
	.open = reg_open,
	.release = reg_release,
	.read = reg_read,
	.write = reg_write,
	.llseek = reg_llseek,
	.map_fd = reg_map_fd,
	.fsync = reg_fsync,
	.fallocate = reg_fallocate,
};
