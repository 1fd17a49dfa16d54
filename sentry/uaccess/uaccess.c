#include "sentry/uaccess/uaccess.h"

#include <limits.h>
#include <sys/uio.h>

#include "platform/base/checked.h"
#include "sentry/uaccess/internal.h"

bool access_ok(struct gaddr g, uint64_t len)
{
	uint64_t end;

	return add_u64(g.a, len, &end) && end <= PF_GUEST_TOP;
}

// --- the ways to guest memory -------------------------------------------------------------------

void ua_wrote(uint64_t addr, size_t len)
{
	struct sched_task *t = sched_current();

	// An empty range has hi == 0.
	if (t->wrote_hi == 0 || addr < t->wrote_lo)
		t->wrote_lo = addr;
	t->wrote_hi = MAX(t->wrote_hi, addr + len);
}

static bool was_written(uint64_t addr, size_t len)
{
	struct sched_task *t = sched_current();

	return addr < t->wrote_hi && t->wrote_lo < addr + len;
}

// Brings guest memory up to date for a direct access to [addr, addr+len). All of the call's stores
// are applied: one that stayed behind might overlap one that was applied, and then undo it.
static bool sync_stores(struct pf_ctx *ctx, uint64_t addr, size_t len)
{
	struct sched_task *t = sched_current();

	return !was_written(addr, len) || pf_store_sync(ctx, t->wrote_lo, t->wrote_hi - t->wrote_lo) == 0;
}

size_t ua_snapshot(struct pf_ctx *ctx, uint64_t addr, size_t len, const char **ret)
{
	const volatile void *p;
	size_t n = pf_snapshot(ctx, addr, &p);

	n = MIN(n, len);
	if (n == 0 || was_written(addr, n))
		return 0;
	// The bytes may change under us, and each of them may be fetched more than once by the copy
	// that follows; what counts is that only the copy is looked at.
	*ret = (const char *)p;
	return n;
}

size_t ua_read(struct pf_ctx *ctx, uint64_t addr, void *buf, size_t len)
{
	ssize_t n;

	if (!sync_stores(ctx, addr, len))
		return 0;
	n = pf_read(ctx->as, addr, buf, len);
	return n < 0 ? 0 : (size_t)n;
}

size_t ua_write(struct pf_ctx *ctx, uint64_t addr, const void *buf, size_t len)
{
	ssize_t n;

	// An earlier store must not come after this write.
	if (!sync_stores(ctx, addr, len))
		return 0;
	ua_wrote(addr, len);
	n = pf_write(ctx->as, addr, buf, len);
	return n < 0 ? 0 : (size_t)n;
}

void *ua_store(struct pf_ctx *ctx, uint64_t addr, size_t len)
{
	void *p = len <= UA_STORE_MAX ? pf_store(ctx, addr, len) : NULL;

	if (p)
		ua_wrote(addr, len);
	return p;
}

size_t ua_copy_in(struct pf_ctx *ctx, uint64_t addr, void *dst, size_t len)
{
	const char *snap;

	if (ua_snapshot(ctx, addr, len, &snap) < len)
		return ua_read(ctx, addr, dst, len);
	memcpy(dst, snap, len);
	return len;
}

size_t ua_copy_out(struct pf_ctx *ctx, uint64_t addr, const void *src, size_t len)
{
	void *p = ua_store(ctx, addr, len);

	if (!p)
		return ua_write(ctx, addr, src, len);
	memcpy(p, src, len);
	return len;
}

size_t ua_clear(struct pf_ctx *ctx, uint64_t addr, size_t len)
{
	enum { PAGES = 64 };
	static const char zero[PAGE_SIZE];
	struct iovec iov[PAGES];
	void *p = ua_store(ctx, addr, len);
	size_t done = 0;

	if (p) {
		memset(p, 0, len);
		return len;
	}
	if (!sync_stores(ctx, addr, len))
		return 0;
	ua_wrote(addr, len);
	while (done < len) {
		size_t want = 0;
		ssize_t r;
		int n;

		for (n = 0; n < PAGES && done + want < len; n++) {
			iov[n].iov_base = (void *)zero;
			iov[n].iov_len = MIN(PAGE_SIZE, len - done - want);
			want += iov[n].iov_len;
		}
		r = pf_writev(ctx->as, addr + done, iov, n);
		if (r > 0)
			done += (size_t)r;
		if (r < 0 || (size_t)r < want)
			break;
		if (done < len)
			cond_resched();
	}
	return done;
}

// --- copies -------------------------------------------------------------------------------------

// Of a range that runs out of the guest's part, what is in it.
static size_t clamp_len(struct gaddr g, size_t len)
{
	return g.a >= PF_GUEST_TOP ? 0 : MIN(len, PF_GUEST_TOP - g.a);
}

size_t copy_in_some(void *dst, struct gaddr src, size_t len)
{
	struct pf_ctx *ctx = ua_ctx();

	len = clamp_len(src, len);
	return ctx && len ? ua_copy_in(ctx, src.a, dst, len) : 0;
}

size_t copy_out_some(struct gaddr dst, const void *src, size_t len)
{
	struct pf_ctx *ctx = ua_ctx();

	len = clamp_len(dst, len);
	return ctx && len ? ua_copy_out(ctx, dst.a, src, len) : 0;
}

int copy_in(void *dst, struct gaddr src, size_t len)
{
	if (len == 0)
		return 0;
	if (!access_ok(src, len))
		return -EFAULT;
	return copy_in_some(dst, src, len) == len ? 0 : -EFAULT;
}

int copy_out(struct gaddr dst, const void *src, size_t len)
{
	if (len == 0)
		return 0;
	if (!access_ok(dst, len))
		return -EFAULT;
	return copy_out_some(dst, src, len) == len ? 0 : -EFAULT;
}

int copy_out_now(struct gaddr dst, const void *src, size_t len)
{
	struct pf_ctx *ctx = ua_ctx();

	if (len == 0)
		return 0;
	if (!ctx || !access_ok(dst, len))
		return -EFAULT;
	return ua_write(ctx, dst.a, src, len) == len ? 0 : -EFAULT;
}

int copy_out_ctx(struct pf_ctx *ctx, struct gaddr dst, const void *src, size_t len)
{
	static const char zero[PAGE_SIZE];
	void *room;
	int r;

	if (len == 0)
		return 0;
	if (!access_ok(dst, len))
		return -EFAULT;
	room = len <= UA_STORE_MAX ? pf_store(ctx, dst.a, len) : NULL;
	if (room) {
		if (src)
			memcpy(room, src, len);
		else
			memset(room, 0, len);
		return 0;
	}
	r = pf_flush(ctx);
	for (size_t done = 0; r == 0 && done < len;) {
		size_t n = src ? len - done : MIN(len - done, sizeof(zero));
		ssize_t w = pf_write(ctx->as, dst.a + done, src ? (const char *)src + done : zero, n);

		if (w <= 0)
			return -EFAULT;
		done += (size_t)w;
	}
	return r;
}

int clear_out(struct gaddr dst, size_t len)
{
	struct pf_ctx *ctx = ua_ctx();

	if (len == 0)
		return 0;
	if (!ctx || !access_ok(dst, len))
		return -EFAULT;
	return ua_clear(ctx, dst.a, len) == len ? 0 : -EFAULT;
}

int copy_in_struct(void *dst, size_t ksize, struct gaddr src, size_t usize)
{
	char tail[256];
	int r;

	if (usize > PAGE_SIZE)
		return -E2BIG;
	// What we do not know must be zero. It is read first, so that dst is untouched on failure.
	for (size_t at = ksize; at < usize;) {
		size_t n = MIN(sizeof(tail), usize - at);

		r = copy_in(tail, gaddr_add(src, at), n);
		if (r)
			return r;
		for (size_t i = 0; i < n; i++)
			if (tail[i])
				return -E2BIG;
		at += n;
	}
	r = copy_in(dst, src, MIN(ksize, usize));
	if (r)
		return r;
	if (usize < ksize)
		memset((char *)dst + usize, 0, ksize - usize);
	return 0;
}

// --- strings ------------------------------------------------------------------------------------

// The common case: the whole string came with the event.
static int str_from_snapshot(struct pf_ctx *ctx, uint64_t addr, size_t max, char **ret, size_t *ret_len)
{
	const char *snap, *end;
	size_t n = ua_snapshot(ctx, addr, max, &snap);
	char *s;

	end = n ? memchr(snap, 0, n) : NULL;
	if (!end)
		return -EAGAIN;
	n = (size_t)(end - snap);
	s = arena_alloc(n + 1); // zeroed, so it ends even if the guest overwrites its NUL meanwhile
	if (!s)
		return -ENOMEM;
	memcpy(s, snap, n);
	*ret = s;
	if (ret_len)
		*ret_len = strlen(s);
	return 0;
}

int copy_in_str(char **ret, struct gaddr src, size_t max, size_t *ret_len)
{
	struct pf_ctx *ctx = ua_ctx();
	// Nothing waits between filling it and copying from it.
	static char page[PAGE_SIZE];
	size_t len = 0, cap = 0;
	char *s = NULL, *n;
	int r;

	if (!ctx || max == 0)
		return max ? -EFAULT : -ENAMETOOLONG;
	r = str_from_snapshot(ctx, src.a, max, ret, ret_len);
	if (r != -EAGAIN)
		return r;
	while (len < max) {
		struct gaddr at = GADDR(src.a + len);
		size_t want = clamp_len(at, MIN(max - len, PAGE_SIZE));
		size_t got = at.a >= src.a && want ? ua_copy_in(ctx, at.a, page, want) : 0;
		size_t used = strnlen(page, got);

		if (got == 0)
			return -EFAULT;
		if (len + used + 1 > cap) {
			cap = used < got ? len + used + 1 : MAX(2 * cap, len + 2 * PAGE_SIZE);
			n = arena_alloc(cap);
			if (!n)
				return -ENOMEM;
			if (s)
				memcpy(n, s, len);
			s = n;
		}
		memcpy(s + len, page, used);
		len += used;
		s[len] = 0;
		if (used < got) {
			*ret = s;
			if (ret_len)
				*ret_len = len;
			return 0;
		}
	}
	return -ENAMETOOLONG;
}

int copy_in_path(char **ret, struct gaddr src)
{
	return copy_in_str(ret, src, PATH_MAX, NULL);
}

// --- other address spaces -------------------------------------------------------------------------

ssize_t copy_in_as(struct pf_as *as, void *dst, struct gaddr src, size_t len)
{
	struct pf_ctx *ctx = ua_ctx();
	ssize_t n;

	len = clamp_len(src, len);
	if (len == 0)
		return -EFAULT;
	if (ctx && ctx->as == as) {
		n = (ssize_t)ua_read(ctx, src.a, dst, len);
		return n ? n : -EFAULT;
	}
	n = pf_read(as, src.a, dst, len);
	return n > 0 ? n : -EFAULT;
}

ssize_t copy_out_as(struct pf_as *as, struct gaddr dst, const void *src, size_t len)
{
	struct pf_ctx *ctx = ua_ctx();
	ssize_t n;

	len = clamp_len(dst, len);
	if (len == 0)
		return -EFAULT;
	if (ctx && ctx->as == as) {
		n = (ssize_t)ua_write(ctx, dst.a, src, len);
		return n ? n : -EFAULT;
	}
	n = pf_write(as, dst.a, src, len);
	return n > 0 ? n : -EFAULT;
}
