// What the files of sentry/boot share.
#pragma once
#include <stdbool.h>

#include "sentry/boot/boot.h"
#include "sentry/boot/doc.h"

struct fs_struct;
struct gofer_conn;

// --- control.c ------------------------------------------------------------------------------
void control_send(enum ctl_op op, int arg, const char *text); // text may be NULL
void control_fail(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
// Takes part in the loop from now on: signals, start, the end of whoever started us. plain_first: the
// first process is a command, not an init: signals from outside end it as they would on Linux. -errno.
int control_init(bool plain_first);
void control_await_start(void); // may wait
void control_guest_ended(int wait_status);
_Noreturn void boot_exit(int status);

// --- mounts.c -------------------------------------------------------------------------------
// The container's root and mounts; fs gets root, cwd and namespace. May wait. 0 or an exit status
// after control_fail().
int boot_mounts(const struct boot_doc *d, struct gofer_conn *conn, struct fs_struct *fs);

// --- process.c ------------------------------------------------------------------------------
// Starts the container's first process. May wait. As above.
int boot_process_start(const struct boot_doc *d, struct fs_struct *fs);

// --- register.c -----------------------------------------------------------------------------
int boot_register_all(const struct boot_doc *d); // file systems, devices; -errno

// --- hostinfo.c -----------------------------------------------------------------------------
void boot_host_info(void); // what /proc and /sys tell about the machine; before the process is locked down

// --- overlay.c ------------------------------------------------------------------------------
struct super_block;
// lower under an in-memory layer of at most `size` bytes (0: no limit); takes its own reference.
int boot_overlay(struct super_block *lower, uint64_t size, struct super_block **ret);

// --- crash.c --------------------------------------------------------------------------------
void boot_crash_init(void); // a failed assertion or a fault of the sentry's own is logged with its stack
