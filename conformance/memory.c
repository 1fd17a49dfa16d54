// mmap(2) and its family, brk(2), /proc/self/maps.
#include "check.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
static const long P = 4096;

static char *map(size_t n, int prot, int flags) { return mmap(NULL, n, prot, flags, -1, 0); }

static int in_maps(const void *addr, char *perms, char *rest, size_t size)
{
	char line[512];
	FILE *f = fopen("/proc/self/maps", "r");
	int found = 0;

	while (f && fgets(line, sizeof(line), f)) {
		unsigned long s, e;
		char pr[8], name[256] = "";
		if (sscanf(line, "%lx-%lx %7s %*s %*s %*s %255[^\n]", &s, &e, pr, name) < 3)
			continue;
		if ((unsigned long)addr >= s && (unsigned long)addr < e) {
			strcpy(perms, pr);
			snprintf(rest, size, "%s", name);
			found = 1;
			break;
		}
	}
	if (f)
		fclose(f);
	return found;
}

static void basics(void)
{
	char *p = map(3 * P, RW, ANON), *q, perms[8], rest[256];

	CHECK("mmap.anon_zero", p != MAP_FAILED && p[0] == 0 && p[3 * P - 1] == 0);
	p[0] = 1;
	CHECK("munmap.middle", munmap(p + P, P) == 0 && p[0] == 1 && (p[2 * P] = 5) == 5);
	CHECK_ERR("mincore.hole", mincore(p, 3 * P, (unsigned char[3]){0}), ENOMEM);
	q = mmap(p + P, P, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0);
	CHECK("fixed_noreplace.free", q == p + P);
	CHECK_ERR("fixed_noreplace.taken", mmap(p, P, RW, ANON | 0x100000, -1, 0), EEXIST);
	p[P] = 9;
	CHECK("fixed.replaces", mmap(p + P, P, RW, ANON | MAP_FIXED, -1, 0) == p + P && p[P] == 0);
	CHECK_ERR("mmap.len_zero", map(0, RW, ANON), EINVAL);
	CHECK_ERR("mmap.no_type", map(P, RW, MAP_ANONYMOUS), EINVAL);
	CHECK_ERR("mmap.fixed_unaligned", mmap(p + 1, P, RW, ANON | MAP_FIXED, -1, 0), EINVAL);
	CHECK_ERR("mmap.badf", mmap(NULL, P, PROT_READ, MAP_PRIVATE, 999, 0), EBADF);
	CHECK_ERR("mmap.huge", mmap(NULL, 1UL << 62, RW, ANON, -1, 0), ENOMEM);
	CHECK_ERR("mmap.offset_unaligned", mmap(NULL, P, RW, MAP_PRIVATE, 0, 1), EINVAL);
	CHECK_ERR("munmap.unaligned", munmap(p + 1, P), EINVAL);
	CHECK_ERR("munmap.len_zero", munmap(p, 0), EINVAL);
	CHECK("munmap.unmapped_ok", munmap(p, 3 * P) == 0 && munmap(p, 3 * P) == 0);
	p = mmap((void *)0x700000001000, P, RW, ANON, -1, 0);
	CHECK("mmap.hint", p == (void *)0x700000001000);
	CHECK("maps.shows", in_maps(p, perms, rest, sizeof(rest)) && !strcmp(perms, "rw-p") && !rest[0]);
	munmap(p, P);
	CHECK("maps.gone", !in_maps(p, perms, rest, sizeof(rest)));
	CHECK("maps.stack", in_maps(&p, perms, rest, sizeof(rest)) && !strcmp(rest, "[stack]"));
	p = map(P, RW, ANON | MAP_32BIT);
	CHECK("mmap.32bit", p != MAP_FAILED && (unsigned long)p < 0x80000000UL);
	munmap(p, P);
	p = map(1L << 36, PROT_NONE, ANON | MAP_NORESERVE);
	CHECK("mmap.reserve_64g", p != MAP_FAILED && munmap(p, 1L << 36) == 0);
}

static void protection(void)
{
	char *p = map(4 * P, RW, ANON), perms[8], rest[256];

	CHECK("mprotect.read", mprotect(p + P, P, PROT_READ) == 0 && in_maps(p + P, perms, rest, 256) && !strcmp(perms, "r--p"));
	CHECK("mprotect.none", mprotect(p + P, P, PROT_NONE) == 0 && in_maps(p + P, perms, rest, 256) && !strcmp(perms, "---p"));
	CHECK_ERR("read.efault_none", write(1, p + P, 1) == 1 ? 0 : -1, EFAULT);
	CHECK_ERR("mprotect.unaligned", mprotect(p + 1, P, PROT_READ), EINVAL);
	CHECK_ERR("mprotect.bad_prot", mprotect(p, P, 0x80), EINVAL);
	munmap(p + 2 * P, P);
	CHECK_ERR("mprotect.hole", mprotect(p, 4 * P, PROT_READ), ENOMEM);
	CHECK("mprotect.len_zero", mprotect(p, 0, PROT_READ) == 0);
	munmap(p, 4 * P);
	p = map(P, RW, ANON);
	memcpy(p, "\xb8\x2a\x00\x00\x00\xc3", 6);
	CHECK("mprotect.exec", mprotect(p, P, PROT_READ | PROT_EXEC) == 0 && ((int (*)(void))p)() == 42);
	munmap(p, P);
	int fds[2];
	if (pipe(fds) == 0) {
		p = map(P, PROT_READ, ANON);
		if (write(fds[1], "abc", 3) != 3)
			perror("write");
		CHECK_ERR("read.into_readonly", read(fds[0], p, 3), EFAULT);
		close(fds[0]);
		close(fds[1]);
		munmap(p, P);
	}
}

static void remap(void)
{
	char *p = map(2 * P, RW, ANON), *q;

	p[0] = 7;
	p[P] = 8;
	q = mremap(p, 2 * P, 16 * P, MREMAP_MAYMOVE);
	CHECK("mremap.grow", q != MAP_FAILED && q[0] == 7 && q[P] == 8 && q[15 * P] == 0);
	CHECK("mremap.shrink", mremap(q, 16 * P, P, 0) == q);
	p = map(4 * P, RW, ANON);
	munmap(p + P, 3 * P);
	CHECK("mremap.fixed", mremap(q, P, P, MREMAP_MAYMOVE | MREMAP_FIXED, p + 2 * P) == p + 2 * P && p[2 * P] == 7);
	CHECK_ERR("mremap.unmapped", mremap(q, P, 2 * P, MREMAP_MAYMOVE), EFAULT);
	CHECK_ERR("mremap.new_zero", mremap(p, P, 0, 0), EINVAL);
	CHECK_ERR("mremap.fixed_needs_maymove", mremap(p, P, P, MREMAP_FIXED, p + P), EINVAL);
	mmap(p + P, P, RW, ANON | MAP_FIXED, -1, 0);
	CHECK_ERR("mremap.no_room", mremap(p, P, 2 * P, 0), ENOMEM);
	munmap(p, 4 * P);
	p = map(P, RW, MAP_SHARED | MAP_ANONYMOUS);
	p[0] = 3;
	q = mremap(p, 0, P, MREMAP_MAYMOVE);
	CHECK("mremap.shared_duplicate", q != MAP_FAILED && q != p && q[0] == 3 && (q[1] = 4) && p[1] == 4);
	munmap(p, P);
	munmap(q, P);
}

static void files(void)
{
	int fd = open("/tmp/conf_mem", O_RDWR | O_CREAT | O_TRUNC, 0600), ro, s;
	char buf[8] = "", *p, *q, perms[8], rest[256];
	pid_t pid;

	if (ftruncate(fd, 3 * P))
		perror("ftruncate");
	p = mmap(NULL, 3 * P, RW, MAP_SHARED, fd, 0);
	q = mmap(NULL, P, RW, MAP_PRIVATE, fd, P);
	CHECK("file.shared", p != MAP_FAILED && q != MAP_FAILED);
	memcpy(p + 10, "hello", 5);
	CHECK("file.shared_to_read", pread(fd, buf, 5, 10) == 5 && !memcmp(buf, "hello", 5));
	CHECK("file.write_to_shared", pwrite(fd, "world", 5, P + 3) == 5 && !memcmp(p + P + 3, "world", 5));
	CHECK("file.private_sees_before_cow", !memcmp(q + 3, "world", 5));
	q[3] = 'W';
	CHECK("file.private_cow", p[P + 3] == 'w' && pread(fd, buf, 1, P + 3) == 1 && buf[0] == 'w');
	CHECK("file.msync", msync(p, 3 * P, MS_SYNC) == 0);
	CHECK_ERR("msync.flags", msync(p, P, MS_SYNC | MS_ASYNC), EINVAL);
	CHECK_ERR("msync.unaligned", msync(p + 1, P, MS_SYNC), EINVAL);
	CHECK("file.maps_name", in_maps(p, perms, rest, 256) && !strcmp(perms, "rw-s") && !strcmp(rest, "/tmp/conf_mem"));
	pid = fork();
	if (!pid) {
		p[0] = 'c';
		q[0] = 'c';
		_exit(0);
	}
	waitpid(pid, &s, 0);
	CHECK("fork.shared_and_private", p[0] == 'c' && q[0] != 'c');
	close(fd);
	p[1] = 'x';
	CHECK("file.mapping_outlives_close", p[1] == 'x');
	ro = open("/tmp/conf_mem", O_RDONLY);
	CHECK_ERR("file.shared_write_needs_rdwr", mmap(NULL, P, RW, MAP_SHARED, ro, 0), EACCES);
	CHECK("file.private_write_rdonly", mmap(NULL, P, RW, MAP_PRIVATE, ro, 0) != MAP_FAILED);
	char *r = mmap(NULL, P, PROT_READ, MAP_SHARED, ro, 0);
	CHECK_ERR("mprotect.shared_rdonly", mprotect(r, P, RW), EACCES);
	close(ro);
	ro = open("/tmp/conf_mem", O_WRONLY);
	CHECK_ERR("file.wronly", mmap(NULL, P, PROT_READ, MAP_PRIVATE, ro, 0), EACCES);
	close(ro);
	unlink("/tmp/conf_mem");
	CHECK("maps.deleted", in_maps(p, perms, rest, 256) && !strcmp(rest, "/tmp/conf_mem (deleted)"));
	ro = open("/", O_RDONLY);
	CHECK_ERR("mmap.directory", mmap(NULL, P, PROT_READ, MAP_PRIVATE, ro, 0), ENODEV);
	close(ro);
	ro = open("/bin/sh", O_RDONLY);
	p = mmap(NULL, P, PROT_READ, MAP_PRIVATE, ro, 0);
	CHECK("mmap.binary", p != MAP_FAILED && !memcmp(p, "\177ELF", 4));
	close(ro);
	fd = memfd_create("x", MFD_ALLOW_SEALING);
	CHECK("memfd", fd >= 0 && ftruncate(fd, P) == 0 && write(fd, "m", 1) == 1);
	p = mmap(NULL, P, RW, MAP_SHARED, fd, 0);
	CHECK("memfd.map", p != MAP_FAILED && p[0] == 'm');
	CHECK_ERR("memfd.seal_busy", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
	munmap(p, P);
	CHECK("memfd.seal", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK) == 0 && fcntl(fd, F_GET_SEALS) == (F_SEAL_WRITE | F_SEAL_SHRINK));
	CHECK_ERR("memfd.sealed_write", write(fd, "x", 1), EPERM);
	CHECK_ERR("memfd.sealed_shrink", ftruncate(fd, 0), EPERM);
	close(fd);
}

static void advice(void)
{
	char *p = map(4 * P, RW, ANON);
	unsigned char v[4];
	pid_t pid;
	int s;

	p[0] = 1;
	CHECK("madvise.dontneed", madvise(p, P, MADV_DONTNEED) == 0 && p[0] == 0);
	CHECK_ERR("madvise.bad", madvise(p, P, 999), EINVAL);
	CHECK_ERR("madvise.unaligned", madvise(p + 1, P, MADV_DONTNEED), EINVAL);
	CHECK("madvise.willneed", madvise(p, P, MADV_WILLNEED) == 0);
	p[P] = 5;
	CHECK("madvise.wipeonfork", madvise(p + P, P, MADV_WIPEONFORK) == 0);
	pid = fork();
	if (!pid)
		_exit(p[P] != 0);
	CHECK("madvise.wiped", waitpid(pid, &s, 0) == pid && s == 0 && p[P] == 5);
	CHECK("madvise.dontfork", madvise(p + 2 * P, P, MADV_DONTFORK) == 0);
	pid = fork();
	if (!pid)
		_exit(mincore(p + 2 * P, P, v) != -1);
	CHECK("madvise.not_forked", waitpid(pid, &s, 0) == pid && s == 0);
	CHECK("mincore", mincore(p, 2 * P, v) == 0);
	CHECK_ERR("mincore.unaligned", mincore(p + 1, P, v), EINVAL);
	CHECK("mlock", mlock(p, P) == 0 && munlock(p, P) == 0);
	munmap(p, 4 * P);
	CHECK_ERR("madvise.hole", madvise(p, P, MADV_DONTNEED), ENOMEM);
}

static int deep(int n)
{
	volatile char b[4096];

	b[0] = n;
	return n ? deep(n - 1) + b[0] : 0;
}

static void breaks(void)
{
	char *b = sbrk(0), perms[8], rest[256];
	struct rlimit rl, old;
	pid_t pid;
	int s;

	CHECK("brk.grow", sbrk(5 * P) == b && (b[4 * P] = 3) == 3);
	CHECK("brk.heap_in_maps", in_maps(b + P, perms, rest, 256) && !strcmp(rest, "[heap]"));
	CHECK("brk.shrink", brk(b) == 0 && sbrk(0) == b);
	CHECK("stack.grows", deep(1000) != 1);
	pid = fork();
	if (!pid) {
		getrlimit(RLIMIT_AS, &old);
		rl = old;
		rl.rlim_cur = 512 << 20;
		setrlimit(RLIMIT_AS, &rl);
		_exit(!(map(1L << 30, RW, ANON) == MAP_FAILED && errno == ENOMEM));
	}
	CHECK("rlimit_as", waitpid(pid, &s, 0) == pid && s == 0);
	pid = fork();
	if (!pid)
		_exit(deep(1 << 20));
	CHECK("stack.overflow", waitpid(pid, &s, 0) == pid && WIFSIGNALED(s) && WTERMSIG(s) == 11);
	char *p = map(P, RW, MAP_SHARED | MAP_ANONYMOUS);
	pid = fork();
	if (!pid) {
		strcpy(p, "child");
		_exit(0);
	}
	waitpid(pid, &s, 0);
	CHECK("shared_anon", !strcmp(p, "child"));
}

int main(void)
{
	basics();
	protection();
	remap();
	files();
	advice();
	breaks();
	CHECK_DONE();
}
