// What the files of tmpfs share.
#pragma once
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "platform/base/base.h"
#include "platform/base/checked.h"
#include "platform/base/log.h"
#include "platform/base/slab.h"
#include "sentry/fs/tmpfs/tmpfs.h"

#define CHUNK_PAGES 16u
#define CHUNK_SIZE (CHUNK_PAGES * PAGE_SIZE)
// A file that reaches beyond this moves to a memfd: the move copies it, some 0.5 ms a MiB, and must not be
// long when the guest maps the file. HARD_MAX: as far as chunks go when the host has no descriptor left.
#define KERNEL_MAX (1UL << 20)
#define KERNEL_HARD_MAX (1UL << 30)

#define SEAL_EXEC 0x20 // F_SEAL_EXEC

struct tchunk {        // CHUNK_SIZE bytes of a file
	char *mem;     // PAGE_SIZE << order bytes; what is not present in it is zero. NULL: a hole
	uint16_t present; // pages that hold data
	uint8_t order;
};

struct tentry {
	struct tentry *hash_next;
	struct inode *inode; // owned
	char *name;          // owned, or inl
	uint32_t hash, slot;
	uint8_t len;
	char inl[23];
};
struct tslot { // cookies ascend; e == NULL: removed
	uint64_t cookie;
	struct tentry *e;
};
struct tdir {
	struct tslot *slots;
	uint32_t nslots, cap, live;
	uint64_t next_cookie;
	struct tentry **hash; // NULL while the directory is small
	uint32_t hash_bits;
};
struct tfile {
	struct tchunk *chunks; // &first while one is enough
	struct tchunk first;
	uint32_t nchunks;
	int memfd;             // -1: the data is in chunks
	unsigned seals;        // F_SEAL_*
	uint64_t pages;        // charged to the file system
	uint64_t dense;        // memfd: the pages before this one are known to be charged
};
struct txattr {
	LIST_ENTRY(txattr) link;
	size_t size;
	char *val;
	char name[];
};
struct tmpfs {
	struct super_block sb;
	uint64_t max_pages, used_pages; // max 0: no limit
	uint64_t max_inodes, used_inodes;
	uint64_t last_ino;
};
struct tinode {
	struct inode inode;
	struct tmpfs *fs;
	LIST_HEAD(, txattr) xattrs;
	uint32_t xattr_bytes, nxattrs;
	union {
		struct tdir dir;
		struct tfile file;
	};
};
static inline struct tinode *tinode_of(const struct inode *i) { return (struct tinode *)i; }

// tmpfs.c, options.c
struct tinode *tmpfs_inode_new(struct tmpfs *fs, const struct inode *dir, uint32_t mode); // NULL: no memory, or no inode left
int tmpfs_parse_options(struct tmpfs_limits *lim, const char *data); // changes what is named. -EINVAL, -ENOMEM
uint64_t tmpfs_total(void); // the sandbox's memory

// data.c: inode->lock is held, except for the file operations.
extern const struct file_ops tmpfs_file_ops;
bool tmpfs_charge(struct tmpfs *fs, uint64_t pages); // false: the file system is full
void tmpfs_uncharge(struct tmpfs *fs, uint64_t pages);
int tmpfs_set_size(struct tinode *t, uint64_t size);
void tmpfs_free_data(struct tinode *t);

// dir.c
extern const struct file_ops tmpfs_dir_ops;
struct tentry *tdir_find(const struct tdir *d, const char *name, size_t len, uint32_t hash);
int tdir_add(struct tinode *dir, const char *name, size_t len, uint32_t hash, struct inode *inode); // takes over inode on success
void tdir_remove(struct tinode *dir, struct tentry *e, struct inode **ret_inode); // hands over the inode reference
void tdir_free(struct tdir *d, void (*each)(struct inode *));

// xattr.c
ssize_t tmpfs_getxattr(struct inode *inode, const char *name, void *buf, size_t size);
int tmpfs_setxattr(struct inode *inode, const char *name, const void *val, size_t size, int flags);
ssize_t tmpfs_listxattr(struct inode *inode, char *buf, size_t size);
void tmpfs_free_xattrs(struct tinode *t);
void tmpfs_acl_chmod(struct tinode *t);
