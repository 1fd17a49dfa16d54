// Guest memory from outside, and CPU time.
#include <sys/uio.h>
#include <time.h>

#include "platform/systrap/internal.h"

#define IOV_MANY 1024

static bool span(uint64_t addr, const struct iovec *local, int n, uint64_t *ret_len)
{
	uint64_t len = 0;

	if (n < 0 || n > IOV_MANY)
		return false;
	for (int i = 0; i < n; i++)
		if (__builtin_add_overflow(len, local[i].iov_len, &len))
			return false;
	if (addr >= PF_GUEST_TOP)
		return false;
	*ret_len = MIN(len, PF_GUEST_TOP - addr);
	return true;
}

typedef ssize_t (*vm_call)(pid_t, const struct iovec *, unsigned long, const struct iovec *, unsigned long, unsigned long);

static ssize_t move(vm_call call, struct pf_as *pf_as, uint64_t addr, const struct iovec *local, int n)
{
	struct st_as *as = st_as_of(pf_as);
	struct iovec remote = {(void *)addr, 0};
	ssize_t r;

	if (!span(addr, local, n, &remote.iov_len) || as->dead || !as->pid)
		return -EFAULT;
	if (remote.iov_len == 0)
		return 0;
	r = call(as->pid, local, (unsigned long)n, &remote, 1, 0);
	return r > 0 ? r : -EFAULT;
}

ssize_t systrap_readv(struct pf_as *pf_as, uint64_t addr, const struct iovec *local, int n)
{
	return move(process_vm_readv, pf_as, addr, local, n);
}

ssize_t systrap_writev(struct pf_as *pf_as, uint64_t addr, const struct iovec *local, int n)
{
	return move(process_vm_writev, pf_as, addr, local, n);
}

uint64_t systrap_as_cpu_ns(struct pf_as *pf_as)
{
	struct st_as *as = st_as_of(pf_as);
	struct timespec ts;

	// The CPU clock of a process: clock_getcpuclockid(3).
	if (as->pid && clock_gettime((clockid_t)(~(unsigned)as->pid << 3 | 2), &ts) == 0)
		as->cpu_ns = (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
	return as->cpu_ns;
}

uint64_t systrap_ctx_cpu_ns(struct pf_ctx *ctx)
{
	struct st_as *as = ctx_as(st_ctx_of(ctx));

	// Known for the only thread; an equal share otherwise.
	return systrap_as_cpu_ns(&as->base) / MAX(1U, as->n_ctx);
}
