#include "packet/capture.h"

#include <string.h>

#include "packet/bytes.h"

/* pcap-linktype(7); libpcap's numbers on Linux. */
enum {
	LINK_NULL = 0,
	LINK_ETHERNET = 1,
	LINK_PPP = 9,
	LINK_RAW = 12,
	LINK_PPP_SERIAL = 50,
	LINK_LOOP = 108,
	LINK_SLL = 113,
	LINK_IPV4 = 228,
	LINK_IPV6 = 229,
	LINK_NFLOG = 239,
	LINK_SLL2 = 276,
};

enum { ETHERTYPE_IP4 = 0x0800, ETHERTYPE_IP6 = 0x86dd, ETHERTYPE_VLAN = 0x8100 };
enum { ETHERTYPE_QINQ = 0x88a8, ETHERTYPE_QINQ_OLD = 0x9100 };
enum { PPP_IP4 = 0x0021, PPP_IP6 = 0x0057 };
enum { FAMILY_IP4 = 2, FAMILY_IP6 = 10, HOOK_INPUT = 1, HOOK_OUTPUT = 3 };
enum { ETHERNET_HEADER = 14, SLL_HEADER = 16, SLL2_HEADER = 20, OUTGOING = 4 };

/* linux/netfilter/nfnetlink_log.h, NFULA_*: a wire format, so it is kept here. */
enum {
	TLV_PACKET_HEADER = 1, /* be16 ethertype, u8 hook, u8 */
	TLV_MARK = 2,
	TLV_TIMESTAMP = 3, /* be64 seconds, be64 microseconds */
	TLV_IIF = 4,
	TLV_OIF = 5,
	TLV_PHYSIIF = 6,
	TLV_PHYSOIF = 7,
	TLV_HWADDR = 8, /* be16 length, 2 bytes, 8 bytes */
	TLV_PAYLOAD = 9,
	TLV_PREFIX = 10,
	TLV_UID = 11,
	TLV_SEQ = 12,
	TLV_GID = 14,
};

bool nq_capture_knows(int link)
{
	static const int known[] = {LINK_NULL,	     LINK_ETHERNET, LINK_PPP, LINK_RAW,
				    LINK_PPP_SERIAL, LINK_LOOP,	    LINK_SLL, LINK_IPV4,
				    LINK_IPV6,	     LINK_NFLOG,    LINK_SLL2};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (known[i] == link)
			return true;
	}
	return false;
}

static uint16_t guess_ethertype(const uint8_t *bytes, uint32_t length)
{
	if (length > 0 && bytes[0] >> 4 == 4)
		return ETHERTYPE_IP4;
	return length > 0 && bytes[0] >> 4 == 6 ? ETHERTYPE_IP6 : 0;
}

/* The packet is `length` bytes here, and `missing` more were on the wire. */
static void set_content(struct nq_packet *packet, uint8_t *bytes, uint32_t length, uint32_t missing,
			uint16_t ethertype)
{
	packet->data = bytes;
	packet->wire_length = length + missing;
	packet->length = length < NQ_PACKET_MAX ? length : NQ_PACKET_MAX;
	packet->have |= NQ_HAVE_PAYLOAD;
	if (packet->wire_length > packet->length)
		packet->have |= NQ_HAVE_WIRE_LENGTH;
	packet->ethertype = ethertype;
	packet->family = ethertype == ETHERTYPE_IP6 ? FAMILY_IP6 : FAMILY_IP4;
}

static void set_hwaddr(struct nq_packet *packet, const uint8_t *address, uint32_t length)
{
	if (length > sizeof(packet->hwaddr))
		return;
	memcpy(packet->hwaddr, address, length);
	packet->hwaddr_length = (uint8_t)length;
}

static bool is_vlan(uint16_t ethertype)
{
	return ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ ||
	       ethertype == ETHERTYPE_QINQ_OLD;
}

/* Reads VLAN tags from *offset on, where the first one's TCI lies; the outermost is the packet's.
 */
static uint16_t skip_tags(struct nq_packet *packet, const uint8_t *bytes, uint32_t length,
			  uint32_t *offset, uint16_t ethertype)
{
	while (is_vlan(ethertype) && length - *offset >= 4) {
		if (!(packet->have & NQ_HAVE_VLAN)) {
			packet->vlan_proto = ethertype;
			packet->vlan_tci = nq_get_u16(bytes + *offset);
			packet->have |= NQ_HAVE_VLAN;
		}
		ethertype = nq_get_u16(bytes + *offset + 2);
		*offset += 4;
	}
	return ethertype;
}

/* IEEE 802.3: target, source, type. */
static uint16_t read_ethernet(struct nq_packet *packet, const uint8_t *bytes, uint32_t length,
			      uint32_t *offset)
{
	if (length < ETHERNET_HEADER)
		return 0;
	set_hwaddr(packet, bytes + 6, 6);
	*offset = ETHERNET_HEADER;
	return skip_tags(packet, bytes, length, offset, nq_get_u16(bytes + 12));
}

/*
 * Linux cooked: what kind of packet (4: outgoing), kind of device, length of address, address,
 * ethertype; version 2 has the ethertype and the interface first.
 */
static uint16_t read_sll(struct nq_packet *packet, const uint8_t *bytes, uint32_t length,
			 uint32_t *offset)
{
	if (length < SLL_HEADER)
		return 0;
	if (nq_get_u16(bytes) == OUTGOING)
		packet->hook = HOOK_OUTPUT;
	set_hwaddr(packet, bytes + 6, nq_get_u16(bytes + 4));
	*offset = SLL_HEADER;
	return skip_tags(packet, bytes, length, offset, nq_get_u16(bytes + 14));
}

static uint16_t read_sll2(struct nq_packet *packet, const uint8_t *bytes, uint32_t length,
			  uint32_t *offset)
{
	if (length < SLL2_HEADER)
		return 0;
	if (bytes[10] == OUTGOING) {
		packet->hook = HOOK_OUTPUT;
		packet->oif = nq_get_u32(bytes + 4);
		packet->have |= NQ_HAVE_OIF;
	} else {
		packet->iif = nq_get_u32(bytes + 4);
		packet->have |= NQ_HAVE_IIF;
	}
	set_hwaddr(packet, bytes + 12, bytes[11]);
	*offset = SLL2_HEADER;
	return skip_tags(packet, bytes, length, offset, nq_get_u16(bytes));
}

/* RFC 1661 and RFC 1662: address and control, which may be left out, and the protocol. */
static uint16_t read_ppp(const uint8_t *bytes, uint32_t length, uint32_t *offset)
{
	uint32_t at = length >= 2 && bytes[0] == 0xff && bytes[1] == 0x03 ? 2 : 0;
	uint16_t protocol;

	if (length < at + 2)
		return 0;
	protocol = nq_get_u16(bytes + at);
	*offset = at + 2;
	return protocol == PPP_IP4 ? ETHERTYPE_IP4 : protocol == PPP_IP6 ? ETHERTYPE_IP6 : 0;
}

static void read_number(struct nq_packet *packet, uint32_t *field, uint32_t bit,
			const uint8_t *value, uint32_t length)
{
	if (length < 4)
		return;
	*field = nq_get_u32(value);
	packet->have |= bit;
}

static void read_tlv(struct nq_packet *packet, struct nq_capture_note *note, uint16_t type,
		     uint8_t *value, uint32_t length)
{
	switch (type) {
	case TLV_PACKET_HEADER:
		if (length < 3)
			return;
		packet->ethertype = nq_get_u16(value);
		packet->hook = value[2];
		return;
	case TLV_MARK:
		read_number(packet, &packet->mark, 0, value, length);
		return;
	case TLV_IIF:
		read_number(packet, &packet->iif, NQ_HAVE_IIF, value, length);
		return;
	case TLV_OIF:
		read_number(packet, &packet->oif, NQ_HAVE_OIF, value, length);
		return;
	case TLV_PHYSIIF:
		read_number(packet, &packet->physiif, NQ_HAVE_PHYSIIF, value, length);
		return;
	case TLV_PHYSOIF:
		read_number(packet, &packet->physoif, NQ_HAVE_PHYSOIF, value, length);
		return;
	case TLV_HWADDR:
		if (length >= 12)
			set_hwaddr(packet, value + 4, nq_get_u16(value));
		return;
	case TLV_PAYLOAD:
		packet->data = value;
		packet->length = length;
		packet->have |= NQ_HAVE_PAYLOAD;
		return;
	case TLV_PREFIX:
		note->prefix = (const char *)value;
		note->prefix_length = strnlen(note->prefix, length);
		return;
	case TLV_UID:
		read_number(packet, &packet->uid, NQ_HAVE_UID, value, length);
		return;
	case TLV_GID:
		read_number(packet, &packet->gid, NQ_HAVE_GID, value, length);
		return;
	case TLV_SEQ:
		read_number(packet, &packet->id, 0, value, length);
		return;
	default:
		return;
	}
}

/*
 *  0        1         2              4
 * +--------+---------+--------------+----------------+----------------+-------+
 * | family | version | group (be16) | length, 16 bits| type, 16 bits  | value | padding to 4 ...
 * +--------+---------+--------------+----------------+----------------+-------+
 *
 * Lengths count their own 4 bytes; they and the types are in this machine's order, as libpcap gives
 * them. What was cut off lies at the end, in the payload.
 */
static bool read_nflog(struct nq_packet *packet, struct nq_capture_note *note, uint8_t *bytes,
		       uint32_t length, uint32_t *missing)
{
	uint32_t offset = 4;

	if (length < 4 || bytes[1] != 0)
		return false;
	packet->queue = nq_get_u16(bytes + 2);
	while (length - offset >= 4) {
		uint16_t size, type;
		uint32_t here;

		memcpy(&size, bytes + offset, 2);
		memcpy(&type, bytes + offset + 2, 2);
		if (size < 4)
			return false;
		here = size;
		if (here > length - offset) {
			/* Only the payload may be cut by the capture's limit. */
			if (type != TLV_PAYLOAD || !*missing)
				return false;
			here = length - offset;
			*missing = size - here; /* without the padding that is missing, too */
		}
		read_tlv(packet, note, type, bytes + offset + 4, here - 4);
		offset += (here + 3) & ~3u;
		if (offset > length)
			break;
	}
	return packet->have & NQ_HAVE_PAYLOAD;
}

/* The payload as the packet's content: whatever it is, it came to a queue or to a rule. */
static void finish_nflog(struct nq_packet *packet, uint8_t family, uint32_t missing)
{
	uint16_t ethertype = packet->ethertype;

	if (!ethertype)
		ethertype = guess_ethertype(packet->data, packet->length);
	set_content(packet, packet->data, packet->length, missing, ethertype);
	packet->family = family;
}

bool nq_capture_read(struct nq_packet *packet, struct nq_capture_note *note, int link,
		     uint8_t *bytes, uint32_t length, uint32_t wire_length)
{
	uint32_t missing = wire_length > length ? wire_length - length : 0;
	uint32_t offset = 0;
	uint16_t ethertype = 0;

	*note = (struct nq_capture_note){.prefix = NULL};
	nq_packet_reset(packet);
	packet->hook = HOOK_INPUT;
	switch (link) {
	case LINK_RAW:
		break;
	case LINK_IPV4:
		ethertype = ETHERTYPE_IP4;
		break;
	case LINK_IPV6:
		ethertype = ETHERTYPE_IP6;
		break;
	case LINK_NULL:
	case LINK_LOOP:
		offset = 4; /* an address family, whose numbers differ between systems */
		break;
	case LINK_NFLOG:
		if (!read_nflog(packet, note, bytes, length, &missing))
			return false;
		finish_nflog(packet, bytes[0], missing);
		return true;
	case LINK_ETHERNET:
		ethertype = read_ethernet(packet, bytes, length, &offset);
		break;
	case LINK_SLL:
		ethertype = read_sll(packet, bytes, length, &offset);
		break;
	case LINK_SLL2:
		ethertype = read_sll2(packet, bytes, length, &offset);
		break;
	case LINK_PPP:
	case LINK_PPP_SERIAL:
		ethertype = read_ppp(bytes, length, &offset);
		break;
	default:
		return false;
	}
	if (offset > length)
		return false;
	/* Some link types have nothing but the packet's own version to tell. */
	if (link == LINK_RAW || link == LINK_NULL || link == LINK_LOOP)
		ethertype = guess_ethertype(bytes + offset, length - offset);
	if (ethertype != ETHERTYPE_IP4 && ethertype != ETHERTYPE_IP6)
		return false;
	if (link == LINK_ETHERNET) {
		packet->l2header = bytes;
		packet->l2header_length = (uint16_t)offset;
	}
	set_content(packet, bytes + offset, length - offset, missing, ethertype);
	return true;
}

static uint8_t *put_head(uint8_t *at, uint16_t type, uint32_t length)
{
	uint16_t size = (uint16_t)(4 + length);

	memcpy(at, &size, 2);
	memcpy(at + 2, &type, 2);
	return at + 4;
}

static uint8_t *put_value(uint8_t *at, uint16_t type, const void *value, uint32_t length)
{
	uint32_t padded = (length + 3) & ~3u;

	at = put_head(at, type, length);
	memset(at, 0, padded);
	memcpy(at, value, length);
	return at + padded;
}

static uint8_t *put_number(uint8_t *at, uint16_t type, uint32_t number)
{
	uint8_t value[4];

	nq_put_u32(value, number);
	return put_value(at, type, value, sizeof(value));
}

static uint8_t *put_known(uint8_t *at, const struct nq_packet *packet)
{
	const struct {
		uint32_t bit;
		uint16_t type;
		uint32_t value;
	} numbers[] = {
		{NQ_HAVE_IIF, TLV_IIF, packet->iif},
		{NQ_HAVE_OIF, TLV_OIF, packet->oif},
		{NQ_HAVE_PHYSIIF, TLV_PHYSIIF, packet->physiif},
		{NQ_HAVE_PHYSOIF, TLV_PHYSOIF, packet->physoif},
		{NQ_HAVE_UID, TLV_UID, packet->uid},
		{NQ_HAVE_GID, TLV_GID, packet->gid},
	};

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		if (packet->have & numbers[i].bit)
			at = put_number(at, numbers[i].type, numbers[i].value);
	}
	return at;
}

uint32_t nq_capture_head(const struct nq_packet *packet, const char *prefix,
			 uint8_t head[NQ_CAPTURE_HEAD])
{
	uint8_t *at = head + 4;
	uint8_t value[16] = {0};

	head[0] = packet->family;
	head[1] = 0;
	nq_put_u16(head + 2, packet->queue);
	nq_put_u16(value, packet->ethertype);
	value[2] = packet->hook;
	at = put_value(at, TLV_PACKET_HEADER, value, 4);
	if (prefix)
		at = put_value(at, TLV_PREFIX, prefix, (uint32_t)strlen(prefix) + 1);
	at = put_number(at, TLV_MARK, packet->mark);
	at = put_number(at, TLV_SEQ, packet->id);
	at = put_known(at, packet);
	if (packet->hwaddr_length) {
		memset(value, 0, sizeof(value));
		nq_put_u16(value, packet->hwaddr_length);
		memcpy(value + 4, packet->hwaddr, packet->hwaddr_length);
		at = put_value(at, TLV_HWADDR, value, 12);
	}
	if (packet->have & NQ_HAVE_TIMESTAMP) {
		nq_put_u32(value, (uint32_t)(packet->seconds >> 32));
		nq_put_u32(value + 4, (uint32_t)packet->seconds);
		nq_put_u32(value + 8, (uint32_t)(packet->microseconds >> 32));
		nq_put_u32(value + 12, (uint32_t)packet->microseconds);
		at = put_value(at, TLV_TIMESTAMP, value, sizeof(value));
	}
	at = put_head(at, TLV_PAYLOAD, packet->length);
	return (uint32_t)(at - head);
}
