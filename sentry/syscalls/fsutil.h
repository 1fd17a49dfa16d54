// What the path and descriptor calls share.
#pragma once
#include <fcntl.h>
#include <sys/stat.h>

#include "platform/base/base.h"
#include "sentry/syscalls/syscalls.h"
#include "sentry/vfs/mount.h"

// The object that (dfd, path, AT_* flags) names. AT_SYMLINK_FOLLOW and AT_SYMLINK_NOFOLLOW are not looked
// at: `follow` says what the call wants. AT_EMPTY_PATH is. A path with references.
int fs_user_path(int dfd, struct gaddr path, unsigned at_flags, bool follow, struct path *ret);
// An AT_EMPTY_PATH call with "" or a null pointer for a path.
bool fs_path_empty(struct gaddr path, unsigned at_flags, char **ret_path, int *ret_err);
// Regular files and directories have a position that readers and writers of it take turns with.
static inline bool fs_pos_is_locked(const struct file *f) { return S_ISREG(f->inode->mode) || S_ISDIR(f->inode->mode); }
static inline void fs_pos_lock(struct file *f)
{
	if (fs_pos_is_locked(f))
		klock_lock(&f->pos_lock);
}
static inline void fs_pos_unlock(struct file *f)
{
	if (fs_pos_is_locked(f))
		klock_unlock(&f->pos_lock);
}
