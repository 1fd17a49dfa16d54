// What the files of the room share.
#pragma once
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "platform/base/base.h"
#include "platform/base/slab.h"
#include "sentry/fs/proc/proc.h"
#include "sentry/kernel/task.h"

// A text that grows. A failure to grow shows in `failed`; all writing stops then.
struct pbuf {
	char *p;
	size_t len, cap;
	bool failed;
};
void pprintf(struct pbuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void pwrite_text(struct pbuf *b, const char *s, size_t n);
char *proom(struct pbuf *b, size_t n); // n bytes at the end to write to; NULL: failed
#define PBUF_MAX (64UL << 20)

// What an open file of text keeps.
struct text {
	struct pbuf b;
	bool made;
	uint64_t seen; // mounts: the state that the reader has been told of
};

struct pnode;
struct pent {
	const char *name;
	uint32_t mode; // S_IF* and permissions
	const struct pent *kids;  // directories: fixed entries, up to one without a name
	int (*show)(struct pbuf *b, struct pnode *n);
	ssize_t (*write)(struct pnode *n, char *buf, size_t len); // NUL-terminated; bytes taken
	int (*readlink)(struct pnode *n, char **ret);
	int (*follow)(struct pnode *n, struct path *ret);
	// Directories: what is not in kids. lookup: -ENOENT; next: the first key > key with its name, or -1.
	int (*lookup)(struct pnode *dir, const char *name, struct inode **ret);
	int64_t (*next)(struct pnode *dir, int64_t key, char name[32], unsigned *ret_dtype);
	const struct file_ops *fops; // instead of the usual ones
	void *arg;                   // the functions'
	bool inspect;                // opening needs the right to ptrace the process
};
struct pnode {
	struct inode inode; // first
	const struct pent *ent;
	struct pid *pid;    // owned; NULL: not about a process
	bool thread;        // about the one thread, not its process
	int fd;             // of an fd or fdinfo entry; -1
};
static inline struct pnode *pnode_of(struct inode *i) { return (struct pnode *)i; }
// A new inode for ent. pid: a reference is taken; NULL: none.
int pnode_new(struct super_block *sb, const struct pent *ent, struct pid *pid, bool thread, int fd, struct inode **ret);
// The process (or thread) that n is about, borrowed: -ESRCH (NULL) when it is gone.
struct task *pnode_task(const struct pnode *n);
bool pnode_may_inspect(const struct pnode *n);

extern const struct pent root_ent, pid_ent, sys_kids[], net_kids[];
int root_lookup(struct pnode *dir, const char *name, struct inode **ret);
int64_t root_next(struct pnode *dir, int64_t key, char name[32], unsigned *ret_dtype);
bool parse_number(const char *s, int32_t *ret);
char *text_link(const char *fmt, ...) __attribute__((format(printf, 1, 2))); // in the arena; NULL

// pid_stat.c
int show_stat(struct pbuf *b, struct pnode *n);
int show_status(struct pbuf *b, struct pnode *n);
int show_statm(struct pbuf *b, struct pnode *n);
int show_limits(struct pbuf *b, struct pnode *n);
int show_io(struct pbuf *b, struct pnode *n);
int show_sched(struct pbuf *b, struct pnode *n);
int show_schedstat(struct pbuf *b, struct pnode *n);
// pid_mem.c
int show_cmdline(struct pbuf *b, struct pnode *n);
int show_environ(struct pbuf *b, struct pnode *n);
int show_auxv(struct pbuf *b, struct pnode *n);
int show_maps(struct pbuf *b, struct pnode *n);
int show_smaps(struct pbuf *b, struct pnode *n);
int show_smaps_rollup(struct pbuf *b, struct pnode *n);
extern const struct file_ops mem_fops;
// pid_fd.c
int fd_lookup(struct pnode *dir, const char *name, struct inode **ret);
int64_t fd_next(struct pnode *dir, int64_t key, char name[32], unsigned *ret_dtype);
// mounts.c
int show_mounts(struct pbuf *b, struct pnode *n);
int show_mountinfo(struct pbuf *b, struct pnode *n);
int show_mountstats(struct pbuf *b, struct pnode *n);
extern const struct file_ops mounts_fops;
// proc.c: for special fops that also want the text
int text_open(struct inode *inode, struct file *f);
void text_release(struct file *f);
ssize_t text_read(struct file *f, struct uio *u, int64_t *pos);
int64_t text_llseek(struct file *f, int64_t off, int whence);
