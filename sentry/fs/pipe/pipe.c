#include "sentry/fs/pipe/pipe.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "abi/linux/restart.h"
#include "platform/base/base.h"
#include "platform/base/slab.h"

#define PIPE_DEFAULT_CAP (16 * PAGE_SIZE)
#define PIPE_SMALL_CAP (2 * PAGE_SIZE)
#define IN_EVENTS (EPOLLIN | EPOLLRDNORM)
#define OUT_EVENTS (EPOLLOUT | EPOLLWRNORM)

struct pipe_rec {
	uint32_t len;
	bool packet;
};
struct pipe {
	struct klock lock;
	struct waitq rd_wq, wr_wq;
	char *buf;
	uint32_t size;      // of buf: a power of two, or 0
	uint32_t cap;       // what it may become; a power of two
	uint32_t head, used;
	unsigned readers, writers, files;
	unsigned r_counter, w_counter; // opens so far: FIFO opens wait for these to move
	bool anon;
	// NULL unless a packet is inside: then a ring of cap / PAGE_SIZE records that cover all bytes.
	struct pipe_rec *recs;
	uint32_t rec_head, nrecs;
};
DEFINE_SLAB(pipe_slab, struct pipe);

uint32_t pipe_max_size = 1U << 20;
static uint64_t total_cap;

static struct pipe *pipe_new(bool anon)
{
	struct pipe *p = SLAB_NEW(pipe_slab, struct pipe);

	if (!p)
		return NULL;
	klock_init(&p->lock);
	waitq_init(&p->rd_wq);
	waitq_init(&p->wr_wq);
	p->cap = total_cap + PIPE_DEFAULT_CAP > PIPE_TOTAL_SOFT ? PIPE_SMALL_CAP : PIPE_DEFAULT_CAP;
	p->anon = anon;
	total_cap += p->cap;
	return p;
}

static void pipe_free(struct pipe *p)
{
	total_cap -= p->cap;
	kfree(p->buf);
	kfree(p->recs);
	slab_free(&pipe_slab, p);
}

static void pipe_put(struct inode *inode, struct pipe *p)
{
	if (--p->files == 0) {
		inode->pipe = NULL;
		pipe_free(p);
	}
}

// --- the ring -------------------------------------------------------------------------------

static uint32_t pow2_at_least(uint32_t n)
{
	uint32_t r = PAGE_SIZE;

	while (r < n)
		r *= 2;
	return r;
}

// Moves the bytes to a buffer of `size` (a power of two, >= used).
static int ring_resize(struct pipe *p, uint32_t size)
{
	char *buf = kalloc(size);
	uint32_t first;

	if (!buf)
		return -ENOMEM;
	if (p->used) {
		first = MIN(p->used, p->size - p->head);
		memcpy(buf, p->buf + p->head, first);
		memcpy(buf + first, p->buf, p->used - first);
	}
	kfree(p->buf);
	p->buf = buf;
	p->size = size;
	p->head = 0;
	return 0;
}

static uint32_t max_recs(const struct pipe *p)
{
	return p->cap / PAGE_SIZE;
}

static struct pipe_rec *rec_at(struct pipe *p, uint32_t i)
{
	return &p->recs[(p->rec_head + i) % max_recs(p)];
}

// Bytes that can be added now.
static uint32_t pipe_room(const struct pipe *p, bool packet)
{
	if (unlikely(p->recs) && p->nrecs == max_recs(p) &&
	    (packet || rec_at((struct pipe *)p, p->nrecs - 1)->packet))
		return 0;
	return p->cap - p->used;
}

static bool pipe_full(const struct pipe *p)
{
	return pipe_room(p, false) < PIPE_BUF;
}

// From bytes alone to records, when the first packet comes.
static int recs_start(struct pipe *p)
{
	p->recs = kalloc(max_recs(p) * sizeof(*p->recs));
	if (!p->recs)
		return -ENOMEM;
	p->rec_head = p->nrecs = 0;
	if (p->used)
		p->recs[p->nrecs++] = (struct pipe_rec){p->used, false};
	return 0;
}

static void recs_add(struct pipe *p, uint32_t len, bool packet)
{
	if (!packet && p->nrecs && !rec_at(p, p->nrecs - 1)->packet)
		rec_at(p, p->nrecs - 1)->len += len;
	else
		*rec_at(p, p->nrecs++) = (struct pipe_rec){len, packet};
}

static void ring_consume(struct pipe *p, uint32_t n)
{
	p->used -= n;
	p->head = p->used ? (p->head + n) & (p->size - 1) : 0;
}

// Appends n bytes, for which there is room, from u: all of them, or what could be copied, -EFAULT if
// nothing. `all`: a part does not count.
static ssize_t ring_fill(struct pipe *p, struct uio *u, uint32_t n, bool packet, bool all)
{
	uint32_t done = 0, tail, chunk;
	ssize_t r;

	if (p->used + n > p->size) {
		int e = ring_resize(p, MIN(p->cap, pow2_at_least(p->used + n)));
		if (e)
			return e;
	}
	if (unlikely(packet) && !p->recs) {
		int e = recs_start(p);
		if (e)
			return e;
	}
	while (done < n) {
		tail = (p->head + p->used + done) & (p->size - 1);
		chunk = MIN(n - done, p->size - tail);
		r = uio_get(u, p->buf + tail, chunk);
		if (r <= 0)
			break;
		done += r;
		if ((uint32_t)r < chunk)
			break;
	}
	if (!done || (all && done < n))
		return -EFAULT;
	if (unlikely(p->recs))
		recs_add(p, done, packet);
	p->used += done;
	return done;
}

// Takes up to n bytes (at most one packet) to u. Bytes consumed from the guest's view, or -EFAULT.
static ssize_t ring_drain(struct pipe *p, struct uio *u, size_t n, bool *ret_packet)
{
	struct pipe_rec *rec = p->recs ? rec_at(p, 0) : NULL;
	uint32_t avail = rec ? rec->len : p->used, done = 0, chunk, from;
	ssize_t r;

	n = MIN(n, avail);
	while (done < n) {
		from = (p->head + done) & (p->size - 1);
		chunk = MIN(n - done, p->size - from);
		r = uio_put(u, p->buf + from, chunk);
		if (r <= 0)
			break;
		done += r;
		if ((uint32_t)r < chunk)
			break;
	}
	if (n && !done)
		return -EFAULT;
	*ret_packet = rec && rec->packet;
	if (rec) {
		uint32_t taken = rec->packet ? rec->len : done;

		ring_consume(p, taken);
		rec->len -= taken;
		if (!rec->len) {
			p->rec_head = (p->rec_head + 1) % max_recs(p);
			p->nrecs--;
		}
		if (!p->used) {
			kfree(p->recs);
			p->recs = NULL;
		}
	} else {
		ring_consume(p, done);
	}
	return done;
}

// --- read and write ---------------------------------------------------------------------------

static ssize_t pipe_read(struct file *f, struct uio *u, int64_t *pos)
{
	struct pipe *p = f->priv;
	ssize_t ret = 0, r = 0;
	bool was_full, packet = false;

	if (!u->resid)
		return 0;
	klock_lock(&p->lock);
	for (;;) {
		if (p->used) {
			was_full = pipe_full(p);
			r = ring_drain(p, u, u->resid, &packet);
			if (was_full && !pipe_full(p))
				waitq_wake(&p->wr_wq, OUT_EVENTS);
			if (r < 0)
				break;
			ret += r;
			if (packet || !u->resid)
				break;
			continue;
		}
		if (ret || !p->writers)
			break;
		if (f->flags & O_NONBLOCK) {
			r = -EAGAIN;
			break;
		}
		klock_unlock(&p->lock);
		if (wait_event(&p->rd_wq, p->used || !p->writers))
			return -ERESTARTSYS;
		klock_lock(&p->lock);
	}
	klock_unlock(&p->lock);
	return ret ? ret : r;
}

static ssize_t pipe_write(struct file *f, struct uio *u, int64_t *pos)
{
	struct pipe *p = f->priv;
	bool packet = f->flags & O_DIRECT, atomic = u->resid <= PIPE_BUF;
	uint32_t need = atomic ? u->resid : 1, room;
	ssize_t ret = 0, r = 0;

	if (!u->resid)
		return 0;
	klock_lock(&p->lock);
	for (;;) {
		if (!p->readers) {
			vfs_self()->epipe();
			r = -EPIPE;
			break;
		}
		room = pipe_room(p, packet);
		if (room >= need) {
			room = MIN(u->resid, (size_t)room);
			if (packet)
				room = MIN(room, (uint32_t)PIPE_BUF);
			r = ring_fill(p, u, room, packet, atomic);
			if (r < 0)
				break;
			ret += r;
			if (!u->resid || r < (ssize_t)room)
				break;
			continue;
		}
		if (f->flags & O_NONBLOCK) {
			r = -EAGAIN;
			break;
		}
		waitq_wake(&p->rd_wq, IN_EVENTS);
		klock_unlock(&p->lock);
		r = wait_event(&p->wr_wq, pipe_room(p, packet) >= need || !p->readers);
		if (r)
			return ret ? ret : -ERESTARTSYS;
		klock_lock(&p->lock);
	}
	if (ret > 0)
		waitq_wake(&p->rd_wq, IN_EVENTS);
	klock_unlock(&p->lock);
	return ret ? ret : r;
}

static uint32_t pipe_poll(struct file *f, struct poll_table *pt)
{
	struct pipe *p = f->priv;
	uint32_t mask = 0;

	if (f->mode & FMODE_READ) {
		if (pt)
			pt->queue(pt, &p->rd_wq);
		if (p->used)
			mask |= IN_EVENTS;
		// pos: see fifo_open. A reader that came before any writer has nobody that could have hung up.
		if (!p->writers && f->pos != p->w_counter)
			mask |= EPOLLHUP;
	}
	if (f->mode & FMODE_WRITE) {
		if (pt)
			pt->queue(pt, &p->wr_wq);
		if (!pipe_full(p))
			mask |= OUT_EVENTS;
		if (!p->readers)
			mask |= EPOLLERR;
	}
	return mask;
}

static int64_t pipe_ioctl(struct file *f, unsigned cmd, uint64_t arg)
{
	struct pipe *p = f->priv;
	int n;

	switch (cmd) {
	case FIONREAD:
		n = p->used;
		return copy_out_obj(GADDR(arg), &n);
	default:
		return -ENOTTY;
	}
}

// --- open and close ---------------------------------------------------------------------------

static void pipe_wake_both(struct pipe *p)
{
	waitq_wake_all(&p->rd_wq, 0);
	waitq_wake_all(&p->wr_wq, 0);
}

static void pipe_release(struct file *f)
{
	struct pipe *p = f->priv;
	bool last = false;

	if (!p)
		return;
	if (f->mode & FMODE_READ)
		last |= --p->readers == 0;
	if (f->mode & FMODE_WRITE)
		last |= --p->writers == 0;
	if (last)
		pipe_wake_both(p);
	pipe_put(f->inode, p);
}

static int wait_for_partner(struct pipe *p, struct waitq *wq, const unsigned *counter)
{
	unsigned seen = *counter;

	return wait_event(wq, *counter != seen) ? -ERESTARTSYS : 0;
}

static int fifo_open_read(struct pipe *p, struct file *f)
{
	p->r_counter++;
	if (p->readers++ == 0)
		waitq_wake_all(&p->wr_wq, 0);
	if (p->anon || p->writers)
		return 0;
	if (f->flags & O_NONBLOCK) {
		f->pos = p->w_counter; // no hang-up is shown before a writer has been here
		return 0;
	}
	return wait_for_partner(p, &p->rd_wq, &p->w_counter);
}

static int fifo_open_write(struct pipe *p, struct file *f)
{
	if (!p->anon && f->flags & O_NONBLOCK && !p->readers)
		return -ENXIO;
	p->w_counter++;
	if (p->writers++ == 0)
		waitq_wake_all(&p->rd_wq, 0);
	if (p->anon || p->readers)
		return 0;
	return wait_for_partner(p, &p->wr_wq, &p->r_counter);
}

// The position, which a pipe has no use for, keeps what w_counter was when a FIFO was opened for
// reading without a writer; -1 otherwise.
static int fifo_open(struct inode *inode, struct file *f)
{
	struct pipe *p = inode->pipe;
	bool rd = f->mode & FMODE_READ, wr = f->mode & FMODE_WRITE;
	int r = 0;

	if (!rd && !wr)
		return -EINVAL;
	if (!p) {
		p = pipe_new(false);
		if (!p)
			return -ENOMEM;
		inode->pipe = p;
	}
	p->files++;
	f->pos = -1;
	if (rd && wr) {
		p->r_counter++;
		p->w_counter++;
		if (p->readers++ == 0)
			waitq_wake_all(&p->wr_wq, 0);
		if (p->writers++ == 0)
			waitq_wake_all(&p->rd_wq, 0);
	} else if (rd) {
		r = fifo_open_read(p, f);
		if (r && --p->readers == 0)
			pipe_wake_both(p);
	} else {
		r = fifo_open_write(p, f);
		if (r == -ERESTARTSYS && --p->writers == 0)
			pipe_wake_both(p);
	}
	if (r) {
		pipe_put(inode, p);
		return r;
	}
	f->priv = p;
	return 0;
}

const struct file_ops pipe_fops = {
	.open = fifo_open,
	.release = pipe_release,
	.read = pipe_read,
	.write = pipe_write,
	.poll = pipe_poll,
	.ioctl = pipe_ioctl,
	.flags = FOP_STREAM,
};

int pipe_create(unsigned flags, struct file *ret_files[2])
{
	struct inode *inode = anon_inode_new(S_IFIFO | 0600);
	struct pipe *p = inode ? pipe_new(true) : NULL;
	struct file *files[2] = {};
	char name[32];
	int r;

	if (!p) {
		inode_put(inode);
		return -ENOMEM;
	}
	p->files = p->readers = p->writers = 1; // files: ours until both ends are there
	p->r_counter = p->w_counter = 1;
	inode->pipe = p;
	snprintf(name, sizeof(name), "pipe:[%llu]", (unsigned long long)inode->ino);
	r = file_new_anon(name, inode_get(inode), &pipe_fops, O_RDONLY | (flags & (O_NONBLOCK | O_DIRECT)), NULL, &files[0]);
	if (!r) {
		files[0]->priv = p;
		files[0]->pos = -1;
		p->files++;
		r = file_new_anon(name, inode_get(inode), &pipe_fops, O_WRONLY | (flags & (O_NONBLOCK | O_DIRECT)), NULL, &files[1]);
	}
	if (!r) {
		files[1]->priv = p;
		p->files++;
		memcpy(ret_files, files, sizeof(files));
	} else {
		file_put(files[0]);
	}
	pipe_put(inode, p);
	inode_put(inode);
	return r;
}

void pipe_fs_init(void)
{
	vfs_fifo_ops = &pipe_fops;
}

// --- fcntl, tee, splice -------------------------------------------------------------------------

bool file_is_pipe(const struct file *f)
{
	return f->ops == &pipe_fops;
}

int64_t pipe_get_size(struct file *f)
{
	return file_is_pipe(f) ? (int64_t)((struct pipe *)f->priv)->cap : -EBADF;
}

static int pipe_resize(struct pipe *p, uint32_t cap)
{
	struct pipe_rec *recs = NULL;
	int r;

	if (p->used > cap || (p->recs && p->nrecs > cap / PAGE_SIZE))
		return -EBUSY;
	if (p->recs) {
		recs = kalloc(cap / PAGE_SIZE * sizeof(*recs));
		if (!recs)
			return -ENOMEM;
		for (uint32_t i = 0; i < p->nrecs; i++)
			recs[i] = *rec_at(p, i);
	}
	if (p->size > cap) {
		r = ring_resize(p, cap);
		if (r) {
			kfree(recs);
			return r;
		}
	}
	if (recs) {
		kfree(p->recs);
		p->recs = recs;
		p->rec_head = 0;
	}
	total_cap += (uint64_t)cap - p->cap;
	p->cap = cap;
	return 0;
}

int64_t pipe_set_size(struct file *f, uint64_t size, bool privileged)
{
	struct pipe *p = f->priv;
	uint32_t cap;
	bool was_full;
	int r;

	if (!file_is_pipe(f))
		return -EBADF;
	if (size > 1U << 31)
		return -EINVAL;
	// Linux lets a privileged process go beyond; here the memory is the sentry's, and there is an end.
	if (size > (privileged ? 64U << 20 : pipe_max_size))
		return -EPERM;
	cap = pow2_at_least(size);
	if (cap > p->cap && total_cap + cap - p->cap > PIPE_TOTAL_SOFT)
		return -EPERM;
	klock_lock(&p->lock);
	was_full = pipe_full(p);
	r = pipe_resize(p, cap);
	if (!r && was_full && !pipe_full(p))
		waitq_wake(&p->wr_wq, OUT_EVENTS);
	klock_unlock(&p->lock);
	return r ? r : (int64_t)cap;
}

size_t pipe_used(const struct file *f)
{
	const struct pipe *p = f->priv;

	return p->used;
}

size_t pipe_room_now(const struct file *f)
{
	return pipe_room(f->priv, f->flags & O_DIRECT);
}

int pipe_wait_readable(struct file *in, bool nonblock)
{
	struct pipe *p = in->priv;

	if (p->used || !p->writers)
		return 0;
	if (nonblock)
		return -EAGAIN;
	return wait_event(&p->rd_wq, p->used || !p->writers) ? -ERESTARTSYS : 0;
}

int pipe_wait_writable(struct file *out, bool nonblock)
{
	struct pipe *p = out->priv;

	if (p->readers && pipe_full(p)) {
		if (nonblock)
			return -EAGAIN;
		if (wait_event(&p->wr_wq, !pipe_full(p) || !p->readers))
			return -ERESTARTSYS;
	}
	if (!p->readers) {
		vfs_self()->epipe();
		return -EPIPE;
	}
	return 0;
}

ssize_t pipe_tee(struct file *in, struct file *out, size_t n, bool nonblock)
{
	struct pipe *a = in->priv, *b = out->priv;
	uint32_t first;
	struct uio u;
	ssize_t r, done = 0;

	if (a == b)
		return -EINVAL;
	for (;;) {
		r = pipe_wait_readable(in, nonblock);
		if (!r)
			r = pipe_wait_writable(out, nonblock);
		if (r)
			return r;
		klock_lock(&b->lock);
		// Kernel memory on both sides: nothing waits from here on.
		if (a->used && !pipe_full(b) && b->readers)
			break;
		klock_unlock(&b->lock);
		if (!a->used && !a->writers)
			return 0;
	}
	n = MIN(n, (size_t)a->used);
	n = MIN(n, (size_t)pipe_room(b, false));
	first = MIN(n, (size_t)(a->size - a->head));
	for (int i = 0; i < 2 && n; i++) {
		size_t len = i ? n - first : first;

		if (!len)
			continue;
		u = uio_kernel(i ? a->buf : a->buf + a->head, len);
		r = ring_fill(b, &u, len, false, true);
		if (r < 0)
			break;
		done += r;
	}
	if (done)
		waitq_wake(&b->rd_wq, IN_EVENTS);
	klock_unlock(&b->lock);
	return done ? done : r;
}
