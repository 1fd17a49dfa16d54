// The memory manager over the fake platform: the tree against a plain model, layout, splits, merges,
// mremap, limits, stacks, fork, and the text of /proc/PID/maps. What the tree says is compared with
// what guest memory answers.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

#include "platform/base/base.h"
#include "platform/base/random.h"
#include "platform/base/slab.h"
#include "platform/fake/fake.h"
#include "sentry/mm/mm.h"
#include "sentry/mm/vma.h"
#include "sentry/sched/sched.h"

#define KB 1024UL
#define MB (KB << 10)
#define GB (MB << 10)
#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)

static struct platform *pf;
static struct mm *mm;
static struct pf_ctx *ctx;
static struct sched_task task;

// --- the frame of a test: a task with an address space ------------------------------------------

static void frame(void *arg)
{
	void (*body)(void) = arg;
	struct mm *m;

	assert_int_equal(mm_new(pf, false, &mm, &ctx), 0);
	ctx->owner = &task;
	task.ctx = ctx;
	body();
	m = mm;
	pf_ctx_exit(ctx);
	mm_put(m);
	sched_stop(0);
	sched_exit(NULL, NULL);
}

static void count_live(const char *name, uint32_t live, void *arg)
{
	fprintf(stderr, "alive: %s %u\n", name, live);
	*(uint32_t *)arg += live;
}

static void run(void (*body)(void))
{
	struct pf_config pcfg = {.hooks = {.event = sched_ctx_event, .wait = sched_ctx_wait}, .zygote_sock = -1};
	struct sched_config scfg = {.virtual_clock = true};
	uint32_t live = 0;

	random_seed_for_tests(42);
	assert_int_equal(pf_create("fake", &pcfg, &pf), 0);
	scfg.pf = pf;
	assert_int_equal(sched_init(&scfg), 0);
	memset(&task, 0, sizeof(task));
	assert_int_equal(sched_spawn(&task, "test", frame, (void *)body), 0);
	sched_run();
	sched_fini();
	pf_destroy(pf);
	slab_report(count_live, &live);
	assert_int_equal(live, 0);
}

static uint64_t do_map(uint64_t addr, uint64_t len, int prot, int flags)
{
	int64_t r = mm_mmap(mm, ctx, addr, len, prot, flags, NULL, 0);

	assert_true(r > 0);
	return (uint64_t)r;
}

static int64_t try_map(uint64_t addr, uint64_t len, int prot, int flags)
{
	return mm_mmap(mm, ctx, addr, len, prot, flags, NULL, 0);
}

static bool can_write(uint64_t addr)
{
	char c = 1;

	assert_int_equal(pf_flush(ctx), 0);
	return pf_write(mm->as, addr, &c, 1) == 1;
}

static bool can_read(uint64_t addr)
{
	char c;

	assert_int_equal(pf_flush(ctx), 0);
	return pf_read(mm->as, addr, &c, 1) == 1;
}

// The tree's own invariants, and the accounting, from scratch.
static void check_tree(void)
{
	uint64_t n = 0, pages = 0, data = 0, locked = 0;
	struct vma *prev = NULL;

	for (struct vma *v = vma_first(mm); v; prev = v, v = vma_next(v)) {
		assert_true(v->start < v->end && !PAGE_OFF(v->start) && !PAGE_OFF(v->end));
		if (prev) {
			assert_true(prev->end <= v->start);
			assert_false(vma_mergeable(prev, v));
		}
		n++;
		pages += vma_pages(v);
		data += vma_is_data(v) ? vma_pages(v) : 0;
		locked += v->vm_flags & MM_VM_LOCKED ? vma_pages(v) : 0;
	}
	assert_int_equal(n, mm->map_count);
	assert_int_equal(pages, mm->vm_pages);
	assert_int_equal(data, mm->data_pages);
	assert_int_equal(locked, mm->locked_pages);
}

// --- mmap ---------------------------------------------------------------------------------------

static void body_layout(void)
{
	uint64_t a = do_map(0, 1, RW, ANON), b = do_map(0, 2 * PAGE_SIZE, RW, ANON);
	uint64_t c = do_map(0x10000000, PAGE_SIZE, PROT_READ, ANON), d = do_map(0x10000123, PAGE_SIZE, PROT_READ, ANON);

	assert_true(a < mm->mmap_base && a + PAGE_SIZE == mm->mmap_base);
	assert_int_equal(b, a - 2 * PAGE_SIZE); // top down, next to it
	assert_int_equal(mm->map_count, 3);     // and one VMA with it
	assert_int_equal(c, 0x10000000);        // a free hint is honoured
	assert_int_not_equal(d, c);             // one that is taken is not
	assert_true(can_write(a) && can_write(b + PAGE_SIZE) && !can_write(c) && can_read(c));
	assert_int_equal(do_map(0x3000, PAGE_SIZE, RW, ANON), PF_GUEST_MIN); // a low hint is lifted
	assert_true(mm->stack_top <= PF_GUEST_TOP && mm->mmap_base < mm->stack_top);
	assert_true(mm->pie_base >= PAGE_DOWN(PF_GUEST_TOP / 3 * 2) && mm->pie_base < mm->mmap_base);
	check_tree();
}
static void test_layout(void **s) { run(body_layout); }

static void body_flags(void)
{
	uint64_t a = do_map(0x20000000, 4 * PAGE_SIZE, RW, ANON | MAP_FIXED);
	int64_t low;

	assert_int_equal(try_map(0, 0, RW, ANON), -EINVAL);
	assert_int_equal(try_map(0, UINT64_MAX, RW, ANON), -ENOMEM);
	assert_int_equal(try_map(0, 1ULL << 47, RW, ANON), -ENOMEM);
	assert_int_equal(try_map(0, PAGE_SIZE, RW, MAP_ANONYMOUS), -EINVAL); // neither shared nor private
	assert_int_equal(try_map(0, PAGE_SIZE, RW, MAP_ANONYMOUS | MAP_SHARED_VALIDATE), -EINVAL);
	assert_int_equal(try_map(0x1234, PAGE_SIZE, RW, ANON | MAP_FIXED), -EINVAL);
	assert_int_equal(try_map(0, PAGE_SIZE, RW, ANON | MAP_FIXED), -EPERM);
	assert_int_equal(try_map(0xf000, PAGE_SIZE, RW, ANON | MAP_FIXED), -EPERM);
	assert_int_equal(try_map(PF_GUEST_TOP, PAGE_SIZE, RW, ANON | MAP_FIXED), -ENOMEM);
	assert_int_equal(try_map(PF_GUEST_TOP - PAGE_SIZE, 2 * PAGE_SIZE, RW, ANON | MAP_FIXED), -ENOMEM);
	assert_int_equal(try_map(a + PAGE_SIZE, PAGE_SIZE, RW, ANON | MAP_FIXED_NOREPLACE), -EEXIST);
	assert_int_equal(try_map(a + 4 * PAGE_SIZE, PAGE_SIZE, RW, ANON | MAP_FIXED_NOREPLACE), a + 4 * PAGE_SIZE);
	assert_int_equal(try_map(0, PAGE_SIZE, RW, ANON | MAP_HUGETLB), -ENOMEM);
	assert_int_equal(try_map(0, PAGE_SIZE, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_GROWSDOWN), -EINVAL);
	low = try_map(0, PAGE_SIZE, RW, ANON | MAP_32BIT);
	assert_true(low >= 0x40000000 && low < 0x80000000);
	assert_int_equal(try_map(0, 2 * GB, RW, ANON | MAP_32BIT), -ENOMEM);
	// Replacing the middle of a mapping.
	assert_int_equal(do_map(a + PAGE_SIZE, PAGE_SIZE, PROT_READ, ANON | MAP_FIXED), a + PAGE_SIZE);
	assert_true(can_write(a) && !can_write(a + PAGE_SIZE) && can_write(a + 2 * PAGE_SIZE));
	check_tree();
}
static void test_flags(void **s) { run(body_flags); }

static void body_reserve(void)
{
	uint64_t a = do_map(0, 100 * GB, PROT_NONE, ANON | MAP_NORESERVE), b = do_map(0, 8 * MB, RW, ANON);

	assert_false(can_read(a));
	assert_int_equal(mm->vm_pages, (100 * GB + 8 * MB) >> PAGE_SHIFT);
	assert_int_equal(mm->data_pages, 8 * MB >> PAGE_SHIFT);
	assert_int_equal(b % (2 * MB), 0); // whole huge pages are aligned
	assert_int_equal(mm_mprotect(mm, ctx, a + GB, PAGE_SIZE, RW), 0);
	assert_true(can_write(a + GB) && !can_read(a + GB + PAGE_SIZE));
	check_tree();
	assert_int_equal(mm_munmap(mm, ctx, a, 100 * GB), 0);
	assert_int_equal(mm->vm_pages, 8 * MB >> PAGE_SHIFT);
	check_tree();
}
static void test_reserve(void **s) { run(body_reserve); }

static void body_munmap(void)
{
	uint64_t a = do_map(0x30000000, 10 * PAGE_SIZE, RW, ANON | MAP_FIXED);

	assert_int_equal(mm_munmap(mm, ctx, a + 1, PAGE_SIZE), -EINVAL);
	assert_int_equal(mm_munmap(mm, ctx, a, 0), -EINVAL);
	assert_int_equal(mm_munmap(mm, ctx, PF_GUEST_TOP, PAGE_SIZE), -EINVAL);
	assert_int_equal(mm_munmap(mm, ctx, a + 4 * PAGE_SIZE, 1), 0);
	assert_int_equal(mm->map_count, 2);
	assert_true(can_write(a + 3 * PAGE_SIZE) && !can_read(a + 4 * PAGE_SIZE) && can_write(a + 5 * PAGE_SIZE));
	assert_int_equal(mm_munmap(mm, ctx, a + 4 * PAGE_SIZE, PAGE_SIZE), 0); // a hole: fine
	// Filled again, it is one mapping again.
	do_map(a + 4 * PAGE_SIZE, PAGE_SIZE, RW, ANON | MAP_FIXED);
	assert_int_equal(mm->map_count, 1);
	assert_int_equal(mm_munmap(mm, ctx, a - PAGE_SIZE, 100 * PAGE_SIZE), 0);
	assert_int_equal(mm->map_count, 0);
	check_tree();
}
static void test_munmap(void **s) { run(body_munmap); }

static void body_mprotect(void)
{
	uint64_t a = do_map(0x30000000, 10 * PAGE_SIZE, RW, ANON | MAP_FIXED);

	assert_int_equal(mm_mprotect(mm, ctx, a + 1, PAGE_SIZE, RW), -EINVAL);
	assert_int_equal(mm_mprotect(mm, ctx, a, 0, RW), 0);
	assert_int_equal(mm_mprotect(mm, ctx, a, PAGE_SIZE, 0x80), -EINVAL);
	assert_int_equal(mm_mprotect(mm, ctx, a, PAGE_SIZE, RW | PROT_GROWSDOWN | PROT_GROWSUP), -EINVAL);
	assert_int_equal(mm_mprotect(mm, ctx, a, PAGE_SIZE, RW | PROT_GROWSDOWN), -EINVAL); // no stack
	for (int i = 0; i < 100; i++) {
		assert_int_equal(mm_mprotect(mm, ctx, a + 3 * PAGE_SIZE, PAGE_SIZE, PROT_READ), 0);
		assert_int_equal(mm->map_count, 3);
		assert_int_equal(mm_mprotect(mm, ctx, a + 3 * PAGE_SIZE, PAGE_SIZE, RW), 0);
		assert_int_equal(mm->map_count, 1);
	}
	assert_int_equal(mm_mprotect(mm, ctx, a, 2 * PAGE_SIZE, PROT_NONE), 0);
	assert_false(can_read(a));
	assert_int_equal(mm->data_pages, 8);
	// Up to the first hole, as Linux.
	assert_int_equal(mm_munmap(mm, ctx, a + 5 * PAGE_SIZE, PAGE_SIZE), 0);
	assert_int_equal(mm_mprotect(mm, ctx, a, 10 * PAGE_SIZE, PROT_READ), -ENOMEM);
	assert_true(can_read(a) && !can_write(a + 4 * PAGE_SIZE) && can_write(a + 6 * PAGE_SIZE));
	assert_int_equal(mm_mprotect(mm, ctx, 0x1000, PAGE_SIZE, RW), -ENOMEM);
	check_tree();
}
static void test_mprotect(void **s) { run(body_mprotect); }

// --- objects ------------------------------------------------------------------------------------

static struct {
	int maps, fds, shared;
	int fd;
} obj_stat;

static int obj_map_fd(struct mobj *m, uint64_t off, uint64_t len, int prot, bool shared, int *ret_fd, uint64_t *ret_off)
{
	obj_stat.fds++;
	*ret_fd = obj_stat.fd;
	*ret_off = off;
	return 0;
}
static void obj_mapped(struct mobj *m, struct vma *v)
{
	obj_stat.maps++;
	obj_stat.shared += vma_shared(v);
}
static void obj_unmapped(struct mobj *m, struct vma *v)
{
	obj_stat.maps--;
	obj_stat.shared -= vma_shared(v);
}
static void obj_describe(struct mobj *m, char *buf, size_t size, uint64_t *dev, uint64_t *ino)
{
	snprintf(buf, size, "/usr/lib/a\nb.so");
	*dev = 0x801;
	*ino = 1835083;
}
static void obj_release(struct mobj *m) { obj_stat.fds = -1; }
static const struct mobj_ops obj_ops = {
	.map_fd = obj_map_fd, .mapped = obj_mapped, .unmapped = obj_unmapped, .describe = obj_describe, .release = obj_release};

static void body_objects(void)
{
	struct mobj o = {.refs = REFCOUNT_INIT(1), .ops = &obj_ops};
	struct mobj sealed = {.refs = REFCOUNT_INIT(1), .ops = &(struct mobj_ops){.release = obj_release}};
	uint64_t a;

	memset(&obj_stat, 0, sizeof(obj_stat));
	obj_stat.fd = memfd_create("t", 0);
	assert_int_equal(ftruncate(obj_stat.fd, 16 * PAGE_SIZE), 0);
	assert_int_equal(pwrite(obj_stat.fd, "x", 1, 2 * PAGE_SIZE), 1);
	a = (uint64_t)mm_mmap(mm, ctx, 0, 4 * PAGE_SIZE, PROT_READ, MAP_PRIVATE, &o, PAGE_SIZE);
	assert_int_equal(obj_stat.maps, 1);
	// Continuing at the right offset merges, another one does not.
	mm_mmap(mm, ctx, a + 4 * PAGE_SIZE, PAGE_SIZE, PROT_READ, MAP_PRIVATE | MAP_FIXED, &o, 5 * PAGE_SIZE);
	assert_int_equal(mm->map_count, 1);
	mm_mmap(mm, ctx, a + 5 * PAGE_SIZE, PAGE_SIZE, PROT_READ, MAP_PRIVATE | MAP_FIXED, &o, 9 * PAGE_SIZE);
	assert_int_equal(mm->map_count, 2);
	assert_int_equal(obj_stat.maps, 2);
	assert_int_equal(o.refs.n, 3);
	assert_int_equal(mm_mprotect(mm, ctx, a + PAGE_SIZE, PAGE_SIZE, RW), 0);
	assert_int_equal(obj_stat.maps, 4);
	assert_int_equal(vma_at(mm, a + 2 * PAGE_SIZE)->off, 3 * PAGE_SIZE);
	char c = 0;
	pf_flush(ctx);
	assert_int_equal(pf_read(mm->as, a + PAGE_SIZE, &c, 1), 1);
	assert_int_equal(c, 'x');
	assert_int_equal(mm_mmap(mm, ctx, 0, PAGE_SIZE, RW, MAP_SHARED_VALIDATE | 0x80000, &o, 0), -EOPNOTSUPP);
	assert_int_equal(mm_mmap(mm, ctx, 0, PAGE_SIZE, RW, MAP_PRIVATE, &o, 17), -EINVAL);
	assert_int_equal(mm_mmap(mm, ctx, 0, PAGE_SIZE, RW, MAP_PRIVATE, &o, PAGE_DOWN(UINT64_MAX)), -EOVERFLOW);
	assert_int_equal(mm_mmap(mm, ctx, 0, PAGE_SIZE, RW, MAP_PRIVATE | MAP_GROWSDOWN, &o, 0), -EINVAL);
	assert_int_equal(mm_mmap(mm, ctx, 0, PAGE_SIZE, RW, MAP_PRIVATE, &sealed, 0), -ENODEV);
	// What the file's open mode allows bounds mprotect.
	assert_int_equal(mm_mmap_max(mm, ctx, 0, PAGE_SIZE, RW, PROT_READ, MAP_SHARED, &o, 0), -EACCES);
	a = (uint64_t)mm_mmap_max(mm, ctx, 0, PAGE_SIZE, PROT_READ, PROT_READ | PROT_EXEC, MAP_SHARED, &o, 0);
	assert_int_equal(mm_mprotect(mm, ctx, a, PAGE_SIZE, RW), -EACCES);
	assert_int_equal(mm_mprotect(mm, ctx, a, PAGE_SIZE, PROT_READ | PROT_EXEC), 0);
	assert_int_equal(obj_stat.shared, 1);
	assert_int_equal(mm_munmap(mm, ctx, PF_GUEST_MIN, PF_GUEST_TOP - PF_GUEST_MIN), 0);
	assert_int_equal(obj_stat.maps, 0);
	assert_int_equal(obj_stat.shared, 0);
	assert_int_equal(o.refs.n, 1);
	check_tree();
	close(obj_stat.fd);
}
static void test_objects(void **s) { run(body_objects); }

static void body_shared(void)
{
	uint64_t a = do_map(0, 4 * PAGE_SIZE, RW, MAP_SHARED | MAP_ANONYMOUS), b;
	char c = 'q', d = 0;

	pf_flush(ctx);
	assert_int_equal(pf_write(mm->as, a + PAGE_SIZE, &c, 1), 1);
	// old_len 0: the same pages a second time.
	b = (uint64_t)mm_mremap(mm, ctx, a, 0, 4 * PAGE_SIZE, MREMAP_MAYMOVE, 0);
	assert_true(b != a && (int64_t)b > 0);
	assert_int_equal(pf_read(mm->as, b + PAGE_SIZE, &d, 1), 1);
	assert_int_equal(d, 'q');
	assert_int_equal(mm_msync(mm, ctx, a, PAGE_SIZE, MS_SYNC), 0);
	check_tree();
}
static void test_shared(void **s) { run(body_shared); }

// --- mremap -------------------------------------------------------------------------------------

static void body_mremap(void)
{
	uint64_t a = do_map(0x30000000, 4 * PAGE_SIZE, RW, ANON | MAP_FIXED), b;
	char c = 7, d = 0;

	pf_flush(ctx);
	assert_int_equal(pf_write(mm->as, a, &c, 1), 1);
	assert_int_equal(mm_mremap(mm, ctx, a + 1, PAGE_SIZE, PAGE_SIZE, 0, 0), -EINVAL);
	assert_int_equal(mm_mremap(mm, ctx, a, PAGE_SIZE, 0, 0, 0), -EINVAL);
	assert_int_equal(mm_mremap(mm, ctx, a, PAGE_SIZE, PAGE_SIZE, MREMAP_FIXED, a + GB), -EINVAL);
	assert_int_equal(mm_mremap(mm, ctx, a, PAGE_SIZE, PAGE_SIZE, 0x100, 0), -EINVAL);
	assert_int_equal(mm_mremap(mm, ctx, a, 8 * PAGE_SIZE, 9 * PAGE_SIZE, MREMAP_MAYMOVE, 0), -EFAULT);
	assert_int_equal(mm_mremap(mm, ctx, a - GB / 8, PAGE_SIZE, 9 * PAGE_SIZE, MREMAP_MAYMOVE, 0), -EFAULT);
	assert_int_equal(mm_mremap(mm, ctx, a, 0, PAGE_SIZE, MREMAP_MAYMOVE, 0), -EINVAL); // private
	assert_int_equal(mm_mremap(mm, ctx, a, 4 * PAGE_SIZE, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, a + PAGE_SIZE), -EINVAL);
	// In place: shrink, grow.
	assert_int_equal(mm_mremap(mm, ctx, a, 4 * PAGE_SIZE, 2 * PAGE_SIZE, 0, 0), a);
	assert_false(can_read(a + 2 * PAGE_SIZE));
	assert_int_equal(mm_mremap(mm, ctx, a, 2 * PAGE_SIZE, 6 * PAGE_SIZE, 0, 0), a);
	assert_true(can_write(a + 5 * PAGE_SIZE));
	check_tree();
	// Something in the way: only with MAYMOVE.
	do_map(a + 6 * PAGE_SIZE, PAGE_SIZE, PROT_READ, ANON | MAP_FIXED);
	assert_int_equal(mm_mremap(mm, ctx, a, 6 * PAGE_SIZE, 7 * PAGE_SIZE, 0, 0), -ENOMEM);
	b = (uint64_t)mm_mremap(mm, ctx, a, 6 * PAGE_SIZE, 7 * PAGE_SIZE, MREMAP_MAYMOVE, 0);
	assert_true((int64_t)b > 0 && b != a);
	assert_int_equal(pf_read(mm->as, b, &d, 1), 1);
	assert_int_equal(d, 7);
	assert_false(can_read(a));
	assert_true(can_write(b + 6 * PAGE_SIZE));
	check_tree();
	// FIXED onto something that is mapped, from the middle of a mapping.
	assert_int_equal(mm_mremap(mm, ctx, b + PAGE_SIZE, PAGE_SIZE, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, a + 6 * PAGE_SIZE),
			 a + 6 * PAGE_SIZE);
	assert_true(can_write(a + 6 * PAGE_SIZE) && !can_read(b + PAGE_SIZE) && can_read(b + 2 * PAGE_SIZE));
	assert_int_equal(mm_mremap(mm, ctx, b, PAGE_SIZE, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, 0), -EPERM);
	assert_int_equal(mm_mremap(mm, ctx, b, PAGE_SIZE, 2 * PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0), -EINVAL);
	check_tree();
}
static void test_mremap(void **s) { run(body_mremap); }

// --- brk, limits --------------------------------------------------------------------------------

static void body_brk(void)
{
	uint64_t base = 0x40000000;

	mm->start_brk = mm->brk = base + 0x123;
	assert_int_equal(mm_brk(mm, ctx, 0), base + 0x123);
	assert_int_equal(mm_brk(mm, ctx, base + 0x200), base + 0x200);
	assert_true(can_write(base + PAGE_SIZE) == false);
	assert_int_equal(mm_brk(mm, ctx, base + 5 * PAGE_SIZE + 1), base + 5 * PAGE_SIZE + 1);
	assert_true(can_write(base + 5 * PAGE_SIZE) && !can_write(base + 6 * PAGE_SIZE));
	assert_int_equal(mm->map_count, 1);
	assert_int_equal(mm_brk(mm, ctx, base + 2 * PAGE_SIZE), base + 2 * PAGE_SIZE);
	assert_false(can_read(base + 3 * PAGE_SIZE));
	assert_int_equal(mm_brk(mm, ctx, base), base + 2 * PAGE_SIZE); // below its start
	do_map(base + 10 * PAGE_SIZE, PAGE_SIZE, RW, ANON | MAP_FIXED);
	assert_int_equal(mm_brk(mm, ctx, base + 10 * PAGE_SIZE), base + 2 * PAGE_SIZE); // a page stays free
	assert_int_equal(mm_brk(mm, ctx, base + 9 * PAGE_SIZE), base + 9 * PAGE_SIZE);
	mm->lim.data = 16 * PAGE_SIZE;
	assert_int_equal(mm_brk(mm, ctx, base + 100 * PAGE_SIZE), base + 9 * PAGE_SIZE);
	check_tree();
}
static void test_brk(void **s) { run(body_brk); }

static void body_limits(void)
{
	uint64_t a;

	mm->lim.as = 100 * PAGE_SIZE;
	a = do_map(0, 90 * PAGE_SIZE, RW, ANON);
	assert_int_equal(try_map(0, 11 * PAGE_SIZE, RW, ANON), -ENOMEM);
	assert_int_equal(try_map(a, 90 * PAGE_SIZE, PROT_READ, ANON | MAP_FIXED), a); // in its own place it fits
	assert_int_equal(mm_mremap(mm, ctx, a, 90 * PAGE_SIZE, 101 * PAGE_SIZE, MREMAP_MAYMOVE, 0), -ENOMEM);
	mm->lim.as = UINT64_MAX;
	mm->lim.data = 10 * PAGE_SIZE;
	assert_int_equal(try_map(0, 11 * PAGE_SIZE, RW, ANON), -ENOMEM);
	assert_true(try_map(0, 11 * PAGE_SIZE, PROT_READ, ANON) > 0);
	assert_true(try_map(0, 11 * PAGE_SIZE, RW, MAP_SHARED | MAP_ANONYMOUS) > 0);
	assert_int_equal(mm_mprotect(mm, ctx, a, 11 * PAGE_SIZE, RW), -ENOMEM);
	assert_int_equal(mm_mprotect(mm, ctx, a, 10 * PAGE_SIZE, RW), 0);
	mm->lim.data = UINT64_MAX;
	mm->lim.memlock = 4 * PAGE_SIZE;
	assert_int_equal(mm_mlock(mm, ctx, a, 5 * PAGE_SIZE, 0, true), -ENOMEM);
	assert_int_equal(mm_mlock(mm, ctx, a + 5, 3 * PAGE_SIZE, 0, true), 0);
	assert_int_equal(mm->locked_pages, 4);
	assert_int_equal(mm_mlock(mm, ctx, a, 4 * PAGE_SIZE, 0, true), 0); // the same ones again
	assert_int_equal(try_map(0, PAGE_SIZE, RW, ANON | MAP_LOCKED), -EAGAIN);
	assert_int_equal(mm_madvise(mm, ctx, a, PAGE_SIZE, MADV_DONTNEED), -EINVAL);
	assert_int_equal(mm_msync(mm, ctx, a, PAGE_SIZE, MS_INVALIDATE), -EBUSY);
	assert_int_equal(mm_mlock(mm, ctx, a, 4 * PAGE_SIZE, 0, false), 0);
	assert_int_equal(mm->locked_pages, 0);
	mm->lim.memlock = 0;
	assert_int_equal(mm_mlock(mm, ctx, a, PAGE_SIZE, 0, true), -EPERM);
	assert_int_equal(try_map(0, PAGE_SIZE, RW, ANON | MAP_LOCKED), -EPERM);
	mm->lim.may_lock = true;
	assert_int_equal(mm_mlockall(mm, ctx, MCL_CURRENT | MCL_FUTURE, true), 0);
	assert_int_equal(mm->locked_pages, mm->vm_pages);
	do_map(0, PAGE_SIZE, RW, ANON);
	assert_int_equal(mm->locked_pages, mm->vm_pages);
	assert_int_equal(mm_mlockall(mm, ctx, 0, true), -EINVAL);
	assert_int_equal(mm_mlockall(mm, ctx, 0, false), 0);
	assert_int_equal(mm->locked_pages, 0);
	assert_int_equal(mm_mlock(mm, ctx, 0x1000, PAGE_SIZE, 0, true), -ENOMEM);
	check_tree();
}
static void test_limits(void **s) { run(body_limits); }

static void body_map_count(void)
{
	uint64_t a = 0x50000000;
	int64_t r = 0;
	unsigned i;

	for (i = 0; i < 70000 && r >= 0; i++) {
		r = try_map(a + i * PAGE_SIZE, PAGE_SIZE, i % 2 ? PROT_READ : PROT_NONE, ANON | MAP_FIXED | MAP_NORESERVE);
		if (i > 300 && r >= 0) { // the fake platform is slow on many mappings: the tree alone from here
			struct vma *v = vma_new(a + (i + 1) * PAGE_SIZE, a + (i + 2) * PAGE_SIZE, MAP_PRIVATE, NULL, 0);

			v->prot = v->max_prot = i % 2 ? PROT_NONE : PROT_READ;
			v->vm_flags = MM_VM_NORESERVE;
			vma_link(mm, v);
			for (i++; mm->map_count < MM_MAX_MAPS; i++) {
				v = vma_new(a + (i + 1) * PAGE_SIZE, a + (i + 2) * PAGE_SIZE, MAP_PRIVATE, NULL, 0);
				v->prot = v->max_prot = i % 2 ? PROT_NONE : PROT_READ;
				v->vm_flags = MM_VM_NORESERVE;
				vma_link(mm, v);
			}
		}
	}
	assert_int_equal(r, -ENOMEM);
	assert_int_equal(mm->map_count, MM_MAX_MAPS);
	check_tree();
}
static void test_map_count(void **s) { run(body_map_count); }

// --- stacks -------------------------------------------------------------------------------------

static void body_stack(void)
{
	uint64_t a = 0x60000000, fault;

	do_map(a, 16 * PAGE_SIZE, RW, ANON | MAP_FIXED | MAP_GROWSDOWN);
	// Nothing is placed into the guard gap, unless by force.
	assert_true(do_map(a - PAGE_SIZE, PAGE_SIZE, PROT_READ, ANON) > a);
	assert_false(mm_fault_grow(mm, ctx, a + PAGE_SIZE, 0)); // inside: a real violation
	assert_false(mm_fault_grow(mm, ctx, 8, 0));
	fault = a - 3 * PAGE_SIZE + 17;
	assert_true(mm_fault_grow(mm, ctx, fault, 0));
	assert_true(can_write(fault));
	check_tree();
	mm->lim.stack = MB;
	assert_false(mm_fault_grow(mm, ctx, a - 2 * MB, 0));
	assert_true(mm_fault_grow(mm, ctx, a + 16 * PAGE_SIZE - MB, 0));
	assert_int_equal(vma_at(mm, a)->start, a + 16 * PAGE_SIZE - MB);
	assert_false(mm_fault_grow(mm, ctx, a + 16 * PAGE_SIZE - MB - 1, 0));
	// Another mapping below keeps 256 pages of distance, one that cannot be accessed does not.
	mm->lim.stack = 8 * MB;
	do_map(a - 2 * MB, PAGE_SIZE, RW, ANON | MAP_FIXED);
	assert_false(mm_fault_grow(mm, ctx, a - 2 * MB + 100 * PAGE_SIZE, 0));
	assert_int_equal(mm_mprotect(mm, ctx, a - 2 * MB, PAGE_SIZE, PROT_NONE), 0);
	assert_true(mm_fault_grow(mm, ctx, a - 2 * MB + 100 * PAGE_SIZE, 0));
	assert_int_equal(mm_mprotect(mm, ctx, a, PAGE_SIZE, PROT_READ | PROT_GROWSDOWN), 0);
	assert_false(can_write(a - MB));
	check_tree();
}
static void test_stack(void **s) { run(body_stack); }

// --- advice, names, mincore ---------------------------------------------------------------------

static void body_madvise(void)
{
	uint64_t a = do_map(0x30000000, 8 * PAGE_SIZE, RW, ANON | MAP_FIXED);
	unsigned char vec[8];
	char c = 5;

	assert_int_equal(mm_madvise(mm, ctx, a, PAGE_SIZE, 55), -EINVAL);
	assert_int_equal(mm_madvise(mm, ctx, a + 1, PAGE_SIZE, MADV_NORMAL), -EINVAL);
	assert_int_equal(mm_madvise(mm, ctx, a, 0, MADV_NORMAL), 0);
	assert_int_equal(mm_madvise(mm, ctx, a, PAGE_SIZE, MADV_HWPOISON), -EPERM);
	pf_flush(ctx);
	assert_int_equal(pf_write(mm->as, a, &c, 1), 1);
	assert_int_equal(mm_madvise(mm, ctx, a, PAGE_SIZE, MADV_DONTNEED), 0);
	pf_flush(ctx);
	assert_int_equal(pf_read(mm->as, a, &c, 1), 1);
	assert_int_equal(c, 0);
	assert_int_equal(mm_madvise(mm, ctx, a + PAGE_SIZE, PAGE_SIZE, MADV_DONTDUMP), 0);
	assert_int_equal(mm->map_count, 3);
	assert_int_equal(mm_madvise(mm, ctx, a, 8 * PAGE_SIZE, MADV_DODUMP), 0);
	assert_int_equal(mm->map_count, 1);
	assert_int_equal(mm_madvise(mm, ctx, a, PAGE_SIZE, MADV_REMOVE), -EINVAL);
	assert_int_equal(mm_madvise(mm, ctx, a, PAGE_SIZE, MADV_POPULATE_WRITE), 0);
	assert_int_equal(mm_madvise(mm, ctx, a, 9 * PAGE_SIZE, MADV_WILLNEED), -ENOMEM);
	assert_int_equal(mm_msync(mm, ctx, a, 9 * PAGE_SIZE, MS_ASYNC), -ENOMEM);
	assert_int_equal(mm_msync(mm, ctx, a, PAGE_SIZE, MS_ASYNC | MS_SYNC), -EINVAL);
	assert_int_equal(mm_mincore(mm, a, 8 * PAGE_SIZE, vec), 0);
	assert_int_equal(vec[7], 1);
	assert_int_equal(mm_mincore(mm, a, 9 * PAGE_SIZE, vec), -ENOMEM);
	assert_int_equal(mm_mincore(mm, a + 1, PAGE_SIZE, vec), -EINVAL);
	assert_int_equal(mm_set_vma_name(mm, a, PAGE_SIZE, "a pool"), 0);
	assert_int_equal(mm_set_vma_name(mm, a, PAGE_SIZE, "bad]"), -EINVAL);
	assert_string_equal(vma_at(mm, a)->name->s, "[anon:a pool]");
	assert_int_equal(mm->map_count, 2);
	assert_int_equal(mm_set_vma_name(mm, a, 2 * PAGE_SIZE, NULL), 0);
	assert_int_equal(mm->map_count, 1);
	check_tree();
}
static void test_madvise(void **s) { run(body_madvise); }

// --- fork, failures -----------------------------------------------------------------------------

static void body_fork(void)
{
	uint64_t a = do_map(0x30000000, 8 * PAGE_SIZE, RW, ANON | MAP_FIXED), s = do_map(0, PAGE_SIZE, RW, MAP_SHARED | MAP_ANONYMOUS);
	struct pf_as *as;
	struct pf_ctx *child;
	struct mm *m;
	char c = 9, d = 0;

	pf_flush(ctx);
	assert_int_equal(pf_write(mm->as, a, &c, 1), 1);
	assert_int_equal(pf_write(mm->as, a + 2 * PAGE_SIZE, &c, 1), 1);
	assert_int_equal(mm_madvise(mm, ctx, a + PAGE_SIZE, PAGE_SIZE, MADV_DONTFORK), 0);
	assert_int_equal(mm_madvise(mm, ctx, a + 2 * PAGE_SIZE, PAGE_SIZE, MADV_WIPEONFORK), 0);
	assert_int_equal(mm_madvise(mm, ctx, s, PAGE_SIZE, MADV_WIPEONFORK), -EINVAL);
	mm->lim.may_lock = true;
	assert_int_equal(mm_mlock(mm, ctx, a, PAGE_SIZE, 0, true), 0);
	klock_lock(&mm->lock);
	assert_int_equal(pf_fork(ctx, &as, &child), 0);
	assert_int_equal(mm_fork(mm, as, child, &m), 0);
	klock_unlock(&mm->lock);
	assert_int_equal(pf_flush(child), 0);
	assert_int_equal(pf_read(as, a, &d, 1), 1);
	assert_int_equal(d, 9);
	assert_int_equal(pf_read(as, a + PAGE_SIZE, &d, 1), -EFAULT);
	assert_int_equal(pf_read(as, a + 2 * PAGE_SIZE, &d, 1), 1);
	assert_int_equal(d, 0);
	assert_int_equal(m->locked_pages, 0);
	assert_int_equal(m->vm_pages, mm->vm_pages - 1);
	assert_int_equal(pf_write(as, s, &c, 1), 1);
	assert_int_equal(pf_read(mm->as, s, &d, 1), 1);
	assert_int_equal(d, 9);
	pf_ctx_exit(child);
	mm_put(m);
	check_tree();
}
static void test_fork(void **s) { run(body_fork); }

static void body_op_failed(void)
{
	uint64_t a = do_map(0x30000000, 8 * PAGE_SIZE, RW, ANON | MAP_FIXED);

	// Advice on the range that once was a map operation must not forget the mapping.
	assert_int_equal(mm_madvise(mm, ctx, a, 8 * PAGE_SIZE, MADV_WILLNEED), 0);
	assert_int_equal(mm_op_failed(mm, a, 8 * PAGE_SIZE, -EIO), -EIO);
	assert_int_equal(mm->map_count, 1);
	do_map(a + 2 * PAGE_SIZE, PAGE_SIZE, PROT_READ, ANON | MAP_FIXED);
	assert_int_equal(mm_op_failed(mm, a + 2 * PAGE_SIZE, PAGE_SIZE, -ENOMEM), -ENOMEM);
	assert_null(vma_at(mm, a + 2 * PAGE_SIZE));
	assert_int_equal(mm->map_count, 2);
	check_tree();
}
static void test_op_failed(void **s) { run(body_op_failed); }

// --- the tree against a model -------------------------------------------------------------------

#define MODEL_PAGES 256
#define MODEL_BASE 0x70000000UL

// The place that a top-down search must find, by looking at every page.
static uint64_t model_gap(const char *model, uint64_t pages)
{
	for (int64_t i = MODEL_PAGES - (int64_t)pages; i >= 0; i--) {
		uint64_t k = 0;

		while (k < pages && model[i + (int64_t)k] == 0)
			k++;
		if (k == pages)
			return MODEL_BASE + (uint64_t)i * PAGE_SIZE;
	}
	return 0;
}

static void body_model(void)
{
	static const int prots[] = {PROT_NONE, PROT_READ, RW, PROT_READ | PROT_EXEC};
	char model[MODEL_PAGES] = {0}; // 0: free; else 1 + index into prots

	mm->mmap_base = MODEL_BASE + MODEL_PAGES * PAGE_SIZE;
	for (int step = 0; step < 20000; step++) {
		uint64_t from = random_below(MODEL_PAGES), n = 1 + random_below(MIN(12UL, MODEL_PAGES - from)), addr;
		unsigned p = (unsigned)random_below(4);

		addr = MODEL_BASE + from * PAGE_SIZE;
		switch (random_below(4)) {
		case 0:
			assert_int_equal(try_map(addr, n * PAGE_SIZE, prots[p], ANON | MAP_FIXED), addr);
			memset(model + from, (int)p + 1, n);
			break;
		case 1:
			assert_int_equal(mm_munmap(mm, ctx, addr, n * PAGE_SIZE), 0);
			memset(model + from, 0, n);
			break;
		case 2: {
			uint64_t k = 0;

			while (k < n && model[from + k])
				k++;
			assert_int_equal(mm_mprotect(mm, ctx, addr, n * PAGE_SIZE, prots[p]), k == n ? 0 : -ENOMEM);
			memset(model + from, (int)p + 1, k);
			break;
		}
		default:
			addr = vma_find_gap(mm, MODEL_BASE, mm->mmap_base, n * PAGE_SIZE, true);
			assert_int_equal(addr, model_gap(model, n));
			break;
		}
		if (step % 16 == 0) {
			for (unsigned i = 0; i < MODEL_PAGES; i++) {
				struct vma *v = vma_at(mm, MODEL_BASE + i * PAGE_SIZE);

				assert_int_equal(v ? v->prot : -1, model[i] ? prots[model[i] - 1] : -1);
			}
			check_tree();
			assert_int_equal(pf_flush(ctx), 0);
		}
	}
}
static void test_model(void **s) { run(body_model); }

// --- text ---------------------------------------------------------------------------------------

static void body_maps(void)
{
	struct mobj o = {.refs = REFCOUNT_INIT(1), .ops = &obj_ops};
	char buf[8192], line[512], mine[512];
	ptrdiff_t column = -1;
	uint64_t pos = 0;
	FILE *f = fopen("/proc/self/maps", "re");
	ssize_t n;

	obj_stat.fd = memfd_create("t", 0);
	assert_int_equal(ftruncate(obj_stat.fd, 16 * PAGE_SIZE), 0);
	mm->start_brk = 0x50000000;
	mm->brk = mm->start_brk;
	mm_brk(mm, ctx, 0x50021000);
	assert_int_equal(mm_mmap(mm, ctx, 0x7f2c1c5d9000, 2 * PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, &o, PAGE_SIZE),
			 0x7f2c1c5d9000);
	n = mm_maps_next(mm, &pos, buf, sizeof(buf));
	// Names begin in the same column as the host's.
	while (fgets(line, sizeof(line), f))
		if (strstr(line, "[stack]"))
			column = strstr(line, "[stack]") - line;
	assert_int_equal(column, 73);
	fclose(f);
	snprintf(mine, sizeof(mine), "50000000-50021000 rw-p 00000000 00:00 0 %*s[heap]\n", 73 - 40, "");
	buf[n] = 0;
	assert_string_equal(buf, mine);
	assert_int_equal(strstr(buf, "[heap]") - buf, 73);
	n = mm_maps_next(mm, &pos, buf, sizeof(buf));
	buf[n] = 0;
	assert_string_equal(buf, "7f2c1c5d9000-7f2c1c5db000 r-xp 00001000 08:01 1835083                    /usr/lib/a\\012b.so\n");
	assert_int_equal(mm_maps_next(mm, &pos, buf, sizeof(buf)), 0);
	pos = 0;
	assert_int_equal(mm_maps_next(mm, &pos, buf, 20), -ENOSPC);
	n = mm_smaps_next(mm, &pos, buf, sizeof(buf));
	assert_true(n > 500);
	buf[n] = 0;
	assert_non_null(strstr(buf, "\nSize:                132 kB\nKernelPageSize:        4 kB\n"));
	assert_non_null(strstr(buf, "\nLazyFree:              0 kB\n"));
	assert_non_null(strstr(buf, "\nVmFlags: rd wr mr mw me ac \n"));
	mm_munmap(mm, ctx, PF_GUEST_MIN, PF_GUEST_TOP - PF_GUEST_MIN);
	close(obj_stat.fd);
}
static void test_maps(void **s) { run(body_maps); }

// How long the common calls take without a platform behind them; printed, not judged.
static void body_speed(void)
{
	struct timespec t0, t1;
	uint64_t a;

	for (int i = 0; i < 200; i++)
		do_map(0x10000000 + (uint64_t)i * 16 * PAGE_SIZE, PAGE_SIZE, RW, ANON | MAP_FIXED);
	a = do_map(0, 64 * PAGE_SIZE, RW, ANON);
	clock_gettime(CLOCK_MONOTONIC, &t0);
	for (int i = 0; i < 20000; i++) {
		vma_find_gap(mm, PF_GUEST_MIN, mm->mmap_base, PAGE_SIZE, true);
		struct vma *v = vma_new(a - PAGE_SIZE, a, MAP_PRIVATE, NULL, 0), *dead = NULL;

		v->prot = RW;
		v->max_prot = PROT_RWX;
		vma_add(mm, v);
		vma_clear(mm, a - PAGE_SIZE, a, &dead);
		vma_free_list(dead);
	}
	clock_gettime(CLOCK_MONOTONIC, &t1);
	print_message("map+unmap in the tree: %ld ns\n",
		      ((t1.tv_sec - t0.tv_sec) * 1000000000L + t1.tv_nsec - t0.tv_nsec) / 20000);
	check_tree();
}
static void test_speed(void **s) { run(body_speed); }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout), cmocka_unit_test(test_flags), cmocka_unit_test(test_reserve),
		cmocka_unit_test(test_munmap), cmocka_unit_test(test_mprotect), cmocka_unit_test(test_objects),
		cmocka_unit_test(test_shared), cmocka_unit_test(test_mremap), cmocka_unit_test(test_brk),
		cmocka_unit_test(test_limits), cmocka_unit_test(test_map_count), cmocka_unit_test(test_stack),
		cmocka_unit_test(test_madvise), cmocka_unit_test(test_fork), cmocka_unit_test(test_op_failed),
		cmocka_unit_test(test_model), cmocka_unit_test(test_maps), cmocka_unit_test(test_speed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
