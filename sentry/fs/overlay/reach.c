// Overlays that a guest mounts (mount -t overlay): their layers are directories of its own file
// systems, and it can look at the upper one directly. The overlay changes that layer below the
// dentry cache, so it drops from there what it has changed.
#include <fcntl.h>

#include "sentry/fs/overlay/internal.h"
#include "sentry/vfs/mount.h"

// --- cached names of the upper layer ------------------------------------------------------------

void ovl_upper_forget(struct ovl_inode *dir, const char *name)
{
	struct dentry *d;

	if (likely(!dir->udentry))
		return;
	d = d_find(dir->udentry, name, strlen(name));
	if (d) {
		d_invalidate(d);
		d_put(d);
	}
}

void ovl_upper_dir(struct ovl_inode *dir, const char *name, struct ovl_inode *oi)
{
	struct dentry *d;

	if (likely(!dir->udentry) || !oi->upper || oi->udentry)
		return;
	d = d_find(dir->udentry, name, strlen(name));
	if (d && d->inode != oi->upper) { // what was there before
		d_invalidate(d);
		d_put(d);
		d = NULL;
	}
	if (!d)
		d = d_add(dir->udentry, name, strlen(name), inode_get(oi->upper));
	oi->udentry = d; // NULL, without memory: names below it may stay cached too long
}

void ovl_upper_moved(struct ovl_inode *oi, struct ovl_inode *odir, const char *oname, struct ovl_inode *ndir, const char *nname)
{
	char name[256];

	if (likely(!ndir->udentry))
		return;
	if (!oi->udentry) {
		ovl_upper_forget(odir, oname);
		ovl_upper_forget(ndir, nname);
		return;
	}
	memcpy(name, nname, strlen(nname) + 1);
	if (oi->udentry->hashed) {
		d_move(oi->udentry, ndir->udentry, name);
		ovl_upper_forget(odir, oname);
	} else { // the other half of an exchange took its place
		struct dentry *old = steal_ptr(&oi->udentry);

		ovl_upper_dir(ndir, name, oi);
		d_put(old);
	}
}

// --- mounting -----------------------------------------------------------------------------------

struct options {
	char *lower, *upper, *work;
};

// Cuts the next part off *p, up to an unescaped `sep`; takes the backslashes of that part away if unescape.
// *p becomes NULL after the last.
static char *cut(char **p, char sep, bool unescape)
{
	char *start = *p, *to = start, *s = start;

	if (!start)
		return NULL;
	for (; *s && *s != sep; s++) {
		if (*s == '\\' && s[1]) {
			if (!unescape)
				*to++ = *s;
			s++;
		}
		*to++ = *s;
	}
	*p = *s ? s + 1 : NULL;
	*to = 0;
	return start;
}

static int parse(char *data, struct options *ret)
{
	// What asks for a way of storing things, not for a behaviour that can be seen.
	static const char *const ignored[] = {"index=", "redirect_dir=", "xino=", "metacopy=", "nfs_export=", "uuid=",
					      "volatile", "verity=off"};
	const struct {
		const char *key;
		char **to;
	} dirs[] = {{"lowerdir=", &ret->lower}, {"upperdir=", &ret->upper}, {"workdir=", &ret->work}};
	char *opt;

	*ret = (struct options){0};
	while ((opt = cut(&data, ',', false))) {
		bool known = !*opt;

		for (unsigned i = 0; i < ARRAY_SIZE(dirs) && !known; i++) {
			known = !strncmp(opt, dirs[i].key, strlen(dirs[i].key));
			if (known)
				*dirs[i].to = opt + strlen(dirs[i].key);
		}
		for (unsigned i = 0; i < ARRAY_SIZE(ignored) && !known; i++)
			known = !strncmp(opt, ignored[i], strlen(ignored[i]));
		if (!known)
			return -EINVAL;
	}
	for (unsigned i = 1; i < ARRAY_SIZE(dirs); i++) {
		char *rest = *dirs[i].to;

		*dirs[i].to = cut(&rest, 0, true);
	}
	return ret->lower && !ret->upper == !ret->work ? 0 : -EINVAL;
}

static int upper_ok(const struct path *upper, const struct path *work)
{
	const struct inode *i = upper->dentry->inode;

	if ((upper->mnt->flags & MNT_RDONLY) || (i->sb->flags & SB_RDONLY))
		return -EROFS;
	if (work->dentry->sb != upper->dentry->sb || work->dentry == upper->dentry)
		return -EINVAL;
	// Whiteouts and private attributes are needed: memory has them, an overlay keeps them to itself.
	if (i->sb->type == &overlay_fs_type || (i->sb->flags & SB_REVALIDATE) || !i->ops->mknod || !i->ops->setxattr || !i->ops->rename)
		return -EINVAL;
	return 0;
}

static int walk_dir(char *name, struct path *paths, unsigned *n)
{
	int r = path_walk(AT_FDCWD, name, WALK_FOLLOW | WALK_DIRECTORY, &paths[*n]);

	if (!r)
		++*n;
	return r;
}

int overlay_mount_guest(const struct fs_type *type, const struct mount_opts *o, struct super_block **ret)
{
	struct path *p = arena_alloc((OVERLAY_MAX_LOWER + 2) * sizeof(*p));
	struct dentry *lowers[OVERLAY_MAX_LOWER];
	char *data = arena_strdup(o->data ? o->data : ""), *dir;
	unsigned n = 0, got = 0;
	struct super_block *sb;
	struct options opt;
	int r;

	if (!p || !data)
		return -ENOMEM;
	r = parse(data, &opt);
	while (!r && (dir = cut(&opt.lower, ':', true))) {
		if (!*dir || n == OVERLAY_MAX_LOWER)
			r = -EINVAL;
		else
			r = walk_dir(dir, p, &got);
		if (!r)
			lowers[n++] = p[got - 1].dentry;
	}
	if (!r && opt.upper) {
		r = walk_dir(opt.upper, p, &got);
		if (!r)
			r = walk_dir(opt.work, p, &got);
		if (!r)
			r = upper_ok(&p[n], &p[n + 1]);
	}
	if (!r)
		r = ovl_mount_dentries(opt.upper ? p[n].dentry : NULL, true, lowers, n, &sb);
	while (got)
		path_put(&p[--got]);
	if (r)
		return r;
	((struct ovl_sb *)sb)->options = kstrdup(o->data);
	if (o->ms_flags & 1) // MS_RDONLY
		sb->flags |= SB_RDONLY;
	*ret = sb;
	return 0;
}
