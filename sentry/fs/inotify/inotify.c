#include "sentry/fs/inotify/inotify.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "abi/linux/restart.h"
#include "platform/base/base.h"
#include "platform/base/slab.h"

#define MAX_QUEUED 16384
#define MAX_INSTANCES 1024
#define MAX_WATCHES 65536
#define NAME_ALIGN sizeof(struct inotify_event)

struct ievent {
	TAILQ_ENTRY(ievent) link;
	int wd;
	uint32_t mask, cookie, namelen; // namelen: with NUL and padding, as the reader gets it
	char name[];
};
struct instance;
struct watch {
	LIST_ENTRY(watch) of_inode, of_instance;
	struct instance *in;
	struct inode *inode; // owned
	int wd;
	uint32_t mask;       // IN_ALL_EVENTS, IN_ONESHOT, IN_EXCL_UNLINK
};
struct inode_watches { // what inode->watches points to, while there are any
	LIST_HEAD(, watch) list;
};
struct instance {
	struct waitq wq;
	TAILQ_HEAD(ievent_queue, ievent) queue;
	unsigned nevents, bytes;
	LIST_HEAD(, watch) watches;
	int last_wd;
	bool overflowed; // its event is in the queue
};
DEFINE_SLAB(instance_slab, struct instance);
DEFINE_SLAB(watch_slab, struct watch);
DEFINE_SLAB(inode_watches_slab, struct inode_watches);
static unsigned ninstances, nwatches;
static const struct file_ops inotify_fops;

bool file_is_inotify(const struct file *f)
{
	return f->ops == &inotify_fops;
}

// --- events ---------------------------------------------------------------------------------------

static uint32_t padded(size_t n)
{
	return n ? (n + 1 + NAME_ALIGN - 1) / NAME_ALIGN * NAME_ALIGN : 0;
}

static void queue_event(struct instance *in, int wd, uint32_t mask, uint32_t cookie, const char *name, size_t n)
{
	struct ievent *last = TAILQ_LAST(&in->queue, ievent_queue), *e;

	// The same once more says nothing new.
	if (last && last->wd == wd && last->mask == mask && last->cookie == cookie && last->namelen == padded(n) &&
	    (!n || (strncmp(last->name, name, n) == 0 && !last->name[n])))
		return;
	if (in->nevents >= MAX_QUEUED) {
		if (in->overflowed)
			return;
		in->overflowed = true;
		wd = -1;
		mask = IN_Q_OVERFLOW;
		cookie = 0;
		n = 0;
	}
	e = kalloc(sizeof(*e) + padded(n));
	if (!e)
		return;
	e->wd = wd;
	e->mask = mask;
	e->cookie = cookie;
	e->namelen = padded(n);
	memcpy(e->name, name, n);
	TAILQ_INSERT_TAIL(&in->queue, e, link);
	in->nevents++;
	in->bytes += sizeof(struct inotify_event) + e->namelen;
	waitq_wake(&in->wq, EPOLLIN | EPOLLRDNORM);
}

// --- watches --------------------------------------------------------------------------------------

static void watch_free(struct watch *w)
{
	struct inode *inode = w->inode;
	struct inode_watches *iw = inode->watches;

	LIST_REMOVE(w, of_inode);
	LIST_REMOVE(w, of_instance);
	slab_free(&watch_slab, w);
	nwatches--;
	if (LIST_EMPTY(&iw->list)) {
		inode->watches = NULL;
		slab_free(&inode_watches_slab, iw);
	}
	inode_put(inode);
}

static void watch_end(struct watch *w)
{
	queue_event(w->in, w->wd, IN_IGNORED, 0, "", 0);
	watch_free(w);
}

static void tell(struct inode *at, uint32_t mask, uint32_t cookie, struct dentry *d, bool with_name)
{
	struct inode_watches *iw = at->watches;
	struct watch *w, *next;

	if (!iw)
		return;
	inode_get(at); // its last watch may go
	for (w = LIST_FIRST(&iw->list); w; w = next) {
		next = LIST_NEXT(w, of_inode);
		if (!(w->mask & mask & IN_ALL_EVENTS))
			continue;
		if (with_name && w->mask & IN_EXCL_UNLINK && d && !d->hashed && !(mask & (IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO)))
			continue;
		queue_event(w->in, w->wd, mask, cookie, with_name ? d->name : "", with_name ? d->namelen : 0);
		if (w->mask & IN_ONESHOT || mask & IN_DELETE_SELF)
			watch_end(w);
	}
	inode_put(at);
}

static void notify(struct inode *inode, struct dentry *d, uint32_t mask, uint32_t cookie)
{
	uint32_t isdir = inode && S_ISDIR(inode->mode) ? IN_ISDIR : 0, to_parent = mask & ~(FSN_DELETE_SELF | FSN_MOVE_SELF);
	struct inode *parent = d && d->parent != d ? d->parent->inode : NULL;

	if (parent && parent->watches && to_parent)
		tell(parent, to_parent | isdir, cookie, d, true);
	mask &= ~(FSN_CREATE | FSN_DELETE | FSN_MOVED_FROM | FSN_MOVED_TO);
	if (inode && inode->watches && mask)
		tell(inode, mask & FSN_DELETE_SELF ? mask : mask | isdir, 0, d, false);
}

static struct watch *watch_find(struct instance *in, const struct inode *inode)
{
	const struct inode_watches *iw = inode->watches;
	struct watch *w;

	if (iw)
		LIST_FOREACH(w, &iw->list, of_inode)
			if (w->in == in)
				return w;
	return NULL;
}

int inotify_watch(struct file *f, struct inode *inode, uint32_t mask)
{
	struct instance *in = f->priv;
	struct watch *w = watch_find(in, inode);
	struct inode_watches *iw;

	if (w) {
		if (mask & IN_MASK_CREATE)
			return -EEXIST;
		w->mask = (mask & (IN_ALL_EVENTS | IN_ONESHOT | IN_EXCL_UNLINK)) | (mask & IN_MASK_ADD ? w->mask : 0);
		return w->wd;
	}
	if (nwatches >= MAX_WATCHES)
		return -ENOSPC;
	w = SLAB_NEW(watch_slab, struct watch);
	if (!w)
		return -ENOMEM;
	iw = inode->watches;
	if (!iw) {
		iw = SLAB_NEW(inode_watches_slab, struct inode_watches);
		if (!iw) {
			slab_free(&watch_slab, w);
			return -ENOMEM;
		}
		inode->watches = iw;
	}
	*w = (struct watch){.in = in, .inode = inode_get(inode), .mask = mask & (IN_ALL_EVENTS | IN_ONESHOT | IN_EXCL_UNLINK)};
	in->last_wd = in->last_wd == INT32_MAX ? 1 : in->last_wd + 1;
	w->wd = in->last_wd;
	LIST_INSERT_HEAD(&iw->list, w, of_inode);
	LIST_INSERT_HEAD(&in->watches, w, of_instance);
	nwatches++;
	return w->wd;
}

int inotify_unwatch(struct file *f, int wd)
{
	struct instance *in = f->priv;
	struct watch *w;

	LIST_FOREACH(w, &in->watches, of_instance) {
		if (w->wd == wd) {
			watch_end(w);
			return 0;
		}
	}
	return -EINVAL;
}

// --- the file -------------------------------------------------------------------------------------

// Whole events only.
static ssize_t put_event(struct instance *in, struct uio *u, struct ievent *e)
{
	struct inotify_event head = {.wd = e->wd, .mask = e->mask, .cookie = e->cookie, .len = e->namelen};
	size_t n = sizeof(head) + e->namelen;
	bool ok;

	TAILQ_REMOVE(&in->queue, e, link);
	in->nevents--;
	in->bytes -= n;
	if (e->mask & IN_Q_OVERFLOW)
		in->overflowed = false;
	ok = uio_put(u, &head, sizeof(head)) == sizeof(head) &&
	     (!e->namelen || uio_put(u, e->name, e->namelen) == (ssize_t)e->namelen);
	kfree(e);
	return ok ? (ssize_t)n : -EFAULT;
}

static ssize_t inotify_read(struct file *f, struct uio *u, int64_t *pos)
{
	struct instance *in = f->priv;
	struct ievent *e;
	ssize_t done = 0, r;

	for (;;) {
		while ((e = TAILQ_FIRST(&in->queue)) && sizeof(struct inotify_event) + e->namelen <= u->resid) {
			r = put_event(in, u, e);
			if (r < 0)
				return done ? done : r;
			done += r;
		}
		if (done)
			return done;
		if (e)
			return -EINVAL;
		if (f->flags & O_NONBLOCK)
			return -EAGAIN;
		if (wait_event(&in->wq, !TAILQ_EMPTY(&in->queue)))
			return -ERESTARTSYS;
	}
}

static uint32_t inotify_poll(struct file *f, struct poll_table *pt)
{
	struct instance *in = f->priv;

	if (pt)
		pt->queue(pt, &in->wq);
	return TAILQ_EMPTY(&in->queue) ? 0 : EPOLLIN | EPOLLRDNORM;
}

static int64_t inotify_ioctl(struct file *f, unsigned cmd, uint64_t arg)
{
	struct instance *in = f->priv;
	int n = (int)in->bytes;

	return cmd == FIONREAD ? copy_out_obj(GADDR(arg), &n) : -ENOTTY;
}

static void inotify_release(struct file *f)
{
	struct instance *in = f->priv;
	struct watch *w;
	struct ievent *e;

	while ((w = LIST_FIRST(&in->watches)))
		watch_free(w);
	while ((e = TAILQ_FIRST(&in->queue))) {
		TAILQ_REMOVE(&in->queue, e, link);
		kfree(e);
	}
	slab_free(&instance_slab, in);
	ninstances--;
}

static void inotify_fdinfo(struct file *f, char *buf, size_t size)
{
	struct instance *in = f->priv;
	struct watch *w;
	size_t n = 0;

	LIST_FOREACH(w, &in->watches, of_instance) {
		if (size - n < 160)
			break;
		n += snprintf(buf + n, size - n, "inotify wd:%x ino:%llx sdev:%llx mask:%x ignored_mask:0 \n", w->wd,
			      (unsigned long long)w->inode->ino, (unsigned long long)w->inode->sb->dev, w->mask);
	}
}

static const struct file_ops inotify_fops = {
	.release = inotify_release,
	.read = inotify_read,
	.poll = inotify_poll,
	.ioctl = inotify_ioctl,
	.show_fdinfo = inotify_fdinfo,
	.flags = FOP_STREAM,
};

int inotify_create_file(unsigned flags, struct file **ret)
{
	struct instance *in;
	int r;

	if (ninstances >= MAX_INSTANCES)
		return -EMFILE;
	in = SLAB_NEW(instance_slab, struct instance);
	if (!in)
		return -ENOMEM;
	waitq_init(&in->wq);
	TAILQ_INIT(&in->queue);
	ninstances++;
	r = file_new_anon("anon_inode:inotify", NULL, &inotify_fops, O_RDONLY | flags, in, ret);
	if (r) {
		slab_free(&instance_slab, in);
		ninstances--;
	}
	return r;
}

void inotify_fs_init(void)
{
	vfs_notify = notify;
}
