// Reading argv and envp. The strings of one process mostly lie side by side, so memory is fetched
// in windows rather than string by string.
#include <sys/resource.h>

#include "sentry/kernel/exec.h"
#include "sentry/kernel/internal.h"
#include "sentry/loader/loader.h"

#define WINDOW 8192
#define POINTERS 64
#define FIRST_SIZE 4096

struct reader {
	struct exec_args *out;
	size_t cap;      // of out->strings
	uint64_t limit;  // bytes that strings and the pointers to them may take
	unsigned count;  // strings so far
	char *win;       // a window of guest memory, in the arena
	uint64_t base;
	size_t len;      // bytes of it that are valid
};

static int append(struct reader *rd, const char *s, size_t len, bool end)
{
	struct exec_args *o = rd->out;
	size_t need = o->strings_len + len + 1, cap = rd->cap;
	char *p;

	if (need + (rd->count + 1UL) * sizeof(uint64_t) > rd->limit)
		return -E2BIG;
	if (need > cap) {
		while (cap < need)
			cap = cap ? cap * 2 : FIRST_SIZE;
		p = krealloc(o->strings, rd->cap, cap);
		if (!p)
			return -ENOMEM;
		o->strings = p;
		rd->cap = cap;
	}
	memcpy(o->strings + o->strings_len, s, len);
	o->strings_len += len;
	if (end) {
		o->strings[o->strings_len++] = 0;
		rd->count++;
	}
	return 0;
}

static int read_string(struct reader *rd, uint64_t addr)
{
	size_t total = 0;

	for (;;) {
		const char *at, *end;
		size_t left;
		int r;

		if (!rd->len || addr < rd->base || addr >= rd->base + rd->len) {
			rd->len = copy_in_some(rd->win, GADDR(addr), WINDOW);
			rd->base = addr;
			if (!rd->len)
				return -EFAULT;
		}
		at = rd->win + (addr - rd->base);
		left = rd->len - (addr - rd->base);
		end = memchr(at, 0, left);
		if (end)
			left = (size_t)(end - at);
		total += left;
		if (total >= LOADER_MAX_STR)
			return -E2BIG;
		r = append(rd, at, left, end != NULL);
		if (r < 0 || end)
			return r;
		addr += left;
	}
}

static int read_vector(struct reader *rd, uint64_t addr, unsigned *ret_n)
{
	uint64_t ptrs[POINTERS];
	unsigned before = rd->count;
	size_t got;
	int r = 0;

	while (r == 0 && addr) {
		got = copy_in_some(ptrs, GADDR(addr), sizeof(ptrs)) / sizeof(ptrs[0]);
		if (!got)
			return -EFAULT;
		addr += got * sizeof(ptrs[0]);
		for (size_t i = 0; i < got && r == 0; i++) {
			if (!ptrs[i]) {
				addr = 0;
				break;
			}
			r = read_string(rd, ptrs[i]);
		}
	}
	*ret_n = rd->count - before;
	return r;
}

int exec_copy_strings(struct task *t, uint64_t argv, uint64_t envp, struct exec_args *ret)
{
	struct reader rd = {.out = ret, .limit = loader_arg_limit(t->tg->rlim.v[RLIMIT_STACK].cur)};
	int r;

	rd.win = arena_alloc(WINDOW);
	if (!rd.win)
		return -ENOMEM;
	r = read_vector(&rd, argv, &ret->argc);
	if (r == 0)
		r = read_vector(&rd, envp, &ret->envc);
	if (r < 0)
		exec_free_strings(ret);
	return r;
}

int exec_take_strings(const char *const *argv, const char *const *envp, struct exec_args *ret)
{
	struct reader rd = {.out = ret, .limit = loader_arg_limit(RLIM_INFINITY)};
	int r = 0;

	for (; r == 0 && *argv; argv++, ret->argc++)
		r = append(&rd, *argv, strlen(*argv), true);
	for (; r == 0 && envp && *envp; envp++, ret->envc++)
		r = append(&rd, *envp, strlen(*envp), true);
	if (r < 0)
		exec_free_strings(ret);
	return r;
}

void exec_free_strings(struct exec_args *a)
{
	kfree(a->strings);
	a->strings = NULL;
	a->strings_len = 0;
}
