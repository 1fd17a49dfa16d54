// /proc/PID/net. What the network stack knows comes with it; headers alone are the truth without one.
#include "sentry/fs/proc/internal.h"

static int show_text(struct pbuf *b, struct pnode *n)
{
	pwrite_text(b, n->ent->arg, strlen(n->ent->arg));
	return 0;
}

void (*proc_net_unix)(void (*emit)(const char *line, void *arg), void *arg);

static void emit_line(const char *line, void *arg)
{
	pwrite_text(arg, line, strlen(line));
}

static int show_unix(struct pbuf *b, struct pnode *n)
{
	pprintf(b, "Num       RefCount Protocol Flags    Type St Inode Path\n");
	if (proc_net_unix)
		proc_net_unix(emit_line, b);
	return 0;
}

#define T(nm, s) {.name = nm, .mode = S_IFREG | 0444, .show = show_text, .arg = s}
#define TCP_HEAD "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
#define TCP6_HEAD "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"

const struct pent net_kids[] = {
	T("arp", "IP address       HW type     Flags       HW address            Mask     Device\n"),
	T("dev", "Inter-|   Receive                                                |  Transmit\n"
		 " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n"
		 "    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n"),
	T("if_inet6", ""),
	T("igmp", "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n"),
	T("netlink", "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n"),
	T("packet", "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n"),
	T("raw", TCP_HEAD " ref pointer drops\n"),
	T("raw6", TCP6_HEAD " ref pointer drops\n"),
	T("route", "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT                                                       \n"),
	T("sockstat", "sockets: used 0\nTCP: inuse 0 orphan 0 tw 0 alloc 0 mem 0\nUDP: inuse 0 mem 0\nUDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n"),
	T("tcp", TCP_HEAD "                                                     \n"),
	T("tcp6", TCP6_HEAD "\n"),
	T("udp", TCP_HEAD " ref pointer drops             \n"),
	T("udp6", TCP6_HEAD " ref pointer drops\n"),
	{.name = "unix", .mode = S_IFREG | 0444, .show = show_unix},
	{},
};
