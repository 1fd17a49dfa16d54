#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "platform/base/base.h"
#include "runsc-cli/cli.h"
#include "runsc-cli/conf.h"
#include "runsc-cli/launch.h"
#include "sentry/boot/boot.h"

const struct command *const commands[] = {
	&cmd_create, &cmd_delete, &cmd_do,    &cmd_help,  &cmd_kill,    &cmd_list,
	&cmd_run,    &cmd_spec,   &cmd_start, &cmd_state, &cmd_version, NULL,
};

#ifdef __SANITIZE_ADDRESS__
// What a command leaves to the end of its process is no leak; the kernel's own objects are counted by slab.
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0:abort_on_error=1";
}
#endif

const struct command *command_find(const char *name)
{
	for (unsigned i = 0; commands[i]; i++)
		if (strcmp(commands[i]->name, name) == 0)
			return commands[i];
	return NULL;
}

int cli_one_id(const struct command *cmd, int argc, char **argv, const char **ret_id)
{
	int next, r;

	r = opt_parse(cmd->opts, argc, argv, &next);
	if (r)
		return r;
	if (next + 1 != argc)
		return cli_fail("%s: needs one container id", cmd->name);
	*ret_id = argv[next];
	return 0;
}

// What is passed on to a sandbox must not be 0, 1 or 2 by accident.
static void fill_stdio(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY) < 0)
			_exit(EXIT_OWN);
}

int main(int argc, char **argv)
{
	bool version = false, help = false;
	const struct command *cmd;
	struct opt opts[40];
	unsigned n = 0;
	int next, r;

	// The sandbox's own processes are this binary too, started by launch.c.
	if (argc > 0 && strcmp(argv[0], BOOT_SENTRY_NAME) == 0)
		return boot_main(argc, argv);
	if (argc > 0 && strcmp(argv[0], BOOT_GOFER_NAME) == 0)
		return launch_gofer_main(argc, argv);

	fill_stdio();
	signal(SIGPIPE, SIG_IGN);
	argv = title_init(argc, argv);
	for (; global_opts[n].name && n < ARRAY_SIZE(opts) - 5; n++)
		opts[n] = global_opts[n];
	opts[n++] = (struct opt){"version", 'v', OPT_BOOL, &version, NULL, NULL};
	opts[n++] = (struct opt){"help", 'h', OPT_BOOL, &help, NULL, NULL};
	opts[n] = (struct opt){0};
	r = opt_parse(opts, argc, argv, &next);
	if (r)
		return r;
	if (version)
		return cmd_version.run(1, (char *[]){(char *)"version", NULL});
	if (help || next == argc) {
		r = cmd_help.run(1, (char *[]){(char *)"help", NULL});
		return help ? r : EXIT_OWN;
	}
	cmd = command_find(argv[next]);
	if (!cmd)
		return cli_fail("unknown command %s (see 'runsc help')", argv[next]);
	r = conf_check();
	return r ? r : cmd->run(argc - next, argv + next);
}
