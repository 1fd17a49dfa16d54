// Shared by the files of this room only.
#pragma once
#include <sys/queue.h>
#include <sys/stat.h>

#include "gofer/proto/proto.h"
#include "platform/base/base.h"
#include "platform/base/log.h"
#include "platform/base/slab.h"
#include "sentry/fs/gofer/gofer.h"

// --- conn.c: requests -------------------------------------------------------------------------
struct rx_chunk {
	STAILQ_ENTRY(rx_chunk) link;
	size_t len;
	_Alignas(8) char msg[]; // a reply that gp_rep_check() has passed
};
// One request and its answer, on the caller's stack.
struct call {
	struct gp_req q;
	const char *name1, *name2;
	const void *data;   // q.*_len are set from the arguments of the helpers below
	// The answer.
	STAILQ_HEAD(, rx_chunk) chunks;
	size_t total;
	int status, fd;     // fd: the caller's unless it calls call_end() first; -1: none came
	bool done;
	struct waitq wq;
};
// Sends the request and waits, uninterruptibly. 0, or the answer's -errno, -EIO: no gofer any more. After
// success the first chunk exists; call_end() frees all (also after failure).
int call_run(struct gofer_conn *conn, struct call *c);
void call_end(struct call *c);
static inline const char *call_body(const struct call *c) { return STAILQ_FIRST(&c->chunks)->msg + sizeof(struct gp_hdr); }
static inline size_t call_body_len(const struct call *c) { return STAILQ_FIRST(&c->chunks)->len - sizeof(struct gp_hdr); }
// For the gofer to forget, whenever the next message goes out. Never waits.
void conn_forget(struct gofer_conn *conn, uint64_t node);
struct gofer_conn *conn_get(struct gofer_conn *conn);

// --- inodes -----------------------------------------------------------------------------------
struct listing;
struct gfd;
struct gofer_inode {
	struct inode inode;         // first
	uint64_t node;              // the gofer's id; changes only when a shared file is found under a new one
	uint64_t dev, ino;          // the host's
	LIST_ENTRY(gofer_inode) hash;
	struct gfd *gfd;            // an open host descriptor, NULL: none
	struct listing *list;       // directories: what is in it, NULL: not known
	nsec_t valid_until;         // shared mounts; exclusive ones: 0 means ask again
	uint32_t opens;             // open files
	uint16_t misses;            // directories: lookups that had to ask
	bool no_xattrs;             // exclusive mounts: known to have none
};
struct gofer_sb {
	struct super_block sb;      // first
	struct gofer_conn *conn;
	bool exclusive, read_only;
	bool no_nowait;             // writes: the host's file system knows no RWF_NOWAIT
	uint64_t dev;               // the host's st_dev of the root
	uint64_t root_node;
	LIST_HEAD(, gofer_inode) *hash;
	unsigned hash_bits, count;
};
static inline struct gofer_inode *GI(struct inode *i) { return (struct gofer_inode *)i; }
static inline struct gofer_sb *GSB(const struct inode *i) { return (struct gofer_sb *)i->sb; }

// --- super.c ---
// The inode of a node the gofer has just named: an old one if the file is known (the spare id is
// forgotten), else new. target: a symlink's, tlen bytes, or NULL. A reference. -ENOMEM: forgotten too.
int gofer_iget(struct gofer_sb *gs, const struct gp_node *n, const char *target, size_t tlen, struct inode **ret);
void gofer_attr_apply(struct gofer_inode *gi, const struct gp_attr *a);
uint64_t gofer_map_ino(const struct gofer_sb *gs, uint64_t dev, uint64_t ino);
int gofer_getattr(struct inode *inode);
// The directory was changed by us: what is cached about it is out of date.
void gofer_dir_changed(struct inode *dir);
extern const struct inode_ops gofer_dir_ops, gofer_file_ops, gofer_link_ops, gofer_special_ops;
extern const struct file_ops gofer_dir_fops, gofer_reg_fops;

// --- lookup.c ---
int gofer_lookup(struct inode *dir, const char *name, struct inode **ret);
void gofer_walk_ahead(struct dentry *d, const char *rest, unsigned open_flags);
int gofer_revalidate(struct dentry *d);
int gofer_readlink(struct inode *inode, char **ret);

// --- dir.c: listings ---
// What is known about name in dir: -EAGAIN nothing, -ENOENT it is missing, 0 with *ret (a reference),
// or with *ret == NULL: it exists and the gofer must be asked for the rest. Never waits.
int listing_lookup(struct inode *dir, const char *name, size_t len, struct inode **ret);
int listing_load(struct inode *dir);  // if there is none. May wait
void listing_drop(struct gofer_inode *gi);
int gofer_iterate(struct file *f, struct dir_context *c);

// --- file.c: descriptors and data ---
struct gfd {
	int fd;
	bool writable;
	uint16_t busy;              // calls using it across a wait
	nsec_t mapped_at;           // map_fd() lent it out
	struct gofer_inode *owner;  // NULL: it is out of the cache, and closed once nobody uses it
	TAILQ_ENTRY(gfd) lru;
};
// Makes fd (taken over) the descriptor of gi; closes it if gi has as good a one.
void gfd_install(struct gofer_inode *gi, int fd, bool writable);
// gi's descriptor, opened if need be, with busy counted. May wait.
int gfd_use(struct gofer_inode *gi, bool write, struct gfd **ret);
void gfd_unuse(struct gfd *g);
void gfd_drop(struct gofer_inode *gi);
void gfd_close_retired(void); // a gofer is done with: also those lent out a moment ago

// --- modify.c ---
int gofer_create(struct inode *dir, struct dentry *d, uint32_t mode, struct inode **ret);
int gofer_mkdir(struct inode *dir, struct dentry *d, uint32_t mode, struct inode **ret);
int gofer_mknod(struct inode *dir, struct dentry *d, uint32_t mode, uint64_t rdev, struct inode **ret);
int gofer_symlink(struct inode *dir, struct dentry *d, const char *target, struct inode **ret);
int gofer_link(struct inode *dir, struct dentry *d, struct inode *target);
int gofer_unlink(struct inode *dir, struct dentry *d);
int gofer_rmdir(struct inode *dir, struct dentry *d);
int gofer_rename(struct inode *odir, struct dentry *od, struct inode *ndir, struct dentry *nd, unsigned flags);
int gofer_setattr(struct inode *inode, const struct iattr *a);
ssize_t gofer_getxattr(struct inode *inode, const char *name, void *buf, size_t size);
int gofer_setxattr(struct inode *inode, const char *name, const void *val, size_t size, int flags);
ssize_t gofer_listxattr(struct inode *inode, char *buf, size_t size);
