#include "sentry/fs/sys/sysfs.h"

#include "sentry/fs/proc/proc.h"
#include "sentry/fs/proc/tree.h"
#include "sentry/kernel/sysinfo.h"

#define SYSFS_MAGIC 0x62656572

static int show_value(struct pbuf *b, struct pnode *n)
{
	pprintf(b, "%s\n", (const char *)n->ent->arg);
	return 0;
}

// --- CPUs -----------------------------------------------------------------------------------------

// Guest threads run on the host's CPUs and see their numbers, so all of those are possible.
static void possible_mask(uint64_t mask[16])
{
	unsigned n = MIN(MAX(host_info.ncpus, 1U), 1024U);

	memset(mask, 0, 16 * sizeof(mask[0]));
	for (unsigned i = 0; i < n; i++)
		mask[i / 64] |= 1ULL << (i % 64);
	for (unsigned i = 0; i < 16; i++)
		mask[i] |= kernel_cpu_mask[i];
}

static int show_online(struct pbuf *b, struct pnode *n)
{
	tree_cpu_list(b, kernel_cpu_mask);
	pprintf(b, "\n");
	return 0;
}

static int show_possible(struct pbuf *b, struct pnode *n)
{
	uint64_t mask[16];

	possible_mask(mask);
	tree_cpu_list(b, mask);
	pprintf(b, "\n");
	return 0;
}

static int show_offline(struct pbuf *b, struct pnode *n)
{
	uint64_t mask[16];

	possible_mask(mask);
	for (unsigned i = 0; i < 16; i++)
		mask[i] &= ~kernel_cpu_mask[i];
	tree_cpu_list(b, mask);
	pprintf(b, "\n");
	return 0;
}

static int show_cpumap(struct pbuf *b, struct pnode *n)
{
	tree_cpu_hex(b, kernel_cpu_mask);
	pprintf(b, "\n");
	return 0;
}

static int show_own_number(struct pbuf *b, struct pnode *n)
{
	pprintf(b, "%d\n", n->fd);
	return 0;
}

static int show_own_map(struct pbuf *b, struct pnode *n)
{
	uint64_t mask[16] = {};

	mask[n->fd / 64] = 1ULL << (n->fd % 64);
	tree_cpu_hex(b, mask);
	pprintf(b, "\n");
	return 0;
}

#define R (S_IFREG | 0444)
#define V(nm, s) {.name = nm, .mode = R, .show = show_value, .arg = s}
#define F(nm, fn) {.name = nm, .mode = R, .show = fn}
#define DIR(nm, k) {.name = nm, .mode = S_IFDIR | 0755, .kids = k}

static const struct pent empty_kids[] = {{}};
// Every CPU is a core of its own in one package: what runs where is the host's to know.
static const struct pent topology_kids[] = {
	F("core_cpus", show_own_map), F("core_cpus_list", show_own_number), F("core_id", show_own_number),
	F("core_siblings", show_cpumap), F("core_siblings_list", show_online), V("die_id", "0"), F("package_cpus", show_cpumap),
	F("package_cpus_list", show_online), V("physical_package_id", "0"), F("thread_siblings", show_own_map),
	F("thread_siblings_list", show_own_number), {},
};
static const struct pent cpu_n_kids[] = {DIR("topology", topology_kids), V("online", "1"), {}};
static const struct pent cpu_n_ent = {.name = "cpuN", .mode = S_IFDIR | 0755, .kids = cpu_n_kids};

static int cpu_lookup(struct pnode *dir, const char *name, struct inode **ret)
{
	uint64_t mask[16];
	unsigned i;
	char tail;

	possible_mask(mask);
	if (sscanf(name, "cpu%u%c", &i, &tail) != 1 || i >= 1024 || !(mask[i / 64] >> (i % 64) & 1))
		return -ENOENT;
	return pnode_new(dir->inode.sb, &cpu_n_ent, NULL, false, (int)i, ret);
}

static int64_t cpu_next(struct pnode *dir, int64_t key, char name[32], unsigned *ret_dtype)
{
	uint64_t mask[16];

	possible_mask(mask);
	*ret_dtype = 4;
	for (int64_t i = key + 1; i < 1024; i++) {
		if (mask[i / 64] >> (i % 64) & 1) {
			snprintf(name, 32, "cpu%d", (int)i);
			return i;
		}
	}
	return -1;
}

// --- memory ---------------------------------------------------------------------------------------

static int show_node_meminfo(struct pbuf *b, struct pnode *n)
{
	struct kernel_memory m;

	kernel_memory_get(&m);
	pprintf(b, "Node 0 MemTotal:       %8llu kB\nNode 0 MemFree:        %8llu kB\nNode 0 MemUsed:        %8llu kB\n",
		(unsigned long long)m.total / 1024, (unsigned long long)m.free / 1024, (unsigned long long)(m.total - m.free) / 1024);
	return 0;
}

static int show_thp(struct pbuf *b, struct pnode *n)
{
	const char *s = host_info.thp_enabled ?: "always [madvise] never\n";

	pwrite_text(b, s, strlen(s));
	return 0;
}

static const struct pent cpu_kids[] = {
	V("isolated", ""), V("kernel_max", "1023"), F("offline", show_offline), F("online", show_online), F("possible", show_possible),
	F("present", show_possible), {},
};
static const struct pent node0_kids[] = {
	F("cpulist", show_online), F("cpumap", show_cpumap), V("distance", "10"), F("meminfo", show_node_meminfo), {},
};
static const struct pent node_kids[] = {
	V("has_cpu", "0"), V("has_memory", "0"), V("has_normal_memory", "0"), DIR("node0", node0_kids), V("online", "0"), V("possible", "0"), {},
};
static const struct pent system_kids[] = {
	{.name = "cpu", .mode = S_IFDIR | 0755, .kids = cpu_kids, .lookup = cpu_lookup, .next = cpu_next},
	DIR("node", node_kids), {},
};
static const struct pent devices_kids[] = {DIR("system", system_kids), DIR("virtual", empty_kids), {}};
static const struct pent thp_kids[] = {
	V("defrag", "always defer defer+madvise [madvise] never"), F("enabled", show_thp), V("hpage_pmd_size", "2097152"),
	V("shmem_enabled", "always within_size advise [never] deny force"), V("use_zero_page", "1"), {},
};
static const struct pent mm_kids[] = {DIR("hugepages", empty_kids), DIR("transparent_hugepage", thp_kids), {}};
static const struct pent kernel_kids[] = {DIR("mm", mm_kids), DIR("security", empty_kids), {}};
static const struct pent class_kids[] = {DIR("block", empty_kids), DIR("net", empty_kids), DIR("tty", empty_kids), {}};
static const struct pent dev_kids[] = {DIR("block", empty_kids), DIR("char", empty_kids), {}};
static const struct pent fs_kids[] = {DIR("cgroup", empty_kids), {}};
static const struct pent sys_root_kids[] = {
	DIR("block", empty_kids), DIR("bus", empty_kids), DIR("class", class_kids), DIR("dev", dev_kids), DIR("devices", devices_kids),
	DIR("firmware", empty_kids), DIR("fs", fs_kids), DIR("kernel", kernel_kids), DIR("module", empty_kids), DIR("power", empty_kids), {},
};
static const struct pent sys_root = {.name = "/", .mode = S_IFDIR | 0555, .kids = sys_root_kids};

static int sysfs_mount(const struct fs_type *type, const struct mount_opts *o, struct super_block **ret)
{
	return tree_mount(type, o, &sys_root, SYSFS_MAGIC, ret);
}

static struct fs_type sysfs_type = {.name = "sysfs", .flags = FS_NODEV | FS_GUEST, .mount = sysfs_mount};

void sysfs_init(void)
{
	fs_register(&sysfs_type);
}
