// I/O buffers.
#include <limits.h>
#include <sys/uio.h>

#include "platform/base/slab.h"
#include "sentry/uaccess/internal.h"

#define RW_MAX ((size_t)(INT_MAX & PAGE_MASK))
#define BOUNCE_SIZE (256UL << 10)
#define WINDOW_MAX 4096UL

_Static_assert(sizeof(struct giov) == sizeof(struct iovec) && sizeof(struct giov) == 16, "struct iovec");

struct uio uio_guest(struct giov *one, struct gaddr base, size_t len)
{
	len = MIN(len, RW_MAX);
	*one = (struct giov){base, len};
	return (struct uio){.kind = UIO_GUEST, .iov = one, .niov = 1, .resid = len};
}

struct uio uio_kernel(void *buf, size_t len)
{
	return (struct uio){.kind = UIO_KERNEL, .kbuf = buf, .resid = MIN(len, RW_MAX)};
}

int copy_in_iov(struct uio *ret, struct gaddr iov, uint64_t n)
{
	struct giov *v = NULL;
	size_t total = 0;
	int r;

	if (n > IOV_MAX)
		return -EINVAL;
	if (n) {
		v = arena_alloc(n * sizeof(*v));
		if (!v)
			return -ENOMEM;
		r = copy_in(v, iov, n * sizeof(*v));
		if (r)
			return r;
	}
	for (uint64_t i = 0; i < n; i++)
		if (v[i].len > SSIZE_MAX)
			return -EINVAL;
	for (uint64_t i = 0; i < n; i++) {
		if (!access_ok(v[i].base, v[i].len))
			return -EFAULT;
		v[i].len = MIN(v[i].len, RW_MAX - total);
		total += v[i].len;
	}
	*ret = (struct uio){.kind = UIO_GUEST, .iov = v, .niov = (unsigned)n, .resid = total};
	return 0;
}

// The next run of contiguous bytes, at most n; 0: none left.
static size_t next_run(struct uio *u, size_t n, uint64_t *ret_addr)
{
	n = MIN(n, u->resid);
	if (n == 0)
		return 0;
	while (u->iov_off == u->iov->len) {
		u->iov++;
		u->niov--;
		u->iov_off = 0;
		kassert(u->niov > 0); // resid says that there is more
	}
	*ret_addr = u->iov->base.a + u->iov_off;
	return MIN(n, u->iov->len - u->iov_off);
}

void uio_skip(struct uio *u, size_t n)
{
	kassert(n <= u->resid);
	if (u->kind == UIO_KERNEL) {
		u->kbuf += n;
		u->resid -= n;
		return;
	}
	while (n > 0) {
		uint64_t addr;
		size_t run = next_run(u, n, &addr);

		u->iov_off += run;
		u->resid -= run;
		n -= run;
	}
}

// What to do with each run of guest memory; buf advances with the bytes moved.
enum move { MOVE_PUT, MOVE_GET, MOVE_ZERO };

static size_t move_run(enum move what, uint64_t addr, char *buf, size_t n)
{
	struct pf_ctx *ctx = ua_ctx();

	if (!ctx || !access_ok(GADDR(addr), n))
		return 0;
	switch (what) {
	case MOVE_PUT:
		return ua_copy_out(ctx, addr, buf, n);
	case MOVE_GET:
		return ua_copy_in(ctx, addr, buf, n);
	case MOVE_ZERO:
		return ua_clear(ctx, addr, n);
	}
	return 0;
}

static ssize_t move_kernel(struct uio *u, enum move what, char *buf, size_t n)
{
	n = MIN(n, u->resid);
	switch (what) {
	case MOVE_PUT:
		memcpy(u->kbuf, buf, n);
		break;
	case MOVE_GET:
		memcpy(buf, u->kbuf, n);
		break;
	case MOVE_ZERO:
		memset(u->kbuf, 0, n);
		break;
	}
	uio_skip(u, n);
	return (ssize_t)n;
}

static ssize_t uio_move(struct uio *u, enum move what, char *buf, size_t n)
{
	size_t done = 0, run, got;
	uint64_t addr;

	if (u->kind == UIO_KERNEL)
		return move_kernel(u, what, buf, n);
	while (done < n && (run = next_run(u, n - done, &addr)) > 0) {
		got = move_run(what, addr, buf ? buf + done : NULL, run);
		u->iov_off += got;
		u->resid -= got;
		done += got;
		if (got < run)
			return done ? (ssize_t)done : -EFAULT;
	}
	return (ssize_t)done;
}

ssize_t uio_put(struct uio *u, const void *src, size_t n)
{
	return uio_move(u, MOVE_PUT, (char *)src, n);
}

ssize_t uio_get(struct uio *u, void *dst, size_t n)
{
	return uio_move(u, MOVE_GET, dst, n);
}

ssize_t uio_put_zero(struct uio *u, size_t n)
{
	return uio_move(u, MOVE_ZERO, NULL, n);
}

void *uio_put_window(struct uio *u, size_t n)
{
	struct pf_ctx *ctx = ua_ctx();
	uint64_t addr;

	if (n == 0 || n > u->resid)
		return NULL;
	if (u->kind == UIO_KERNEL)
		return u->kbuf;
	if (!ctx || n > WINDOW_MAX || next_run(u, n, &addr) < n || !access_ok(GADDR(addr), n))
		return NULL;
	return ua_store(ctx, addr, n);
}

void uio_put_commit(struct uio *u, size_t got)
{
	if (u->kind == UIO_GUEST)
		pf_store_trim(ua_ctx(), got);
	uio_skip(u, got);
}

// --- host descriptors ---------------------------------------------------------------------------

static ssize_t host_rw(bool write, int fd, void *buf, size_t n, int64_t off, int rwf)
{
	struct iovec iov = {buf, n};
	ssize_t r;

	do
		r = write ? pwritev2(fd, &iov, 1, off, rwf) : preadv2(fd, &iov, 1, off, rwf);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

// One buffer for all large transfers: none of them waits while it is in use. It costs no memory
// before its first use.
static char bounce[BOUNCE_SIZE];

static ssize_t read_piece(struct uio *u, int fd, int64_t off, int rwf, size_t n, bool *ret_short)
{
	char *buf = uio_put_window(u, n);
	ssize_t r, put;

	if (buf) {
		r = host_rw(false, fd, buf, n, off, rwf);
		uio_put_commit(u, r > 0 ? (size_t)r : 0);
		*ret_short = r < (ssize_t)n;
		return r;
	}
	r = host_rw(false, fd, bounce, n, off, rwf);
	if (r <= 0) {
		*ret_short = true;
		return r;
	}
	put = uio_put(u, bounce, (size_t)r);
	*ret_short = put < (ssize_t)n;
	return put;
}

static ssize_t write_piece(struct uio *u, int fd, int64_t off, int rwf, size_t n, bool *ret_short)
{
	struct uio before = *u;
	ssize_t got, r;

	if (u->kind == UIO_KERNEL) {
		r = host_rw(true, fd, u->kbuf, n, off, rwf);
	} else {
		got = uio_get(u, bounce, n);
		if (got < 0)
			return got;
		*u = before; // it advances by what the host takes
		r = host_rw(true, fd, bounce, (size_t)got, off, rwf);
	}
	*ret_short = r < (ssize_t)n;
	if (r > 0)
		uio_skip(u, (size_t)r);
	return r;
}

static ssize_t host_loop(struct uio *u, bool write, int fd, int64_t off, int rwf)
{
	ssize_t done = 0;
	bool last = false;

	if (u->resid == 0) // still says EBADF and the like
		return host_rw(write, fd, NULL, 0, off, rwf);
	while (u->resid > 0 && !last) {
		size_t n = u->kind == UIO_KERNEL ? u->resid : MIN(u->resid, BOUNCE_SIZE);
		int64_t at = off < 0 ? off : off + done;
		ssize_t r;

		last = true;
		r = write ? write_piece(u, fd, at, rwf, n, &last) : read_piece(u, fd, at, rwf, n, &last);
		if (r < 0)
			return done ? done : r;
		done += r;
	}
	return done;
}

ssize_t uio_host_read(struct uio *u, int fd, int64_t off, int rwf_flags)
{
	return host_loop(u, false, fd, off, rwf_flags);
}

ssize_t uio_host_write(struct uio *u, int fd, int64_t off, int rwf_flags)
{
	return host_loop(u, true, fd, off, rwf_flags);
}

struct read_work {
	struct host_work w;
	int fd;
	int64_t off;
	char *buf;
	size_t len;
	ssize_t result;
};

static void read_work_fn(struct host_work *w)
{
	struct read_work *r = container_of(w, struct read_work, w);

	r->result = host_rw(false, r->fd, r->buf, r->len, r->off, 0);
}

// What the host's cache did not have: up to one bounce buffer's worth, read by another thread into
// memory of its own.
static ssize_t read_cold(struct uio *u, int fd, int64_t off)
{
	size_t n = MIN(u->resid, BOUNCE_SIZE);
	struct read_work w = {.w.fn = read_work_fn, .fd = fd, .off = off, .len = n, .buf = kalloc(n)};
	ssize_t r;

	if (!w.buf)
		return -ENOMEM;
	host_work_run(&w.w);
	r = w.result > 0 ? uio_put(u, w.buf, (size_t)w.result) : w.result;
	kfree(w.buf);
	return r;
}

ssize_t uio_file_read(struct uio *u, int fd, int64_t off)
{
	ssize_t done = 0, r;

	kassert(off >= 0);
	while (u->resid > 0) {
		size_t want = u->resid;

		r = uio_host_read(u, fd, off + done, RWF_NOWAIT);
		if (r == -EOPNOTSUPP) // this file system never says what is cached
			r = uio_host_read(u, fd, off + done, 0);
		else if (r == -EAGAIN)
			r = read_cold(u, fd, off + done);
		if (r < 0)
			return done ? done : r;
		done += r;
		// Short: the end of the file, or of what is cached; the next round tells which.
		if (r == 0 || (size_t)r == want)
			break;
	}
	return done;
}
