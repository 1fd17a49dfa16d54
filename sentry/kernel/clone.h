// Making tasks: what fork, vfork, clone and clone3 decode their arguments into.
#pragma once
#include "sentry/kernel/task.h"

#define KCLONE_CLEAR_SIGHAND 0x100000000ULL
#define KCLONE_INTO_CGROUP 0x200000000ULL
#define KCLONE_NEWTIME 0x80ULL

struct clone_req {
	uint64_t flags;      // CLONE_*, without the signal
	int exit_signal;
	uint64_t pidfd, child_tid, parent_tid; // guest addresses
	uint64_t stack;      // its top; 0: the creator's
	uint64_t tls;
	int32_t set_tid;     // 0: any
};
// The child's tid or -errno. May wait.
int64_t task_clone(struct task *t, const struct clone_req *q);
// May the task make these CLONE_NEW*? -EPERM, -EINVAL for those that do not exist here.
int clone_check_namespaces(const struct task *t, uint64_t flags);
// Gives t a mount namespace of its own (its fs_struct is not shared). -errno. May wait.
int task_new_mnt_ns(struct task *t);
