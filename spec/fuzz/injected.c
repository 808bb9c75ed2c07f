/*
 * What goes out through raw sockets: answers of rejected packets, and packets sent again, whole or
 * in pieces; each written into a block of exactly its size.
 */
#include "hostile.h"
#include "packet/checksum.h"
#include "packet/complete.h"
#include "packet/offload.h"
#include "packet/reject.h"

void hostile_reject(struct run *run, struct nq_packet *packet)
{
	uint8_t old = packet->reject_kind;

	for (uint8_t kind = 0; kind < NQ_REJECT_KINDS; kind++) {
		struct nq_build build;
		const char *reason;
		uint8_t *bytes;
		size_t size;

		packet->reject_kind = kind;
		reason = nq_reject_answer(packet, &build);
		run->answers++;
		if (reason) {
			CHECK(run, *reason);
			run->unanswered++;
			continue;
		}
		size = nq_build_size(&build);
		if (!CHECK(run, size <= NQ_REJECT_MOST))
			continue;
		bytes = hostile_take_bytes(NULL, size);
		nq_build_write(&build, bytes);
		hostile_verify(run, bytes, size, 0, 0);
		hostile_give_bytes(bytes);
	}
	packet->reject_kind = old;
}

/* The pieces are within the mtu, right in themselves, and the payload when put together. */
static void check_pieces(struct run *run, const struct nq_offload *offload, uint32_t mtu)
{
	uint32_t joined = 0, tcp = offload->layout.transport;

	for (uint32_t i = 0; i < offload->count; i++) {
		uint8_t *piece = hostile_take_bytes(NULL, offload->length);
		uint32_t size = nq_offload_write(offload, i, piece);
		uint32_t data = size - offload->head;

		if (CHECK(run, size > offload->head && size <= mtu && size <= offload->length)) {
			hostile_verify(run, piece, size, 0, 0);
			CHECK(run, same_bytes(piece + offload->head,
					      offload->bytes + offload->head + joined, data));
			CHECK(run,
			      get32(piece + tcp + 4) == get32(offload->bytes + tcp + 4) + joined);
			joined += data;
		}
		hostile_give_bytes(piece);
	}
	CHECK(run, offload->head + joined == offload->length);
}

static void put_sum(uint8_t *at, uint64_t sum)
{
	uint16_t folded = (uint16_t)~nq_checksum_fold(sum);

	memcpy(at, &folded, 2);
}

static void send_again(struct run *run, const uint8_t *bytes, size_t length)
{
	uint32_t mtu = 20 + below(run, 1500);
	struct nq_offload offload, again;
	uint8_t *whole = hostile_take_bytes(NULL, length);

	nq_offload_begin(&offload, bytes, (uint32_t)length);
	CHECK(run, offload.count == 1);
	CHECK(run, nq_offload_write(&offload, 0, whole) == length);
	/* What was completed is right: nothing is left to be. */
	if (offload.complete) {
		nq_offload_begin(&again, whole, (uint32_t)length);
		CHECK(run, !again.complete);
	} else {
		CHECK(run, same_bytes(whole, bytes, length));
	}
	hostile_give_bytes(whole);
	/* One that fits goes as it is. */
	if (nq_offload_cut(&offload, mtu) && offload.count > 1)
		check_pieces(run, &offload, mtu);
}

void hostile_send(struct run *run, const uint8_t *bytes, size_t length)
{
	struct nq_layout layout;
	uint8_t *local;
	uint32_t at;

	if (length == 0)
		return;
	send_again(run, bytes, length);
	nq_layout_read(&layout, bytes, length);
	at = layout.transport + nq_checksum_offset(&layout);
	if (layout.version == 0 || layout.cut || at == layout.transport || at + 2 > length)
		return;
	/* As a local packet: no more than the sum of the pseudo header. */
	local = hostile_take_bytes(bytes, length);
	put_sum(local + at,
		nq_pseudo_header_sum(&layout, bytes, (uint32_t)length - layout.transport));
	send_again(run, local, length);
	hostile_give_bytes(local);
}
