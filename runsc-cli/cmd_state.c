// state and list.
#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "platform/base/base.h"
#include "runsc-cli/cli.h"
#include "runsc-cli/state.h"

static int state_run(int argc, char **argv)
{
	struct state_dir d;
	struct state st;
	const char *id;
	int r = cli_one_id(&cmd_state, argc, argv, &id);

	if (!r)
		r = state_open(id, &d, &st);
	if (r)
		return r;
	state_print(&st);
	state_free(&st);
	state_close(&d);
	return 0;
}

static bool list_quiet;
static const char *list_format = "table";

static void list_one(const struct state *st, json_t *all)
{
	char when[40];
	time_t t = st->created;
	struct tm tm;

	if (list_quiet) {
		puts(st->id);
		return;
	}
	gmtime_r(&t, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
	if (all)
		json_array_append_new(all, json_pack("{s:s,s:s,s:i,s:s,s:s,s:s}", "ociVersion", OCI_VERSION, "id", st->id, "pid",
						     (int)st->pid, "status", st->status, "bundle", st->bundle, "created", when));
	else
		printf("%-28s %-8d %-9s %-21s %s\n", st->id, st->pid, st->status, when, st->bundle);
}

static int list_run(int argc, char **argv)
{
	json_t *all = NULL;
	struct dirent *e;
	int next, r;
	DIR *dir;

	r = opt_parse(cmd_list.opts, argc, argv, &next);
	if (r)
		return r;
	if (next != argc)
		return cli_fail("list: takes no arguments");
	if (strcmp(list_format, "table") != 0 && strcmp(list_format, "json") != 0)
		return cli_fail("--format: %s is not known (table, json)", list_format);
	if (strcmp(list_format, "json") == 0)
		all = json_array();
	else if (!list_quiet)
		printf("%-28s %-8s %-9s %-21s %s\n", "ID", "PID", "STATUS", "CREATED", "BUNDLE");
	dir = opendir(conf.root);
	while (dir && (e = readdir(dir))) {
		struct state_dir d;
		struct state st;
		struct stat sb;

		// Only what is a container; others come and go meanwhile.
		if (e->d_name[0] == '.' || fstatat(dirfd(dir), e->d_name, &sb, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(sb.st_mode))
			continue;
		if (state_try_open(e->d_name, &d, &st) < 0)
			continue;
		list_one(&st, all);
		state_free(&st);
		state_close(&d);
	}
	if (dir)
		closedir(dir);
	if (all && !list_quiet) {
		json_dumpf(all, stdout, JSON_INDENT(2));
		putchar('\n');
	}
	json_decref(all);
	return 0;
}

static const struct opt no_opts[] = {{0}};
static const struct opt list_opts[] = {
	{"quiet", 'q', OPT_BOOL, &list_quiet, NULL, "show ids only"},
	{"format", 'f', OPT_STR, &list_format, "FORMAT", "table (default) or json"},
	{0},
};
const struct command cmd_state = {
	.name = "state", .args = "ID", .summary = "show a container's state as JSON", .run = state_run, .opts = no_opts};
const struct command cmd_list = {
	.name = "list", .args = "[FLAGS]", .summary = "list the containers", .run = list_run, .opts = list_opts};
