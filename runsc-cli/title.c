// How the process shows in ps. The kernel reads a process's command line from where the words of
// argv lie on the stack, so a new title is written over them.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "runsc-cli/cli.h"

static char *area;
static size_t area_size;

char **title_init(int argc, char **argv)
{
	char **copy = calloc(argc + 1, sizeof(char *));

	if (!copy)
		_exit(EXIT_OWN);
	for (int i = 0; i < argc; i++) {
		copy[i] = strdup(argv[i]);
		if (!copy[i])
			_exit(EXIT_OWN);
		if (!area)
			area = argv[0];
		if (argv[i] == area + area_size) // contiguous, as the kernel lays it out
			area_size += strlen(argv[i]) + 1;
	}
	return copy;
}

void title_set(const char *comm, const char *title)
{
	prctl(PR_SET_NAME, comm);
	if (!area_size)
		return;
	memset(area, 0, area_size);
	snprintf(area, area_size, "%s", title);
}
