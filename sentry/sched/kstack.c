// Kernel stacks: mapped one by one with a guard page below, a few kept for the next task.
#include <sys/mman.h>

#include "sentry/sched/internal.h"

#if SCHED_ASAN
#include <sanitizer/asan_interface.h>
#endif

#ifdef CASEMATE_DEBUG
#define KSTACK_SIZE (128UL << 10)
#else
#define KSTACK_SIZE (32UL << 10)
#endif
#define KSTACK_KEEP 32

struct kstack_list kstacks_used = LIST_HEAD_INITIALIZER(kstacks_used);
static struct kstack_list kstacks_free = LIST_HEAD_INITIALIZER(kstacks_free);
static unsigned nr_free;

static struct kstack *kstack_map(void)
{
	size_t total = PAGE_SIZE + KSTACK_SIZE;
	char *p = mmap(NULL, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
	struct kstack *k;

	if (p == MAP_FAILED)
		return NULL;
	if (mprotect(p + PAGE_SIZE, KSTACK_SIZE, PROT_READ | PROT_WRITE) < 0) {
		munmap(p, total);
		return NULL;
	}
	k = (struct kstack *)(p + total - ((sizeof(*k) + 63) & ~63UL));
	k->base = p + PAGE_SIZE;
	k->size = (char *)k - (char *)k->base;
	return k;
}

static void kstack_unmap(struct kstack *k)
{
	munmap((char *)k->base - PAGE_SIZE, PAGE_SIZE + KSTACK_SIZE);
}

struct kstack *kstack_get(void)
{
	struct kstack *k = LIST_FIRST(&kstacks_free);

	if (k) {
		LIST_REMOVE(k, link);
		nr_free--;
	} else {
		k = kstack_map();
		if (!k)
			return NULL;
	}
#if SCHED_ASAN
	__asan_unpoison_memory_region(k->base, k->size); // frames that never returned have left their marks
#endif
	k->asan_fake = NULL;
	k->task = NULL;
	LIST_INSERT_HEAD(&kstacks_used, k, link);
	return k;
}

void kstack_put(struct kstack *k)
{
	LIST_REMOVE(k, link);
	if (nr_free >= KSTACK_KEEP) {
		kstack_unmap(k);
		return;
	}
	k->task = NULL;
	nr_free++;
	LIST_INSERT_HEAD(&kstacks_free, k, link);
}

void kstack_fini(void)
{
	struct kstack *k;

	while ((k = LIST_FIRST(&kstacks_used))) {
		if (k->task)
			k->task->stack = NULL;
		kstack_put(k);
	}
	while ((k = LIST_FIRST(&kstacks_free))) {
		LIST_REMOVE(k, link);
		kstack_unmap(k);
	}
	nr_free = 0;
}
