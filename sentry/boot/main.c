#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/base/base.h"
#include "platform/base/log.h"
#include "sentry/boot/boot.h"
#include "sentry/boot/doc.h"

static void __attribute__((format(printf, 2, 3))) boot_fail(int status, const char *fmt, ...)
{
	struct ctl_msg m = {.op = CTL_ERROR, .arg = status};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(m.text, sizeof(m.text), fmt, ap);
	va_end(ap);
	send(BOOT_FD_CTL, &m, sizeof(m), MSG_NOSIGNAL);
}

static int read_doc(struct boot_doc **ret)
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
	r = boot_doc_decode(text, st.st_size, ret, &err);
	if (r == -EINVAL)
		boot_fail(128, "%s", err.msg);
	free(text);
	close(BOOT_FD_DOC);
	return r;
}

int boot_main(int argc, char **argv)
{
	struct boot_doc *doc;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, BOOT_SENTRY_NAME);
	if (read_doc(&doc) < 0)
		return 128;
	log_init(BOOT_FD_LOG, doc->debug ? LOG_DEBUG : LOG_WARN, BOOT_SENTRY_NAME);
	boot_fail(128, "%s", "the kernel is not wired up yet");
	return 128;
}
