// The files of / in procfs: the machine and the kernel that the sandbox shows.
#include "sentry/fs/proc/internal.h"

#include <cpuid.h>

#include "sentry/kernel/sysinfo.h"

#define TICK_NS (NSEC_PER_SEC / 100)

static unsigned long long ull(uint64_t v) { return v; }

static bool cpu_shown(unsigned i)
{
	return i < 1024 && kernel_cpu_mask[i / 64] >> (i % 64) & 1;
}

static nsec_t uptime_ns(void)
{
	return sched_now_boot() - kernel_boot_time;
}

// --- CPUs -----------------------------------------------------------------------------------------

static void cpuinfo_made_up(struct pbuf *b, unsigned cpu)
{
	uint32_t r[12] = {}, a, bx, c, d;
	char vendor[13] = {}, brand[49] = {};
	unsigned family, model;

	__cpuid(0, a, bx, c, d);
	memcpy(vendor, &bx, 4);
	memcpy(vendor + 4, &d, 4);
	memcpy(vendor + 8, &c, 4);
	for (unsigned i = 0; i < 3; i++)
		__cpuid(0x80000002 + i, r[i * 4], r[i * 4 + 1], r[i * 4 + 2], r[i * 4 + 3]);
	memcpy(brand, r, 48);
	__cpuid(1, a, bx, c, d);
	family = (a >> 8 & 0xf) + (a >> 20 & 0xff) * ((a >> 8 & 0xf) == 15);
	model = (a >> 4 & 0xf) | (a >> 12 & 0xf0);
	pprintf(b, "processor\t: %u\nvendor_id\t: %s\ncpu family\t: %u\nmodel\t\t: %u\nmodel name\t: %s\nstepping\t: %u\n", cpu, vendor, family,
		model, brand, a & 0xf);
	pprintf(b, "cpu cores\t: 1\nfpu\t\t: yes\nwp\t\t: yes\nflags\t\t: fpu tsc cx8 cmov mmx fxsr sse sse2 syscall nx lm\n\n");
}

// The host's text, without the CPUs that are not shown.
static int show_cpuinfo(struct pbuf *b, struct pnode *n)
{
	const char *p = host_info.cpuinfo, *end = p ? p + host_info.cpuinfo_len : NULL, *next;
	unsigned cpu;

	if (!p || !host_info.cpuinfo_len) {
		for (cpu = 0; cpu < 1024; cpu++)
			if (cpu_shown(cpu))
				cpuinfo_made_up(b, cpu);
		return 0;
	}
	for (; p < end; p = next) {
		next = memmem(p, end - p, "\n\n", 2);
		next = next ? next + 2 : end;
		if (sscanf(p, "processor : %u", &cpu) == 1 && cpu_shown(cpu))
			pwrite_text(b, p, next - p);
	}
	return 0;
}

struct totals {
	uint64_t user, sys;
	unsigned running, threads;
};

static void add_process(struct thread_group *tg, void *arg)
{
	struct totals *s = arg;
	uint64_t u, k;
	struct task *t;

	process_cpu_ns(tg, &u, &k);
	s->user += u;
	s->sys += k;
	// What was waited for counts once, at the eldest: everybody else's is in its parent's in the end.
	if (tg->pid_ns && tg->pid_ns->init == tg) {
		s->user += tg->cutime_ns;
		s->sys += tg->cstime_ns;
	}
	TAILQ_FOREACH(t, &tg->threads, tg_link) {
		s->threads++;
		s->running += !t->vt.st.sleeping && !t->stop_ack && tg->state == TG_RUNNING;
	}
}

static struct totals totals(void)
{
	struct totals s = {};

	kernel_each_process(add_process, &s);
	return s;
}

static void cpu_line(struct pbuf *b, uint64_t user, uint64_t sys, uint64_t idle)
{
	pprintf(b, "%llu 0 %llu %llu 0 0 0 0 0 0\n", ull(user), ull(sys), ull(idle));
}

static int show_stat_root(struct pbuf *b, struct pnode *n)
{
	struct totals s = totals();
	uint64_t up = uptime_ns() / TICK_NS, u = s.user / TICK_NS, k = s.sys / TICK_NS, all = up * kernel_ncpus;
	unsigned ncpus = MAX(kernel_ncpus, 1U);

	pprintf(b, "cpu  ");
	cpu_line(b, u, k, all > u + k ? all - u - k : 0);
	for (unsigned i = 0; i < 1024; i++) {
		if (!cpu_shown(i))
			continue;
		pprintf(b, "cpu%u ", i);
		cpu_line(b, u / ncpus, k / ncpus, up > (u + k) / ncpus ? up - (u + k) / ncpus : 0);
	}
	pprintf(b, "intr 0\nctxt 0\nbtime %llu\nprocesses %d\nprocs_running %u\nprocs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n",
		ull((sched_now_real() - uptime_ns()) / NSEC_PER_SEC), pid_ns_first ? pid_ns_first->last : 0, MAX(s.running, 1U));
	return 0;
}

static int show_uptime(struct pbuf *b, struct pnode *n)
{
	struct totals s = totals();
	uint64_t up = uptime_ns(), all = up * MAX(kernel_ncpus, 1U), idle = all > s.user + s.sys ? all - s.user - s.sys : 0;

	pprintf(b, "%llu.%02llu %llu.%02llu\n", ull(up / NSEC_PER_SEC), ull(up % NSEC_PER_SEC / 10000000), ull(idle / NSEC_PER_SEC),
		ull(idle % NSEC_PER_SEC / 10000000));
	return 0;
}

static int show_loadavg(struct pbuf *b, struct pnode *n)
{
	struct totals s = totals();

	pprintf(b, "0.00 0.00 0.00 %u/%u %d\n", MAX(s.running, 1U), s.threads, pid_ns_first ? pid_ns_first->last : 0);
	return 0;
}

static int show_interrupts(struct pbuf *b, struct pnode *n)
{
	pprintf(b, "           ");
	for (unsigned i = 0; i < 1024; i++)
		if (cpu_shown(i))
			pprintf(b, "CPU%-8u", i);
	pprintf(b, "\n");
	return 0;
}

// --- memory -----------------------------------------------------------------------------------------

static int show_meminfo(struct pbuf *b, struct pnode *n)
{
	struct kernel_memory m;
	uint64_t used;

	kernel_memory_get(&m);
	used = m.total - MIN(m.free, m.total);
	used -= MIN(m.cached, used);
#define KB(name, v) pprintf(b, "%-16s%8llu kB\n", name ":", ull((v) / 1024))
	KB("MemTotal", m.total);
	KB("MemFree", m.free);
	KB("MemAvailable", m.available);
	KB("Buffers", m.buffers);
	KB("Cached", m.cached);
	KB("SwapCached", 0);
	KB("Active", used);
	KB("Inactive", m.cached);
	KB("Active(anon)", used);
	KB("Inactive(anon)", 0);
	KB("Active(file)", 0);
	KB("Inactive(file)", m.cached);
	KB("Unevictable", 0);
	KB("Mlocked", 0);
	KB("SwapTotal", 0);
	KB("SwapFree", 0);
	KB("Dirty", 0);
	KB("Writeback", 0);
	KB("AnonPages", used);
	KB("Mapped", 0);
	KB("Shmem", m.shared);
	KB("KReclaimable", 0);
	KB("Slab", 0);
	KB("SReclaimable", 0);
	KB("SUnreclaim", 0);
	KB("KernelStack", 0);
	KB("PageTables", 0);
	KB("NFS_Unstable", 0);
	KB("Bounce", 0);
	KB("WritebackTmp", 0);
	KB("CommitLimit", m.total / 2);
	KB("Committed_AS", used);
	KB("VmallocTotal", 35184372087808ULL);
	KB("VmallocUsed", 0);
	KB("VmallocChunk", 0);
	KB("Percpu", 0);
	pprintf(b, "HugePages_Total:       0\nHugePages_Free:        0\nHugePages_Rsvd:        0\nHugePages_Surp:        0\n");
	KB("Hugepagesize", 2048 * 1024);
	KB("Hugetlb", 0);
#undef KB
	return 0;
}

static int show_vmstat(struct pbuf *b, struct pnode *n)
{
	struct kernel_memory m;

	kernel_memory_get(&m);
	pprintf(b, "nr_free_pages %llu\nnr_dirty 0\nnr_writeback 0\npgpgin 0\npgpgout 0\npswpin 0\npswpout 0\npgfault 0\npgmajfault 0\noom_kill 0\n",
		ull(m.free / PAGE_SIZE));
	return 0;
}

// --- lists --------------------------------------------------------------------------------------------

static int show_filesystems(struct pbuf *b, struct pnode *n)
{
	for (const struct fs_type *t = fs_first(); t; t = t->next)
		if (t->name[0] && (t->flags & FS_GUEST || strcmp(t->name, "tmpfs") == 0))
			pprintf(b, "%s\t%s\n", t->flags & FS_NODEV ? "nodev" : "", t->name);
	return 0;
}

static int show_version(struct pbuf *b, struct pnode *n)
{
	pprintf(b, "Linux version %s (casemate@casemate) (gcc) %s\n", KERNEL_RELEASE, KERNEL_VERSION);
	return 0;
}

static int show_text(struct pbuf *b, struct pnode *n)
{
	pwrite_text(b, n->ent->arg, strlen(n->ent->arg));
	return 0;
}

static int readlink_self(struct pnode *n, char **ret)
{
	*ret = text_link("%d", current_task()->tg->pid->nr);
	return *ret ? 0 : -ENOMEM;
}

static int readlink_thread_self(struct pnode *n, char **ret)
{
	*ret = text_link("%d/task/%d", current_task()->tg->pid->nr, current_task()->tid->nr);
	return *ret ? 0 : -ENOMEM;
}

static int readlink_text(struct pnode *n, char **ret)
{
	*ret = text_link("%s", (const char *)n->ent->arg);
	return *ret ? 0 : -ENOMEM;
}

#define R (S_IFREG | 0444)
#define TEXT(nm, s) {.name = nm, .mode = R, .show = show_text, .arg = s}
static const struct pent root_kids[] = {
	{.name = "self", .mode = S_IFLNK | 0777, .readlink = readlink_self},
	{.name = "thread-self", .mode = S_IFLNK | 0777, .readlink = readlink_thread_self},
	{.name = "mounts", .mode = S_IFLNK | 0777, .readlink = readlink_text, .arg = "self/mounts"},
	{.name = "net", .mode = S_IFLNK | 0777, .readlink = readlink_text, .arg = "self/net"},
	{.name = "sys", .mode = S_IFDIR | 0555, .kids = sys_kids},
	TEXT("cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\n"),
	TEXT("cmdline", "console=none\n"),
	{.name = "cpuinfo", .mode = R, .show = show_cpuinfo},
	TEXT("devices", "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n136 pts\n\nBlock devices:\n"),
	TEXT("diskstats", ""),
	{.name = "filesystems", .mode = R, .show = show_filesystems},
	{.name = "interrupts", .mode = R, .show = show_interrupts},
	{.name = "loadavg", .mode = R, .show = show_loadavg},
	TEXT("locks", ""),
	{.name = "meminfo", .mode = R, .show = show_meminfo},
	TEXT("modules", ""),
	TEXT("partitions", "major minor  #blocks  name\n\n"),
	{.name = "softirqs", .mode = R, .show = show_interrupts},
	{.name = "stat", .mode = R, .show = show_stat_root},
	TEXT("swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"),
	{.name = "uptime", .mode = R, .show = show_uptime},
	{.name = "version", .mode = R, .show = show_version},
	{.name = "vmstat", .mode = R, .show = show_vmstat},
	{},
};

const struct pent root_ent = {
	.name = "/",
	.mode = S_IFDIR | 0555,
	.kids = root_kids,
	.lookup = root_lookup,
	.next = root_next,
};
