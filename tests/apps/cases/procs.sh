for i in $(seq 200); do sleep 0.5 & done; wait; echo 200
cat > th.c <<'C'
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
#include <sys/wait.h>
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER; static pthread_cond_t c = PTHREAD_COND_INITIALIZER; static int n, go;
static void *f(void *a) { pthread_mutex_lock(&m); n++; pthread_cond_broadcast(&c); while (!go) pthread_cond_wait(&c, &m); n--; pthread_mutex_unlock(&m); return a; }
static int tree(int d) { if (!d) return 0; pid_t p = fork(); if (!p) _exit(tree(d - 1) + 1); int s; waitpid(p, &s, 0); return WEXITSTATUS(s); }
int main(void) { pthread_t t[500]; for (int i = 0; i < 500; i++) if (pthread_create(t + i, 0, f, 0)) { perror("create"); return 1; }
 pthread_mutex_lock(&m); while (n < 500) pthread_cond_wait(&c, &m); go = 1; pthread_cond_broadcast(&c); pthread_mutex_unlock(&m); for (int i = 0; i < 500; i++) pthread_join(t[i], 0);
 printf("%d %d\n", n, tree(64)); long e = 0; for (int i = 0; i < 3000; i++) { pid_t p = fork(); if (!p) _exit(i & 7); int s; if (waitpid(p, &s, 0) != p || WEXITSTATUS(s) != (i & 7)) e++; } printf("%ld\n", e); return 0; }
C
gcc -O2 -pthread -w th.c -o th && ./th; echo $?; for i in $(seq 300); do /bin/true || echo bad; done; echo execs
