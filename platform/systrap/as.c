// Address spaces: stub processes, how they come and go.
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "platform/base/fdpass.h"
#include "platform/systrap/internal.h"

DEFINE_SLAB(st_as_slab, struct st_as);

static int ctx_memory(struct st_as *as)
{
	as->mem_fd = memfd_create("runsc-ctx", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (as->mem_fd < 0 || ftruncate(as->mem_fd, (off_t)STUB_CTX_TOTAL) < 0 ||
	    fcntl(as->mem_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	return 0;
}

static int map_ctx_memory(struct st_as *as)
{
	void *p = mmap(NULL, STUB_CTX_TOTAL, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, as->mem_fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	as->map = p;
	return 0;
}

// Our end tells us who writes to it, and when the other end is gone.
static int watch_socket(struct systrap *st, struct st_as *as)
{
	struct epoll_event e = {.events = EPOLLRDHUP, .data.ptr = as};
	int one = 1;

	// Never blocks: a stub that does not read must not stop us.
	if (fcntl(as->sock, F_SETFL, O_NONBLOCK) < 0 ||
	    (!as->pid && setsockopt(as->sock, SOL_SOCKET, SO_PASSCRED, &one, sizeof(one)) < 0) ||
	    epoll_ctl(st->ep_fd, EPOLL_CTL_ADD, as->sock, &e) < 0)
		return -errno;
	return 0;
}

static struct st_as *as_blank(struct systrap *st)
{
	struct st_as *as = SLAB_NEW(st_as_slab, struct st_as);

	if (!as)
		return NULL;
	as->base.pf = &st->base;
	as->mem_fd = as->sock = as->peer = -1;
	LIST_INSERT_HEAD(&st->spaces, as, link);
	return as;
}

int st_as_adopt(struct systrap *st, int sock, int mem_fd, pid_t pid, struct st_as **ret_as)
{
	struct st_as *as = as_blank(st);
	int r;

	if (!as)
		return -ENOMEM;
	as->sock = sock;
	as->mem_fd = mem_fd;
	as->pid = pid;
	as->born = true;
	r = map_ctx_memory(as);
	if (!r)
		r = watch_socket(st, as);
	if (r) {
		as->sock = -1; // the caller's still
		st_as_release(as);
		return r;
	}
	*ret_as = as;
	return 0;
}

struct st_as *st_as_alloc(struct systrap *st)
{
	struct st_as *as = as_blank(st);
	int pair[2];

	if (!as)
		return NULL;
	if (ctx_memory(as) || map_ctx_memory(as))
		goto fail;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		goto fail;
	as->sock = pair[0];
	as->peer = pair[1];
	if (watch_socket(st, as))
		goto fail;
	return as;
fail:
	st_as_release(as);
	return NULL;
}

static void free_contexts(struct st_as *as)
{
	for (uint32_t i = 0; i < as->cap; i++)
		if (as->ctxs[i] && as->ctxs[i] != ST_DRAINING)
			st_ctx_free(as->ctxs[i]);
	kassert(as->n_ctx == 0);
}

void st_as_release(struct st_as *as)
{
	struct systrap *st = st_of(as->base.pf);

	free_contexts(as);
	LIST_REMOVE(as, link);
	if (as->sock >= 0) {
		if (as != st->zygote)
			close(as->sock); // leaves the epoll set with it
		else
			epoll_ctl(st->ep_fd, EPOLL_CTL_DEL, as->sock, NULL);
	}
	if (as->peer >= 0)
		close(as->peer);
	if (as->mem_fd >= 0)
		close(as->mem_fd);
	if (as->map)
		munmap(as->map, STUB_CTX_TOTAL);
	kfree(as->ctxs);
	kfree(as->drain);
	slab_free(&st_as_slab, as);
}

// --- birth --------------------------------------------------------------------------------------
static bool is_known_pid(const struct systrap *st, pid_t pid)
{
	const struct st_as *as;

	LIST_FOREACH(as, &st->spaces, link)
		if (as->pid == pid)
			return true;
	return false;
}

// The host vouches for the pid of whoever wrote the first message. What a stub could do is to write
// in its child's stead: then the pid is one that we know.
bool st_as_attest(struct st_as *as)
{
	struct systrap *st = st_of(as->base.pf);
	union {
		char buf[CMSG_SPACE(sizeof(struct ucred))];
		struct cmsghdr align;
	} control;
	char byte;
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	struct cmsghdr *cm;
	struct ucred cred;

	if (recvmsg(as->sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != 1)
		return false;
	cm = CMSG_FIRSTHDR(&m);
	if (!cm || cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_CREDENTIALS ||
	    cm->cmsg_len != CMSG_LEN(sizeof(cred)))
		return false;
	memcpy(&cred, CMSG_DATA(cm), sizeof(cred));
	if (cred.pid <= 1 || cred.pid == st->self)
		return false;
	if (is_known_pid(st, cred.pid))
		return false;
	as->pid = cred.pid;
	as->born = true;
	return true;
}

// The child's side of a fork operation: its descriptors are on their way when this returns 0.
static int queue_fork(struct st_ctx *parent, struct st_ctx *child)
{
	struct st_as *as = ctx_as(child);
	int r = send_fds(ctx_as(parent)->sock, "F", 1, (int[]){as->mem_fd, as->peer}, 2);

	if (r < 0)
		return r;
	close(steal_fd(&as->peer));
	kassert(st_op_add(parent, STUB_OP_FORK, 0, 0)); // the callers saw to it that there is room
	parent->n_map_ops++;
	st_expect_clone(parent, true);
	child->leader = child->starting = true;
	as->leader_slot = child->slot;
	memset(child->pg, 0, sizeof(*child->pg));
	child->pg->state = STUB_GUEST;
	st_active_add(child);
	return 0;
}

static void pump_spawns(struct systrap *st)
{
	struct st_ctx *c;

	while (!st->zygote_busy && (c = TAILQ_FIRST(&st->spawns))) {
		TAILQ_REMOVE(&st->spawns, c, link);
		c->queued = false;
		if (ctx_as(st->zctx)->dead || queue_fork(st->zctx, c)) {
			c->failed = true;
			st_post(c, PF_EV_DEAD);
			continue;
		}
		st->zygote_busy = true;
		st->spawning = c;
		st->zctx->flushing = true;
		st_give(st->zctx, STUB_CMD_FLUSH);
	}
}

void st_spawn_done(struct systrap *st, bool ok)
{
	struct st_ctx *c = st->spawning;

	st->zygote_busy = false;
	st->spawning = NULL;
	if (!ok && c && st_is_active(c)) {
		c->failed = true;
		st_as_died(ctx_as(c));
	}
	pump_spawns(st);
}

static int spawn(struct systrap *st, struct st_ctx **ret_ctx)
{
	struct st_as *as;
	struct st_ctx *c;

	if (!st->zygote || st->zygote->dead)
		return -ESRCH;
	as = st_as_alloc(st);
	if (!as)
		return -ENOMEM;
	c = st_ctx_new(as, 0);
	if (!c) {
		st_as_release(as);
		return -ENOMEM;
	}
	c->queued = true;
	TAILQ_INSERT_TAIL(&st->spawns, c, link);
	pump_spawns(st);
	*ret_ctx = c;
	return 0;
}

void st_pool_refill(struct systrap *st)
{
	while (st->n_pool + st->pool_coming < st->pool_want) {
		struct st_ctx *c;

		if (spawn(st, &c))
			return;
		c->for_pool = true;
		st->pool_coming++;
	}
}

static void fresh_regs(struct st_ctx *c)
{
	memset(&c->regs, 0, sizeof(c->regs));
	systrap_set_regs(&c->base, &c->regs);
}

int systrap_as_new(struct platform *pf, struct pf_as **ret_as, struct pf_ctx **ret_ctx)
{
	struct systrap *st = st_of(pf);
	struct st_ctx *c = NULL;
	int r;

	while (st->n_pool && !c) {
		c = st->pool[--st->n_pool];
		if (ctx_as(c)->dead) {
			systrap_as_free(c->base.as);
			c = NULL;
		}
	}
	if (!c) {
		r = spawn(st, &c);
		if (r)
			return r;
		while (c->base.ev.kind != PF_EV_READY && c->base.ev.kind != PF_EV_DEAD)
			pf->cfg.hooks.wait(&c->base);
		if (c->base.ev.kind != PF_EV_READY) {
			systrap_as_free(c->base.as);
			return -ENOMEM;
		}
	}
	st->pool_want = 2;
	fresh_regs(c);
	*ret_as = c->base.as;
	*ret_ctx = &c->base;
	return 0;
}

int systrap_fork(struct pf_ctx *parent, struct pf_as **ret_as, struct pf_ctx **ret_ctx)
{
	struct st_ctx *p = st_ctx_of(parent), *c;
	struct systrap *st = ctx_st(p);
	struct st_as *as;
	int r;

	r = st_ops_turn(p); // the child's descriptors take their place among those of mappings
	if (!r && p->n_ops)
		r = st_flush(p);
	if (r)
		return r;
	as = st_as_alloc(st);
	if (!as)
		return -ENOMEM;
	c = st_ctx_new(as, p->slot);
	r = c ? queue_fork(p, c) : -ENOMEM;
	if (r) {
		st_as_release(as);
		return r;
	}
	ctx_as(p)->ops_ctx = p;
	r = st_flush(p);
	if (!r) {
		// The child may have come while this task waited for the parent: nobody was told then.
		while (c->base.ev.kind != PF_EV_READY && c->base.ev.kind != PF_EV_DEAD)
			st->base.cfg.hooks.wait(&c->base);
		if (c->base.ev.kind == PF_EV_DEAD)
			r = -ENOMEM;
	}
	if (r) {
		systrap_as_free(&as->base);
		return r == -EPERM ? -EAGAIN : r;
	}
	systrap_get_regs(parent, &c->regs);
	c->regs_valid = c->regs_dirty = true;
	c->pg->local = p->pg->local;
	memcpy(c->pg->ids, p->pg->ids, sizeof(c->pg->ids));
	memcpy(as->areas, ctx_as(p)->areas, sizeof(as->areas));
	as->n_areas = ctx_as(p)->n_areas;
	*ret_as = &as->base;
	*ret_ctx = &c->base;
	return 0;
}

// --- death --------------------------------------------------------------------------------------
void st_as_died(struct st_as *as)
{
	struct systrap *st = st_of(as->base.pf);

	if (as->dead && !as->pid)
		return;
	as->dead = true;
	as->ops_ctx = NULL;
	for (uint32_t i = 0; i < as->cap; i++) {
		struct st_ctx *c = as->ctxs[i];

		if (!c || c == ST_DRAINING || !st_is_active(c))
			continue;
		c->flushing = c->flush_for_other = c->starting = c->resume_after = false;
		if (c->for_pool) {
			c->for_pool = false;
			st->pool_coming--;
			st->pool_want = 0; // until somebody wants one: no endless attempts
		}
		st_active_remove(c);
		if (c == st->zctx)
			st_spawn_done(st, false);
		else
			st_post(c, PF_EV_DEAD);
	}
}

static void add_corpse(struct systrap *st, pid_t pid)
{
	if (st->n_corpses == st->cap_corpses) {
		uint32_t cap = MAX(16U, st->cap_corpses * 2);
		pid_t *n = krealloc(st->corpses, st->cap_corpses * sizeof(*n), cap * sizeof(*n));

		if (!n)
			return; // stays a zombie
		st->corpses = n;
		st->cap_corpses = cap;
	}
	st->corpses[st->n_corpses++] = pid;
}

// Children that ended before they said who they were: those that end and are nobody else's.
static void reap_lost(struct systrap *st)
{
	siginfo_t si;

	while (st->n_lost) {
		si.si_pid = 0;
		if (waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) < 0) {
			st->n_lost = 0;
			return;
		}
		if (si.si_pid == 0 || is_known_pid(st, si.si_pid))
			return;
		waitid(P_PID, (id_t)si.si_pid, &si, WEXITED | WNOHANG);
		st->n_lost--;
	}
}

void st_reap(struct systrap *st)
{
	for (uint32_t i = 0; i < st->n_corpses;) {
		siginfo_t si = {0};

		if (waitid(P_PID, (id_t)st->corpses[i], &si, WEXITED | WNOHANG) == 0 && si.si_pid == 0)
			i++;
		else // reaped, or not our child
			st->corpses[i] = st->corpses[--st->n_corpses];
	}
	reap_lost(st);
}

void systrap_as_kill(struct pf_as *pf_as)
{
	struct st_as *as = st_as_of(pf_as);
	struct systrap *st = st_of(pf_as->pf);

	if (!as->born && as->peer < 0 && as->sock >= 0)
		st_as_attest(as); // perhaps it has just said so
	if (as->pid && !as->dead)
		as->cpu_ns = systrap_as_cpu_ns(pf_as);
	if (as->pid) {
		kill(as->pid, SIGKILL);
		add_corpse(st, as->pid);
		as->pid = 0;
	}
	st_as_died(as);
}

// Its process is on its way into being. It will be killed as soon as it says who it is.
static void linger(struct st_as *as)
{
	struct systrap *st = st_of(as->base.pf);
	struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = as};

	if (epoll_ctl(st->ep_fd, EPOLL_CTL_MOD, as->sock, &e) < 0) {
		st_as_release(as);
		return;
	}
	free_contexts(as);
	LIST_REMOVE(as, link);
	LIST_INSERT_HEAD(&st->lingering, as, link);
	as->lingers = true;
}

void st_as_ready(struct st_as *as, uint32_t events)
{
	struct systrap *st = st_of(as->base.pf);

	if (!as->lingers) {
		if (events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR)) {
			epoll_ctl(st->ep_fd, EPOLL_CTL_DEL, as->sock, NULL);
			systrap_as_kill(&as->base);
			if (as == st->zygote && st->ready && st->base.cfg.hooks.lost)
				st->base.cfg.hooks.lost(&st->base);
		}
		return;
	}
	systrap_as_kill(&as->base);
	if (!as->born)
		st->n_lost++;
	st_as_release(as);
}

void systrap_as_free(struct pf_as *pf_as)
{
	struct st_as *as = st_as_of(pf_as);

	systrap_as_kill(pf_as);
	if (!as->born && as->peer < 0 && as->sock >= 0)
		linger(as);
	else
		st_as_release(as);
}
