// The line discipline (termios(3)): canonical and raw input, echo, erasing, signals, flow control,
// output processing.
#include "sentry/fs/devpts/tty.h"

#include <ctype.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>

#include "platform/base/base.h"

#define IN_MASK (TTY_IN_SIZE - 1)
#define OUT_MASK (TTY_OUT_SIZE - 1)
#define DISABLED '\0' // _POSIX_VDISABLE
#define L(t, f) ((t)->t.c_lflag & (f))
#define I(t, f) ((t)->t.c_iflag & (f))
#define O(t, f) ((t)->t.c_oflag & (f))
#define CC(t, i) ((t)->t.c_cc[i])
#ifndef EXTPROC
#define EXTPROC 0200000
#endif

void ldisc_init_termios(struct termios2 *t)
{
	static const unsigned char cc[NCCS] = {
		[VINTR] = 3, [VQUIT] = 28, [VERASE] = 127, [VKILL] = 21, [VEOF] = 4, [VMIN] = 1, [VSTART] = 17, [VSTOP] = 19,
		[VSUSP] = 26, [VREPRINT] = 18, [VDISCARD] = 15, [VWERASE] = 23, [VLNEXT] = 22,
	};

	*t = (struct termios2){
		.c_iflag = ICRNL | IXON,
		.c_oflag = OPOST | ONLCR,
		.c_cflag = B38400 | CS8 | CREAD,
		.c_lflag = ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN,
		.c_ispeed = 38400,
		.c_ospeed = 38400,
	};
	memcpy(t->c_cc, cc, sizeof(cc));
}

// --- the output side ------------------------------------------------------------------------------

static bool out_put(struct tty *t, unsigned char c)
{
	if (!tty_out_room(t))
		return false;
	t->out[t->out_head++ & OUT_MASK] = c;
	return true;
}

static bool out_text(struct tty *t, const char *s, size_t n)
{
	if (tty_out_room(t) < n)
		return false;
	while (n--)
		out_put(t, (unsigned char)*s++);
	return true;
}

size_t tty_out_take(struct tty *t, unsigned char *p, size_t n)
{
	size_t got = 0;
	bool was_full = tty_out_room(t) < 256;

	if (t->flow_stopped)
		return 0;
	while (got < n && t->out_tail != t->out_head)
		p[got++] = t->out[t->out_tail++ & OUT_MASK];
	if (was_full && tty_out_room(t) >= 256)
		waitq_wake(&t->wr_wq, EPOLLOUT | EPOLLWRNORM);
	return got;
}

void tty_out_flush(struct tty *t)
{
	t->out_tail = t->out_head;
	waitq_wake(&t->wr_wq, EPOLLOUT | EPOLLWRNORM);
}

void tty_out_ready(struct tty *t)
{
	if (t->flow_stopped || t->out_head == t->out_tail)
		return;
	if (t->drain)
		t->drain(t);
	else
		waitq_wake(&t->m_rd_wq, EPOLLIN | EPOLLRDNORM);
}

// One character, processed. False: no room (nothing was done).
static bool opost(struct tty *t, unsigned char c)
{
	uint32_t spaces;

	if (!O(t, OPOST))
		return out_put(t, c);
	switch (c) {
	case '\n':
		if (O(t, ONLRET))
			t->column = 0;
		if (O(t, ONLCR)) {
			if (!out_text(t, "\r\n", 2))
				return false;
			t->column = t->canon_column = 0;
			return true;
		}
		t->canon_column = t->column;
		break;
	case '\r':
		if (O(t, ONOCR) && !t->column)
			return true;
		if (O(t, OCRNL)) {
			if (O(t, ONLRET))
				t->column = t->canon_column = 0;
			return out_put(t, '\n');
		}
		t->column = t->canon_column = 0;
		break;
	case '\t':
		spaces = 8 - (t->column & 7);
		if (O(t, TABDLY) == XTABS) {
			if (!out_text(t, "        ", spaces))
				return false;
			t->column += spaces;
			return true;
		}
		t->column += spaces;
		break;
	case '\b':
		if (t->column)
			t->column--;
		break;
	default:
		if (!iscntrl(c)) {
			if (O(t, OLCUC))
				c = (unsigned char)toupper(c);
			if (!I(t, IUTF8) || (c & 0xc0) != 0x80)
				t->column++;
		}
	}
	return out_put(t, c);
}

size_t ldisc_output(struct tty *t, const unsigned char *p, size_t n)
{
	size_t i = 0;

	while (i < n && opost(t, p[i]))
		i++;
	if (i)
		tty_out_ready(t);
	return i;
}

void ldisc_flow(struct tty *t, bool stop)
{
	if (t->flow_stopped == stop)
		return;
	t->flow_stopped = stop;
	if (t->packet) {
		t->pktstatus &= ~(TIOCPKT_STOP | TIOCPKT_START);
		t->pktstatus |= stop ? TIOCPKT_STOP : TIOCPKT_START;
		waitq_wake(&t->m_rd_wq, EPOLLIN | EPOLLPRI | EPOLLRDNORM);
	}
	if (!stop) {
		tty_out_ready(t);
		waitq_wake(&t->wr_wq, EPOLLOUT | EPOLLWRNORM);
	}
}

// --- echo -------------------------------------------------------------------------------------------

static void echo_raw(struct tty *t, unsigned char c)
{
	opost(t, c); // what does not fit is not echoed
}

static void echo_char(struct tty *t, unsigned char c)
{
	if (L(t, ECHOCTL) && iscntrl(c) && c != '\t') {
		if (out_text(t, (char[]){'^', (char)(c ^ 0100)}, 2))
			t->column += 2;
	} else {
		echo_raw(t, c);
	}
}

static void back_over(struct tty *t)
{
	if (out_text(t, "\b \b", 3) && t->column)
		t->column--;
}

// A tab is erased: back to where the text before it ends.
static void back_over_tab(struct tty *t)
{
	uint32_t tail = t->in_head, chars = 0;
	bool after_tab = false;

	while (tail != t->canon_head) {
		unsigned char c = t->in[--tail & IN_MASK];

		if (c == '\t') {
			after_tab = true;
			break;
		}
		if (iscntrl(c))
			chars += L(t, ECHOCTL) ? 2 : 0;
		else if (!I(t, IUTF8) || (c & 0xc0) != 0x80)
			chars++;
	}
	if (!after_tab)
		chars += t->canon_column;
	for (chars = 8 - (chars & 7); chars; chars--) {
		out_put(t, '\b');
		if (t->column)
			t->column--;
	}
}

// --- the input side ---------------------------------------------------------------------------------

static uint32_t in_used(const struct tty *t)
{
	return t->in_head - t->in_tail;
}

static bool mark_at(const struct tty *t, uint32_t i)
{
	return t->mark[(i & IN_MASK) / 8] >> (i % 8) & 1;
}

static void set_mark(struct tty *t, uint32_t i, bool on)
{
	uint8_t *b = &t->mark[(i & IN_MASK) / 8], bit = (uint8_t)(1 << (i % 8));

	*b = on ? *b | bit : *b & ~bit;
}

static void in_put(struct tty *t, unsigned char c)
{
	set_mark(t, t->in_head, false);
	t->in[t->in_head++ & IN_MASK] = c;
}

static bool in_room(const struct tty *t)
{
	return in_used(t) < TTY_IN_SIZE - 1;
}

static void end_line(struct tty *t, unsigned char c)
{
	in_put(t, c);
	set_mark(t, t->in_head - 1, true);
	t->canon_head = t->in_head;
	waitq_wake(&t->rd_wq, EPOLLIN | EPOLLRDNORM);
}

// One character off the line being typed, with what continues it in UTF-8; how many bytes.
static unsigned drop_char(struct tty *t)
{
	unsigned n = 0;

	while (t->in_head != t->canon_head) {
		unsigned char c = t->in[--t->in_head & IN_MASK];

		n++;
		if (!I(t, IUTF8) || (c & 0xc0) != 0x80)
			break;
	}
	return n;
}

static void eraser(struct tty *t, unsigned char c)
{
	enum { ERASE, WERASE, KILL } kind = c == CC(t, VERASE) ? ERASE : c == CC(t, VWERASE) && L(t, IEXTEN) ? WERASE : KILL;
	bool seen = false;

	if (t->in_head == t->canon_head)
		return;
	if (kind == KILL && (!L(t, ECHO) || !L(t, ECHOK) || !L(t, ECHOKE) || !L(t, ECHOE))) {
		t->in_head = t->canon_head;
		if (!L(t, ECHO))
			return;
		echo_char(t, CC(t, VKILL));
		if (L(t, ECHOK))
			echo_raw(t, '\n');
		return;
	}
	while (t->in_head != t->canon_head) {
		unsigned char x = t->in[(t->in_head - 1) & IN_MASK];

		if (kind == WERASE) {
			if (isalnum(x) || x == '_')
				seen = true;
			else if (seen)
				break;
		}
		drop_char(t);
		x = t->in[t->in_head & IN_MASK];
		if (L(t, ECHO)) {
			if (kind == ERASE && !L(t, ECHOE)) {
				echo_char(t, CC(t, VERASE));
			} else if (x == '\t') {
				back_over_tab(t);
			} else {
				if (iscntrl(x) && L(t, ECHOCTL))
					back_over(t);
				if (!iscntrl(x) || L(t, ECHOCTL))
					back_over(t);
			}
		}
		if (kind == ERASE)
			break;
	}
}

static void reprint(struct tty *t)
{
	echo_char(t, CC(t, VREPRINT));
	echo_raw(t, '\n');
	for (uint32_t i = t->canon_head; i != t->in_head; i++)
		echo_char(t, t->in[i & IN_MASK]);
}

static void input_signal(struct tty *t, int sig, unsigned char c)
{
	if (!L(t, NOFLSH)) {
		ldisc_flush_input(t);
		// On Linux what has reached the master's own buffer stays.
		if (tty_out_used(t) > TTY_IN_SIZE)
			t->out_head = t->out_tail + TTY_IN_SIZE;
	}
	if (I(t, IXON))
		ldisc_flow(t, false);
	if (L(t, ECHO))
		echo_char(t, c);
	tty_signal(t, sig);
}

// Signals and flow control. True: c is dealt with.
static bool input_special(struct tty *t, unsigned char c)
{
	if (I(t, IXON)) {
		if (c == CC(t, VSTART) && c != DISABLED) {
			ldisc_flow(t, false);
			return true;
		}
		if (c == CC(t, VSTOP) && c != DISABLED) {
			ldisc_flow(t, true);
			return true;
		}
	}
	if (L(t, ISIG) && c != DISABLED) {
		int sig = c == CC(t, VINTR) ? SIGINT : c == CC(t, VQUIT) ? SIGQUIT : c == CC(t, VSUSP) ? SIGTSTP : 0;

		if (sig) {
			input_signal(t, sig, c);
			return true;
		}
	}
	return false;
}

// Editing and ends of lines. True: c is dealt with.
static bool input_canon(struct tty *t, unsigned char c)
{
	if (c == '\n') {
		if (L(t, ECHO) || L(t, ECHONL))
			echo_raw(t, '\n');
		end_line(t, c);
		return true;
	}
	if (c == DISABLED)
		return false;
	if (c == CC(t, VERASE) || c == CC(t, VKILL) || (c == CC(t, VWERASE) && L(t, IEXTEN))) {
		eraser(t, c);
		return true;
	}
	if (c == CC(t, VLNEXT) && L(t, IEXTEN)) {
		t->lnext = true;
		if (L(t, ECHO) && L(t, ECHOCTL)) {
			out_text(t, "^\b", 2);
		}
		return true;
	}
	if (c == CC(t, VREPRINT) && L(t, ECHO) && L(t, IEXTEN)) {
		reprint(t);
		return true;
	}
	if (c == CC(t, VEOF)) {
		end_line(t, DISABLED);
		return true;
	}
	if (c == CC(t, VEOL) || (c == CC(t, VEOL2) && L(t, IEXTEN))) {
		if (L(t, ECHO)) {
			if (t->canon_head == t->in_head)
				t->canon_column = t->column;
			echo_char(t, c);
		}
		end_line(t, c);
		return true;
	}
	return false;
}

static void input_plain(struct tty *t, unsigned char c)
{
	if (L(t, ECHO)) {
		if (L(t, ICANON) && t->canon_head == t->in_head)
			t->canon_column = t->column;
		if (c == '\n')
			echo_raw(t, c);
		else
			echo_char(t, c);
	}
	if (I(t, PARMRK) && c == 0377)
		in_put(t, c);
	in_put(t, c);
	if (!L(t, ICANON)) {
		t->canon_head = t->in_head;
		waitq_wake(&t->rd_wq, EPOLLIN | EPOLLRDNORM);
	}
}

static void input_char(struct tty *t, unsigned char c)
{
	if (I(t, ISTRIP))
		c &= 0x7f;
	if (I(t, IUCLC) && L(t, IEXTEN))
		c = (unsigned char)tolower(c);
	if (t->lnext) {
		t->lnext = false;
		input_plain(t, c);
		return;
	}
	if (L(t, EXTPROC)) {
		input_plain(t, c);
		return;
	}
	if (t->flow_stopped && I(t, IXON) && I(t, IXANY) && c != CC(t, VSTOP))
		ldisc_flow(t, false);
	if (input_special(t, c))
		return;
	if (c == '\r') {
		if (I(t, IGNCR))
			return;
		if (I(t, ICRNL))
			c = '\n';
	} else if (c == '\n' && I(t, INLCR)) {
		c = '\r';
	}
	if (L(t, ICANON) && input_canon(t, c))
		return;
	if (!in_room(t) || (I(t, PARMRK) && in_used(t) >= TTY_IN_SIZE - 2)) {
		if (I(t, IMAXBEL))
			out_put(t, '\a');
		return;
	}
	input_plain(t, c);
}

bool ldisc_wants_input(const struct tty *t)
{
	// With a full buffer and no whole line in it nobody would ever make room.
	return in_room(t) || (L(t, ICANON) && t->canon_head == t->in_tail);
}

size_t ldisc_input(struct tty *t, const unsigned char *p, size_t n)
{
	uint32_t out = t->out_head;
	size_t i;

	// A full buffer holds the master up; ^C and its like get through once there is a place.
	for (i = 0; i < n && ldisc_wants_input(t); i++)
		input_char(t, p[i]);
	if (t->out_head != out)
		tty_out_ready(t);
	return i;
}

// --- reading ----------------------------------------------------------------------------------------

size_t ldisc_available(const struct tty *t)
{
	return (L(t, ICANON) ? t->canon_head : t->in_head) - t->in_tail;
}

bool ldisc_readable(const struct tty *t)
{
	size_t n = ldisc_available(t);

	if (L(t, ICANON))
		return n > 0;
	return n >= (CC(t, VTIME) || !CC(t, VMIN) ? 1U : CC(t, VMIN));
}

size_t ldisc_read(struct tty *t, unsigned char *p, size_t n, bool *ret_eof)
{
	bool canon = L(t, ICANON), had_room = ldisc_wants_input(t);
	size_t got = 0;

	*ret_eof = false;
	while (got < n || canon) {
		unsigned char c = t->in[t->in_tail & IN_MASK];
		bool mark = canon && mark_at(t, t->in_tail);

		if (t->in_tail == (canon ? t->canon_head : t->in_head))
			break;
		if (mark && c == DISABLED) { // an end-of-file character ends a line without being in it
			t->in_tail++;
			*ret_eof = got == 0;
			break;
		}
		if (got == n)
			break;
		t->in_tail++;
		p[got++] = c;
		if (mark)
			break;
	}
	if (!had_room && ldisc_wants_input(t))
		waitq_wake(&t->m_wr_wq, EPOLLOUT | EPOLLWRNORM);
	return got;
}

void ldisc_flush_input(struct tty *t)
{
	t->in_tail = t->canon_head = t->in_head;
	t->lnext = false;
	if (t->packet) {
		t->pktstatus |= TIOCPKT_FLUSHREAD;
		waitq_wake(&t->m_rd_wq, EPOLLIN | EPOLLPRI | EPOLLRDNORM);
	}
	waitq_wake(&t->m_wr_wq, EPOLLOUT | EPOLLWRNORM);
}

void ldisc_set_termios(struct tty *t, const struct termios2 *new_t)
{
	bool was_canon = L(t, ICANON), was_ixon = I(t, IXON) && CC(t, VSTOP) == 19 && CC(t, VSTART) == 17;
	bool ixon, extproc = (t->t.c_lflag ^ new_t->c_lflag) & EXTPROC;

	t->t = *new_t;
	ixon = I(t, IXON) && CC(t, VSTOP) == 19 && CC(t, VSTART) == 17;
	if (was_canon != !!L(t, ICANON)) {
		// What was typed becomes readable at once, whichever way it goes.
		if (in_used(t) && L(t, ICANON)) {
			t->canon_head = t->in_head;
			set_mark(t, t->in_head - 1, true);
		} else {
			t->canon_head = L(t, ICANON) ? t->in_tail : t->in_head;
		}
		if (in_used(t))
			waitq_wake(&t->rd_wq, EPOLLIN | EPOLLRDNORM);
	}
	if (!I(t, IXON) && t->flow_stopped)
		ldisc_flow(t, false);
	if (t->packet && (was_ixon != ixon || extproc)) {
		t->pktstatus &= ~(TIOCPKT_DOSTOP | TIOCPKT_NOSTOP);
		t->pktstatus |= ixon ? TIOCPKT_DOSTOP : TIOCPKT_NOSTOP;
		if (extproc || L(t, EXTPROC))
			t->pktstatus |= TIOCPKT_IOCTL;
		waitq_wake(&t->m_rd_wq, EPOLLIN | EPOLLPRI | EPOLLRDNORM);
	}
	waitq_wake(&t->rd_wq, 0); // VMIN and VTIME may have changed
}
