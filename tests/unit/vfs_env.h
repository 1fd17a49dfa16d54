// A world for vfs tests: one kernel task with root's credentials in a namespace whose root is a tmpfs.
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "platform/base/base.h"
#include "platform/base/slab.h"
#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/vfs/mount.h"
#include "sentry/vfs/vfs.h"

extern struct vfs_task env_task;
extern int env_sigxfsz; // how often SIGXFSZ would have been sent
// Runs body on the task; fails the test if anything it made is still alive afterwards.
void env_run(void (*body)(void));
void env_as(uint32_t uid, uint32_t gid); // changes the task's credentials; 0: root again
// Another task with the same file system view, running until fn returns.
void env_spawn(struct vfs_task *t, void (*fn)(void *), void *arg);

#define OK(x) assert_int_equal((x), 0)
#define ERR(x, e) assert_int_equal((x), -(e))

int t_open(const char *name, unsigned flags, uint32_t mode); // a descriptor
ssize_t t_write(int fd, const void *buf, size_t n);
ssize_t t_pwrite(int fd, const void *buf, size_t n, int64_t off);
ssize_t t_read(int fd, void *buf, size_t n);
ssize_t t_pread(int fd, void *buf, size_t n, int64_t off);
int t_creat(const char *name, const char *data); // 0
int t_lookup(const char *name, unsigned walk_flags); // 0 or -errno
struct inode *t_inode(const char *name); // borrowed, links not followed; NULL
const char *t_name(const char *name);    // d_path of it; in the arena
