// What the tests of pipes, epoll, sockets ... share: tasks of the vfs on the virtual clock, with guest
// memory of the fake platform behind the main one. Include after cmocka.h.
#pragma once
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>

#include "platform/base/base.h"
#include "platform/base/slab.h"
#include "platform/fake/fake.h"
#include "sentry/sched/sched.h"
#include "sentry/vfs/vfs.h"

#define GUEST 0x100000ULL
#define GUEST_SIZE (64 * PAGE_SIZE)

static struct platform *h_pf;
static struct pf_as *h_as;
static struct pf_ctx *h_ctx;
static unsigned h_epipes, h_spare;

static inline void h_epipe(void)
{
	h_epipes++;
}

static inline void h_vfs_task(struct vfs_task *vt, struct fd_table *files)
{
	*vt = (struct vfs_task){.cred = cred_new(), .files = files, .fsize_limit = UINT64_MAX, .epipe = h_epipe, .nofile_limit = 1024};
}

static inline struct pf_event h_step(void *arg, struct pf_ctx *c, int64_t last)
{
	return fake_syscall(39, 0, 0, 0, 0, 0, 0);
}

static void (*h_body)(void);

static inline void h_main(void *arg)
{
	struct pf_op op = {.kind = PF_OP_MAP_ANON, .addr = GUEST, .len = GUEST_SIZE, .prot = PROT_READ | PROT_WRITE, .flags = MAP_PRIVATE};

	assert_int_equal(pf_as_new(h_pf, &h_as, &h_ctx), 0);
	fake_set_script(h_ctx, h_step, NULL);
	sched_current()->ctx = h_ctx;
	assert_int_equal(pf_queue_op(h_ctx, &op), 0);
	assert_int_equal(pf_flush(h_ctx), 0);
	h_body();
	pf_ctx_exit(h_ctx);
	pf_as_free(h_as);
	sched_stop(0);
}

static inline void h_count(const char *name, uint32_t live, void *arg)
{
	fprintf(stderr, "alive: %u %s\n", live, name);
	*(uint32_t *)arg += live;
}

// Runs fn as a task; nothing may be left alive afterwards but h_spare objects.
static inline void h_run(void (*fn)(void))
{
	struct pf_config pcfg = {.hooks = {.event = sched_ctx_event, .wait = sched_ctx_wait}, .zygote_sock = -1};
	struct sched_config cfg = {.virtual_clock = true};
	struct vfs_task vt;
	uint32_t live = 0;

	assert_int_equal(pf_create("fake", &pcfg, &h_pf), 0);
	cfg.pf = h_pf;
	assert_int_equal(sched_init(&cfg), 0);
	h_body = fn;
	h_epipes = 0;
	h_vfs_task(&vt, fd_table_new());
	assert_int_equal(sched_spawn(&vt.st, "main", h_main, NULL), 0);
	assert_int_equal(sched_run(), 0);
	sched_run(); // until the task has ended as well
	fd_table_put(vt.files);
	cred_put((struct cred *)vt.cred);
	sched_fini();
	pf_destroy(h_pf);
	slab_report(h_count, &live);
	assert_true(live <= h_spare);
}

// A second task that shares the descriptors.
struct h_task {
	struct vfs_task vt; // first
	void (*fn)(void *arg);
	void *arg;
	bool done;
};
static inline void h_task_main(void *arg)
{
	struct h_task *t = arg;

	t->fn(t->arg);
	t->done = true;
}
static inline void h_spawn(struct h_task *t, void (*fn)(void *), void *arg)
{
	h_vfs_task(&t->vt, vfs_self()->files);
	t->fn = fn;
	t->arg = arg;
	t->done = false;
	assert_int_equal(sched_spawn(&t->vt.st, "second", h_task_main, t), 0);
}
// Lets the others run until nobody can.
static inline void h_settle(void)
{
	for (int i = 0; i < 20; i++)
		sched_yield_cpu();
}
static inline void h_end(struct h_task *t)
{
	for (int i = 0; i < 1000 && !t->done; i++)
		sched_yield_cpu();
	assert_true(t->done);
	sched_yield_cpu();
	cred_put((struct cred *)t->vt.cred);
}

static inline ssize_t h_read(struct file *f, void *buf, size_t n)
{
	struct uio u = uio_kernel(buf, n);

	return vfs_read(f, &u, &f->pos);
}
static inline ssize_t h_write(struct file *f, const void *buf, size_t n)
{
	struct uio u = uio_kernel((void *)buf, n);

	return vfs_write(f, &u, &f->pos);
}
