#include <stdio.h>
#include <string.h>

#include "platform/base/base.h"
#include "runsc-cli/cli.h"

// The list itself, without the functions behind it.
enum { FULL, PARTIAL, NONE, NOPERM, NSTATES };
#define SC(nr, name, state, formats, note) {nr, #name, state, note},
static const struct {
	unsigned nr;
	const char *name;
	int state;
	const char *note;
} rows[] = {
#include "sentry/syscalls/syscalls.def"
};
#undef SC

static int help_syscalls(void)
{
	static const char *const states[NSTATES] = {"full", "partial", "ENOSYS", "EPERM"};
	unsigned count[NSTATES] = {0};

	printf("%-5s%-26s%-9s%s\n", "nr", "name", "answer", "note");
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		count[rows[i].state]++;
		printf("%-5u%-26s%-9s%s\n", rows[i].nr, rows[i].name, states[rows[i].state], rows[i].note);
	}
	printf("\n%u full, %u partial, %u answer ENOSYS, %u answer EPERM\n", count[FULL], count[PARTIAL], count[NONE], count[NOPERM]);
	return 0;
}

static int help_command(const struct command *c)
{
	printf("usage: runsc [FLAGS] %s %s\n\n%s\n", c->name, c->args, c->summary);
	if (c->text)
		printf("\n%s", c->text);
	if (c->opts && c->opts->name) {
		printf("\nflags of %s:\n", c->name);
		opt_help(c->opts);
	}
	return 0;
}

static int help_run(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "syscalls") == 0)
		return help_syscalls();
	if (argc > 1) {
		const struct command *c = command_find(argv[1]);

		return c ? help_command(c) : cli_fail("help: no command %s", argv[1]);
	}
	printf("runsc runs containers on an application kernel.\n\n"
	       "usage: runsc [FLAGS] COMMAND [FLAGS OF THE COMMAND] ...\n\ncommands:\n");
	for (unsigned i = 0; commands[i]; i++)
		printf("  %-10s %s\n", commands[i]->name, commands[i]->summary);
	printf("\nflags:\n");
	opt_help(global_opts);
	printf("\n'runsc help COMMAND' tells more about one; 'runsc help syscalls' lists the guest's system calls.\n"
	       "Exit status: the container's (128 + signal if it was killed by one); 128 for runsc's own failures,\n"
	       "127 program not found, 126 program not executable.\n");
	return 0;
}

static const struct opt no_opts[] = {{0}};
const struct command cmd_help = {
	.name = "help", .args = "[COMMAND | syscalls]", .summary = "explain the commands, list the system calls", .run = help_run, .opts = no_opts};

static int version_run(int argc, char **argv)
{
	printf("runsc version %s\nspec: %s\n", RUNSC_VERSION, OCI_VERSION);
	return 0;
}

const struct command cmd_version = {
	.name = "version", .args = "", .summary = "show the version", .run = version_run, .opts = no_opts};
