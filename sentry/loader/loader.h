// Programs: from an open file and its arguments to a fresh address space that is ready to run.
//
// Formats: "#!" scripts (nested) and ELF64 for x86-64: static, static PIE, and dynamic ones with a
// PT_INTERP. Everything in a file is hostile: headers are copied in once, checked in full, and then
// only the checked copy is used. The caller's own address space is never touched, so every failure
// is before the point of no return.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi/x86_64/regs.h"
#include "sentry/mm/mm.h"

struct file;
struct platform;

#define LOADER_MAX_STR (128UL << 10) // MAX_ARG_STRLEN: one string with its NUL

struct loader_identity { // AT_UID ...: the credentials after the exec
	uint32_t uid, euid, gid, egid;
	bool secure;
};
struct loader_request { // all borrowed
	struct platform *pf;
	struct file *file;      // from loader_open()
	const char *filename;   // as execve(2) was told; "/dev/fd/N" for a descriptor alone
	const char *strings;    // argv's strings, then envp's, each with its NUL, nothing between them
	size_t strings_len;
	unsigned argc, envc;
	struct mm_limits lim;
	bool no_aslr;           // ADDR_NO_RANDOMIZE
	bool path_inaccessible; // filename will not exist after the exec (close-on-exec): no scripts
	// Once the file that is going to run is known (a script's interpreter): what its set-id bits mean.
	int (*identify)(void *arg, struct file *exe, struct loader_identity *ret);
	void *arg;
};
struct loader_result {
	struct mm *mm;        // one user, the caller; mm->exe is the file that runs
	struct pf_ctx *ctx;   // its one context, registers already set
	struct abi_regs regs; // the same ones
};

// Opens a file for execution: a regular file with execute permission, not on a noexec mount. -EACCES,
// -ELOOP, -ENOENT ... as execve(2). May wait.
int loader_open(int dirfd, const char *path, unsigned walk_flags, struct file **ret);
// execve(2). -ENOEXEC, -ELIBBAD, -EINVAL (more than one interpreter), -E2BIG, -ELOOP (too many scripts),
// -ETXTBSY, -ENOENT and others of an interpreter's path, -ENOMEM, -EIO. May wait.
int loader_exec(const struct loader_request *req, struct loader_result *ret);
// How many bytes of strings and of pointers to them (8 each, for argv and envp) are allowed: E2BIG.
uint64_t loader_arg_limit(uint64_t rlimit_stack);
// Forgets the cached headers (shutdown).
void loader_cache_drop(void);
