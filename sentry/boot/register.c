// Which file systems and devices there are: kernel knows none of them.
#include "sentry/boot/internal.h"
#include "sentry/fs/dev/dev.h"
#include "sentry/fs/devpts/tty.h"
#include "sentry/fs/epoll/epoll.h"
#include "sentry/fs/gofer/gofer.h"
#include "sentry/fs/inotify/inotify.h"
#include "sentry/fs/overlay/overlay.h"
#include "sentry/fs/pipe/pipe.h"
#include "sentry/fs/proc/proc.h"
#include "sentry/fs/sys/sysfs.h"
#include "sentry/fs/timerfd/timerfd.h"
#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/kernel/sysinfo.h"
#include "sentry/syscalls/fasync.h"
#include "sentry/syscalls/sys_socket.h"
#include "sentry/vfs/vfs.h"

static uint64_t memory_total(void)
{
	struct kernel_memory m;

	kernel_memory_get(&m);
	return m.total;
}

int boot_register_all(const struct boot_doc *d)
{
	int r;

	pipe_fs_init();
	epoll_fs_init();
	timerfd_fs_init();
	boot_host_info();
	proc_fs_init();
	sysfs_init();
	inotify_fs_init();
	devpts_init();
	sys_socket_init();
	fasync_init();
	r = dev_init();
	if (r < 0)
		return r;
	tmpfs_memory_total = memory_total;
	fs_register(&tmpfs_type);
	fs_register(&overlay_fs_type);
	return 0;
}
