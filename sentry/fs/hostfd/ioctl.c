// ioctl(2) on host descriptors: a short list, each with a size that we know; nothing else passes
// (TIOCSTI and its like would reach the terminal of whoever started the container).
#include <asm/termbits.h>
#include <sys/ioctl.h>

#include "platform/base/base.h"
#include "sentry/fs/hostfd/internal.h"

static void ioctl_job(struct host_work *w)
{
	struct hostfd_job *job = container_of(w, struct hostfd_job, w);

	job->ret = ioctl(job->fd, job->cmd, job->buf);
	if (job->ret < 0)
		job->ret = -errno;
}

static int64_t get(struct hostfd *h, unsigned cmd, uint64_t arg, void *buf, size_t len)
{
	if (ioctl(h->fd, cmd, buf) < 0)
		return -errno;
	return copy_out(GADDR(arg), buf, len);
}

// drain: the command waits until all output is out.
static int64_t set(struct hostfd *h, unsigned cmd, uint64_t arg, void *buf, size_t len, bool drain)
{
	struct hostfd_job job = {.fd = h->fd, .cmd = cmd, .buf = buf};
	int r = copy_in(buf, GADDR(arg), len);

	if (r)
		return r;
	if (drain)
		return hostfd_run_job(&job, ioctl_job);
	return ioctl(h->fd, cmd, buf) < 0 ? -errno : 0;
}

static int64_t tty_ioctl(struct hostfd *h, unsigned cmd, uint64_t arg)
{
	struct termios t = {};
	struct termios2 t2 = {};
	struct winsize ws = {};
	struct hostfd_job job = {.fd = h->fd, .cmd = cmd, .buf = (void *)(uintptr_t)(arg & 0xff)};

	switch (cmd) {
	case TCGETS:
		return get(h, cmd, arg, &t, sizeof(t));
	case TCGETS2:
		return get(h, cmd, arg, &t2, sizeof(t2));
	case TCSETS:
		return set(h, cmd, arg, &t, sizeof(t), false);
	case TCSETSW:
	case TCSETSF:
		return set(h, cmd, arg, &t, sizeof(t), true);
	case TCSETS2:
		return set(h, cmd, arg, &t2, sizeof(t2), false);
	case TCSETSW2:
	case TCSETSF2:
		return set(h, cmd, arg, &t2, sizeof(t2), true);
	case TIOCGWINSZ:
		return get(h, cmd, arg, &ws, sizeof(ws));
	case TIOCSWINSZ:
		return set(h, cmd, arg, &ws, sizeof(ws), false);
	case TCFLSH:
	case TCXONC:
		return ioctl(h->fd, cmd, arg & 0xff) < 0 ? -errno : 0;
	case TCSBRK:
	case TCSBRKP:
		return hostfd_run_job(&job, ioctl_job);
	default:
		return -ENOTTY;
	}
}

int64_t hostfd_ioctl(struct file *f, unsigned cmd, uint64_t arg)
{
	struct hostfd *h = hostfd_of(f);
	int n = 0;

	switch (cmd) {
	case FIONREAD:
		if (h->kind == HOSTFD_CHR)
			return -ENOTTY;
		return get(h, cmd, arg, &n, sizeof(n));
	case TIOCOUTQ:
		if (h->kind != HOSTFD_TTY && h->kind != HOSTFD_SOCK)
			return -ENOTTY;
		return get(h, cmd, arg, &n, sizeof(n));
	default:
		return h->kind == HOSTFD_TTY ? tty_ioctl(h, cmd, arg) : -ENOTTY;
	}
}
