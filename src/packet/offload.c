#include "packet/offload.h"

#include <netinet/in.h>
#include <string.h>

#include "packet/bytes.h"
#include "packet/complete.h"

enum { FIN = 0x01, SYN = 0x02, RST = 0x04, PSH = 0x08, URG = 0x20, CWR = 0x80 };

void nq_offload_begin(struct nq_offload *offload, const uint8_t *bytes, uint32_t length)
{
	*offload = (struct nq_offload){.bytes = bytes, .length = length, .count = 1};
	nq_layout_read(&offload->layout, bytes, length);
	offload->complete = nq_checksum_check(&offload->layout, bytes, length,
					      &offload->checksum) == NQ_CHECKSUM_PARTIAL;
}

bool nq_offload_cut(struct nq_offload *offload, uint32_t mtu)
{
	const struct nq_layout *layout = &offload->layout;
	uint32_t head;

	if (nq_complete_check(layout, offload->bytes, offload->length) || nq_is_fragment(layout) ||
	    layout->protocol != IPPROTO_TCP ||
	    offload->bytes[layout->transport + 13] & (SYN | RST | URG))
		return false;
	head = layout->transport + (uint32_t)(offload->bytes[layout->transport + 12] >> 4) * 4;
	if (head >= mtu || head >= offload->length)
		return false;
	offload->head = head;
	offload->share = mtu - head;
	offload->count = (offload->length - head + offload->share - 1) / offload->share;
	return true;
}

uint32_t nq_offload_write(const struct nq_offload *offload, uint32_t index, uint8_t *out)
{
	uint32_t at = offload->layout.transport;
	uint32_t start = offload->head + index * offload->share;
	uint32_t size = offload->length - start;

	if (offload->count == 1) {
		memcpy(out, offload->bytes, offload->length);
		if (offload->complete)
			memcpy(out + at + nq_checksum_offset(&offload->layout), &offload->checksum,
			       2);
		return offload->length;
	}
	memcpy(out, offload->bytes, offload->head);
	if (size > offload->share)
		size = offload->share;
	memcpy(out + offload->head, offload->bytes + start, size);
	nq_put_u32(out + at + 4, nq_get_u32(out + at + 4) + index * offload->share);
	if (index > 0)
		out[at + 13] &= (uint8_t)~CWR; /* the kernel's pieces: RFC 3168 has it told once */
	if (index + 1 < offload->count)
		out[at + 13] &= (uint8_t) ~(FIN | PSH);
	if (offload->layout.version == 4)
		nq_put_u16(out + 4, nq_get_u16(out + 4) + index);
	nq_complete(&offload->layout, out, offload->head + size, NULL);
	return offload->head + size;
}
