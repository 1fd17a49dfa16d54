// Address spaces: processes forked from the zygote or from one another.
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "platform/ptrace/internal.h"

DEFINE_SLAB(as_slab, struct pt_as);

struct pt_as *pt_as_alloc(struct platform *pf, pid_t pid)
{
	struct pt_as *as = SLAB_NEW(as_slab, struct pt_as);

	if (!as)
		return NULL;
	as->base.pf = pf;
	as->pid = pid;
	LIST_INIT(&as->ctxs);
	return as;
}

// Notes a process whose end is still to come.
static void add_dying(struct pt_platform *pt, pid_t pid)
{
	if (pt->n_dying == pt->cap_dying) {
		size_t cap = pt->cap_dying ? 2 * pt->cap_dying : 16;
		pid_t *n = krealloc(pt->dying, pt->cap_dying * sizeof(*n), cap * sizeof(*n));

		if (!n)
			return; // it is reaped all the same, only pt_destroy will not wait for it
		pt->dying = n;
		pt->cap_dying = cap;
	}
	pt->dying[pt->n_dying++] = pid;
}

void pt_reaped(struct pt_platform *pt, pid_t pid)
{
	for (size_t i = 0; i < pt->n_dying; i++)
		if (pt->dying[i] == pid) {
			pt->dying[i] = pt->dying[--pt->n_dying];
			return;
		}
}

static int fork_from(struct pt_ctx *from, const struct pt_ctx *like, struct pf_as **ret_as, struct pf_ctx **ret_ctx)
{
	struct pt_as *as;
	struct pt_ctx *c;
	pid_t pid;
	int r;

	r = pt_clone(from, PTL_FORK_FLAGS, &pid);
	if (r)
		return r;
	as = pt_as_alloc(from->base.as->pf, pid);
	c = as ? pt_ctx_new(as, pid, like) : NULL;
	if (!c) {
		kill(pid, SIGKILL); // reaped with a later poll
		add_dying(pt_of(from->base.as->pf), pid);
		slab_free(&as_slab, as);
		return -ENOMEM;
	}
	c->leader = true;
	as->leader = c;
	*ret_as = &as->base;
	*ret_ctx = &c->base;
	return 0;
}

int pt_as_new(struct platform *pf, struct pf_as **ret_as, struct pf_ctx **ret_ctx)
{
	int r = fork_from(pt_of(pf)->zygote->leader, NULL, ret_as, ret_ctx);

	if (!r)
		pt_call(pt_ctx_of(*ret_ctx), SYS_prctl, PR_SET_NAME, PTL_DATA_NAME, 0, 0, 0, 0);
	return r;
}

int pt_fork(struct pf_ctx *parent, struct pf_as **ret_as, struct pf_ctx **ret_ctx)
{
	struct pt_ctx *c = pt_ctx_of(parent);
	int r;

	pt_own(c);
	r = pt_flush(parent);
	return r ? r : fork_from(c, c, ret_as, ret_ctx);
}

int pt_thread_new(struct pf_ctx *creator, struct pf_ctx **ret_ctx)
{
	struct pt_ctx *c = pt_ctx_of(creator), *n;
	pid_t tid;
	int r;

	pt_own(c);
	r = pt_clone(c, PTL_THREAD_FLAGS, &tid);
	if (r)
		return r;
	n = pt_ctx_new(ctx_as(c), tid, c);
	if (!n) {
		// A thread that nobody knows stays stopped until its process ends.
		log_err("ptrace: out of memory: thread %d is lost", tid);
		return -ENOMEM;
	}
	n->local_calls = c->local_calls;
	*ret_ctx = &n->base;
	return 0;
}

void pt_ctx_exit(struct pf_ctx *ctx)
{
	struct pt_ctx *c = pt_ctx_of(ctx);
	static const uint64_t args[6] = {0};

	pt_own(c);
	if (!c->gone && !c->has_failure)
		pt_apply_stores(c);
	ctx_as(c)->n_ctx--;
	if (c->leader)
		return; // stays as it is: without it the host would no longer know the process's memory
	if (!c->gone)
		pt_call_start(c, SYS_exit, args);
	pt_ctx_free(c);
}

void pt_as_kill(struct pf_as *pf_as)
{
	struct pt_as *as = pt_as_of(pf_as);

	// The pid is ours until the leader's end has been waited for.
	if (!as->killed && !as->leader->reaped)
		kill(as->pid, SIGKILL);
	as->killed = true;
}

void pt_as_free(struct pf_as *pf_as)
{
	struct pt_as *as = pt_as_of(pf_as);

	kassert(as->n_ctx == 0);
	pt_as_kill(pf_as);
	if (!as->leader->reaped)
		add_dying(pt_of(pf_as->pf), as->pid);
	pt_ctx_free(as->leader);
	kassert(LIST_EMPTY(&as->ctxs));
	slab_free(&as_slab, as);
}
