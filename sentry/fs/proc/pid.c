// /proc/PID and /proc/PID/task/TID: the tables, links, and the small files.
#include "sentry/fs/proc/internal.h"

#include <fcntl.h>

#include "sentry/kernel/sysinfo.h"
#include "sentry/vfs/mount.h"

static int show_comm(struct pbuf *b, struct pnode *n)
{
	struct task *t = pnode_task(n);

	if (!t)
		return -ESRCH;
	pprintf(b, "%.15s\n", t->comm);
	return 0;
}

static ssize_t write_comm(struct pnode *n, char *buf, size_t len)
{
	struct task *t = pnode_task(n);
	size_t take = MIN(len, sizeof(t->comm) - 1);

	if (!t)
		return -ESRCH;
	if (t->tg != current_task()->tg)
		return -EINVAL;
	memset(t->comm, 0, sizeof(t->comm));
	memcpy(t->comm, buf, take);
	return (ssize_t)len;
}

// --- out of memory ------------------------------------------------------------------------------------

static int show_oom_score_adj(struct pbuf *b, struct pnode *n)
{
	struct task *t = pnode_task(n);

	if (!t)
		return -ESRCH;
	pprintf(b, "%d\n", t->tg->oom_score_adj);
	return 0;
}

static int show_oom_adj(struct pbuf *b, struct pnode *n)
{
	struct task *t = pnode_task(n);

	if (!t)
		return -ESRCH;
	pprintf(b, "%d\n", t->tg->oom_score_adj == 1000 ? 15 : t->tg->oom_score_adj * 17 / 1000);
	return 0;
}

static int set_oom(struct pnode *n, long v)
{
	struct task *t = pnode_task(n);

	if (!t)
		return -ESRCH;
	if (v < -1000 || v > 1000)
		return -EINVAL;
	if (v < t->tg->oom_score_adj && !capable(24)) // CAP_SYS_RESOURCE
		return -EACCES;
	t->tg->oom_score_adj = (int)v;
	return 0;
}

static bool parse_long(char *s, long *ret)
{
	char *end;

	errno = 0;
	*ret = strtol(s, &end, 0);
	while (*end == '\n' || *end == ' ')
		end++;
	return end != s && !*end && !errno;
}

static ssize_t write_oom_score_adj(struct pnode *n, char *buf, size_t len)
{
	long v;
	int r = parse_long(buf, &v) ? set_oom(n, v) : -EINVAL;

	return r ? r : (ssize_t)len;
}

static ssize_t write_oom_adj(struct pnode *n, char *buf, size_t len)
{
	long v;
	int r = -EINVAL;

	if (parse_long(buf, &v) && v >= -17 && v <= 15)
		r = set_oom(n, v == 15 ? 1000 : v * 1000 / 17);
	return r ? r : (ssize_t)len;
}

static int show_oom_score(struct pbuf *b, struct pnode *n)
{
	struct task *t = pnode_task(n);
	struct kernel_memory m;
	uint64_t shared;
	int64_t score;

	if (!t)
		return -ESRCH;
	kernel_memory_get(&m);
	score = t->mm && m.total ? (int64_t)(mm_rss_pages(t->mm, &shared) * PAGE_SIZE * 1000 / m.total) : 0;
	score = (score + t->tg->oom_score_adj) * 2 / 3 + 667;
	pprintf(b, "%lld\n", (long long)MAX(score, 0));
	return 0;
}

// --- small ones -------------------------------------------------------------------------------------------

static int show_loginuid(struct pbuf *b, struct pnode *n)
{
	pprintf(b, "4294967295");
	return 0;
}

static ssize_t write_loginuid(struct pnode *n, char *buf, size_t len)
{
	return -EPERM; // no audit subsystem: as Linux answers inside a container
}

static int show_personality(struct pbuf *b, struct pnode *n)
{
	struct task *t = pnode_task(n);

	if (!t)
		return -ESRCH;
	pprintf(b, "%08x\n", t->tg->personality);
	return 0;
}

static int show_wchan(struct pbuf *b, struct pnode *n)
{
	pprintf(b, "0");
	return 0;
}

static int show_cgroup(struct pbuf *b, struct pnode *n)
{
	pprintf(b, "0::/\n");
	return 0;
}

static int show_id_map(struct pbuf *b, struct pnode *n)
{
	pprintf(b, "%10u %10u %10u\n", 0, 0, UINT32_MAX);
	return 0;
}

static ssize_t write_denied(struct pnode *n, char *buf, size_t len)
{
	return -EPERM;
}

static int show_setgroups(struct pbuf *b, struct pnode *n)
{
	pprintf(b, "allow\n");
	return 0;
}

static int show_empty(struct pbuf *b, struct pnode *n)
{
	return 0;
}

static int show_stack(struct pbuf *b, struct pnode *n)
{
	pprintf(b, "[<0>] 0xffffffffffffffff\n");
	return 0;
}

static int show_syscall(struct pbuf *b, struct pnode *n)
{
	struct task *t = pnode_task(n);
	struct abi_regs r;

	if (!t)
		return -ESRCH;
	if (!t->in_syscall || !t->ctx || pf_in_guest(t->ctx)) {
		pprintf(b, "running\n");
		return 0;
	}
	pf_get_regs(t->ctx, &r);
	pprintf(b, "%u", t->sc_nr);
	for (int i = 0; i < 6; i++)
		pprintf(b, " 0x%llx", (unsigned long long)t->sc_args[i]);
	pprintf(b, " 0x%llx 0x%llx\n", (unsigned long long)r.rsp, (unsigned long long)r.rip);
	return 0;
}

// The children of one thread; those of a process are all its leader's here.
static int show_children(struct pbuf *b, struct pnode *n)
{
	struct task *t = pnode_task(n);
	struct thread_group *c;

	if (!t)
		return -ESRCH;
	if (t == t->tg->leader)
		TAILQ_FOREACH(c, &t->tg->children, sibling)
			pprintf(b, "%d ", c->pid->nr);
	return 0;
}

static int show_timerslack(struct pbuf *b, struct pnode *n)
{
	struct task *t = pnode_task(n);

	if (!t)
		return -ESRCH;
	pprintf(b, "%llu\n", (unsigned long long)t->timer_slack);
	return 0;
}

static int show_coredump_filter(struct pbuf *b, struct pnode *n)
{
	pprintf(b, "00000033\n");
	return 0;
}

// --- links --------------------------------------------------------------------------------------------------

static int follow_cwd(struct pnode *n, struct path *ret)
{
	struct task *t = pnode_task(n);

	if (!t || !t->vt.fs)
		return -ENOENT;
	*ret = t->vt.fs->cwd;
	path_get(ret);
	return 0;
}

static int follow_root(struct pnode *n, struct path *ret)
{
	struct task *t = pnode_task(n);

	if (!t || !t->vt.fs)
		return -ENOENT;
	*ret = t->vt.fs->root;
	path_get(ret);
	return 0;
}

static int follow_exe(struct pnode *n, struct path *ret)
{
	struct task *t = pnode_task(n);

	if (!t || !t->mm || !mobj_is_file(t->mm->exe))
		return -ENOENT;
	*ret = file_of_mobj(t->mm->exe)->path;
	path_get(ret);
	return 0;
}

// Namespaces have numbers, and cannot be opened yet. The initial ones have Linux's well-known numbers.
static int readlink_ns(struct pnode *n, char **ret)
{
	static const struct { const char *name; uint64_t ino; } numbers[] = {
		{"ipc", 4026531839u}, {"uts", 4026531838u}, {"user", 4026531837u}, {"pid", 4026531836u},
		{"cgroup", 4026531835u}, {"time", 4026531834u}, {"net", 4026531833u}, {"mnt", 4026531841u},
	};
	const char *name = n->ent->arg;
	struct task *t = pnode_task(n);
	uint64_t ino = 0;

	if (!t)
		return -ESRCH;
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		if (strcmp(numbers[i].name, name) == 0)
			ino = numbers[i].ino;
	if (strcmp(name, "mnt") == 0 && t->vt.fs && t->vt.fs->mnt_ns->ino)
		ino = t->vt.fs->mnt_ns->ino;
	*ret = text_link("%s:[%llu]", name, (unsigned long long)ino);
	return *ret ? 0 : -ENOMEM;
}

// --- task/ ----------------------------------------------------------------------------------------------------

static const struct pent tid_ent;

static int task_lookup(struct pnode *dir, const char *name, struct inode **ret)
{
	struct task *leader = pnode_task(dir), *t;
	int32_t tid;

	if (!leader)
		return -ENOENT;
	if (!parse_number(name, &tid))
		return -ENOENT;
	t = task_find(tid);
	if (!t || t->tg != leader->tg)
		return -ENOENT;
	return pnode_new(dir->inode.sb, &tid_ent, t->tid, true, -1, ret);
}

static int64_t task_next(struct pnode *dir, int64_t key, char name[32], unsigned *ret_dtype)
{
	struct task *leader = pnode_task(dir), *t;
	int64_t best = -1;

	if (!leader)
		return -1;
	TAILQ_FOREACH(t, &leader->tg->threads, tg_link)
		if (t->tid && t->tid->nr > key && (best < 0 || t->tid->nr < best))
			best = t->tid->nr;
	if (best >= 0)
		snprintf(name, 32, "%d", (int)best);
	*ret_dtype = 4;
	return best;
}

// --- the tables -------------------------------------------------------------------------------------------------

#define R (S_IFREG | 0444)
#define RW (S_IFREG | 0644)
#define NS(nm) {.name = nm, .mode = S_IFLNK | 0777, .readlink = readlink_ns, .arg = nm}

static const struct pent ns_kids[] = {
	NS("cgroup"), NS("ipc"), NS("mnt"), NS("net"), NS("pid"), NS("time"), NS("user"), NS("uts"), {},
};

static const struct pent task_dir_kids[] = {{}};

#define COMMON_KIDS                                                                                                    \
	{.name = "auxv", .mode = S_IFREG | 0400, .show = show_auxv, .inspect = true},                                  \
	{.name = "cgroup", .mode = R, .show = show_cgroup},                                                            \
	{.name = "cmdline", .mode = R, .show = show_cmdline},                                                          \
	{.name = "comm", .mode = RW, .show = show_comm, .write = write_comm},                                          \
	{.name = "cwd", .mode = S_IFLNK | 0777, .follow = follow_cwd},                                                 \
	{.name = "environ", .mode = S_IFREG | 0400, .show = show_environ, .inspect = true},                            \
	{.name = "exe", .mode = S_IFLNK | 0777, .follow = follow_exe},                                                 \
	{.name = "fd", .mode = S_IFDIR | 0500, .lookup = fd_lookup, .next = fd_next, .inspect = true},                 \
	{.name = "fdinfo", .mode = S_IFDIR | 0555, .lookup = fd_lookup, .next = fd_next, .inspect = true, .arg = "i"}, \
	{.name = "gid_map", .mode = RW, .show = show_id_map, .write = write_denied},                                   \
	{.name = "io", .mode = S_IFREG | 0400, .show = show_io, .inspect = true},                                      \
	{.name = "limits", .mode = R, .show = show_limits},                                                            \
	{.name = "loginuid", .mode = RW, .show = show_loginuid, .write = write_loginuid},                              \
	{.name = "maps", .mode = R, .show = show_maps, .inspect = true},                                               \
	{.name = "mem", .mode = S_IFREG | 0600, .fops = &mem_fops, .inspect = true},                                   \
	{.name = "mountinfo", .mode = R, .show = show_mountinfo, .fops = &mounts_fops},                                \
	{.name = "mounts", .mode = R, .show = show_mounts, .fops = &mounts_fops},                                      \
	{.name = "net", .mode = S_IFDIR | 0555, .kids = net_kids},                                                     \
	{.name = "ns", .mode = S_IFDIR | 0511, .kids = ns_kids, .inspect = true},                                      \
	{.name = "oom_adj", .mode = RW, .show = show_oom_adj, .write = write_oom_adj},                                 \
	{.name = "oom_score", .mode = R, .show = show_oom_score},                                                      \
	{.name = "oom_score_adj", .mode = RW, .show = show_oom_score_adj, .write = write_oom_score_adj},               \
	{.name = "personality", .mode = S_IFREG | 0400, .show = show_personality, .inspect = true},                    \
	{.name = "projid_map", .mode = RW, .show = show_id_map, .write = write_denied},                                \
	{.name = "root", .mode = S_IFLNK | 0777, .follow = follow_root},                                               \
	{.name = "sched", .mode = R, .show = show_sched},                                                              \
	{.name = "schedstat", .mode = R, .show = show_schedstat},                                                      \
	{.name = "sessionid", .mode = R, .show = show_loginuid},                                                       \
	{.name = "setgroups", .mode = RW, .show = show_setgroups, .write = write_denied},                              \
	{.name = "smaps", .mode = R, .show = show_smaps, .inspect = true},                                             \
	{.name = "smaps_rollup", .mode = R, .show = show_smaps_rollup, .inspect = true},                               \
	{.name = "stack", .mode = S_IFREG | 0400, .show = show_stack, .inspect = true},                                \
	{.name = "stat", .mode = R, .show = show_stat},                                                                \
	{.name = "statm", .mode = R, .show = show_statm},                                                              \
	{.name = "status", .mode = R, .show = show_status},                                                            \
	{.name = "syscall", .mode = S_IFREG | 0400, .show = show_syscall, .inspect = true},                            \
	{.name = "uid_map", .mode = RW, .show = show_id_map, .write = write_denied},                                   \
	{.name = "wchan", .mode = R, .show = show_wchan}

static const struct pent pid_kids[] = {
	COMMON_KIDS,
	{.name = "attr", .mode = S_IFDIR | 0555, .kids = task_dir_kids},
	{.name = "coredump_filter", .mode = RW, .show = show_coredump_filter, .write = write_denied},
	{.name = "mountstats", .mode = S_IFREG | 0400, .show = show_mountstats, .fops = &mounts_fops},
	{.name = "numa_maps", .mode = R, .show = show_empty, .inspect = true},
	{.name = "task", .mode = S_IFDIR | 0555, .lookup = task_lookup, .next = task_next},
	{.name = "timers", .mode = R, .show = show_empty},
	{.name = "timerslack_ns", .mode = RW, .show = show_timerslack, .write = write_denied},
	{},
};
static const struct pent tid_kids[] = {COMMON_KIDS, {.name = "children", .mode = R, .show = show_children}, {}};

const struct pent pid_ent = {.name = "PID", .mode = S_IFDIR | 0555, .kids = pid_kids};
static const struct pent tid_ent = {.name = "TID", .mode = S_IFDIR | 0555, .kids = tid_kids};

// --- names in / -----------------------------------------------------------------------------------------------------

int root_lookup(struct pnode *dir, const char *name, struct inode **ret)
{
	struct task *t;
	int32_t nr;

	if (!parse_number(name, &nr))
		return -ENOENT;
	t = task_find(nr);
	if (!t || !t->tg)
		return -ENOENT;
	return pnode_new(dir->inode.sb, &pid_ent, t->tg->pid, false, -1, ret);
}

int64_t root_next(struct pnode *dir, int64_t key, char name[32], unsigned *ret_dtype)
{
	int32_t nr = (int32_t)MAX(key, 0);
	struct task *t;

	*ret_dtype = 4;
	while ((nr = kernel_next_pid(nr)) > 0) {
		t = task_find(nr);
		if (t && t->tg && t->tg->pid && t->tg->pid->nr == nr) {
			snprintf(name, 32, "%d", nr);
			return nr;
		}
	}
	return -1;
}
