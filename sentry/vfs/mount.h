// Mounts and mount namespaces (mount_namespaces(7)).
//
// A mount shows a dentry tree of a super block at a place of another mount. Mounts of one namespace
// form a tree; stacked mounts lie on each other's root. A mount that is attached is owned by its
// namespace; it holds its parent mount and mount point. Lookup goes through a hash keyed by (parent
// mount, mount point), consulted only when the dentry says that something is mounted on it.
#pragma once
#include "sentry/vfs/vfs.h"

enum mnt_propagation { MNT_PRIVATE, MNT_SHARED, MNT_SLAVE, MNT_UNBINDABLE };

struct mount {
	refcount_t refs;
	unsigned flags;              // MNT_*
	int id;
	struct dentry *root;         // owned
	struct super_block *sb;      // owned
	struct mount *parent;        // owned when attached; itself never; NULL: the namespace's root or detached
	struct dentry *mountpoint;   // owned when attached
	struct mnt_ns *ns;           // NULL: detached
	LIST_ENTRY(mount) hash_link;
	LIST_HEAD(, mount) children;
	LIST_ENTRY(mount) sibling;
	TAILQ_ENTRY(mount) ns_link;  // in mount order, for /proc/PID/mountinfo
	enum mnt_propagation propagation;
	int peer_group;              // MNT_SHARED: who hears of whose mounts; 0: none
	int master_group;            // MNT_SLAVE: whose mounts it hears of; 0: nobody's
	LIST_ENTRY(mount) peer_link; // all mounts with a peer or master group
	bool expire;                 // MNT_EXPIRE was asked once
	char *source;                // owned; NULL: the super block's
	struct mount *copy;          // scratch of the functions that copy trees
};

struct mnt_ns {
	refcount_t refs;
	struct mount *root;
	TAILQ_HEAD(, mount) mounts;
	unsigned nmounts;
	uint64_t ino;                // of /proc/PID/ns/mnt
	uint64_t seq;                // counts changes: pollers of /proc/PID/mounts compare it
	struct waitq changed;        // woken (EPOLLERR|EPOLLPRI) on each change
	void *owner;                 // the kernel's (user namespace)
};

#define MNT_NS_MAX_MOUNTS 100000

struct mount *mnt_get(struct mount *m);
void mnt_put(struct mount *m); // NULL is fine
// What is mounted on (mnt, d), topmost not considered: one step. Borrowed; NULL: nothing. Never waits.
struct mount *mnt_lookup(const struct mount *mnt, const struct dentry *d);
// A copy for CLONE_NEWNS: the same tree of new mounts. fs's root and cwd are moved to the copies (fs may be NULL).
int mnt_ns_copy(struct mnt_ns *old, struct fs_struct *fs, struct mnt_ns **ret);

// The kernel's mount calls (mount(2), umount2(2), pivot_root(2)); the caller has checked CAP_SYS_ADMIN.
int vfs_bind_mount(const struct path *from, const struct path *at, bool recursive);
int vfs_move_mount(const struct path *from, const struct path *at);
int vfs_remount(const struct path *at, uint64_t ms_flags, const char *data);  // MS_REMOUNT
int vfs_remount_bind(const struct path *at, unsigned mnt_flags);              // MS_REMOUNT|MS_BIND
int vfs_set_propagation(const struct path *at, uint64_t ms_flags);            // MS_SHARED ... with MS_REC
int vfs_new_mount(const struct path *at, const char *type, const char *source, uint64_t ms_flags, unsigned mnt_flags, const char *data);
int vfs_umount(const struct path *p, int umount_flags);                       // MNT_DETACH, MNT_EXPIRE
int vfs_pivot_root(const struct path *new_root, const struct path *put_old);
// MS_* of mount(2) -> MNT_*, with relatime as the default.
unsigned mnt_flags_from_ms(uint64_t ms_flags);
// Tasks whose root or cwd a pivot_root must move: the kernel's. Calls fn(fs, arg) for every fs_struct. NULL: own only.
extern void (*vfs_for_each_fs)(void (*fn)(struct fs_struct *fs, void *arg), void *arg);
