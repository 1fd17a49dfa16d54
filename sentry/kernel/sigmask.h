// What signals do by default (signal(7)), as masks; the handler values that are not addresses.
#pragma once
#include <signal.h>
#include <stdint.h>

#include "sentry/kernel/signal.h"

#define SIGH_DFL 0ULL
#define SIGH_IGN 1ULL
#define SIGRT_FIRST 32 // from here on signals queue

#define SIGMASK_KERNEL_ONLY (SIGBIT(SIGKILL) | SIGBIT(SIGSTOP))
#define SIGMASK_STOP (SIGBIT(SIGSTOP) | SIGBIT(SIGTSTP) | SIGBIT(SIGTTIN) | SIGBIT(SIGTTOU))
#define SIGMASK_DFL_IGNORE (SIGBIT(SIGCONT) | SIGBIT(SIGCHLD) | SIGBIT(SIGWINCH) | SIGBIT(SIGURG))
#define SIGMASK_SYNCHRONOUS                                                                        \
	(SIGBIT(SIGSEGV) | SIGBIT(SIGBUS) | SIGBIT(SIGILL) | SIGBIT(SIGTRAP) | SIGBIT(SIGFPE) | SIGBIT(SIGSYS))

// From include/uapi/asm-generic/siginfo.h and asm/signal.h: what user headers may lack.
#define KSA_NOCLDSTOP 0x1ULL
#define KSA_NOCLDWAIT 0x2ULL
#define KSA_SIGINFO 0x4ULL
#define KSA_UNSUPPORTED 0x400ULL
#define KSA_EXPOSE_TAGBITS 0x800ULL
#define KSA_RESTORER 0x04000000ULL
#define KSA_ONSTACK 0x08000000ULL
#define KSA_RESTART 0x10000000ULL
#define KSA_NODEFER 0x40000000ULL
#define KSA_RESETHAND 0x80000000ULL
#define KSS_ONSTACK 1u
#define KSS_DISABLE 2u
#define KSS_AUTODISARM (1u << 31)
