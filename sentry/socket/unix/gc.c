// Descriptors in flight: their number is bounded, and sockets that only messages refer to are found.
//
// A socket whose every file reference is one of a message in some queue can be reached only by
// receiving that message. Starting from the sockets that can be reached otherwise, whatever lies in
// their queues can be reached, and so on; the rest are cycles, whose messages are dropped.
#include <errno.h>
#include <linux/capability.h>

#include "platform/base/base.h"
#include "platform/base/slab.h"
#include "sentry/socket/unix/internal.h"

static unsigned files_in_flight, socks_in_flight;
SLIST_HEAD(work_list, unix_sock);

static struct unix_sock *unix_of_file(const struct file *f)
{
	struct socket *s = socket_of(f);

	return s && s->family == AF_UNIX ? unix_of(s) : NULL;
}

int unix_inflight_add(struct scm_files *files)
{
	const struct vfs_task *self = vfs_self();
	bool privileged = cred_capable(self->cred, CAP_SYS_RESOURCE) || cred_capable(self->cred, CAP_SYS_ADMIN);

	if (files_in_flight + files->n > UNIX_INFLIGHT_MAX || (!privileged && files_in_flight > self->nofile_limit))
		return -ETOOMANYREFS;
	files_in_flight += files->n;
	for (unsigned i = 0; i < files->n; i++) {
		struct unix_sock *u = unix_of_file(files->f[i]);

		if (u) {
			u->inflight++;
			socks_in_flight++;
		}
	}
	return 0;
}

void unix_inflight_del(struct scm_files *files)
{
	files_in_flight -= files->n;
	for (unsigned i = 0; i < files->n; i++) {
		struct unix_sock *u = unix_of_file(files->f[i]);

		if (u) {
			u->inflight--;
			socks_in_flight--;
		}
	}
}

// What lies in u's queue can be reached.
static void mark_queue(struct unix_sock *u, struct work_list *work)
{
	struct umsg *m;

	TAILQ_FOREACH(m, &u->queue, link) {
		for (unsigned i = 0; m->files && i < m->files->n; i++) {
			struct unix_sock *x = unix_of_file(m->files->f[i]);

			if (x && x->candidate) {
				x->candidate = false;
				SLIST_INSERT_HEAD(work, x, work);
			}
		}
	}
}

static void mark_from(struct unix_sock *u, struct work_list *work)
{
	struct unix_sock *e;

	mark_queue(u, work);
	TAILQ_FOREACH(e, &u->accept_q, accept_link)
		mark_queue(e, work);
}

static void steal_messages(struct unix_sock *u, struct umsg_queue *hit)
{
	struct umsg *m, *next;

	for (m = TAILQ_FIRST(&u->queue); m; m = next) {
		next = TAILQ_NEXT(m, link);
		if (!m->files)
			continue;
		TAILQ_REMOVE(&u->queue, m, link);
		u->qlen--;
		TAILQ_INSERT_TAIL(hit, m, link);
	}
}

void unix_gc(void)
{
	struct work_list work = SLIST_HEAD_INITIALIZER(work);
	struct umsg_queue hit = TAILQ_HEAD_INITIALIZER(hit);
	static bool running;
	static unsigned calls, cost; // a look at all sockets comes once in as many calls as make up for it
	struct unix_sock *u, *e;
	struct umsg *m;
	bool any = false;

	if (!socks_in_flight || running)
		return;
	if (++calls * 32 < cost)
		return;
	calls = cost = 0;
	LIST_FOREACH(u, &unix_all, all) {
		cost++;
		u->candidate = u->inflight && u->s.file && ref_read(&u->s.file->mobj.refs) == u->inflight;
		any |= u->candidate;
	}
	if (!any)
		return;
	LIST_FOREACH(u, &unix_all, all)
		if (!u->candidate && !u->embryo)
			mark_from(u, &work);
	while ((u = SLIST_FIRST(&work))) {
		SLIST_REMOVE_HEAD(&work, work);
		mark_from(u, &work);
	}
	LIST_FOREACH(u, &unix_all, all) {
		if (!u->candidate)
			continue;
		steal_messages(u, &hit);
		TAILQ_FOREACH(e, &u->accept_q, accept_link)
			steal_messages(e, &hit);
	}
	running = true;
	while ((m = TAILQ_FIRST(&hit))) {
		TAILQ_REMOVE(&hit, m, link);
		umsg_free(m);
	}
	running = false;
}
