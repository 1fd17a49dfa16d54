// The file system whose files are a gofer's: the container's root and its volumes.
//
//   exclusive  the tree changes only through this mount: names (also missing ones), attributes and
//              directory listings are cached for good (SB_CACHE)
//   shared     the host may change it: names and attributes are asked for again once they are older
//              than GOFER_VALID_NS (SB_REVALIDATE), all of a path in one request
//
// A path that misses costs one request, whatever its length; a directory that misses twice is listed
// with its attributes in one more. File data moves through descriptors that the gofer sends and that
// are kept in a bounded cache; only a cold read or an fsync leaves the kernel thread.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "sentry/vfs/vfs.h"

#define GOFER_VALID_NS 1000000 // how old a shared mount's knowledge may be

// A connection to a gofer process, used by any number of mounts.
struct gofer_conn;
// Takes over sock on success. on_dead (may be NULL) is called once, from any context, when the gofer
// is gone or breaks the protocol: by then every request fails with EIO, now and later. -ENOMEM.
int gofer_conn_new(int sock, void (*on_dead)(void *arg), void *arg, struct gofer_conn **ret);
void gofer_conn_put(struct gofer_conn *c); // mounts keep their own reference
// How long to poll for an answer before sleeping: about what a sleep and two wake-ups cost, 0 (the
// default) where the gofer has no core of its own. Other tasks run meanwhile.
void gofer_conn_set_spin(struct gofer_conn *c, nsec_t ns);
// Requests sent so far, for tests and statistics.
uint64_t gofer_conn_requests(const struct gofer_conn *c);

// mount_opts.internal for the type "gofer".
struct gofer_mount {
	struct gofer_conn *conn;
	uint32_t tree;     // the attach point: index of struct gofer_config's trees
	bool exclusive;
	bool read_only;    // must agree with the gofer's own setting, which is what enforces it
};
extern struct fs_type gofer_fs_type;
// How many host descriptors of files to keep at most, over all mounts; set before the first mount.
void gofer_set_fd_limit(unsigned n);
