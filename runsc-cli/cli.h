// The command line's small library: commands, options, errors that a person reads.
//
// Functions that can fail return 0 or an exit status after saying in one line what was wrong
// (cli_fail). 128 is Casemate's own failure; a guest's status is passed on as it is.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RUNSC_VERSION "0.1.0"
#define OCI_VERSION "1.0.2"
#define EXIT_OWN 128 // bad flag, bad config, cannot isolate

enum opt_type { OPT_BOOL, OPT_STR, OPT_UINT, OPT_LIST };
struct opt_list {
	const char **v;
	unsigned n;
};
struct opt {
	const char *name;
	char letter;          // 0: none
	enum opt_type type;
	void *value;          // bool *, const char **, unsigned *, struct opt_list *
	const char *arg;      // what the help calls the value; NULL for OPT_BOOL
	const char *help;     // NULL: accepted for compatibility, not shown
};
// Parses --name=value, --name value, -name ... up to the first word that is none (or "--"). Bools take
// an optional =true/=false. Values point into argv. *ret_next: index of the first word left.
int opt_parse(const struct opt *opts, int argc, char **argv, int *ret_next);
void opt_help(const struct opt *opts);

// --- flags before the command ----------------------------------------------------------------
struct conf {
	const char *root;          // state directory
	const char *platform;      // systrap, ptrace
	const char *network;       // none, sandbox
	const char *overlay2;      // as given
	const char *log, *log_format, *debug_log;
	const char *file_access;   // exclusive, shared
	bool debug, strace, ignore_cgroups, systemd_cgroup, rootless, no_patching, alsologtostderr;
	// derived
	bool overlay_root;         // an in-memory layer over the root
	uint64_t overlay_size;     // its bytes; 0: no limit of its own
	bool json_log;
};
extern struct conf conf;
extern const struct opt global_opts[];

// --- commands --------------------------------------------------------------------------------
struct command {
	const char *name, *args, *summary;
	int (*run)(int argc, char **argv); // argv[0] is the command's name
	const struct opt *opts;            // for the help
	const char *text;                  // more help; may be NULL
};
extern const struct command *const commands[]; // NULL-terminated
extern const struct command cmd_create, cmd_delete, cmd_do, cmd_help, cmd_kill, cmd_list, cmd_run, cmd_spec, cmd_start,
	cmd_state, cmd_version;
const struct command *command_find(const char *name);

// Says "runsc: ..." on stderr and in --log; returns EXIT_OWN.
int cli_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int cli_errno(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3))); // err: errno value
// For commands that take one container id and nothing else.
int cli_one_id(const struct command *cmd, int argc, char **argv, const char **ret_id);
// Shows the process as `title` in ps (argv and comm). argv is copied first: see title_init().
char **title_init(int argc, char **argv);
void title_set(const char *comm, const char *title);
