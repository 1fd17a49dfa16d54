#include "sentry/fs/eventfd/eventfd.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>

#include "abi/linux/restart.h"
#include "platform/base/base.h"
#include "platform/base/slab.h"

struct eventfd {
	struct waitq wq;
	uint64_t count;
	bool semaphore; // never changes
	int id;
};
DEFINE_SLAB(eventfd_slab, struct eventfd);
static int last_id;

static ssize_t eventfd_read(struct file *f, struct uio *u, int64_t *pos)
{
	struct eventfd *e = f->priv;
	uint64_t v;
	ssize_t r;

	if (u->resid < sizeof(v))
		return -EINVAL;
	if (!e->count) {
		if (f->flags & O_NONBLOCK)
			return -EAGAIN;
		if (wait_event(&e->wq, e->count))
			return -ERESTARTSYS;
	}
	v = e->semaphore ? 1 : e->count;
	e->count -= v;
	waitq_wake(&e->wq, EPOLLOUT | EPOLLWRNORM);
	r = uio_put(u, &v, sizeof(v));
	return r == sizeof(v) ? r : -EFAULT;
}

static ssize_t eventfd_write(struct file *f, struct uio *u, int64_t *pos)
{
	struct eventfd *e = f->priv;
	uint64_t v;

	if (u->resid < sizeof(v))
		return -EINVAL;
	if (uio_get(u, &v, sizeof(v)) != sizeof(v))
		return -EFAULT;
	if (v == UINT64_MAX)
		return -EINVAL;
	if (UINT64_MAX - e->count <= v) {
		if (f->flags & O_NONBLOCK)
			return -EAGAIN;
		if (wait_event(&e->wq, UINT64_MAX - e->count > v))
			return -ERESTARTSYS;
	}
	e->count += v;
	waitq_wake(&e->wq, EPOLLIN | EPOLLRDNORM);
	return sizeof(v);
}

static uint32_t eventfd_poll(struct file *f, struct poll_table *pt)
{
	struct eventfd *e = f->priv;
	uint32_t mask = 0;

	if (pt)
		pt->queue(pt, &e->wq);
	if (e->count)
		mask |= EPOLLIN;
	if (e->count == UINT64_MAX)
		mask |= EPOLLERR;
	if (e->count < UINT64_MAX - 1)
		mask |= EPOLLOUT;
	return mask;
}

static void eventfd_release(struct file *f)
{
	slab_free(&eventfd_slab, f->priv);
}

static void eventfd_fdinfo(struct file *f, char *buf, size_t size)
{
	struct eventfd *e = f->priv;

	snprintf(buf, size, "eventfd-count: %16llx\neventfd-id: %d\neventfd-semaphore: %d\n", (unsigned long long)e->count,
		 e->id, e->semaphore);
}

static const struct file_ops eventfd_fops = {
	.release = eventfd_release,
	.read = eventfd_read,
	.write = eventfd_write,
	.poll = eventfd_poll,
	.show_fdinfo = eventfd_fdinfo,
	.flags = FOP_STREAM,
};

int eventfd_create(uint32_t initval, bool semaphore, unsigned flags, struct file **ret)
{
	struct eventfd *e = SLAB_NEW(eventfd_slab, struct eventfd);
	int r;

	if (!e)
		return -ENOMEM;
	waitq_init(&e->wq);
	e->count = initval;
	e->semaphore = semaphore;
	e->id = last_id++;
	r = file_new_anon("anon_inode:[eventfd]", NULL, &eventfd_fops, O_RDWR | flags, e, ret);
	if (r)
		slab_free(&eventfd_slab, e);
	return r;
}

bool eventfd_signal(struct file *f, uint64_t n)
{
	struct eventfd *e = f->priv;
	bool fits = UINT64_MAX - e->count > n;

	e->count = fits ? e->count + n : UINT64_MAX;
	waitq_wake(&e->wq, EPOLLIN | EPOLLRDNORM | (fits ? 0 : EPOLLERR));
	return fits;
}

bool file_is_eventfd(const struct file *f)
{
	return f->ops == &eventfd_fops;
}
