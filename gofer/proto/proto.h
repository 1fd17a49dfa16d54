// The gofer's wire messages: what the sentry's gofer file system and a gofer say to each other.
//
// One SOCK_SEQPACKET socket a gofer. The sentry sends requests (struct gp_req, then name1, name2 and
// data, packed), the gofer answers each (but FORGET) with one or more replies (struct gp_hdr, then a
// body by kind) that carry the request's id; all but the last have GP_MORE. A descriptor comes with a
// reply that has GP_FD, at most one. Neither side trusts the other: gp_req_check() and
// gp_rep_check() decide whether a message is well-formed; nothing of one is used before.
//
// A node is a file that the gofer has named: by ATTACH (the root of a tree), WALK, READDIR with
// attributes, or a creating request. Its id is good until FORGET. Every reply that carries a
// gp_node with id != 0 hands over a fresh id, also for a file that has one already.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GP_MSG_MAX 65536u  // bytes a message, either way
#define GP_NAME_MAX 255u   // bytes a component
#define GP_PATH_MAX 4095u  // bytes of a walk's path, a symlink's target
#define GP_WALK_MAX 40u    // components a walk
#define GP_XATTR_MAX 60000u // bytes of an extended attribute's value or list
#define GP_FORGET_MAX 1024u // ids a FORGET
#define GP_TREES_MAX 1024u

enum gp_op {                // fields used besides node; what a reply's body is
	GP_ATTACH = 1,      // arg: the tree; struct gp_node
	GP_WALK,            // data: "a/b/c"; flags: GP_WALK_*; struct gp_walk_rep
	GP_OPEN,            // flags: GP_OPEN_*; a descriptor and struct gp_attr
	GP_READDIR,         // arg: entries that should come with attributes; struct gp_dir_rep ...
	GP_READLINK,        // the target's bytes
	GP_GETATTR,         // struct gp_attr
	GP_STATFS,          // struct gp_statfs
	GP_GETXATTR,        // name1; the value
	GP_LISTXATTR,       // the list
	GP_FORGET,          // data: node ids (uint64_t); no reply
	GP_CREATE,          // name1, mode, uid, gid, flags: GP_OPEN_*; a descriptor and struct gp_node
	GP_MKDIR,           // name1, mode, uid, gid; struct gp_node
	GP_SYMLINK,         // name1, data: target, uid, gid; struct gp_node
	GP_MKNOD,           // name1, mode (FIFO, socket or regular), uid, gid; struct gp_node
	GP_LINK,            // node: directory, node2: target, name1; struct gp_attr
	GP_UNLINK,          // name1, flags: GP_UNLINK_*, node2: what is removed and still in use, or 0
	GP_RENAME,          // node/name1 -> node2/name2, flags: GP_RENAME_*, data: struct gp_rename
	GP_SETATTR,         // data: struct gp_setattr; struct gp_attr
	GP_SETXATTR,        // name1, data: value, flags: GP_XATTR_*
	GP_FSYNC,           // a directory or file
	GP_OP_END,
};
enum { GP_MORE = 1, GP_FD = 2 }; // gp_hdr.flags of replies; 0 in requests

struct gp_hdr {
	uint32_t len;    // of the whole message
	uint16_t op;
	uint16_t flags;
	uint32_t id;     // the request's; the sentry chooses it
	int32_t status;  // replies: 0 or -errno (then there is no body); 0 in requests
};
struct gp_req {
	struct gp_hdr h;
	uint64_t node, node2;
	uint32_t flags, mode, uid, gid;
	uint32_t arg;
	uint16_t name1_len, name2_len; // without NUL; there is none on the wire
	uint32_t data_len, pad;        // pad: 0
};
enum { GP_WALK_OPEN = 1, GP_WALK_OPEN_RDWR = 2 }; // open the last component if it is a regular file
enum { GP_OPEN_READ = 1, GP_OPEN_WRITE = 2, GP_OPEN_TRUNC = 4 };
enum { GP_UNLINK_DIR = 1 };
enum { GP_RENAME_NOREPLACE = 1, GP_RENAME_EXCHANGE = 2 };
enum { GP_XATTR_CREATE = 1, GP_XATTR_REPLACE = 2, GP_XATTR_REMOVE = 4 };

struct gp_time {
	int64_t sec;
	uint32_t nsec, pad;
};
struct gp_attr {
	uint64_t dev, ino, rdev, size, blocks;
	uint32_t mode, uid, gid, nlink, blksize, pad;
	struct gp_time atime, mtime, ctime, btime;
};
struct gp_node {
	uint64_t id;
	struct gp_attr attr;
};
enum gp_walk_stop {
	GP_STOP_DONE,    // every component is in the reply
	GP_STOP_NOENT,   // component nnodes does not exist
	GP_STOP_SYMLINK, // the last node is a symlink; its target follows the nodes
	GP_STOP_NOTDIR,  // the last node is not a directory, and more was to be walked
	GP_STOP_ERROR,   // error tells why component nnodes could not be looked up
};
struct gp_walk_rep { // then nnodes struct gp_node, then target_len bytes
	struct gp_hdr h;
	uint32_t nnodes, stop;
	int32_t error;
	uint32_t target_len;
};
struct gp_dir_rep { // then n entries: struct gp_dirent, name, target, padded to 8 bytes
	struct gp_hdr h;
	uint32_t n, pad;
};
struct gp_dirent {
	struct gp_node node; // id 0: no attributes, attr.ino and attr.mode's type only
	uint16_t name_len, target_len;
	uint32_t pad;
};
struct gp_statfs {
	uint64_t type, bsize, blocks, bfree, bavail, files, ffree, namelen;
};
enum { GP_SET_MODE = 1, GP_SET_UID = 2, GP_SET_GID = 4, GP_SET_SIZE = 8, GP_SET_ATIME = 16, GP_SET_MTIME = 32 };
struct gp_setattr {
	uint32_t valid, mode, uid, gid;
	uint64_t size;
	struct gp_time atime, mtime;
};
struct gp_rename {
	uint64_t moved, victim; // ids of what moves, and of what is replaced (exchanged); 0: has none
};

_Static_assert(sizeof(struct gp_hdr) == 16 && sizeof(struct gp_req) == 64, "wire layout");
_Static_assert(sizeof(struct gp_attr) == 128 && sizeof(struct gp_node) == 136, "wire layout");
_Static_assert(sizeof(struct gp_dirent) == 144 && sizeof(struct gp_walk_rep) == 32, "wire layout");

// One component: 1 to 255 bytes, no '/' or NUL, not "." or "..".
bool gp_name_ok(const char *name, size_t len);
// The name of an extended attribute: as above, but any bytes except NUL.
bool gp_xattr_name_ok(const char *name, size_t len);
bool gp_attr_ok(const struct gp_attr *a);
// A request's variable parts; pointers into the message.
struct gp_parts {
	const char *name1, *name2, *data; // not terminated
};
// Whether the n bytes at msg are one well-formed request. msg is 8-byte aligned.
bool gp_req_check(const void *msg, size_t n, struct gp_parts *ret);
// Whether they are a well-formed reply to a request of kind op: lengths, names, attributes.
bool gp_rep_check(const void *msg, size_t n, enum gp_op op);
// The number of entries a walk's path names (1 to GP_WALK_MAX, each gp_name_ok), or 0: malformed.
unsigned gp_path_count(const char *path, size_t len);
bool gp_op_modifies(enum gp_op op);
static inline size_t gp_dirent_size(const struct gp_dirent *e)
{
	return (sizeof(*e) + e->name_len + e->target_len + 7) & ~(size_t)7;
}
