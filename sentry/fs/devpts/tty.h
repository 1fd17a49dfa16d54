// Terminals (tty(4), termios(3), pty(7)): the line discipline, job control, pairs of pseudoterminals.
//
//   master file  <- out ring <-  output processing <- slave writes, echo
//   master file  -> input processing -> in ring     -> slave reads
//
// A tty belongs to its master (a file, or a host terminal for the container's console) and to the
// slave files that are open on it. What processes hold (thread_group->tty) is not counted: it is
// taken from them when the tty is hung up, and before it goes.
//
// Invariants
//  - Nothing in the line discipline waits; what may wait moves bytes to or from a buffer of its own.
//  - f->pos of a slave file keeps the number of hang-ups at its open: a difference means it is dead.
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <asm/termbits.h>
#include <sys/ioctl.h>

#include "platform/base/refcount.h"
#include "sentry/vfs/vfs.h"

struct pid;
struct thread_group;

#define TTY_IN_SIZE 4096U   // as N_TTY_BUF_SIZE
#define TTY_OUT_SIZE 16384U
#define TTY_MAJOR_PTS 136
#define TTY_MAX 4096

struct tty {
	refcount_t refs;
	int index;
	uint64_t rdev;            // what stat(2) and /proc/PID/stat show
	struct termios2 t;
	struct winsize ws;
	struct pid *pgrp, *session; // counted; NULL: no session's terminal
	unsigned slaves;          // open slave files
	bool master_open;         // or a host terminal is attached
	bool was_open;            // a slave has been open, so its absence is a hang-up to the master
	bool locked, exclusive, packet;
	uint8_t pktstatus;        // TIOCPKT_* to tell the master
	bool flow_stopped;        // ^S, TCOOFF
	int64_t hangups;
	uint32_t uid, gid, mode;  // of the devpts node
	struct ktime atime, mtime, ctime;
	// Input, processed: what readers get. In canonical mode lines end at marks.
	unsigned char *in;        // TTY_IN_SIZE bytes, owned
	uint8_t *mark;            // a bit a byte: the end of a line
	uint32_t in_head, in_tail, canon_head; // free running
	bool lnext, was_canon;
	// Output: what the master will read.
	unsigned char *out;       // TTY_OUT_SIZE bytes, owned
	uint32_t out_head, out_tail;
	uint32_t column, canon_column;
	struct waitq rd_wq, wr_wq;   // slave readers and writers
	struct waitq m_rd_wq, m_wr_wq; // master's
	void (*drain)(struct tty *t);  // a console: moves the out ring to the host; NULL: a master file reads it
	void *host;
};

// tty.c
struct tty *tty_new(void);        // one reference; NULL
struct tty *tty_get(struct tty *t);
void tty_put(struct tty *t);      // NULL is fine
int tty_open_slave(struct tty *t, struct file *f); // an inode's open: takes a reference. -EIO, -EBUSY
extern const struct file_ops tty_slave_fops;
void tty_hang_up(struct tty *t);  // every open slave file is dead; the session loses it
void tty_wake_slave(struct tty *t);
int64_t tty_ioctl_common(struct tty *t, struct file *f, bool master, unsigned cmd, uint64_t arg);

// ldisc.c. None waits.
void ldisc_init_termios(struct termios2 *t);
size_t ldisc_input(struct tty *t, const unsigned char *p, size_t n);  // from the master: bytes taken
size_t ldisc_output(struct tty *t, const unsigned char *p, size_t n); // from a slave: bytes taken
bool ldisc_readable(const struct tty *t);
size_t ldisc_available(const struct tty *t); // bytes that a read would find now
// Up to n bytes of input; in canonical mode at most one line. *ret_eof: an end-of-file mark came first.
size_t ldisc_read(struct tty *t, unsigned char *p, size_t n, bool *ret_eof);
bool ldisc_wants_input(const struct tty *t); // the master may write
void ldisc_flush_input(struct tty *t);
void ldisc_set_termios(struct tty *t, const struct termios2 *new_t);
void ldisc_flow(struct tty *t, bool stop);
static inline uint32_t tty_out_used(const struct tty *t) { return t->out_head - t->out_tail; }
static inline uint32_t tty_out_room(const struct tty *t) { return TTY_OUT_SIZE - tty_out_used(t); }
size_t tty_out_take(struct tty *t, unsigned char *p, size_t n); // for the master's side; wakes writers
void tty_out_flush(struct tty *t);
void tty_out_ready(struct tty *t); // there is something in the out ring

// jobctl.c
// Before a background process reads (SIGTTIN) or changes (SIGTTOU) its terminal: 0: go on, -EIO,
// -ERESTARTSYS.
int tty_check_background(struct tty *t, int sig);
void tty_signal(struct tty *t, int sig); // the foreground group, if any
void tty_open_ctty(struct tty *t, struct file *f); // without O_NOCTTY a session leader may get it
int tty_set_ctty(struct tty *t, bool steal);
int tty_drop_ctty(struct tty *t);        // TIOCNOTTY
int64_t tty_get_pgrp(struct tty *t, bool master);
int tty_set_pgrp(struct tty *t, int32_t nr);
int64_t tty_get_sid(struct tty *t, bool master);
void tty_forget(struct tty *t);          // nobody's controlling terminal any more
struct tty *tty_current(void);           // borrowed; NULL
void tty_jobctl_init(void);

// pty.c, devpts.c
extern const struct file_ops tty_master_fops;
struct tty *devpts_find(int index);      // borrowed; NULL
void devpts_init(void);                  // at boot: registers "devpts", /dev/ptmx, /dev/tty, /dev/console
int devpts_add(struct tty *t);           // gives it an index. -ENOSPC
void devpts_remove(struct tty *t);

// console.c: the container's terminal, over a host terminal that is ours alone. Takes over host_fd
// on success. At boot, before or after lock-down; -EIO, -ENOMEM.
int tty_console_new(int host_fd, struct tty **ret);
extern struct tty *tty_console;
void tty_console_winsize(void);          // the host terminal's size has changed
