// config.json and the boot document; the sentry's filter.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "platform/base/base.h"
#include "platform/filter/filter.h"
#include "sentry/boot/boot.h"
#include "sentry/boot/doc.h"

static const char full[] =
	"{\"ociVersion\":\"1.0.2\",\"hostname\":\"h\",\"process\":{\"terminal\":false,\"user\":{\"uid\":1,\"gid\":2,\"umask\":63,"
	"\"additionalGids\":[3,4]},\"args\":[\"a\",\"b\"],\"env\":[\"A=b\"],\"cwd\":\"/w\",\"capabilities\":{\"bounding\":"
	"[\"CAP_KILL\",\"CAP_CHOWN\"],\"effective\":[\"CAP_KILL\"]},\"rlimits\":[{\"type\":\"RLIMIT_NOFILE\",\"soft\":5,\"hard\":"
	"18446744073709551615}],\"noNewPrivileges\":true,\"oomScoreAdj\":-5},\"root\":{\"path\":\"r\",\"readonly\":true},"
	"\"mounts\":[{\"destination\":\"/proc\",\"type\":\"proc\",\"source\":\"proc\"},{\"destination\":\"/t\",\"type\":\"tmpfs\","
	"\"options\":[\"nosuid\",\"ro\",\"size=1m\",\"mode=755\"]},{\"destination\":\"/b\",\"source\":\"/x\",\"options\":[\"rbind\"]}],"
	"\"linux\":{\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"network\",\"path\":\"/n\"}],\"maskedPaths\":[\"/m\"],"
	"\"readonlyPaths\":[\"/r\"],\"sysctl\":{\"kernel.x\":\"1\"},\"resources\":{\"memory\":{\"limit\":1}},\"cgroupsPath\":\"c\"},"
	"\"annotations\":{\"k\":\"v\"}}";

static void test_full(void **state)
{
	struct spec_err err;
	struct spec *s;

	assert_int_equal(spec_parse(full, strlen(full), &s, &err), 0);
	assert_int_equal(s->args.n, 2);
	assert_string_equal(s->args.v[1], "b");
	assert_null(s->args.v[2]);
	assert_string_equal(s->cwd, "/w");
	assert_int_equal(s->user.uid, 1);
	assert_int_equal(s->user.umask, 077);
	assert_int_equal(s->user.ngroups, 2);
	assert_int_equal(s->caps.bounding, 1 << 5 | 1 << 0);
	assert_int_equal(s->caps.effective, 1 << 5);
	assert_int_equal(s->rlim[RLIMIT_NOFILE][0], 5);
	assert_true(s->rlim[RLIMIT_NOFILE][1] == UINT64_MAX);
	assert_int_equal(s->rlim_set, 1u << RLIMIT_NOFILE);
	assert_int_equal(s->oom_score_adj, -5);
	assert_true(s->no_new_privs && s->root_readonly && !s->terminal);
	assert_int_equal(s->nmounts, 3);
	assert_int_equal(s->mounts[1].ms_flags, MS_NOSUID | MS_RDONLY);
	assert_string_equal(s->mounts[1].data, "size=1m,mode=755");
	assert_true(s->mounts[2].bind && s->mounts[2].ms_flags & MS_REC);
	assert_string_equal(s->netns_path, "/n");
	assert_int_equal(s->namespaces, SPEC_NS_PID | SPEC_NS_NET);
	assert_string_equal(s->sysctls[0].value, "1");
	assert_string_equal(spec_annotation(s, "k"), "v");
	assert_null(spec_annotation(s, "none"));
	assert_int_equal(s->ignored.n, 1);
	assert_string_equal(s->ignored.v[0], "linux.resources");
	spec_free(s);
}

// Each field once with a value that it must not have: the message names the field.
static void test_wrong(void **state)
{
	static const struct {
		const char *from, *to, *field;
	} cases[] = {
		{"\"uid\":1", "\"uid\":-1", "process.user.uid"}, {"\"uid\":1", "\"uid\":4294967295", "process.user"},
		{"\"uid\":1", "\"uid\":1.5", "process.user.uid"}, {"\"umask\":63", "\"umask\":512", "umask"},
		{"[3,4]", "[3,\"4\"]", "additionalGids[1]"}, {"\"args\":[\"a\",\"b\"]", "\"args\":\"a\"", "process.args"},
		{"[\"A=b\"]", "[\"=b\"]", "process.env[0]"}, {"\"/w\"", "\"w\"", "process.cwd"},
		{"CAP_CHOWN", "CAP_NOTHING", "process.capabilities.bounding"}, {"RLIMIT_NOFILE", "RLIMIT_NONE", "rlimits[0].type"},
		{"\"soft\":5", "\"soft\":-5", "soft"}, {"-5}", "-1001}", "process.oomScoreAdj"},
		{"\"noNewPrivileges\":true", "\"noNewPrivileges\":1", "process.noNewPrivileges"},
		{"\"path\":\"r\"", "\"path\":\"\"", "root.path"}, {"\"readonly\":true", "\"readonly\":\"yes\"", "root.readonly"},
		{"\"/proc\"", "\"proc\"", "mounts[0].destination"}, {"\"type\":\"tmpfs\"", "\"type\":\"\"", "mounts[1].type"},
		{"\"source\":\"/x\"", "\"source\":\"\"", "mounts[2].source"}, {"\"rbind\"", "7", "options[0]"},
		{"\"type\":\"pid\"", "\"type\":\"p\"", "linux.namespaces[0].type"}, {"\"type\":\"pid\"", "\"type\":\"network\"", "namespaces[1]"},
		{"\"/n\"", "\"n\"", "namespaces[1].path"}, {"[\"/m\"]", "[\"m\"]", "linux.maskedPaths[0]"},
		{"kernel.x", "../x", "linux.sysctl"}, {"\"k\":\"v\"", "\"k\":1", "annotations.k"},
		{"\"1.0.2\"", "\"0.9\"", "ociVersion"}, {"\"cwd\"", "\"args\"", "duplicate"},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *at = strstr(full, cases[i].from);
		char text[sizeof(full) + 100];
		struct spec_err err;
		struct spec *s = (void *)1;

		assert_non_null(at);
		snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - full), full, cases[i].to, at + strlen(cases[i].from));
		assert_int_equal(spec_parse(text, strlen(text), &s, &err), -EINVAL);
		assert_ptr_equal(s, (void *)1);
		if (!strstr(err.msg, cases[i].field))
			fail_msg("%s: message is: %s", cases[i].to, err.msg);
		assert_null(strchr(err.msg, '\n'));
	}
}

// No text makes the parser do anything but succeed or refuse.
static void test_garbled(void **state)
{
	unsigned seed = 1;

	for (unsigned i = 0; i < 20000; i++) {
		char text[sizeof(full)];
		size_t len = strlen(full);
		struct spec_err err;
		struct spec *s;

		memcpy(text, full, sizeof(full));
		for (unsigned k = rand_r(&seed) % 4 + 1; k; k--)
			text[rand_r(&seed) % len] = "{}[]\",:0x\\-n"[rand_r(&seed) % 12];
		if (rand_r(&seed) % 8 == 0)
			len = rand_r(&seed) % len;
		if (spec_parse(text, len, &s, &err) == 0)
			spec_free(s);
		else
			assert_true(err.msg[0]);
	}
}

static void test_doc(void **state)
{
	struct spec_err err;
	struct boot_doc d = {.id = "x", .platform = "systrap", .overlay = true, .overlay_size = 1ULL << 40, .host_cpus = 3,
			     .ntrees = 2, .mount_tree = (int[]){-1, -1, 1}, .mount_is_file = (bool[]){0, 0, 1}}, *back;
	size_t len;
	char *text;

	assert_int_equal(spec_parse(full, strlen(full), &d.spec, &err), 0);
	d.rlim[15][1] = UINT64_MAX;
	text = boot_doc_encode(&d, full, strlen(full), &len);
	assert_non_null(text);
	assert_int_equal(boot_doc_decode(text, len, &back, &err), 0);
	assert_string_equal(back->id, "x");
	assert_true(back->overlay && !back->strace && back->overlay_size == 1ULL << 40);
	assert_int_equal(back->mount_tree[2], 1);
	assert_true(back->mount_is_file[2] && back->rlim[15][1] == UINT64_MAX);
	assert_int_equal(back->spec->nmounts, 3);
	boot_doc_free(back);
	for (size_t cut = 0; cut < len; cut += 7)
		assert_int_not_equal(boot_doc_decode(text, cut, &back, &err), 0);
	free(text);
	spec_free(d.spec);
}

// --- the filter -------------------------------------------------------------------------------
extern const struct filter_prog sentry_filter, sentry_filter_ptrace;

static int status_under_filter(void (*fn)(void))
{
	int st;
	pid_t pid = fork();

	if (pid == 0) {
		struct rlimit none = {0, 0};

		setrlimit(RLIMIT_CORE, &none);
		if (filter_install(&sentry_filter, 0) < 0)
			_exit(99);
		fn();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &st, 0), pid);
	return st;
}

static void f_nothing(void) {}
static void f_memory(void)
{
	void *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED || mprotect(p, 4096, PROT_READ) || munmap(p, 8192))
		_exit(1);
}
static void f_open(void) { syscall(SYS_open, "/", O_RDONLY); }
static void f_openat(void) { syscall(SYS_openat, AT_FDCWD, "/", O_RDONLY); }
static void f_openat2(void) { syscall(SYS_openat2, AT_FDCWD, "/", NULL, 0); }
static void f_stat(void) { syscall(SYS_newfstatat, AT_FDCWD, "/", NULL, 0); }
static void f_socket(void) { syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0); }
static void f_socketpair_inet(void) { syscall(SYS_socketpair, AF_INET, SOCK_STREAM, 0, NULL); }
static void f_connect(void) { syscall(SYS_connect, 0, NULL, 0); }
static void f_execve(void) { syscall(SYS_execve, "/bin/true", NULL, NULL); }
static void f_execveat(void) { syscall(SYS_execveat, 0, "", NULL, NULL, AT_EMPTY_PATH); }
static void f_fork(void) { syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); }
static void f_vfork(void) { syscall(SYS_vfork); }
static void f_mmap_exec(void) { syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }
static void f_mprotect_exec(void) { syscall(SYS_mprotect, NULL, 4096, PROT_EXEC); }
static void f_unshare(void) { syscall(SYS_unshare, CLONE_NEWUSER); }
static void f_mount(void) { syscall(SYS_mount, NULL, "/", NULL, 0, NULL); }
static void f_setuid(void) { syscall(SYS_setuid, 0); }
static void f_prctl(void) { syscall(SYS_prctl, 4 /* PR_SET_DUMPABLE */, 1); }
static void f_tiocsti(void) { syscall(SYS_ioctl, 0, 0x5412, "x"); }
static void f_ptrace(void) { syscall(SYS_ptrace, 0, 0, 0, 0); }
static void f_io_uring(void) { syscall(425, 1, NULL); }
static void f_sendto_addr(void) { syscall(SYS_sendto, 0, NULL, 0, 0, "x", 1); }
static void f_x32(void) { syscall(0x40000000 | SYS_getpid); }

static void test_filter(void **state)
{
	static void (*const allowed[])(void) = {f_nothing, f_memory};
	static void (*const deadly[])(void) = {
		f_open, f_openat, f_openat2, f_stat, f_socket, f_socketpair_inet, f_connect, f_execve, f_execveat, f_fork, f_vfork,
		f_mmap_exec, f_mprotect_exec, f_unshare, f_mount, f_setuid, f_prctl, f_tiocsti, f_ptrace, f_io_uring, f_sendto_addr, f_x32};

	if (BOOT_SANITIZED) // the sanitizers' own calls are not in the table
		skip();
	assert_int_equal(sentry_filter.calls, 60); // a change is a change of the wall: at most 60
	assert_int_equal(sentry_filter_ptrace.calls, 60);
	for (unsigned i = 0; i < ARRAY_SIZE(allowed); i++)
		assert_int_equal(status_under_filter(allowed[i]), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(deadly); i++) {
		int st = status_under_filter(deadly[i]);

		if (!WIFSIGNALED(st) || WTERMSIG(st) != SIGSYS)
			fail_msg("call %u of the forbidden ones: status %#x", i, st);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full), cmocka_unit_test(test_wrong), cmocka_unit_test(test_garbled),
		cmocka_unit_test(test_doc), cmocka_unit_test(test_filter),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
