#include "sentry/boot/internal.h"
#include "sentry/fs/overlay/overlay.h"
#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/vfs/vfs.h"

int boot_overlay(struct super_block *lower, uint64_t size, struct super_block **ret)
{
	struct super_block *upper;
	int r = tmpfs_new_sb(&(struct tmpfs_limits){.max_bytes = size, .mode = 0755}, &upper);

	if (r)
		return r;
	r = overlay_mount_layers(upper, &lower, 1, ret);
	sb_put(upper);
	return r;
}
