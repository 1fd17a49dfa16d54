#include "sentry/fs/signalfd/signalfd.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

#include "abi/linux/restart.h"
#include "platform/base/base.h"
#include "platform/base/slab.h"
#include "sentry/kernel/task.h"

struct sigfd {
	uint64_t mask;
};
DEFINE_SLAB(sigfd_slab, struct sigfd);

_Static_assert(sizeof(struct signalfd_siginfo) == 128, "the guest's layout");

static void info_to_sfd(const struct ksiginfo *k, struct signalfd_siginfo *s)
{
	*s = (struct signalfd_siginfo){
		.ssi_signo = k->signo,
		.ssi_errno = k->errno_,
		.ssi_code = k->code,
		.ssi_pid = k->pid,
		.ssi_uid = k->uid,
		.ssi_fd = k->fd,
		.ssi_tid = k->timerid,
		.ssi_band = k->band,
		.ssi_status = k->status,
		.ssi_utime = k->utime,
		.ssi_stime = k->stime,
		.ssi_addr = k->addr,
		.ssi_ptr = k->value,
		.ssi_int = (int)k->value,
	};
	if (k->code == -2) { // SI_TIMER: status holds the overrun
		s->ssi_overrun = k->status;
		s->ssi_status = 0;
	}
	if (k->is_raw) { // rt_sigqueueinfo(2): signo, errno, code, pad, pid, uid, value
		memcpy(&s->ssi_errno, k->raw + 4, 4);
		memcpy(&s->ssi_code, k->raw + 8, 4);
		memcpy(&s->ssi_pid, k->raw + 16, 4);
		memcpy(&s->ssi_uid, k->raw + 20, 4);
		memcpy(&s->ssi_ptr, k->raw + 24, 8);
		s->ssi_int = (int)s->ssi_ptr;
	}
}

static ssize_t sigfd_read(struct file *f, struct uio *u, int64_t *pos)
{
	struct sigfd *s = f->priv;
	struct task *t = current_task();
	struct signalfd_siginfo out;
	struct ksiginfo info;
	ssize_t done = 0;
	int sig;

	if (u->resid < sizeof(out))
		return -EINVAL;
	while (u->resid >= sizeof(out)) {
		sig = signal_dequeue(t, s->mask, &info);
		if (!sig) {
			if (done)
				break;
			if (f->flags & O_NONBLOCK)
				return -EAGAIN;
			if (wait_event(&t->tg->sighand->signalfd_wq, signal_pending_set(t) & s->mask))
				return -ERESTARTSYS;
			continue;
		}
		info_to_sfd(&info, &out);
		if (uio_put(u, &out, sizeof(out)) != sizeof(out))
			return done ? done : -EFAULT;
		done += sizeof(out);
	}
	return done;
}

static uint32_t sigfd_poll(struct file *f, struct poll_table *pt)
{
	struct sigfd *s = f->priv;
	struct task *t = current_task();

	// Epoll asks again from the loop, where there is no current task: then it is ready as far as it knows, and
	// the reader will find out.
	if (!t)
		return EPOLLIN;
	if (!t->tg)
		return 0;
	if (pt)
		pt->queue(pt, &t->tg->sighand->signalfd_wq);
	return signal_pending_set(t) & s->mask ? EPOLLIN : 0;
}

static void sigfd_release(struct file *f)
{
	slab_free(&sigfd_slab, f->priv);
}

static void sigfd_fdinfo(struct file *f, char *buf, size_t size)
{
	struct sigfd *s = f->priv;

	snprintf(buf, size, "sigmask:\t%016llx\n", (unsigned long long)s->mask);
}

static const struct file_ops signalfd_fops = {
	.release = sigfd_release,
	.read = sigfd_read,
	.poll = sigfd_poll,
	.show_fdinfo = sigfd_fdinfo,
	.flags = FOP_STREAM,
};

int signalfd_create_file(uint64_t mask, unsigned flags, struct file **ret)
{
	struct sigfd *s = SLAB_NEW(sigfd_slab, struct sigfd);
	int r;

	if (!s)
		return -ENOMEM;
	s->mask = mask;
	r = file_new_anon("anon_inode:[signalfd]", NULL, &signalfd_fops, O_RDWR | flags, s, ret);
	if (r)
		slab_free(&sigfd_slab, s);
	return r;
}

int signalfd_set_mask(struct file *f, uint64_t mask)
{
	struct task *t = current_task();

	if (f->ops != &signalfd_fops)
		return -EINVAL;
	((struct sigfd *)f->priv)->mask = mask;
	waitq_wake(&t->tg->sighand->signalfd_wq, 0);
	return 0;
}
