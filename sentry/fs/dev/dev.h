// Devices: the memory devices (null(4), mem(4) without mem, random(4)) and what /dev holds.
#pragma once
#include "sentry/vfs/vfs.h"

// At boot: registers the character devices and the file system type "devtmpfs" (a tmpfs that comes
// with the usual nodes).
int dev_init(void);
// Fills an empty directory of a file system that can hold device nodes: null zero full random urandom
// tty, console if asked for, ptmx -> pts/ptmx, fd stdin stdout stderr -> /proc/self/fd, directories pts shm mqueue.
// May wait.
int dev_populate(struct dentry *dir, bool console);
