// kill and delete.
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "platform/base/base.h"
#include "runsc-cli/cli.h"
#include "runsc-cli/state.h"
#include "sentry/boot/boot.h"

static bool kill_all, delete_force;
static unsigned kill_pid;

static int parse_signal(const char *word, int *ret)
{
	unsigned long n;
	char *end;

	n = strtoul(word, &end, 10);
	if (end != word && !*end && n >= 1 && n <= 64) {
		*ret = n;
		return 0;
	}
	if (strncasecmp(word, "SIG", 3) == 0)
		word += 3;
	for (int s = 1; s < NSIG; s++) {
		const char *name = sigabbrev_np(s);

		if (name && strcasecmp(name, word) == 0) {
			*ret = s;
			return 0;
		}
	}
	return cli_fail("kill: %s is not a signal", word);
}

static int kill_run(int argc, char **argv)
{
	struct ctl_msg m = {.op = CTL_SIGNAL, .arg = SIGTERM};
	struct state_dir d;
	struct state st;
	int next, r, sig = SIGTERM;

	r = opt_parse(cmd_kill.opts, argc, argv, &next);
	if (r)
		return r;
	if (argc - next < 1 || argc - next > 2)
		return cli_fail("kill: needs a container id and perhaps a signal");
	if (argc - next == 2)
		r = parse_signal(argv[next + 1], &sig);
	if (!r)
		r = state_open(argv[next], &d, &st);
	if (r)
		return r;
	if (strcmp(st.status, "stopped") == 0)
		return cli_fail("container %s is not running", argv[next]);
	m.arg = sig;
	m.arg2 = kill_all ? -1 : (int)kill_pid;
	r = state_request(&d, &m);
	return r < 0 ? cli_errno(-r, "cannot send signal %d to container %s", sig, argv[next]) : 0;
}

// Ends the sandbox, by its own way or by force; false: it would not go.
static bool end_sandbox(const struct state_dir *d, const struct state *st)
{
	const struct ctl_msg m = {.op = CTL_KILL_ALL};
	cleanup_close int pidfd = syscall(SYS_pidfd_open, st->pid, 0);
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	// The pid is its own as long as the lock is held; the descriptor keeps it so.
	if (pidfd < 0 || !state_alive(d))
		return !state_alive(d);
	if (state_request(d, &m) < 0 || poll(&p, 1, 2000) != 1)
		syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
	return poll(&p, 1, 5000) == 1;
}

static int delete_one(const char *id)
{
	struct state_dir d;
	struct state st;
	int r = state_open(id, &d, &st);

	if (r && delete_force)
		state_remove_orphan(id);
	if (r)
		return delete_force ? 0 : r;
	if (strcmp(st.status, "stopped") != 0) {
		if (!delete_force && strcmp(st.status, "created") != 0)
			return cli_fail("container %s is %s: stop it first, or use --force", id, st.status);
		if (!end_sandbox(&d, &st))
			return cli_fail("container %s could not be ended", id);
	}
	state_remove(&d);
	state_free(&st);
	return 0;
}

static int delete_run(int argc, char **argv)
{
	int next, r = opt_parse(cmd_delete.opts, argc, argv, &next);

	if (r)
		return r;
	if (next == argc)
		return cli_fail("delete: needs a container id");
	for (; next < argc && !r; next++)
		r = delete_one(argv[next]);
	return r;
}

static const struct opt kill_opts[] = {
	{"all", 'a', OPT_BOOL, &kill_all, NULL, "signal every process of the container"},
	{"pid", 0, OPT_UINT, &kill_pid, "PID", "signal this process of the container"},
	{0},
};
static const struct opt delete_opts[] = {
	{"force", 'f', OPT_BOOL, &delete_force, NULL, "end it first if it runs; say nothing if it does not exist"},
	{0},
};
const struct command cmd_kill = {
	.name = "kill", .args = "[FLAGS] ID [SIGNAL]", .summary = "send a signal to a container (default TERM)", .run = kill_run, .opts = kill_opts};
const struct command cmd_delete = {
	.name = "delete", .args = "[FLAGS] ID...", .summary = "remove what is left of a container", .run = delete_run, .opts = delete_opts};
