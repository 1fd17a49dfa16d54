#include "sentry/strace/strace.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include "platform/base/base.h"
#include "platform/base/log.h"
#include "platform/base/slab.h"
#include "sentry/strace/internal.h"
#include "sentry/syscalls/syscalls.h"
#include "sentry/uaccess/uaccess.h"

#define LINE_SIZE 2048
#define SHOWN_BYTES 32 // of buffers and strings, as strace(1)

void put(struct line *l, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(l->buf + l->len, l->size - l->len, fmt, ap);
	va_end(ap);
	if (n > 0)
		l->len = MIN(l->len + n, l->size - 1);
}

static void put_bytes(struct line *l, const unsigned char *p, size_t n, bool more)
{
	put(l, "\"");
	for (size_t i = 0; i < n; i++) {
		switch (p[i]) {
		case '\n': put(l, "\\n"); break;
		case '\t': put(l, "\\t"); break;
		case '\r': put(l, "\\r"); break;
		case '"': put(l, "\\\""); break;
		case '\\': put(l, "\\\\"); break;
		default: put(l, p[i] >= 0x20 && p[i] < 0x7f ? "%c" : "\\%o", p[i]);
		}
	}
	put(l, more ? "\"..." : "\"");
}

static void put_buffer(struct line *l, uint64_t addr, uint64_t len)
{
	unsigned char b[SHOWN_BYTES];
	size_t n;

	if (!addr) {
		put(l, "NULL");
		return;
	}
	n = copy_in_some(b, GADDR(addr), MIN(len, sizeof(b)));
	if (!n && len)
		put(l, "%#llx", (unsigned long long)addr);
	else
		put_bytes(l, b, n, len > n);
}

static void put_string(struct line *l, uint64_t addr, size_t shown)
{
	unsigned char b[256];
	size_t n, len;

	if (!addr) {
		put(l, "NULL");
		return;
	}
	n = copy_in_some(b, GADDR(addr), MIN(shown, sizeof(b)));
	if (!n) {
		put(l, "%#llx", (unsigned long long)addr);
		return;
	}
	len = strnlen((char *)b, n);
	put_bytes(l, b, len, len == n);
}

static void put_strv(struct line *l, uint64_t addr)
{
	put(l, "[");
	for (unsigned i = 0; addr && i < 12; i++) {
		uint64_t p;

		if (copy_in_obj(&p, GADDR(addr + i * 8)) < 0 || !p)
			break;
		put(l, i ? ", " : "");
		put_string(l, p, 64);
	}
	put(l, "]");
}

static void put_iov(struct line *l, uint64_t addr, uint64_t n)
{
	put(l, "[");
	for (unsigned i = 0; i < n && i < 4; i++) {
		struct giov v;

		if (copy_in_obj(&v, GADDR(addr + i * sizeof(v))) < 0)
			break;
		put(l, i ? ", {" : "{");
		put_buffer(l, v.base.a, v.len);
		put(l, ", %llu}", (unsigned long long)v.len);
	}
	put(l, n > 4 ? ", ...]" : "]");
}

// A small struct: as the numbers it is most likely made of.
static void put_struct(struct line *l, uint64_t addr, unsigned size)
{
	union {
		unsigned char b[64];
		uint32_t w[16];
		int64_t q[8];
	} u;
	unsigned n = MIN(size, sizeof(u));

	if (!addr) {
		put(l, "NULL");
		return;
	}
	if (copy_in(&u, GADDR(addr), n) < 0) {
		put(l, "%#llx", (unsigned long long)addr);
		return;
	}
	if (size == 4) {
		put(l, "[%d]", (int)u.w[0]);
	} else if (size == 144) { // struct stat
		put(l, "{st_ino=%lld, st_mode=%#o, st_size=%lld, ...}", (long long)u.q[1], u.w[6], (long long)u.q[6]);
	} else if (size == 8) {
		put(l, "[%#llx]", (unsigned long long)u.q[0]);
	} else {
		put(l, "{");
		for (unsigned i = 0; i < n / 8 && i < 4; i++)
			put(l, i ? ", %lld" : "%lld", (long long)u.q[i]);
		put(l, size > 32 ? ", ...}" : "}");
	}
}

static void put_pollfds(struct line *l, uint64_t addr, uint64_t n, bool out)
{
	struct {
		int32_t fd;
		int16_t events, revents;
	} p;

	put(l, "[");
	for (unsigned i = 0; i < n && i < 8; i++) {
		if (copy_in_obj(&p, GADDR(addr + i * sizeof(p))) < 0)
			break;
		put(l, "%s{fd=%d, events=%#x", i ? ", " : "", p.fd, (unsigned)(uint16_t)p.events);
		put(l, out ? ", revents=%#x}" : "}", (unsigned)(uint16_t)p.revents);
	}
	put(l, "]");
}

struct call {
	const uint64_t *args;
	bool done;       // after the handler: outputs are there
	int64_t result;
};

static bool is(const char *f, size_t len, const char *word)
{
	return strlen(word) == len && memcmp(f, word, len) == 0;
}

static void put_arg(struct line *l, const struct call *c, const char *f, size_t len, unsigned i)
{
	const char *colon = memchr(f, ':', len);
	unsigned param = colon ? (unsigned)strtoul(colon + 1, NULL, 10) : 0;
	size_t word = colon ? (size_t)(colon - f) : len;
	uint64_t v = c->args[i], of = param < 6 ? c->args[param] : 0;
	const struct flag_set *set = flags_find(f, word);
	const char *name;

	if (set)
		put_flags(l, set, v);
	else if (is(f, word, "path"))
		put_string(l, v, 256);
	else if (is(f, word, "str"))
		put_string(l, v, SHOWN_BYTES);
	else if (is(f, word, "dfd") && (int)v == -100)
		put(l, "AT_FDCWD");
	else if (is(f, word, "fd") || is(f, word, "dfd") || is(f, word, "int"))
		put(l, "%d", (int)v);
	else if (is(f, word, "uint"))
		put(l, "%u", (unsigned)v);
	else if (is(f, word, "size"))
		put(l, "%llu", (unsigned long long)v);
	else if (is(f, word, "off"))
		put(l, "%lld", (long long)v);
	else if (is(f, word, "mode"))
		put(l, "%#o", (unsigned)v);
	else if (is(f, word, "sig") && (name = sigabbrev_np((int)v)))
		put(l, "SIG%s", name);
	else if (is(f, word, "in"))
		put_struct(l, v, param);
	else if (is(f, word, "inbuf"))
		put_buffer(l, v, of);
	else if (is(f, word, "iov"))
		put_iov(l, v, of);
	else if (is(f, word, "strv"))
		put_strv(l, v);
	else if (is(f, word, "pollfds"))
		put_pollfds(l, v, c->args[i + 1], c->done);
	else if (c->done && c->result >= 0 && is(f, word, "out"))
		put_struct(l, v, param);
	else if (c->done && c->result >= 0 && is(f, word, "outbuf"))
		put_buffer(l, v, MIN(of, (uint64_t)c->result));
	else if (v)
		put(l, "%#llx", (unsigned long long)v);
	else
		put(l, is(f, word, "ptr") || is(f, word, "out") || is(f, word, "outbuf") ? "NULL" : "0");
}

static void put_call(struct line *l, const struct task *t, const struct call *c)
{
	const struct syscall_row *row = t->sc_nr < SYSCALL_MAX ? &syscall_table[t->sc_nr] : NULL;
	const char *f = row && row->name ? row->formats : "hex hex hex hex hex hex";
	unsigned i = 0;

	put(l, "[%d] %s ", t->tid ? t->tid->nr : 0, t->comm);
	if (row && row->name)
		put(l, "%s(", row->name);
	else
		put(l, "syscall_%u(", t->sc_nr);
	while (*f && i < 6) {
		size_t n = strcspn(f, " ");

		if (i)
			put(l, ", ");
		put_arg(l, c, f, n, i++);
		f += n;
		f += strspn(f, " ");
	}
	put(l, ")");
}

static void put_result(struct line *l, int64_t r)
{
	const char *name = NULL;

	if (r >= 0 || r < -4095) {
		put(l, r > 0xffff || r < 0 ? " = %#llx" : " = %lld", (long long)r);
		return;
	}
	switch (-r) {
	case ERESTARTSYS: name = "ERESTARTSYS"; break;
	case ERESTARTNOINTR: name = "ERESTARTNOINTR"; break;
	case ERESTARTNOHAND: name = "ERESTARTNOHAND"; break;
	case ERESTART_RESTARTBLOCK: name = "ERESTART_RESTARTBLOCK"; break;
	default: name = strerrorname_np((int)-r);
	}
	put(l, " = -1 %s", name ? name : "?");
}

static bool shown_before(uint32_t nr) // what never comes back, or comes back as another program
{
	return nr == SYS_exit || nr == SYS_exit_group || nr == SYS_execve || nr == SYS_execveat || nr == SYS_rt_sigreturn;
}

static void on_enter(struct task *t)
{
	struct call c = {.args = t->sc_args};
	struct line l = {.size = LINE_SIZE};

	if (!shown_before(t->sc_nr) && !log_enabled(LOG_DEBUG))
		return;
	l.buf = kalloc(LINE_SIZE);
	if (!l.buf)
		return;
	put_call(&l, t, &c);
	log_info("%s%s", l.buf, shown_before(t->sc_nr) ? "" : " ...");
	kfree(l.buf);
}

static void on_exit_call(struct task *t, int64_t result)
{
	struct call c = {.args = t->sc_args, .done = true, .result = result};
	struct line l = {.size = LINE_SIZE};

	if (shown_before(t->sc_nr) && result == 0)
		return;
	l.buf = kalloc(LINE_SIZE);
	if (!l.buf)
		return;
	put_call(&l, t, &c);
	put_result(&l, result);
	log_info("%s", l.buf);
	kfree(l.buf);
}

void strace_init(void)
{
	task_syscall_enter = on_enter;
	task_syscall_exit = on_exit_call;
}
