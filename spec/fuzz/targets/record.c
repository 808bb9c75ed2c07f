/* A record of a capture file, of every link type; and a packet recorded and read again. */
#include "packet/capture.h"
#include "target.h"

/* libpcap's numbers of those that are known, and one that is not. */
static const int links[] = {0, 1, 9, 12, 50, 105, 108, 113, 228, 229, 239, 276};

static void check_read(struct run *run, uint8_t *bytes, uint32_t length, uint32_t wire_length,
		       int link)
{
	struct nq_packet packet = {.spare = NULL};
	struct nq_capture_note note;
	bool is_known = nq_capture_knows(link);

	CHECK(run, is_known == (link != 105));
	if (!nq_capture_read(&packet, &note, link, bytes, length, wire_length))
		return;
	CHECK(run, is_known);
	CHECK(run, packet.data >= bytes && packet.data + packet.length <= bytes + length);
	CHECK(run, packet.length <= NQ_PACKET_MAX && packet.hwaddr_length <= sizeof(packet.hwaddr));
	if (packet.have & NQ_HAVE_WIRE_LENGTH)
		CHECK(run, packet.wire_length > packet.length);
	if (packet.l2header)
		CHECK(run, packet.l2header >= bytes &&
				   packet.l2header + packet.l2header_length <= packet.data);
	if (note.prefix)
		CHECK(run,
		      (const uint8_t *)note.prefix >= bytes &&
			      (const uint8_t *)note.prefix + note.prefix_length <= bytes + length);
	for (uint32_t i = 0; i < packet.length; i++)
		run->sink += packet.data[i];
}

/* What nq_capture_head writes in front of a packet is read back as it was. */
static void check_again(struct run *run, struct nq_packet *packet)
{
	uint8_t head[NQ_CAPTURE_HEAD];
	char prefix[NQ_CAPTURE_PREFIX + 1] = "";
	uint32_t size, padded;
	struct nq_packet again = {.spare = NULL};
	struct nq_capture_note note;
	uint8_t *record;

	for (uint32_t i = below(run, sizeof(prefix)); i > 0; i--)
		prefix[i - 1] = 'x';
	packet->mark = below(run, 0x10000);
	packet->iif = below(run, 0x10000);
	packet->have |=
		one_in(run, 2) ? NQ_HAVE_IIF | NQ_HAVE_TIMESTAMP : NQ_HAVE_UID | NQ_HAVE_GID;
	packet->hwaddr_length = (uint8_t)below(run, 9);
	size = nq_capture_head(packet, one_in(run, 4) ? NULL : prefix, head);
	if (!CHECK(run, size <= sizeof(head)))
		return;
	padded = (packet->length + 3) & ~3U;
	record = hostile_take_bytes(NULL, size + padded);
	copy_bytes(record, head, size);
	copy_bytes(record + size, packet->data, packet->length);
	memset(record + size + packet->length, 0, padded - packet->length);
	if (CHECK(run, nq_capture_read(&again, &note, 239, record, size + padded, size + padded))) {
		CHECK(run, again.length == packet->length &&
				   same_bytes(again.data, packet->data, packet->length));
		CHECK(run, again.mark == packet->mark && again.hook == packet->hook &&
				   again.hwaddr_length == packet->hwaddr_length);
		CHECK(run, !note.prefix || note.prefix_length == strlen(prefix));
		if (packet->have & NQ_HAVE_IIF)
			CHECK(run, again.have & NQ_HAVE_IIF && again.iif == packet->iif);
	}
	hostile_give_bytes(record);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	struct target target = target_begin("record", input, size);
	struct run *run = target.run;
	uint32_t length = (uint32_t)target.length;
	uint32_t more = one_in(run, 2) ? below(run, 0x20000) : 0;
	struct nq_packet packet;

	for (size_t i = 0; i < COUNT(links); i++)
		check_read(run, target.bytes, length, length + more, links[i]);
	packet = target_packet(&target);
	check_again(run, &packet);
	target_end(&target);
	return 0;
}
