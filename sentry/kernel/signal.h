// Signals (signal(7), sigaction(2)): actions, pending sets, delivery.
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "abi/linux/restart.h"
#include "platform/base/refcount.h"
#include "sentry/sched/sched.h"

struct task;
struct thread_group;
struct pid;
struct kuser;

#define KNSIG 64
#define SIGBIT(sig) (1ULL << ((sig)-1))

struct ksiginfo { // siginfo_t in its wire layout is made when it is delivered
	int signo, code, errno_;
	int32_t pid;
	uint32_t uid;
	int status;             // SIGCHLD; timer overrun
	uint64_t addr, value;   // fault address; sigval
	int64_t utime, stime;
	int timerid, band, fd;
	uint32_t trapno, err;
	uint8_t raw[128];       // rt_sigqueueinfo's own bytes when is_raw
	bool is_raw;
	void *timer;            // the POSIX timer it came from, until it is delivered
};
struct sigqueue {
	TAILQ_ENTRY(sigqueue) link;
	struct ksiginfo info;
	struct kuser *user; // whose RLIMIT_SIGPENDING it counts against
	void *timer; // the POSIX timer that owns this entry; NULL: freed on delivery
	bool queued;
};
struct sigpending {
	uint64_t set;
	TAILQ_HEAD(, sigqueue) queue;
};
struct ksigaction {
	uint64_t handler, flags, restorer, mask;
};
struct sighand { // CLONE_SIGHAND shares it
	refcount_t refs;
	struct ksigaction action[KNSIG];
	struct waitq signalfd_wq; // signalfds poll here
};

// Sending never waits. 0 or -EAGAIN (RLIMIT_SIGPENDING, queued signals only).
int signal_send_task(struct task *t, int sig, const struct ksiginfo *info);
int signal_send_group(struct thread_group *tg, int sig, const struct ksiginfo *info);
int signal_send_pgrp(struct pid *pgrp, int sig, const struct ksiginfo *info); // number reached, or -ESRCH
// A signal from the kernel itself (SI_KERNEL), and a synchronous fault that cannot be blocked or ignored.
void signal_send_kernel(struct thread_group *tg, int sig);
void signal_force(struct task *t, const struct ksiginfo *info);
bool signal_pending(const struct task *t);      // a deliverable one
bool fatal_signal_pending(const struct task *t);
// signalfd/sigtimedwait: takes one pending signal in mask off t or its group; 0: none.
int signal_dequeue(struct task *t, uint64_t mask, struct ksiginfo *ret);
uint64_t signal_pending_set(const struct task *t); // own and shared
void signal_set_blocked(struct task *t, uint64_t mask);
// An action has changed: what is ignored now is no longer pending.
void signal_action_changed(struct thread_group *tg, int sig);
// Writes the 128 bytes of a siginfo_t.
void signal_info_encode(const struct ksiginfo *info, uint8_t ret[128]);
