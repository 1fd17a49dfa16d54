// Life of a tty, slave files, ioctls.
#include "sentry/fs/devpts/tty.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#include "abi/linux/restart.h"
#include "platform/base/base.h"
#include "platform/base/slab.h"
#include "sentry/kernel/task.h"

#define CHUNK 2048
#define OUT_ENOUGH 256 // room from which on a writer is let go on

DEFINE_SLAB(tty_slab, struct tty);

struct tty *tty_new(void)
{
	struct tty *t = SLAB_NEW(tty_slab, struct tty);

	if (!t)
		return NULL;
	t->in = kalloc(TTY_IN_SIZE);
	t->mark = kalloc(TTY_IN_SIZE / 8);
	t->out = kalloc(TTY_OUT_SIZE);
	if (!t->in || !t->mark || !t->out) {
		kfree(t->in);
		kfree(t->mark);
		kfree(t->out);
		slab_free(&tty_slab, t);
		return NULL;
	}
	ref_init(&t->refs, 1);
	t->index = -1;
	ldisc_init_termios(&t->t);
	waitq_init(&t->rd_wq);
	waitq_init(&t->wr_wq);
	waitq_init(&t->m_rd_wq);
	waitq_init(&t->m_wr_wq);
	t->atime = t->mtime = t->ctime = vfs_now();
	return t;
}

struct tty *tty_get(struct tty *t)
{
	ref_get(&t->refs);
	return t;
}

void tty_put(struct tty *t)
{
	if (!t || !ref_put(&t->refs))
		return;
	tty_forget(t);
	kfree(t->in);
	kfree(t->mark);
	kfree(t->out);
	slab_free(&tty_slab, t);
}

void tty_wake_slave(struct tty *t)
{
	waitq_wake_all(&t->rd_wq, 0);
	waitq_wake_all(&t->wr_wq, 0);
}

void tty_hang_up(struct tty *t)
{
	struct thread_group *leader = t->session && t->session->task ? t->session->task->tg : NULL;

	t->hangups++;
	t->slaves = 0;
	if (t->pgrp)
		signal_send_pgrp(t->pgrp, SIGHUP, NULL);
	if (leader && leader->tty == t) {
		signal_send_kernel(leader, SIGHUP);
		signal_send_kernel(leader, SIGCONT);
	}
	tty_forget(t);
	ldisc_flush_input(t);
	t->flow_stopped = false;
	tty_wake_slave(t);
	waitq_wake_all(&t->m_rd_wq, 0);
	waitq_wake_all(&t->m_wr_wq, 0);
}

// --- slave files ----------------------------------------------------------------------------------

static bool hung(const struct file *f)
{
	const struct tty *t = f->priv;

	return f->pos != t->hangups || !t->master_open;
}

int tty_open_slave(struct tty *t, struct file *f)
{
	if (!t->master_open || t->locked)
		return -EIO;
	if (t->exclusive && !capable(CAP_SYS_ADMIN))
		return -EBUSY;
	f->priv = tty_get(t);
	f->pos = t->hangups;
	f->ops = &tty_slave_fops;
	t->slaves++;
	t->was_open = true;
	tty_open_ctty(t, f);
	return 0;
}

static void slave_release(struct file *f)
{
	struct tty *t = f->priv;

	if (f->pos == t->hangups && --t->slaves == 0) {
		t->exclusive = false;
		waitq_wake_all(&t->m_rd_wq, 0); // the master sees the hang-up
		waitq_wake_all(&t->m_wr_wq, 0);
	}
	tty_put(t);
}

// How long a reader that has seen `avail` bytes may wait for more: MIN and TIME of termios(3).
static nsec_t raw_deadline(const struct tty *t, size_t avail, nsec_t start)
{
	nsec_t time = t->t.c_cc[VTIME] * (NSEC_PER_SEC / 10);

	if (t->t.c_cc[VMIN])
		return time && avail ? sched_now() + time : NSEC_INFINITE;
	return start + time;
}

// Waits for input that a read may return. 0, -EAGAIN, -ERESTARTSYS.
static int wait_input(struct file *f, size_t n)
{
	struct tty *t = f->priv;
	nsec_t start = sched_now(), deadline;
	size_t avail, need;
	bool canon;
	int r;

	for (;;) {
		canon = t->t.c_lflag & ICANON;
		avail = ldisc_available(t);
		need = canon ? 1 : MIN((size_t)MAX(t->t.c_cc[VMIN], 1), n);
		if (avail >= need || hung(f))
			return 0;
		if (f->flags & O_NONBLOCK)
			return avail || (!canon && !t->t.c_cc[VMIN] && !t->t.c_cc[VTIME]) ? 0 : -EAGAIN;
		deadline = canon ? NSEC_INFINITE : raw_deadline(t, avail, start);
		if (deadline <= start)
			return 0;
		r = waitq_sleep(&t->rd_wq, WAIT_INTERRUPTIBLE, deadline);
		if (r == -ETIMEDOUT)
			return 0;
		if (r)
			return ldisc_available(t) && !(t->t.c_lflag & ICANON) ? 0 : -ERESTARTSYS;
	}
}

static ssize_t slave_read(struct file *f, struct uio *u, int64_t *pos)
{
	struct tty *t = f->priv;
	unsigned char *buf;
	bool eof;
	size_t n;
	int r;

	if (hung(f) || !u->resid)
		return 0;
	r = tty_check_background(t, SIGTTIN);
	if (r)
		return r;
	n = MIN(u->resid, (size_t)TTY_IN_SIZE);
	buf = arena_alloc(n);
	if (!buf)
		return -ENOMEM;
	r = wait_input(f, n);
	if (r)
		return r;
	if (hung(f))
		return 0;
	n = ldisc_read(t, buf, n, &eof);
	t->atime = vfs_now();
	return n ? uio_put(u, buf, n) : 0;
}

static ssize_t slave_write(struct file *f, struct uio *u, int64_t *pos)
{
	struct tty *t = f->priv;
	unsigned char buf[CHUNK];
	ssize_t done = 0, n;
	size_t at;
	int r = 0;

	if (t->t.c_lflag & TOSTOP) {
		r = tty_check_background(t, SIGTTOU);
		if (r)
			return r;
	}
	while (u->resid) {
		n = uio_get(u, buf, MIN(u->resid, sizeof(buf)));
		if (n <= 0) {
			r = n;
			break;
		}
		for (at = 0; at < (size_t)n;) {
			if (hung(f)) {
				r = -EIO;
				goto out;
			}
			if (!t->flow_stopped)
				at += ldisc_output(t, buf + at, n - at);
			if (at == (size_t)n)
				break;
			if (f->flags & O_NONBLOCK) {
				r = -EAGAIN;
				done += at;
				goto out;
			}
			if (wait_event(&t->wr_wq, (!t->flow_stopped && tty_out_room(t) >= OUT_ENOUGH) || hung(f))) {
				r = -ERESTARTSYS;
				done += at;
				goto out;
			}
		}
		done += n;
		cond_resched();
	}
out:
	if (done)
		t->mtime = vfs_now();
	return done ? done : r;
}

static uint32_t slave_poll(struct file *f, struct poll_table *pt)
{
	struct tty *t = f->priv;
	uint32_t mask = 0;

	if (pt) {
		pt->queue(pt, &t->rd_wq);
		pt->queue(pt, &t->wr_wq);
	}
	if (hung(f))
		return EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLRDNORM | EPOLLWRNORM;
	if (ldisc_readable(t))
		mask |= EPOLLIN | EPOLLRDNORM;
	if (!t->flow_stopped && tty_out_room(t) >= OUT_ENOUGH)
		mask |= EPOLLOUT | EPOLLWRNORM;
	return mask;
}

static int64_t slave_ioctl(struct file *f, unsigned cmd, uint64_t arg)
{
	struct tty *t = f->priv;

	if (hung(f))
		return cmd == TIOCSPGRP ? -ENOTTY : -EIO;
	return tty_ioctl_common(t, f, false, cmd, arg);
}

const struct file_ops tty_slave_fops = {
	.release = slave_release,
	.read = slave_read,
	.write = slave_write,
	.poll = slave_poll,
	.ioctl = slave_ioctl,
	.flags = FOP_STREAM,
};

// --- ioctls ---------------------------------------------------------------------------------------

static int drain_output(struct tty *t)
{
	return wait_event(&t->wr_wq, !tty_out_used(t) || !t->master_open) ? -ERESTARTSYS : 0;
}

// A terminal of a pair has no line to wait for: what is in the ring counts as sent, as on Linux.
static int set_termios(struct tty *t, const struct termios2 *new_t, bool drain, bool flush)
{
	int r = 0;

	if (drain && t->drain)
		r = drain_output(t);
	if (r)
		return r;
	if (flush)
		ldisc_flush_input(t);
	ldisc_set_termios(t, new_t);
	return 0;
}

struct abi_termio { // TCGETA
	uint16_t iflag, oflag, cflag, lflag;
	unsigned char line, cc[8];
};

static int64_t get_termios(struct tty *t, unsigned cmd, uint64_t arg)
{
	struct abi_termio old;
	struct termios k;

	switch (cmd) {
	case TCGETS:
		memcpy(&k, &t->t, sizeof(k)); // termios2 is termios and two speeds
		return copy_out_obj(GADDR(arg), &k);
	case TCGETS2:
		return copy_out_obj(GADDR(arg), &t->t);
	default:
		old = (struct abi_termio){(uint16_t)t->t.c_iflag, (uint16_t)t->t.c_oflag, (uint16_t)t->t.c_cflag, (uint16_t)t->t.c_lflag,
					  t->t.c_line, {}};
		memcpy(old.cc, t->t.c_cc, sizeof(old.cc));
		return copy_out_obj(GADDR(arg), &old);
	}
}

static int64_t put_termios(struct tty *t, unsigned cmd, uint64_t arg)
{
	struct termios2 new_t = t->t;
	struct abi_termio old;
	struct termios k;
	int r;

	switch (cmd) {
	case TCSETS:
	case TCSETSW:
	case TCSETSF:
		r = copy_in_obj(&k, GADDR(arg));
		if (r)
			return r;
		memcpy(&new_t, &k, sizeof(k));
		break;
	case TCSETS2:
	case TCSETSW2:
	case TCSETSF2:
		r = copy_in_obj(&new_t, GADDR(arg));
		if (r)
			return r;
		break;
	default:
		r = copy_in_obj(&old, GADDR(arg));
		if (r)
			return r;
		new_t.c_iflag = (new_t.c_iflag & 0xffff0000) | old.iflag;
		new_t.c_oflag = (new_t.c_oflag & 0xffff0000) | old.oflag;
		new_t.c_cflag = (new_t.c_cflag & 0xffff0000) | old.cflag;
		new_t.c_lflag = (new_t.c_lflag & 0xffff0000) | old.lflag;
		memcpy(new_t.c_cc, old.cc, sizeof(old.cc));
	}
	r = tty_check_background(t, SIGTTOU);
	if (r)
		return r;
	// A pty has no parity and 8 bits, whatever is asked for.
	new_t.c_cflag = (new_t.c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8 | CREAD;
	return set_termios(t, &new_t, cmd != TCSETS && cmd != TCSETS2 && cmd != TCSETA, cmd == TCSETSF || cmd == TCSETSF2 || cmd == TCSETAF);
}

static int set_winsize(struct tty *t, uint64_t arg)
{
	struct winsize ws;
	int r = copy_in_obj(&ws, GADDR(arg));

	if (r)
		return r;
	if (memcmp(&ws, &t->ws, sizeof(ws)) == 0)
		return 0;
	t->ws = ws;
	tty_signal(t, SIGWINCH);
	return 0;
}

static int64_t flush(struct tty *t, bool master, uint64_t what)
{
	int r = master ? 0 : tty_check_background(t, SIGTTOU);

	if (r)
		return r;
	if (what != TCIFLUSH && what != TCOFLUSH && what != TCIOFLUSH)
		return -EINVAL;
	// Seen from the master its input is the slave's output.
	if (what == TCIOFLUSH || (what == TCIFLUSH) != master)
		ldisc_flush_input(t);
	if (what == TCIOFLUSH || (what == TCOFLUSH) != master)
		tty_out_flush(t);
	return 0;
}

static int64_t flow(struct tty *t, bool master, uint64_t what)
{
	int r = master ? 0 : tty_check_background(t, SIGTTOU);

	if (r)
		return r;
	switch (what) {
	case TCOOFF:
		ldisc_flow(t, true);
		return 0;
	case TCOON:
		ldisc_flow(t, false);
		return 0;
	case TCIOFF:
	case TCION:
		return 0; // there is no line to send a stop character over
	default:
		return -EINVAL;
	}
}

static int64_t out_int(uint64_t arg, int v)
{
	return copy_out_obj(GADDR(arg), &v);
}

static int64_t session_ioctl(struct tty *t, struct file *f, bool master, unsigned cmd, uint64_t arg)
{
	int64_t v;
	int nr;

	switch (cmd) {
	case TIOCGPGRP:
		v = tty_get_pgrp(t, master);
		return v < 0 ? v : out_int(arg, (int)v);
	case TIOCGSID:
		v = tty_get_sid(t, master);
		return v < 0 ? v : out_int(arg, (int)v);
	case TIOCSPGRP:
		v = copy_in_obj(&nr, GADDR(arg));
		return v ? v : tty_set_pgrp(t, nr);
	case TIOCSCTTY:
		if (!(f->mode & FMODE_READ) && !capable(CAP_SYS_ADMIN))
			return -EPERM;
		return master ? -EIO : tty_set_ctty(t, arg == 1);
	default:
		return tty_drop_ctty(t);
	}
}

int64_t tty_ioctl_common(struct tty *t, struct file *f, bool master, unsigned cmd, uint64_t arg)
{
	switch (cmd) {
	case TCGETS:
	case TCGETS2:
	case TCGETA:
		return get_termios(t, cmd, arg);
	case TCSETS:
	case TCSETSW:
	case TCSETSF:
	case TCSETS2:
	case TCSETSW2:
	case TCSETSF2:
	case TCSETA:
	case TCSETAW:
	case TCSETAF:
		return put_termios(t, cmd, arg);
	case TIOCGWINSZ:
		return copy_out_obj(GADDR(arg), &t->ws);
	case TIOCSWINSZ:
		return set_winsize(t, arg);
	case TCFLSH:
		return flush(t, master, arg);
	case TCXONC:
		return flow(t, master, arg);
	case TCSBRK:
	case TCSBRKP:
		return tty_check_background(t, SIGTTOU) ?: (t->drain ? drain_output(t) : 0);
	case TIOCGPGRP:
	case TIOCGSID:
	case TIOCSPGRP:
	case TIOCSCTTY:
	case TIOCNOTTY:
		return session_ioctl(t, f, master, cmd, arg);
	case FIONREAD:
		return out_int(arg, master ? (int)tty_out_used(t) : (int)ldisc_available(t));
	case TIOCOUTQ:
		return out_int(arg, master ? (int)ldisc_available(t) : (int)tty_out_used(t));
	case TIOCEXCL:
		t->exclusive = true;
		return 0;
	case TIOCNXCL:
		t->exclusive = false;
		return 0;
	case TIOCGEXCL:
		return out_int(arg, t->exclusive);
	case TIOCGETD:
		return out_int(arg, 0); // N_TTY
	case TIOCGDEV:
		return copy_out(GADDR(arg), &t->rdev, 4);
	case TIOCSTI:
		return -EIO; // as Linux with legacy_tiocsti=0
	case TIOCVHANGUP:
		if (!capable(CAP_SYS_ADMIN))
			return -EPERM;
		tty_hang_up(t);
		return 0;
	case TIOCCONS:
		return -EPERM;
	default:
		return -ENOTTY;
	}
}
