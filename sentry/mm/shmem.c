// Mappable objects: references, and shared anonymous memory as a memfd per object.
#include <stdio.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "platform/base/base.h"
#include "platform/base/slab.h"
#include "sentry/mm/mm.h"

struct shmem {
	struct mobj m; // first
	int fd;
	uint64_t size, ino;
	char name[64];
};
DEFINE_SLAB(shmem_slab, struct shmem);

void mobj_put(struct mobj *m)
{
	if (m && ref_put(&m->refs))
		m->ops->release(m);
}

static int shmem_map_fd(struct mobj *m, uint64_t off, uint64_t len, int prot, bool shared, int *ret_fd, uint64_t *ret_off)
{
	struct shmem *s = (struct shmem *)m;

	(void)len, (void)prot, (void)shared; // mappings may extend beyond the object: SIGBUS there, as on Linux
	*ret_fd = s->fd;
	*ret_off = off;
	return 0;
}

static int shmem_punch(struct mobj *m, uint64_t off, uint64_t len)
{
	struct shmem *s = (struct shmem *)m;

	return fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) < 0 ? -errno : 0;
}

static void shmem_describe(struct mobj *m, char *buf, size_t size, uint64_t *ret_dev, uint64_t *ret_ino)
{
	struct shmem *s = (struct shmem *)m;

	snprintf(buf, size, "%s (deleted)", s->name);
	*ret_dev = 1;
	*ret_ino = s->ino;
}

static void shmem_release(struct mobj *m)
{
	struct shmem *s = (struct shmem *)m;

	close(s->fd);
	slab_free(&shmem_slab, s);
}

static const struct mobj_ops shmem_ops = {.map_fd = shmem_map_fd, .punch = shmem_punch, .describe = shmem_describe, .release = shmem_release};

int mobj_new_shmem(const char *name, uint64_t size, struct mobj **ret)
{
	static uint64_t next_ino = 1024; // numbers on the kernel's internal tmpfs, never reused
	struct shmem *s;

	if (size > INT64_MAX)
		return -ENOMEM;
	s = SLAB_NEW(shmem_slab, struct shmem);
	if (!s)
		return -ENOMEM;
	s->fd = memfd_create("guest-shm", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (s->fd < 0 || ftruncate(s->fd, (off_t)size) < 0) {
		int err = errno == EMFILE || errno == ENFILE ? -ENFILE : -ENOMEM;

		if (s->fd >= 0)
			close(s->fd);
		slab_free(&shmem_slab, s);
		return err;
	}
	// A guest thread holds the descriptor for a moment while it maps; the size is ours alone to decide.
	(void)fcntl(s->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	ref_init(&s->m.refs, 1);
	s->m.ops = &shmem_ops;
	s->size = size;
	s->ino = next_ino++;
	snprintf(s->name, sizeof(s->name), "%s", name);
	*ret = &s->m;
	return 0;
}
