#include "sentry/kernel/pidfd.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>

#include "sentry/kernel/internal.h"

static void pidfd_release(struct file *f)
{
	pid_put(f->priv);
}

static bool ended(const struct pid *p)
{
	return !p->task || (p->task->tg->leader == p->task && p->task->tg->state == TG_ZOMBIE);
}

static uint32_t pidfd_poll(struct file *f, struct poll_table *pt)
{
	struct pid *p = f->priv;

	if (pt && pt->queue)
		pt->queue(pt, &p->exit_wq);
	if (!p->task)
		return EPOLLIN | EPOLLRDNORM | EPOLLHUP;
	return ended(p) ? EPOLLIN | EPOLLRDNORM : 0;
}

static void pidfd_fdinfo(struct file *f, char *buf, size_t size)
{
	struct pid *p = f->priv;
	int32_t nr = p->task ? p->nr : -1;

	snprintf(buf, size, "Pid:\t%d\nNSpid:\t%d\n", nr, nr);
}

static const struct file_ops pidfd_ops = {
	.release = pidfd_release,
	.poll = pidfd_poll,
	.show_fdinfo = pidfd_fdinfo,
	.flags = FOP_STREAM,
};

int pidfd_new(struct pid *pid, unsigned flags, struct file **ret)
{
	int r = file_new_anon("anon_inode:[pidfd]", NULL, &pidfd_ops, O_RDWR | flags, pid, ret);

	if (r == 0)
		pid_get(pid);
	return r;
}

struct pid *pidfd_pid(struct file *f)
{
	return f->ops == &pidfd_ops ? f->priv : NULL;
}

int pidfd_reserve(struct pidfd_slot *s)
{
	int fd = fd_reserve(O_CLOEXEC);

	if (fd < 0)
		return fd;
	s->fd = fd;
	return 0;
}

int pidfd_prepare(struct pidfd_slot *s, struct pid *pid)
{
	return pidfd_new(pid, 0, &s->file);
}

void pidfd_commit(struct pidfd_slot *s)
{
	fd_fill(s->fd, s->file);
	s->file = NULL;
	s->fd = -1;
}

void pidfd_cancel(struct pidfd_slot *s)
{
	if (s->fd >= 0)
		fd_unreserve(s->fd);
	file_put(s->file);
	s->file = NULL;
	s->fd = -1;
}
