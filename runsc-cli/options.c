#include "runsc-cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "platform/base/base.h"

static const struct opt *find(const struct opt *opts, const char *word, size_t len)
{
	for (; opts->name; opts++) {
		if (strlen(opts->name) == len && memcmp(opts->name, word, len) == 0)
			return opts;
		if (opts->letter && len == 1 && word[0] == opts->letter)
			return opts;
	}
	return NULL;
}

static int set_bool(const struct opt *o, const char *val)
{
	static const char *const yes[] = {"true", "1", "t", "TRUE", "True"}, *const no[] = {"false", "0", "f", "FALSE", "False"};

	for (unsigned i = 0; i < ARRAY_SIZE(yes); i++) {
		if (strcmp(val, yes[i]) == 0 || strcmp(val, no[i]) == 0) {
			*(bool *)o->value = strcmp(val, yes[i]) == 0;
			return 0;
		}
	}
	return cli_fail("--%s: %s is neither true nor false", o->name, val);
}

static int set_value(const struct opt *o, const char *val)
{
	struct opt_list *l = o->value;
	unsigned long n;
	char *end;

	switch (o->type) {
	case OPT_BOOL:
		return set_bool(o, val);
	case OPT_STR:
		*(const char **)o->value = val;
		return 0;
	case OPT_UINT:
		n = strtoul(val, &end, 10);
		if (*end || end == val || val[0] == '-' || n > UINT32_MAX)
			return cli_fail("--%s: %s is not a number", o->name, val);
		*(unsigned *)o->value = n;
		return 0;
	case OPT_LIST:
		l->v = realloc(l->v, (l->n + 1) * sizeof(*l->v));
		if (!l->v)
			return cli_fail("out of memory");
		l->v[l->n++] = val;
		return 0;
	}
	return 0;
}

int opt_parse(const struct opt *opts, int argc, char **argv, int *ret_next)
{
	int i;

	for (i = 1; i < argc; i++) {
		const char *word = argv[i], *eq, *val;
		const struct opt *o;
		int r;

		if (word[0] != '-' || !word[1])
			break;
		word += word[1] == '-' ? 2 : 1;
		if (!*word) { // "--"
			i++;
			break;
		}
		eq = strchr(word, '=');
		o = find(opts, word, eq ? (size_t)(eq - word) : strlen(word));
		if (!o)
			return cli_fail("unknown flag %s (see 'runsc help')", argv[i]);
		if (eq)
			val = eq + 1;
		else if (o->type == OPT_BOOL)
			val = "true";
		else if (i + 1 < argc)
			val = argv[++i];
		else
			return cli_fail("--%s: a value is missing", o->name);
		r = set_value(o, val);
		if (r)
			return r;
	}
	*ret_next = i;
	return 0;
}

void opt_help(const struct opt *opts)
{
	char left[64];

	for (; opts->name; opts++) {
		if (!opts->help)
			continue;
		snprintf(left, sizeof(left), "%s%s%s--%s%s%s", opts->letter ? "-" : "",
			 opts->letter ? (char[]){opts->letter, 0} : "", opts->letter ? ", " : "", opts->name,
			 opts->arg ? "=" : "", opts->arg ? opts->arg : "");
		printf("  %-28s %s\n", left, opts->help);
	}
}
