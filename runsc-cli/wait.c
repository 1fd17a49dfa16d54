// Living with a sandbox: passing signals on, learning how it ended.
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/base/base.h"
#include "runsc-cli/cli.h"
#include "runsc-cli/launch.h"
#include "sentry/boot/boot.h"

static const int forwarded[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, SIGALRM, SIGCONT};

int launch_signalfd(void)
{
	sigset_t set;

	sigemptyset(&set);
	for (unsigned i = 0; i < ARRAY_SIZE(forwarded); i++)
		sigaddset(&set, forwarded[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

struct waiting {
	struct sandbox *sb;
	const struct launch_events *ev;
	int status;        // for the command line
	bool known;        // status is final
	bool ctl_open;
};

static void on_ctl(struct waiting *w)
{
	struct ctl_msg m;
	ssize_t n = recv(w->sb->ctl, &m, sizeof(m), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n != sizeof(m)) { // the sentry is gone, or is not what we started
		w->ctl_open = false;
		return;
	}
	m.text[sizeof(m.text) - 1] = 0;
	switch (m.op) {
	case CTL_CREATED:
		if (w->ev && w->ev->created)
			w->ev->created(w->ev->arg);
		break;
	case CTL_RUNNING:
		if (w->ev && w->ev->running)
			w->ev->running(w->ev->arg);
		break;
	case CTL_ERROR:
		if (!w->known)
			(void)cli_fail("%s", m.text);
		w->status = m.arg > 0 && m.arg < 256 ? m.arg : EXIT_OWN;
		w->known = true;
		break;
	case CTL_EXIT:
		w->status = WIFSIGNALED(m.arg) ? 128 + WTERMSIG(m.arg) : WEXITSTATUS(m.arg);
		w->known = true;
		break;
	default:
		w->ctl_open = false;
	}
}

static void on_signal(struct waiting *w, int fd)
{
	struct signalfd_siginfo si;

	while (read(fd, &si, sizeof(si)) == sizeof(si)) {
		struct ctl_msg m = {.op = CTL_SIGNAL, .arg = si.ssi_signo};

		if (send(w->sb->ctl, &m, sizeof(m), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			return; // its end will be seen
	}
}

// Ends pid if it has not ended by itself; its wait status.
static int reap(pid_t pid)
{
	siginfo_t si = {0};
	int status = 0;

	if (waitid(P_PID, pid, &si, WEXITED | WNOHANG | WNOWAIT) || si.si_pid != pid)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

// How a process that should have gone on came to its end, for a person to read.
static const char *end_of(int status)
{
	return WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : WEXITSTATUS(status) ? "it gave up" : "it ended early";
}

// What a child that failed before it became the sentry or the gofer had to say.
static bool tell_child_error(struct waiting *w)
{
	char line[512];
	ssize_t n = read(w->sb->err_pipe, line, sizeof(line) - 1);

	if (n <= 0)
		return false;
	line[n] = 0;
	(void)cli_fail("cannot start the sandbox: %s", line);
	return true;
}

int launch_wait(struct sandbox *sb, int signal_fd, const struct launch_events *ev)
{
	struct waiting w = {.sb = sb, .ev = ev, .status = EXIT_OWN, .ctl_open = true};
	bool ended = false, sentry_first;
	siginfo_t si = {0};
	int sentry, gofer;

	while (!ended && !w.known) {
		struct pollfd p[] = {{w.ctl_open ? sb->ctl : -1, POLLIN, 0}, {sb->sentry_pidfd, POLLIN, 0},
				     {sb->gofer_pidfd, POLLIN, 0}, {signal_fd, POLLIN, 0}};

		if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
			break;
		if (p[3].revents)
			on_signal(&w, signal_fd);
		if (p[0].revents)
			on_ctl(&w);
		else // what it said last comes before its end
			ended = p[1].revents || p[2].revents;
	}
	// poll() looks at one descriptor after the other: a status may have come just behind its back.
	for (int i = 0; i < 4 && w.ctl_open && !w.known; i++)
		on_ctl(&w);
	// Both are killed at once; the end of the sentry's pid namespace takes the stubs along.
	sentry_first = waitid(P_PID, sb->sentry, &si, WEXITED | WNOHANG | WNOWAIT) == 0 && si.si_pid == sb->sentry;
	sentry = reap(sb->sentry);
	gofer = reap(sb->gofer);
	if (!w.known)
		w.status = tell_child_error(&w) ? EXIT_OWN : 137;
	if (!w.known && w.status == 137)
		(void)cli_fail("the sandbox was killed (%s: %s)", sentry_first ? "sentry" : "gofer", end_of(sentry_first ? sentry : gofer));
	int fds[] = {sb->ctl, sb->err_pipe, sb->sentry_pidfd, sb->gofer_pidfd};

	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	return w.status;
}
