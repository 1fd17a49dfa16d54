// tmpfs: files in the kernel's memory (tmpfs(5)), also the overlay's upper layer, /dev/shm, memfd.
//
// File data lies in chunks of kernel memory, so reads, writes, creating and removing cost no host
// call. A file moves to a memfd of its own when the guest first maps it, or when it grows large.
#pragma once
#include "sentry/vfs/vfs.h"

struct tmpfs_limits {
	uint64_t max_bytes;  // 0: no limit
	uint64_t max_inodes; // 0: no limit
	uint32_t mode, uid, gid; // of the root directory
};
// A super block that is not mounted yet; refs = 1. name: for /proc/mounts. -ENOMEM.
int tmpfs_new_sb(const struct tmpfs_limits *lim, struct super_block **ret);
extern struct fs_type tmpfs_type; // boot: fs_register(&tmpfs_type)
// How much memory the sandbox has, in bytes: half of it is the default size. Boot's; NULL: the host's.
extern uint64_t (*tmpfs_memory_total)(void);

// memfd_create(2): name as the guest gave it (bounded by the caller), flags MFD_*. May be sealed.
int memfd_new(const char *name, unsigned flags, struct file **ret);
bool file_is_tmpfs(const struct file *f); // a regular file of tmpfs or memfd
// F_ADD_SEALS, F_GET_SEALS: -EINVAL for other files, -EPERM, -EBUSY.
int tmpfs_add_seals(struct file *f, unsigned seals);
int tmpfs_get_seals(const struct file *f);

// Bytes in use by all files of sb, for quotas and statfs.
uint64_t tmpfs_used_bytes(const struct super_block *sb);
