// The loader: hand-made and garbled ELF files, scripts, arguments; then programs of the host, whose
// memory over the fake platform must be what their files say.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/auxv.h>
#include <sys/stat.h>

#include "platform/base/random.h"
#include "sentry/loader/internal.h"
#include "tests/unit/io_harness.h"

// --- a file system over a directory of the host ---------------------------------------------------

static char base_dir[64];

static const struct inode_ops t_inode_ops;
static const struct file_ops t_file_ops;

static struct inode *t_inode(struct super_block *sb, int fd)
{
	struct inode *i = kalloc(sizeof(*i));
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	inode_init(i, sb, st.st_mode, &t_inode_ops, &t_file_ops);
	i->ino = st.st_ino;
	i->size = (uint64_t)st.st_size;
	i->mtime = (struct ktime){st.st_mtim.tv_sec, (uint32_t)st.st_mtim.tv_nsec};
	i->ctime = (struct ktime){st.st_ctim.tv_sec, (uint32_t)st.st_ctim.tv_nsec};
	i->priv = (void *)(intptr_t)fd;
	return i;
}

static int t_lookup(struct inode *dir, const char *name, struct inode **ret)
{
	int fd = openat((int)(intptr_t)dir->priv, name, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	*ret = t_inode(dir->sb, fd);
	return 0;
}

static ssize_t t_read(struct file *f, struct uio *u, int64_t *pos)
{
	char buf[4096];
	ssize_t n = pread((int)(intptr_t)f->inode->priv, buf, MIN(sizeof(buf), u->resid), *pos);

	if (n <= 0)
		return n < 0 ? -errno : 0;
	*pos += n;
	return uio_put(u, buf, (size_t)n);
}

static int t_map_fd(struct file *f, uint64_t off, uint64_t len, int prot, bool shared, int *ret_fd, uint64_t *ret_off)
{
	*ret_fd = (int)(intptr_t)f->inode->priv;
	*ret_off = off;
	return 0;
}

static void t_evict(struct inode *i)
{
	close((int)(intptr_t)i->priv);
	kfree(i);
}

static void t_put_super(struct super_block *sb)
{
	kfree(sb);
}

static const struct inode_ops t_inode_ops = {.lookup = t_lookup};
static const struct file_ops t_file_ops = {.read = t_read, .map_fd = t_map_fd};
static const struct super_ops t_super_ops = {.evict = t_evict, .put_super = t_put_super};
static const struct fs_type t_type = {.name = "t"};

static void (*body_fn)(void);
static unsigned ids_asked;

static int identify(void *arg, struct file *exe, struct loader_identity *ret)
{
	ids_asked++;
	*ret = (struct loader_identity){1000, 1001, 100, 101, true};
	return 0;
}

static void with_fs(void)
{
	struct super_block *sb = kalloc(sizeof(*sb));
	struct fs_struct *fs = fs_struct_new();
	int fd = open(base_dir, O_RDONLY | O_DIRECTORY);
	struct mnt_ns *ns;

	random_seed_for_tests(7);
	sb_init(sb, &t_type, &t_super_ops, 0);
	sb->root = d_root(t_inode(sb, fd));
	assert_int_equal(mnt_ns_new(sb, 0, &ns, &fs->root), 0);
	fs->cwd = fs->root;
	path_get(&fs->cwd);
	fs->mnt_ns = ns;
	vfs_self()->fs = fs;
	body_fn();
	loader_cache_drop();
	vfs_self()->fs = NULL;
	fs_struct_put(fs);
	sb_put(sb);
}

static void run(void (*fn)(void))
{
	body_fn = fn;
	h_spare = 1; // the table of the dentry cache
	h_run(with_fs);
}

static void put_file(const char *name, const void *data, size_t len, mode_t mode)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", base_dir, name);
	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0755);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), len);
	fchmod(fd, mode);
	close(fd);
}

// --- programs ------------------------------------------------------------------------------------

struct prog {
	Elf64_Ehdr h;
	Elf64_Phdr p[6];
	char rest[2 * 4096];
};

// A static program: text at 0x400000, data with bss at 0x402e00.
static struct prog sample(void)
{
	struct prog p = {.h = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT}, .e_type = ET_EXEC,
			       .e_machine = EM_X86_64, .e_version = 1, .e_entry = 0x400100, .e_phoff = sizeof(Elf64_Ehdr),
			       .e_ehsize = sizeof(Elf64_Ehdr), .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 3}};

	p.p[0] = (Elf64_Phdr){.p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_vaddr = 0x400000, .p_filesz = 0x1000, .p_memsz = 0x1000, .p_align = 0x1000};
	p.p[1] = (Elf64_Phdr){.p_type = PT_LOAD, .p_flags = PF_R | PF_W, .p_offset = 0xe00, .p_vaddr = 0x402e00, .p_filesz = 0x300, .p_memsz = 0x3000, .p_align = 0x1000};
	p.p[2] = (Elf64_Phdr){.p_type = PT_GNU_STACK, .p_flags = PF_R | PF_W};
	memset(p.rest, 'd', sizeof(p.rest));
	return p;
}

static const char strings0[] = "prog\0one\0A=1\0B=22";

static struct loader_request request(struct file *f, const char *filename)
{
	return (struct loader_request){.pf = h_pf, .file = f, .filename = filename, .strings = strings0,
				       .strings_len = sizeof(strings0), .argc = 2, .envc = 2,
				       .lim = {UINT64_MAX, UINT64_MAX, 8 << 20, 65536, false}, .identify = identify};
}

static void done(struct loader_result *res)
{
	pf_ctx_exit(res->ctx);
	mm_put(res->mm);
	sched_current()->ctx = h_ctx;
	arena_reset();
}

static int exec_req(const char *path, struct loader_request *rq, struct loader_result *res)
{
	struct file *f;
	int r = loader_open(AT_FDCWD, path, WALK_FOLLOW, &f);

	if (r < 0)
		return r;
	rq->file = f;
	rq->filename = path;
	r = loader_exec(rq, res);
	file_put(f);
	if (r < 0)
		return r;
	sched_current()->ctx = res->ctx;
	r = pf_flush(res->ctx);
	if (r < 0) // only sizes that the host refuses
		done(res);
	return r;
}

static int try_exec(const char *path)
{
	struct loader_request rq = request(NULL, path);
	struct loader_result res;
	int r = exec_req(path, &rq, &res);

	if (r == 0)
		done(&res);
	arena_reset();
	return r;
}

static uint64_t word(struct mm *mm, uint64_t addr)
{
	uint64_t v;

	assert_int_equal(pf_read(mm->as, addr, &v, 8), 8);
	return v;
}

static void check_str(struct mm *mm, uint64_t addr, const char *want)
{
	char buf[256];
	size_t n = strlen(want) + 1;

	assert_int_equal(pf_read(mm->as, addr, buf, n), n);
	assert_string_equal(buf, want);
}

static uint64_t auxval(struct mm *mm, uint64_t type)
{
	for (unsigned i = 0; i < mm->nauxv; i += 2)
		if (mm->auxv[i] == type)
			return mm->auxv[i + 1];
	return UINT64_MAX;
}

// argv and envp are as wanted, and the auxiliary vector in memory is mm->auxv.
static void check_stack(struct loader_result *res, const char *const *argv, const char *const *envp)
{
	struct mm *mm = res->mm;
	uint64_t sp = res->regs.rsp;
	unsigned n = 0;

	assert_int_equal(sp % 16, 0);
	while (argv[n])
		n++;
	assert_int_equal(word(mm, sp), n);
	sp += 8;
	for (unsigned i = 0; i < n; i++, sp += 8)
		check_str(mm, word(mm, sp), argv[i]);
	assert_int_equal(word(mm, sp), 0);
	sp += 8;
	for (; *envp; envp++, sp += 8)
		check_str(mm, word(mm, sp), *envp);
	assert_int_equal(word(mm, sp), 0);
	sp += 8;
	for (unsigned i = 0; i < mm->nauxv; i++, sp += 8)
		assert_int_equal(word(mm, sp), mm->auxv[i]);
	assert_int_equal(mm->auxv[mm->nauxv - 2], AT_NULL);
}

static void body_static(void)
{
	static const char *const argv[] = {"prog", "one", NULL}, *const envp[] = {"A=1", "B=22", NULL};
	struct prog p = sample();
	struct loader_request rq = request(NULL, NULL);
	struct loader_result res;
	struct vma_info v;
	char c[2];

	put_file("prog", &p, sizeof(p), 0755);
	ids_asked = 0;
	assert_int_equal(exec_req("/prog", &rq, &res), 0);
	assert_int_equal(ids_asked, 1);
	assert_int_equal(res.regs.rip, 0x400100);
	assert_int_equal(res.regs.eflags, 0x202);
	assert_int_equal(res.regs.cs, 0x33);
	assert_int_equal(res.regs.ss, 0x2b);
	check_stack(&res, argv, envp);
	assert_int_equal(auxval(res.mm, AT_PHDR), 0x400040);
	assert_int_equal(auxval(res.mm, AT_PHNUM), 3);
	assert_int_equal(auxval(res.mm, AT_ENTRY), 0x400100);
	assert_int_equal(auxval(res.mm, AT_BASE), 0);
	assert_int_equal(auxval(res.mm, AT_UID), 1000);
	assert_int_equal(auxval(res.mm, AT_EGID), 101);
	assert_int_equal(auxval(res.mm, AT_SECURE), 1);
	assert_int_equal(auxval(res.mm, AT_HWCAP), getauxval(AT_HWCAP));
	check_str(res.mm, auxval(res.mm, AT_EXECFN), "/prog");
	check_str(res.mm, auxval(res.mm, AT_PLATFORM), "x86_64");
	assert_true(word(res.mm, auxval(res.mm, AT_RANDOM)) != 0);
	check_str(res.mm, res.mm->arg_start, "prog");
	check_str(res.mm, res.mm->env_start, "A=1");
	assert_int_equal(res.mm->env_end - res.mm->arg_start, sizeof(strings0));
	// Text, data, the rest of its last page, bss.
	assert_true(mm_next_vma(res.mm, 0, &v));
	assert_int_equal(v.start, 0x400000);
	assert_int_equal(v.end, 0x401000);
	assert_int_equal(v.prot, PROT_READ | PROT_EXEC);
	assert_int_equal(pf_read(res.mm->as, 0x4030ff, c, 2), 2);
	assert_true(c[0] == 'd' && c[1] == 0);
	assert_int_equal(pf_read(res.mm->as, 0x405dff, c, 1), 1);
	assert_int_equal(c[0], 0);
	assert_int_equal(pf_read(res.mm->as, 0x406000, c, 1), -EFAULT);
	assert_true(res.mm->brk >= 0x406000 && res.mm->brk < 0x406000 + (1UL << 30) && res.mm->brk == res.mm->start_brk);
	// The stack: not executable, growing, 8 MiB.
	assert_true(mm_next_vma(res.mm, res.regs.rsp, &v));
	assert_string_equal(v.name, "[stack]");
	assert_int_equal(v.prot, PROT_READ | PROT_WRITE);
	assert_true(v.flags & MAP_GROWSDOWN);
	assert_int_equal(v.end - v.start, 8 << 20);
	assert_ptr_equal(file_of_mobj(res.mm->exe)->inode->priv, file_of_mobj(res.mm->exe)->inode->priv);
	assert_int_equal(file_of_mobj(res.mm->exe)->inode->writers, -1); // ETXTBSY
	done(&res);
	// Once more, from the cache, with an executable stack this time (another file).
	assert_int_equal(try_exec("/prog"), 0);
	p.p[2].p_flags |= PF_X;
	put_file("prog2", &p, sizeof(p), 0755);
	assert_int_equal(exec_req("/prog2", &rq, &res), 0);
	assert_true(mm_next_vma(res.mm, res.regs.rsp, &v));
	assert_int_equal(v.prot, PROT_READ | PROT_WRITE | PROT_EXEC);
	done(&res);
}
static void test_static(void **s) { run(body_static); }

// The file may run on its own, or not at all.
static void expect(const struct prog *p, size_t len, int want)
{
	put_file("bad", p, len, 0755);
	assert_int_equal(try_exec("/bad"), want);
}

static void body_garbage(void)
{
	struct prog good = sample(), p;

	expect(&good, sizeof(good), 0);
	expect(&good, 0, -ENOEXEC);
	expect(&good, 3, -ENOEXEC);
	expect(&good, 40, -ENOEXEC);
	expect(&good, sizeof(Elf64_Ehdr) + 10, -ENOEXEC);
	put_file("bad", "hello\n", 6, 0755);
	assert_int_equal(try_exec("/bad"), -ENOEXEC);
#define WITH(change, want)                                                                                             \
	do {                                                                                                           \
		p = good;                                                                                              \
		change;                                                                                                \
		expect(&p, sizeof(p), want);                                                                           \
	} while (0)
	WITH(p.h.e_ident[EI_CLASS] = ELFCLASS32, -ENOEXEC);
	WITH(p.h.e_ident[EI_DATA] = ELFDATA2MSB, -ENOEXEC);
	WITH(p.h.e_machine = EM_AARCH64, -ENOEXEC);
	WITH(p.h.e_type = ET_REL, -ENOEXEC);
	WITH(p.h.e_type = ET_CORE, -ENOEXEC);
	WITH(p.h.e_phentsize = 55, -ENOEXEC);
	WITH(p.h.e_phnum = 0, -ENOEXEC);
	WITH(p.h.e_phnum = 0xffff, -ENOEXEC);
	WITH(p.h.e_phoff = sizeof(p), -ENOEXEC);
	WITH(p.h.e_phoff = UINT64_MAX - 10, -ENOEXEC);
	WITH(p.p[0].p_type = p.p[1].p_type = PT_NULL, -ENOEXEC);
	WITH(p.p[1].p_filesz = 0x4000, -EINVAL);
	WITH(p.p[1].p_memsz = UINT64_MAX, -EINVAL);
	WITH(p.p[1].p_memsz = PF_GUEST_TOP, -EINVAL);
	WITH(p.p[1].p_vaddr = PF_GUEST_TOP - 0xe00 + 0xe00, -EINVAL);
	WITH(p.p[1].p_vaddr = UINT64_MAX - 0x1ff, -EINVAL);
	WITH(p.p[1].p_offset = 0xe01, -EINVAL);
	WITH(p.p[1].p_offset = UINT64_MAX - 0x1ff, -EINVAL);
	WITH(p.p[0].p_vaddr = 0, -EPERM);
	WITH(p.h.e_entry = PF_GUEST_TOP, -ENOEXEC);
	WITH((p.p[2] = (Elf64_Phdr){.p_type = PT_INTERP, .p_offset = 0x800, .p_filesz = 1}), -ENOEXEC);
	WITH((p.p[2] = (Elf64_Phdr){.p_type = PT_INTERP, .p_offset = 0x800, .p_filesz = 5000}), -ENOEXEC);
	WITH((p.p[2] = (Elf64_Phdr){.p_type = PT_INTERP, .p_offset = 0x800, .p_filesz = 10}), -ENOEXEC); // no NUL
	WITH((p.p[2] = (Elf64_Phdr){.p_type = PT_INTERP, .p_offset = UINT64_MAX, .p_filesz = 10}), -ENOEXEC);
	WITH((p.p[2] = (Elf64_Phdr){.p_type = PT_INTERP, .p_offset = sizeof(p) + 100, .p_filesz = 10}), -EIO);
	WITH((p.p[2] = (Elf64_Phdr){.p_type = PT_INTERP, .p_offset = 0x800, .p_filesz = 7}, strcpy((char *)&p + 0x800, "/nobin")), -ENOENT);
	put_file("nobin", "xxx", 3, 0755);
	expect(&p, sizeof(p), -ELIBBAD);
	put_file("nobin", "xxx", 3, 0644);
	expect(&p, sizeof(p), -EACCES);
	// Random damage never does more than fail.
	random_seed_for_tests(99);
	for (int i = 0; i < 3000; i++) {
		p = good;
		for (uint64_t n = 1 + random_below(6); n; n--)
			((unsigned char *)&p)[random_below(sizeof(p.h) + 3 * sizeof(p.p[0]))] = (unsigned char)random_u64();
		put_file("bad", &p, sizeof(p), 0755);
		assert_true(try_exec("/bad") <= 0);
	}
}
static void test_garbage(void **s) { run(body_garbage); }

static void body_scripts(void)
{
	struct prog p = sample();
	struct loader_request rq = request(NULL, NULL);
	struct loader_result res;
	char line[400], name[16];

	put_file("prog", &p, sizeof(p), 0755);
	put_file("s1", "#! /prog  -x y \nrest", 20, 0755);
	assert_int_equal(exec_req("/s1", &rq, &res), 0);
	check_stack(&res, (const char *const[]){"/prog", "-x y", "/s1", "one", NULL}, (const char *const[]){"A=1", "B=22", NULL});
	check_str(res.mm, auxval(res.mm, AT_EXECFN), "/s1");
	done(&res);
	put_file("s2", "#!/s1\n", 6, 0755);
	assert_int_equal(exec_req("/s2", &rq, &res), 0);
	check_stack(&res, (const char *const[]){"/prog", "-x y", "/s1", "/s2", "one", NULL}, (const char *const[]){"A=1", "B=22", NULL});
	done(&res);
	rq.argc = 0;
	rq.strings = "A=1\0B=22";
	rq.strings_len = 9;
	assert_int_equal(exec_req("/s1", &rq, &res), 0);
	check_stack(&res, (const char *const[]){"/prog", "-x y", "/s1", NULL}, (const char *const[]){"A=1", "B=22", NULL});
	done(&res);
	assert_int_equal(exec_req("/prog", &rq, &res), 0);
	check_stack(&res, (const char *const[]){"", NULL}, (const char *const[]){"A=1", "B=22", NULL});
	done(&res);
	// s3 .. s6 are one deeper each: five scripts are fine, six are not.
	for (int i = 3; i <= 6; i++) {
		snprintf(name, sizeof(name), "s%d", i);
		snprintf(line, sizeof(line), "#!/s%d\n", i - 1);
		put_file(name, line, strlen(line), 0755);
	}
	assert_int_equal(try_exec("/s5"), 0);
	assert_int_equal(try_exec("/s6"), -ELOOP);
	put_file("loop", "#!/loop", 7, 0755);
	assert_int_equal(try_exec("/loop"), -ELOOP);
	put_file("empty", "#!  \n", 5, 0755);
	assert_int_equal(try_exec("/empty"), -ENOEXEC);
	put_file("gone", "#!/nowhere\n", 11, 0755);
	assert_int_equal(try_exec("/gone"), -ENOENT);
	put_file("noexec", "#!/prog\n", 8, 0644);
	assert_int_equal(try_exec("/noexec"), -EACCES);
	assert_int_equal(try_exec("/"), -EACCES);
	rq = request(NULL, NULL);
	rq.path_inaccessible = true;
	assert_int_equal(exec_req("/s1", &rq, &res), -ENOENT);
	// A line that the buffer cuts off: fine if the path is whole.
	memset(line, 'a', sizeof(line));
	memcpy(line, "#!/prog ", 8);
	put_file("long", line, sizeof(line), 0755);
	assert_int_equal(try_exec("/long"), 0);
	line[7] = 'g';
	put_file("long", line, sizeof(line), 0755);
	assert_int_equal(try_exec("/long"), -ENOEXEC);
	line[255] = '\n';
	put_file("long", line, sizeof(line), 0755);
	assert_int_equal(try_exec("/long"), -ENOENT);
}
static void test_scripts(void **s) { run(body_scripts); }

static void body_args(void)
{
	struct prog p = sample();
	struct loader_request rq = request(NULL, NULL);
	struct loader_result res;
	size_t n = 1 << 20;
	char *big = kalloc(n);

	put_file("prog", &p, sizeof(p), 0755);
	assert_int_equal(loader_arg_limit(8 << 20), 2 << 20);
	assert_int_equal(loader_arg_limit(UINT64_MAX), 6 << 20);
	assert_int_equal(loader_arg_limit(4096), 128 << 10);
	for (size_t i = 0; i < n; i++)
		big[i] = (i + 1) % 1024 ? 'x' : 0;
	rq.strings = big;
	rq.strings_len = n;
	rq.argc = 1000;
	rq.envc = 24;
	assert_int_equal(exec_req("/prog", &rq, &res), 0); // 1 MiB of them
	assert_int_equal(word(res.mm, res.regs.rsp), 1000);
	check_str(res.mm, res.mm->arg_start + 1024 * 1000 + 1020, "xxx");
	done(&res);
	rq.lim.stack = 4 << 20;
	assert_int_equal(exec_req("/prog", &rq, &res), -E2BIG);
	rq.lim.stack = 8 << 20;
	rq.argc = 999;
	assert_int_equal(exec_req("/prog", &rq, &res), -EINVAL); // counts do not fit the strings
	memset(big, 'x', n);
	big[n - 1] = 0;
	rq.argc = 1;
	rq.envc = 0;
	assert_int_equal(exec_req("/prog", &rq, &res), -E2BIG); // one string of a MiB
	// Limits of the new address space.
	rq = request(NULL, NULL);
	rq.lim.as = 1 << 20;
	assert_int_equal(exec_req("/prog", &rq, &res), 0); // the stack is mapped smaller
	done(&res);
	rq.lim.as = 64 << 10;
	assert_int_equal(exec_req("/prog", &rq, &res), -ENOMEM);
	kfree(big);
}
static void test_args(void **s) { run(body_args); }

static void copy_host(const char *from, const char *to)
{
	char buf[512];

	snprintf(buf, sizeof(buf), "cp -L %s %s/%s && chmod 755 %s/%s", from, base_dir, to, base_dir, to);
	assert_int_equal(system(buf), 0);
}

// What is in memory at addr is what the file has at off.
static void check_file(struct mm *mm, uint64_t addr, const char *file, uint64_t off, size_t n)
{
	char path[128], a[4096], b[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", base_dir, file);
	fd = open(path, O_RDONLY);
	while (n) {
		size_t k = MIN(n, sizeof(a));

		assert_int_equal(pread(fd, a, k, (off_t)off), k);
		assert_int_equal(pf_read(mm->as, addr, b, k), k);
		assert_memory_equal(a, b, k);
		n -= k;
		off += k;
		addr += k;
	}
	close(fd);
}

static void body_dynamic(void)
{
	struct loader_request rq = request(NULL, NULL);
	struct loader_result res;
	uint64_t base, bias;
	char buf[8192], head[256];
	unsigned n = 0;
	int fd;

	copy_host("/bin/true", "true");
	mkdir(strcat(strcpy(buf, base_dir), "/lib64"), 0755);
	copy_host("/lib64/ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2");
	assert_int_equal(exec_req("/true", &rq, &res), 0);
	base = auxval(res.mm, AT_BASE);
	assert_true(base != 0 && base < res.mm->mmap_base);
	check_file(res.mm, base, "lib64/ld-linux-x86-64.so.2", 0, 4096);
	bias = auxval(res.mm, AT_PHDR) - sizeof(Elf64_Ehdr);
	assert_true(bias >= PAGE_DOWN(PF_GUEST_TOP / 3 * 2));
	// Every segment of the program is what its file says.
	fd = openat(AT_FDCWD, strcat(strcpy(buf, base_dir), "/true"), O_RDONLY);
	assert_int_equal(pread(fd, head, sizeof(head), 0), sizeof(head));
	const Elf64_Ehdr *h = (const Elf64_Ehdr *)head;
	for (unsigned i = 0; i < h->e_phnum; i++) {
		Elf64_Phdr p;
		struct vma_info v;

		assert_int_equal(pread(fd, &p, sizeof(p), (off_t)(h->e_phoff + i * sizeof(p))), sizeof(p));
		if (p.p_type != PT_LOAD)
			continue;
		check_file(res.mm, bias + p.p_vaddr, "true", p.p_offset, p.p_filesz);
		assert_true(mm_next_vma(res.mm, bias + p.p_vaddr, &v) && v.start <= bias + p.p_vaddr);
		assert_int_equal(v.prot, (p.p_flags & PF_R ? PROT_READ : 0) | (p.p_flags & PF_W ? PROT_WRITE : 0) | (p.p_flags & PF_X ? PROT_EXEC : 0));
		if (p.p_memsz > p.p_filesz)
			assert_int_equal(word(res.mm, bias + ((p.p_vaddr + p.p_filesz + 7) & ~7UL)), 0);
		n++;
	}
	close(fd);
	assert_true(n >= 3);
	done(&res);
	// As a static PIE: the dynamic linker itself. It lies among the mappings.
	assert_int_equal(exec_req("/lib64/ld-linux-x86-64.so.2", &rq, &res), 0);
	assert_true(auxval(res.mm, AT_PHDR) > res.mm->mmap_base - (64 << 20));
	assert_true(res.mm->brk < res.mm->mmap_base / 2 + res.mm->mmap_base / 4);
	done(&res);
}
static void test_dynamic(void **s) { run(body_dynamic); }

static int make_dir(void **state)
{
	strcpy(base_dir, "/tmp/casemate-loader-XXXXXX");
	return mkdtemp(base_dir) ? 0 : -1;
}
static int remove_dir(void **state)
{
	char buf[128];

	snprintf(buf, sizeof(buf), "rm -rf %s", base_dir);
	return system(buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_static), cmocka_unit_test(test_garbage), cmocka_unit_test(test_scripts),
		cmocka_unit_test(test_args), cmocka_unit_test(test_dynamic),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
