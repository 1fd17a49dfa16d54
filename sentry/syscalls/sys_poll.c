// poll(2), ppoll(2), select(2), pselect6(2).
#include <poll.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <time.h>

#include "platform/base/base.h"
#include "platform/base/slab.h"
#include "sentry/syscalls/sigmask.h"
#include "sentry/syscalls/wire.h"

#define FEW 16
#define SELECT_IN (EPOLLRDNORM | EPOLLRDBAND | EPOLLIN | EPOLLHUP | EPOLLERR)
#define SELECT_OUT (EPOLLWRBAND | EPOLLWRNORM | EPOLLOUT | EPOLLERR)
#define SELECT_EX EPOLLPRI

// One descriptor to wait for, whoever asks.
struct poll_ent {
	int fd;
	uint32_t events, revents;
	struct file *file; // counted while we wait
};
struct poll_block {
	struct poll_block *next;
	unsigned n;
	struct wait_entry e[64];
};
// The wait entries of one call: the first few on the stack.
struct poll_set {
	struct poll_table pt;
	uint32_t mask;
	unsigned nfew;
	bool failed;
	struct wait_entry few[FEW];
	struct poll_block *blocks;
};

static void set_queue(struct poll_table *pt, struct waitq *wq)
{
	struct poll_set *s = container_of(pt, struct poll_set, pt);
	struct poll_block *b = s->blocks;
	struct wait_entry *e;

	if (s->nfew < FEW) {
		e = &s->few[s->nfew++];
	} else {
		if (!b || b->n == ARRAY_SIZE(b->e)) {
			b = kalloc(sizeof(*b));
			if (!b) {
				s->failed = true;
				return;
			}
			b->next = s->blocks;
			s->blocks = b;
		}
		e = &b->e[b->n++];
	}
	wait_entry_task(e, s->mask);
	waitq_add(wq, e);
}

static void set_free(struct poll_set *s)
{
	struct poll_block *b;

	for (unsigned i = 0; i < s->nfew; i++)
		waitq_remove(&s->few[i]);
	while ((b = s->blocks)) {
		for (unsigned i = 0; i < b->n; i++)
			waitq_remove(&b->e[i]);
		s->blocks = b->next;
		kfree(b);
	}
}

static uint32_t ent_poll(struct poll_ent *e, struct file *f, struct poll_table *pt)
{
	uint32_t got = f->ops->poll ? file_poll(f, pt) : EPOLLIN | EPOLLOUT | EPOLLRDNORM | EPOLLWRNORM;

	return got & (e->events | EPOLLERR | EPOLLHUP);
}

// Without waiting. The number that are ready.
static int ask_all(struct poll_ent *ents, unsigned n)
{
	int ready = 0;

	for (unsigned i = 0; i < n; i++) {
		struct poll_ent *e = &ents[i];
		struct file *f;

		e->revents = 0;
		if (e->fd < 0)
			continue;
		f = e->file ?: fd_peek(e->fd);
		e->revents = f ? ent_poll(e, f, NULL) : POLLNVAL;
		ready += e->revents != 0;
	}
	return ready;
}

// Number of entries with revents; 0 at the deadline; -EINTR; -ENOMEM.
static int poll_ents(struct poll_ent *ents, unsigned n, nsec_t deadline)
{
	struct poll_set s = {.pt.queue = set_queue};
	int ready = ask_all(ents, n), r = 0;

	if (ready || !deadline)
		return ready;
	for (unsigned i = 0; i < n && !s.failed; i++) {
		struct poll_ent *e = &ents[i];

		e->file = e->fd < 0 ? NULL : fd_get(e->fd);
		if (!e->file)
			continue;
		s.mask = e->events | EPOLLERR | EPOLLHUP;
		ent_poll(e, e->file, &s.pt);
	}
	if (s.failed)
		r = -ENOMEM;
	for (;;) {
		ready = ask_all(ents, n);
		if (ready || r)
			break;
		r = sched_sleep(WAIT_INTERRUPTIBLE, deadline);
	}
	set_free(&s);
	for (unsigned i = 0; i < n; i++)
		file_put(ents[i].file);
	return ready ? ready : r == -ETIMEDOUT ? 0 : r;
}

// --- poll -----------------------------------------------------------------------------------------

static int64_t do_poll(struct task *t, struct gaddr ufds, unsigned n, nsec_t deadline)
{
	struct poll_ent few[FEW] = {}, *ents = few;
	struct pollfd pfew[FEW], *pfds = pfew;
	int64_t r;

	if (n > t->vt.nofile_limit)
		return -EINVAL;
	if (n > FEW) {
		ents = kalloc(n * sizeof(*ents));
		pfds = kalloc(n * sizeof(*pfds));
		if (!ents || !pfds) {
			r = -ENOMEM;
			goto out;
		}
	}
	r = n ? copy_in(pfds, ufds, n * sizeof(*pfds)) : 0;
	if (r)
		goto out;
	for (unsigned i = 0; i < n; i++)
		ents[i] = (struct poll_ent){.fd = pfds[i].fd, .events = (uint16_t)pfds[i].events};
	r = poll_ents(ents, n, deadline);
	if (r >= 0) {
		for (unsigned i = 0; i < n; i++)
			pfds[i].revents = (short)ents[i].revents;
		if (n && copy_out(ufds, pfds, n * sizeof(*pfds)))
			r = -EFAULT;
	}
out:
	if (ents != few)
		kfree(ents);
	if (pfds != pfew)
		kfree(pfds);
	return r;
}

static int64_t poll_restart(struct task *t)
{
	int64_t r = do_poll(t, GADDR(t->restart.data[0]), (unsigned)t->restart.data[1], t->restart.data[2]);

	return r == -EINTR ? -ERESTART_RESTARTBLOCK : r;
}

SYSCALL(poll)
{
	int ms = arg_int(a[2]);
	nsec_t deadline = ms < 0 ? NSEC_INFINITE : ms == 0 ? 0 : sched_now() + (nsec_t)ms * 1000000;
	int64_t r = do_poll(t, GADDR(a[0]), arg_uint(a[1]), deadline);

	if (r != -EINTR)
		return r;
	t->restart = (struct restart_block){.fn = poll_restart, .data = {a[0], arg_uint(a[1]), deadline}};
	return -ERESTART_RESTARTBLOCK;
}

// --- time outs --------------------------------------------------------------------------------------

static nsec_t deadline_after(int64_t sec, int64_t nsec)
{
	nsec_t now;

	if (!sec && !nsec)
		return 0;
	now = sched_now();
	if ((uint64_t)sec >= (NSEC_INFINITE - now) / NSEC_PER_SEC - 1)
		return NSEC_INFINITE;
	return now + (nsec_t)sec * NSEC_PER_SEC + (nsec_t)nsec;
}

static struct timespec time_left(nsec_t deadline)
{
	nsec_t now = sched_now(), left = deadline > now ? deadline - now : 0;

	return (struct timespec){(time_t)(left / NSEC_PER_SEC), (long)(left % NSEC_PER_SEC)};
}

// Linux tells how much time was left; that it cannot do so (read-only memory) is no error, but then
// the call cannot be restarted with what is left.
static int64_t finish(struct task *t, struct gaddr ts, nsec_t deadline, bool timeval, int64_t r)
{
	struct timespec left = time_left(deadline);

	sigmask_leave(t, r == -EINTR);
	if (!gaddr_null(ts) && deadline != NSEC_INFINITE) {
		if (timeval)
			left.tv_nsec /= 1000;
		if (copy_out_obj(ts, &left))
			return r;
	}
	return r == -EINTR ? -ERESTARTNOHAND : r;
}

SYSCALL(ppoll)
{
	nsec_t deadline;
	int64_t r = wire_deadline_in(GADDR(a[2]), &deadline);

	if (!r)
		r = sigmask_enter(t, GADDR(a[3]), a[4]);
	if (r)
		return r;
	r = do_poll(t, GADDR(a[0]), arg_uint(a[1]), deadline);
	return finish(t, GADDR(a[2]), deadline, false, r);
}

// --- select -----------------------------------------------------------------------------------------

static int bits_in(uint64_t *dst, struct gaddr src, size_t bytes)
{
	if (gaddr_null(src)) {
		memset(dst, 0, bytes);
		return 0;
	}
	return copy_in(dst, src, bytes);
}

static bool bit(const uint64_t *set, unsigned i)
{
	return set[i / 64] >> (i % 64) & 1;
}

// From three bit sets (in, out, ex of `words` each) to entries. -EBADF.
static int ents_from_bits(const uint64_t *bits, unsigned words, unsigned n, struct poll_ent **ret, unsigned *ret_n)
{
	const uint64_t *in = bits, *out = bits + words, *ex = bits + 2 * words;
	struct poll_ent *ents;
	unsigned count = 0;

	for (unsigned w = 0; w < words; w++)
		count += __builtin_popcountll(in[w] | out[w] | ex[w]);
	ents = kalloc(MAX(count, 1U) * sizeof(*ents));
	if (!ents)
		return -ENOMEM;
	count = 0;
	for (unsigned w = 0; w < words; w++) {
		uint64_t any = in[w] | out[w] | ex[w];

		for (; any; any &= any - 1) {
			unsigned fd = w * 64 + __builtin_ctzll(any);

			if (fd >= n)
				break;
			if (!fd_peek(fd)) {
				kfree(ents);
				return -EBADF;
			}
			ents[count++] = (struct poll_ent){.fd = (int)fd,
							  .events = (bit(in, fd) ? SELECT_IN : 0) |
								    (bit(out, fd) ? SELECT_OUT : 0) |
								    (bit(ex, fd) ? SELECT_EX : 0)};
		}
	}
	*ret = ents;
	*ret_n = count;
	return 0;
}

// Turns revents into result bits (written over the input bits); how many are set.
static int bits_from_ents(uint64_t *bits, unsigned words, const struct poll_ent *ents, unsigned n)
{
	static const uint32_t masks[3] = {SELECT_IN, SELECT_OUT, SELECT_EX};
	int count = 0;

	for (unsigned i = 0; i < n; i++) {
		for (int k = 0; k < 3; k++) {
			uint64_t *set = bits + k * words, m = 1ULL << (ents[i].fd % 64);
			bool wanted = set[ents[i].fd / 64] & m;

			// Errors and hang-ups are reported to those who asked for this set only.
			if (wanted && (ents[i].revents & masks[k] || ents[i].revents & POLLNVAL))
				count++;
			else
				set[ents[i].fd / 64] &= ~m;
		}
	}
	return count;
}

static int64_t do_select(int n, const struct gaddr sets[3], nsec_t deadline)
{
	uint64_t few[3 * 16], *bits = few;
	struct poll_ent *ents;
	unsigned words, nents;
	int64_t r = 0;

	if (n < 0)
		return -EINVAL;
	n = MIN(n, (int)fd_table_size(vfs_self()->files)); // as Linux: what cannot be open is not looked at
	words = ((unsigned)n + 63) / 64;
	if (words > 16) {
		bits = kalloc(3UL * words * 8);
		if (!bits)
			return -ENOMEM;
	}
	for (int k = 0; k < 3 && !r; k++)
		r = bits_in(bits + k * words, sets[k], words * 8UL);
	if (!r)
		r = ents_from_bits(bits, words, n, &ents, &nents);
	if (r)
		goto out;
	r = poll_ents(ents, nents, deadline);
	if (r >= 0) {
		r = bits_from_ents(bits, words, ents, nents);
		for (int k = 0; k < 3; k++)
			if (!gaddr_null(sets[k]) && words && copy_out(sets[k], bits + k * words, words * 8UL))
				r = -EFAULT;
	}
	kfree(ents);
out:
	if (bits != few)
		kfree(bits);
	return r;
}

SYSCALL(select)
{
	const struct gaddr sets[3] = {GADDR(a[1]), GADDR(a[2]), GADDR(a[3])};
	nsec_t deadline = NSEC_INFINITE;
	struct timeval tv;
	int64_t r;

	if (a[4]) {
		r = copy_in_obj(&tv, GADDR(a[4]));
		if (r)
			return r;
		if (tv.tv_sec < 0 || tv.tv_usec < 0)
			return -EINVAL;
		if (tv.tv_usec >= 1000000) {
			tv.tv_sec += tv.tv_usec / 1000000;
			tv.tv_usec %= 1000000;
		}
		deadline = deadline_after(tv.tv_sec, tv.tv_usec * 1000);
	}
	r = do_select(arg_int(a[0]), sets, deadline);
	return finish(t, GADDR(a[4]), deadline, true, r);
}

SYSCALL(pselect6)
{
	const struct gaddr sets[3] = {GADDR(a[1]), GADDR(a[2]), GADDR(a[3])};
	uint64_t mask[2] = {};
	nsec_t deadline;
	int64_t r = wire_deadline_in(GADDR(a[4]), &deadline);

	if (!r && a[5])
		r = copy_in(mask, GADDR(a[5]), sizeof(mask));
	if (!r)
		r = sigmask_enter(t, GADDR(mask[0]), mask[1]);
	if (r)
		return r;
	r = do_select(arg_int(a[0]), sets, deadline);
	return finish(t, GADDR(a[4]), deadline, false, r);
}
