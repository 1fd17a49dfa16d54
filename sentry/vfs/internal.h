// What the files of sentry/vfs share among themselves.
#pragma once
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "platform/base/base.h"
#include "platform/base/checked.h"
#include "platform/base/log.h"
#include "platform/base/slab.h"
#include "sentry/vfs/mount.h"
#include "sentry/vfs/vfs.h"

#define VFS_MAX_LINKS 40
#define VFS_MAXBYTES ((uint64_t)INT64_MAX)

// --- dcache -----------------------------------------------------------------------------------
#define DHASH_INIT 0xcbf29ce484222325ULL
#define DHASH_STEP(h, c) (((h) ^ (unsigned char)(c)) * 0x100000001b3ULL)
#define DHASH_END(h) ((uint32_t)((h) ^ (h) >> 32))
// The cached child without a reference; NULL: not cached. Never waits.
struct dentry *d_find_hash(const struct dentry *parent, const char *name, size_t len, uint32_t hash);
bool d_is_ancestor(const struct dentry *a, const struct dentry *d); // a == d counts
void d_exchange(struct dentry *a, struct dentry *b);
void d_prune_children(struct dentry *d);  // drops unused cached dentries below d
void d_kill_tree(struct dentry *root);    // the super block goes: everything unused below root
// A child of parent without a place in the cache (O_TMPFILE); takes over inode.
struct dentry *d_unhashed_child(struct dentry *parent, const char *name, struct inode *inode);

// --- the walk ---------------------------------------------------------------------------------
// While everything hits in the cache nothing waits, so path and root are plain pointers. Before the
// first wait the walk takes references (counted) and keeps counting from there.
struct walk {
	struct path path, root;
	bool counted;
	bool scoped;         // RESOLVE_BENEATH or RESOLVE_IN_ROOT: root is the start
	bool asked_ahead;    // walk_ahead() was tried
	bool slash;          // the last component was followed by a slash
	enum last_kind kind;
	unsigned flags, open_flags, links, depth;
	const struct cred *cred; // NULL: no permission checks
	const char *last;
	unsigned last_len;
	uint32_t last_hash;
	const char *stack[VFS_MAX_LINKS];
};
// Sets w up. -EBADF, -ENOTDIR, -ENOENT for "".
int walk_begin(struct walk *w, int dirfd, const char *name, unsigned flags);
// Walks all but the last component, which is left in w->last ... w->kind. On error w is over.
int walk_names(struct walk *w, const char *name);
// Takes the last component. 0: done; 1: *ret_link is to be walked next (walk_names); -errno: w is over.
int walk_last(struct walk *w, bool follow, const char **ret_link);
// Steps into d, the child that the caller found (a reference, given away), as walk_last would.
int walk_into(struct walk *w, struct dentry *d, bool follow, const char **ret_link);
void walk_count(struct walk *w);                  // take references, before something that may wait
void walk_abort(struct walk *w);                  // gives back what w holds
void walk_finish(struct walk *w, struct path *ret); // hands the path over, with references
// The child of a locked directory: a reference, perhaps negative. May wait. -errno through *ret_err.
struct dentry *lookup_locked(struct dentry *parent, const char *name, size_t len, uint32_t hash, int *ret_err);

// --- mounts -------------------------------------------------------------------------------------
struct mount *mnt_alloc(struct super_block *sb, struct dentry *root, unsigned flags);
struct mount *mnt_clone(const struct mount *old, struct dentry *root);
// Puts m on (parent, d), or makes it the root of its namespace, which takes over the caller's reference to m.
void mnt_attach(struct mnt_ns *ns, struct mount *m, struct mount *parent, struct dentry *d);
void mnt_detach(struct mount *m);       // takes m from its place; the namespace's reference becomes the caller's
void mnt_detach_tree(struct mount *m);  // m and all that is mounted below it, references put
struct mount *mnt_next(struct mount *m, const struct mount *root); // of the tree below root, parents first
void mnt_propagate(struct mount *m, int depth);  // m was attached: the same happens on its parent's peers and slaves
void mnt_propagate_umount(struct mount *m);      // m is about to be detached
void mnt_ns_changed(struct mnt_ns *ns);

// --- permission ---------------------------------------------------------------------------------
int may_create_in(struct inode *dir, const struct cred *c);
int may_delete(struct dentry *dir, struct dentry *victim, bool want_dir, const struct cred *c);
int may_open_in_sticky(uint32_t dir_mode, uint32_t dir_uid, const struct inode *inode, const struct cred *c);
static inline bool sb_or_mnt_rdonly(const struct path *p)
{
	return (p->mnt && p->mnt->flags & MNT_RDONLY) || p->dentry->sb->flags & SB_RDONLY;
}
// Capability of c over inode (one user namespace for now).
static inline bool capable_over(const struct inode *inode, const struct cred *c, unsigned cap) { return cred_capable(c, cap); }
// What is left of the mode when somebody writes to the file or (chown) it changes hands.
uint32_t mode_without_suid(const struct inode *inode, const struct cred *c, bool chown);
int kill_suid_for_write(struct inode *inode);

// --- files --------------------------------------------------------------------------------------
struct file *file_alloc(void);
int file_open_path(const struct path *p, unsigned flags, bool created, struct file **ret);
const struct file_ops *chrdev_find(uint64_t rdev);
void locks_release_posix(struct file *f, const void *owner); // close(2) by that descriptor table
void locks_release_file(struct file *f);                     // the last close: OFD and flock
void locks_free_ctx(struct inode *inode);
// The size changes, permissions are checked: limits, suid bits, times. May wait.
int do_truncate(struct inode *inode, struct dentry *d, uint64_t size);
// RLIMIT_FSIZE and the file system's own limit: -EFBIG, with SIGXFSZ for the former.
int newsize_ok(const struct inode *inode, uint64_t size);

static inline void fsnotify(struct inode *inode, struct dentry *d, uint32_t mask, uint32_t cookie)
{
	if (unlikely(vfs_notify && (inode->watches || (d && d->parent->inode && d->parent->inode->watches))))
		vfs_notify(inode, d, mask, cookie);
}
