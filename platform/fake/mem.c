#include "platform/fake/mem.h"

#include <sys/mman.h>
#include <sys/uio.h>

#include "platform/base/base.h"
#include "platform/base/checked.h"
#include "platform/base/refcount.h"
#include "platform/base/slab.h"

// Host memory behind mappings; it is given back with its last mapping.
struct region {
	refcount_t refs;
	char *base;
	size_t len;
	bool file; // its pages may be past the end of the file: see copy_bytes
};

struct fake_map {
	TAILQ_ENTRY(fake_map) link; // in order of addr
	uint64_t addr, len;
	uint32_t prot;
	bool shared;
	struct region *region;
	size_t off; // of addr in the region
};
DEFINE_SLAB(region_slab, struct region);
DEFINE_SLAB(map_slab, struct fake_map);

static void region_put(struct region *r)
{
	if (!ref_put(&r->refs))
		return;
	munmap(r->base, r->len);
	slab_free(&region_slab, r);
}

static int region_new(size_t len, int fd, bool shared, uint64_t off, struct region **ret)
{
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : shared ? MAP_SHARED : MAP_PRIVATE;
	struct region *r = SLAB_NEW(region_slab, struct region);

	if (!r)
		return -ENOMEM;
	r->base = mmap(NULL, len, PROT_READ | PROT_WRITE, flags, fd, (off_t)off);
	if (r->base == MAP_FAILED && errno == EACCES)
		r->base = mmap(NULL, len, PROT_READ, flags, fd, (off_t)off);
	if (r->base == MAP_FAILED) {
		slab_free(&region_slab, r);
		return -errno;
	}
	r->len = len;
	r->file = fd >= 0;
	ref_init(&r->refs, 1);
	*ret = r;
	return 0;
}

void fake_mem_init(struct fake_maps *m)
{
	TAILQ_INIT(m);
}

static void map_free(struct fake_maps *m, struct fake_map *v)
{
	TAILQ_REMOVE(m, v, link);
	region_put(v->region);
	slab_free(&map_slab, v);
}

void fake_mem_fini(struct fake_maps *m)
{
	struct fake_map *v;

	while ((v = TAILQ_FIRST(m)))
		map_free(m, v);
}

// The first mapping that ends above addr.
static struct fake_map *find(struct fake_maps *m, uint64_t addr)
{
	struct fake_map *v;

	TAILQ_FOREACH(v, m, link)
		if (v->addr + v->len > addr)
			return v;
	return NULL;
}

static void insert(struct fake_maps *m, struct fake_map *v)
{
	struct fake_map *next = find(m, v->addr);

	if (next)
		TAILQ_INSERT_BEFORE(next, v, link);
	else
		TAILQ_INSERT_TAIL(m, v, link);
}

// Makes addr a border between mappings.
static int split(struct fake_maps *m, uint64_t addr)
{
	struct fake_map *v = find(m, addr), *n;

	if (!v || v->addr >= addr)
		return 0;
	n = SLAB_NEW(map_slab, struct fake_map);
	if (!n)
		return -ENOMEM;
	*n = *v;
	n->addr = addr;
	n->off = v->off + (addr - v->addr);
	n->len = v->addr + v->len - addr;
	v->len = addr - v->addr;
	ref_get(&n->region->refs);
	TAILQ_INSERT_AFTER(m, v, n, link);
	return 0;
}

static int split_range(struct fake_maps *m, uint64_t addr, uint64_t len)
{
	int r = split(m, addr);

	return r ? r : split(m, addr + len);
}

static int unmap(struct fake_maps *m, uint64_t addr, uint64_t len)
{
	int r = split_range(m, addr, len);
	struct fake_map *v;

	if (r)
		return r;
	while ((v = find(m, addr)) && v->addr < addr + len)
		map_free(m, v);
	return 0;
}

static int map(struct fake_maps *m, const struct pf_op *op, int fd)
{
	bool shared = op->flags & MAP_SHARED;
	struct region *r;
	struct fake_map *v;
	int err;

	err = region_new(op->len, fd, shared, op->off, &r);
	if (err)
		return err;
	v = SLAB_NEW(map_slab, struct fake_map);
	err = v ? unmap(m, op->addr, op->len) : -ENOMEM;
	if (err) {
		slab_free(&map_slab, v);
		region_put(r);
		return err;
	}
	*v = (struct fake_map){.addr = op->addr, .len = op->len, .prot = op->prot, .shared = shared, .region = r};
	insert(m, v);
	return 0;
}

static bool covered(struct fake_maps *m, uint64_t addr, uint64_t len)
{
	uint64_t end = addr + len;

	for (struct fake_map *v = find(m, addr); v && v->addr <= addr; v = TAILQ_NEXT(v, link)) {
		addr = v->addr + v->len;
		if (addr >= end)
			return true;
	}
	return false;
}

static int protect(struct fake_maps *m, const struct pf_op *op)
{
	struct fake_map *v;
	int r;

	if (!covered(m, op->addr, op->len))
		return -ENOMEM;
	r = split_range(m, op->addr, op->len);
	if (r)
		return r;
	for (v = find(m, op->addr); v && v->addr < op->addr + op->len; v = TAILQ_NEXT(v, link))
		v->prot = op->prot;
	return 0;
}

// Moves a mapping, or the part of one, and gives it its new length: growth is new zeroed memory.
static int remap(struct fake_maps *m, const struct pf_op *op)
{
	struct fake_map *v, *next;
	struct region *r;
	uint64_t keep = MIN(op->len, op->new_len);
	int err;

	if (!covered(m, op->addr, op->len))
		return -EFAULT;
	err = split_range(m, op->addr, op->len);
	if (err)
		return err;
	v = find(m, op->addr);
	for (struct fake_map *p = v; p && p->addr < op->addr + op->len; p = TAILQ_NEXT(p, link))
		if (p->prot != v->prot || p->shared != v->shared)
			return -EFAULT; // more than one mapping; the host merges equal ones
	err = region_new(op->new_len, -1, false, 0, &r);
	if (err)
		return err;
	for (struct fake_map *p = v; p && p->addr < op->addr + keep; p = TAILQ_NEXT(p, link))
		memcpy(r->base + (p->addr - op->addr), p->region->base + p->off, MIN(p->len, op->addr + keep - p->addr));
	while ((next = TAILQ_NEXT(v, link)) && next->addr < op->addr + op->len)
		map_free(m, next);
	if (op->new_addr != op->addr) {
		err = unmap(m, op->new_addr, op->new_len);
		if (err) {
			region_put(r);
			return err;
		}
	}
	TAILQ_REMOVE(m, v, link);
	region_put(v->region);
	v->region = r;
	v->off = 0;
	v->addr = op->new_addr;
	v->len = op->new_len;
	insert(m, v);
	return 0;
}

static int advise(struct fake_maps *m, const struct pf_op *op)
{
	struct fake_map *v;

	if (!covered(m, op->addr, op->len))
		return -ENOMEM;
	if (op->flags != MADV_DONTNEED)
		return 0;
	for (v = find(m, op->addr); v && v->addr < op->addr + op->len; v = TAILQ_NEXT(v, link)) {
		uint64_t from = MAX(v->addr, op->addr), to = MIN(v->addr + v->len, op->addr + op->len);

		if (!v->shared && madvise(v->region->base + v->off + (from - v->addr), to - from, MADV_DONTNEED) < 0)
			return -errno;
	}
	return 0;
}

static bool range_ok(uint64_t addr, uint64_t len)
{
	uint64_t end;

	return len && !PAGE_OFF(addr) && !PAGE_OFF(len) && add_u64(addr, len, &end) && end <= PF_GUEST_TOP;
}

int fake_mem_op(struct fake_maps *m, const struct pf_op *op)
{
	if (!range_ok(op->addr, op->len))
		return -EINVAL;
	switch (op->kind) {
	case PF_OP_MAP_ANON:
		return map(m, op, -1);
	case PF_OP_MAP_FD:
		return map(m, op, op->fd);
	case PF_OP_UNMAP:
		return unmap(m, op->addr, op->len);
	case PF_OP_PROTECT:
		return protect(m, op);
	case PF_OP_REMAP:
		return range_ok(op->new_addr, op->new_len) ? remap(m, op) : -EINVAL;
	case PF_OP_ADVISE:
		return advise(m, op);
	case PF_OP_MSYNC:
		return covered(m, op->addr, op->len) ? 0 : -ENOMEM;
	}
	return -EINVAL;
}

// Bytes copied. A page of a file that has become shorter would be SIGBUS: the host copies those, which
// stops there.
static size_t copy_bytes(const struct region *r, char *host, char *buf, size_t n, bool write)
{
	struct iovec local = {buf, n}, remote = {host, n};
	ssize_t done;

	if (!r->file) {
		memcpy(write ? host : buf, write ? buf : host, n);
		return n;
	}
	done = write ? process_vm_writev(getpid(), &local, 1, &remote, 1, 0)
		     : process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
	return done < 0 ? 0 : (size_t)done;
}

// Only pages with something in them are copied: reading the others costs no memory.
static void copy_sparse(char *dst, const struct region *r, size_t off, size_t len)
{
	static const char zero[PAGE_SIZE];
	char page[PAGE_SIZE];

	for (size_t i = 0; i < len; i += PAGE_SIZE) {
		if (!r->file && memcmp(r->base + off + i, zero, PAGE_SIZE) != 0)
			memcpy(dst + i, r->base + off + i, PAGE_SIZE);
		if (r->file && copy_bytes(r, r->base + off + i, page, PAGE_SIZE, false) == PAGE_SIZE)
			memcpy(dst + i, page, PAGE_SIZE);
	}
}

int fake_mem_fork(const struct fake_maps *m, struct fake_maps *ret)
{
	struct fake_map *v, *n;
	int r;

	fake_mem_init(ret);
	TAILQ_FOREACH(v, m, link) {
		n = SLAB_NEW(map_slab, struct fake_map);
		if (!n)
			goto fail;
		*n = *v;
		if (v->shared) {
			ref_get(&v->region->refs);
		} else {
			r = region_new(v->len, -1, false, 0, &n->region);
			if (r) {
				slab_free(&map_slab, n);
				goto fail;
			}
			n->off = 0;
			copy_sparse(n->region->base, v->region, v->off, v->len);
		}
		TAILQ_INSERT_TAIL(ret, n, link);
	}
	return 0;
fail:
	fake_mem_fini(ret);
	return -ENOMEM;
}

size_t fake_mem_copy(struct fake_maps *m, uint64_t addr, void *buf, size_t len, bool write)
{
	uint32_t need = write ? PROT_WRITE : PROT_READ | PROT_EXEC | PROT_WRITE;
	size_t done = 0;

	for (struct fake_map *v = find(m, addr); v && done < len; v = TAILQ_NEXT(v, link)) {
		size_t n, got;
		char *p;

		if (v->addr > addr || !(v->prot & need))
			break;
		p = v->region->base + v->off + (addr - v->addr);
		n = MIN(len - done, v->addr + v->len - addr);
		got = copy_bytes(v->region, p, (char *)buf + done, n, write);
		done += got;
		addr += got;
		if (got < n)
			break;
	}
	return done;
}

const void *fake_mem_host(struct fake_maps *m, uint64_t addr)
{
	struct fake_map *v = find(m, addr);
	char byte;

	if (!v || fake_mem_copy(m, addr, &byte, 1, false) != 1)
		return NULL;
	return v->region->base + v->off + (addr - v->addr);
}
