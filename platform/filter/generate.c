// Build-time program: turns the `filter_table` it is linked with into C with the BPF program.
#include <errno.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "platform/filter/filter.h"

extern const struct filter_table filter_table;

#define DIE(...) do { fprintf(stderr, "filter: " __VA_ARGS__); fputc('\n', stderr); exit(1); } while (0)

static uint32_t action_of(enum filter_action a, int error)
{
	switch (a) {
	case FILTER_ALLOW: return SCMP_ACT_ALLOW;
	case FILTER_ERRNO: return SCMP_ACT_ERRNO(error);
	case FILTER_TRAP: return SCMP_ACT_TRAP;
	case FILTER_NOTIFY: return SCMP_ACT_NOTIFY;
	case FILTER_KILL: return SCMP_ACT_KILL_PROCESS;
	}
	DIE("unknown action %d", (int)a);
}

static enum scmp_compare op_of(enum filter_cmp_op op)
{
	static const enum scmp_compare ops[] = {
		[FILTER_EQ] = SCMP_CMP_EQ, [FILTER_NE] = SCMP_CMP_NE, [FILTER_LT] = SCMP_CMP_LT,
		[FILTER_LE] = SCMP_CMP_LE, [FILTER_GE] = SCMP_CMP_GE, [FILTER_GT] = SCMP_CMP_GT,
		[FILTER_MASKED] = SCMP_CMP_MASKED_EQ};

	return ops[op];
}

static int number_of(const struct filter_row *r)
{
	int nr = r->call ? seccomp_syscall_resolve_name(r->call) : r->nr;

	if (nr < 0)
		DIE("no such call: %s", r->call ? r->call : "?");
	return nr;
}

static void add_row(scmp_filter_ctx ctx, const struct filter_row *r)
{
	struct scmp_arg_cmp cmp[6];
	unsigned n = 0;
	int e;

	for (unsigned i = 0; i < 6; i++) {
		const struct filter_cmp *c = &r->cmp[i];

		if (c->op == FILTER_ANY)
			continue;
		cmp[n++] = (struct scmp_arg_cmp){.arg = c->arg, .op = op_of(c->op), .datum_a = c->a, .datum_b = c->b};
	}
	e = seccomp_rule_add_exact_array(ctx, action_of(r->action, r->error), number_of(r), n, cmp);
	if (e)
		DIE("%s: %s", r->call ? r->call : "rule", strerror(-e));
}

static unsigned count_calls(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < filter_table.nrows; i++) {
		bool seen = false;

		for (unsigned j = 0; j < i && !seen; j++)
			seen = number_of(&filter_table.rows[i]) == number_of(&filter_table.rows[j]);
		n += !seen;
	}
	return n;
}

static void emit(FILE *bpf, FILE *out, unsigned calls)
{
	struct sock_filter f;
	unsigned n = 0;

	fprintf(out, "// Generated from the filter table %s.\n#include \"platform/filter/filter.h\"\n\n"
		"extern const struct filter_prog %s;\nstatic const struct sock_filter code[] = {\n",
		filter_table.name, filter_table.name);
	for (; fread(&f, sizeof(f), 1, bpf) == 1; n++)
		fprintf(out, "\t{0x%02x, %u, %u, 0x%08x},\n", f.code, f.jt, f.jf, f.k);
	if (n == 0 || n > 4096)
		DIE("%s: a program of %u instructions", filter_table.name, n);
	fprintf(out, "};\nconst struct filter_prog %s = {code, %u, %u};\n", filter_table.name, n, calls);
}

int main(int argc, char **argv)
{
	scmp_filter_ctx ctx = seccomp_init(action_of(filter_table.otherwise, EPERM));
	unsigned calls = count_calls();
	FILE *bpf = tmpfile(), *out;

	if (!ctx || !bpf || argc != 2)
		DIE("usage: generate OUTPUT");
	if (calls > filter_table.max_calls)
		DIE("%s names %u calls, at most %u are allowed", filter_table.name, calls, filter_table.max_calls);
	// Another architecture's call numbers kill, too; the order of calls becomes a binary tree.
	if (seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS) ||
	    seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2))
		DIE("libseccomp is too old");
	for (unsigned i = 0; i < filter_table.nrows; i++)
		add_row(ctx, &filter_table.rows[i]);
	if (seccomp_export_bpf(ctx, fileno(bpf)))
		DIE("export failed");
	rewind(bpf);
	out = fopen(argv[1], "w");
	if (!out)
		DIE("%s: %s", argv[1], strerror(errno));
	emit(bpf, out, calls);
	seccomp_release(ctx);
	return fclose(out) ? 1 : 0;
}
