// /proc/PID/mounts, mountinfo, mountstats: as seen from the process's root. Pollers hear of changes.
#include "sentry/fs/proc/internal.h"

#include <sys/epoll.h>

#include "sentry/vfs/mount.h"

// Blanks and the like as octal escapes, so that fields can be told apart.
static void escaped(struct pbuf *b, const char *s)
{
	for (; *s; s++) {
		if (strchr(" \t\n\\#", *s))
			pprintf(b, "\\%03o", (unsigned char)*s);
		else
			pwrite_text(b, s, 1);
	}
}

static void mnt_options(struct pbuf *b, const struct mount *m)
{
	static const struct { unsigned flag; const char *text; } opts[] = {
		{MNT_NOSUID, ",nosuid"}, {MNT_NODEV, ",nodev"}, {MNT_NOEXEC, ",noexec"}, {MNT_NOATIME, ",noatime"},
		{MNT_NODIRATIME, ",nodiratime"}, {MNT_RELATIME, ",relatime"}, {MNT_NOSYMFOLLOW, ",nosymfollow"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(opts); i++)
		if (m->flags & opts[i].flag)
			pprintf(b, "%s", opts[i].text);
}

static void sb_options(struct pbuf *b, struct super_block *sb)
{
	char *buf;

	if (!sb->ops->show_options)
		return;
	buf = arena_alloc(PAGE_SIZE);
	if (buf && sb->ops->show_options(sb, buf, PAGE_SIZE) >= 0)
		pprintf(b, "%s", buf);
}

static const char *source_of(const struct mount *m)
{
	return m->source ?: m->sb->source ?: "none";
}

// Where m is, from root; false: it cannot be seen from there.
static bool mount_point(struct mount *m, const struct path *root, char **ret)
{
	struct path p = {m, m->root};

	return path_name(&p, root, ret) == 0 && **ret == '/';
}

static void one_mounts(struct pbuf *b, struct mount *m, const char *where)
{
	escaped(b, source_of(m));
	pprintf(b, " ");
	escaped(b, where);
	pprintf(b, " ");
	escaped(b, m->sb->type->name);
	pprintf(b, m->flags & MNT_RDONLY || m->sb->flags & SB_RDONLY ? " ro" : " rw");
	mnt_options(b, m);
	sb_options(b, m->sb);
	pprintf(b, " 0 0\n");
}

// The dentry shown by m, as a path of its file system.
static void inner_root(struct pbuf *b, const struct mount *m)
{
	const struct dentry *chain[64], *d = m->root;
	int n = 0;

	for (; d->parent != d && d != m->sb->root && n < 64; d = d->parent)
		chain[n++] = d;
	if (!n)
		pprintf(b, "/");
	while (n-- > 0) {
		pprintf(b, "/");
		escaped(b, chain[n]->name);
	}
}

static void one_mountinfo(struct pbuf *b, struct mount *m, const char *where)
{
	uint64_t dev = m->sb->dev;

	pprintf(b, "%d %d %u:%u ", m->id, m->parent ? m->parent->id : 0, (unsigned)(dev >> 8 & 0xfff),
		(unsigned)((dev & 0xff) | (dev >> 12 & 0xfff00)));
	inner_root(b, m);
	pprintf(b, " ");
	escaped(b, where);
	pprintf(b, m->flags & MNT_RDONLY ? " ro" : " rw");
	mnt_options(b, m);
	if (m->propagation == MNT_SHARED && m->peer_group)
		pprintf(b, " shared:%d", m->peer_group);
	if (m->master_group)
		pprintf(b, " master:%d", m->master_group);
	if (m->propagation == MNT_UNBINDABLE)
		pprintf(b, " unbindable");
	pprintf(b, " - ");
	escaped(b, m->sb->type->name);
	pprintf(b, " ");
	escaped(b, source_of(m));
	pprintf(b, m->sb->flags & SB_RDONLY ? " ro" : " rw");
	sb_options(b, m->sb);
	pprintf(b, "\n");
}

static void one_mountstats(struct pbuf *b, struct mount *m, const char *where)
{
	pprintf(b, "device ");
	escaped(b, source_of(m));
	pprintf(b, " mounted on ");
	escaped(b, where);
	pprintf(b, " with fstype ");
	escaped(b, m->sb->type->name);
	pprintf(b, "\n");
}

static int show_all(struct pbuf *b, struct pnode *n, void (*one)(struct pbuf *, struct mount *, const char *))
{
	struct task *t = pnode_task(n);
	struct mnt_ns *ns;
	struct mount *m;
	char *where;

	if (!t)
		return -ESRCH;
	if (!t->vt.fs)
		return -EINVAL;
	ns = t->vt.fs->mnt_ns;
	TAILQ_FOREACH(m, &ns->mounts, ns_link)
		if (mount_point(m, &t->vt.fs->root, &where))
			one(b, m, where);
	return 0;
}

int show_mounts(struct pbuf *b, struct pnode *n)
{
	return show_all(b, n, one_mounts);
}

int show_mountinfo(struct pbuf *b, struct pnode *n)
{
	return show_all(b, n, one_mountinfo);
}

int show_mountstats(struct pbuf *b, struct pnode *n)
{
	return show_all(b, n, one_mountstats);
}

static uint32_t mounts_poll(struct file *f, struct poll_table *pt)
{
	struct task *t = pnode_task(pnode_of(f->inode));
	struct text *text = f->priv;
	struct mnt_ns *ns = t && t->vt.fs ? t->vt.fs->mnt_ns : NULL;
	uint32_t mask = EPOLLIN | EPOLLRDNORM;

	if (!ns)
		return mask;
	if (pt)
		pt->queue(pt, &ns->changed);
	if (text->seen != ns->seq) {
		mask |= EPOLLERR | EPOLLPRI;
		text->seen = ns->seq;
	}
	return mask;
}

// What is there at open is no news.
static int mounts_open(struct inode *inode, struct file *f)
{
	struct task *t = pnode_task(pnode_of(inode));
	int r = text_open(inode, f);

	if (!r && t && t->vt.fs)
		((struct text *)f->priv)->seen = t->vt.fs->mnt_ns->seq;
	return r;
}

const struct file_ops mounts_fops = {
	.open = mounts_open,
	.release = text_release,
	.read = text_read,
	.llseek = text_llseek,
	.poll = mounts_poll,
};
