// Tasks and processes.
//
//   task           a guest thread: a context, a kernel stack, its own pending signals
//   thread_group   a process: what its threads share (pid, parent, signals' actions, limits, timers)
//
// Invariants
//  - current_task() is the running task; only it changes its own regs, signal mask and credentials.
//  - A task leaves the guest only through task_main(); it is freed when its exit was collected.
//  - Everything a process can reach by number (pid, pgid, sid) is found through a struct pid that
//    outlives the process as long as somebody uses the number.
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "abi/x86_64/regs.h"
#include "platform/base/refcount.h"
#include "platform/platform.h"
#include "sentry/kernel/signal.h"
#include "sentry/mm/mm.h"
#include "sentry/sched/sched.h"
#include "sentry/vfs/vfs.h"

struct task;
struct thread_group;
struct pid_ns;
struct tty;
struct seccomp_filter;

// A process, group or session number (initial pid namespace; nested ones come with namespaces).
struct pid {
	refcount_t refs;
	int32_t nr;
	struct task *task;              // the thread with this tid; NULL: gone
	LIST_HEAD(, thread_group) pgrp; // members of the process group with this number
	LIST_HEAD(, thread_group) session;
	struct waitq exit_wq;           // pidfd polls here
	struct pid_ns *ns;              // where nr counts
};
// By number in the current task's pid namespace (the first one when no task is current).
struct pid *pid_find(int32_t nr);      // borrowed; NULL
struct pid *pid_find_in(struct pid_ns *ns, int32_t nr);
struct task *task_find(int32_t tid);   // borrowed; NULL; zombies included
struct thread_group *process_find(int32_t pid); // by thread-group id
struct pid *pid_get(struct pid *p);
void pid_put(struct pid *p); // NULL is fine

void tg_set_pgrp(struct thread_group *tg, struct pid *pgrp); // leaves the old group, takes a reference
void tg_set_session(struct thread_group *tg, struct pid *session);

struct rlimits {
	struct { uint64_t cur, max; } v[16]; // RLIMIT_*
};

struct uts_ns {
	refcount_t refs;
	char nodename[65], domainname[65];
};
struct uts_ns *uts_ns_new(const char *nodename, const char *domainname); // NULL: no memory
struct uts_ns *uts_ns_get(struct uts_ns *u);
void uts_ns_put(struct uts_ns *u);

// Numbers of processes: one space a container. Freed with its last pid.
struct pid_ns {
	refcount_t refs;
	struct thread_group *init;      // children of the dead go to it; its death ends all others
	int32_t last;                   // the number handed out last
	unsigned nr_procs;              // thread groups that are not yet collected
	struct waitq empty_wq;          // init waits here for the others to be gone
	struct pid_leaf *leaf[4096];    // 1024 numbers each
};
struct pid_ns *pid_ns_new(void);
struct pid_ns *pid_ns_get(struct pid_ns *ns);
void pid_ns_put(struct pid_ns *ns);
extern struct pid_ns *pid_ns_first;

// What is counted per user: RLIMIT_NPROC, RLIMIT_SIGPENDING.
struct kuser {
	refcount_t refs;
	uint32_t uid;
	unsigned nproc, nsigpending;
	LIST_ENTRY(kuser) link;
};

enum tg_state { TG_RUNNING, TG_EXITING, TG_ZOMBIE };
struct thread_group {
	refcount_t refs;
	enum tg_state state;
	struct pid *pid, *pgrp, *session;
	struct task *leader;
	TAILQ_HEAD(, task) threads;
	unsigned nthreads, live_threads;
	struct thread_group *parent;       // the real parent (subreaper, then init, after it died)
	TAILQ_HEAD(, thread_group) children; // the eldest first
	TAILQ_ENTRY(thread_group) sibling;
	LIST_ENTRY(thread_group) pgrp_link, session_link;
	int exit_signal;                   // to the parent when the last thread ended; 0: none (clone)
	int exit_code;                     // as wait(2) shows it (status << 8 | signal)
	bool group_exit, execing, subreaper, has_subreaper, did_exec, session_leader;
	struct sighand *sighand;
	struct sigpending shared_pending;
	// Job control
	bool stopped;                      // every thread stops
	int stop_code;                     // signal that stopped it
	unsigned wait_flags;               // TG_STOP_PENDING / TG_CONT_PENDING: to be reported by wait
	struct waitq child_wq;             // this process waits for its children here
	struct tty *tty;                   // controlling terminal; shared by the session
	struct rlimits rlim;
	uint64_t utime_ns, stime_ns, cutime_ns, cstime_ns; // of threads/address spaces that are gone; of waited children
	uint64_t maxrss_kb, cmaxrss_kb, nvcsw, nivcsw, minflt, majflt;
	nsec_t start_time;                 // boot clock
	struct itimers *itimers;           // setitimer, POSIX timers; NULL: none
	int oom_score_adj;
	uint32_t personality;
	int nice;
	void *audit;
	void *ipc;                         // SysV: semaphore undo, shm attachments
	struct task *sig_target;           // whom the last group-directed signal went to
	unsigned nstopped;                 // threads with stop_ack
	struct waitq stop_wq;              // stopped threads sleep here
	struct waitq thread_wq;            // exec waits here for the other threads to be gone
	struct pid_ns *pid_ns;
	void (*on_exit)(struct thread_group *tg, void *arg); // boot's; the process is collected after it
	void *on_exit_arg;
	uint64_t cpu_base_ns;              // CPU time of address spaces that exec has left
	LIST_ENTRY(thread_group) all;
};
enum { TG_STOP_PENDING = 1, TG_CONT_PENDING = 2 };

struct task {
	struct vfs_task vt;                // first: st, fs, cred, files
	struct pf_ctx *ctx;
	struct mm *mm;                     // NULL after exit
	struct thread_group *tg;
	struct pid *tid;
	TAILQ_ENTRY(task) tg_link;
	char comm[16];
	uint64_t clear_child_tid, robust_list, robust_len;
	struct rseq_area { uint64_t addr; uint32_t len, sig; } rseq;
	// The call being served: a private copy, decoded once.
	uint32_t sc_nr;
	uint64_t sc_args[6];
	bool in_syscall;
	struct restart_block { int64_t (*fn)(struct task *t); uint64_t data[4]; } restart;
	// Signals
	struct sigpending pending;
	uint64_t blocked, saved_blocked;   // saved: to be restored after sigsuspend & co.
	bool restore_blocked;
	uint64_t sas_sp, sas_size;
	uint32_t sas_flags;
	bool killed, exiting, stop_ack;
	int exit_code;
	struct uts_ns *uts;
	struct vfork_wait *vfork_done;     // the parent waits on it; NULL
	int pdeath_signal;
	bool kernel_thread, no_new_seccomp, keep_caps;
	struct seccomp_filter *seccomp;    // the guest's filters, newest first; NULL: none
	bool seccomp_strict;               // only read, write, exit, rt_sigreturn
	bool local_calls_off;              // to be told to the backend when the context is the sentry's
	void *ptrace;
	int nice;
	uint64_t cpu_mask[16];             // sched_setaffinity
	struct pid_ns *pid_ns;
	nsec_t timer_slack;
	uint64_t sc_count;
	refcount_t refs;                   // one: not yet collected; one: its stack; others: lookers-on
	struct kuser *user;                // of the real uid
	bool no_result;                    // the handler has set the registers itself (rt_sigreturn, execve)
	bool retry_call;                   // the interrupted call goes on in the backend, if no handler runs
	uint16_t restart_err;              // ERESTART* that the call returned; 0: none
	bool forking;                      // a fork is under way; group signals meanwhile are in fork_signals
	bool starting;                     // has not reported its first event
	void *start_arg;
	void (*start_fn)(struct task *t);  // runs first on the task's own stack; NULL: nothing
	bool frame_pending;                // a signal frame is on its way to the guest's stack
	int frame_signo;
	struct abi_regs frame_regs;        // registers before that frame
	uint64_t fork_signals, real_blocked;
	uint64_t fault_addr;               // of the last fault, as the signal frame shows them
	uint32_t fault_trapno, fault_err;
	uint32_t sched_policy, sched_prio, sched_flags, ioprio;
	uint64_t cpu_ns_done;              // CPU time in contexts it has left
};
static inline struct task *current_task(void) { return (struct task *)sched_current(); }

// Called around every system call when set (strace): before the handler; after it with its result.
extern void (*task_syscall_enter)(struct task *t);
extern void (*task_syscall_exit)(struct task *t, int64_t result);
// Performs t->sc_nr with t->sc_args. The syscalls room defines it: here alone the kernel calls upward.
int64_t task_call(struct task *t);

// Set by the rooms that keep such things: a session leader has died (its terminal hangs up); a
// process with tg->ipc has died.
extern void (*kernel_session_leader_exit)(struct thread_group *tg);
extern void (*kernel_ipc_exit)(struct thread_group *tg);

struct task *task_get(struct task *t);
void task_put(struct task *t);

// --- life (clone.c, exec.c, exit.c) -----------------------------------------------------------
struct boot_process { // what boot starts pid 1 (and `runsc exec`) from; all borrowed
	const char *const *argv, *const *envp;
	const char *cwd;
	struct cred *cred;
	const struct rlimits *rlim;
	struct fs_struct *fs;
	struct fd_table *files;
	struct uts_ns *uts;
	struct tty *tty;
	bool no_new_privs;
	void (*on_exit)(struct thread_group *tg, void *arg); // its zombie is at exit_code; called once
	void *arg;
	struct pid_ns *pid_ns;      // NULL: a new one, whose init it becomes; else it joins that one (exec)
	const char *exe;            // what to execute; NULL: argv[0] along PATH of envp
};
int kernel_init(struct platform *pf); // before the process is locked down
// The CPUs that the sandbox shows, by the host's numbers.
extern uint64_t kernel_cpu_mask[16];
extern unsigned kernel_ncpus;
// May wait. -ENOENT, -EACCES, -ENOEXEC ... as execve(2).
int kernel_start_process(const struct boot_process *bp, struct thread_group **ret);
void kernel_kill_all(int signal);
_Noreturn void task_exit(struct task *t, int code);      // one thread; code as wait(2)
_Noreturn void task_exit_group(struct task *t, int code);
// Runs fn for every live thread group. Never waits.
void kernel_each_process(void (*fn)(struct thread_group *tg, void *arg), void *arg);
void kernel_each_group(void (*fn)(struct thread_group *tg, void *arg), void *arg); // zombies as well
unsigned kernel_ntasks(void);
// First tid > nr in use, or -1: for /proc's getdents.
int32_t kernel_next_pid(int32_t nr);
// Replaces the credentials (takes over c) and tells those that keep copies. Current task, or one not yet running.
void task_commit_creds(struct task *t, struct cred *c);
bool task_capable(const struct task *t, unsigned cap);
static inline bool capable(unsigned cap) { return task_capable(current_task(), cap); }
// No member has a parent in another group of the session: job control has no hold on it. `ignore` is going away.
bool pgrp_orphaned(struct pid *pgrp, const struct thread_group *ignore);
// Checks of kill(2) and of ptrace_may_access (for /proc/PID and process_vm_*).
bool task_may_signal(const struct task *by, const struct task *target, int sig);
bool task_may_inspect(const struct task *by, const struct task *target);
uint64_t process_cpu_ns(struct thread_group *tg, uint64_t *ret_user, uint64_t *ret_sys);
// Refreshes vt's copies of limits after rlim or cred changed.
void task_limits_changed(struct task *t);
