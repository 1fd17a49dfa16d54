// Trees of text: what procfs and sysfs are made of.
#pragma once
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "platform/base/base.h"
#include "platform/base/slab.h"
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

// A super block over such a tree. flags: SB_*.
int tree_mount(const struct fs_type *type, const struct mount_opts *o, const struct pent *root, uint64_t magic, struct super_block **ret);
// A set of CPUs as "0-3,8", without a newline.
void tree_cpu_list(struct pbuf *b, const uint64_t mask[16]);
void tree_cpu_hex(struct pbuf *b, const uint64_t mask[16]);
