// The gofer's inside: shared by the files of this room only.
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "gofer/proto/proto.h"
#include "gofer/server/gofer.h"

#define NODES_MAX (1u << 18) // most nodes at a time: what a hostile sentry can make us keep
#define DEPTH_MAX 2048u      // most directories without a descriptor above a node: reopening recurses that far

// A file the sentry knows: its directory and name, and for directories in use an O_PATH descriptor,
// which may be closed at any time and opened again from parent and name.
struct gnode {
	struct gnode *parent;  // counted; itself for a root
	uint64_t dev, ino;     // what (parent, name) must still be
	uint32_t slot;
	uint32_t refs;         // the sentry's (one), children, and the request being served
	uint16_t tree;
	bool client;           // the sentry holds it
	bool read_only;
	bool detached;         // it has lost its name: fd (if any) is all there is
	bool writable;         // detached, or a root that is a file: fd was opened for writing too
	mode_t type;           // S_IFMT
	int fd;                // -1: not open. Roots and detached nodes keep theirs
	char *name;            // owned
	TAILQ_ENTRY(gnode) lru; // on the list while fd is open and may be closed
};

struct rx {              // the request being served
	const struct gp_req *q;
	struct gp_parts p;
	char name1[GP_NAME_MAX + 1], name2[GP_NAME_MAX + 1]; // terminated copies
};

// --- nodes.c ---
int nodes_init(const struct gofer_config *cfg, unsigned max_fds);
void nodes_fini(void);
unsigned nodes_count(void);
unsigned nodes_open_fds(void);
uint64_t node_id(const struct gnode *n);
// The sentry's node with this id, or NULL. Borrowed until the request ends.
struct gnode *node_find(uint64_t id);
int node_root(uint32_t tree, struct gnode **ret); // marks it the sentry's
// A new node of parent, the sentry's. -ENFILE, -ENOMEM. fd: taken over if given (-1: none).
int node_new(struct gnode *parent, const char *name, const struct gp_attr *a, int fd, struct gnode **ret);
void node_forget(struct gnode *n);
// An O_PATH (or readable) descriptor of a directory node, borrowed until the request ends. -ENOTDIR, -ESTALE.
int node_dir_fd(struct gnode *n, int *ret);
// Where the file can be reached: a directory descriptor and a name, or for roots and detached nodes
// the file's own descriptor and "" (AT_EMPTY_PATH). Borrowed. -ESTALE.
int node_place(struct gnode *n, int *ret_fd, const char **ret_name);
// Opens the regular file or directory itself with the O_* flags given; the descriptor is the caller's.
int node_open(struct gnode *n, int flags, int *ret);
int node_stat(struct gnode *n, struct gp_attr *ret); // -ESTALE if it is not the same file any more
// Keeps the file usable after its name goes: opens it now. Best effort.
void node_detach_prepare(struct gnode *n, int *ret_fd, bool *ret_writable);
void node_detach(struct gnode *n, int fd, bool writable);
// (parent, name) is where it is now; a detached node has a name again.
int node_moved(struct gnode *n, struct gnode *new_parent, const char *new_name);

// --- lookup.c ---
int attr_at(int dirfd, const char *name, struct gp_attr *ret); // name "": dirfd itself
// A regular file, opened relative to dirfd, that is still the one with these numbers.
int open_checked(int dirfd, const char *name, int flags, uint64_t dev, uint64_t ino, struct gp_attr *ret_attr, int *ret_fd);

// --- server.c ---
// The reply being built. Handlers fill tx_buf after the header and return the body's size.
extern char tx_buf[GP_MSG_MAX];
#define TX_BODY (tx_buf + sizeof(struct gp_hdr))
// Sends a part of an answer (GP_MORE) now; -errno when the sentry is gone.
int tx_more(const struct rx *r, size_t body);

// --- handlers: the body's size, or -errno. *ret_fd >= 0: goes along, then is closed ---
ssize_t do_attach(const struct rx *r, int *ret_fd);
ssize_t do_walk(const struct rx *r, int *ret_fd);
ssize_t do_open(const struct rx *r, int *ret_fd);
ssize_t do_readdir(const struct rx *r, int *ret_fd);
ssize_t do_readlink(const struct rx *r, int *ret_fd);
ssize_t do_getattr(const struct rx *r, int *ret_fd);
ssize_t do_statfs(const struct rx *r, int *ret_fd);
ssize_t do_getxattr(const struct rx *r, int *ret_fd);
ssize_t do_listxattr(const struct rx *r, int *ret_fd);
ssize_t do_create(const struct rx *r, int *ret_fd);
ssize_t do_mkdir(const struct rx *r, int *ret_fd);
ssize_t do_symlink(const struct rx *r, int *ret_fd);
ssize_t do_mknod(const struct rx *r, int *ret_fd);
ssize_t do_link(const struct rx *r, int *ret_fd);
ssize_t do_unlink(const struct rx *r, int *ret_fd);
ssize_t do_rename(const struct rx *r, int *ret_fd);
ssize_t do_setattr(const struct rx *r, int *ret_fd);
ssize_t do_setxattr(const struct rx *r, int *ret_fd);
ssize_t do_fsync(const struct rx *r, int *ret_fd);
