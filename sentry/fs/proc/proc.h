// procfs (proc(5)).
//
// Every name is an entry of a static table: a directory, a file whose text a function writes, or a
// link. A file's text is made when it is read from its start and kept by the open file, so that
// offsets stay right; reading from the start again makes it anew. Names of processes and descriptors
// are made up at lookup and checked again at every walk (nothing is cached).
#pragma once
#include <stdint.h>

#include "sentry/vfs/vfs.h"

// What only the host knows: boot collects it before the process is locked down. All borrowed for
// good; strings may be NULL.
struct host_info {
	const char *cpuinfo;    // the host's /proc/cpuinfo
	size_t cpuinfo_len;
	uint64_t mem_total;     // bytes
	unsigned ncpus;         // possible CPUs of the host (highest number + 1)
	const char *thp_enabled; // /sys/kernel/mm/transparent_hugepage/enabled
};
extern struct host_info host_info;

// At boot: registers "proc".
void proc_fs_init(void);

// Set by the layer that knows the sockets: calls emit for each line of /proc/net/unix. NULL: none.
extern void (*proc_net_unix)(void (*emit)(const char *line, void *arg), void *arg);
