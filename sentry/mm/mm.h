// Guest address spaces as the kernel sees them: the VMA tree, limits, layout, accounting.
//
// Memory itself belongs to the host: private pages are the stub's, file mappings are mappings of a
// host descriptor, shared memory is a memfd per object. mm decides; every change becomes an
// operation queued on the current context (pf_queue_op) and is carried out, in order, on the way
// back to the guest. So the VMA tree is what the guest's memory *will* be when it runs again.
//
// Invariants
//  - VMAs are page aligned, sorted, disjoint, below PF_GUEST_TOP; equal neighbours are merged.
//  - vm_pages * 4096 is the sum of their lengths; RLIMIT_AS, RLIMIT_DATA and the brk are checked
//    before anything is changed.
//  - mm->lock is held from the first look at the tree until the operation is queued, so the tree and
//    the host see the same order. Objects are released after it is dropped.
//  - The host never grows a stack by itself: the loader maps the usual limit at once, and further
//    growth comes through mm_fault_grow(). So the tree is the truth.
//  - mlock is accounting only: nothing of a guest is pinned in the host. mincore calls all resident.
// Functions here act on `mm` through context `ctx` of it and may wait, unless they say otherwise.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "platform/base/refcount.h"
#include "sentry/sched/sched.h"
#include "sentry/uaccess/uaccess.h"

struct pf_as;
struct pf_ctx;
struct platform;
struct mobj;
struct vma;

// A mappable object: what a mapping that is not private-anonymous refers to. Embedded in struct
// file (vfs), a shared-memory object, ...
struct mobj_ops {
	// A host descriptor (borrowed) and offset that hold [off, off+len) of the object now; called once per
	// mmap. May wait. shared: a MAP_SHARED mapping; prot: what may be asked for later too.
	int (*map_fd)(struct mobj *m, uint64_t off, uint64_t len, int prot, bool shared, int *ret_fd, uint64_t *ret_off);
	void (*mapped)(struct mobj *m, struct vma *v);   // one more VMA refers to it (also split/fork); never waits; may be NULL
	void (*unmapped)(struct mobj *m, struct vma *v); // one fewer (also merges); never waits; may be NULL
	// MADV_REMOVE: gives [off, off+len) back, it reads as zeroes from now on. May wait. NULL: -EOPNOTSUPP.
	int (*punch)(struct mobj *m, uint64_t off, uint64_t len);
	// For /proc/PID/maps: device, inode number, and the path into buf (as seen from the reader's root).
	void (*describe)(struct mobj *m, char *buf, size_t size, uint64_t *ret_dev, uint64_t *ret_ino);
	void (*release)(struct mobj *m); // last reference
};
struct mobj {
	refcount_t refs;
	const struct mobj_ops *ops;
};
static inline struct mobj *mobj_get(struct mobj *m) { ref_get(&m->refs); return m; }
void mobj_put(struct mobj *m); // NULL is fine
// Shared anonymous memory (mmap MAP_SHARED|MAP_ANONYMOUS, SysV shm): a memfd. -ENOMEM.
int mobj_new_shmem(const char *name, uint64_t size, struct mobj **ret);

struct mm_limits { // bytes; RLIM_INFINITY = UINT64_MAX. Refreshed by the kernel before each call into mm.
	uint64_t as, data, stack, memlock;
	bool may_lock; // CAP_IPC_LOCK
};

#define MM_MAX_MAPS 65500 // below the host's vm.max_map_count, which the stub's own mappings share
#define MM_PENDING 32
struct mm {
	refcount_t users; // tasks (and vfork children) that run in it
	struct pf_as *as;
	struct klock lock; // see the invariants
	void *vmas;       // RB tree root, mm's own
	uint64_t map_count, vm_pages, data_pages, locked_pages, peak_pages;
	uint64_t start_code, end_code, start_data, end_data, start_brk, brk, start_stack;
	uint64_t arg_start, arg_end, env_start, env_end;
	uint64_t mmap_base;              // top-down search starts here
	uint64_t stack_top, pie_base;    // randomised once, for the loader
	uint64_t mmap_rnd;               // randomised once: mm_layout() places mmap_base with it
	bool no_aslr;
	uint64_t auxv[64];               // for /proc/PID/auxv
	unsigned nauxv;
	struct mobj *exe;                // /proc/PID/exe: the struct file's mobj; owned
	bool dumpable, lock_future;
	struct mm_limits lim;
	void *owner;                     // the kernel's (membarrier registrations and the like)
	struct { uint64_t addr, len; int kind; } pending[MM_PENDING]; // the latest queued operations, for mm_op_failed()
	unsigned npending;
	uint64_t patch_areas[4], patch_area_len; // mm_patch_area()'s
	unsigned n_patch_areas;
};

// A fresh, empty mm over a new address space; randomised layout unless no_aslr. May wait.
int mm_new(struct platform *pf, bool no_aslr, struct mm **ret_mm, struct pf_ctx **ret_ctx);
// Places mmap_base below the stack that mm->lim.stack allows; for a still empty mm.
void mm_layout(struct mm *mm);
// fork: the same VMAs over pf_fork()'s address space (the caller did pf_fork, mm copies the tree;
// MADV_DONTFORK ranges are unmapped and MADV_WIPEONFORK ones wiped through child_ctx). -ENOMEM.
// The caller holds parent->lock from before pf_fork() until after this.
int mm_fork(struct mm *parent, struct pf_as *child_as, struct pf_ctx *child_ctx, struct mm **ret);
struct mm *mm_get(struct mm *mm);
void mm_put(struct mm *mm); // the last user's frees VMAs and the address space

// mmap(2) with decoded arguments; flags are MAP_*. obj is borrowed (NULL: anonymous). Returns the
// address, or -errno (as int64_t).
int64_t mm_mmap(struct mm *mm, struct pf_ctx *ctx, uint64_t addr, uint64_t len, int prot, int flags, struct mobj *obj, uint64_t off);
// The same for an object that bounds what mprotect may ask for later: max_prot is PROT_*, and -EACCES
// beyond it. (A shared mapping of a file not open for writing has no PROT_WRITE, one from a noexec
// mount no PROT_EXEC.) mm_mmap() allows all three.
int64_t mm_mmap_max(struct mm *mm, struct pf_ctx *ctx, uint64_t addr, uint64_t len, int prot, int max_prot, int flags, struct mobj *obj, uint64_t off);
// Where mm_mmap() would place len bytes (both page aligned) at a multiple of align, a power of two; 0: nowhere.
uint64_t mm_find_free(const struct mm *mm, uint64_t len, uint64_t align);
int mm_munmap(struct mm *mm, struct pf_ctx *ctx, uint64_t addr, uint64_t len);
int mm_mprotect(struct mm *mm, struct pf_ctx *ctx, uint64_t addr, uint64_t len, int prot);
int64_t mm_mremap(struct mm *mm, struct pf_ctx *ctx, uint64_t old, uint64_t old_len, uint64_t new_len, int flags, uint64_t new_addr);
int mm_madvise(struct mm *mm, struct pf_ctx *ctx, uint64_t addr, uint64_t len, int advice);
int mm_msync(struct mm *mm, struct pf_ctx *ctx, uint64_t addr, uint64_t len, int flags);
int mm_mlock(struct mm *mm, struct pf_ctx *ctx, uint64_t addr, uint64_t len, int flags, bool lock);
int mm_mlockall(struct mm *mm, struct pf_ctx *ctx, int flags, bool lock);
int mm_mincore(struct mm *mm, uint64_t addr, uint64_t len, unsigned char *vec);
// For pf_hooks.patch_area. Never waits. The guest can neither see nor unmap what this reserves.
uint64_t mm_patch_area(struct pf_as *as, uint64_t site, uint64_t len);
bool mm_patch_overlap(const struct mm *mm, uint64_t start, uint64_t end);
uint64_t mm_brk(struct mm *mm, struct pf_ctx *ctx, uint64_t brk); // brk(2): the new (or old) break
// After PF_EV_OPS_FAILED: brings the tree in line with what the host did. Returns the errno for the guest.
int mm_op_failed(struct mm *mm, uint64_t addr, uint64_t len, int error);
// A fault at addr: true if it is the stack growing (then the mapping was extended: resume), false: signal.
bool mm_fault_grow(struct mm *mm, struct pf_ctx *ctx, uint64_t addr, uint64_t sp);

// Walking, for /proc and checks. Never waits.
struct vma_info {
	uint64_t start, end, off;
	int prot, flags; // PROT_*; MAP_SHARED/PRIVATE/GROWSDOWN ...
	int max_prot;    // what mprotect may ask for
	struct mobj *obj; // borrowed
	const char *name; // "[heap]", "[stack]", "[vdso]" ... or ""
	unsigned vm_flags; // MM_VM_*
};
enum { MM_VM_LOCKED = 1, MM_VM_DONTFORK = 2, MM_VM_WIPEONFORK = 4, MM_VM_DONTDUMP = 8, MM_VM_HUGEPAGE = 16, MM_VM_NOHUGEPAGE = 32, MM_VM_NORESERVE = 64, MM_VM_MERGEABLE = 128,
       MM_VM_ACCOUNT = 256 /* private and was writable once: not merged with what never was, as in the host */,
       MM_VM_PATCH = 512 /* mm_patch_area()'s; the guest does not see it */ };
// The first VMA that ends above addr; false: none.
bool mm_next_vma(struct mm *mm, uint64_t addr, struct vma_info *ret);
// 0; -EINVAL (bad name, unaligned), -EBADF (a file's mapping), -ENOMEM (hole). name NULL: none any more.
int mm_set_vma_name(struct mm *mm, uint64_t addr, uint64_t len, const char *name); // PR_SET_VMA_ANON_NAME

// /proc/PID/maps and smaps (proc(5)), with the host's vvar and vDSO, which lie above the VMAs. Both
// append the text of the first mapping that ends above *pos to buf and move *pos past it: bytes
// written, 0 at the end, -ENOSPC if size does not suffice (8 KiB always do). Never wait.
ssize_t mm_maps_next(struct mm *mm, uint64_t *pos, char *buf, size_t size);
ssize_t mm_smaps_next(struct mm *mm, uint64_t *pos, char *buf, size_t size);
// Resident pages, for statm, status and ps. Only the host knows them; this is the upper bound that can
// be known here: private pages that are writable or executable, without MAP_NORESERVE and without the
// untouched part of the stack; shared ones in full.
uint64_t mm_rss_pages(struct mm *mm, uint64_t *ret_shared);
