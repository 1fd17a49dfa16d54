// Starting the kernel, and processes from outside (the container's first, `runsc exec`).
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>

#include "sentry/kernel/internal.h"
#include "sentry/kernel/sysinfo.h"

static uint64_t vdso_start, vdso_end;

uint64_t kernel_cpu_mask[16];
unsigned kernel_ncpus = 1;

// The guest's CPU numbers are the host's: those that this process may use.
static void find_cpus(void)
{
	cpu_set_t set;

	kernel_cpu_mask[0] = 1;
	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		return;
	kernel_cpu_mask[0] = 0;
	for (unsigned i = 0; i < 1024; i++)
		if (CPU_ISSET(i, &set))
			kernel_cpu_mask[i / 64] |= 1ULL << (i % 64);
	kernel_ncpus = (unsigned)MAX(CPU_COUNT(&set), 1);
}

void task_default_affinity(struct task *t)
{
	memcpy(t->cpu_mask, kernel_cpu_mask, sizeof(t->cpu_mask));
}

uint64_t kernel_memory_limit;
uint64_t (*kernel_memory_used)(void);
nsec_t kernel_boot_time;
static uint64_t host_memory;

void kernel_memory_get(struct kernel_memory *ret)
{
	uint64_t total = kernel_memory_limit && kernel_memory_limit < host_memory ? kernel_memory_limit : host_memory;
	uint64_t used = kernel_memory_used ? kernel_memory_used() : 0;

	*ret = (struct kernel_memory){.total = total};
	ret->free = ret->available = used < total ? total - used : 0;
}

int kernel_init(struct platform *pf)
{
	struct sysinfo si;

	kernel_pf = pf;
	kernel_boot_time = sched_now_boot();
	if (sysinfo(&si) == 0)
		host_memory = (uint64_t)si.totalram * si.mem_unit;
	find_cpus();
	if (pf)
		pf_vdso(pf, &vdso_start, &vdso_end);
	return 0;
}

bool kernel_in_vdso(uint64_t rip)
{
	return rip >= vdso_start && rip < vdso_end;
}

// --- a process from nothing ---------------------------------------------------------------------

struct starter { // lives on the stack of the task that called kernel_start_process()
	const struct boot_process *bp;
	struct waitq wq;
	bool done;
	int result;
};

// Along PATH, as execvpe(3) does.
static int exec_along_path(struct task *t, struct exec_args *a, const char *name, const char *path)
{
	int r = -ENOENT, keep = -ENOENT;
	char *full = arena_alloc(PATH_MAX);

	if (!full)
		return -ENOMEM;
	for (const char *p = path; p; p = strchr(p, ':') ? strchr(p, ':') + 1 : NULL) {
		int n = (int)strcspn(p, ":");

		if (snprintf(full, PATH_MAX, "%.*s/%s", n ? n : 1, n ? p : ".", name) >= PATH_MAX)
			continue;
		a->path = full;
		r = task_exec(t, a);
		if (r != -ENOENT && r != -ENOTDIR && r != -EACCES)
			return r;
		if (r == -EACCES)
			keep = r;
	}
	return keep;
}

static int starter_exec(struct task *t, const struct boot_process *bp)
{
	struct exec_args a = {.dirfd = AT_FDCWD, .path = bp->exe ? bp->exe : bp->argv[0]};
	const char *path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	int r = 0;

	if (bp->cwd && bp->cwd[0])
		r = task_chdir(t, bp->cwd);
	if (r == 0 && !a.path)
		r = -EINVAL;
	if (r == 0)
		r = exec_take_strings(bp->argv, bp->envp, &a);
	if (r < 0)
		return r;
	for (const char *const *e = bp->envp; e && *e; e++)
		if (!strncmp(*e, "PATH=", 5))
			path = *e + 5;
	if (bp->exe || strchr(a.path, '/'))
		r = task_exec(t, &a);
	else
		r = exec_along_path(t, &a, a.path, path);
	exec_free_strings(&a);
	return r;
}

// On the new task's own stack: the vfs and the loader act for it.
static void starter_run(struct task *t)
{
	struct starter *s = t->start_arg;
	int r = starter_exec(t, s->bp);

	arena_reset();
	t->start_fn = NULL;
	t->start_arg = NULL;
	if (r < 0)
		t->tg->on_exit = NULL; // the caller gets the error instead
	else
		t->tg->did_exec = false;
	s->result = r;
	s->done = true;
	waitq_wake_all(&s->wq, 0);
	if (r < 0)
		task_exit_group(t, 127 << 8);
}

static int fill_group(struct task *t, const struct boot_process *bp)
{
	struct thread_group *tg = tg_new();

	if (!tg)
		return -ENOMEM;
	t->tg = tg;
	tg->sighand = sighand_new();
	if (!tg->sighand)
		return -ENOMEM;
	tg->pid = pid_get(t->tid);
	tg->pid_ns = pid_ns_get(t->pid_ns);
	tg->leader = t;
	tg->rlim = *bp->rlim;
	tg->on_exit = bp->on_exit;
	tg->on_exit_arg = bp->arg;
	tg->tty = bp->tty;
	tg->exit_signal = SIGCHLD;
	tg->session_leader = true;
	return 0;
}

static int fill_task(struct task *t, const struct boot_process *bp)
{
	struct cred *cred;
	int r;

	task_init_hooks(t);
	task_set_comm(t, "init");
	cred = cred_dup(bp->cred);
	t->user = cred ? kuser_get(cred->uid) : NULL;
	if (cred && bp->no_new_privs)
		cred->no_new_privs = true;
	t->vt.cred = cred;
	t->pid_ns = bp->pid_ns ? pid_ns_get(bp->pid_ns) : pid_ns_new();
	if (!cred || !t->user || !t->pid_ns)
		return -ENOMEM;
	r = pid_alloc(t->pid_ns, &t->tid);
	if (r < 0)
		return r;
	ref_get(&bp->fs->refs);
	t->vt.fs = bp->fs;
	t->vt.files = fd_table_get(bp->files);
	t->uts = uts_ns_get(bp->uts);
	task_default_affinity(t);
	return fill_group(t, bp);
}

int kernel_start_process(const struct boot_process *bp, struct thread_group **ret)
{
	struct starter s = {.bp = bp};
	struct thread_group *tg;
	struct task *t = task_new();
	int r;

	if (!t)
		return -ENOMEM;
	r = fill_task(t, bp);
	if (r < 0) {
		task_put(t);
		return r;
	}
	waitq_init(&s.wq);
	tg = t->tg;
	tg_link(tg, NULL, t->tid, t->tid);
	task_link(t, tg);
	task_limits_changed(t);
	if (!pid_ns_first)
		pid_ns_first = t->pid_ns;
	if (!bp->pid_ns)
		t->pid_ns->init = tg;
	t->start_fn = starter_run;
	t->start_arg = &s;
	r = sched_spawn(&t->vt.st, t->comm, task_main, t);
	if (r < 0) {
		tg->on_exit = NULL;
		task_unborn(t);
		return r;
	}
	task_get(t);
	wait_event_until(&s.wq, s.done, WAIT_UNINTERRUPTIBLE, NSEC_INFINITE);
	if (s.result < 0)
		return s.result;
	*ret = tg;
	return 0;
}

// --- the end ------------------------------------------------------------------------------------

static void send_to(struct thread_group *tg, void *arg)
{
	signal_send_kernel(tg, *(int *)arg);
}

void kernel_kill_all(int signal)
{
	kernel_each_process(send_to, &signal);
}
