// /proc/sys: what programs ask before they trust their own defaults.
#include "sentry/fs/proc/internal.h"

#include <linux/capability.h>

#include "platform/base/random.h"
#include "sentry/fs/pipe/pipe.h"
#include "sentry/kernel/sysinfo.h"

static int show_value(struct pbuf *b, struct pnode *n)
{
	pprintf(b, "%s\n", (const char *)n->ent->arg);
	return 0;
}

static void uuid_text(struct pbuf *b, const uint8_t u[16])
{
	for (int i = 0; i < 16; i++)
		pprintf(b, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", u[i]);
	pprintf(b, "\n");
}

static void uuid_new(uint8_t u[16])
{
	random_bytes(u, 16);
	u[6] = (u[6] & 0x0f) | 0x40;
	u[8] = (u[8] & 0x3f) | 0x80;
}

static int show_uuid(struct pbuf *b, struct pnode *n)
{
	uint8_t u[16];

	uuid_new(u);
	uuid_text(b, u);
	return 0;
}

static int show_boot_id(struct pbuf *b, struct pnode *n)
{
	static uint8_t id[16];

	if (!id[6])
		uuid_new(id);
	uuid_text(b, id);
	return 0;
}

static int show_hostname(struct pbuf *b, struct pnode *n)
{
	pprintf(b, "%s\n", current_task()->uts->nodename);
	return 0;
}

static int show_domainname(struct pbuf *b, struct pnode *n)
{
	pprintf(b, "%s\n", current_task()->uts->domainname);
	return 0;
}

static ssize_t set_name(char name[65], const char *buf, size_t len)
{
	size_t n = strcspn(buf, "\n");

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	n = MIN(n, 64UL);
	memset(name, 0, 65);
	memcpy(name, buf, n);
	return (ssize_t)len;
}

static ssize_t write_hostname(struct pnode *n, char *buf, size_t len)
{
	return set_name(current_task()->uts->nodename, buf, len);
}

static ssize_t write_domainname(struct pnode *n, char *buf, size_t len)
{
	return set_name(current_task()->uts->domainname, buf, len);
}

static int show_pipe_max(struct pbuf *b, struct pnode *n)
{
	pprintf(b, "%u\n", pipe_max_size);
	return 0;
}

static int show_threads_max(struct pbuf *b, struct pnode *n)
{
	pprintf(b, "%u\n", 127535);
	return 0;
}

static int show_file_nr(struct pbuf *b, struct pnode *n)
{
	pprintf(b, "%u\t0\t%llu\n", 1024, 9223372036854775807ULL);
	return 0;
}

static int show_inode_nr(struct pbuf *b, struct pnode *n)
{
	pprintf(b, "%u\t0\n", 4096);
	return 0;
}

#define R (S_IFREG | 0444)
#define V(nm, s) {.name = nm, .mode = R, .show = show_value, .arg = s}
#define DIR(nm, k) {.name = nm, .mode = S_IFDIR | 0555, .kids = k}

static const struct pent random_kids[] = {
	{.name = "boot_id", .mode = R, .show = show_boot_id},
	V("entropy_avail", "256"),
	V("poolsize", "256"),
	V("urandom_min_reseed_secs", "60"),
	{.name = "uuid", .mode = R, .show = show_uuid},
	V("write_wakeup_threshold", "256"),
	{},
};
static const struct pent pty_kids[] = {V("max", "4096"), V("nr", "0"), V("reserve", "1024"), {}};
static const struct pent keys_kids[] = {V("maxkeys", "200"), V("maxbytes", "20000"), V("root_maxkeys", "1000000"), {}};
static const struct pent kernel_kids[] = {
	V("auto_msgmni", "0"), V("cad_pid", "1"), V("cap_last_cap", "40"), V("core_pattern", "core"), V("core_uses_pid", "0"),
	V("dmesg_restrict", "1"),
	{.name = "domainname", .mode = S_IFREG | 0644, .show = show_domainname, .write = write_domainname},
	{.name = "hostname", .mode = S_IFREG | 0644, .show = show_hostname, .write = write_hostname},
	DIR("keys", keys_kids), V("kptr_restrict", "1"), V("msgmax", "8192"), V("msgmnb", "16384"), V("msgmni", "32000"),
	V("ngroups_max", "65536"), V("osrelease", KERNEL_RELEASE), V("ostype", "Linux"), V("overflowgid", "65534"),
	V("overflowuid", "65534"), V("panic", "0"), V("perf_event_paranoid", "4"), V("pid_max", "4194304"), V("printk", "4\t4\t1\t7"),
	DIR("pty", pty_kids), DIR("random", random_kids), V("randomize_va_space", "2"), V("sched_child_runs_first", "0"),
	V("sched_rt_period_us", "1000000"), V("sched_rt_runtime_us", "950000"), V("sem", "32000\t1024000000\t500\t32000"),
	V("shm_rmid_forced", "0"), V("shmall", "18446744073692774399"), V("shmmax", "18446744073692774399"), V("shmmni", "4096"),
	V("tainted", "0"), {.name = "threads-max", .mode = R, .show = show_threads_max}, V("unprivileged_bpf_disabled", "2"),
	V("version", KERNEL_VERSION), {},
};
static const struct pent vm_kids[] = {
	V("dirty_background_ratio", "10"), V("dirty_ratio", "20"), V("drop_caches", "0"), V("max_map_count", "65530"),
	V("mmap_min_addr", "65536"), V("nr_hugepages", "0"), V("overcommit_kbytes", "0"), V("overcommit_memory", "0"),
	V("overcommit_ratio", "50"), V("panic_on_oom", "0"), V("swappiness", "60"), V("vfs_cache_pressure", "100"), {},
};
static const struct pent inotify_kids[] = {
	V("max_queued_events", "16384"), V("max_user_instances", "1024"), V("max_user_watches", "65536"), {},
};
static const struct pent epoll_kids[] = {V("max_user_watches", "1048576"), {}};
static const struct pent mqueue_kids[] = {
	V("msg_default", "10"), V("msg_max", "10"), V("msgsize_default", "8192"), V("msgsize_max", "8192"), V("queues_max", "256"), {},
};
static const struct pent empty_kids[] = {{}};
static const struct pent fs_kids[] = {
	V("aio-max-nr", "65536"), V("aio-nr", "0"), DIR("binfmt_misc", empty_kids), DIR("epoll", epoll_kids),
	V("file-max", "9223372036854775807"), {.name = "file-nr", .mode = R, .show = show_file_nr}, DIR("inotify", inotify_kids),
	{.name = "inode-nr", .mode = R, .show = show_inode_nr}, V("lease-break-time", "45"), V("leases-enable", "1"),
	V("mount-max", "100000"), DIR("mqueue", mqueue_kids), V("nr_open", "1048576"),
	{.name = "pipe-max-size", .mode = R, .show = show_pipe_max}, V("pipe-user-pages-hard", "0"), V("pipe-user-pages-soft", "16384"),
	V("protected_fifos", "1"), V("protected_hardlinks", "1"), V("protected_regular", "2"), V("protected_symlinks", "1"),
	V("suid_dumpable", "0"), {},
};
static const struct pent core_kids[] = {
	V("netdev_max_backlog", "1000"), V("optmem_max", "131072"), V("rmem_default", "212992"), V("rmem_max", "212992"),
	V("somaxconn", "4096"), V("wmem_default", "212992"), V("wmem_max", "212992"), {},
};
static const struct pent ipv4_kids[] = {
	V("ip_forward", "0"), V("ip_local_port_range", "32768\t60999"), V("ip_unprivileged_port_start", "1024"),
	V("ping_group_range", "1\t0"), V("tcp_congestion_control", "cubic"), V("tcp_fin_timeout", "60"),
	V("tcp_keepalive_intvl", "75"), V("tcp_keepalive_probes", "9"), V("tcp_keepalive_time", "7200"),
	V("tcp_max_syn_backlog", "1024"), V("tcp_rmem", "4096\t131072\t6291456"), V("tcp_sack", "1"), V("tcp_syn_retries", "6"),
	V("tcp_timestamps", "1"), V("tcp_window_scaling", "1"), V("tcp_wmem", "4096\t16384\t4194304"), {},
};
static const struct pent unix_kids[] = {V("max_dgram_qlen", "10"), {}};
static const struct pent net_sys_kids[] = {DIR("core", core_kids), DIR("ipv4", ipv4_kids), DIR("unix", unix_kids), {}};

const struct pent sys_kids[] = {
	DIR("debug", empty_kids), DIR("dev", empty_kids), DIR("fs", fs_kids), DIR("kernel", kernel_kids), DIR("net", net_sys_kids),
	DIR("user", empty_kids), DIR("vm", vm_kids), {},
};
