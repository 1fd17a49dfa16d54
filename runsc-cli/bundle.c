#include "runsc-cli/bundle.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/base/base.h"
#include "runsc-cli/cli.h"

static int read_config(const char *path, char **ret, size_t *ret_len)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	cleanup_free char *text = NULL;
	struct stat st;
	size_t n = 0;

	if (fd < 0)
		return cli_errno(errno, "%s", path);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > SPEC_MAX_BYTES)
		return cli_fail("%s: not a file of at most %u bytes", path, SPEC_MAX_BYTES);
	text = malloc(st.st_size + 1);
	if (!text)
		return cli_fail("out of memory");
	while (n < (size_t)st.st_size) {
		ssize_t r = read(fd, text + n, st.st_size - n);

		if (r < 0)
			return cli_errno(errno, "%s", path);
		if (r == 0)
			break;
		n += r;
	}
	*ret = steal_ptr(&text);
	*ret_len = n;
	return 0;
}

static int parse(struct bundle *b, const char *path)
{
	struct spec_err err;
	int r = spec_parse(b->config, b->config_len, &b->spec, &err);

	if (r == -ENOMEM)
		return cli_fail("out of memory");
	return r < 0 ? cli_fail("%s: %s", path, err.msg) : 0;
}

int bundle_load(const char *dir, struct bundle *ret)
{
	struct bundle b = {.dir = realpath(dir, NULL)};
	char path[4200];
	int r;

	if (!b.dir)
		return cli_errno(errno, "--bundle: %s", dir);
	snprintf(path, sizeof(path), "%s/config.json", b.dir);
	r = read_config(path, &b.config, &b.config_len);
	if (!r)
		r = parse(&b, path);
	if (r) {
		bundle_free(&b);
		return r;
	}
	*ret = b;
	return 0;
}

int bundle_from_text(const char *dir, char *text, struct bundle *ret)
{
	struct bundle b = {.dir = strdup(dir), .config = text, .config_len = strlen(text)};
	int r = b.dir ? parse(&b, "configuration") : cli_fail("out of memory");

	if (r) {
		bundle_free(&b);
		return r;
	}
	*ret = b;
	return 0;
}

void bundle_free(struct bundle *b)
{
	free(b->dir);
	free(b->config);
	spec_free(b->spec);
	*b = (struct bundle){0};
}
