// The backend's part of a tracee's address space, all above PF_GUEST_TOP. The vDSO and the initial
// stack are near the very top.
#pragma once

#define PTL_TEXT_BASE 0x7fff00010000UL // one page, read and execute only: the blob
#define PTL_SYSCALL   (PTL_TEXT_BASE + 0x100) // syscall; int3
#define PTL_SYSCALL_DONE (PTL_SYSCALL + 3)    // where int3 leaves the instruction pointer
#define PTL_TOUCH_READ  (PTL_TEXT_BASE + 0x110) // reads the byte at %rdi; int3
#define PTL_TOUCH_WRITE (PTL_TEXT_BASE + 0x120) // writes the byte at %rdi, unchanged; int3
#define PTL_DATA_BASE 0x7fff00020000UL // read and write: arguments of injected calls. The guest can
#define PTL_DATA_SIZE 0x20000UL        // reach it, so nothing there is trusted.
#define PTL_DATA_MSG  PTL_DATA_BASE             // recvmsg
#define PTL_DATA_MISC (PTL_DATA_BASE + 0x800)   // names, mincore's answer, thread ids
#define PTL_DATA_NAME (PTL_DATA_BASE + 0xc00) // of the processes that are forked from the zygote
#define PTL_DATA_TIMES (PTL_DATA_BASE + 0x1000) // one struct timespec a context
#define PTL_DATA_NTIMES ((PTL_DATA_SIZE - 0x1000) / 16)

#define PTL_FD_SOCK 0 // descriptors come from the sentry here; nothing else is open
#define PTL_FD_TEMP 1 // so a descriptor that arrives is number 1

// CLONE_PARENT: every tracee is the sentry's child, so that its end is reported to nobody else.
#define PTL_FORK_FLAGS (CLONE_PARENT | SIGCHLD)
#define PTL_THREAD_FLAGS (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)
