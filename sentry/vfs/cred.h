// Credentials of a task: copy-on-write, shared by reference (credentials(7), capabilities(7)).
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "platform/base/refcount.h"

#define CRED_MAX_GROUPS 65536
struct user_ns;

struct cred {
	refcount_t refs;
	uint32_t uid, euid, suid, fsuid;
	uint32_t gid, egid, sgid, fsgid;
	uint64_t cap_inheritable, cap_permitted, cap_effective, cap_bounding, cap_ambient;
	uint32_t securebits;
	bool no_new_privs;
	uint32_t ngroups;
	uint32_t *groups; // sorted; owned
	struct user_ns *user_ns;
};

struct cred *cred_new(void);                      // root with every capability; NULL: no memory
struct cred *cred_dup(const struct cred *c);      // a private copy to change
struct cred *cred_get(const struct cred *c);
void cred_put(const struct cred *c);
bool cred_in_group(const struct cred *c, uint32_t gid); // fsgid or a supplementary group
bool cred_capable(const struct cred *c, unsigned cap);  // CAP_*, against the initial user namespace
// The kernel's: takes and gives back c->user_ns when a credential is copied or freed. NULL: nothing to count.
extern void (*cred_user_ns_get)(struct user_ns *ns);
extern void (*cred_user_ns_put)(struct user_ns *ns);
