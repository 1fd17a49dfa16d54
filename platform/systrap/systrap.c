// The backend as a whole: its start, its loop, its sleep.
#include <sys/epoll.h>
#include <sys/mman.h>
#include <time.h>

#include "platform/base/fdpass.h"
#include "platform/systrap/internal.h"
#include "platform/systrap/zygote.h"

#define HOT 16            // most recent contexts, looked at with every poll
#define COLD 16           // of the others, each time
#define FULL_EVERY 256    // polls between two looks at descriptors when there is no sleep
#define SPIN_CYCLES 40000 // how long stubs wait for an answer when cores are plentiful: a wake-up costs more
#define FUTEX_CYCLES 20000 // less than what a wake-up costs
#define SPIN_NS 50000
#define SCARCE_SPIN_NS 20000 // no core is idle
#define START_NS 10000000000ULL

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

// --- the loop -------------------------------------------------------------------------------
// Deaths of stubs, and the wake-up counter.
static void check_fds(struct systrap *st)
{
	struct epoll_event ev[16];
	int n = epoll_wait(st->ep_fd, ev, ARRAY_SIZE(ev), 0);
	uint64_t v;

	for (int i = 0; i < n; i++) {
		if (ev[i].data.ptr == st)
			st_approve(st);
		else if (ev[i].data.ptr)
			st_as_ready(ev[i].data.ptr, ev[i].events);
		else if (read(st->wake_fd, &v, sizeof(v)) < 0)
			continue;
	}
}

static void deliver(struct systrap *st, struct st_ctx *c)
{
	st->base.cfg.hooks.event(&c->base);
}

static unsigned deliver_pending(struct systrap *st)
{
	struct st_ctx *c;
	unsigned n = 0;

	while ((c = TAILQ_FIRST(&st->pending))) {
		TAILQ_REMOVE(&st->pending, c, link);
		c->pending = false;
		deliver(st, c);
		n++;
	}
	return n;
}

static unsigned look(struct systrap *st, uint32_t from, uint32_t count)
{
	unsigned n = 0;

	// Downwards: taking an event moves the last one, already seen or new, into the gap.
	for (uint32_t i = from; count-- > 0 && i-- > 0;)
		if (i < st->n_active) {
			struct st_ctx *c = st->active[i];

			if (__atomic_load_n(&c->pg->state, __ATOMIC_RELAXED) >= STUB_SENTRY && st_take(c)) {
				deliver(st, c);
				n++;
			}
		}
	return n;
}

static void set_spin(struct systrap *st, bool on)
{
	uint32_t want = on ? SPIN_CYCLES : 0;

	if (st->board->spin_cycles != want)
		__atomic_store_n(&st->board->spin_cycles, want, __ATOMIC_RELAXED);
}

// Contexts that wait in futexes need no core. When each of the others has one, and the sentry needs
// none, a futex is worth a look before it is waited for.
static void count_running(struct systrap *st)
{
	const struct pf_config *cfg = &st->base.cfg;
	uint32_t want;
	uint32_t n = 0;

	for (uint32_t i = 0; i < st->n_active; i++)
		n += __atomic_load_n(&st->active[i]->pg->state, __ATOMIC_RELAXED) != STUB_GUEST_WAIT;
	st->n_running = n;
	want = !cfg->cpu_quota && cfg->host_cpus > 1 && n <= cfg->host_cpus ? FUTEX_CYCLES : 0;
	if (st->board->futex_cycles != want)
		__atomic_store_n(&st->board->futex_cycles, want, __ATOMIC_RELAXED);
}

static unsigned systrap_poll(struct platform *pf)
{
	struct systrap *st = st_of(pf);
	unsigned n = 0;

	if (unlikely(!TAILQ_EMPTY(&st->pending)))
		n += deliver_pending(st);
	n += look(st, st->n_active, HOT);
	if (st->n_active > HOT) {
		uint32_t rest = st->n_active - HOT;

		if (st->cursor == 0 || st->cursor > rest)
			st->cursor = rest;
		n += look(st, st->cursor, COLD);
		st->cursor -= MIN(st->cursor, (uint32_t)COLD);
	}
	if (unlikely(!TAILQ_EMPTY(&st->op_waiters)))
		st_ops_check_waiters(st);
	if (unlikely(!LIST_EMPTY(&st->expected)))
		st_approve(st);
	if (unlikely(++st->polls % FULL_EVERY == 0)) {
		if (st->polls % (FULL_EVERY * 16) == 0)
			check_fds(st);
		count_running(st);
		set_spin(st, !pf->cfg.cpu_quota && st->n_running < pf->cfg.host_cpus);
	}
	if (n && st->spun) {
		st->spun = false;
		if (st->spin_credit < 16)
			st->spin_credit += 2;
	}
	return n;
}

static bool systrap_prepare_sleep(struct platform *pf)
{
	struct systrap *st = st_of(pf);

	if (st->n_pool + st->pool_coming < st->pool_want)
		st_pool_refill(st);
	if (st->n_corpses || st->n_lost)
		st_reap(st);
	if (!TAILQ_EMPTY(&st->pending))
		return false;
	__atomic_exchange_n(&st->board->asleep, 1, __ATOMIC_SEQ_CST);
	for (uint32_t i = 0; i < st->n_active; i++)
		if (__atomic_load_n(&st->active[i]->pg->state, __ATOMIC_RELAXED) >= STUB_SENTRY)
			goto stay;
	if (!TAILQ_EMPTY(&st->op_waiters)) {
		struct st_ctx *c;

		TAILQ_FOREACH(c, &st->op_waiters, wlink)
			if (!ctx_as(c)->ops_ctx || st_ops_done(ctx_as(c)->ops_ctx))
				goto stay;
	}
	count_running(st);
	if (st->spun) {
		st->spun = false;
		if (st->spin_credit > -64)
			st->spin_credit--;
	}
	return true;
stay:
	__atomic_store_n(&st->board->asleep, 0, __ATOMIC_RELAXED);
	return false;
}

static void systrap_woke(struct platform *pf)
{
	struct systrap *st = st_of(pf);

	__atomic_store_n(&st->board->asleep, 0, __ATOMIC_RELAXED);
	check_fds(st);
}

static int systrap_poll_fd(const struct platform *pf)
{
	return st_of(pf)->ep_fd;
}

// Polling pays while contexts run on cores of their own and come back soon: what the last times
// brought decides. Without credit, one try in eight keeps looking for better times.
static uint64_t systrap_spin_ns(const struct platform *pf)
{
	struct systrap *st = st_of(pf);

	if (pf->cfg.cpu_quota || st->n_running == 0)
		return 0;
	if (st->spin_credit <= 0 && ++st->polls % 8)
		return 0;
	st->spun = true;
	// With more guests than cores a sleep still costs a wake-up each way: while calls come thick,
	// polling for about as long is the cheaper half of that.
	return st->n_running < pf->cfg.host_cpus ? SPIN_NS : SCARCE_SPIN_NS;
}

static uint64_t systrap_vdso(const struct platform *pf, uint64_t *ret_start, uint64_t *ret_end)
{
	const struct systrap *st = st_of(pf);

	*ret_start = st->vdso_start;
	*ret_end = st->vdso_end;
	return st->vdso;
}

// --- start and end ----------------------------------------------------------------------------
static int wait_zygote(struct systrap *st)
{
	uint64_t end = now_ns() + START_NS;
	volatile struct stub_ctx *pg = st->zctx->pg;
	struct timespec pause = {0, 50000};

	while (__atomic_load_n(&pg->state, __ATOMIC_ACQUIRE) < STUB_SENTRY) {
		check_fds(st);
		if (st->zygote->dead || now_ns() > end) {
			log_err("systrap: the zygote did not start");
			return -ESRCH;
		}
		nanosleep(&pause, NULL);
	}
	if ((pg->kind & 0xff) != STUB_EV_READY)
		return -EPROTO;
	st->vdso = pg->args[STUB_READY_VDSO];
	st->vdso_start = pg->args[STUB_READY_VDSO_START];
	st->vdso_end = pg->args[STUB_READY_VDSO_END];
	if (st->vdso && (st->vdso < PF_GUEST_TOP || st->vdso_start > st->vdso || st->vdso_end <= st->vdso))
		st->vdso = st->vdso_start = st->vdso_end = 0;
	st->ready = true;
	return 0;
}

// The descriptor through which we approve clones waits in the socket.
static int take_listener(struct systrap *st, int sock)
{
	struct epoll_event e = {.events = EPOLLIN, .data.ptr = st};
	unsigned n = 0;
	char byte;

	if (!st->zctx->pg->args[STUB_READY_LISTENER]) {
		log_warn("systrap: the host lets nobody listen to seccomp: guests can clone their stubs at will");
		return 0;
	}
	if (recv_fds(sock, &byte, 1, 0, &st->notif_fd, 1, &n) != 1 || n != 1)
		return -EPROTO;
	return epoll_ctl(st->ep_fd, EPOLL_CTL_ADD, st->notif_fd, &e) < 0 ? -errno : 0;
}

static int attach(struct systrap *st, const struct pf_config *cfg)
{
	struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
	int fds[2] = {-1, -1}, r;
	unsigned n = 0;
	char byte;

	if (recv_fds(cfg->zygote_sock, &byte, 1, 0, fds, 2, &n) != 1 || n != 2 || !zygote_board) {
		for (unsigned i = 0; i < n; i++)
			close(fds[i]);
		return -EPROTO;
	}
	st->wake_fd = fds[1];
	st->board = zygote_board;
	zygote_board = NULL;
	st->ep_fd = epoll_create1(EPOLL_CLOEXEC);
	if (st->ep_fd < 0 || epoll_ctl(st->ep_fd, EPOLL_CTL_ADD, st->wake_fd, &e) < 0) {
		close(fds[0]);
		return -errno;
	}
	r = st_as_adopt(st, cfg->zygote_sock, fds[0], cfg->zygote_pid, &st->zygote);
	if (r)
		return r;
	st->zctx = st_ctx_new(st->zygote, 0);
	if (!st->zctx)
		return -ENOMEM;
	st->zctx->leader = true;
	r = wait_zygote(st);
	return r ? r : take_listener(st, cfg->zygote_sock);
}

static void systrap_destroy(struct platform *pf)
{
	struct systrap *st = st_of(pf);
	struct st_as *as;

	// The zygote goes first and takes its sentry-side end along last: no new stubs.
	while ((as = LIST_FIRST(&st->spaces)))
		systrap_as_free(&as->base);
	for (int i = 0; i < 1000 && (st->n_corpses || st->n_lost || !LIST_EMPTY(&st->lingering)); i++) {
		struct timespec pause = {0, 200000};

		check_fds(st);
		st_reap(st);
		if (st->n_corpses || st->n_lost || !LIST_EMPTY(&st->lingering))
			nanosleep(&pause, NULL);
	}
	if (st->board)
		munmap(st->board, PAGE_SIZE);
	if (st->wake_fd >= 0)
		close(st->wake_fd);
	if (st->notif_fd >= 0)
		close(st->notif_fd);
	if (st->ep_fd >= 0)
		close(st->ep_fd);
	kfree(st->active);
	kfree(st->corpses);
	kfree(st);
}

static int systrap_create(const struct pf_config *cfg, struct platform **ret_pf)
{
	struct systrap *st = kalloc(sizeof(*st));
	int r;

	if (!st)
		return -ENOMEM;
	st->base.ops = &systrap_backend;
	st->base.cfg = *cfg;
	st->wake_fd = st->ep_fd = st->notif_fd = -1;
	st->self = getpid();
	TAILQ_INIT(&st->pending);
	TAILQ_INIT(&st->op_waiters);
	TAILQ_INIT(&st->spawns);
	LIST_INIT(&st->expected);
	LIST_INIT(&st->lingering);
	LIST_INIT(&st->spaces);
	st->pool_want = 1;
	st->spin_credit = 8;
	st_fp_init(st);
	r = attach(st, cfg);
	if (r) {
		systrap_destroy(&st->base);
		return r;
	}
	set_spin(st, !cfg->cpu_quota && cfg->host_cpus > 1);
	st->board->patch = cfg->hooks.patch_area && !cfg->no_patching;
	*ret_pf = &st->base;
	return 0;
}

const struct pf_backend systrap_backend = {
	.name = "systrap",
	.create = systrap_create,
	.destroy = systrap_destroy,
	.poll = systrap_poll,
	.prepare_sleep = systrap_prepare_sleep,
	.woke = systrap_woke,
	.poll_fd = systrap_poll_fd,
	.spin_ns = systrap_spin_ns,
	.as_new = systrap_as_new,
	.fork = systrap_fork,
	.thread_new = systrap_thread_new,
	.ctx_exit = systrap_ctx_exit,
	.as_kill = systrap_as_kill,
	.as_free = systrap_as_free,
	.resume = systrap_resume,
	.will_block = systrap_will_block,
	.kick = systrap_kick,
	.in_guest = systrap_in_guest,
	.retry_call = systrap_retry_call,
	.get_regs = systrap_get_regs,
	.set_regs = systrap_set_regs,
	.set_result = systrap_set_result,
	.fp_size = systrap_fp_size,
	.get_fp = systrap_get_fp,
	.set_fp = systrap_set_fp,
	.reset_fp = systrap_reset_fp,
	.set_identity = systrap_set_identity,
	.set_local_calls = systrap_set_local_calls,
	.queue_op = systrap_queue_op,
	.flush = systrap_flush,
	.readv = systrap_readv,
	.writev = systrap_writev,
	.snapshot = systrap_snapshot,
	.store = systrap_store,
	.store_trim = systrap_store_trim,
	.store_sync = systrap_store_sync,
	.futex_wake = systrap_futex_wake,
	.as_cpu_ns = systrap_as_cpu_ns,
	.ctx_cpu_ns = systrap_ctx_cpu_ns,
	.vdso = systrap_vdso,
};
