// execve(2): a fresh address space is loaded next to the old one; only when nothing can fail any
// more does the process change over.
#include "sentry/kernel/exec.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/personality.h>

#include "sentry/kernel/exec_creds.h"
#include "sentry/kernel/internal.h"
#include "sentry/kernel/sigmask.h"
#include "sentry/loader/loader.h"
#include "sentry/vfs/mount.h"

#define PERSONALITY_CLEAR_ON_SETID (READ_IMPLIES_EXEC | ADDR_NO_RANDOMIZE | ADDR_COMPAT_LAYOUT | MMAP_PAGE_ZERO)

struct exec_state {
	struct task *t;
	struct file *file;
	char filename[32];        // "/dev/fd/N"
	const char *name;
	struct cred *cred;        // of the new program
	bool secure, setid;
	struct fd_table *files;   // of its own, if the table was shared
	struct sighand *sighand;  // likewise
	struct loader_result img;
};

static int identify(void *arg, struct file *exe, struct loader_identity *ret)
{
	struct exec_state *x = arg;
	const struct cred *old = x->t->vt.cred;
	bool may_gain = !x->t->ptrace && ref_read(&x->t->vt.fs->refs) <= x->t->tg->nthreads;
	struct cred *n;
	int r = exec_new_creds(old, exe, may_gain, &n, &x->secure);

	if (r < 0)
		return r;
	if (x->cred)
		cred_put(x->cred);
	x->cred = n;
	x->setid = n->euid != old->uid || n->egid != old->gid;
	*ret = (struct loader_identity){.uid = n->uid, .euid = n->euid, .gid = n->gid, .egid = n->egid,
					.secure = x->secure};
	return 0;
}

static void undo(struct exec_state *x)
{
	if (x->img.ctx)
		pf_ctx_exit(x->img.ctx);
	if (x->img.mm)
		mm_put(x->img.mm);
	if (x->cred)
		cred_put(x->cred);
	if (x->files)
		fd_table_put(x->files);
	if (x->sighand)
		sighand_put(x->sighand);
	file_put(x->file);
}

static int open_program(struct exec_state *x, const struct exec_args *a)
{
	unsigned walk = a->flags & AT_SYMLINK_NOFOLLOW ? 0 : WALK_FOLLOW;
	int r;

	if (a->flags & AT_EMPTY_PATH)
		walk |= WALK_EMPTY;
	x->name = a->path;
	if (!a->path[0] && (a->flags & AT_EMPTY_PATH)) {
		snprintf(x->filename, sizeof(x->filename), "/dev/fd/%d", a->dirfd);
		x->name = x->filename;
	}
	r = loader_open(a->dirfd, a->path, walk, &x->file);
	if (r == 0 && x->file->inode->writers > 0)
		return -ETXTBSY;
	return r;
}

static int load(struct exec_state *x, const struct exec_args *a)
{
	struct thread_group *tg = x->t->tg;
	struct loader_request req = {
		.pf = kernel_pf, .file = x->file, .filename = x->name, .strings = a->strings,
		.strings_len = a->strings_len, .argc = a->argc, .envc = a->envc,
		.no_aslr = tg->personality & ADDR_NO_RANDOMIZE, .identify = identify, .arg = x};

	task_mm_limits(x->t, &req.lim);
	if (x->name == x->filename)
		req.path_inaccessible = fd_get_flags(a->dirfd) & FD_CLOEXEC;
	return loader_exec(&req, &x->img);
}

// What may fail of the change-over, done beforehand.
static int prepare(struct exec_state *x)
{
	struct task *t = x->t;

	// Threads of this process will be gone, so only other processes count as sharers; a copy too many
	// does no harm.
	if (fd_table_users(t->vt.files) > 1) {
		x->files = fd_table_copy(t->vt.files, UINT32_MAX, UINT32_MAX);
		if (!x->files)
			return -ENOMEM;
	}
	if (ref_read(&t->tg->sighand->refs) > 1) {
		x->sighand = sighand_new();
		if (!x->sighand)
			return -ENOMEM;
		memcpy(x->sighand->action, t->tg->sighand->action, sizeof(x->sighand->action));
	}
	return 0;
}

// --- de-threading -------------------------------------------------------------------------------

// The caller takes over the number of a leader that is gone.
static void become_leader(struct task *t)
{
	struct thread_group *tg = t->tg;
	struct task *old = tg->leader;
	struct pid *number = t->tid;

	t->tid = old->tid;
	old->tid = number;
	t->tid->task = t;
	number->task = old;
	tg->leader = t;
	TAILQ_REMOVE(&tg->threads, t, tg_link);
	TAILQ_INSERT_HEAD(&tg->threads, t, tg_link);
	task_release_thread(old);
}

// All other threads end. -EAGAIN: somebody else ends this one first. May wait.
static int kill_other_threads(struct task *t)
{
	struct thread_group *tg = t->tg;
	struct task *o;

	if (tg->group_exit || tg->execing || t->killed)
		return -EAGAIN;
	if (tg->nthreads == 1)
		return 0;
	tg->execing = true;
	tg->stopped = false;
	TAILQ_FOREACH(o, &tg->threads, tg_link) {
		if (o == t || o->exiting)
			continue;
		o->killed = true;
		signal_wake(o, true);
	}
	waitq_wake_all(&tg->stop_wq, 0);
	while (!t->killed && (tg->live_threads > 1 || tg->nthreads > 1 + (tg->leader != t)))
		waitq_sleep(&tg->thread_wq, WAIT_KILLABLE_ONLY, NSEC_INFINITE);
	tg->execing = false;
	if (t->killed)
		return -EAGAIN;
	tg->nstopped = 0;
	if (tg->leader != t)
		become_leader(t);
	return 0;
}

// --- the change-over ----------------------------------------------------------------------------

static void change_memory(struct exec_state *x)
{
	struct task *t = x->t;

	task_leave_image(t);
	task_drop_mm(t, true);
	t->mm = x->img.mm;
	task_set_ctx(t, x->img.ctx);
	x->img = (struct loader_result){0};
	vfork_release(t);
}

static void change_signals(struct exec_state *x)
{
	struct task *t = x->t;

	if (x->sighand) {
		sighand_put(t->tg->sighand);
		t->tg->sighand = x->sighand;
		x->sighand = NULL;
	}
	signal_flush_handlers(t, false);
	t->sas_sp = t->sas_size = 0;
	t->sas_flags = 0;
	t->restart.fn = NULL;
	t->frame_pending = false;
	itimers_exec(t->tg);
}

static void change_files(struct exec_state *x)
{
	struct fd_table *old = x->t->vt.files;

	if (x->files) {
		x->t->vt.files = x->files;
		x->files = NULL;
		fd_table_put(old);
	}
	fd_close_on_exec(x->t->vt.files);
}

static void change_identity(struct exec_state *x)
{
	struct task *t = x->t;
	const char *base = strrchr(x->name, '/');

	task_set_comm(t, base ? base + 1 : x->name);
	t->mm->dumpable = !x->setid && inode_permission(x->file->inode, t->vt.cred, MAY_READ) == 0;
	if (x->secure) {
		t->tg->personality &= ~(uint32_t)PERSONALITY_CLEAR_ON_SETID;
		t->pdeath_signal = 0;
	}
	t->keep_caps = false;
	task_commit_creds(t, x->cred);
	x->cred = NULL;
	t->tg->did_exec = true;
	t->tg->exit_signal = SIGCHLD;
	task_limits_changed(t);
	task_set_identity(t);
}

int task_exec(struct task *t, const struct exec_args *a)
{
	struct exec_state x = {.t = t};
	int r;

	r = open_program(&x, a);
	if (r == 0)
		r = load(&x, a);
	if (r == 0 && !x.cred)
		r = identify(&x, x.file, &(struct loader_identity){0});
	if (r == 0)
		r = prepare(&x);
	if (r == 0)
		r = kill_other_threads(t);
	if (r < 0) {
		undo(&x);
		return r;
	}
	if (t->mm)
		change_memory(&x);
	else {
		t->mm = x.img.mm;
		task_set_ctx(t, x.img.ctx);
		x.img = (struct loader_result){0};
	}
	change_signals(&x);
	change_identity(&x);
	change_files(&x);
	undo(&x);
	return 0;
}
