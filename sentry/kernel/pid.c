// Numbers: pids, pid namespaces, per-user counts.
#include "sentry/kernel/internal.h"

#define PID_MAX (4096 * 1024)
#define PID_RESERVED 300 // after a wrap, numbers start here
#define LEAF_PIDS 1024

struct pid_leaf {
	unsigned used;
	struct pid *pids[LEAF_PIDS];
};

DEFINE_SLAB(slab_pid, struct pid);
DEFINE_SLAB(slab_pid_ns, struct pid_ns);
DEFINE_SLAB(slab_pid_leaf, struct pid_leaf);
DEFINE_SLAB(slab_kuser, struct kuser);

struct pid_ns *pid_ns_first;

// --- namespaces ---------------------------------------------------------------------------------

struct pid_ns *pid_ns_new(void)
{
	struct pid_ns *ns = SLAB_NEW(slab_pid_ns, struct pid_ns);

	if (!ns)
		return NULL;
	ref_init(&ns->refs, 1);
	waitq_init(&ns->empty_wq);
	return ns;
}

struct pid_ns *pid_ns_get(struct pid_ns *ns)
{
	ref_get(&ns->refs);
	return ns;
}

void pid_ns_put(struct pid_ns *ns)
{
	if (!ns || !ref_put(&ns->refs))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(ns->leaf); i++)
		kassert(!ns->leaf[i] || ns->leaf[i]->used == 0);
	for (size_t i = 0; i < ARRAY_SIZE(ns->leaf); i++)
		slab_free(&slab_pid_leaf, ns->leaf[i]);
	if (pid_ns_first == ns)
		pid_ns_first = NULL;
	slab_free(&slab_pid_ns, ns);
}

// --- numbers ------------------------------------------------------------------------------------

static struct pid **pid_slot(struct pid_ns *ns, int32_t nr)
{
	struct pid_leaf *leaf = ns->leaf[nr / LEAF_PIDS];

	return leaf ? &leaf->pids[nr % LEAF_PIDS] : NULL;
}

static int next_free(struct pid_ns *ns)
{
	int32_t nr = ns->last;
	struct pid **slot;

	for (int tries = 0; tries < PID_MAX; tries++) {
		if (++nr >= PID_MAX)
			nr = PID_RESERVED;
		slot = pid_slot(ns, nr);
		if (!slot || !*slot)
			return nr;
	}
	return -EAGAIN;
}

static int pid_make(struct pid_ns *ns, int32_t nr, struct pid **ret)
{
	struct pid_leaf **leaf, **before;
	struct pid *p;

	leaf = &ns->leaf[nr / LEAF_PIDS];
	before = &ns->leaf[ns->last / LEAF_PIDS];
	if (before != leaf && *before && (*before)->used == 0) {
		slab_free(&slab_pid_leaf, *before);
		*before = NULL;
	}
	if (!*leaf)
		*leaf = SLAB_NEW(slab_pid_leaf, struct pid_leaf);
	p = *leaf ? SLAB_NEW(slab_pid, struct pid) : NULL;
	if (!p)
		return -ENOMEM;
	ref_init(&p->refs, 1);
	p->nr = nr;
	p->ns = pid_ns_get(ns);
	LIST_INIT(&p->pgrp);
	LIST_INIT(&p->session);
	waitq_init(&p->exit_wq);
	(*leaf)->pids[nr % LEAF_PIDS] = p;
	(*leaf)->used++;
	ns->last = nr;
	*ret = p;
	return 0;
}

int pid_alloc(struct pid_ns *ns, struct pid **ret)
{
	int nr = next_free(ns);

	return nr < 0 ? nr : pid_make(ns, nr, ret);
}

int pid_alloc_nr(struct pid_ns *ns, int32_t nr, struct pid **ret)
{
	if (nr <= 0 || nr >= PID_MAX)
		return -EINVAL;
	return pid_find_in(ns, nr) ? -EEXIST : pid_make(ns, nr, ret);
}

struct pid *pid_get(struct pid *p)
{
	ref_get(&p->refs);
	return p;
}

void pid_put(struct pid *p)
{
	struct pid_ns *ns;
	struct pid_leaf **leaf;

	if (!p || !ref_put(&p->refs))
		return;
	kassert(!p->task && LIST_EMPTY(&p->pgrp) && LIST_EMPTY(&p->session));
	ns = p->ns;
	leaf = &ns->leaf[p->nr / LEAF_PIDS];
	kassert(*leaf && (*leaf)->pids[p->nr % LEAF_PIDS] == p);
	(*leaf)->pids[p->nr % LEAF_PIDS] = NULL;
	// The leaf in which numbers are handed out now is kept, so that a fork loop does not pay for it.
	if (--(*leaf)->used == 0 && p->nr / LEAF_PIDS != ns->last / LEAF_PIDS) {
		slab_free(&slab_pid_leaf, *leaf);
		*leaf = NULL;
	}
	slab_free(&slab_pid, p);
	pid_ns_put(ns);
}

static struct pid_ns *current_ns(void)
{
	struct task *t = task_self();

	return t ? t->pid_ns : pid_ns_first;
}

struct pid *pid_find_in(struct pid_ns *ns, int32_t nr)
{
	struct pid **slot;

	if (!ns || nr <= 0 || nr >= PID_MAX)
		return NULL;
	slot = pid_slot(ns, nr);
	return slot ? *slot : NULL;
}

struct pid *pid_find(int32_t nr)
{
	return pid_find_in(current_ns(), nr);
}

struct task *task_find(int32_t tid)
{
	struct pid *p = pid_find(tid);

	return p ? p->task : NULL;
}

struct thread_group *process_find(int32_t nr)
{
	struct task *t = task_find(nr);

	return t && t->tg->leader == t ? t->tg : NULL;
}

int32_t kernel_next_pid(int32_t nr)
{
	struct pid_ns *ns = current_ns();
	struct pid_leaf *leaf;

	if (!ns || nr < 0)
		nr = 0;
	for (nr++; ns && nr < PID_MAX; nr++) {
		leaf = ns->leaf[nr / LEAF_PIDS];
		if (!leaf) {
			nr |= LEAF_PIDS - 1;
			continue;
		}
		if (leaf->pids[nr % LEAF_PIDS] && leaf->pids[nr % LEAF_PIDS]->task)
			return nr;
	}
	return -1;
}

// --- users --------------------------------------------------------------------------------------

#define KUSER_BUCKETS 64
static LIST_HEAD(kuser_list, kuser) kusers[KUSER_BUCKETS];

struct kuser *kuser_get(uint32_t uid)
{
	struct kuser_list *head = &kusers[uid % KUSER_BUCKETS];
	struct kuser *u;

	LIST_FOREACH(u, head, link) {
		if (u->uid == uid) {
			ref_get(&u->refs);
			return u;
		}
	}
	u = SLAB_NEW(slab_kuser, struct kuser);
	if (!u)
		return NULL;
	ref_init(&u->refs, 1);
	u->uid = uid;
	LIST_INSERT_HEAD(head, u, link);
	return u;
}

void kuser_put(struct kuser *u)
{
	if (!u || !ref_put(&u->refs))
		return;
	LIST_REMOVE(u, link);
	slab_free(&slab_kuser, u);
}
