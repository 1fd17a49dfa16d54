// The container's first process: credentials, limits, standard descriptors.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "platform/base/base.h"
#include "platform/base/log.h"
#include "platform/base/slab.h"
#include "sentry/boot/internal.h"
#include "sentry/fs/devpts/tty.h"
#include "sentry/fs/hostfd/hostfd.h"
#include "sentry/kernel/task.h"

static int compare_gid(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static struct cred *make_cred(const struct spec *s)
{
	struct cred *c = cred_new();

	if (!c)
		return NULL;
	c->uid = c->euid = c->suid = c->fsuid = s->user.uid;
	c->gid = c->egid = c->sgid = c->fsgid = s->user.gid;
	c->cap_bounding = s->caps.bounding;
	c->cap_permitted = s->caps.permitted;
	c->cap_effective = s->caps.effective & s->caps.permitted;
	c->cap_inheritable = s->caps.inheritable;
	c->cap_ambient = s->caps.ambient & s->caps.permitted & s->caps.inheritable;
	c->no_new_privs = s->no_new_privs;
	if (s->user.ngroups) {
		c->groups = kalloc(s->user.ngroups * sizeof(uint32_t));
		if (!c->groups) {
			cred_put(c);
			return NULL;
		}
		memcpy(c->groups, s->user.groups, s->user.ngroups * sizeof(uint32_t));
		c->ngroups = s->user.ngroups;
		qsort(c->groups, c->ngroups, sizeof(uint32_t), compare_gid);
	}
	return c;
}

static void make_rlimits(const struct boot_doc *d, struct rlimits *ret)
{
	const struct spec *s = d->spec;

	for (unsigned i = 0; i < 16; i++) {
		const uint64_t *v = s->rlim_set & (1u << i) ? s->rlim[i] : d->rlim[i];

		ret->v[i].cur = v[0];
		ret->v[i].max = v[1];
	}
	// The descriptor table is the sentry's memory.
	ret->v[RLIMIT_NOFILE].max = MIN(ret->v[RLIMIT_NOFILE].max, 1u << 20);
	ret->v[RLIMIT_NOFILE].cur = MIN(ret->v[RLIMIT_NOFILE].cur, ret->v[RLIMIT_NOFILE].max);
}

static int open_stdio(const struct spec *s)
{
	for (int fd = 0; fd < 3; fd++) {
		struct file *f;
		int r = hostfd_file_new(fd, O_RDWR, &f);

		if (r == -EBADF) // closed: it stays so
			continue;
		if (r == 0) {
			hostfd_set_owner(f, s->user.uid, s->user.gid);
			r = fd_install_from(f, fd, 0);
			if (r < 0)
				file_put(f);
		}
		if (r < 0) {
			control_fail(128, "descriptor %d: %s", fd, strerror(-r));
			return 128;
		}
	}
	return 0;
}

// The container's terminal on all three: the host's is descriptor 0, opened for this sandbox alone.
static int open_terminal(const struct spec *s, struct tty **ret_tty)
{
	struct file *f;
	char path[32];
	int r = tty_console_new(0, ret_tty);

	if (r < 0) {
		control_fail(128, "process.terminal: %s", strerror(-r));
		return 128;
	}
	(*ret_tty)->uid = s->user.uid;
	snprintf(path, sizeof(path), "/dev/pts/%d", (*ret_tty)->index);
	r = vfs_openat(AT_FDCWD, path, O_RDWR | O_NOCTTY, 0, 0, &f);
	if (r < 0)
		r = vfs_openat(AT_FDCWD, "/dev/console", O_RDWR | O_NOCTTY, 0, 0, &f);
	for (int fd = 0; fd < 3 && r >= 0; fd++)
		r = fd_install_from(fd < 2 ? file_get(f) : f, fd, 0);
	if (r < 0) {
		control_fail(128, "process.terminal: neither %s nor /dev/console: %s", path, strerror(-r));
		return 128;
	}
	return 0;
}

static void on_exit_of_first(struct thread_group *tg, void *arg)
{
	control_guest_ended(tg->exit_code);
}

static int fail(const struct spec *s, int r)
{
	switch (-r) {
	case ENOENT:
	case ENOTDIR:
		control_fail(127, "%s: not found", s->args.v[0]);
		return 127;
	case EACCES:
	case ENOEXEC:
	case EISDIR:
		control_fail(126, "%s: cannot be executed: %s", s->args.v[0], strerror(-r));
		return 126;
	default:
		control_fail(126, "%s: %s", s->args.v[0], strerror(-r));
		return 126;
	}
}

int boot_process_start(const struct boot_doc *d, struct fs_struct *fs)
{
	const struct spec *s = d->spec;
	struct vfs_task *self = vfs_self();
	struct cred *cred = make_cred(s);
	struct thread_group *tg;
	struct tty *tty = NULL;
	struct rlimits rlim;
	int r;

	self->files = fd_table_new();
	if (!self->files || !cred) {
		control_fail(128, "out of memory");
		return 128;
	}
	make_rlimits(d, &rlim);
	r = s->terminal ? open_terminal(s, &tty) : open_stdio(s);
	if (r)
		return r;
	fs->umask = s->user.umask;
	struct boot_process bp = {
		.argv = (const char *const *)s->args.v, .envp = (const char *const *)s->env.v, .cwd = s->cwd, .cred = cred, .rlim = &rlim,
		.fs = fs, .files = self->files, .uts = current_task()->uts, .tty = tty, .no_new_privs = s->no_new_privs, .on_exit = on_exit_of_first};

	r = kernel_start_process(&bp, &tg);
	cred_put(cred);
	if (r < 0)
		return fail(s, r);
	tg->oom_score_adj = s->oom_score_adj;
	if (tty && !tty->session) { // it leads the session whose terminal this is
		tty->session = pid_get(tg->session);
		tty->pgrp = pid_get(tg->pgrp);
	}
	fd_table_put(self->files);
	self->files = NULL;
	return 0;
}
