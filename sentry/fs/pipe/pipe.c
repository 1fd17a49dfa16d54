// Pipes and FIFOs: reading, writing, polling, opening.
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "abi/linux/restart.h"
#include "platform/base/base.h"
#include "platform/base/slab.h"
#include "sentry/fs/pipe/internal.h"

#define PIPE_DEFAULT_CAP (16 * PAGE_SIZE)
#define PIPE_SMALL_CAP (2 * PAGE_SIZE)

DEFINE_SLAB(pipe_slab, struct pipe);

uint32_t pipe_max_size = 1U << 20;
uint64_t pipe_total_cap;

static struct pipe *pipe_new(bool anon)
{
	struct pipe *p = SLAB_NEW(pipe_slab, struct pipe);

	if (!p)
		return NULL;
	klock_init(&p->lock);
	waitq_init(&p->rd_wq);
	waitq_init(&p->wr_wq);
	p->cap = pipe_total_cap + PIPE_DEFAULT_CAP > PIPE_TOTAL_SOFT ? PIPE_SMALL_CAP : PIPE_DEFAULT_CAP;
	p->anon = anon;
	pipe_total_cap += p->cap;
	return p;
}

static void pipe_free(struct pipe *p)
{
	pipe_total_cap -= p->cap;
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
			r = pipe_ring_drain(p, u, u->resid, &packet);
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
			r = pipe_ring_fill(p, u, room, packet, atomic);
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
