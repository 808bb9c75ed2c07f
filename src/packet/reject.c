#include "packet/reject.h"

#include <netinet/in.h>

#include "packet/complete.h"
#include "packet/header.h"

enum { UNREACHABLE4 = 3, UNREACHABLE6 = 1 };
enum { ICMP_TYPES = 18 };	  /* the kernel's NR_ICMP_TYPES */
enum { INTERNET_CONTROL = 0xc0 }; /* precedence of IPv4's errors: RFC 1812 section 4.3.2.5 */

static const struct {
	const char *name;
	uint8_t code4, code6;
} kinds[NQ_REJECT_KINDS] = {
	[NQ_REJECT_TCP_RESET] = {"tcp-reset", 0, 0},	[NQ_REJECT_ICMP_PORT] = {"icmp-port", 3, 4},
	[NQ_REJECT_ICMP_HOST] = {"icmp-host", 1, 3},	[NQ_REJECT_ICMP_NET] = {"icmp-net", 0, 0},
	[NQ_REJECT_ICMP_ADMIN] = {"icmp-admin", 13, 1},
};

const char *nq_reject_name(enum nq_reject_kind kind)
{
	return kinds[kind].name;
}

/*
 * Whether it came with a wrong checksum. One that is left to the network card is as good as right,
 * and what was edited or cut short cannot be told.
 */
static bool is_damaged(struct nq_packet *packet)
{
	if (packet->gso || packet->dirty || nq_packet_truncated(packet))
		return false;
	return nq_checksum_check(nq_packet_layout(packet), packet->data, packet->length, NULL) ==
	       NQ_CHECKSUM_WRONG;
}

static const char *answer_error(struct nq_packet *packet, enum nq_reject_kind kind,
				struct nq_build *build)
{
	const char *reason = nq_answer_error(packet, build);
	bool is_ip6 = build->ip.version == 6;
	uint32_t at;

	if (reason)
		return reason;
	if (!is_ip6 && nq_header_find(packet, NQ_HEADER_ICMP, &at) && packet->data[at] > ICMP_TYPES)
		return "it is an ICMP message of unknown type, which may be an error";
	build->icmp.type = is_ip6 ? UNREACHABLE6 : UNREACHABLE4;
	build->icmp.code = is_ip6 ? kinds[kind].code6 : kinds[kind].code4;
	if (!is_ip6) {
		build->ip.tos = (packet->data[1] & 0x1c) | INTERNET_CONTROL;
		build->ip.df = false;
	}
	return NULL;
}

const char *nq_reject_answer(struct nq_packet *packet, struct nq_build *build)
{
	enum nq_reject_kind kind = (enum nq_reject_kind)packet->reject_kind;
	const char *reason;

	if (kind == NQ_REJECT_USUAL)
		kind = nq_packet_layout(packet)->protocol == IPPROTO_TCP ? NQ_REJECT_TCP_RESET
									 : NQ_REJECT_ICMP_PORT;
	reason = kind == NQ_REJECT_TCP_RESET ? nq_answer_reset(packet, build)
					     : answer_error(packet, kind, build);
	if (!reason && !nq_address_is_host(build->ip.version, build->ip.src))
		reason = "it went to no single host";
	if (!reason && is_damaged(packet))
		reason = "its checksum is wrong";
	return reason;
}
