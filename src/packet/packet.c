#include "packet/packet.h"

/* NFPROTO_* of linux/netfilter.h and the hook numbers of each family: wire constants, kept here so
 * that this folder needs no kernel header. */
enum {
	FAMILY_INET = 1,
	FAMILY_IP = 2,
	FAMILY_ARP = 3,
	FAMILY_NETDEV = 5,
	FAMILY_BRIDGE = 7,
	FAMILY_IP6 = 10
};

const char *nq_family_name(uint8_t family)
{
	switch (family) {
	case FAMILY_INET:
		return "inet";
	case FAMILY_IP:
		return "ip";
	case FAMILY_ARP:
		return "arp";
	case FAMILY_NETDEV:
		return "netdev";
	case FAMILY_BRIDGE:
		return "bridge";
	case FAMILY_IP6:
		return "ip6";
	default:
		return NULL;
	}
}

const char *nq_hook_name(uint8_t family, uint8_t hook)
{
	static const char *const inet[] = {"prerouting", "input", "forward", "output",
					   "postrouting"};
	static const char *const arp[] = {"input", "output", "forward"};
	static const char *const netdev[] = {"ingress", "egress"};

	switch (family) {
	case FAMILY_ARP:
		return hook < 3 ? arp[hook] : NULL;
	case FAMILY_NETDEV:
		return hook < 2 ? netdev[hook] : NULL;
	default:
		return hook < 5 ? inet[hook] : NULL;
	}
}

const char *nq_verdict_name(enum nq_verdict verdict)
{
	static const char *const names[] = {NULL,    "accept",	"drop",	  "modify",
					    "again", "requeue", "reject", "delay"};

	return names[verdict];
}
