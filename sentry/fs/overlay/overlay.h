// overlay: a writable layer over read-only ones, as Linux's overlayfs (filesystems/overlayfs.rst).
//
//  - A name comes from the upper layer if it is there, else from the first lower one that has it;
//    directories of the same name are merged. A removed lower name leaves a whiteout (character
//    device 0/0) in the upper layer, a directory that hides the lower ones of its name is opaque
//    (trusted.overlay.opaque), one that was renamed says what it is merged with
//    (trusted.overlay.redirect: a path from the lower roots).
//  - A lower file is copied up when it is first changed: not when it is opened for writing, so that
//    a truncating open copies no data. Numbers (st_dev, st_ino) stay the same across it.
//  - The layers belong to the overlay: nobody else changes them while it is mounted.
//  - Attributes are cached in the overlay's inodes; data operations go to the real file's in one
//    further call.
#pragma once
#include "sentry/vfs/vfs.h"

#define OVERLAY_MAX_LOWER 64

// Mounts the roots of upper (NULL: a read-only overlay) over lowers[0], over lowers[1] ...; takes
// references of its own. A fresh upper root gets the attributes of lowers[0]'s. *ret: refs = 1. The
// caller is a task, or boot before the loop runs. -EINVAL, -ENOMEM, or what the layers answer.
int overlay_mount_layers(struct super_block *upper, struct super_block *const *lowers, unsigned n, struct super_block **ret);
extern struct fs_type overlay_fs_type; // mount_opts.internal: struct overlay_mount, or a guest's lowerdir=...,upperdir=...
struct overlay_mount {
	struct super_block *upper, *const *lowers;
	unsigned n;
};
