// The state of containers: a directory each under --root.
//
//   ROOT/ID/lock          held (flock) by whoever lives with the sandbox, as long as it exists
//   ROOT/ID/state.json    OCI state and a little more; replaced atomically
//   ROOT/ID/control.sock  the sentry listens here
//
// So a container runs exactly as long as its lock is held; a directory whose lock is free is what
// is left of one. Functions return 0 or an exit status after a message, unless they say otherwise.
#pragma once
#include <stdbool.h>
#include <sys/types.h>

struct state {
	char *id;
	char *status;   // creating, created, running, stopped
	char *bundle;
	pid_t pid;
	bool attached;  // `runsc run` in the foreground: nobody will delete it later
	long created;   // seconds since 1970
	int exit_status; // when stopped, of the command line; -1: not known
	char *annotations; // a JSON object's text
};

struct state_dir {
	int dir, lock;  // both close-on-exec; -1: none
	char id[129];
};

int state_check_id(const char *id);
// Makes the container's directory and takes its lock. Refuses an id that is in use; takes over what
// a killed foreground run left behind.
int state_create(const char *id, struct state_dir *ret);
int state_listen(struct state_dir *d, int *ret_fd);
int state_write(struct state_dir *d, const struct state *s);
void state_remove(struct state_dir *d); // the directory and all in it; closes d
// Removes a directory that nobody owns and that holds no state: the command was killed at an early moment.
void state_remove_orphan(const char *id);
void state_close(struct state_dir *d);

// Looking at one. ret->dir.lock is -1: nothing is taken. A running container that is not running any
// more has status "stopped".
int state_open(const char *id, struct state_dir *ret_dir, struct state *ret);
int state_try_open(const char *id, struct state_dir *ret_dir, struct state *ret); // without a word: 0 or -errno
void state_free(struct state *s);
// Whether somebody lives with the sandbox.
bool state_alive(const struct state_dir *d);
// Sends a request to the container's sentry and waits for its answer: 0 or a negative errno; -ESRCH
// if there is no sentry.
struct ctl_msg;
int state_request(const struct state_dir *d, const struct ctl_msg *m);
// As runc's: the container's OCI state as JSON on stdout.
void state_print(const struct state *s);
