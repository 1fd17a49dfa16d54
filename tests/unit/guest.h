// Guests for kernel tests: C functions as guest programs on the fake platform, in a sandbox whose root is
// a tmpfs. Each guest thread is a coroutine; its system calls, signal handlers, forks and execs go
// through the real kernel. Time is virtual; a seed shuffles the scheduler.
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include "platform/base/base.h"
#include "platform/base/slab.h"
#include "sentry/kernel/task.h"

typedef int (*guest_fn)(void *arg); // its result is the exit status
// Runs a sandbox whose init is main(arg). The init's wait status; fails the test on leaks.
int guest_run(uint64_t seed, guest_fn main, void *arg);
// What /bin/N executes (N from 0): set before guest_run(). arg: NULL.
void guest_program(unsigned n, guest_fn main);

// --- for guests ---------------------------------------------------------------------------------
int64_t g_call(long nr, ...); // six arguments at most; as libc's syscall(), but -errno
#define G(nr, ...) g_call(SYS_##nr __VA_OPT__(,) __VA_ARGS__, 0L, 0L, 0L, 0L, 0L, 0L)
void g_put(uint64_t addr, const void *buf, size_t n); // own memory
void g_get(uint64_t addr, void *buf, size_t n);
bool g_try_put(uint64_t addr, const void *buf, size_t n); // no failure of the test if it cannot
uint32_t g_get32(uint64_t addr);
// Scratch memory of the process (64 KiB, private: a fork has a copy). Behind it each thread has a place
// for its signal frames and for the arguments of the helpers below.
#define G_MEM 0x10000000UL
uint64_t g_args(void); // where the helpers' arguments are
int64_t g_fork(guest_fn fn, void *arg);
int64_t g_clone(uint64_t flags, guest_fn fn, void *arg, uint64_t ptid, uint64_t ctid);
int64_t g_exec(unsigned n);
void g_exit(int status) __attribute__((noreturn));
int64_t g_wait(int64_t pid, int options, int *ret_status);
typedef void (*guest_handler)(int sig, uint64_t info, uint64_t uc);
int64_t g_sigaction(int sig, guest_handler fn, uint64_t flags, uint64_t mask); // fn NULL: default
int64_t g_sigignore(int sig);
int64_t g_mask(int how, uint64_t set, uint64_t *ret_old);
int64_t g_sleep_ns(uint64_t ns);
void g_park(bool (*until)(void *), void *arg); // in the guest, without calls, until it holds
void g_fault(int sig, int code, uint64_t addr); // a hardware fault of the guest

// A test's checks: inside guests, where cmocka cannot jump out.
extern unsigned guest_checks, guest_failures;
#define CHECK(x)                                                                                   \
	do {                                                                                       \
		guest_checks++;                                                                    \
		if (!(x)) {                                                                        \
			guest_failures++;                                                          \
			print_error("%s:%d: %s\n", __FILE__, __LINE__, #x);                        \
		}                                                                                  \
	} while (0)
#define CHECK_EQ(x, y)                                                                             \
	do {                                                                                       \
		int64_t check_x = (int64_t)(x), check_y = (int64_t)(y);                            \
		guest_checks++;                                                                    \
		if (check_x != check_y) {                                                          \
			guest_failures++;                                                          \
			print_error("%s:%d: %s is %ld, not %ld\n", __FILE__, __LINE__, #x, check_x, check_y); \
		}                                                                                  \
	} while (0)
