// What fcntl(2), tee(2) and splice(2) want of pipes.
#include <errno.h>
#include <fcntl.h>

#include "abi/linux/restart.h"
#include "platform/base/slab.h"
#include "sentry/fs/pipe/internal.h"

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
			recs[i] = *pipe_rec_at(p, i);
	}
	if (p->size > cap) {
		r = pipe_ring_resize(p, cap);
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
	pipe_total_cap += (uint64_t)cap - p->cap;
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
	cap = pipe_pow2(size);
	if (cap > p->cap && pipe_total_cap + cap - p->cap > PIPE_TOTAL_SOFT)
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
		r = pipe_ring_fill(b, &u, len, false, true);
		if (r < 0)
			break;
		done += r;
	}
	if (done)
		waitq_wake(&b->rd_wq, IN_EVENTS);
	klock_unlock(&b->lock);
	return done ? done : r;
}
