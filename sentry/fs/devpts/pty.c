// The master's side of a pair (pty(7)).
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include "abi/linux/restart.h"
#include "platform/base/base.h"
#include "sentry/fs/devpts/tty.h"

#define CHUNK 4096

static bool slave_gone(const struct tty *t)
{
	return t->was_open && !t->slaves;
}

static bool has_status(const struct tty *t)
{
	return t->packet && t->pktstatus;
}

static bool has_output(const struct tty *t)
{
	return tty_out_used(t) && !t->flow_stopped;
}

static int master_open(struct inode *inode, struct file *f)
{
	struct tty *t = tty_new();
	int r;

	if (!t)
		return -ENOMEM;
	t->locked = true;
	r = devpts_add(t);
	if (r) {
		tty_put(t);
		return r;
	}
	t->master_open = true;
	f->priv = t;
	f->ops = &tty_master_fops;
	return 0;
}

static void master_release(struct file *f)
{
	struct tty *t = f->priv;

	t->master_open = false;
	tty_hang_up(t);
	devpts_remove(t);
	tty_put(t);
}

static ssize_t master_read(struct file *f, struct uio *u, int64_t *pos)
{
	struct tty *t = f->priv;
	unsigned char *buf;
	ssize_t r;
	size_t n, got = 0;

	if (!u->resid)
		return 0;
	while (!has_status(t) && !has_output(t)) {
		if (slave_gone(t))
			return -EIO;
		if (f->flags & O_NONBLOCK)
			return -EAGAIN;
		if (wait_event(&t->m_rd_wq, has_status(t) || has_output(t) || slave_gone(t)))
			return -ERESTARTSYS;
	}
	n = MIN(u->resid, (size_t)CHUNK);
	buf = arena_alloc(n + 1);
	if (!buf)
		return -ENOMEM;
	if (t->packet) {
		buf[got++] = t->pktstatus;
		if (t->pktstatus) {
			t->pktstatus = 0;
			return uio_put(u, buf, 1);
		}
		n--;
	}
	got += tty_out_take(t, buf + got, n);
	r = uio_put(u, buf, got);
	return r;
}

static ssize_t master_write(struct file *f, struct uio *u, int64_t *pos)
{
	struct tty *t = f->priv;
	unsigned char buf[1024];
	ssize_t done = 0, n;
	size_t at;

	while (u->resid) {
		n = uio_get(u, buf, MIN(u->resid, sizeof(buf)));
		if (n <= 0)
			return done ? done : n;
		for (at = 0; at < (size_t)n;) {
			if (slave_gone(t))
				return done + at ? done + (ssize_t)at : -EIO;
			at += ldisc_input(t, buf + at, n - at);
			if (at == (size_t)n)
				break;
			if (f->flags & O_NONBLOCK)
				return done + at ? done + (ssize_t)at : -EAGAIN;
			if (wait_event(&t->m_wr_wq, ldisc_wants_input(t) || slave_gone(t)))
				return done + at ? done + (ssize_t)at : -ERESTARTSYS;
		}
		done += n;
	}
	return done;
}

static uint32_t master_poll(struct file *f, struct poll_table *pt)
{
	struct tty *t = f->priv;
	uint32_t mask = 0;

	if (pt) {
		pt->queue(pt, &t->m_rd_wq);
		pt->queue(pt, &t->m_wr_wq);
	}
	if (has_output(t))
		mask |= EPOLLIN | EPOLLRDNORM;
	if (has_status(t))
		mask |= EPOLLPRI | EPOLLIN | EPOLLRDNORM;
	if (slave_gone(t))
		mask |= EPOLLHUP;
	if (ldisc_wants_input(t))
		mask |= EPOLLOUT | EPOLLWRNORM;
	return mask;
}

// TIOCGPTPEER: the slave by way of the file system that the master was opened in.
static int64_t open_peer(struct file *f, unsigned flags)
{
	struct tty *t = f->priv;
	struct path root = {f->path.mnt, f->path.dentry->parent}, p;
	struct file *peer;
	char name[16];
	int r;

	if (!root.mnt || f->path.dentry->sb->type->name[0] != 'd')
		return -ENOTTY; // through a device node somewhere: not the file system that has the slave
	snprintf(name, sizeof(name), "%d", t->index);
	r = path_walk_at(&root, &root, name, WALK_NOPERM, &p);
	if (r)
		return r;
	r = vfs_open(&p, flags, &peer);
	path_put(&p);
	if (r)
		return r;
	r = fd_install(peer, flags & O_CLOEXEC);
	if (r < 0)
		file_put(peer);
	return r;
}

static int64_t out_int(uint64_t arg, int v)
{
	return copy_out_obj(GADDR(arg), &v);
}

static int64_t master_ioctl(struct file *f, unsigned cmd, uint64_t arg)
{
	struct tty *t = f->priv;
	int v = 0, r;

	switch (cmd) {
	case TIOCSPTLCK:
		r = copy_in_obj(&v, GADDR(arg));
		if (!r)
			t->locked = v;
		return r;
	case TIOCGPTLCK:
		return out_int(arg, t->locked);
	case TIOCPKT:
		r = copy_in_obj(&v, GADDR(arg));
		if (!r && v && !t->packet)
			t->pktstatus = 0;
		if (!r)
			t->packet = v;
		return r;
	case TIOCGPKT:
		return out_int(arg, t->packet);
	case TIOCGPTN:
		return out_int(arg, t->index);
	case TIOCGPTPEER:
		return open_peer(f, (unsigned)arg);
	case TIOCSIG:
		if (arg < 1 || arg > 31)
			return -EINVAL;
		tty_signal(t, (int)arg);
		return 0;
	case TIOCSTI:
	case TIOCSETD:
		return -EIO;
	default:
		return tty_ioctl_common(t, f, true, cmd, arg);
	}
}

const struct file_ops tty_master_fops = {
	.open = master_open,
	.release = master_release,
	.read = master_read,
	.write = master_write,
	.poll = master_poll,
	.ioctl = master_ioctl,
	.flags = FOP_STREAM,
};
