// "#!" lines (execve(2), "Interpreter scripts").
#include "sentry/loader/internal.h"

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

// Linux's rules: the line ends at a newline; one cut off by the buffer's end is fine if the interpreter
// and its separator are inside; blanks around are dropped; the rest is one argument.
int script_parse(char *buf, size_t len, char **ret_interp, char **ret_arg)
{
	char *p = buf + 2, *end = buf + len, *nl, *interp;

	if (len < 2 || buf[0] != '#' || buf[1] != '!')
		return -ENOEXEC;
	nl = memchr(p, '\n', (size_t)(end - p));
	if (!nl) {
		char *q = p;

		if (len == HEAD_SIZE) { // perhaps cut off: then the path must have ended
			while (q < end && is_blank(*q))
				q++;
			while (q < end && !is_blank(*q) && *q)
				q++;
			if (q >= end)
				return -ENOEXEC;
		}
		nl = end;
	}
	*nl = 0;
	nl = p + strlen(p); // a NUL ends the line too
	while (nl > p && is_blank(nl[-1]))
		*--nl = 0;
	while (is_blank(*p))
		p++;
	if (!*p)
		return -ENOEXEC;
	interp = p;
	while (*p && !is_blank(*p))
		p++;
	if (*p)
		*p++ = 0;
	while (is_blank(*p))
		p++;
	*ret_interp = interp;
	*ret_arg = *p ? p : NULL;
	return 0;
}
