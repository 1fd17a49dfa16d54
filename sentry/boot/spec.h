// The OCI runtime specification's config.json, parsed and checked.
//
// spec_parse() refuses what is malformed (duplicate keys included) and names the field in one line.
// Fields that the specification has and Casemate does not act on are listed in `ignored`, so that
// the caller can say so in the log. https://github.com/opencontainers/runtime-spec/blob/main/config.md
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SPEC_MAX_BYTES (8u << 20)  // largest config.json
#define SPEC_MAX_STRINGS 65536u    // most args, env, options ... in one list
#define SPEC_MAX_MOUNTS 1024u

struct spec_err {
	char msg[512];
};

struct spec_strv {
	char **v; // NULL-terminated
	unsigned n;
};

struct spec_mount {
	char *dest;   // absolute, in the container
	char *type;   // "" where the file gives none
	char *source; // ""; for bind mounts: on the host (relative to the bundle)
	unsigned long ms_flags; // MS_* of mount(2)
	bool bind;
	char *data;   // what is left of the options, comma separated; "" if nothing
};

struct spec_caps {
	bool given;
	uint64_t bounding, effective, permitted, inheritable, ambient;
};

struct spec_user {
	uint32_t uid, gid, umask;
	bool has_umask;
	uint32_t *groups;
	unsigned ngroups;
};

enum { SPEC_NS_PID = 1, SPEC_NS_NET = 2, SPEC_NS_IPC = 4, SPEC_NS_UTS = 8, SPEC_NS_MNT = 16, SPEC_NS_USER = 32, SPEC_NS_CGROUP = 64, SPEC_NS_TIME = 128 };

struct spec_sysctl {
	char *name, *value;
};

struct spec {
	char *version;
	// process
	struct spec_strv args, env;
	char *cwd;
	struct spec_user user;
	struct spec_caps caps;
	uint64_t rlim[16][2]; // [RLIMIT_*][soft, hard]
	uint32_t rlim_set;    // bit per RLIMIT_*
	bool no_new_privs, terminal;
	int oom_score_adj;
	// root and the rest
	char *root_path;
	bool root_readonly;
	char *hostname, *domainname; // "" if not given
	struct spec_mount *mounts;
	unsigned nmounts;
	unsigned namespaces;      // SPEC_NS_*: to be created
	char *netns_path;         // "" or the network namespace to use
	struct spec_strv masked, readonly;
	struct spec_sysctl *sysctls;
	unsigned nsysctls;
	char *cgroups_path;       // ""
	struct spec_strv annotation_keys, annotation_values;
	struct spec_strv ignored; // names of fields that are not acted on
};

// text need not end in NUL. 0; -EINVAL with err->msg; -ENOMEM.
int spec_parse(const char *text, size_t len, struct spec **ret_spec, struct spec_err *err);
void spec_free(struct spec *s); // NULL is fine
// The value of an annotation, or NULL.
const char *spec_annotation(const struct spec *s, const char *key);
