// What the files of the room share.
#pragma once
#include "sentry/fs/proc/proc.h"
#include "sentry/fs/proc/tree.h"

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
