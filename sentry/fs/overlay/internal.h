// Shared by the files of this room only.
#pragma once
#include <sys/queue.h>
#include <sys/stat.h>

#include "platform/base/base.h"
#include "platform/base/log.h"
#include "platform/base/slab.h"
#include "sentry/fs/overlay/overlay.h"

#define OVL_OPAQUE "trusted.overlay.opaque"
#define OVL_REDIRECT "trusted.overlay.redirect"
#define OVL_ORIGIN "trusted.overlay.origin" // the inode number that the file shows, 8 bytes
#define OVL_PREFIX "trusted.overlay."
#define OVL_UPPER_INO (1ULL << 40)          // keeps numbers of the upper layer apart from those of the lower

struct mlist;
struct ovl_inode {
	struct inode inode;         // first
	struct inode *upper;        // counted; NULL: not copied up
	// Files: the lower file, counted; NULL: there is none (any more).
	struct inode *lower;
	// Directories: the lower directories it shows, counted; first is storage for one.
	struct dentry **dirs, *first;
	unsigned ndirs;
	// Where to copy it up to: kept while there is no upper, and the file has a name.
	struct ovl_inode *parent;   // counted
	char *name;                 // owned; directories use dirs[0]'s
	struct klock copy_lock;
	LIST_ENTRY(ovl_inode) by_upper, by_lower; // files: the table of real inodes
	bool in_upper_table, in_lower_table;
	bool pinned;                // a lower file with several names that was copied up: stays until unmount
	// Directories of an overlay that a guest mounted: the upper directory's own dentry, counted. Others can
	// reach the upper layer by it, so what we change there must not stay cached.
	struct dentry *udentry;
	struct mlist *list;         // directories: the merged listing, NULL: not known
	uint32_t list_seq;          // counts changes, for whoever builds a list across a wait
};
struct ovl_sb {
	struct super_block sb;      // first
	struct super_block *upper;  // counted; NULL: read-only
	struct super_block *lowers[OVERLAY_MAX_LOWER];
	struct dentry *lower_roots[OVERLAY_MAX_LOWER];
	struct inode *upper_root;
	struct dentry *upper_dentry; // counted; NULL: nobody else can reach the upper layer
	char *options;               // a guest's mount options, for /proc/mounts
	unsigned nlowers;
	LIST_HEAD(, ovl_inode) *upper_table, *lower_table;
	unsigned bits, count;
	struct ovl_inode **pinned;
	unsigned npinned, pinned_cap;
};
// What a dentry of the overlay knows about its name, in d->fs_priv.
enum ovl_name { OVL_NAME_UNKNOWN, OVL_NAME_FREE, OVL_NAME_HIDES }; // HIDES: a lower layer has the name

static inline struct ovl_inode *OI(const struct inode *i) { return (struct ovl_inode *)i; }
static inline struct ovl_sb *OSB(const struct ovl_inode *oi) { return (struct ovl_sb *)oi->inode.sb; }
static inline bool ovl_is_whiteout(const struct inode *i) { return S_ISCHR(i->mode) && i->rdev == 0; }
static inline struct inode *ovl_real(const struct ovl_inode *oi)
{
	return oi->upper ? oi->upper : S_ISDIR(oi->inode.mode) ? oi->dirs[0]->inode : oi->lower;
}
static inline struct ktime ovl_later(struct ktime a, struct ktime b)
{
	return a.sec > b.sec || (a.sec == b.sec && a.nsec > b.nsec) ? a : b;
}
static inline void ovl_set_name(struct dentry *d, enum ovl_name n) { d->fs_priv = (void *)(uintptr_t)n; }
// A dentry for calls into a layer: on the stack, known to no cache.
static inline struct dentry ovl_dentry(const struct dentry *d, struct inode *inode)
{
	return (struct dentry){.refs = REFCOUNT_INIT(1), .name = d->name, .namelen = d->namelen, .hash = d->hash, .inode = inode};
}
// The name in the upper directory (a reference, possibly a whiteout). -ENOENT.
static inline int ovl_upper_child(const struct ovl_inode *dir, const char *name, struct inode **ret)
{
	return dir->upper ? dir->upper->ops->lookup(dir->upper, name, ret) : -ENOENT;
}

// --- super.c ---
// A new overlay inode over upper and/or lower (taken over; also on failure). A file that is known
// already is found again. dirs: for directories, taken over, too.
int ovl_iget(struct ovl_sb *os, struct inode *upper, struct inode *lower, struct ovl_inode *parent, const char *name, struct inode **ret);
int ovl_iget_dir(struct ovl_sb *os, struct inode *upper, struct dentry **dirs, unsigned ndirs, struct ovl_inode *parent, struct inode **ret);
void ovl_set_upper(struct ovl_inode *oi, struct inode *upper); // copied up: takes over upper
int ovl_mount_dentries(struct dentry *upper, bool shared, struct dentry *const *lowers, unsigned n, struct super_block **ret);
int ovl_pin(struct ovl_inode *oi);
void ovl_unpin(struct ovl_inode *oi);
void ovl_forget_place(struct ovl_inode *oi); // it has no name to be copied up to any more
void ovl_sync_attr(struct ovl_inode *oi);    // from the real inode: what reads and writes change
int ovl_getattr(struct inode *inode);

// --- lookup.c ---
int ovl_lookup(struct inode *dir, const char *name, struct inode **ret);
void ovl_walk_ahead(struct dentry *d, const char *rest, unsigned open_flags);
// Whether a lower layer of dir has the name. 1, 0, or -errno. May wait.
int ovl_name_hides(struct ovl_inode *dir, struct dentry *d);
char *ovl_redirect_of(const struct ovl_sb *os, const struct dentry *lower); // the path for OVL_REDIRECT; kfree. NULL: no memory

// --- reach.c: upper layers that others can reach (all of this is nothing for those that cannot) ---
int overlay_mount_guest(const struct fs_type *type, const struct mount_opts *o, struct super_block **ret);
void ovl_upper_forget(struct ovl_inode *dir, const char *name); // the name changed in dir's upper directory
void ovl_upper_dir(struct ovl_inode *dir, const char *name, struct ovl_inode *oi); // oi is its directory of this name
void ovl_upper_moved(struct ovl_inode *oi, struct ovl_inode *odir, const char *oname, struct ovl_inode *ndir, const char *nname);

// --- copyup.c ---
int ovl_copy_up(struct ovl_inode *oi);               // with everything above it. May wait
int ovl_copy_up_truncated(struct ovl_inode *oi);     // a file that will be truncated to nothing
int ovl_set_private(struct inode *upper, const char *name, const void *val, size_t size);

// --- modify.c, file.c, readdir.c ---
extern const struct inode_ops ovl_dir_ops, ovl_file_ops, ovl_link_ops, ovl_special_ops;
extern const struct file_ops ovl_reg_fops, ovl_dir_fops;
int ovl_setattr(struct inode *inode, const struct iattr *a);
ssize_t ovl_getxattr(struct inode *inode, const char *name, void *buf, size_t size);
int ovl_setxattr(struct inode *inode, const char *name, const void *val, size_t size, int flags);
ssize_t ovl_listxattr(struct inode *inode, char *buf, size_t size);
// A struct file that stands for an open file of a layer: known to nobody else, its path is borrowed.
int ovl_real_open(struct inode *real, const struct path *p, unsigned flags, struct file *ret);
void ovl_real_close(struct file *f);
void ovl_dir_changed(struct ovl_inode *dir);         // drops the listing, takes over the times
void ovl_mlist_put(struct mlist *l);
// The merged directory has no entries: 0, else -ENOTEMPTY or -errno. With `clear`, whiteouts in its
// upper directory are removed, so that it can be.
int ovl_check_empty(struct ovl_inode *dir, struct dentry *d, bool clear);
