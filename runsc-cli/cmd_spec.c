#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "platform/base/base.h"
#include "runsc-cli/cli.h"

static const char *spec_bundle = ".", *spec_cwd = "/";
static const struct opt spec_opts[] = {
	{"bundle", 'b', OPT_STR, &spec_bundle, "DIR", "where config.json is written (default: here)"},
	{"cwd", 0, OPT_STR, &spec_cwd, "DIR", "the process's working directory (default /)"},
	{0},
};

static const char head[] =
	"{\n"
	"\t\"ociVersion\": \"" OCI_VERSION "\",\n"
	"\t\"hostname\": \"runsc\",\n"
	"\t\"process\": {\n"
	"\t\t\"terminal\": false,\n"
	"\t\t\"user\": {\"uid\": 0, \"gid\": 0},\n"
	"\t\t\"args\": [";
static const char caps[] = "[\"CAP_AUDIT_WRITE\", \"CAP_KILL\", \"CAP_NET_BIND_SERVICE\"]";
static const char tail[] =
	"\t\t\"rlimits\": [{\"type\": \"RLIMIT_NOFILE\", \"hard\": 1024, \"soft\": 1024}],\n"
	"\t\t\"noNewPrivileges\": true\n"
	"\t},\n"
	"\t\"root\": {\"path\": \"rootfs\", \"readonly\": true},\n"
	"\t\"mounts\": [\n"
	"\t\t{\"destination\": \"/proc\", \"type\": \"proc\", \"source\": \"proc\"},\n"
	"\t\t{\"destination\": \"/dev\", \"type\": \"tmpfs\", \"source\": \"tmpfs\", \"options\": [\"nosuid\", \"mode=755\"]},\n"
	"\t\t{\"destination\": \"/dev/pts\", \"type\": \"devpts\", \"source\": \"devpts\",\n"
	"\t\t \"options\": [\"nosuid\", \"noexec\", \"newinstance\", \"ptmxmode=0666\", \"mode=0620\"]},\n"
	"\t\t{\"destination\": \"/dev/shm\", \"type\": \"tmpfs\", \"source\": \"shm\", \"options\": [\"nosuid\", \"nodev\", \"mode=1777\"]},\n"
	"\t\t{\"destination\": \"/sys\", \"type\": \"sysfs\", \"source\": \"sysfs\", \"options\": [\"nosuid\", \"noexec\", \"nodev\", \"ro\"]}\n"
	"\t],\n"
	"\t\"linux\": {\n"
	"\t\t\"namespaces\": [{\"type\": \"pid\"}, {\"type\": \"network\"}, {\"type\": \"ipc\"}, {\"type\": \"uts\"}, {\"type\": \"mount\"}]\n"
	"\t}\n"
	"}\n";

static void put_string(FILE *f, const char *s)
{
	fputc('"', f);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			fputc('\\', f);
		if ((unsigned char)*s < 0x20)
			fprintf(f, "\\u%04x", *s);
		else
			fputc(*s, f);
	}
	fputc('"', f);
}

static int spec_run(int argc, char **argv)
{
	static char *const shell[] = {(char *)"sh", NULL};
	char path[4200];
	char *const *args;
	int next, r, fd;
	FILE *f;

	r = opt_parse(spec_opts, argc, argv, &next);
	if (r)
		return r;
	args = next < argc ? argv + next : shell;
	snprintf(path, sizeof(path), "%s/config.json", spec_bundle);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	f = fd >= 0 ? fdopen(fd, "w") : NULL;
	if (!f)
		return cli_errno(errno, "%s", path);
	fputs(head, f);
	for (unsigned i = 0; args[i]; i++) {
		fputs(i ? ", " : "", f);
		put_string(f, args[i]);
	}
	fputs("],\n\t\t\"env\": [\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\", \"TERM=xterm\"],\n\t\t\"cwd\": ", f);
	put_string(f, spec_cwd);
	fprintf(f, ",\n\t\t\"capabilities\": {\"bounding\": %s,\n\t\t\t\"effective\": %s,\n\t\t\t\"permitted\": %s},\n", caps, caps, caps);
	fputs(tail, f);
	if (fclose(f) != 0)
		return cli_errno(errno, "%s", path);
	return 0;
}

const struct command cmd_spec = {
	.name = "spec", .args = "[FLAGS] [CMD ARG...]", .summary = "write a config.json to start from", .run = spec_run, .opts = spec_opts};
