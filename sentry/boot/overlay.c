#include "sentry/boot/internal.h"
#include "sentry/vfs/vfs.h"

int boot_overlay(struct super_block *lower, uint64_t size, struct super_block **ret)
{
	*ret = sb_get(lower);
	return 0;
}
