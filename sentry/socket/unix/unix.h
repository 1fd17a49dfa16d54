// AF_UNIX (unix(7)): stream, datagram and seqpacket sockets.
#pragma once
#include <stddef.h>
#include <stdint.h>

void unix_init(void); // at boot: registers the family
// The body of /proc/net/unix, line by line.
struct unix_info {
	unsigned refs, flags, type, state;
	uint64_t ino;
	const char *name; // as it is shown, "@..." for abstract ones; "" for none
};
void unix_for_each(void (*fn)(const struct unix_info *info, void *arg), void *arg);
