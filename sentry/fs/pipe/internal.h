// What the files of the room share.
#pragma once
#include <limits.h>
#include <sys/epoll.h>

#include "platform/base/base.h"
#include "sentry/fs/pipe/pipe.h"

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
extern uint64_t pipe_total_cap; // of all pipes

static inline uint32_t pipe_max_recs(const struct pipe *p)
{
	return p->cap / PAGE_SIZE;
}

static inline struct pipe_rec *pipe_rec_at(struct pipe *p, uint32_t i)
{
	return &p->recs[(p->rec_head + i) % pipe_max_recs(p)];
}

// Bytes that can be added now.
static inline uint32_t pipe_room(const struct pipe *p, bool packet)
{
	if (unlikely(p->recs) && p->nrecs == pipe_max_recs(p) &&
	    (packet || pipe_rec_at((struct pipe *)p, p->nrecs - 1)->packet))
		return 0;
	return p->cap - p->used;
}

static inline bool pipe_full(const struct pipe *p)
{
	return pipe_room(p, false) < PIPE_BUF;
}

// ring.c. The caller holds p->lock, except where the copy is between kernel buffers.
uint32_t pipe_pow2(uint32_t n); // the power of two that holds n bytes, at least a page
// Moves the bytes to a buffer of `size` (a power of two, >= used). -ENOMEM.
int pipe_ring_resize(struct pipe *p, uint32_t size);
// Appends n bytes, for which there is room, from u: all of them, or what could be copied, -EFAULT if
// nothing. `all`: a part does not count. -ENOMEM.
ssize_t pipe_ring_fill(struct pipe *p, struct uio *u, uint32_t n, bool packet, bool all);
// Takes up to n bytes (at most one packet) to u. Bytes given, or -EFAULT.
ssize_t pipe_ring_drain(struct pipe *p, struct uio *u, size_t n, bool *ret_packet);
