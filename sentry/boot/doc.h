// What the launcher tells the sentry to run: one line of JSON, then the container's config.json as it is.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sentry/boot/spec.h"

struct boot_doc {
	char *id, *platform;
	bool debug, strace, no_patching;
	bool log_file;         // BOOT_FD_LOG is a debug log, not somebody's stderr
	bool plain_first;      // runsc do: the first process is no init
	bool wait_start;       // set everything up, then wait for CTL_START
	bool overlay;          // an in-memory layer over the root
	uint64_t overlay_size; // its quota in bytes; 0: none
	bool root_readonly;    // the gofer serves tree 0 read-only
	unsigned host_cpus;
	int *mount_tree;       // per mount of the spec: the gofer's tree, or -1 (nmounts entries)
	bool *mount_is_file;   // a bind mount of a single file
	unsigned ntrees;
	uint64_t rlim[16][2];  // the caller's limits: for what the spec leaves open
	struct spec *spec;     // owned
};

// The document's text for doc and the given config.json; free() it. NULL: no memory.
char *boot_doc_encode(const struct boot_doc *doc, const char *config, size_t config_len, size_t *ret_len);
// 0, -EINVAL with err->msg, -ENOMEM.
int boot_doc_decode(const char *text, size_t len, struct boot_doc **ret, struct spec_err *err);
void boot_doc_free(struct boot_doc *doc);
