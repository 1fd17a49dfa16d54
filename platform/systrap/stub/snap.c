// Snapshots: what a call will read of guest memory goes to the sentry along with it.
#include "platform/systrap/stub/stub.h"

enum { SNAP_END, SNAP_STR, SNAP_FIXED, SNAP_LENGTH };
struct snap_arg {
	uint8_t kind, arg;
	uint16_t len; // SNAP_FIXED: bytes; SNAP_LENGTH: the argument that holds the length
};
#include "snap_table.inc" // snap_row_of[], snap_rows[]

#define STR_MAX 512

uint32_t stub_snapshot(struct stub_ctx *c, uint32_t nr)
{
	const struct snap_arg *a;
	uint32_t off = 0, n = 0;

	if (nr >= sizeof(snap_row_of) || !snap_row_of[nr])
		return 0;
	a = snap_rows[snap_row_of[nr] - 1];
	for (uint32_t i = 0; i < STUB_SNAPS && a[i].kind != SNAP_END; i++) {
		uint64_t addr = c->args[a[i].arg], room = STUB_PAYLOAD_SIZE - off, len, got;
		uint8_t *to = stub_payload(c) + off;

		if (!addr)
			continue;
		if (a[i].kind == SNAP_STR) {
			got = stub_copy_str(to, (const void *)addr, room < STR_MAX ? room : STR_MAX);
		} else {
			len = a[i].kind == SNAP_FIXED ? a[i].len : c->args[a[i].len];
			if (len == 0 || len > room)
				continue;
			got = len - stub_copy(to, (const void *)addr, len);
		}
		if (got == 0)
			continue;
		c->snaps[n++] = (struct stub_snap){addr, (uint32_t)got, off};
		off = (off + (uint32_t)got + 15) & ~15u;
		if (off >= STUB_PAYLOAD_SIZE)
			break;
	}
	return n;
}
