// Advisory locks: fcntl(2) POSIX and open-file-description locks, flock(2).
#pragma once
#include "sentry/vfs/vfs.h"

struct posix_lock {
	int type;             // F_RDLCK, F_WRLCK, F_UNLCK
	uint64_t start, end;  // inclusive; end UINT64_MAX >> 1: to the end of the file
	const void *owner;    // the fd_table (POSIX) or the file (OFD)
	int32_t pid;          // as F_GETLK tells it; -1 for OFD
	bool ofd;
};
// Sets or clears a lock. wait: may wait for it (-EINTR when interrupted, -EDEADLK). -EAGAIN: somebody
// else has it. -ENOLCK: no memory. The caller holds a reference to f.
int lock_posix_set(struct file *f, const struct posix_lock *want, bool wait);
// *l: the lock asked about; becomes the first that is in its way, or F_UNLCK.
void lock_posix_get(struct file *f, struct posix_lock *l);
// op: LOCK_SH, LOCK_EX, LOCK_UN, with LOCK_NB. May wait.
int lock_flock(struct file *f, int op);
// For /proc/locks: calls fn for each lock of an inode. Never waits.
void locks_each(struct inode *inode, void (*fn)(const struct posix_lock *l, bool is_flock, void *arg), void *arg);
