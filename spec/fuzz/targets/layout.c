/* What is found in a packet: headers, payload, ends, an embedded packet, the line it prints as. */
#include <ctype.h>

#include "packet/header.h"
#include "packet/icmp.h"
#include "packet/print.h"
#include "packet/tuple.h"
#include "target.h"

/* Where the headers are, against an own walk. `exact`: nothing of the packet is elsewhere. */
static void check_headers(struct run *run, struct nq_packet *packet, bool exact)
{
	static const unsigned protocols[] = {
		[NQ_HEADER_TCP] = 6, [NQ_HEADER_UDP] = 17, [NQ_HEADER_ICMP] = 1};
	static const size_t least[] = {
		[NQ_HEADER_TCP] = 20, [NQ_HEADER_UDP] = 8, [NQ_HEADER_ICMP] = 4};
	unsigned version = packet->length ? packet->data[0] >> 4 : 0;
	bool is_ip =
		(version == 4 && packet->length >= 20) || (version == 6 && packet->length >= 40);
	uint32_t offset;
	unsigned protocol;
	size_t at;
	bool has = hostile_find_transport(packet->data, packet->length, &protocol, &at);

	CHECK(run, nq_header_find(packet, NQ_HEADER_IP, &offset) == is_ip);
	CHECK(run, nq_header_find(packet, NQ_HEADER_IP4, &offset) == (is_ip && version == 4));
	CHECK(run, nq_header_find(packet, NQ_HEADER_IP6, &offset) == (is_ip && version == 6));
	if (protocol == 58)
		protocol = 1;
	for (enum nq_header header = NQ_HEADER_TCP; header <= NQ_HEADER_ICMP; header++) {
		bool found = nq_header_find(packet, header, &offset);

		if (exact)
			CHECK(run, found == (has && protocol == protocols[header]));
		if (found)
			CHECK(run,
			      offset <= packet->length && packet->length - offset >= least[header]);
		if (found && has)
			CHECK(run, offset == at);
	}
}

static void check_payload(struct run *run, struct nq_packet *packet, bool exact)
{
	uint32_t offset, end;
	size_t own_offset, own_end;

	if (!nq_payload_find(packet, &offset, &end)) {
		CHECK(run, packet->length == 0);
		return;
	}
	CHECK(run, offset <= end && end <= packet->length);
	hostile_find_payload(packet->data, packet->length, &own_offset, &own_end);
	if (exact)
		CHECK(run, end - offset == own_end - own_offset);
	if (exact && offset < end)
		CHECK(run, offset == own_offset);
}

static void check_tuple(struct run *run, struct nq_packet *packet)
{
	const struct nq_flow_tuple *tuple;
	char text[NQ_TUPLE_SIZE];
	size_t length;

	memset(text, 0x7f, sizeof(text));
	if (!nq_tuple_find(packet, &tuple))
		return;
	CHECK(run, tuple->version == packet->data[0] >> 4);
	length = nq_tuple_print(tuple, text);
	CHECK(run, length < sizeof(text) && strlen(text) == length);
}

static void check_line(struct run *run, struct nq_packet *packet)
{
	char line[NQ_PRINT_SIZE];
	size_t length;

	memset(line, 0x7f, sizeof(line));
	nq_packet_print(packet, line);
	length = strnlen(line, sizeof(line));
	CHECK(run, length > 0 && length < sizeof(line) - 1);
	for (size_t i = 0; i < length; i++)
		CHECK(run, isprint((unsigned char)line[i]));
}

static void check_packet(struct run *run, struct nq_packet *packet)
{
	/* Of what is longer on the wire than a length field can say, it says nothing. */
	bool exact = nq_wire_length(packet) <= 65535;

	check_headers(run, packet, exact);
	check_payload(run, packet, exact);
	check_tuple(run, packet);
	check_line(run, packet);
}

/* Errors embed packets, which may be errors. */
static void check_embedded(struct run *run, struct nq_packet *packet)
{
	struct nq_packet inner = {.have = NQ_HAVE_PAYLOAD};
	uint32_t icmp, offset, end;
	uint8_t *block;

	if (nq_icmp_has_id(packet))
		CHECK(run,
		      nq_header_find(packet, NQ_HEADER_ICMP, &icmp) && packet->length - icmp >= 8);
	if (!nq_embedded_find(packet, &offset, &end))
		return;
	if (!CHECK(run, nq_header_find(packet, NQ_HEADER_ICMP, &icmp)) ||
	    !CHECK(run, icmp < offset && offset <= end && end <= packet->length))
		return;
	block = hostile_take_bytes(packet->data + offset, end - offset);
	inner.data = block;
	inner.length = end - offset;
	check_packet(run, &inner);
	if (inner.length)
		check_embedded(run, &inner);
	hostile_give_bytes(block);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	struct target target = target_begin("layout", input, size);
	struct nq_packet packet = target_packet(&target);
	uint8_t *copy = hostile_take_bytes(target.bytes, target.length);

	hostile_check_layout(target.run, target.bytes, target.length);
	check_packet(target.run, &packet);
	check_embedded(target.run, &packet);
	CHECK(target.run, same_bytes(target.bytes, copy, target.length));
	hostile_give_bytes(copy);
	target_end(&target);
	return 0;
}
