// The virtual file system: mounts, dentries, inodes, open files, path walk.
//
//   super_block  one mounted file system            inode   a file, whatever its names
//   mount        a super_block (or part) at a place  dentry  a name in a directory -> inode, or negative
//   path         (mount, dentry)                     file    an open file description
//
// Invariants
//  - All objects are counted; *_get takes, *_put gives back; a getter named _lookup or ret_x hands
//    over a reference. A dentry holds its parent and its inode; an inode holds its super_block.
//  - A dentry with inode == NULL is negative: the name is known not to exist. Unused dentries stay
//    cached (bounded LRU) if the fs sets SB_CACHE; negative ones too.
//  - Attributes that stat(2) shows live in struct inode and are always current, except for file
//    systems with SB_REVALIDATE, whose getattr() refreshes them.
//  - Operations return 0 or a byte count, or -errno; outputs are untouched on failure. All inode and
//    file operations may wait, unless they say otherwise. Permission checks are done by the vfs
//    before an operation is called; the file system checks none.
//  - Directory modifications hold dir->lock (a klock), rename holds both and sb->rename_lock.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "platform/base/refcount.h"
#include "sentry/mm/mm.h"
#include "sentry/sched/sched.h"
#include "sentry/uaccess/uaccess.h"
#include "sentry/vfs/cred.h"

struct inode;
struct dentry;
struct file;
struct mount;
struct super_block;
struct fd_table;
struct fs_struct;
struct poll_table;
struct path;
struct file_ops;

struct ktime {
	int64_t sec;
	uint32_t nsec;
};

// --- file systems ---------------------------------------------------------------------------
struct mount_opts {
	const char *source;  // may be NULL
	const char *data;    // "size=1m,mode=755"; may be NULL
	uint64_t ms_flags;   // MS_RDONLY ... (per super block)
	void *internal;      // for mounts made by boot (the gofer connection, overlay layers); NULL for guests'
};
struct fs_type {
	const char *name;
	unsigned flags; // FS_NODEV: needs no device; FS_GUEST: a guest with CAP_SYS_ADMIN may mount it
	int (*mount)(const struct fs_type *type, const struct mount_opts *o, struct super_block **ret);
	struct fs_type *next; // the registry's
};
enum { FS_NODEV = 1, FS_GUEST = 2 };
void fs_register(struct fs_type *type); // at boot
const struct fs_type *fs_find(const char *name);
const struct fs_type *fs_first(void);   // for /proc/filesystems

struct statfs_info {
	uint64_t type, bsize, blocks, bfree, bavail, files, ffree, namelen;
};
struct super_ops {
	int (*statfs)(struct super_block *sb, struct statfs_info *ret);
	int (*sync)(struct super_block *sb);
	void (*evict)(struct inode *inode);          // the last reference to an inode is gone: free it (mandatory)
	void (*put_super)(struct super_block *sb);   // frees sb->priv and sb itself (whoever called sb_init owns the memory)
	int (*show_options)(struct super_block *sb, char *buf, size_t size); // ",size=..." for /proc/mounts
	int (*remount)(struct super_block *sb, const struct mount_opts *o);
	// SB_REVALIDATE: is the cached dentry still right? 1: yes, 0: forget it and look it up again, -errno. May wait;
	// the parent directory is locked. NULL: always 0.
	int (*revalidate)(struct dentry *d);
	// The last mount or sb_get() user is gone; inodes may still be open. NULL: nothing to do.
	void (*kill_sb)(struct super_block *sb);
};
enum {
	SB_RDONLY = 1,
	SB_CACHE = 2,      // names change only through the vfs: dentries, also negative ones, stay valid
	SB_REVALIDATE = 4, // the host may change it: revalidate dentries and attributes
	SB_OWN_FOPS = 16,  // inode->fops counts for devices, FIFOs and sockets as well
	SB_NOEXEC_FAKE = 8, // proc-like: files cannot be executed or device nodes opened
};
struct super_block {
	refcount_t refs;
	const struct fs_type *type;
	const struct super_ops *ops;
	unsigned flags;
	uint64_t dev;             // st_dev: anonymous major 0, given by sb_init
	uint64_t magic, blocksize;
	struct dentry *root;      // owned
	struct klock rename_lock;
	uint64_t ninodes;         // live inodes; they keep the memory of sb, not the mount, alive
	uint64_t change_seq;      // counts names removed and moved, for whoever caches across a wait (walk_ahead)
	uint64_t maxbytes;        // largest file size
	char *source;
	void *priv;
};
// Fills in the common part; refs = 1. ops and priv are the caller's, and so is the memory until put_super().
// A mount takes a reference of its own. When the last reference is put, the cached dentries and the
// root go; put_super() follows when the last inode is gone.
void sb_init(struct super_block *sb, const struct fs_type *type, const struct super_ops *ops, unsigned flags);
struct super_block *sb_get(struct super_block *sb);
void sb_put(struct super_block *sb);

// --- inodes ---------------------------------------------------------------------------------
struct iattr {
	unsigned valid; // ATTR_*
	uint32_t mode, uid, gid;
	uint64_t size;
	struct ktime atime, mtime, ctime;
};
enum { ATTR_MODE = 1, ATTR_UID = 2, ATTR_GID = 4, ATTR_SIZE = 8, ATTR_ATIME = 16, ATTR_MTIME = 32, ATTR_CTIME = 64,
       ATTR_TIMES_NOW = 128 }; // ATIME and MTIME are "now": whoever may write may set them

struct inode_ops { // a NULL op answers with the errno in brackets
	// Directories. `dir` is locked for those that modify. name is NUL-terminated, at most 255 bytes.
	int (*lookup)(struct inode *dir, const char *name, struct inode **ret); // -ENOENT: negative [ENOTDIR]
	// A hint before the first lookup() that misses in a walk: `rest` is all that is still to be walked. The
	// fs may add dentries below d (d_add) for as much of it as it learns with one request. NULL: fine.
	void (*walk_ahead)(struct dentry *d, const char *rest, unsigned open_flags);
	int (*create)(struct inode *dir, struct dentry *d, uint32_t mode, struct inode **ret);  // regular file [EROFS]
	int (*mkdir)(struct inode *dir, struct dentry *d, uint32_t mode, struct inode **ret);   // [EPERM]
	// mode carries the file type too, for all of these; S_ISGID of the directory is the fs's (inode_init_owner).
	int (*mknod)(struct inode *dir, struct dentry *d, uint32_t mode, uint64_t rdev, struct inode **ret); // FIFO, socket, devices [EPERM]
	int (*symlink)(struct inode *dir, struct dentry *d, const char *target, struct inode **ret); // [EPERM]
	int (*link)(struct inode *dir, struct dentry *d, struct inode *target);                 // [EPERM]
	int (*unlink)(struct inode *dir, struct dentry *d);                                     // [EPERM]
	int (*rmdir)(struct inode *dir, struct dentry *d);                                      // [EPERM]
	int (*rename)(struct inode *odir, struct dentry *od, struct inode *ndir, struct dentry *nd, unsigned flags); // [EPERM]
	int (*tmpfile)(struct inode *dir, uint32_t mode, struct inode **ret);                   // [EOPNOTSUPP]
	// Everything.
	int (*readlink)(struct inode *inode, char **ret); // target in the call's arena [EINVAL]
	// proc's magic links: where the walk goes on, instead of readlink. NULL: an ordinary symlink.
	int (*follow)(struct inode *inode, struct dentry *d, struct path *ret);
	int (*getattr)(struct inode *inode);              // refresh attributes; NULL: they are current
	int (*setattr)(struct inode *inode, const struct iattr *a); // checked and killed suid by the vfs [EPERM]
	int (*permission)(struct inode *inode, const struct cred *c, int mask); // instead of the mode bits; NULL: those
	ssize_t (*getxattr)(struct inode *inode, const char *name, void *buf, size_t size);     // [EOPNOTSUPP]
	int (*setxattr)(struct inode *inode, const char *name, const void *val, size_t size, int flags); // val NULL: remove
	ssize_t (*listxattr)(struct inode *inode, char *buf, size_t size);
};
struct file_lock_ctx; // vfs's own: POSIX, OFD and flock locks
struct inode {
	refcount_t refs;
	struct super_block *sb;
	const struct inode_ops *ops;
	const struct file_ops *fops;  // what an open of it uses (FIFOs, sockets, devices: the vfs picks)
	uint64_t ino;
	uint32_t mode, uid, gid, nlink;
	uint64_t rdev, size, blocks; // blocks of 512 bytes
	struct ktime atime, mtime, ctime, btime;
	uint32_t blksize, generation;
	int32_t writers;             // > 0: open for writing; < 0: being executed (ETXTBSY)
	struct klock lock;           // directory modifications; file size changes
	struct file_lock_ctx *locks; // NULL: none
	void *watches;               // inotify's; NULL: none
	void *pipe, *sock;           // FIFO's pipe, bound AF_UNIX socket: their rooms'
	const char *link;            // symlinks: the target if it is at hand (valid while the inode lives); else readlink()
	uint32_t shared_maps;        // shared mappings through files open for writing
	bool write_sealed;           // memfd: no shared mapping may become writable
	bool linkable;               // nlink == 0, but link() may give it a name (O_TMPFILE)
	bool has_acl;                // system.posix_acl_access exists: permission() must look (set by the fs)
	void *priv;
};
// Fills in the common part: refs = 1, nlink = 1, times = now, takes a reference to sb.
void inode_init(struct inode *inode, struct super_block *sb, uint32_t mode, const struct inode_ops *ops, const struct file_ops *fops);
// A new file's owner, group and S_ISGID, from the current task and the directory (inode(7)).
void inode_init_owner(struct inode *inode, const struct inode *dir);
// For setattr(): copies all but the size from a.
void inode_copy_attr(struct inode *inode, const struct iattr *a);
struct inode *inode_get(struct inode *inode);
void inode_put(struct inode *inode); // NULL is fine; the last one calls sb->ops->evict
struct ktime vfs_now(void);          // CLOCK_REALTIME

// --- dentries and mounts --------------------------------------------------------------------
struct dentry {
	refcount_t refs;
	struct dentry *parent;        // itself for a root; never changes but by rename
	struct inode *inode;          // NULL: negative
	struct super_block *sb;
	LIST_ENTRY(dentry) hash_link;
	uint32_t hash;                // of the name alone
	uint16_t nmounts;             // mounts whose mount point this is (any namespace)
	bool hashed;                  // false: deleted (" (deleted)"), or never had a name
	uint8_t namelen;
	bool on_lru, referenced;
	TAILQ_ENTRY(dentry) lru;
	LIST_ENTRY(dentry) sibling;
	LIST_HEAD(, dentry) children;
	char *name;                   // owned (or inline)
	char inline_name[40];
	void *fs_priv;
};
uint32_t d_name_hash(const char *name, size_t len); // what dentry.hash holds
struct dentry *d_get(struct dentry *d);
void d_put(struct dentry *d);
struct dentry *d_root(struct inode *inode);  // takes over the inode reference; for sb->root. NULL: no memory
struct dentry *d_anon(struct inode *inode, const char *name); // unhashed (pipes, memfd, sockets); takes over inode
struct dentry *d_find(struct dentry *parent, const char *name, size_t len); // in the cache; a reference or NULL
// Adds (or finds) the cached child and sets its inode (NULL: negative); takes over the inode reference.
struct dentry *d_add(struct dentry *parent, const char *name, size_t len, struct inode *inode);
void d_instantiate(struct dentry *d, struct inode *inode); // negative -> positive, takes over inode
void d_delete(struct dentry *d);     // unlinked: unhash, or make negative if nobody else uses it
void d_move(struct dentry *d, struct dentry *new_parent, const char *new_name); // renamed
void d_invalidate(struct dentry *d); // forget it and what is below

struct path {
	struct mount *mnt;
	struct dentry *dentry;
};
void path_get(const struct path *p);
void path_put(struct path *p);       // and clears it
static inline bool path_equal(const struct path *a, const struct path *b) { return a->mnt == b->mnt && a->dentry == b->dentry; }

enum { MNT_RDONLY = 1, MNT_NOSUID = 2, MNT_NODEV = 4, MNT_NOEXEC = 8, MNT_NOATIME = 16, MNT_NODIRATIME = 32, MNT_RELATIME = 64, MNT_LOCKED = 128, MNT_NOSYMFOLLOW = 256 };
struct mnt_ns;
// Attaches a mount of sb (root: the dentry to show, NULL: its root) on `at`. flags: MNT_*. The mount takes
// its own references. More about mounts: sentry/vfs/mount.h.
int vfs_mount(struct mnt_ns *ns, const struct path *at, struct super_block *sb, struct dentry *root, unsigned flags);
// Boot: a namespace whose root is sb. ret_root has references.
int mnt_ns_new(struct super_block *sb, unsigned flags, struct mnt_ns **ret, struct path *ret_root);
struct mnt_ns *mnt_ns_get(struct mnt_ns *ns);
void mnt_ns_put(struct mnt_ns *ns);

// --- who is asking --------------------------------------------------------------------------
// Every task that uses the vfs begins with this (the kernel's struct task does).
struct fs_struct { // clone(CLONE_FS) shares it
	refcount_t refs;
	struct path root, cwd;
	uint32_t umask;
	struct mnt_ns *mnt_ns;
};
struct vfs_task {
	struct sched_task st;
	struct fs_struct *fs;
	const struct cred *cred;
	struct fd_table *files;
	uint64_t fsize_limit;           // RLIMIT_FSIZE
	void (*fsize_exceeded)(void);   // sends SIGXFSZ to the current task
	void (*epipe)(void);            // sends SIGPIPE to the current task
	uint32_t nofile_limit;          // RLIMIT_NOFILE soft
};
static inline struct vfs_task *vfs_self(void) { return (struct vfs_task *)sched_current(); }
struct fs_struct *fs_struct_new(void);
struct fs_struct *fs_struct_copy(const struct fs_struct *fs);
void fs_struct_put(struct fs_struct *fs);

// --- path walk (path_resolution(7), openat2(2)) ----------------------------------------------
enum {
	WALK_FOLLOW = 1,      // follow a symlink in the last component
	WALK_DIRECTORY = 2,   // the result must be a directory
	WALK_EMPTY = 4,       // "" means dirfd itself (AT_EMPTY_PATH)
	WALK_NO_XDEV = 8, WALK_NO_MAGICLINKS = 16, WALK_NO_SYMLINKS = 32, WALK_BENEATH = 64, WALK_IN_ROOT = 128, // RESOLVE_*
	WALK_NOPERM = 256,    // kernel-internal: no search permission checks
	WALK_MOUNTPOINT = 512, // do not step into what is mounted on the last component
};
// dirfd: AT_FDCWD or a descriptor of the current task.
int path_walk(int dirfd, const char *name, unsigned flags, struct path *ret);
// The parent of the last component and that component (in the arena; trailing slashes removed, told by
// *ret_dir_wanted). -EEXIST/-EINVAL/-EBUSY for "/", ".", ".." is the caller's: kind tells.
enum last_kind { LAST_NORM, LAST_ROOT, LAST_DOT, LAST_DOTDOT };
int path_walk_parent(int dirfd, const char *name, unsigned flags, struct path *ret, char **ret_last, enum last_kind *ret_kind, bool *ret_dir_wanted);
// From an explicit start (boot, loader).
int path_walk_at(const struct path *start, const struct path *root, const char *name, unsigned flags, struct path *ret);
// As d_path(): the path seen from root; "(unreachable)" and " (deleted)" as Linux. In the arena.
int path_name(const struct path *p, const struct path *root, char **ret);

extern struct vfs_protected { unsigned symlinks, hardlinks, regular, fifos; } vfs_protected; // fs.protected_*: proc_sys_fs(5)

enum { MAY_EXEC = 1, MAY_WRITE = 2, MAY_READ = 4, MAY_APPEND = 8, MAY_ACCESS = 16 };
int inode_permission(struct inode *inode, const struct cred *c, int mask);     // mode bits, ACL, capabilities; -EACCES
int path_permission(const struct path *p, const struct cred *c, int mask);     // and mount flags: -EROFS
bool inode_owner_or_capable(const struct inode *inode, const struct cred *c);

// --- open files -----------------------------------------------------------------------------
struct dir_context;
typedef bool (*dir_fill_fn)(struct dir_context *c, const char *name, size_t len, uint64_t ino, unsigned dtype, int64_t next_pos);
struct dir_context {
	int64_t pos;      // where to go on; the fs sets it to the cookie after the last entry accepted
	dir_fill_fn fill; // false: full, stop (this entry was not taken)
	void *arg;
};
struct poll_table { // NULL pt: only ask
	void (*queue)(struct poll_table *pt, struct waitq *wq); // called by ->poll for each queue to wait on
};
struct file_ops { // a NULL op answers with the errno in brackets
	int (*open)(struct inode *inode, struct file *f);
	void (*release)(struct file *f);
	int (*flush)(struct file *f);                                  // each close(2)
	ssize_t (*read)(struct file *f, struct uio *u, int64_t *pos);  // [EINVAL]; *pos is f->pos or a pread's
	ssize_t (*write)(struct file *f, struct uio *u, int64_t *pos); // O_APPEND is the fs's to honour [EINVAL]
	int (*iterate)(struct file *f, struct dir_context *c);         // "." and ".." included [ENOTDIR]
	int64_t (*llseek)(struct file *f, int64_t off, int whence);    // NULL: the generic one (regular files, dirs)
	uint32_t (*poll)(struct file *f, struct poll_table *pt);       // EPOLL* mask; must not wait; NULL: always ready
	int64_t (*ioctl)(struct file *f, unsigned cmd, uint64_t arg);  // [ENOTTY]
	// A host descriptor for mmap: see mobj_ops.map_fd [ENODEV]
	int (*map_fd)(struct file *f, uint64_t off, uint64_t len, int prot, bool shared, int *ret_fd, uint64_t *ret_off);
	int (*fsync)(struct file *f, bool datasync);                   // [EINVAL]
	int (*fallocate)(struct file *f, int mode, uint64_t off, uint64_t len); // [EOPNOTSUPP]
	int (*set_flags)(struct file *f, unsigned flags);              // fcntl F_SETFL wants to change; may be NULL
	void (*show_fdinfo)(struct file *f, char *buf, size_t size);   // extra lines of /proc/PID/fdinfo
	unsigned flags;                                                // FOP_*
};
enum { FOP_STREAM = 1 }; // no position: lseek is ESPIPE, pread/pwrite too
enum { FMODE_READ = 1, FMODE_WRITE = 2, FMODE_EXEC = 4, FMODE_PATH = 8, FMODE_NONBLOCK_IO = 16, FMODE_WRITER = 32,
       FMODE_DENY_WRITE = 64 /* the loader called inode_deny_write(): undone with the file */ };
struct file {
	struct mobj mobj;      // first: its refs are the file's; ops are vfs's own
	struct path path;      // mnt may be NULL for anonymous files
	struct inode *inode;   // == path.dentry->inode at open time; owned
	const struct file_ops *ops;
	unsigned flags;        // O_* status flags (F_GETFL)
	unsigned mode;         // FMODE_*
	int64_t pos;
	struct klock pos_lock; // held across read/write/lseek/getdents that use pos, when shared
	const struct cred *cred; // of the opener
	TAILQ_HEAD(, epoll_item) epolls; // epoll's: which instances watch this file
	struct { uint32_t pid, uid, euid; int type, sig; } owner; // F_SETOWN, F_SETSIG
	void *async;           // FASYNC registration
	void *priv;
};
static inline struct file *file_get(struct file *f) { mobj_get(&f->mobj); return f; }
void file_put(struct file *f); // NULL is fine
static inline struct file *file_of_mobj(struct mobj *m) { return (struct file *)m; }
bool mobj_is_file(const struct mobj *m);
// mmap(2) of a file: may it be mapped so, and what mprotect(2) may ask for later. flags: MAP_SHARED or MAP_PRIVATE.
// -EACCES, -EPERM (noexec, seals), -ENODEV.
int file_mmap_prot(struct file *f, int prot, int flags, int *ret_max_prot);

#define VFS_O_EXEC 040 // in vfs_open()'s flags, with O_RDONLY: execute permission instead of read permission
int vfs_open(const struct path *p, unsigned flags, struct file **ret);                   // an existing object; checks permission
int vfs_openat(int dirfd, const char *name, unsigned flags, uint32_t mode, unsigned walk_flags, struct file **ret);
// A file with no name: pipes, sockets, eventfd, memfd ... name as /proc/PID/fd shows it ("anon_inode:[eventfd]",
// "pipe:[123]" from inode number). flags: O_ACCMODE|O_NONBLOCK. inode NULL: a fresh anonymous inode. Takes over inode.
int file_new_anon(const char *name, struct inode *inode, const struct file_ops *ops, unsigned flags, void *priv, struct file **ret);
struct inode *anon_inode_new(uint32_t mode); // on the internal anonymous super block, a fresh inode number
ssize_t vfs_read(struct file *f, struct uio *u, int64_t *pos);
ssize_t vfs_write(struct file *f, struct uio *u, int64_t *pos); // RLIMIT_FSIZE, kills suid
ssize_t kernel_read(struct file *f, void *buf, size_t n, int64_t pos); // into kernel memory (the loader)
// For the file systems: what a read or write does to the times of the inode (relatime and mount flags obeyed).
void file_accessed(struct file *f);
void file_modified(struct inode *inode);
int vfs_iterate(struct file *f, struct dir_context *c); // getdents: locks the directory
int64_t vfs_llseek(struct file *f, int64_t off, int whence);
// What regular files do when ops->llseek only wants SEEK_DATA/SEEK_HOLE of its own; size: where the end is.
int64_t generic_llseek(struct file *f, int64_t off, int whence, uint64_t size);
int vfs_fsync(struct file *f, bool datasync);
int vfs_fallocate(struct file *f, int mode, int64_t off, int64_t len);
int vfs_ftruncate(struct file *f, int64_t size);
int64_t vfs_ioctl(struct file *f, unsigned cmd, uint64_t arg); // the file's own commands only
int vfs_getattr(const struct path *p);
int vfs_setattr(const struct path *p, struct iattr *a);   // permission checks of chmod/chown/utimes/truncate
int vfs_truncate(const struct path *p, uint64_t size);
int vfs_mkdir(int dirfd, const char *name, uint32_t mode);
int vfs_mknod(int dirfd, const char *name, uint32_t mode, uint64_t rdev, struct path *ret_or_null);
int vfs_unlink(int dirfd, const char *name, bool dir);
int vfs_symlink(int dirfd, const char *name, const char *target);
int vfs_link(const struct path *old, int dirfd, const char *name);
int vfs_rename(int odirfd, const char *oname, int ndirfd, const char *nname, unsigned flags); // RENAME_*
int vfs_readlink(const struct path *p, char **ret); // magic links too; in the arena
// Extended attributes with permission checks by name space. val NULL: remove. Sizes are the caller's to bound.
ssize_t vfs_getxattr(const struct path *p, const char *name, void *buf, size_t size);
int vfs_setxattr(const struct path *p, const char *name, const void *val, size_t size, int flags);
ssize_t vfs_listxattr(const struct path *p, char *buf, size_t size);
int inode_deny_write(struct inode *inode);  // being executed: -ETXTBSY if it is open for writing
void inode_allow_write(struct inode *inode);
uint32_t file_poll(struct file *f, struct poll_table *pt);

// --- descriptors (sentry/vfs/fdtable.c) -------------------------------------------------------
struct fd_table *fd_table_new(void);
struct fd_table *fd_table_copy(struct fd_table *t, uint32_t from_close, uint32_t to_close); // fork; skips the range
struct fd_table *fd_table_get(struct fd_table *t);
void fd_table_put(struct fd_table *t);
unsigned fd_table_users(const struct fd_table *t);
// A reference to fd's file; NULL: -EBADF (O_PATH files too unless path_ok).
struct file *fd_get(int fd);
struct file *fd_get_path_ok(int fd);
// Without taking a reference: valid until the current task waits or closes it. The hot path.
struct file *fd_peek(int fd);
int fd_install(struct file *f, unsigned o_cloexec);                // lowest free; takes over f on success; -EMFILE
int fd_install_from(struct file *f, int min, unsigned o_cloexec);
int fd_replace(struct file *f, int fd, unsigned o_cloexec);        // dup2's way; takes its own reference
int fd_close(int fd);
void fd_close_on_exec(struct fd_table *t);
int fd_get_flags(int fd);
int fd_set_flags(int fd, int flags);
struct file *fd_table_peek(struct fd_table *t, int fd);
unsigned fd_table_size(const struct fd_table *t);                  // no descriptor is this high; a multiple of 64
int fd_table_next(struct fd_table *t, int fd);                     // the lowest open descriptor >= fd, or -1
// Reserve-then-install for calls that must not fail after copy_out (pipe2, socketpair).
int fd_reserve(unsigned o_cloexec);
void fd_fill(int fd, struct file *f); // takes over f
void fd_unreserve(int fd);

// --- hooks that other rooms set ---------------------------------------------------------------
enum { FSN_ACCESS = 1, FSN_MODIFY = 2, FSN_ATTRIB = 4, FSN_CLOSE_WRITE = 8, FSN_CLOSE_NOWRITE = 16, FSN_OPEN = 32, FSN_MOVED_FROM = 64, FSN_MOVED_TO = 128, FSN_CREATE = 256, FSN_DELETE = 512, FSN_DELETE_SELF = 1024, FSN_MOVE_SELF = 2048 };
extern void (*vfs_notify)(struct inode *inode, struct dentry *d, uint32_t mask, uint32_t cookie); // inotify; NULL: nobody
// `inode` is the object, d its name: d->parent's watches are told too, except for *_SELF. CREATE, DELETE and MOVED_*
// concern the parent only. Called only if one of the two has watches.
extern void (*vfs_epoll_release)(struct file *f);                  // f is going and f->epolls is not empty
extern void (*vfs_fasync)(struct file *f, bool on);                // FASYNC was switched; NULL: not supported
extern const struct file_ops *vfs_fifo_ops;                        // fs/pipe sets it at boot
// Character devices by number: fs/dev registers. The inode's rdev picks the ops at open.
int chrdev_register(unsigned major, unsigned first_minor, unsigned count, const struct file_ops *ops);
