// inotify(7).
//
// An instance holds watches; a watch holds its inode and hangs in a list that inode->watches leads to.
// The vfs tells of what happens through vfs_notify; events queue at the instance until they are read.
#pragma once
#include "sentry/vfs/vfs.h"

void inotify_fs_init(void); // at boot
int inotify_create_file(unsigned flags, struct file **ret); // flags: O_NONBLOCK. -EMFILE, -ENOMEM
// mask as of inotify_add_watch(2), checked by the caller. The watch descriptor, -EEXIST, -ENOSPC, -ENOMEM.
int inotify_watch(struct file *f, struct inode *inode, uint32_t mask);
int inotify_unwatch(struct file *f, int wd);
bool file_is_inotify(const struct file *f);
