// Guest memory: the only room that reads or writes it.
//
// A guest address is a struct gaddr, never a C pointer. Everything here means the current task's
// address space (sched_current()->ctx) unless it takes one. Copy in once, validate the copy, act
// on the copy. All of these may wait where noted; -EFAULT for bad addresses.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct pf_as;
struct pf_ctx;

struct gaddr {
	uint64_t a;
};
#define GADDR(x) ((struct gaddr){(uint64_t)(x)})
#define GNULL GADDR(0)
static inline bool gaddr_null(struct gaddr g) { return g.a == 0; }
static inline struct gaddr gaddr_add(struct gaddr g, uint64_t n) { return GADDR(g.a + n); }

// [g, g+len) lies in the guest's part of the address space.
bool access_ok(struct gaddr g, uint64_t len);

int copy_in(void *dst, struct gaddr src, size_t len);
int copy_out(struct gaddr dst, const void *src, size_t len);
// Copies as much as it can: bytes copied (0 if none).
size_t copy_in_some(void *dst, struct gaddr src, size_t len);
size_t copy_out_some(struct gaddr dst, const void *src, size_t len);
int clear_out(struct gaddr dst, size_t len);
// copy_out() may be deferred to the way back to the guest, where a fault still becomes EFAULT, but
// after the call has done its work. This one has written, or failed, when it returns: for calls
// that must undo something, and for memory that another thread is waiting to see.
int copy_out_now(struct gaddr dst, const void *src, size_t len);
#define copy_in_obj(ptr, g) copy_in((ptr), (g), sizeof(*(ptr)))
#define copy_out_obj(g, ptr) copy_out((g), (ptr), sizeof(*(ptr)))
// Extensible structs (clone3, openat2 ...): copies min(usize, ksize), zero-fills the rest; -E2BIG
// if the guest's struct is larger and its tail is not zero.
int copy_in_struct(void *dst, size_t ksize, struct gaddr src, size_t usize);
// A NUL-terminated string of at most max bytes with its NUL, into the call's arena. -ENAMETOOLONG
// (the caller may turn it into E2BIG). ret_len (may be NULL) is without the NUL.
int copy_in_str(char **ret, struct gaddr src, size_t max, size_t *ret_len);
// PATH_MAX string; -ENOENT is not applied to "" here.
int copy_in_path(char **ret, struct gaddr src);

// Another address space (ptrace, process_vm_readv, /proc/PID/mem, exec's new stack).
ssize_t copy_in_as(struct pf_as *as, void *dst, struct gaddr src, size_t len);
ssize_t copy_out_as(struct pf_as *as, struct gaddr dst, const void *src, size_t len);

// A context that has not run since it was made (exec's, a new child's): deferred, after the operations
// that were queued on it, where there is room; else those are done now. src NULL: zeroes. May wait.
int copy_out_ctx(struct pf_ctx *ctx, struct gaddr dst, const void *src, size_t len);

// --- the call's arena: freed when the system call ends ---------------------------------------
void *arena_alloc(size_t size); // zeroed, 16-byte aligned; NULL: too much (4 MiB a call in all)
char *arena_strdup(const char *s);
// The kernel calls this at the end of every system call. (A task's end frees its arena.)
void arena_reset(void);

// --- I/O buffers: what file reads and writes move their bytes through --------------------------
struct giov {
	struct gaddr base;
	uint64_t len;
};
// A cursor over guest iovecs or one kernel buffer. resid counts down as bytes move.
struct uio {
	enum { UIO_GUEST, UIO_KERNEL } kind;
	const struct giov *iov; // UIO_GUEST; advanced
	unsigned niov;
	uint64_t iov_off;       // into iov[0]
	char *kbuf;             // UIO_KERNEL; advanced
	size_t resid;           // bytes left
};
struct uio uio_guest(struct giov *one, struct gaddr base, size_t len); // *one must outlive the uio
struct uio uio_kernel(void *buf, size_t len);
// Both take at most INT_MAX & PAGE_MASK bytes, as read(2) does.
// Copies in an iovec array (IOV_MAX, total capped at INT_MAX & PAGE_MASK as Linux does). -EINVAL,
// -EFAULT. The array lives in the arena.
int copy_in_iov(struct uio *ret, struct gaddr iov, uint64_t n);
// Move up to n bytes; return bytes moved, or -EFAULT if none could be.
ssize_t uio_put(struct uio *u, const void *src, size_t n);  // kernel -> buffer (a read)
ssize_t uio_get(struct uio *u, void *dst, size_t n);        // buffer -> kernel (a write)
ssize_t uio_put_zero(struct uio *u, size_t n);
// Zero-copy window for a read of n <= 4096 or so: a buffer that becomes the guest's bytes; NULL if
// not possible (then use uio_put). uio_put_commit(u, got) ends it and advances by got.
void *uio_put_window(struct uio *u, size_t n);
void uio_put_commit(struct uio *u, size_t got);
// Moves bytes between a host descriptor and the buffer: pread/pwrite semantics at off, or the
// descriptor's own position for off == -1. Returns bytes or -errno (-EAGAIN from RWF_NOWAIT when
// nowait). Uses the payload window or one bounce buffer; at most one host call per 256 KiB.
ssize_t uio_host_read(struct uio *u, int fd, int64_t off, int rwf_flags);
ssize_t uio_host_write(struct uio *u, int fd, int64_t off, int rwf_flags);
// The same for regular files, never stopping the kernel for a cold page: what is not in the host's
// cache is read by a host-work thread. May wait. off >= 0.
ssize_t uio_file_read(struct uio *u, int fd, int64_t off);
// Moves a cursor past n bytes without touching them.
void uio_skip(struct uio *u, size_t n);
