#pragma once
#include "sentry/fs/hostfd/hostfd.h"

enum hostfd_kind { HOSTFD_PLAIN, HOSTFD_PIPE, HOSTFD_SOCK, HOSTFD_TTY, HOSTFD_CHR };
struct hostfd { // what an inode's priv leads to
	struct inode inode;
	int fd;               // owned
	int accmode;          // O_RDONLY, O_WRONLY, O_RDWR
	enum hostfd_kind kind;
	bool watched;         // hf is in the loop's epoll set
	uint32_t armed;       // events asked for and not come yet
	struct host_fd hf;
	struct waitq wq;      // who waits for the host
};
static inline struct hostfd *hostfd_of(const struct file *f) { return f->inode->priv; }
int64_t hostfd_ioctl(struct file *f, unsigned cmd, uint64_t arg);
// Runs fn, which uses only its own memory, on a host-work thread; returns what it left in ->ret.
struct hostfd_job {
	struct host_work w;
	int fd;
	unsigned cmd;
	void *buf;
	size_t len;
	int64_t ret; // or -errno
};
int64_t hostfd_run_job(struct hostfd_job *job, void (*fn)(struct host_work *w));
