#include "sentry/fs/epoll/epoll.h"

#include <bsd/sys/tree.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>

#include "platform/base/base.h"
#include "platform/base/slab.h"

#ifndef __unused // what libbsd's tree.h wants
#define __unused __attribute__((unused))
#endif

#define EP_MAX_NESTS 4
#define EP_MAX_ITEMS (1U << 20) // of the whole sandbox: items are the sentry's memory
#define EP_PRIVATE (EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE)
#define EP_EXCLUSIVE_OK (EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE)
#define EP_BATCH 64

struct epoll;
TAILQ_HEAD(ep_ready, epoll_item);
struct ep_wait { // one wait queue of an item's file
	struct wait_entry e;
	struct epoll_item *item;
	struct ep_wait *next;
};
struct epoll_item {
	RB_ENTRY(epoll_item) node;
	TAILQ_ENTRY(epoll_item) ready_link, file_link;
	struct epoll *ep;
	struct file *file; // not counted: the item goes with it
	int fd;
	bool ready;        // on ep->ready
	uint32_t events;   // with EPOLLERR|EPOLLHUP; only EP_PRIVATE bits: disarmed (one shot)
	uint64_t data;
	struct ep_wait first, *more;
};
struct epoll {
	struct waitq wq;      // epoll_wait()
	struct waitq poll_wq; // who polls the epoll descriptor
	RB_HEAD(ep_tree, epoll_item) items;
	struct ep_ready ready;
	struct file *file;    // the instance's own, not counted: ep goes with it
	uint32_t visit;       // the last loop check that came by, and what it found
	int depth;
};
DEFINE_SLAB(epoll_slab, struct epoll);
DEFINE_SLAB(item_slab, struct epoll_item);
DEFINE_SLAB(ep_wait_slab, struct ep_wait);
static uint32_t nitems;
static const struct file_ops epoll_fops;

static int item_cmp(const struct epoll_item *a, const struct epoll_item *b)
{
	if (a->file != b->file)
		return a->file < b->file ? -1 : 1;
	return (a->fd > b->fd) - (a->fd < b->fd);
}
RB_GENERATE_STATIC(ep_tree, epoll_item, node, item_cmp)

static struct epoll_item *item_find(struct epoll *ep, struct file *file, int fd)
{
	struct epoll_item key = {.file = file, .fd = fd};

	return RB_FIND(ep_tree, &ep->items, &key);
}

static void ready_add(struct epoll_item *it)
{
	if (it->ready)
		return;
	it->ready = true;
	TAILQ_INSERT_TAIL(&it->ep->ready, it, ready_link);
}

static void ready_del(struct epoll_item *it)
{
	if (!it->ready)
		return;
	it->ready = false;
	TAILQ_REMOVE(&it->ep->ready, it, ready_link);
}

static void ep_wake(struct epoll *ep)
{
	waitq_wake(&ep->wq, 0);
	waitq_wake(&ep->poll_wq, EPOLLIN | EPOLLRDNORM);
}

// --- items --------------------------------------------------------------------------------------

// Something happened at the file. For EPOLLEXCLUSIVE the answer says whether somebody was there to
// take it.
static bool item_wake(struct wait_entry *e, uint32_t events)
{
	struct epoll_item *it = container_of(e, struct ep_wait, e)->item;
	struct epoll *ep = it->ep;
	bool taken = !(it->events & EPOLLEXCLUSIVE), waiting = !waitq_empty(&ep->wq);

	if (!(it->events & ~EP_PRIVATE) || (events && !(events & it->events)))
		return false;
	if (waiting && !taken) {
		uint32_t inout = events & (EPOLLIN | EPOLLOUT);

		taken = inout == 0 || (inout != (EPOLLIN | EPOLLOUT) && (inout & it->events));
	}
	ready_add(it);
	ep_wake(ep);
	return taken;
}

struct item_pt {
	struct poll_table pt;
	struct epoll_item *item;
	bool failed;
};

static void item_queue(struct poll_table *pt, struct waitq *wq)
{
	struct item_pt *ip = container_of(pt, struct item_pt, pt);
	struct epoll_item *it = ip->item;
	struct ep_wait *w = &it->first;

	if (w->e.wq) {
		w = SLAB_NEW(ep_wait_slab, struct ep_wait);
		if (!w) {
			ip->failed = true;
			return;
		}
		w->next = it->more;
		it->more = w;
	}
	w->item = it;
	w->e = (struct wait_entry){.wake = item_wake, .exclusive = it->events & EPOLLEXCLUSIVE};
	waitq_add(wq, &w->e);
}

static void item_free(struct epoll_item *it)
{
	struct ep_wait *w;

	waitq_remove(&it->first.e);
	while ((w = it->more)) {
		it->more = w->next;
		waitq_remove(&w->e);
		slab_free(&ep_wait_slab, w);
	}
	ready_del(it);
	TAILQ_REMOVE(&it->file->epolls, it, file_link);
	RB_REMOVE(ep_tree, &it->ep->items, it);
	slab_free(&item_slab, it);
	nitems--;
}

static uint32_t item_poll(struct epoll_item *it)
{
	return file_poll(it->file, NULL) & it->events;
}

// A file is going, and with it every watch on it, whatever the descriptor was.
static void epoll_file_gone(struct file *f)
{
	struct epoll_item *it;

	while ((it = TAILQ_FIRST(&f->epolls)))
		item_free(it);
}

// --- loops (epoll in epoll) -----------------------------------------------------------------------

// How deep the instances below ep are nested; more than EP_MAX_NESTS if `seek` is among them. Each is
// looked at once a check.
static int depth_below(struct epoll *ep, const struct epoll *seek, int nest, uint32_t visit)
{
	struct epoll_item *it;
	int deepest = 0, d;

	if (ep == seek || nest > EP_MAX_NESTS)
		return EP_MAX_NESTS + 1;
	if (ep->visit == visit)
		return ep->depth;
	RB_FOREACH(it, ep_tree, &ep->items) {
		if (!file_is_epoll(it->file))
			continue;
		d = depth_below(it->file->priv, seek, nest + 1, visit) + 1;
		deepest = MAX(deepest, d);
		if (deepest > EP_MAX_NESTS)
			break;
	}
	ep->visit = visit;
	ep->depth = deepest;
	return deepest;
}

// How many instances stand above ep, the longest way up.
static int height_above(struct epoll *ep, int nest, uint32_t visit)
{
	struct epoll_item *it;
	int highest = 0, h;

	if (nest > EP_MAX_NESTS)
		return EP_MAX_NESTS + 1;
	if (ep->visit == visit)
		return ep->depth;
	TAILQ_FOREACH(it, &ep->file->epolls, file_link) {
		h = height_above(it->ep, nest + 1, visit) + 1;
		highest = MAX(highest, h);
	}
	ep->visit = visit;
	ep->depth = highest;
	return highest;
}

static bool nests_too_deep(struct epoll *ep, struct epoll *target)
{
	static uint32_t visit;
	int d = depth_below(target, ep, 0, ++visit);

	return d > EP_MAX_NESTS || d + 1 + height_above(ep, 0, ++visit) > EP_MAX_NESTS;
}

// --- epoll_ctl ------------------------------------------------------------------------------------

static int item_add(struct epoll *ep, struct file *file, int fd, uint32_t events, uint64_t data)
{
	struct epoll_item *it;
	struct item_pt ip = {.pt.queue = item_queue};
	uint32_t got;

	if (nitems >= EP_MAX_ITEMS)
		return -ENOSPC;
	it = SLAB_NEW(item_slab, struct epoll_item);
	if (!it)
		return -ENOMEM;
	nitems++;
	it->ep = ep;
	it->file = file;
	it->fd = fd;
	it->events = events;
	it->data = data;
	RB_INSERT(ep_tree, &ep->items, it);
	TAILQ_INSERT_TAIL(&file->epolls, it, file_link);
	ip.item = it;
	got = file_poll(file, &ip.pt) & it->events;
	if (ip.failed) {
		item_free(it);
		return -ENOMEM;
	}
	if (got) {
		ready_add(it);
		ep_wake(ep);
	}
	return 0;
}

static int item_mod(struct epoll_item *it, uint32_t events, uint64_t data)
{
	it->events = events;
	it->data = data;
	if (item_poll(it)) {
		ready_add(it);
		ep_wake(it->ep);
	}
	return 0;
}

static int check_exclusive(int op, uint32_t events, const struct file *target)
{
	if (!(events & EPOLLEXCLUSIVE))
		return 0;
	if (op == EPOLL_CTL_MOD)
		return -EINVAL;
	if (op == EPOLL_CTL_ADD && (file_is_epoll(target) || events & ~EP_EXCLUSIVE_OK))
		return -EINVAL;
	return 0;
}

int epoll_control(struct file *epf, int op, int fd, struct file *target, const struct abi_epoll_event *ev)
{
	struct epoll *ep = epf->priv;
	struct epoll_item *it;
	uint32_t events = ev ? ev->events | EPOLLERR | EPOLLHUP : 0;
	int r;

	if (!target->ops->poll)
		return -EPERM;
	if (target == epf || !file_is_epoll(epf))
		return -EINVAL;
	r = check_exclusive(op, events, target);
	if (r)
		return r;
	if (op == EPOLL_CTL_ADD && file_is_epoll(target) && nests_too_deep(ep, target->priv))
		return -ELOOP;
	it = item_find(ep, target, fd);
	switch (op) {
	case EPOLL_CTL_ADD:
		return it ? -EEXIST : item_add(ep, target, fd, events, ev->data);
	case EPOLL_CTL_DEL:
		if (!it)
			return -ENOENT;
		item_free(it);
		return 0;
	case EPOLL_CTL_MOD:
		if (!it)
			return -ENOENT;
		if (it->events & EPOLLEXCLUSIVE)
			return -EINVAL;
		return item_mod(it, events, ev->data);
	default:
		return -EINVAL;
	}
}

// --- epoll_wait -----------------------------------------------------------------------------------

// Takes up to max events off the ready list. Level-triggered items go to its end again.
static int collect(struct epoll *ep, struct abi_epoll_event *out, int max)
{
	struct ep_ready again = TAILQ_HEAD_INITIALIZER(again);
	struct epoll_item *it;
	uint32_t events;
	int n = 0;

	while (n < max && (it = TAILQ_FIRST(&ep->ready))) {
		TAILQ_REMOVE(&ep->ready, it, ready_link);
		it->ready = false;
		events = item_poll(it);
		if (!events)
			continue;
		out[n++] = (struct abi_epoll_event){events, it->data};
		if (it->events & EPOLLONESHOT) {
			it->events &= EP_PRIVATE;
		} else if (!(it->events & EPOLLET) && !it->ready) {
			it->ready = true;
			TAILQ_INSERT_TAIL(&again, it, ready_link);
		}
	}
	TAILQ_CONCAT(&ep->ready, &again, ready_link);
	return n;
}

static int send_events(struct epoll *ep, struct gaddr out, int max)
{
	struct abi_epoll_event few[EP_BATCH], *buf = few;
	int n, cap = EP_BATCH;

	if (TAILQ_EMPTY(&ep->ready))
		return 0;
	if (max > EP_BATCH) {
		buf = kalloc(MIN(max, 4096) * sizeof(*buf));
		cap = buf ? 4096 : EP_BATCH;
		buf = buf ?: few;
	}
	n = collect(ep, buf, MIN(max, cap));
	if (!TAILQ_EMPTY(&ep->ready) && !waitq_empty(&ep->wq))
		waitq_wake(&ep->wq, 0); // there is more, for the next waiter
	if (n && copy_out(out, buf, n * sizeof(*buf)))
		n = -EFAULT;
	if (buf != few)
		kfree(buf);
	return n;
}

int epoll_fd_wait(struct file *epf, struct gaddr out, int max, nsec_t deadline)
{
	struct epoll *ep = epf->priv;
	int n, r = 0;

	for (;;) {
		n = send_events(ep, out, max);
		if (n || r == -ETIMEDOUT || !deadline)
			return n;
		if (r)
			return r;
		r = waitq_sleep_exclusive(&ep->wq, WAIT_INTERRUPTIBLE, deadline);
	}
}

// --- the file ---------------------------------------------------------------------------------------

// Drops from the ready list what is not ready any more, until one is.
static uint32_t epoll_poll(struct file *f, struct poll_table *pt)
{
	struct epoll *ep = f->priv;
	struct epoll_item *it;

	if (pt)
		pt->queue(pt, &ep->poll_wq);
	while ((it = TAILQ_FIRST(&ep->ready))) {
		if (item_poll(it))
			return EPOLLIN | EPOLLRDNORM;
		ready_del(it);
	}
	return 0;
}

static void epoll_release(struct file *f)
{
	struct epoll *ep = f->priv;
	struct epoll_item *it;

	while ((it = RB_MIN(ep_tree, &ep->items)))
		item_free(it);
	slab_free(&epoll_slab, ep);
}

static void epoll_fdinfo(struct file *f, char *buf, size_t size)
{
	struct epoll *ep = f->priv;
	struct epoll_item *it;
	size_t n = 0;

	RB_FOREACH(it, ep_tree, &ep->items) {
		if (size - n < 96)
			break;
		n += snprintf(buf + n, size - n, "tfd: %8d events: %8x data: %16llx  pos:%lli ino:%llx sdev:%llx\n", it->fd,
			      it->events, (unsigned long long)it->data, (long long)it->file->pos,
			      (unsigned long long)it->file->inode->ino, (unsigned long long)it->file->inode->sb->dev);
	}
}

static const struct file_ops epoll_fops = {
	.release = epoll_release,
	.poll = epoll_poll,
	.show_fdinfo = epoll_fdinfo,
	.flags = FOP_STREAM,
};

int epoll_create_file(struct file **ret)
{
	struct epoll *ep = SLAB_NEW(epoll_slab, struct epoll);
	int r;

	if (!ep)
		return -ENOMEM;
	waitq_init(&ep->wq);
	waitq_init(&ep->poll_wq);
	RB_INIT(&ep->items);
	TAILQ_INIT(&ep->ready);
	r = file_new_anon("anon_inode:[eventpoll]", NULL, &epoll_fops, O_RDWR, ep, &ep->file);
	if (r) {
		slab_free(&epoll_slab, ep);
		return r;
	}
	*ret = ep->file;
	return 0;
}

bool file_is_epoll(const struct file *f)
{
	return f->ops == &epoll_fops;
}

void epoll_fs_init(void)
{
	vfs_epoll_release = epoll_file_gone;
}
