// sendfile(2), copy_file_range(2), splice(2), tee(2), vmsplice(2): bytes from file to file through a
// buffer of the kernel's.
#include <linux/limits.h>
#include <sys/epoll.h>

#include "platform/base/checked.h"
#include "platform/base/slab.h"
#include "sentry/fs/pipe/pipe.h"
#include "sentry/syscalls/fsutil.h"

#define COPY_CHUNK (64UL << 10)
#define RW_MAX ((size_t)(INT32_MAX & PAGE_MASK))
#define SPLICE_KNOWN (SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT)
#define WAIT_QUEUES 4

// --- waiting until a file can be written ------------------------------------------------------------------

struct poll_wait {
	struct poll_table pt;
	struct wait_entry e[WAIT_QUEUES];
	unsigned n;
};

static void poll_queue(struct poll_table *pt, struct waitq *wq)
{
	struct poll_wait *w = container_of(pt, struct poll_wait, pt);

	if (w->n == WAIT_QUEUES)
		return;
	wait_entry_task(&w->e[w->n], 0);
	waitq_add(wq, &w->e[w->n++]);
}

// 1: it had to wait; 0: there was no need to.
static int wait_writable(struct file *f)
{
	struct poll_wait w = {.pt.queue = poll_queue};
	int r = 0;

	if (!(file_poll(f, &w.pt) & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
		r = sched_sleep(WAIT_INTERRUPTIBLE, NSEC_INFINITE) ? -ERESTARTSYS : 1;
	for (unsigned i = 0; i < w.n; i++)
		waitq_remove(&w.e[i]);
	return r;
}

// Writes all of buf, which was taken from where it cannot be put back: waits for room even if f is not
// a blocking file. Bytes written, or -errno if none.
static ssize_t write_all(struct file *f, char *buf, size_t n, int64_t *pos)
{
	size_t done = 0;

	while (done < n) {
		struct uio u = uio_kernel(buf + done, n - done);
		ssize_t r = vfs_write(f, &u, pos);

		if (r == -EAGAIN && done) {
			int err = wait_writable(f);

			if (err > 0)
				continue;
			// Said to be writable, and yet it is not: trying again would never end.
			r = err ? err : -EAGAIN;
		}
		if (r <= 0)
			return done ? (ssize_t)done : r;
		done += (size_t)r;
	}
	return (ssize_t)done;
}

// --- positions ------------------------------------------------------------------------------------------------

// An end of a copy: a file and where in it. off NULL: the file's own position.
struct end {
	struct file *f;
	struct gaddr off;
	int64_t pos;
	bool own_pos;
};

static int end_begin(struct end *e, struct gaddr off)
{
	e->off = off;
	e->own_pos = gaddr_null(off);
	if (e->own_pos) {
		e->pos = e->f->pos;
		return 0;
	}
	if (e->f->ops->flags & FOP_STREAM)
		return -ESPIPE;
	if (copy_in(&e->pos, off, sizeof(e->pos)))
		return -EFAULT;
	return e->pos < 0 ? -EINVAL : 0;
}

static int end_finish(struct end *e)
{
	if (!e->own_pos)
		return copy_out(e->off, &e->pos, sizeof(e->pos));
	if (!(e->f->ops->flags & FOP_STREAM))
		e->f->pos = e->pos;
	return 0;
}

// Moves up to n bytes from a seekable file to any other.
static ssize_t copy_bytes(struct end *in, struct end *out, size_t n)
{
	char *buf = kalloc(MIN(n, COPY_CHUNK) + 1);
	size_t done = 0;
	ssize_t r = 0;

	if (!buf)
		return -ENOMEM;
	while (done < n) {
		int64_t pos = in->pos;
		struct uio u = uio_kernel(buf, MIN(n - done, COPY_CHUNK));

		r = vfs_read(in->f, &u, &pos);
		if (r <= 0)
			break;
		u = uio_kernel(buf, (size_t)r);
		r = vfs_write(out->f, &u, &out->pos);
		if (r <= 0)
			break;
		in->pos += r;
		done += (size_t)r;
		if (u.resid) // a short write: what was not taken was not read either
			break;
		cond_resched();
	}
	kfree(buf);
	return done ? (ssize_t)done : r;
}

static int64_t do_sendfile(struct file *in_file, struct file *out_file, struct gaddr off, uint64_t count)
{
	struct end in = {.f = in_file}, out = {.f = out_file};
	ssize_t n;
	int err;

	if (!(in_file->mode & FMODE_READ) || !(out_file->mode & FMODE_WRITE))
		return -EBADF;
	err = end_begin(&in, off);
	if (err)
		return err;
	if (in_file->ops->flags & FOP_STREAM || out_file->flags & O_APPEND || S_ISDIR(in_file->inode->mode))
		return -EINVAL;
	out.own_pos = true;
	out.pos = out_file->pos;
	n = copy_bytes(&in, &out, MIN(count, RW_MAX));
	if (n < 0)
		return n;
	end_finish(&out);
	err = end_finish(&in);
	return err ? err : n;
}

SYSCALL(sendfile)
{
	struct file *out = fd_get(arg_int(a[0])), *in = fd_get(arg_int(a[1]));
	int64_t r = in && out ? do_sendfile(in, out, GADDR(a[2]), a[3]) : -EBADF;

	file_put(in);
	file_put(out);
	return r;
}

static int64_t do_copy_range(struct end *in, struct gaddr in_off, struct end *out, struct gaddr out_off, uint64_t len)
{
	int64_t n, end;
	int err;

	if (S_ISDIR(in->f->inode->mode) || S_ISDIR(out->f->inode->mode))
		return -EISDIR;
	if (!S_ISREG(in->f->inode->mode) || !S_ISREG(out->f->inode->mode))
		return -EINVAL;
	if (!(in->f->mode & FMODE_READ) || !(out->f->mode & FMODE_WRITE) || out->f->flags & O_APPEND)
		return -EBADF;
	err = end_begin(in, in_off);
	if (!err)
		err = end_begin(out, out_off);
	if (err)
		return err;
	len = MIN(len, RW_MAX);
	if (!add_i64(in->pos, (int64_t)len, &end) || !add_i64(out->pos, (int64_t)len, &end))
		return -EOVERFLOW;
	if (in->pos >= (int64_t)in->f->inode->size)
		len = 0;
	else
		len = MIN(len, in->f->inode->size - (uint64_t)in->pos);
	if (in->f->inode == out->f->inode && in->pos < out->pos + (int64_t)len && out->pos < in->pos + (int64_t)len)
		return -EINVAL;
	n = len ? copy_bytes(in, out, len) : 0;
	if (n <= 0)
		return n;
	err = end_finish(in);
	if (!err)
		err = end_finish(out);
	return err ? err : n;
}

SYSCALL(copy_file_range)
{
	struct end in = {.f = fd_get(arg_int(a[0]))}, out = {.f = fd_get(arg_int(a[2]))};
	int64_t r = -EBADF;

	if (in.f && out.f)
		r = arg_uint(a[5]) ? -EINVAL : do_copy_range(&in, GADDR(a[1]), &out, GADDR(a[3]), a[4]);
	file_put(in.f);
	file_put(out.f);
	return r;
}

// --- splice -------------------------------------------------------------------------------------------------

// From a pipe to anything. What is read is gone from the pipe, so all of it is written.
static ssize_t splice_from_pipe(struct file *in, struct end *out, size_t len, bool nonblock)
{
	size_t n;
	char *buf;
	ssize_t r;
	struct uio u;

	r = pipe_wait_readable(in, nonblock);
	if (r)
		return r;
	if (file_is_pipe(out->f)) {
		r = pipe_wait_writable(out->f, nonblock);
		if (r)
			return r;
		len = MIN(len, pipe_room_now(out->f));
	} else if (out->f->ops->flags & FOP_STREAM && !(file_poll(out->f, NULL) & EPOLLOUT)) {
		if (nonblock || out->f->flags & O_NONBLOCK)
			return -EAGAIN;
		r = wait_writable(out->f);
		if (r < 0)
			return r;
	}
	n = MIN(len, pipe_used(in));
	if (n == 0)
		return 0;
	buf = kalloc(n);
	if (!buf)
		return -ENOMEM;
	u = uio_kernel(buf, n);
	r = vfs_read(in, &u, &in->pos);
	if (r > 0)
		r = write_all(out->f, buf, (size_t)r, &out->pos);
	kfree(buf);
	return r;
}

static ssize_t splice_to_pipe(struct end *in, struct file *out, size_t len, bool nonblock)
{
	char *buf;
	size_t n;
	ssize_t r = pipe_wait_writable(out, nonblock);
	struct uio u;

	if (r)
		return r;
	n = MIN(len, pipe_room_now(out));
	if (n == 0)
		return -EAGAIN;
	buf = kalloc(n);
	if (!buf)
		return -ENOMEM;
	u = uio_kernel(buf, n);
	r = vfs_read(in->f, &u, &in->pos);
	if (r > 0)
		r = write_all(out, buf, (size_t)r, &out->pos);
	kfree(buf);
	return r;
}

static int64_t do_splice(struct end *in, struct gaddr in_off, struct end *out, struct gaddr out_off, uint64_t len, unsigned flags)
{
	bool from_pipe = file_is_pipe(in->f), to_pipe = file_is_pipe(out->f);
	ssize_t n;
	int err;

	if (!(in->f->mode & FMODE_READ) || !(out->f->mode & FMODE_WRITE))
		return -EBADF;
	if (!from_pipe && !to_pipe)
		return -EINVAL;
	if ((from_pipe && !gaddr_null(in_off)) || (to_pipe && !gaddr_null(out_off)))
		return -ESPIPE;
	if (from_pipe && to_pipe && in->f->inode == out->f->inode)
		return -EINVAL;
	if (out->f->flags & O_APPEND && !to_pipe)
		return -EINVAL;
	if (S_ISDIR(in->f->inode->mode) || S_ISDIR(out->f->inode->mode))
		return -EINVAL;
	if (!(in->f->inode->mode & S_IFMT) || !(out->f->inode->mode & S_IFMT)) // eventfd and its like
		return -EINVAL;
	err = end_begin(in, in_off);
	if (!err)
		err = end_begin(out, out_off);
	if (err)
		return err;
	len = MIN(len, COPY_CHUNK);
	n = from_pipe ? splice_from_pipe(in->f, out, len, flags & SPLICE_F_NONBLOCK) :
			splice_to_pipe(in, out->f, len, flags & SPLICE_F_NONBLOCK);
	if (n <= 0)
		return n;
	if (!from_pipe)
		err = end_finish(in);
	if (!err && !to_pipe)
		err = end_finish(out);
	return err ? err : n;
}

SYSCALL(splice)
{
	struct end in = {.f = fd_get(arg_int(a[0]))}, out = {.f = fd_get(arg_int(a[2]))};
	unsigned flags = arg_uint(a[5]);
	int64_t r;

	if (!a[4])
		r = 0;
	else if (flags & ~(unsigned)SPLICE_KNOWN)
		r = -EINVAL;
	else if (!in.f || !out.f)
		r = -EBADF;
	else
		r = do_splice(&in, GADDR(a[1]), &out, GADDR(a[3]), a[4], flags);
	file_put(in.f);
	file_put(out.f);
	return r;
}

SYSCALL(tee)
{
	struct file *in = fd_get(arg_int(a[0])), *out = fd_get(arg_int(a[1]));
	unsigned flags = arg_uint(a[3]);
	int64_t r;

	if (flags & ~(unsigned)SPLICE_KNOWN)
		r = -EINVAL;
	else if (!a[2])
		r = 0;
	else if (!in || !out || !(in->mode & FMODE_READ) || !(out->mode & FMODE_WRITE))
		r = -EBADF;
	else if (!file_is_pipe(in) || !file_is_pipe(out) || in->inode == out->inode)
		r = -EINVAL;
	else
		r = pipe_tee(in, out, MIN(a[2], RW_MAX), flags & SPLICE_F_NONBLOCK || (in->flags | out->flags) & O_NONBLOCK);
	file_put(in);
	file_put(out);
	return r;
}

SYSCALL(vmsplice)
{
	struct file *f = fd_get(arg_int(a[0]));
	unsigned flags = arg_uint(a[3]);
	bool write, was_nonblock;
	struct uio u;
	int64_t r;

	if (!f)
		return -EBADF;
	if (flags & ~(unsigned)SPLICE_KNOWN)
		r = -EINVAL;
	else if (!file_is_pipe(f))
		r = -EBADF;
	else
		r = copy_in_iov(&u, GADDR(a[1]), a[2]);
	if (!r && u.resid) {
		write = f->mode & FMODE_WRITE;
		was_nonblock = f->flags & O_NONBLOCK;
		if (flags & SPLICE_F_NONBLOCK && !was_nonblock)
			r = write ? pipe_wait_writable(f, true) : pipe_wait_readable(f, true);
		if (!r && write && flags & SPLICE_F_NONBLOCK && !was_nonblock)
			u.resid = MIN(u.resid, MAX(pipe_room_now(f), 1UL));
		if (!r)
			r = write ? vfs_write(f, &u, &f->pos) : vfs_read(f, &u, &f->pos);
	}
	file_put(f);
	return r;
}
