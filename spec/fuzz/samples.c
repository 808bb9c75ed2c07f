/*
 * Messages and packets as the kernel makes them: what the cases start from.
 */
#include <arpa/inet.h>
#include <linux/netlink.h>

#include "hostile.h"

enum { CGROUP = 22 }; /* newer than Debian 12's header */

static void set_length(struct message *message)
{
	put_host32(message->bytes, (uint32_t)message->length);
}

void hostile_put(struct message *message, uint16_t type, const void *value, size_t length)
{
	while (message->length % 4)
		message->bytes[message->length++] = 0;
	message->starts[message->count++] = message->length;
	put_host16(message->bytes + message->length, (uint16_t)(length + 4));
	put_host16(message->bytes + message->length + 2, type);
	copy_bytes(message->bytes + message->length + 4, value, length);
	message->length += length + 4;
	set_length(message);
}

void hostile_put32(struct message *message, uint16_t type, uint32_t value)
{
	uint32_t wire = htonl(value);

	hostile_put(message, type, &wire, 4);
}

void hostile_start(struct message *message)
{
	static const uint8_t header[HEADER - 6] = {1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0x12, 0x34};

	memset(message, 0, sizeof(*message));
	put_host16(message->bytes + 4, PACKET_TYPE);
	memcpy(message->bytes + 6, header, sizeof(header));
	message->length = HEADER;
	set_length(message);
}

void hostile_put_header(struct message *message)
{
	/* id, ethertype, hook: 7 bytes packed */
	static const uint8_t header[] = {0x01, 0x02, 0x03, 0x04, 0x08, 0x00, 3};

	hostile_put(message, NFQA_PACKET_HDR, header, sizeof(header));
}

void hostile_start_packet(struct message *message)
{
	hostile_start(message);
	hostile_put_header(message);
}

/* Strings, as one header a line reads better; the closing zero is not part of them. */
const uint8_t hostile_udp[33] = "\x45\0\0\x21\0\1\0\0\x40\x11\0\0\x7f\0\0\1\x7f\0\0\1" /* IPv4 */
				"\x30\x39\0\x35\0\x0d\0\0"			       /* UDP */
				"hello";

const uint8_t hostile_tcp6[93] =
	"\x60\0\0\0\0\x35\0\x40"			     /* IPv6 */
	"\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"	     /* source */
	"\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\2"	     /* destination */
	"\x2b\0\1\4\0\0\0\0"				     /* hop-by-hop options */
	"\6\2\2\1\0\0\0\0"				     /* routing, type 2, one left */
	"\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\3"	     /* the final destination */
	"\x30\x39\0\x50\0\0\0\1\0\0\0\2\x50\x18\1\0\0\0\0\0" /* TCP */
	"x";

void hostile_put_facts(struct message *message)
{
	static const uint8_t stamp[16] = {0, 0, 0, 0, 0x60, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3};
	static const uint8_t address[12] = {0, 6, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0};
	static const uint8_t ethernet[14] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0};
	/* two nested attributes: protocol and tag, each padded */
	uint8_t vlan[16] = {6, 0, 1, 0, 0x81, 0, 0, 0, 6, 0, 2, 0, 0x20, 5, 0, 0};

	put_host16(vlan, 6);
	put_host16(vlan + 2, NFQA_VLAN_PROTO);
	put_host16(vlan + 8, 6);
	put_host16(vlan + 10, NFQA_VLAN_TCI);
	hostile_put32(message, NFQA_MARK, 0x11223344);
	hostile_put(message, NFQA_TIMESTAMP, stamp, sizeof(stamp));
	hostile_put32(message, NFQA_IFINDEX_INDEV, 2);
	hostile_put32(message, NFQA_IFINDEX_OUTDEV, 3);
	hostile_put32(message, NFQA_IFINDEX_PHYSINDEV, 4);
	hostile_put32(message, NFQA_IFINDEX_PHYSOUTDEV, 5);
	hostile_put(message, NFQA_HWADDR, address, sizeof(address));
	hostile_put(message, NFQA_CT | NLA_F_NESTED, "\b\0\1\0abcd", 8);
	hostile_put32(message, NFQA_CT_INFO, 2);
	hostile_put32(message, NFQA_UID, 1000);
	hostile_put32(message, NFQA_GID, 1001);
	hostile_put(message, NFQA_SECCTX, "user:role:type", 15);
	hostile_put(message, NFQA_VLAN | NLA_F_NESTED, vlan, sizeof(vlan));
	hostile_put(message, NFQA_L2HDR, ethernet, sizeof(ethernet));
	hostile_put32(message, NFQA_PRIORITY, 7);
	hostile_put32(message, CGROUP, 0x100001);
	hostile_put32(message, NFQA_SKB_INFO, NFQA_SKB_CSUMNOTREADY | NFQA_SKB_GSO);
}

void hostile_make_whole(struct message *message, const uint8_t *packet, size_t length)
{
	hostile_start_packet(message);
	hostile_put_facts(message);
	hostile_put32(message, NFQA_CAP_LEN, (uint32_t)length);
	hostile_put(message, NFQA_PAYLOAD, packet, length);
}
