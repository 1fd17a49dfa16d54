// The devices of major number 1: null, zero, full, random, urandom.
#include <errno.h>
#include <linux/random.h>
#include <sys/ioctl.h>

#include "platform/base/base.h"
#include "platform/base/random.h"
#include "platform/base/slab.h"
#include "sentry/fs/dev/internal.h"

#define CHUNK 1024

static ssize_t null_read(struct file *f, struct uio *u, int64_t *pos)
{
	return 0;
}

static ssize_t null_write(struct file *f, struct uio *u, int64_t *pos)
{
	ssize_t n = u->resid;

	uio_skip(u, n);
	return n;
}

static ssize_t zero_read(struct file *f, struct uio *u, int64_t *pos)
{
	return u->resid ? uio_put_zero(u, u->resid) : 0;
}

static ssize_t full_write(struct file *f, struct uio *u, int64_t *pos)
{
	return -ENOSPC;
}

static int64_t mem_llseek(struct file *f, int64_t off, int whence)
{
	return f->pos = 0;
}

// Mapping /dev/zero gives fresh memory each time; the file keeps the last one's descriptor until the
// mapping has been made, or longer.
static int zero_map_fd(struct file *f, uint64_t off, uint64_t len, int prot, bool shared, int *ret_fd, uint64_t *ret_off)
{
	struct mobj *m;
	int r = mobj_new_shmem("dev/zero", len, &m);

	if (r)
		return r;
	r = m->ops->map_fd(m, 0, len, prot, shared, ret_fd, ret_off);
	if (r) {
		mobj_put(m);
		return r;
	}
	mobj_put(f->priv);
	f->priv = m;
	return 0;
}

static void zero_release(struct file *f)
{
	mobj_put(f->priv);
}

static ssize_t random_read(struct file *f, struct uio *u, int64_t *pos)
{
	char buf[CHUNK];
	ssize_t done = 0, r;

	while (u->resid) {
		size_t n = MIN(u->resid, sizeof(buf));

		random_bytes(buf, n);
		r = uio_put(u, buf, n);
		if (r <= 0)
			return done ? done : -EFAULT;
		done += r;
		if ((size_t)r < n)
			break;
		cond_resched();
	}
	explicit_bzero(buf, sizeof(buf));
	return done;
}

// What is written would be mixed in; the host's pool is not the guest's to stir.
static ssize_t random_write(struct file *f, struct uio *u, int64_t *pos)
{
	return null_write(f, u, pos);
}

static int64_t random_ioctl(struct file *f, unsigned cmd, uint64_t arg)
{
	int bits = 256;

	switch (cmd) {
	case RNDGETENTCNT:
		return copy_out_obj(GADDR(arg), &bits);
	case RNDADDTOENTCNT:
	case RNDADDENTROPY:
	case RNDZAPENTCNT:
	case RNDCLEARPOOL:
	case RNDRESEEDCRNG:
		return -EPERM;
	default:
		return -EINVAL;
	}
}

static const struct file_ops null_fops = {.read = null_read, .write = null_write, .llseek = mem_llseek};
static const struct file_ops zero_fops = {
	.read = zero_read,
	.write = null_write,
	.llseek = mem_llseek,
	.map_fd = zero_map_fd,
	.release = zero_release,
};
static const struct file_ops full_fops = {
	.read = zero_read,
	.write = full_write,
	.llseek = mem_llseek,
	.map_fd = zero_map_fd,
	.release = zero_release,
};
static const struct file_ops random_fops = {
	.read = random_read,
	.write = random_write,
	.ioctl = random_ioctl,
	.llseek = mem_llseek,
};

int mem_devices_init(void)
{
	int r = chrdev_register(1, 3, 1, &null_fops);

	r = r ?: chrdev_register(1, 5, 1, &zero_fops);
	r = r ?: chrdev_register(1, 7, 1, &full_fops);
	return r ?: chrdev_register(1, 8, 2, &random_fops);
}
