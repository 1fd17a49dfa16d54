// The bytes in a pipe, and the records that say where packets end.
#include <errno.h>

#include "platform/base/slab.h"
#include "sentry/fs/pipe/internal.h"

uint32_t pipe_pow2(uint32_t n)
{
	uint32_t r = PAGE_SIZE;

	while (r < n)
		r *= 2;
	return r;
}

int pipe_ring_resize(struct pipe *p, uint32_t size)
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

// From bytes alone to records, when the first packet comes.
static int recs_start(struct pipe *p)
{
	p->recs = kalloc(pipe_max_recs(p) * sizeof(*p->recs));
	if (!p->recs)
		return -ENOMEM;
	p->rec_head = p->nrecs = 0;
	if (p->used)
		p->recs[p->nrecs++] = (struct pipe_rec){p->used, false};
	return 0;
}

static void recs_add(struct pipe *p, uint32_t len, bool packet)
{
	if (!packet && p->nrecs && !pipe_rec_at(p, p->nrecs - 1)->packet)
		pipe_rec_at(p, p->nrecs - 1)->len += len;
	else
		*pipe_rec_at(p, p->nrecs++) = (struct pipe_rec){len, packet};
}

static void ring_consume(struct pipe *p, uint32_t n)
{
	p->used -= n;
	p->head = p->used ? (p->head + n) & (p->size - 1) : 0;
}

ssize_t pipe_ring_fill(struct pipe *p, struct uio *u, uint32_t n, bool packet, bool all)
{
	uint32_t done = 0, tail, chunk;
	ssize_t r;

	if (p->used + n > p->size) {
		int e = pipe_ring_resize(p, MIN(p->cap, pipe_pow2(p->used + n)));
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

ssize_t pipe_ring_drain(struct pipe *p, struct uio *u, size_t n, bool *ret_packet)
{
	struct pipe_rec *rec = p->recs ? pipe_rec_at(p, 0) : NULL;
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
			p->rec_head = (p->rec_head + 1) % pipe_max_recs(p);
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
