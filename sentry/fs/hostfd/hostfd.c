#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <termios.h>

#include "abi/linux/restart.h"
#include "platform/base/base.h"
#include "platform/base/log.h"
#include "platform/base/slab.h"
#include "sentry/fs/hostfd/internal.h"

#define BOUNCE_MAX (64UL << 10)
#define IN_EVENTS (EPOLLIN | EPOLLRDNORM)
#define OUT_EVENTS (EPOLLOUT | EPOLLWRNORM)

DEFINE_SLAB(hostfd_slab, struct hostfd);
static struct super_block host_sb;

int64_t hostfd_run_job(struct hostfd_job *job, void (*fn)(struct host_work *w))
{
	job->w.fn = fn;
	host_work_run(&job->w);
	return job->ret;
}

// --- waiting for the host -----------------------------------------------------------------------

static void hostfd_event(struct host_fd *hf, uint32_t events)
{
	struct hostfd *h = hf->arg;

	h->armed = 0; // one shot: whoever still waits asks again
	waitq_wake_all(&h->wq, 0);
}

// Has the loop wake h->wq once when one of `events` comes. Errors and hang-ups always do.
static void hostfd_arm(struct hostfd *h, uint32_t events)
{
	int r;

	if (!(events & ~h->armed))
		return;
	events |= h->armed;
	if (!h->watched) {
		r = host_fd_add(&h->hf, events | EPOLLONESHOT);
		h->watched = r == 0;
	} else {
		r = host_fd_mod(&h->hf, events | EPOLLONESHOT);
	}
	if (r)
		log_warn("host descriptor %d: cannot be waited for: %d", h->fd, r);
	else
		h->armed = events;
}

static int hostfd_wait(struct hostfd *h, uint32_t events)
{
	hostfd_arm(h, events);
	return waitq_sleep(&h->wq, WAIT_INTERRUPTIBLE, NSEC_INFINITE) ? -ERESTARTSYS : 0;
}

static uint32_t hostfd_poll_now(struct hostfd *h, uint32_t want)
{
	struct pollfd p = {.fd = h->fd, .events = (short)want};

	return poll(&p, 1, 0) > 0 ? (uint32_t)(uint16_t)p.revents : 0;
}

static uint32_t hostfd_poll(struct file *f, struct poll_table *pt)
{
	struct hostfd *h = hostfd_of(f);
	uint32_t want = 0, got;

	if (f->mode & FMODE_READ)
		want |= IN_EVENTS | EPOLLPRI | EPOLLRDHUP;
	if (f->mode & FMODE_WRITE)
		want |= OUT_EVENTS;
	if (pt)
		pt->queue(pt, &h->wq);
	got = hostfd_poll_now(h, want);
	// What is not there yet must wake the waiters later; nothing follows a hang-up.
	if ((pt || !waitq_empty(&h->wq)) && !(got & (EPOLLHUP | EPOLLERR)))
		hostfd_arm(h, want & (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI) & ~got);
	return got;
}

// --- reading ------------------------------------------------------------------------------------

static void read_job(struct host_work *w)
{
	struct hostfd_job *job = container_of(w, struct hostfd_job, w);

	job->ret = read(job->fd, job->buf, job->len);
	if (job->ret < 0)
		job->ret = -errno;
}

static void write_job(struct host_work *w)
{
	struct hostfd_job *job = container_of(w, struct hostfd_job, w);

	job->ret = write(job->fd, job->buf, job->len);
	if (job->ret < 0)
		job->ret = -errno;
}

// For descriptors that cannot be asked not to wait. The poll before it makes it unlikely that the
// thread waits; another reader outside may still be faster.
static ssize_t read_by_thread(struct hostfd *h, struct uio *u)
{
	struct hostfd_job job = {.fd = h->fd, .len = MIN(u->resid, BOUNCE_MAX)};
	ssize_t r;

	if (h->kind != HOSTFD_PLAIN && !hostfd_poll_now(h, POLLIN))
		return -EAGAIN;
	job.buf = kalloc(job.len);
	if (!job.buf)
		return -ENOMEM;
	r = hostfd_run_job(&job, read_job);
	if (r > 0)
		r = uio_put(u, job.buf, r);
	kfree(job.buf);
	return r;
}

static ssize_t recv_now(struct hostfd *h, struct uio *u)
{
	size_t n = MIN(u->resid, BOUNCE_MAX);
	void *win = n <= PAGE_SIZE ? uio_put_window(u, n) : NULL, *buf = NULL;
	ssize_t r;

	if (!win) {
		buf = kalloc(n);
		if (!buf)
			return -ENOMEM;
	}
	r = recv(h->fd, win ? win : buf, n, MSG_DONTWAIT);
	if (r < 0)
		r = -errno;
	if (win)
		uio_put_commit(u, r > 0 ? r : 0);
	else if (r > 0)
		r = uio_put(u, buf, r);
	kfree(buf);
	return r;
}

static ssize_t read_now(struct hostfd *h, struct uio *u)
{
	ssize_t r;

	switch (h->kind) {
	case HOSTFD_SOCK:
		return recv_now(h, u);
	case HOSTFD_PIPE:
		r = uio_host_read(u, h->fd, -1, RWF_NOWAIT);
		return r == -EOPNOTSUPP ? read_by_thread(h, u) : r;
	default:
		return read_by_thread(h, u);
	}
}

static ssize_t hostfd_read(struct file *f, struct uio *u, int64_t *pos)
{
	struct hostfd *h = hostfd_of(f);
	ssize_t r;

	if (!u->resid)
		return 0;
	for (;;) {
		r = read_now(h, u);
		if (r != -EAGAIN)
			return r == -EINTR ? -ERESTARTSYS : r;
		if (f->flags & O_NONBLOCK) {
			if (!waitq_empty(&h->wq))
				hostfd_arm(h, EPOLLIN);
			return -EAGAIN;
		}
		r = hostfd_wait(h, EPOLLIN);
		if (r)
			return r;
	}
}

// --- writing ------------------------------------------------------------------------------------

// Through a buffer of our own: by send() for sockets, else by a thread. The cursor moves by what the
// host took.
static ssize_t write_bounced(struct hostfd *h, struct uio *u)
{
	// A terminal that says it is writable has room for this much.
	size_t max = h->kind == HOSTFD_SOCK ? BOUNCE_MAX : h->kind == HOSTFD_TTY ? 256 : PAGE_SIZE;
	struct hostfd_job job = {.fd = h->fd, .len = MIN(u->resid, max)};
	struct uio start = *u;
	ssize_t r;

	if (h->kind != HOSTFD_SOCK && !hostfd_poll_now(h, POLLOUT))
		return -EAGAIN;
	job.buf = kalloc(job.len);
	if (!job.buf)
		return -ENOMEM;
	r = uio_get(u, job.buf, job.len);
	if (r > 0) {
		job.len = r;
		if (h->kind == HOSTFD_SOCK) {
			r = send(h->fd, job.buf, job.len, MSG_DONTWAIT | MSG_NOSIGNAL);
			r = r < 0 ? -errno : r;
		} else {
			r = hostfd_run_job(&job, write_job);
		}
		*u = start;
		if (r > 0)
			uio_skip(u, MIN((size_t)r, job.len));
	}
	kfree(job.buf);
	return r;
}

static ssize_t write_now(struct hostfd *h, struct uio *u)
{
	ssize_t r;

	if (h->kind != HOSTFD_PIPE)
		return write_bounced(h, u);
	r = uio_host_write(u, h->fd, -1, RWF_NOWAIT);
	return r == -EOPNOTSUPP ? write_bounced(h, u) : r;
}

static ssize_t hostfd_write(struct file *f, struct uio *u, int64_t *pos)
{
	struct hostfd *h = hostfd_of(f);
	ssize_t r = 0, done = 0;

	while (u->resid) {
		r = write_now(h, u);
		if (r > 0) {
			done += r;
			continue;
		}
		if (r != -EAGAIN)
			break;
		if (f->flags & O_NONBLOCK) {
			if (!waitq_empty(&h->wq))
				hostfd_arm(h, EPOLLOUT);
			break;
		}
		r = hostfd_wait(h, EPOLLOUT);
		if (r)
			break;
	}
	if (done)
		return done;
	if (r == -EPIPE)
		vfs_self()->epipe();
	return r == -EINTR ? -ERESTARTSYS : r;
}

// --- plain files ------------------------------------------------------------------------------------
// The file that was passed on has the host's position, shared with whoever else has the description; one
// that the guest opened again (/dev/stdout) has its own.

static bool own_position(const struct file *f, const int64_t *pos)
{
	return f->priv || pos != &f->pos;
}

static ssize_t plain_read(struct file *f, struct uio *u, int64_t *pos)
{
	bool own = own_position(f, pos);
	ssize_t r = uio_host_read(u, hostfd_of(f)->fd, own ? *pos : -1, 0);

	if (own && r > 0)
		*pos += r;
	return r;
}

static ssize_t plain_write(struct file *f, struct uio *u, int64_t *pos)
{
	struct hostfd *h = hostfd_of(f);
	bool own = own_position(f, pos);
	struct stat st;
	ssize_t r = uio_host_write(u, h->fd, own ? *pos : -1, own && f->flags & O_APPEND ? RWF_APPEND : 0);

	if (own && r > 0)
		*pos = f->flags & O_APPEND && fstat(h->fd, &st) == 0 ? st.st_size : *pos + r;
	if (r == -EPIPE)
		vfs_self()->epipe();
	return r;
}

static int64_t plain_llseek(struct file *f, int64_t off, int whence)
{
	struct hostfd *h = hostfd_of(f);
	struct stat st;
	int64_t r;

	if (f->priv) {
		if (fstat(h->fd, &st) < 0)
			return -errno;
		return generic_llseek(f, off, whence, st.st_size);
	}
	r = lseek(h->fd, off, whence);
	return r < 0 ? -errno : r;
}

static int plain_map_fd(struct file *f, uint64_t off, uint64_t len, int prot, bool shared, int *ret_fd, uint64_t *ret_off)
{
	struct hostfd *h = hostfd_of(f);

	if (!S_ISREG(f->inode->mode))
		return -ENODEV;
	*ret_fd = h->fd;
	*ret_off = off;
	return 0;
}

static void fsync_job(struct host_work *w)
{
	struct hostfd_job *job = container_of(w, struct hostfd_job, w);

	job->ret = job->cmd ? fdatasync(job->fd) : fsync(job->fd);
	if (job->ret < 0)
		job->ret = -errno;
}

static int hostfd_fsync(struct file *f, bool datasync)
{
	struct hostfd_job job = {.fd = hostfd_of(f)->fd, .cmd = datasync};

	return hostfd_run_job(&job, fsync_job);
}

// --- inodes and files ---------------------------------------------------------------------------

static int hostfd_open(struct inode *inode, struct file *f)
{
	struct hostfd *h = inode->priv;

	if (h->kind == HOSTFD_SOCK)
		return -ENXIO; // as Linux for /proc/self/fd/N of a socket
	if (((f->mode & FMODE_READ) && h->accmode == O_WRONLY) || ((f->mode & FMODE_WRITE) && h->accmode == O_RDONLY))
		return -EACCES;
	f->priv = h; // see own_position()
	return 0;
}

static const struct file_ops stream_fops = {
	.open = hostfd_open,
	.read = hostfd_read,
	.write = hostfd_write,
	.poll = hostfd_poll,
	.ioctl = hostfd_ioctl,
	.flags = FOP_STREAM,
};
static const struct file_ops plain_fops = {
	.open = hostfd_open,
	.read = plain_read,
	.write = plain_write,
	.llseek = plain_llseek,
	.ioctl = hostfd_ioctl,
	.map_fd = plain_map_fd,
	.fsync = hostfd_fsync,
};

static void attrs_from_host(struct inode *inode, const struct stat *st)
{
	inode->size = st->st_size;
	inode->blocks = st->st_blocks;
	inode->blksize = st->st_blksize;
	inode->atime = (struct ktime){st->st_atim.tv_sec, st->st_atim.tv_nsec};
	inode->mtime = (struct ktime){st->st_mtim.tv_sec, st->st_mtim.tv_nsec};
	inode->ctime = (struct ktime){st->st_ctim.tv_sec, st->st_ctim.tv_nsec};
}

static int host_getattr(struct inode *inode)
{
	struct hostfd *h = inode->priv;
	struct stat st;

	if (fstat(h->fd, &st) < 0)
		return -errno;
	attrs_from_host(inode, &st);
	return 0;
}

// Owner and mode are the guest's view alone; the host's file keeps its own.
static int host_setattr(struct inode *inode, const struct iattr *a)
{
	struct hostfd *h = inode->priv;

	if (a->valid & ATTR_SIZE && S_ISREG(inode->mode)) {
		if (ftruncate(h->fd, a->size) < 0)
			return -errno;
		inode->size = a->size;
	}
	if (a->valid & ATTR_MODE)
		inode->mode = (inode->mode & S_IFMT) | (a->mode & 07777);
	if (a->valid & ATTR_UID)
		inode->uid = a->uid;
	if (a->valid & ATTR_GID)
		inode->gid = a->gid;
	return 0;
}

static const struct inode_ops host_iops = {.getattr = host_getattr, .setattr = host_setattr};

static void host_evict(struct inode *inode)
{
	struct hostfd *h = inode->priv;

	if (h->watched)
		host_fd_remove(&h->hf);
	if (h->fd >= 0)
		close(h->fd);
	slab_free(&hostfd_slab, h);
}

static const struct super_ops host_sops = {.evict = host_evict};
static const struct fs_type host_type = {.name = "hostfd", .flags = FS_NODEV};

static int kind_of(int fd, const struct stat *st, enum hostfd_kind *ret)
{
	struct termios t;

	switch (st->st_mode & S_IFMT) {
	case S_IFREG:
	case S_IFBLK:
		*ret = HOSTFD_PLAIN;
		return 0;
	case S_IFIFO:
		*ret = HOSTFD_PIPE;
		return 0;
	case S_IFSOCK:
		*ret = HOSTFD_SOCK;
		return 0;
	case S_IFCHR:
		*ret = ioctl(fd, TCGETS, &t) == 0 ? HOSTFD_TTY : HOSTFD_CHR;
		return 0;
	default:
		return -EINVAL;
	}
}

// Character devices that cannot be polled (null, zero) never make a caller wait.
static enum hostfd_kind chr_or_plain(struct hostfd *h)
{
	if (host_fd_add(&h->hf, EPOLLONESHOT))
		return HOSTFD_PLAIN;
	h->watched = true;
	return HOSTFD_CHR;
}

static int inode_new(int host_fd, int accmode, struct inode **ret)
{
	struct hostfd *h;
	struct inode *inode;
	struct stat st;
	enum hostfd_kind kind;
	int r;

	if (fstat(host_fd, &st) < 0)
		return -errno;
	r = kind_of(host_fd, &st, &kind);
	if (r)
		return r;
	h = SLAB_NEW(hostfd_slab, struct hostfd);
	if (!h)
		return -ENOMEM;
	inode = &h->inode;
	h->fd = host_fd;
	h->accmode = accmode;
	h->hf = (struct host_fd){.fd = host_fd, .fn = hostfd_event, .arg = h};
	waitq_init(&h->wq);
	h->kind = kind == HOSTFD_CHR ? chr_or_plain(h) : kind;
	inode_init(inode, &host_sb, st.st_mode, &host_iops, h->kind == HOSTFD_PLAIN ? &plain_fops : &stream_fops);
	inode->ino = st.st_ino;
	inode->rdev = st.st_rdev;
	inode->priv = h;
	attrs_from_host(inode, &st);
	*ret = inode;
	return 0;
}

int hostfd_file_new(int host_fd, unsigned flags, struct file **ret)
{
	int fl = fcntl(host_fd, F_GETFL);
	struct inode *inode;
	char name[40];
	int r;

	if (fl < 0)
		return -errno;
	if (fl & O_PATH)
		return -EINVAL;
	if (!host_sb.refs.n) {
		sb_init(&host_sb, &host_type, &host_sops, SB_OWN_FOPS);
		host_sb.blocksize = PAGE_SIZE;
	}
	r = inode_new(host_fd, fl & O_ACCMODE, &inode);
	if (r)
		return r;
	if (S_ISCHR(inode->mode) && inode->rdev == makedev(1, 3))
		snprintf(name, sizeof(name), "/dev/null");
	else
		snprintf(name, sizeof(name), S_ISFIFO(inode->mode) ? "pipe:[%llu]" : S_ISSOCK(inode->mode) ? "socket:[%llu]" : "host:[%llu]",
		 (unsigned long long)inode->ino);
	flags = (flags & ~(unsigned)O_ACCMODE) | (fl & (O_ACCMODE | O_APPEND));
	r = file_new_anon(name, inode_get(inode), inode->fops, flags, NULL, ret);
	if (r)
		((struct hostfd *)inode->priv)->fd = -1; // stays the caller's
	inode_put(inode);
	return r;
}

void hostfd_set_owner(struct file *f, uint32_t uid, uint32_t gid)
{
	f->inode->uid = uid;
	f->inode->gid = gid;
}

bool file_is_hostfd(const struct file *f)
{
	return f->ops == &stream_fops || f->ops == &plain_fops;
}

int hostfd_tty(const struct file *f)
{
	return file_is_hostfd(f) && hostfd_of(f)->kind == HOSTFD_TTY ? hostfd_of(f)->fd : -1;
}
