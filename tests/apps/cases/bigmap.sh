cat > b.c <<'C'
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
int main(void) {
	size_t n = 100UL << 30;
	char *p = mmap(0, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED) return 1;
	for (int i = 0; i < 64; i++) { if (mprotect(p + ((size_t)i << 30), 1 << 20, PROT_READ | PROT_WRITE)) return 2; memset(p + ((size_t)i << 30), i, 1 << 20); }
	long s = 0; for (int i = 0; i < 64; i++) s += p[((size_t)i << 30) + 5];
	if (madvise(p, 1 << 20, MADV_DONTNEED)) return 3;
	printf("%ld %d\n", s, p[5]); p = mremap(p, n, n / 2, 0); if (munmap(p, n / 2)) return 4;
	puts("done"); return 0;
}
C
gcc -O2 -w b.c -o b && ./b; echo $?
