// What wait4(2) and waitid(2) decode their arguments into.
#pragma once
#include "sentry/kernel/task.h"

struct wait_req {
	struct pid *by_pid, *by_pgrp; // NULL: any. Held by the caller.
	int options;                  // WEXITED, WSTOPPED, WCONTINUED, WNOHANG, WNOWAIT, __WALL, __WCLONE
};
struct rusage_ns {
	uint64_t utime_ns, stime_ns, maxrss_kb, minflt, majflt, nvcsw, nivcsw;
};
struct wait_result {
	int32_t pid;
	uint32_t uid;
	int status;      // as wait4 stores it
	int code, value; // as waitid's siginfo has it
	struct rusage_ns ru;
};
// 1: ret filled; 0: nothing (WNOHANG); -ECHILD; -ERESTARTSYS. May wait.
int task_wait(struct task *t, const struct wait_req *w, struct wait_result *ret);
void tg_get_rusage(struct thread_group *tg, struct rusage_ns *ret); // without children
