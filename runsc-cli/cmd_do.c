#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/base/base.h"
#include "runsc-cli/bundle.h"
#include "runsc-cli/cli.h"
#include "runsc-cli/launch.h"
#include "runsc-cli/terminal.h"

extern char **environ;

static const char *do_root = "/", *do_cwd;
static struct opt_list do_volumes, do_env;

static json_t *string_list(char *const *v)
{
	json_t *a = json_array();

	for (; *v; v++)
		if (json_array_append_new(a, json_string(*v)) < 0) // not UTF-8: leave it out
			continue;
	return a;
}

static json_t *environment(void)
{
	json_t *a = json_array();

	for (char **e = environ; *e; e++)
		if (strchr(*e, '=') && **e != '=')
			json_array_append_new(a, json_string(*e));
	for (unsigned i = 0; i < do_env.n; i++)
		json_array_append_new(a, json_string(do_env.v[i]));
	return a;
}

static json_t *all_caps(void)
{
	json_t *a = json_array();

	for (cap_value_t c = 0; c <= CAP_LAST_CAP; c++) {
		char *name = cap_to_name(c);

		json_array_append_new(a, json_string(name));
		cap_free(name);
	}
	return a;
}

static json_t *limits(void)
{
	static const struct {
		const char *name;
		int nr;
	} names[] = {{"RLIMIT_NOFILE", RLIMIT_NOFILE}, {"RLIMIT_STACK", RLIMIT_STACK}, {"RLIMIT_FSIZE", RLIMIT_FSIZE},
		     {"RLIMIT_CORE", RLIMIT_CORE}, {"RLIMIT_CPU", RLIMIT_CPU}, {"RLIMIT_DATA", RLIMIT_DATA}};
	json_t *a = json_array();

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		struct rlimit r;

		if (getrlimit(names[i].nr, &r) < 0 || r.rlim_max == RLIM_INFINITY || r.rlim_cur == RLIM_INFINITY)
			continue; // without one is the default
		json_array_append_new(a, json_pack("{s:s,s:I,s:I}", "type", names[i].name, "soft", (json_int_t)r.rlim_cur,
						   "hard", (json_int_t)r.rlim_max));
	}
	return a;
}

static int add_volumes(json_t *mounts)
{
	for (unsigned i = 0; i < do_volumes.n; i++) {
		const char *v = do_volumes.v[i], *colon = strchr(v, ':'), *inside, *opt = NULL;
		cleanup_free char *host = NULL, *dest = NULL;

		host = colon ? strndup(v, colon - v) : strdup(v);
		inside = colon ? colon + 1 : v;
		opt = strchr(inside, ':');
		dest = opt ? strndup(inside, opt - inside) : strdup(inside);
		if (!host || !dest)
			return cli_fail("out of memory");
		if (host[0] != '/' || dest[0] != '/' || (opt && strcmp(opt, ":ro") && strcmp(opt, ":rw")))
			return cli_fail("--volume: %s is not HOST[:CONTAINER[:ro]] with absolute paths", v);
		json_array_append_new(mounts, json_pack("{s:s,s:s,s:s,s:[s,s]}", "destination", dest, "type", "bind",
							"source", host, "options", "rbind", opt && !strcmp(opt, ":ro") ? "ro" : "rw"));
	}
	return 0;
}

static json_t *mounts(void)
{
	return json_pack("[{s:s,s:s,s:s},{s:s,s:s,s:s,s:[s,s]},{s:s,s:s,s:s,s:[s,s,s,s]},{s:s,s:s,s:s,s:[s,s,s]},"
			 "{s:s,s:s,s:s,s:[s,s,s,s]}]",
			 "destination", "/proc", "type", "proc", "source", "proc",
			 "destination", "/dev", "type", "tmpfs", "source", "tmpfs", "options", "nosuid", "mode=755",
			 "destination", "/dev/pts", "type", "devpts", "source", "devpts", "options", "nosuid", "noexec",
			 "newinstance", "ptmxmode=0666",
			 "destination", "/dev/shm", "type", "tmpfs", "source", "shm", "options", "nosuid", "nodev", "mode=1777",
			 "destination", "/sys", "type", "sysfs", "source", "sysfs", "options", "nosuid", "noexec", "nodev", "ro");
}

static int make_config(char **argv, char **ret)
{
	char cwd[4096], host[65] = "runsc";
	json_t *m, *root, *caps;
	mode_t mask = umask(022);
	int r;

	umask(mask);
	if (do_cwd)
		snprintf(cwd, sizeof(cwd), "%s", do_cwd);
	else if (strcmp(do_root, "/") != 0)
		snprintf(cwd, sizeof(cwd), "/");
	else if (!getcwd(cwd, sizeof(cwd)))
		return cli_errno(errno, "working directory");
	gethostname(host, sizeof(host) - 1);
	m = mounts();
	r = add_volumes(m);
	if (r)
		return r;
	caps = all_caps();
	root = json_pack("{s:s, s:s, s:{s:b,s:o,s:o,s:s,s:{s:i,s:i,s:i},s:o,s:{s:O,s:O,s:O}}, s:{s:s,s:b}, s:o}", "ociVersion", OCI_VERSION,
			 "hostname", host, "process", "terminal", isatty(0) && isatty(1) && isatty(2), "args", string_list(argv), "env", environment(), "cwd", cwd,
			 "user", "uid", 0, "gid", 0, "umask", (int)mask, "rlimits", limits(), "capabilities", "bounding", caps,
			 "effective", caps, "permitted", caps, "root", "path", do_root, "readonly", 0, "mounts", m);
	json_decref(caps); // the document has its own
	if (!root)
		return cli_fail("a word of the command is not valid UTF-8");
	*ret = json_dumps(root, JSON_COMPACT);
	json_decref(root);
	return *ret ? 0 : cli_fail("out of memory");
}

static const struct opt do_opts[] = {
	{"root", 0, OPT_STR, &do_root, "DIR", "the root directory (default: this machine's own)"},
	{"cwd", 0, OPT_STR, &do_cwd, "DIR", "working directory inside (default: the current one)"},
	{"volume", 0, OPT_LIST, &do_volumes, "HOST[:INSIDE[:ro]]", "bind a host directory; may be given several times"},
	{"env", 'e', OPT_LIST, &do_env, "NAME=VALUE", "one more environment variable; may be given several times"},
	{0},
};

static int do_run(int argc, char **argv)
{
	struct bundle b = {0};
	struct sandbox sb;
	char id[64], *text = NULL;
	int next, r, sigs;

	r = opt_parse(do_opts, argc, argv, &next);
	if (r)
		return r;
	if (next == argc)
		return cli_fail("do: needs a command");
	conf.overlay_root = true; // the machine's own files are never written
	r = make_config(argv + next, &text);
	if (r)
		return r;
	r = bundle_from_text("/", text, &b);
	if (r)
		return r;
	snprintf(id, sizeof(id), "runsc-do-%d", getpid());
	struct launch_cfg cfg = {.id = id, .command = "do", .bundle = b.dir, .spec = b.spec, .config = b.config,
				 .config_len = b.config_len, .stdio = {0, 1, 2}, .err_fd = 2, .listen_fd = -1, .plain_first = true};

	sigs = launch_signalfd();
	r = b.spec->terminal ? terminal_borrow(cfg.stdio) : 0;
	if (!r)
		r = launch_start(&cfg, &sb);
	if (!r)
		r = launch_wait(&sb, sigs, NULL);
	terminal_give_back();
	bundle_free(&b);
	return r;
}

const struct command cmd_do = {
	.name = "do", .args = "[FLAGS] CMD [ARG...]",
	.summary = "run a command in a sandbox over this machine's root, read-only, with changes kept in memory",
	.run = do_run, .opts = do_opts,
	.text = "The environment, the working directory and standard input and output are the caller's. The command\n"
		"runs as root of the sandbox. Files it changes are changed for itself only and are gone at its end.\n"};
