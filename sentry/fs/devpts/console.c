// The container's terminal: our own line discipline over a host terminal in raw mode. The host side is
// nobody else's (the launcher made it, or was given it), so it may be non-blocking.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "platform/base/base.h"
#include "platform/base/log.h"
#include "platform/base/slab.h"
#include "sentry/fs/devpts/tty.h"

struct console {
	struct host_fd hf;
	struct tty *tty;
	bool out_blocked, in_blocked, dead;
	unsigned char left[1024]; // read from the host, and not yet taken by the line discipline
	size_t left_at, left_n;
	unsigned char out[1024];  // taken from the ring, and not yet by the host
	size_t out_at, out_n;
};
struct tty *tty_console;

static void rearm(struct console *c)
{
	uint32_t events = (c->in_blocked ? 0 : EPOLLIN) | (c->out_blocked ? EPOLLOUT : 0);

	if (!c->dead && host_fd_mod(&c->hf, events))
		log_warn("console: cannot wait for the host terminal");
}

static void console_gone(struct console *c)
{
	if (c->dead)
		return;
	c->dead = true;
	host_fd_remove(&c->hf);
	c->tty->master_open = false;
	tty_hang_up(c->tty);
}

static void push_out(struct console *c)
{
	struct tty *t = c->tty;
	ssize_t n;

	c->out_blocked = false;
	for (;;) {
		if (c->out_at == c->out_n) {
			c->out_at = 0;
			c->out_n = tty_out_take(t, c->out, sizeof(c->out));
			if (!c->out_n)
				return;
		}
		n = write(c->hf.fd, c->out + c->out_at, c->out_n - c->out_at);
		if (n < 0 && errno == EAGAIN) {
			c->out_blocked = true;
			return;
		}
		if (n < 0) {
			c->out_n = c->out_at = 0;
			return;
		}
		c->out_at += n;
	}
}

static void console_drain(struct tty *t)
{
	struct console *c = t->host;

	if (c->dead) {
		tty_out_flush(t);
		return;
	}
	if (c->out_blocked)
		return;
	push_out(c);
	if (c->out_blocked)
		rearm(c);
}

static void pull_in(struct console *c)
{
	ssize_t n;

	c->in_blocked = false;
	for (;;) {
		c->left_at += ldisc_input(c->tty, c->left + c->left_at, c->left_n - c->left_at);
		if (c->left_at < c->left_n) {
			c->in_blocked = true; // until a reader makes room: console_room()
			return;
		}
		n = read(c->hf.fd, c->left, sizeof(c->left));
		c->left_at = 0;
		c->left_n = n > 0 ? n : 0;
		if (n <= 0) {
			if (n == 0 || errno != EAGAIN)
				console_gone(c);
			return;
		}
	}
}

static void console_event(struct host_fd *hf, uint32_t events)
{
	struct console *c = hf->arg;

	if (events & EPOLLOUT)
		push_out(c);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		pull_in(c);
	rearm(c);
}

// A reader has made room in the line discipline.
static bool console_room(struct wait_entry *e, uint32_t events)
{
	struct console *c = e->arg;

	if (c->in_blocked && !c->dead) {
		pull_in(c);
		rearm(c);
	}
	return false;
}

static int make_raw(int fd, struct winsize *ret_ws)
{
	struct termios2 raw;
	int fl = fcntl(fd, F_GETFL);

	if (fl < 0 || ioctl(fd, TCGETS2, &raw) < 0)
		return -errno;
	raw.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
	raw.c_oflag &= ~(tcflag_t)OPOST;
	raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
	raw.c_cflag = (raw.c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8;
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	if (ioctl(fd, TCSETS2, &raw) < 0 || fcntl(fd, F_SETFL, fl | O_NONBLOCK) < 0)
		return -errno;
	if (ioctl(fd, TIOCGWINSZ, ret_ws) < 0)
		memset(ret_ws, 0, sizeof(*ret_ws));
	return 0;
}

int tty_console_new(int host_fd, struct tty **ret)
{
	static struct console c;
	static struct wait_entry room = {.wake = console_room, .arg = &c};
	struct tty *t = tty_new();
	int r;

	if (!t)
		return -ENOMEM;
	r = make_raw(host_fd, &t->ws);
	if (!r) {
		c = (struct console){.hf = {.fd = host_fd, .fn = console_event, .arg = &c}, .tty = t};
		r = host_fd_add(&c.hf, EPOLLIN);
	}
	if (!r) {
		r = devpts_add(t);
		if (r)
			host_fd_remove(&c.hf);
	}
	if (r) {
		tty_put(t);
		return r;
	}
	t->mode = (t->mode & ~0777u) | 0620;
	t->host = &c;
	t->drain = console_drain;
	t->master_open = true;
	waitq_add(&t->m_wr_wq, &room);
	tty_console = t;
	*ret = t;
	return 0;
}

void tty_console_winsize(void)
{
	struct tty *t = tty_console;
	struct console *c = t ? t->host : NULL;
	struct winsize ws;

	if (!c || c->dead || ioctl(c->hf.fd, TIOCGWINSZ, &ws) < 0 || memcmp(&ws, &t->ws, sizeof(ws)) == 0)
		return;
	t->ws = ws;
	tty_signal(t, SIGWINCH);
}
