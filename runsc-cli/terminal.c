#include "runsc-cli/terminal.h"

#include <fcntl.h>
#include <termios.h>
#include <unistd.h>

#include "platform/base/base.h"
#include "runsc-cli/cli.h"

static struct termios saved;
static int borrowed = -1;

int terminal_borrow(int ret_stdio[3])
{
	if (tcgetattr(STDIN_FILENO, &saved) < 0)
		return cli_fail("process.terminal: standard input is not a terminal");
	borrowed = open("/proc/self/fd/0", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (borrowed < 0)
		return cli_errno(errno, "process.terminal");
	for (int i = 0; i < 3; i++)
		ret_stdio[i] = borrowed;
	return 0;
}

void terminal_give_back(void)
{
	if (borrowed < 0)
		return;
	tcsetattr(STDIN_FILENO, TCSADRAIN, &saved);
	close(borrowed);
	borrowed = -1;
}
