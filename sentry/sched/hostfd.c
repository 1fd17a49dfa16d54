// Host descriptors in the loop's epoll set.
#include <sys/epoll.h>
#include <time.h>

#include "platform/base/log.h"
#include "sentry/sched/internal.h"

#define BATCH 64

static int epfd = -1;
static unsigned nr_fds;
// The batch being worked through: a function may remove descriptors that come later in it.
static struct epoll_event batch[BATCH];
static int batch_n;

int hostfd_init(void)
{
	epfd = epoll_create1(EPOLL_CLOEXEC);
	nr_fds = 0;
	return epfd < 0 ? -errno : 0;
}

void hostfd_fini(void)
{
	if (epfd >= 0)
		close(epfd);
	epfd = -1;
}

// The platform's descriptor only ends a sleep: its events have no function.
int hostfd_watch_platform(int fd)
{
	struct epoll_event ev = {.events = EPOLLIN};

	return epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

int host_fd_add(struct host_fd *h, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = h};

	if (epoll_ctl(epfd, EPOLL_CTL_ADD, h->fd, &ev) < 0)
		return -errno;
	nr_fds++;
	return 0;
}

int host_fd_mod(struct host_fd *h, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = h};

	return epoll_ctl(epfd, EPOLL_CTL_MOD, h->fd, &ev) < 0 ? -errno : 0;
}

void host_fd_remove(struct host_fd *h)
{
	for (int i = 0; i < batch_n; i++)
		if (batch[i].data.ptr == h)
			batch[i].data.ptr = NULL;
	if (epoll_ctl(epfd, EPOLL_CTL_DEL, h->fd, NULL) < 0) {
		log_err("host_fd_remove(%d): %s", h->fd, strerror(errno));
		return;
	}
	kassert(nr_fds > 0);
	nr_fds--;
}

bool hostfd_any(void)
{
	return nr_fds > 0;
}

static int wait_batch(nsec_t deadline)
{
	static bool no_pwait2;
	nsec_t now = deadline && deadline != NSEC_INFINITE ? sched_now() : 0;
	nsec_t left = deadline > now ? deadline - now : 0;
	struct timespec ts = {.tv_sec = (time_t)(left / NSEC_PER_SEC), .tv_nsec = (long)(left % NSEC_PER_SEC)};
	int n;

	if (!no_pwait2 && deadline) {
		n = epoll_pwait2(epfd, batch, BATCH, deadline == NSEC_INFINITE ? NULL : &ts, NULL);
		if (n >= 0 || errno != ENOSYS)
			return n;
		no_pwait2 = true; // Linux before 5.11
	}
	// Rounded up: a timer must not be looked at before its time, over and over.
	if (deadline == NSEC_INFINITE)
		return epoll_wait(epfd, batch, BATCH, -1);
	left = MIN((left + 999999) / 1000000, 1000000UL);
	return epoll_wait(epfd, batch, BATCH, (int)left);
}

void hostfd_poll(nsec_t deadline)
{
	int n = wait_batch(deadline);

	if (n < 0) {
		if (errno != EINTR)
			panic("epoll: %s", strerror(errno));
		return;
	}
	batch_n = n;
	for (int i = 0; i < n; i++) {
		struct host_fd *h = batch[i].data.ptr;

		if (h)
			h->fn(h, batch[i].events);
	}
	batch_n = 0;
}
