// Directory listings: a whole directory in answer to one request.
#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>

#include "gofer/server/server.h"
#include "platform/base/base.h"

struct linux_dirent64 {
	uint64_t d_ino;
	int64_t d_off;
	uint16_t d_reclen;
	uint8_t d_type;
	char d_name[];
};

struct listing {
	const struct rx *r;
	struct gnode *dir;
	int fd;
	uint32_t with_attr; // how many more entries get attributes
	size_t used;        // bytes of entries in the chunk
	uint32_t n;
};
#define ENTRIES_AT (TX_BODY + sizeof(struct gp_dir_rep) - sizeof(struct gp_hdr))
#define ENTRIES_ROOM (GP_MSG_MAX - sizeof(struct gp_dir_rep))

static size_t chunk_finish(struct listing *l)
{
	struct gp_dir_rep *rep = (struct gp_dir_rep *)tx_buf;
	size_t body = sizeof(*rep) - sizeof(struct gp_hdr) + l->used;

	rep->n = l->n;
	rep->pad = 0;
	l->used = 0;
	l->n = 0;
	return body;
}

static uint32_t mode_of_type(uint8_t t)
{
	return t == DT_UNKNOWN ? 0 : (uint32_t)t << 12;
}

// The node, attributes and target of one entry. On any failure the entry stays a bare name.
static void entry_fill(struct listing *l, struct gp_dirent *e, const char *name, char *target)
{
	struct gp_attr a;
	struct gnode *n;

	if (attr_at(l->fd, name, &a))
		return;
	e->node.attr.ino = a.ino;
	e->node.attr.mode = a.mode & S_IFMT;
	if (!l->with_attr)
		return;
	if (S_ISLNK(a.mode)) {
		ssize_t t = readlinkat(l->fd, name, target, GP_PATH_MAX + 1);

		if (t <= 0 || t > (ssize_t)GP_PATH_MAX)
			return;
		e->target_len = (uint16_t)t;
	}
	if (node_new(l->dir, name, &a, -1, &n)) {
		e->target_len = 0;
		return;
	}
	e->node.id = node_id(n);
	e->node.attr = a;
	l->with_attr--;
}

static int entry_add(struct listing *l, const struct linux_dirent64 *d)
{
	size_t len = strlen(d->d_name);
	struct gp_dirent *e;

	if (!gp_name_ok(d->d_name, len)) // "." and ".." too
		return 0;
	// Room for the longest target, so that it can be read in place.
	if (l->used + sizeof(*e) + len + GP_PATH_MAX + 8 > ENTRIES_ROOM) {
		int r = tx_more(l->r, chunk_finish(l));

		if (r)
			return r;
	}
	e = (struct gp_dirent *)(ENTRIES_AT + l->used);
	memset(e, 0, sizeof(*e));
	e->node.attr.ino = d->d_ino;
	e->node.attr.mode = mode_of_type(d->d_type);
	e->name_len = (uint16_t)len;
	memcpy(e + 1, d->d_name, len);
	if (l->with_attr || d->d_type == DT_UNKNOWN)
		entry_fill(l, e, d->d_name, (char *)(e + 1) + len);
	memset((char *)(e + 1) + len + e->target_len, 0, gp_dirent_size(e) - sizeof(*e) - len - e->target_len);
	l->used += gp_dirent_size(e);
	l->n++;
	return 0;
}

ssize_t do_readdir(const struct rx *r, int *ret_fd)
{
	static char buf[32768] __attribute__((aligned(8)));
	struct listing l = {.r = r, .dir = node_find(r->q->node), .with_attr = r->q->arg};
	long got;
	int e;

	if (!l.dir)
		return -ESTALE;
	if (l.dir->type != S_IFDIR)
		return -ENOTDIR;
	e = node_open(l.dir, O_RDONLY, &l.fd);
	if (e)
		return e;
	while (!e && (got = syscall(SYS_getdents64, l.fd, buf, sizeof(buf))) != 0) {
		if (got < 0) {
			e = -errno;
			break;
		}
		for (long off = 0; off < got && !e;) {
			const struct linux_dirent64 *d = (const struct linux_dirent64 *)(buf + off);

			off += d->d_reclen;
			e = entry_add(&l, d);
		}
	}
	close(l.fd);
	return e ? e : (ssize_t)chunk_finish(&l);
}
