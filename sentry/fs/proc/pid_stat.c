// /proc/PID/stat, statm, status, limits, io, sched.
#include "sentry/fs/proc/internal.h"

#include "sentry/fs/devpts/tty.h"
#include "sentry/kernel/sysinfo.h"

#define TICK_NS (NSEC_PER_SEC / 100)
#define PF_FORKNOEXEC 0x40
#define PF_RANDOMIZE 0x400000

static char state_of(const struct task *t)
{
	if (t->tg->state == TG_ZOMBIE || (t->exiting && t->vt.st.dead))
		return 'Z';
	if (t->stop_ack)
		return t->ptrace ? 't' : 'T';
	if (t->vt.st.sleeping)
		return t->vt.st.sleep_mode == WAIT_INTERRUPTIBLE ? 'S' : 'D';
	return 'R';
}

static const char *state_name(char c)
{
	switch (c) {
	case 'S':
		return "S (sleeping)";
	case 'D':
		return "D (disk sleep)";
	case 'T':
		return "T (stopped)";
	case 't':
		return "t (tracing stop)";
	case 'Z':
		return "Z (zombie)";
	default:
		return "R (running)";
	}
}

static void signal_sets(const struct task *t, uint64_t *ret_ignored, uint64_t *ret_caught)
{
	const struct sighand *h = t->tg->sighand;

	*ret_ignored = *ret_caught = 0;
	for (int i = 0; h && i < KNSIG; i++) {
		if (h->action[i].handler == 1)
			*ret_ignored |= 1ULL << i;
		else if (h->action[i].handler)
			*ret_caught |= 1ULL << i;
	}
}

static unsigned long long ull(uint64_t v) { return v; }

// comm may hold anything; what would break a reader's parsing is escaped as Linux does.
static void print_comm(struct pbuf *b, const char *comm, bool escape)
{
	for (int i = 0; i < 15 && comm[i]; i++) {
		if (escape && comm[i] == '\n')
			pprintf(b, "\\n");
		else if (escape && comm[i] == '\\')
			pprintf(b, "\\\\");
		else
			pwrite_text(b, &comm[i], 1);
	}
}

static int32_t parent_nr(const struct task *t)
{
	return t->tg->parent && t->tg->parent->pid ? t->tg->parent->pid->nr : 0;
}

static void cpu_times(struct pnode *n, struct task *t, uint64_t *ret_u, uint64_t *ret_s)
{
	if (n->thread) {
		*ret_u = t->cpu_ns_done + (t->ctx ? pf_ctx_cpu_ns(t->ctx) : 0);
		*ret_s = 0;
	} else {
		process_cpu_ns(t->tg, ret_u, ret_s);
	}
}

int show_stat(struct pbuf *b, struct pnode *n)
{
	struct task *t = pnode_task(n);
	bool peep = pnode_may_inspect(n);
	struct thread_group *tg;
	uint64_t ign, cat, u, s, shared, rss = 0;
	struct tty *tty;
	struct mm *mm;
	int prio;

	if (!t)
		return -ESRCH;
	tg = t->tg;
	mm = t->mm;
	tty = tg->state == TG_RUNNING ? tg->tty : NULL;
	signal_sets(t, &ign, &cat);
	cpu_times(n, t, &u, &s);
	if (mm)
		rss = mm_rss_pages(mm, &shared);
	prio = t->sched_policy == 1 || t->sched_policy == 2 ? -1 - (int)t->sched_prio : 20 + t->nice;
	pprintf(b, "%d (", t->tid ? t->tid->nr : 0);
	print_comm(b, t->comm, false);
	pprintf(b, ") %c %d %d %d %d %d %u %llu %llu %llu %llu ", state_of(t), parent_nr(t), tg->pgrp ? tg->pgrp->nr : 0,
		tg->session ? tg->session->nr : 0, tty ? (int)tty->rdev : 0, tty && tty->pgrp ? tty->pgrp->nr : -1, PF_RANDOMIZE | (tg->did_exec ? 0 : PF_FORKNOEXEC), ull(tg->minflt), 0ULL,
		ull(tg->majflt), 0ULL);
	pprintf(b, "%llu %llu %llu %llu %d %d %u 0 %llu ", ull(u / TICK_NS), ull(s / TICK_NS), ull(tg->cutime_ns / TICK_NS),
		ull(tg->cstime_ns / TICK_NS), prio, t->nice, tg->live_threads,
		ull(tg->start_time > kernel_boot_time ? (tg->start_time - kernel_boot_time) / TICK_NS : 0));
	pprintf(b, "%llu %llu %llu %llu %llu %llu 0 0 %llu %llu %llu %llu 0 0 0 %d 0 %u %u 0 0 0 ", ull(mm ? mm->vm_pages * PAGE_SIZE : 0),
		ull(rss), ull(tg->rlim.v[5].cur), ull(mm ? (peep ? mm->start_code : 1) : 0), ull(mm ? (peep ? mm->end_code : 1) : 0),
		ull(mm && peep ? mm->start_stack : 0), ull(t->pending.set & 0x7fffffff), ull(t->blocked & 0x7fffffff),
		ull(ign & 0x7fffffff), ull(cat & 0x7fffffff), tg->exit_signal ?: 17, t->sched_prio, t->sched_policy);
	if (mm && peep)
		pprintf(b, "%llu %llu %llu %llu %llu %llu %llu %d\n", ull(mm->start_data), ull(mm->end_data), ull(mm->start_brk),
			ull(mm->arg_start), ull(mm->arg_end), ull(mm->env_start), ull(mm->env_end), tg->exit_code);
	else
		pprintf(b, "0 0 0 0 0 0 0 %d\n", peep ? tg->exit_code : 0);
	return 0;
}

int show_statm(struct pbuf *b, struct pnode *n)
{
	struct task *t = pnode_task(n);
	uint64_t rss, shared = 0;
	struct mm *mm;

	if (!t)
		return -ESRCH;
	mm = t->mm;
	if (!mm) {
		pprintf(b, "0 0 0 0 0 0 0\n");
		return 0;
	}
	rss = mm_rss_pages(mm, &shared);
	pprintf(b, "%llu %llu %llu %llu 0 %llu 0\n", ull(mm->vm_pages), ull(rss), ull(shared),
		ull((PAGE_UP(mm->end_code) - PAGE_DOWN(mm->start_code)) / PAGE_SIZE), ull(mm->data_pages));
	return 0;
}

// --- status -------------------------------------------------------------------------------------------

static void status_mm(struct pbuf *b, struct mm *mm)
{
	uint64_t shared = 0, rss = mm_rss_pages(mm, &shared), exe = 0, stk = 0, lib = 0, kb = PAGE_SIZE / 1024;
	struct vma_info v;

	for (uint64_t at = 0; mm_next_vma(mm, at, &v); at = v.end) {
		uint64_t pages = (v.end - v.start) / PAGE_SIZE;

		if (v.flags & 0x100) // MAP_GROWSDOWN
			stk += pages;
		else if (v.prot & 4 && v.start >= mm->start_code && v.start < mm->end_code)
			exe += pages;
		else if (v.prot & 4)
			lib += pages;
	}
	pprintf(b, "VmPeak:\t%8llu kB\nVmSize:\t%8llu kB\nVmLck:\t%8llu kB\nVmPin:\t%8u kB\n", ull(MAX(mm->peak_pages, mm->vm_pages) * kb),
		ull(mm->vm_pages * kb), ull(mm->locked_pages * kb), 0);
	pprintf(b, "VmHWM:\t%8llu kB\nVmRSS:\t%8llu kB\nRssAnon:\t%8llu kB\nRssFile:\t%8llu kB\nRssShmem:\t%8u kB\n", ull(rss * kb),
		ull(rss * kb), ull((rss - MIN(shared, rss)) * kb), ull(shared * kb), 0);
	pprintf(b, "VmData:\t%8llu kB\nVmStk:\t%8llu kB\nVmExe:\t%8llu kB\nVmLib:\t%8llu kB\nVmPTE:\t%8llu kB\nVmSwap:\t%8u kB\n",
		ull(mm->data_pages * kb), ull(stk * kb), ull(exe * kb), ull(lib * kb), ull((mm->map_count + 8) * kb), 0);
	pprintf(b, "HugetlbPages:\t%8u kB\nCoreDumping:\t0\nTHP_enabled:\t1\nuntag_mask:\t0xffffffffffffffff\n", 0);
}

void tree_cpu_hex(struct pbuf *b, const uint64_t mask[16])
{
	int top = 15;

	while (top > 0 && !mask[top])
		top--;
	// 32 bits a group, the highest group first, unpadded there.
	for (int w = top * 2 + 1, first = 1; w >= 0; w--) {
		uint32_t v = (uint32_t)(mask[w / 2] >> (w & 1 ? 32 : 0));

		if (first && !v && w)
			continue;
		pprintf(b, first ? "%x" : ",%08x", v);
		first = 0;
	}
}

void tree_cpu_list(struct pbuf *b, const uint64_t mask[16])
{
	bool any = false;

	for (int i = 0; i < 1024; i++) {
		int j = i;

		if (!(mask[i / 64] >> (i % 64) & 1))
			continue;
		while (j + 1 < 1024 && mask[(j + 1) / 64] >> ((j + 1) % 64) & 1)
			j++;
		pprintf(b, any ? "," : "");
		pprintf(b, j > i ? "%d-%d" : "%d", i, j);
		any = true;
		i = j;
	}
}

static void status_creds(struct pbuf *b, const struct cred *c, struct fd_table *files)
{
	pprintf(b, "Uid:\t%u\t%u\t%u\t%u\nGid:\t%u\t%u\t%u\t%u\nFDSize:\t%u\nGroups:\t", c->uid, c->euid, c->suid, c->fsuid, c->gid, c->egid,
		c->sgid, c->fsgid, files ? fd_table_size(files) : 0);
	for (uint32_t i = 0; i < c->ngroups; i++)
		pprintf(b, "%u ", c->groups[i]);
	pprintf(b, "%s\n", c->ngroups ? "" : " ");
}

int show_status(struct pbuf *b, struct pnode *n)
{
	struct task *t = pnode_task(n);
	const struct cred *c;
	struct thread_group *tg;
	uint64_t ign, cat;
	int tgid, tid;

	if (!t)
		return -ESRCH;
	tg = t->tg;
	c = t->vt.cred;
	tgid = tg->pid->nr;
	tid = t->tid ? t->tid->nr : tgid;
	signal_sets(t, &ign, &cat);
	pprintf(b, "Name:\t");
	print_comm(b, t->comm, true);
	pprintf(b, "\n");
	if (t->vt.fs)
		pprintf(b, "Umask:\t%04o\n", t->vt.fs->umask);
	pprintf(b, "State:\t%s\nTgid:\t%d\nNgid:\t0\nPid:\t%d\nPPid:\t%d\nTracerPid:\t0\n", state_name(state_of(t)), tgid, tid, parent_nr(t));
	status_creds(b, c, t->vt.files);
	pprintf(b, "NStgid:\t%d\nNSpid:\t%d\nNSpgid:\t%d\nNSsid:\t%d\nKthread:\t0\n", tgid, tid, tg->pgrp ? tg->pgrp->nr : 0,
		tg->session ? tg->session->nr : 0);
	if (t->mm)
		status_mm(b, t->mm);
	pprintf(b, "Threads:\t%u\nSigQ:\t%u/%llu\nSigPnd:\t%016llx\nShdPnd:\t%016llx\nSigBlk:\t%016llx\nSigIgn:\t%016llx\nSigCgt:\t%016llx\n",
		tg->live_threads, t->user ? t->user->nsigpending : 0, ull(tg->rlim.v[11].cur), ull(t->pending.set), ull(tg->shared_pending.set),
		ull(t->blocked), ull(ign), ull(cat));
	pprintf(b, "CapInh:\t%016llx\nCapPrm:\t%016llx\nCapEff:\t%016llx\nCapBnd:\t%016llx\nCapAmb:\t%016llx\nNoNewPrivs:\t%d\n",
		ull(c->cap_inheritable), ull(c->cap_permitted), ull(c->cap_effective), ull(c->cap_bounding), ull(c->cap_ambient),
		c->no_new_privs);
	pprintf(b, "Seccomp:\t%d\nSeccomp_filters:\t%d\nSpeculation_Store_Bypass:\tvulnerable\nSpeculationIndirectBranch:\tunknown\n",
		t->seccomp ? 2 : 0, t->seccomp ? 1 : 0);
	pprintf(b, "Cpus_allowed:\t");
	tree_cpu_hex(b, t->cpu_mask);
	pprintf(b, "\nCpus_allowed_list:\t");
	tree_cpu_list(b, t->cpu_mask);
	pprintf(b, "\nMems_allowed:\t1\nMems_allowed_list:\t0\nvoluntary_ctxt_switches:\t%llu\nnonvoluntary_ctxt_switches:\t%llu\n", ull(t->sc_count),
		ull(tg->nivcsw));
	return 0;
}

// --- the rest ---------------------------------------------------------------------------------------------

int show_limits(struct pbuf *b, struct pnode *n)
{
	static const struct { const char *name, *unit; } l[16] = {
		{"Max cpu time", "seconds"}, {"Max file size", "bytes"}, {"Max data size", "bytes"}, {"Max stack size", "bytes"},
		{"Max core file size", "bytes"}, {"Max resident set", "bytes"}, {"Max processes", "processes"},
		{"Max open files", "files"}, {"Max locked memory", "bytes"}, {"Max address space", "bytes"},
		{"Max file locks", "locks"}, {"Max pending signals", "signals"}, {"Max msgqueue size", "bytes"},
		{"Max nice priority", ""}, {"Max realtime priority", ""}, {"Max realtime timeout", "us"},
	};
	struct task *t = pnode_task(n);

	if (!t)
		return -ESRCH;
	pprintf(b, "%-25s %-20s %-20s %-10s\n", "Limit", "Soft Limit", "Hard Limit", "Units");
	for (int i = 0; i < 16; i++) {
		uint64_t v[2] = {t->tg->rlim.v[i].cur, t->tg->rlim.v[i].max};

		pprintf(b, "%-25s ", l[i].name);
		for (int k = 0; k < 2; k++) {
			if (v[k] == UINT64_MAX)
				pprintf(b, "%-20s ", "unlimited");
			else
				pprintf(b, "%-20llu ", ull(v[k]));
		}
		pprintf(b, *l[i].unit ? "%-10s\n" : "%s\n", l[i].unit);
	}
	return 0;
}

// Nobody counts bytes yet.
int show_io(struct pbuf *b, struct pnode *n)
{
	struct task *t = pnode_task(n);

	if (!t)
		return -ESRCH;
	pprintf(b, "rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n");
	return 0;
}

int show_sched(struct pbuf *b, struct pnode *n)
{
	struct task *t = pnode_task(n);
	uint64_t u, s;

	if (!t)
		return -ESRCH;
	cpu_times(n, t, &u, &s);
	print_comm(b, t->comm, true);
	pprintf(b, " (%d, #threads: %u)\n", t->tid ? t->tid->nr : 0, t->tg->live_threads);
	pprintf(b, "-------------------------------------------------------------------\n");
	pprintf(b, "%-45s:%21llu.%06llu\n", "se.sum_exec_runtime", ull((u + s) / 1000000), ull((u + s) % 1000000));
	pprintf(b, "%-45s:%21llu\n%-45s:%21llu\n", "nr_voluntary_switches", ull(t->sc_count), "nr_involuntary_switches", ull(t->tg->nivcsw));
	pprintf(b, "%-45s:%21u\n%-45s:%21d\n", "policy", t->sched_policy, "prio", 120 + t->nice);
	return 0;
}

int show_schedstat(struct pbuf *b, struct pnode *n)
{
	struct task *t = pnode_task(n);
	uint64_t u, s;

	if (!t)
		return -ESRCH;
	cpu_times(n, t, &u, &s);
	pprintf(b, "%llu 0 %llu\n", ull(u + s), ull(t->sc_count));
	return 0;
}
