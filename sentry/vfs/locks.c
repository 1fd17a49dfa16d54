// Advisory file locks. Each inode has a list of byte-range locks, disjoint for one owner, and a list of
// flock locks; who waits sleeps on the inode's queue and looks again.
#include "sentry/vfs/locks.h"

#include <sys/file.h>

#include "sentry/vfs/internal.h"

struct lock {
	TAILQ_ENTRY(lock) link;
	struct posix_lock l;
};
TAILQ_HEAD(lock_list, lock);
struct file_lock_ctx {
	struct lock_list posix, flock;
	struct waitq wq;
	unsigned waiters; // the context stays while somebody sleeps on it
};
// Who waits for whom, for deadlock detection among POSIX locks.
struct lock_waiter {
	LIST_ENTRY(lock_waiter) link;
	const void *owner, *blocker;
};

#define DEADLOCK_DEPTH 64

DEFINE_SLAB(lock_slab, struct lock);
DEFINE_SLAB(ctx_slab, struct file_lock_ctx);
static LIST_HEAD(, lock_waiter) waiters = LIST_HEAD_INITIALIZER(waiters);

static struct file_lock_ctx *ctx_of(struct inode *inode)
{
	struct file_lock_ctx *c = inode->locks;

	if (c)
		return c;
	c = SLAB_NEW(ctx_slab, struct file_lock_ctx);
	if (!c)
		return NULL;
	TAILQ_INIT(&c->posix);
	TAILQ_INIT(&c->flock);
	waitq_init(&c->wq);
	inode->locks = c;
	return c;
}

static void list_free(struct lock_list *list)
{
	struct lock *l;

	while ((l = TAILQ_FIRST(list))) {
		TAILQ_REMOVE(list, l, link);
		slab_free(&lock_slab, l);
	}
}

void locks_free_ctx(struct inode *inode)
{
	struct file_lock_ctx *c = inode->locks;

	kassert(c->waiters == 0);
	list_free(&c->posix);
	list_free(&c->flock);
	slab_free(&ctx_slab, c);
	inode->locks = NULL;
}

// Gives the context back once nothing is locked, so that closes of the file stay cheap.
static void ctx_trim(struct inode *inode)
{
	struct file_lock_ctx *c = inode->locks;

	if (c && TAILQ_EMPTY(&c->posix) && TAILQ_EMPTY(&c->flock) && !c->waiters)
		locks_free_ctx(inode);
}

static bool conflicts(const struct posix_lock *a, const struct posix_lock *b)
{
	return a->owner != b->owner && a->start <= b->end && b->start <= a->end && (a->type == F_WRLCK || b->type == F_WRLCK);
}

static const struct posix_lock *find_conflict(const struct lock_list *list, const struct posix_lock *want)
{
	struct lock *l;

	TAILQ_FOREACH(l, list, link)
		if (conflicts(&l->l, want))
			return &l->l;
	return NULL;
}

static bool would_deadlock(const void *owner, const void *blocker)
{
	for (int i = 0; i < DEADLOCK_DEPTH; i++) {
		struct lock_waiter *w;

		if (blocker == owner)
			return true;
		LIST_FOREACH(w, &waiters, link)
			if (w->owner == blocker)
				break;
		if (!w)
			return false;
		blocker = w->blocker;
	}
	return false;
}

// Carves want's range out of its owner's locks, then puts want in if it is a lock. Neighbours of the
// same type merge. spare: two locks from the caller, used ones are taken out.
static void apply(struct lock_list *list, const struct posix_lock *want, struct lock *spare[2])
{
	struct posix_lock add = *want;
	struct lock *l, *next;

	for (l = TAILQ_FIRST(list); l; l = next) {
		bool same = l->l.type == add.type;
		uint64_t lo = l->l.start, hi = l->l.end;

		next = TAILQ_NEXT(l, link);
		if (l->l.owner != add.owner)
			continue;
		if (same && add.type != F_UNLCK && (add.start == 0 || hi >= add.start - 1) && (hi + 1 == 0 || lo <= add.end + 1)) {
			add.start = MIN(add.start, lo); // touching or overlapping: one lock
			add.end = MAX(add.end, hi);
			TAILQ_REMOVE(list, l, link);
			slab_free(&lock_slab, l);
			continue;
		}
		if (hi < add.start || lo > add.end)
			continue;
		if (lo < add.start && hi > add.end) { // split
			struct lock *tail = spare[0];

			spare[0] = NULL;
			tail->l = l->l;
			tail->l.start = add.end + 1;
			l->l.end = add.start - 1;
			TAILQ_INSERT_AFTER(list, l, tail, link);
		} else if (lo < add.start) {
			l->l.end = add.start - 1;
		} else if (hi > add.end) {
			l->l.start = add.end + 1;
		} else {
			TAILQ_REMOVE(list, l, link);
			slab_free(&lock_slab, l);
		}
	}
	if (add.type == F_UNLCK)
		return;
	l = spare[1];
	spare[1] = NULL;
	l->l = add;
	TAILQ_INSERT_TAIL(list, l, link);
}

// One sleep until something of the inode's locks changes.
static int wait_for(struct file_lock_ctx *c, const struct posix_lock *want, const void *blocker)
{
	struct lock_waiter w = {.owner = want->owner, .blocker = blocker};
	bool track = !want->ofd;
	int err;

	if (track)
		LIST_INSERT_HEAD(&waiters, &w, link);
	c->waiters++;
	err = waitq_sleep(&c->wq, WAIT_INTERRUPTIBLE, NSEC_INFINITE);
	c->waiters--;
	if (track)
		LIST_REMOVE(&w, link);
	return err;
}

int lock_posix_set(struct file *f, const struct posix_lock *want, bool wait)
{
	struct inode *inode = f->inode;
	struct file_lock_ctx *c;
	const struct posix_lock *in_way;
	struct lock *spare[2];
	int err = 0;

	if (want->type == F_UNLCK && !inode->locks)
		return 0;
	c = ctx_of(inode);
	if (!c)
		return -ENOLCK;
	while (want->type != F_UNLCK && (in_way = find_conflict(&c->posix, want))) {
		if (!wait)
			err = -EAGAIN;
		else if (!want->ofd && would_deadlock(want->owner, in_way->owner))
			err = -EDEADLK;
		else
			err = wait_for(c, want, in_way->owner);
		if (err) {
			ctx_trim(inode);
			return err;
		}
	}
	spare[0] = SLAB_NEW(lock_slab, struct lock);
	spare[1] = SLAB_NEW(lock_slab, struct lock);
	if (spare[0] && spare[1]) {
		apply(&c->posix, want, spare);
		waitq_wake_all(&c->wq, 0);
	} else {
		err = -ENOLCK;
	}
	slab_free(&lock_slab, spare[0]);
	slab_free(&lock_slab, spare[1]);
	ctx_trim(inode);
	return err;
}

void lock_posix_get(struct file *f, struct posix_lock *l)
{
	const struct posix_lock *in_way = f->inode->locks ? find_conflict(&f->inode->locks->posix, l) : NULL;

	if (in_way)
		*l = *in_way;
	else
		l->type = F_UNLCK;
}

static bool remove_owned(struct lock_list *list, const void *owner)
{
	struct lock *l, *next;
	bool any = false;

	for (l = TAILQ_FIRST(list); l; l = next) {
		next = TAILQ_NEXT(l, link);
		if (l->l.owner != owner)
			continue;
		TAILQ_REMOVE(list, l, link);
		slab_free(&lock_slab, l);
		any = true;
	}
	return any;
}

void locks_release_posix(struct file *f, const void *owner)
{
	struct file_lock_ctx *c = f->inode->locks;

	if (c && remove_owned(&c->posix, owner)) {
		waitq_wake_all(&c->wq, 0);
		ctx_trim(f->inode);
	}
}

void locks_release_file(struct file *f)
{
	struct file_lock_ctx *c = f->inode->locks;
	bool any = remove_owned(&c->posix, f);

	any |= remove_owned(&c->flock, f);
	if (any) {
		waitq_wake_all(&c->wq, 0);
		ctx_trim(f->inode);
	}
}

int lock_flock(struct file *f, int op)
{
	struct inode *inode = f->inode;
	struct posix_lock want = {.end = UINT64_MAX, .owner = f, .ofd = true};
	struct file_lock_ctx *c;
	struct lock *l;
	int err = 0;

	switch (op & ~LOCK_NB) {
	case LOCK_SH:
		want.type = F_RDLCK;
		break;
	case LOCK_EX:
		want.type = F_WRLCK;
		break;
	case LOCK_UN:
		want.type = F_UNLCK;
		break;
	default:
		return -EINVAL;
	}
	c = ctx_of(inode);
	if (!c)
		return -ENOLCK;
	TAILQ_FOREACH(l, &c->flock, link)
		if (l->l.owner == f)
			break;
	if (l && l->l.type == want.type)
		return 0;
	if (l) { // a conversion gives up the old lock first, as Linux does
		TAILQ_REMOVE(&c->flock, l, link);
		slab_free(&lock_slab, l);
		waitq_wake_all(&c->wq, 0);
	}
	while (!err && want.type != F_UNLCK && find_conflict(&c->flock, &want))
		err = op & LOCK_NB ? -EWOULDBLOCK : wait_for(c, &want, NULL);
	if (!err && want.type != F_UNLCK) {
		l = SLAB_NEW(lock_slab, struct lock);
		if (l) {
			l->l = want;
			TAILQ_INSERT_TAIL(&c->flock, l, link);
		} else {
			err = -ENOLCK;
		}
	}
	ctx_trim(inode);
	return err;
}

void locks_each(struct inode *inode, void (*fn)(const struct posix_lock *l, bool is_flock, void *arg), void *arg)
{
	struct lock *l;

	if (!inode->locks)
		return;
	TAILQ_FOREACH(l, &inode->locks->posix, link)
		fn(&l->l, false, arg);
	TAILQ_FOREACH(l, &inode->locks->flock, link)
		fn(&l->l, true, arg);
}
