// Names of sockets: paths, abstract names, names that we choose.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "platform/base/base.h"
#include "platform/base/slab.h"
#include "sentry/socket/unix/internal.h"

#define HASH_SIZE 256
#define SUN_PATH_OFF offsetof(struct sockaddr_un, sun_path)

DEFINE_SLAB(addr_slab, struct unix_addr);
static struct unix_list abstract[HASH_SIZE];

static bool is_abstract(const struct sockaddr_un *sun, unsigned len)
{
	return len > SUN_PATH_OFF && !sun->sun_path[0];
}

// Stream and datagram sockets may have the same abstract name: the type counts, too.
static unsigned hash_of(const struct sockaddr_un *sun, unsigned len, int type)
{
	uint32_t h = 2166136261u ^ (unsigned)type;

	for (unsigned i = SUN_PATH_OFF; i < len; i++)
		h = (h ^ ((const unsigned char *)sun)[i]) * 16777619u;
	return h % HASH_SIZE;
}

static struct unix_sock *abstract_find(const struct sockaddr_un *sun, unsigned len, int type)
{
	struct unix_sock *u;

	LIST_FOREACH(u, &abstract[hash_of(sun, len, type)], hash_link)
		if (u->s.type == type && u->addr->len == len && memcmp(&u->addr->sun, sun, len) == 0)
			return u;
	return NULL;
}

int unix_addr_parse(const struct sockaddr_storage *sa, unsigned len, struct sockaddr_un *ret, unsigned *ret_len)
{
	if (len <= SUN_PATH_OFF || len > sizeof(*ret))
		return -EINVAL;
	memset(ret, 0, sizeof(*ret));
	memcpy(ret, sa, len);
	if (ret->sun_family != AF_UNIX)
		return -EINVAL;
	if (ret->sun_path[0]) {
		size_t n = strnlen(ret->sun_path, len - SUN_PATH_OFF);

		// Linux takes a path that fills sun_path without its NUL.
		len = SUN_PATH_OFF + n + 1;
	}
	*ret_len = len;
	return 0;
}

void unix_addr_put(struct unix_addr *a)
{
	if (a && ref_put(&a->refs))
		slab_free(&addr_slab, a);
}

static struct unix_addr *addr_new(const struct sockaddr_un *sun, unsigned len)
{
	struct unix_addr *a = SLAB_NEW(addr_slab, struct unix_addr);

	if (!a)
		return NULL;
	ref_init(&a->refs, 1);
	a->sun = *sun;
	a->len = len;
	return a;
}

static int bind_abstract(struct unix_sock *u, const struct sockaddr_un *sun, unsigned len)
{
	struct unix_addr *a;

	if (abstract_find(sun, len, u->s.type))
		return -EADDRINUSE;
	a = addr_new(sun, len);
	if (!a)
		return -ENOMEM;
	u->addr = a;
	LIST_INSERT_HEAD(&abstract[hash_of(sun, len, u->s.type)], u, hash_link);
	return 0;
}

static int bind_path(struct unix_sock *u, const struct sockaddr_un *sun, unsigned len)
{
	char name[sizeof(sun->sun_path) + 1] = {};
	struct unix_addr *a;
	struct path p;
	int r;

	memcpy(name, sun->sun_path, sizeof(sun->sun_path));
	a = addr_new(sun, MIN(len, (unsigned)sizeof(*sun)));
	if (!a)
		return -ENOMEM;
	r = vfs_mknod(AT_FDCWD, name, S_IFSOCK | 0777, 0, &p);
	if (r) {
		unix_addr_put(a);
		return r == -EEXIST ? -EADDRINUSE : r;
	}
	u->addr = a;
	u->path = p;
	p.dentry->inode->sock = u;
	return 0;
}

int unix_autobind(struct unix_sock *u)
{
	static uint32_t next;
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int r = 0;

	klock_lock(&u->bindlock);
	for (unsigned tries = 0; !u->addr; tries++) {
		if (tries > 0xfffff) {
			r = -ENOSPC;
			break;
		}
		snprintf(sun.sun_path + 1, 6, "%05x", next++ & 0xfffff);
		r = bind_abstract(u, &sun, SUN_PATH_OFF + 6);
		if (r && r != -EADDRINUSE)
			break;
	}
	klock_unlock(&u->bindlock);
	return r;
}

static bool path_exists(const struct sockaddr_un *sun)
{
	char name[sizeof(sun->sun_path) + 1] = {};
	struct path p;

	memcpy(name, sun->sun_path, sizeof(sun->sun_path));
	if (path_walk(AT_FDCWD, name, 0, &p))
		return false;
	path_put(&p);
	return true;
}

int unix_bind(struct socket *s, const struct sockaddr_storage *sa, unsigned len)
{
	struct unix_sock *u = unix_of(s);
	struct sockaddr_un sun;
	int r;

	if (len == SUN_PATH_OFF && sa->ss_family == AF_UNIX)
		return unix_autobind(u);
	r = unix_addr_parse(sa, len, &sun, &len);
	if (r)
		return r;
	klock_lock(&u->bindlock);
	if (u->addr)
		r = !is_abstract(&sun, len) && path_exists(&sun) ? -EADDRINUSE : -EINVAL;
	else if (is_abstract(&sun, len))
		r = bind_abstract(u, &sun, len);
	else
		r = bind_path(u, &sun, len);
	klock_unlock(&u->bindlock);
	return r;
}

// The address stays, for who got something from it, until the socket is freed.
void unix_unbind(struct unix_sock *u)
{
	if (u->path.dentry) {
		if (u->path.dentry->inode->sock == u)
			u->path.dentry->inode->sock = NULL;
		path_put(&u->path);
	} else if (u->addr && is_abstract(&u->addr->sun, u->addr->len) && u->hash_link.le_prev) {
		LIST_REMOVE(u, hash_link);
		u->hash_link.le_prev = NULL;
	}
}

static int find_path(const struct sockaddr_un *sun, int type, struct unix_sock **ret)
{
	char name[sizeof(sun->sun_path) + 1] = {};
	struct unix_sock *u;
	struct path p;
	int r;

	memcpy(name, sun->sun_path, sizeof(sun->sun_path));
	r = path_walk(AT_FDCWD, name, WALK_FOLLOW, &p);
	if (r)
		return r;
	r = path_permission(&p, vfs_self()->cred, MAY_WRITE);
	u = p.dentry->inode->sock;
	if (!r && (!S_ISSOCK(p.dentry->inode->mode) || !u || u->dead))
		r = -ECONNREFUSED;
	if (!r && u->s.type != type)
		r = -EPROTOTYPE;
	if (!r)
		*ret = unix_get(u);
	path_put(&p);
	return r;
}

int unix_find(const struct sockaddr_un *sun, unsigned len, int type, struct unix_sock **ret)
{
	struct unix_sock *u;

	if (!is_abstract(sun, len))
		return find_path(sun, type, ret);
	u = abstract_find(sun, len, type);
	if (!u)
		return -ECONNREFUSED;
	*ret = unix_get(u);
	return 0;
}

void unix_addr_out(const struct unix_addr *a, struct sockaddr_storage *sa, unsigned *ret_len)
{
	if (!a) {
		sa->ss_family = AF_UNIX;
		*ret_len = SUN_PATH_OFF;
		return;
	}
	memcpy(sa, &a->sun, sizeof(a->sun));
	*ret_len = a->len;
}
