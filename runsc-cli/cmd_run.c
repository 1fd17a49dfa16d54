// run, create and start.
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "platform/base/base.h"
#include "runsc-cli/bundle.h"
#include "runsc-cli/cli.h"
#include "runsc-cli/launch.h"
#include "runsc-cli/state.h"
#include "runsc-cli/terminal.h"
#include "sentry/boot/boot.h"

static const char *opt_bundle = ".", *opt_pid_file;
static bool opt_detach;

struct run {
	struct bundle b;
	struct state_dir dir;
	struct state st;
	int report;    // detached: the caller waits here for one byte (0: fine, else an exit status)
};

static int write_pid_file(pid_t pid)
{
	char text[24];
	cleanup_close int fd = -1;

	if (!opt_pid_file)
		return 0;
	fd = open(opt_pid_file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	snprintf(text, sizeof(text), "%d", pid);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		return cli_errno(errno, "--pid-file: %s", opt_pid_file);
	return 0;
}

static int set_status(struct run *r, const char *status)
{
	free(r->st.status);
	r->st.status = strdup(status);
	return state_write(&r->dir, &r->st);
}

static void report(struct run *r, int status)
{
	unsigned char c = status;

	if (r->report < 0)
		return;
	if (write(r->report, &c, 1) != 1)
		_exit(EXIT_OWN); // the caller is gone before it knew: nobody wants this container
	close(r->report);
	r->report = -1;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	dup2(null, 2);
	close(null);
}

static void on_created(void *arg)
{
	struct run *r = arg;

	(void)set_status(r, "created");
	report(r, 0);
}

static void on_running(void *arg)
{
	struct run *r = arg;

	(void)set_status(r, "running");
	report(r, 0);
}

static char *annotations_text(const struct spec *s)
{
	json_t *o = json_object();
	char *text;

	for (unsigned i = 0; i < s->annotation_keys.n; i++)
		json_object_set_new(o, s->annotation_keys.v[i], json_string(s->annotation_values.v[i]));
	text = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	return text;
}

// Makes the sandbox and lives with it. stdio: the container's.
static int live(struct run *r, const char *command, const int *stdio, bool wait_start, int sigs)
{
	struct launch_cfg cfg = {.id = r->dir.id, .command = command, .bundle = r->b.dir, .spec = r->b.spec,
				 .config = r->b.config, .config_len = r->b.config_len, .wait_start = wait_start, .err_fd = r->report >= 0 ? -1 : 2,
				 .stdio = {stdio[0], stdio[1], stdio[2]}};
	const struct launch_events ev = {.created = wait_start ? on_created : NULL, .running = on_running, .arg = r};
	struct sandbox sb;
	int status;

	status = state_listen(&r->dir, &cfg.listen_fd);
	if (status)
		return status;
	status = launch_start(&cfg, &sb);
	close(cfg.listen_fd);
	return status ? status : launch_wait(&sb, sigs, &ev);
}

static void become_anchor(struct run *r, int *stdio)
{
	char title[200];
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setsid();
	snprintf(title, sizeof(title), "runsc-anchor --id=%s", r->dir.id);
	title_set("runsc-anchor", title);
	for (int i = 0; i < 3; i++)
		stdio[i] = fcntl(i, F_DUPFD_CLOEXEC, 10);
	// Error messages still go to the caller's stderr until the container is reported as running.
	dup2(null, 0);
	dup2(null, 1);
	close(null);
	if (chdir("/") < 0)
		_exit(EXIT_OWN);
}

// The process that stays with a detached container, as its parent.
_Noreturn static void anchor(struct run *r, const char *command, bool wait_start)
{
	int stdio[3], status;

	become_anchor(r, stdio);
	r->st.pid = getpid();
	if (state_write(&r->dir, &r->st))
		_exit(EXIT_OWN);
	int sigs = launch_signalfd();

	status = live(r, command, stdio, wait_start, sigs);
	if (r->report >= 0) { // it never came to run
		state_remove(&r->dir);
		report(r, status);
		_exit(status);
	}
	r->st.exit_status = status;
	(void)set_status(r, "stopped");
	_exit(status);
}

static int run_detached(struct run *r, const char *command, bool wait_start)
{
	if (r->b.spec->terminal) {
		state_remove(&r->dir);
		return cli_fail("process.terminal: a detached container cannot have this terminal (--console-socket is to come)");
	}
	unsigned char c = EXIT_OWN;
	int p[2];
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) < 0)
		return cli_errno(errno, "pipe");
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		return cli_errno(errno, "fork");
	if (pid == 0) {
		close(p[0]);
		r->report = p[1];
		anchor(r, command, wait_start);
	}
	close(p[1]);
	if (read(p[0], &c, 1) != 1)
		c = EXIT_OWN;
	close(p[0]);
	if (c == 0 && write_pid_file(pid)) {
		kill(pid, SIGKILL);
		return EXIT_OWN;
	}
	return c;
}

static int run_attached(struct run *r)
{
	int stdio[3] = {0, 1, 2}, sigs = launch_signalfd(), status;

	r->st.pid = getpid();
	r->st.attached = true;
	status = state_write(&r->dir, &r->st);
	if (!status)
		status = write_pid_file(getpid());
	if (!status && r->b.spec->terminal)
		status = terminal_borrow(stdio);
	if (!status)
		status = live(r, "run", stdio, false, sigs);
	terminal_give_back();
	state_remove(&r->dir);
	return status;
}

static int begin(const struct command *cmd, int argc, char **argv, struct run *r)
{
	const char *id;
	int status = cli_one_id(cmd, argc, argv, &id);

	if (!status)
		status = bundle_load(opt_bundle, &r->b);
	if (!status)
		status = state_create(id, &r->dir);
	if (status)
		return status;
	r->report = -1;
	r->st = (struct state){.id = strdup(id), .status = strdup("creating"), .bundle = strdup(r->b.dir),
			       .created = time(NULL), .exit_status = -1, .annotations = annotations_text(r->b.spec)};
	return 0;
}

static int run_run(int argc, char **argv)
{
	struct run r = {0};
	int status = begin(&cmd_run, argc, argv, &r);

	if (status)
		return status;
	return opt_detach ? run_detached(&r, "run", false) : run_attached(&r);
}

static int create_run(int argc, char **argv)
{
	struct run r = {0};
	int status = begin(&cmd_create, argc, argv, &r);

	return status ? status : run_detached(&r, "create", true);
}

static int start_run(int argc, char **argv)
{
	const struct ctl_msg m = {.op = CTL_START};
	struct state_dir d;
	struct state st;
	const char *id;
	int r = cli_one_id(&cmd_start, argc, argv, &id);

	if (!r)
		r = state_open(id, &d, &st);
	if (r)
		return r;
	if (strcmp(st.status, "created") != 0)
		return cli_fail("container %s is %s, not created", id, st.status);
	r = state_request(&d, &m);
	return r < 0 ? cli_errno(-r, "cannot start container %s", id) : 0;
}

static const struct opt run_opts[] = {
	{"bundle", 'b', OPT_STR, &opt_bundle, "DIR", "the directory with config.json (default: here)"},
	{"detach", 'd', OPT_BOOL, &opt_detach, NULL, "return when the container runs"},
	{"pid-file", 0, OPT_STR, &opt_pid_file, "FILE", "write the pid to FILE"},
	{0},
};
static const struct opt create_opts[] = {
	{"bundle", 'b', OPT_STR, &opt_bundle, "DIR", "the directory with config.json (default: here)"},
	{"pid-file", 0, OPT_STR, &opt_pid_file, "FILE", "write the pid to FILE"},
	{0},
};
static const struct opt no_opts[] = {{0}};

const struct command cmd_run = {
	.name = "run", .args = "[FLAGS] ID", .summary = "create and start a container, and wait for its end", .run = run_run, .opts = run_opts,
	.text = "The exit status is the container's, or 128 + signal. Without --detach nothing is left afterwards.\n"};
const struct command cmd_create = {
	.name = "create", .args = "[FLAGS] ID", .summary = "create a container", .run = create_run, .opts = create_opts};
const struct command cmd_start = {
	.name = "start", .args = "ID", .summary = "start a created container", .run = start_run, .opts = no_opts};
