// The sentry's main: from a fresh process with an inherited job to a locked-down kernel that runs it.
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/base/base.h"
#include "platform/base/log.h"
#include "platform/filter/filter.h"
#include "platform/platform.h"
#include "platform/ptrace/zygote.h"
#include "platform/systrap/zygote.h"
#include "sentry/boot/internal.h"
#include "sentry/boot/jail.h"
#include "sentry/fs/gofer/gofer.h"
#include "sentry/kernel/task.h"
#include "sentry/mm/mm.h"
#include "sentry/sched/sched.h"
#include "sentry/strace/strace.h"

extern const struct filter_prog sentry_filter, sentry_filter_ptrace;

static struct boot_doc *doc;
static struct task boot_task; // a kernel task: it mounts and starts, then is over
static struct platform *pf;
static struct gofer_conn *gofer;

static void say_and_log(const char *line)
{
	control_fail(128, "cannot isolate the sentry: %s", line);
}

static int read_doc(void)
{
	struct spec_err err;
	struct stat st;
	char *text;
	int r;

	if (fstat(BOOT_FD_DOC, &st) < 0 || st.st_size > (off_t)SPEC_MAX_BYTES + 65536)
		return -EINVAL;
	text = malloc(st.st_size + 1);
	if (!text)
		return -ENOMEM;
	if (pread(BOOT_FD_DOC, text, st.st_size, 0) != st.st_size) {
		free(text);
		return -EIO;
	}
	r = boot_doc_decode(text, st.st_size, &doc, &err);
	if (r == -EINVAL)
		control_fail(128, "%s", err.msg);
	free(text);
	close(BOOT_FD_DOC);
	return r;
}

#define GOFER_SPIN_NS 60000 // a sleep and two wake-ups of an idle core

static void on_gofer_dead(void *arg)
{
	log_err("the gofer is gone: ending the sandbox");
	control_fail(137, "the gofer was killed");
	boot_exit(137);
}

static void on_zygote_dead(struct platform *p)
{
	log_err("the zygote is gone: ending the sandbox");
	control_fail(137, "the zygote was killed");
	boot_exit(137);
}

// Gives up everything but what the filter's table lists. Before: the zygote is started, host facts are read.
static int lock_down(void)
{
	int r;

	log_debug("boot: locking down");
	jail_init_fn(say_and_log);
	if (!BOOT_SANITIZED)
		jail_empty_root();
	jail_set_caps(0, false);
	prctl(PR_SET_DUMPABLE, 0);
	if (BOOT_SANITIZED)
		return 0;
	r = filter_install(strcmp(pf_name(pf), "ptrace") == 0 ? &sentry_filter_ptrace : &sentry_filter, 0);
	if (r < 0)
		control_fail(128, "cannot install the system call filter: %s", strerror(-r));
	return r;
}

static int start_platform(void)
{
	struct pf_config cfg = {.hooks = {.event = sched_ctx_event, .wait = sched_ctx_wait, .patch_area = mm_patch_area, .lost = on_zygote_dead}, .zygote_sock = -1,
				.zygote_pid = -1, .host_cpus = doc->host_cpus, .no_patching = doc->no_patching};
	struct zygote_config zc = {.id = doc->id};
	pid_t pid;
	int r;

	// Its exec must not bring back what is only for mounting the empty root.
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (strcmp(doc->platform, "ptrace") == 0)
		r = ptrace_zygote_start(doc->id, &cfg.zygote_sock, &pid);
	else
		r = zygote_start(&zc, &cfg.zygote_sock, &pid);
	if (r < 0) {
		control_fail(128, "cannot start the zygote: %s", strerror(-r));
		return r;
	}
	cfg.zygote_pid = pid;
	r = pf_create(doc->platform, &cfg, &pf);
	if (r < 0)
		control_fail(128, "platform %s: %s", doc->platform, strerror(-r));
	return r;
}

// The container's life begins: on a task, since nearly all of it may wait.
static int bring_up(void)
{
	struct fs_struct *fs = fs_struct_new();
	const struct spec *s = doc->spec;
	int r;

	boot_task.vt.fs = fs;
	boot_task.vt.cred = cred_new();
	boot_task.uts = uts_ns_new(s->hostname[0] ? s->hostname : "runsc", s->domainname[0] ? s->domainname : "(none)");
	if (!fs || !boot_task.vt.cred || !boot_task.uts) {
		control_fail(128, "out of memory");
		return 128;
	}
	log_debug("boot: mounting");
	r = boot_mounts(doc, gofer, fs);
	gofer_conn_put(gofer);
	if (r)
		return r;
	if (doc->wait_start) {
		control_send(CTL_CREATED, 0, NULL);
		control_await_start();
	}
	log_debug("boot: starting %s", doc->spec->args.v[0]);
	r = boot_process_start(doc, fs);
	log_debug("boot: started");
	if (r == 0)
		control_send(CTL_RUNNING, 0, NULL);
	return r;
}

static void boot_done(void *arg)
{
}

static void boot_task_main(void *arg)
{
	int r = bring_up();

	if (r)
		boot_exit(r); // control_fail() has told why
	fs_struct_put(boot_task.vt.fs);
	cred_put(boot_task.vt.cred);
	uts_ns_put(boot_task.uts);
	boot_doc_free(doc);
	doc = NULL;
	sched_exit(boot_done, NULL);
}

static int start_kernel(void)
{
	struct sched_config sc = {.pf = pf, .host_threads = 4};
	int r;

	log_debug("boot: starting the kernel");
	r = sched_init(&sc);

	if (!r)
		r = kernel_init(pf);
	if (!r)
		r = boot_register_all(doc);
	if (!r)
		r = control_init(doc->plain_first);
	if (!r)
		r = gofer_conn_new(BOOT_FD_GOFER, on_gofer_dead, NULL, &gofer);
	if (!r)
		gofer_conn_set_spin(gofer, doc->host_cpus > 1 ? GOFER_SPIN_NS : 0);
	if (!r)
		r = lock_down();
	if (!r)
		r = sched_spawn(&boot_task.vt.st, "boot", boot_task_main, NULL);
	if (r < 0)
		control_fail(128, "cannot start the kernel: %s", strerror(-r));
	return r;
}

int boot_main(int argc, char **argv)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, BOOT_SENTRY_NAME);
	signal(SIGPIPE, SIG_IGN);
	if (read_doc() < 0)
		return 128;
	boot_crash_init();
	log_init(BOOT_FD_LOG, doc->debug ? LOG_DEBUG : doc->strace || doc->log_file ? LOG_INFO : LOG_ERR, doc->id);
	for (unsigned i = 0; i < doc->spec->ignored.n; i++)
		log_info("config.json: %s is not acted on", doc->spec->ignored.v[i]);
	if (doc->strace)
		strace_init();
	boot_task.kernel_thread = true;
	boot_task.vt.nofile_limit = 1024;
	boot_task.vt.fsize_limit = UINT64_MAX;
	log_debug("boot: starting platform %s", doc->platform);
	if (start_platform() < 0 || start_kernel() < 0)
		return 128;
	boot_exit(sched_run());
}
