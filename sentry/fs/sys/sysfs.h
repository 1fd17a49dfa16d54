// sysfs (sysfs(5)): the part of it that programs look at: CPUs, memory nodes, huge pages.
#pragma once

void sysfs_init(void); // at boot: registers "sysfs"
