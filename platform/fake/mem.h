// Guest memory of the fake platform: a sorted list of mappings of host memory.
#pragma once
#include <sys/queue.h>

#include "platform/platform.h"

struct fake_map;
TAILQ_HEAD(fake_maps, fake_map);

void fake_mem_init(struct fake_maps *m);
void fake_mem_fini(struct fake_maps *m);
// Applies one operation. op->fd is borrowed. 0 or -errno as the host's call would give.
int fake_mem_op(struct fake_maps *m, const struct pf_op *op);
// Shared mappings are shared, private ones copied. -ENOMEM leaves ret empty.
int fake_mem_fork(const struct fake_maps *m, struct fake_maps *ret);
// Bytes copied before the first address that may not be accessed so.
size_t fake_mem_copy(struct fake_maps *m, uint64_t addr, void *buf, size_t len, bool write);
// Where the byte at addr lies in this process, the same for all who share it; NULL: nowhere readable.
const void *fake_mem_host(struct fake_maps *m, uint64_t addr);
