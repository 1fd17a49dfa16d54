// Host-work threads: for host calls that may block. They touch nothing but the work they run.
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

#include "platform/base/log.h"
#include "sentry/sched/internal.h"

#define MAX_THREADS 16U
#define THREAD_STACK (128UL << 10)

STAILQ_HEAD(work_list, host_work);

// Both sides, under `lock`.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static struct work_list todo, finished;
static unsigned nr_idle, nr_todo;
static bool stopping;
// The kernel thread's.
static pthread_t threads[MAX_THREADS];
static unsigned nr_threads, max_threads, nr_busy;
static struct host_fd event = {.fd = -1};

static void *worker(void *arg)
{
	uint64_t one = 1;

	prctl(PR_SET_NAME, "host-work");
	pthread_mutex_lock(&lock);
	for (;;) {
		struct host_work *w = STAILQ_FIRST(&todo);
		bool first;

		if (!w) {
			if (stopping)
				break;
			nr_idle++;
			pthread_cond_wait(&more, &lock);
			nr_idle--;
			continue;
		}
		STAILQ_REMOVE_HEAD(&todo, link);
		nr_todo--;
		pthread_mutex_unlock(&lock);
		w->fn(w);
		pthread_mutex_lock(&lock);
		first = STAILQ_EMPTY(&finished);
		STAILQ_INSERT_TAIL(&finished, w, link);
		if (!first)
			continue;
		pthread_mutex_unlock(&lock);
		if (write(event.fd, &one, sizeof(one)) < 0)
			panic("host work: eventfd: %s", strerror(errno));
		pthread_mutex_lock(&lock);
	}
	pthread_mutex_unlock(&lock);
	return NULL;
}

static void collect(struct host_fd *h, uint32_t events)
{
	struct work_list got = STAILQ_HEAD_INITIALIZER(got);
	struct host_work *w;
	uint64_t n;

	if (read(event.fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
		panic("host work: eventfd: %s", strerror(errno));
	pthread_mutex_lock(&lock);
	STAILQ_CONCAT(&got, &finished);
	pthread_mutex_unlock(&lock);
	while ((w = STAILQ_FIRST(&got))) {
		STAILQ_REMOVE_HEAD(&got, link);
		kassert(nr_busy > 0);
		nr_busy--;
		w->done = true;
		sched_make_runnable(w->task);
	}
	if (nr_busy == 0)
		host_fd_remove(&event); // an idle loop need not look
}

int hostwork_init(unsigned max)
{
	STAILQ_INIT(&todo);
	STAILQ_INIT(&finished);
	max_threads = MIN(max, MAX_THREADS);
	nr_threads = nr_busy = nr_idle = nr_todo = 0;
	stopping = false;
	event = (struct host_fd){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .fn = collect};
	return event.fd < 0 ? -errno : 0;
}

void hostwork_fini(void)
{
	pthread_mutex_lock(&lock);
	stopping = true;
	pthread_cond_broadcast(&more);
	pthread_mutex_unlock(&lock);
	for (; nr_threads > 0; nr_threads--)
		pthread_join(threads[nr_threads - 1], NULL);
	if (event.fd >= 0)
		close(event.fd);
	event.fd = -1;
}

static int start_thread(void)
{
	sigset_t all, old;
	pthread_attr_t attr;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, THREAD_STACK);
	sigfillset(&all); // signals are for the kernel thread
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&threads[nr_threads], &attr, worker, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (r == 0)
		nr_threads++;
	return -r;
}

void host_work_run(struct host_work *w)
{
	int r = 0;

	may_wait();
	w->task = sched_g.current;
	w->done = false;
	// A simulation must not depend on how threads run.
	if (sched_g.virtual_clock) {
		w->fn(w);
		w->done = true;
		sched_yield_cpu();
		return;
	}
	if (nr_busy == 0) {
		r = host_fd_add(&event, EPOLLIN);
		if (r < 0)
			panic("host work: epoll: %s", strerror(-r));
	}
	nr_busy++;
	pthread_mutex_lock(&lock);
	if (nr_idle <= nr_todo && nr_threads < max_threads)
		r = start_thread();
	STAILQ_INSERT_TAIL(&todo, w, link);
	nr_todo++;
	pthread_cond_signal(&more);
	pthread_mutex_unlock(&lock);
	if (nr_threads == 0)
		panic("host work: no thread can be started: %s", strerror(-r));
	while (!w->done)
		sched_block();
}
