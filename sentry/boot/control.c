// The control socket (to whoever started the sandbox) and the listening one (other commands).
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "platform/base/base.h"
#include "platform/base/log.h"
#include "platform/base/slab.h"
#include "sentry/boot/internal.h"
#include "sentry/fs/devpts/tty.h"
#include "sentry/kernel/task.h"
#include "sentry/sched/sched.h"

#define MAX_CONNS 16

static struct host_fd ctl = {.fd = BOOT_FD_CTL}, listener = {.fd = BOOT_FD_LISTEN};
static struct host_fd conns[MAX_CONNS];
static struct waitq start_wq;
static bool started, plain_first;

void boot_exit(int status)
{
	_exit(status);
}

void control_send(enum ctl_op op, int arg, const char *text)
{
	struct ctl_msg m = {.op = op, .arg = arg};

	snprintf(m.text, sizeof(m.text), "%s", text ? text : "");
	if (send(BOOT_FD_CTL, &m, sizeof(m), MSG_NOSIGNAL) < 0)
		log_warn("control socket: %s", strerror(errno));
}

void control_fail(int status, const char *fmt, ...)
{
	char text[500];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_info("%s", text); // the command says it aloud
	control_send(CTL_ERROR, status, text);
}

// Lines for --debug: what outlives the guest and how much of it. Two runs that differ in length differ here by what
// the kernel leaks.
static void tell_alive(const char *name, uint32_t live, void *arg)
{
	log_debug("alive at the end: %u %s", live, name);
}

void control_guest_ended(int wait_status)
{
	log_debug("boot: the first process ended, status %#x", wait_status);
	if (log_enabled(LOG_DEBUG))
		slab_report(tell_alive, NULL);
	control_send(CTL_EXIT, wait_status, NULL);
	sched_stop(0);
}

static void kill_one(struct thread_group *tg, void *arg)
{
	signal_send_group(tg, *(int *)arg, &(struct ksiginfo){.signo = *(int *)arg});
}

// What would end any process but a container's first, which is exempt from defaults.
static bool ends_by_default(int sig)
{
	return sig == SIGHUP || sig == SIGINT || sig == SIGQUIT || sig == SIGTERM || sig == SIGALRM || sig == SIGUSR1 || sig == SIGUSR2;
}

static int do_signal(int sig, int pid)
{
	struct thread_group *tg;

	if (sig < 1 || sig > KNSIG)
		return EINVAL;
	if (sig == SIGWINCH && !pid && tty_console) { // the command's terminal, which is the console's host side
		tty_console_winsize();
		return 0;
	}
	if (pid == -1) {
		kernel_each_process(kill_one, &sig);
		return 0;
	}
	tg = process_find(pid ? pid : 1);
	if (!tg)
		return ESRCH;
	if (!pid && plain_first && ends_by_default(sig) && !tg->sighand->action[sig - 1].handler) {
		control_guest_ended(sig);
		return 0;
	}
	return -signal_send_group(tg, sig, &(struct ksiginfo){.signo = sig});
}

// The answer for CTL_OK.
static int serve(const struct ctl_msg *m)
{
	switch (m->op) {
	case CTL_START:
		if (started)
			return EBUSY;
		started = true;
		waitq_wake_all(&start_wq, 0);
		return 0;
	case CTL_SIGNAL:
		return do_signal(m->arg, m->arg2);
	case CTL_KILL_ALL:
		control_guest_ended(9);
		return 0;
	default:
		return EINVAL;
	}
}

// False at the end of the connection, or when what came is no message.
static bool receive(int fd, struct ctl_msg *ret)
{
	struct ctl_msg m;
	ssize_t n = recv(fd, &m, sizeof(m), MSG_DONTWAIT);

	ret->op = 0;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n != sizeof(m))
		return false;
	*ret = m;
	return true;
}

static void on_ctl(struct host_fd *h, uint32_t events)
{
	struct ctl_msg m;

	if (!receive(h->fd, &m)) {
		// Whoever lives with this sandbox is gone: nobody would ever learn how it ends.
		log_warn("the parent is gone: ending the sandbox");
		boot_exit(137);
	}
	if (m.op)
		serve(&m);
}

static void on_conn(struct host_fd *h, uint32_t events)
{
	struct ctl_msg m, reply = {.op = CTL_OK};

	if (!receive(h->fd, &m)) {
		host_fd_remove(h);
		close(h->fd);
		h->fd = -1;
		return;
	}
	if (!m.op)
		return;
	reply.arg = serve(&m);
	send(h->fd, &reply, sizeof(reply), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void on_listen(struct host_fd *h, uint32_t events)
{
	int fd = accept4(h->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0)
		return;
	for (unsigned i = 0; i < MAX_CONNS; i++) {
		if (conns[i].fd >= 0)
			continue;
		conns[i] = (struct host_fd){.fd = fd, .fn = on_conn};
		if (host_fd_add(&conns[i], EPOLLIN) == 0)
			return;
		conns[i].fd = -1;
		break;
	}
	close(fd);
}

int control_init(bool plain)
{
	int domain, r;
	socklen_t len = sizeof(domain);

	plain_first = plain;
	waitq_init(&start_wq);
	for (unsigned i = 0; i < MAX_CONNS; i++)
		conns[i].fd = -1;
	ctl.fn = on_ctl;
	r = host_fd_add(&ctl, EPOLLIN);
	if (r < 0)
		return r;
	if (getsockopt(BOOT_FD_LISTEN, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0)
		return 0; // none was given
	listener.fn = on_listen;
	return host_fd_add(&listener, EPOLLIN);
}

void control_await_start(void)
{
	wait_event_until(&start_wq, started, WAIT_UNINTERRUPTIBLE, NSEC_INFINITE);
}
