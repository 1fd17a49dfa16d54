// execve(2): the calling process goes on with another program.
#pragma once
#include "sentry/kernel/task.h"

struct exec_args {
	const char *path;    // as the caller named it
	int dirfd;
	int flags;           // AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW
	char *strings;       // argv's strings, then envp's, each with its NUL; kalloc memory
	size_t strings_len;
	unsigned argc, envc;
};
// Reads argument and environment strings of the guest. -E2BIG, -EFAULT, -ENOMEM. May wait.
int exec_copy_strings(struct task *t, uint64_t argv, uint64_t envp, struct exec_args *ret);
// The same from kernel memory (boot).
int exec_take_strings(const char *const *argv, const char *const *envp, struct exec_args *ret);
void exec_free_strings(struct exec_args *a);
// On success the registers are those of the new image. May wait.
int task_exec(struct task *t, const struct exec_args *a);
