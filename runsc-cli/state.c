#include "runsc-cli/state.h"

#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "platform/base/base.h"
#include "runsc-cli/cli.h"
#include "sentry/boot/boot.h"

int state_check_id(const char *id)
{
	size_t n = strlen(id);

	if (n == 0 || n > 128 || strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-.") != n ||
	    id[0] == '.')
		return cli_fail("%s is not a container id (letters, digits, _ + - . and not first a dot)", id);
	return 0;
}

static int open_root(bool create, int *ret)
{
	char path[4096];
	int fd;

	if (create) {
		snprintf(path, sizeof(path), "%s", conf.root);
		for (char *p = path + 1; *p; p++) {
			if (*p != '/')
				continue;
			*p = 0;
			mkdir(path, 0755);
			*p = '/';
		}
		mkdir(path, 0700);
	}
	fd = open(conf.root, O_DIRECTORY | O_PATH | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	*ret = fd;
	return 0;
}

static int open_locked(int root, const char *id, struct state_dir *d)
{
	int dir, lock;

	dir = openat(root, id, O_DIRECTORY | O_PATH | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	lock = openat(dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB) < 0) {
		int e = -errno;

		close(dir);
		if (lock >= 0)
			close(lock);
		return e;
	}
	d->dir = dir;
	d->lock = lock;
	snprintf(d->id, sizeof(d->id), "%s", id);
	return 0;
}

static int read_state(int dir, struct state *ret);

int state_create(const char *id, struct state_dir *ret)
{
	cleanup_close int root = -1;
	struct state old;
	int r;
	bool made;

	r = state_check_id(id);
	if (r)
		return r;
	r = open_root(true, &root);
	if (r < 0)
		return cli_errno(-r, "--root: %s", conf.root);
	made = mkdirat(root, id, 0700) == 0;
	if (!made && errno != EEXIST)
		return cli_errno(errno, "--root: %s/%s", conf.root, id);
	r = open_locked(root, id, ret);
	if (r == -EWOULDBLOCK)
		return cli_fail("container %s exists already", id);
	if (r < 0)
		return cli_errno(-r, "%s/%s", conf.root, id);
	if (made)
		return 0;
	// A directory without an owner. Only what a foreground run (or one that never came to run) left may go.
	if (read_state(ret->dir, &old) == 0) {
		bool keep = !old.attached;

		state_free(&old);
		if (keep) {
			state_close(ret);
			return cli_fail("container %s exists already", id);
		}
	}
	unlinkat(ret->dir, "control.sock", 0);
	return 0;
}

int state_listen(struct state_dir *d, int *ret_fd)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	// Through the descriptor: the path itself may be longer than an address may be.
	snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/control.sock", d->dir);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 16) < 0) {
		int e = errno;

		if (fd >= 0)
			close(fd);
		return cli_errno(e, "control socket of %s", d->id);
	}
	*ret_fd = fd;
	return 0;
}

int state_write(struct state_dir *d, const struct state *s)
{
	json_t *ann = s->annotations ? json_loads(s->annotations, 0, NULL) : json_object();
	json_t *o = json_pack("{s:s,s:s,s:s,s:i,s:s,s:o?,s:b,s:I,s:i}", "ociVersion", OCI_VERSION, "id", s->id, "status", s->status,
			      "pid", (int)s->pid, "bundle", s->bundle, "annotations", ann, "attached", s->attached, "created",
			      (json_int_t)s->created, "exitStatus", s->exit_status);
	char *text = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
	int fd, r = 0;

	json_decref(o);
	if (!text)
		return cli_fail("out of memory");
	fd = openat(d->dir, "state.json.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) ||
	    renameat(d->dir, "state.json.new", d->dir, "state.json") < 0)
		r = cli_errno(errno, "state of %s", d->id);
	if (fd >= 0)
		close(fd);
	free(text);
	return r;
}

void state_remove(struct state_dir *d)
{
	static const char *const names[] = {"state.json", "state.json.new", "control.sock", "lock"};
	cleanup_close int root = -1;

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		unlinkat(d->dir, names[i], 0);
	if (open_root(false, &root) == 0)
		unlinkat(root, d->id, AT_REMOVEDIR);
	state_close(d);
}

void state_remove_orphan(const char *id)
{
	cleanup_close int root = -1;
	struct state_dir d;
	struct state s;

	if (state_check_id(id) || open_root(false, &root) < 0 || open_locked(root, id, &d) < 0)
		return;
	if (read_state(d.dir, &s) == 0) {
		state_free(&s);
		state_close(&d);
		return;
	}
	state_remove(&d);
}

void state_close(struct state_dir *d)
{
	if (d->dir >= 0)
		close(d->dir);
	if (d->lock >= 0)
		close(d->lock);
	d->dir = d->lock = -1;
}

static char *member(json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return strdup(s ? s : "");
}

// 0 or -errno.
static int read_state(int dir, struct state *ret)
{
	cleanup_close int fd = openat(dir, "state.json", O_RDONLY | O_CLOEXEC);
	struct state s = {0};
	json_t *o;

	if (fd < 0)
		return -errno;
	o = json_loadfd(fd, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(o)) {
		json_decref(o);
		return -EINVAL;
	}
	s.id = member(o, "id");
	s.status = member(o, "status");
	s.bundle = member(o, "bundle");
	s.pid = json_integer_value(json_object_get(o, "pid"));
	s.attached = json_is_true(json_object_get(o, "attached"));
	s.created = json_integer_value(json_object_get(o, "created"));
	s.exit_status = json_integer_value(json_object_get(o, "exitStatus"));
	s.annotations = json_dumps(json_object_get(o, "annotations"), JSON_COMPACT);
	json_decref(o);
	if (!s.id || !s.status || !s.bundle) {
		state_free(&s);
		return -ENOMEM;
	}
	*ret = s;
	return 0;
}

bool state_alive(const struct state_dir *d)
{
	cleanup_close int lock = openat(d->dir, "lock", O_RDWR | O_CLOEXEC);

	if (lock < 0)
		return false;
	// Shared, so that several lookers do not take each other for the owner.
	return flock(lock, LOCK_SH | LOCK_NB) < 0;
}

int state_try_open(const char *id, struct state_dir *ret_dir, struct state *ret)
{
	cleanup_close int root = -1;
	struct state_dir d = {.dir = -1, .lock = -1}, dead;
	struct state s;
	int r = open_root(false, &root);

	if (r < 0)
		return r;
	snprintf(d.id, sizeof(d.id), "%s", id);
	d.dir = openat(root, id, O_DIRECTORY | O_PATH | O_CLOEXEC);
	if (d.dir < 0)
		return -errno;
	r = read_state(d.dir, &s);
	if (r < 0) {
		state_close(&d);
		return r;
	}
	// What a foreground run that was killed left behind: nobody would ever delete it.
	if (s.attached && open_locked(root, id, &dead) == 0) {
		state_free(&s);
		state_close(&d);
		state_remove(&dead);
		return -ENOENT;
	}
	if (strcmp(s.status, "stopped") != 0 && !state_alive(&d)) {
		free(s.status);
		s.status = strdup("stopped");
	}
	if (s.status && strcmp(s.status, "stopped") == 0)
		s.pid = 0;
	*ret_dir = d;
	*ret = s;
	return 0;
}

int state_open(const char *id, struct state_dir *ret_dir, struct state *ret)
{
	int r = state_check_id(id);

	if (r)
		return r;
	r = state_try_open(id, ret_dir, ret);
	if (r == -ENOENT)
		return cli_fail("container %s does not exist", id);
	return r < 0 ? cli_errno(-r, "state of %s", id) : 0;
}

void state_free(struct state *s)
{
	free(s->id);
	free(s->status);
	free(s->bundle);
	free(s->annotations);
	*s = (struct state){0};
}

int state_request(const struct state_dir *d, const struct ctl_msg *m)
{
	cleanup_close int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct ctl_msg reply;
	struct pollfd p = {.fd = fd, .events = POLLIN};

	snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/control.sock", d->dir);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return -ESRCH;
	if (send(fd, m, sizeof(*m), MSG_NOSIGNAL) != sizeof(*m))
		return -ESRCH;
	if (poll(&p, 1, 5000) != 1)
		return -ETIMEDOUT;
	if (recv(fd, &reply, sizeof(reply), 0) != sizeof(reply) || reply.op != CTL_OK)
		return -ESRCH;
	return reply.arg > 0 ? -reply.arg : 0;
}

void state_print(const struct state *s)
{
	json_t *ann = s->annotations ? json_loads(s->annotations, 0, NULL) : NULL;
	json_t *o = json_pack("{s:s,s:s,s:s,s:i,s:s,s:o*}", "ociVersion", OCI_VERSION, "id", s->id, "status", s->status, "pid",
			      (int)s->pid, "bundle", s->bundle, "annotations", ann);

	json_dumpf(o, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(o);
}
