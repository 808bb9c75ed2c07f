/*
 * message.h - from the bytes of one received netlink message to a struct nq_packet.
 *
 * Own attribute walk with bounds of its own: libnetfilter_queue 1.0.5 drops attributes above 18,
 * and libmnl's iterators trust nlmsg_len. Reads nothing outside the bytes given; allocates nothing.
 */
#ifndef NQ_MESSAGE_H
#define NQ_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "packet/packet.h"

enum nq_message_kind {
	NQ_MESSAGE_PACKET,  /* a packet to judge */
	NQ_MESSAGE_ANSWER,  /* the kernel's answer to a request: 0 or an errno */
	NQ_MESSAGE_IGNORED, /* something else, or not a whole message */
	NQ_MESSAGE_BROKEN,  /* a packet message with an id but otherwise unreadable: judge by id
			       alone */
};

struct nq_answer {
	uint32_t seq; /* of the request */
	int error;    /* 0, or a positive errno */
};

/*
 * Reads the message of `length` bytes at `bytes` (4-byte aligned).
 *
 * NQ_MESSAGE_PACKET, NQ_MESSAGE_BROKEN: *packet is filled; its pointers reach into `bytes`, and
 * packet->spare is left alone. NQ_MESSAGE_ANSWER: *answer is filled.
 */
enum nq_message_kind nq_message_read(struct nq_packet *packet, struct nq_answer *answer,
				     uint8_t *bytes, size_t length);

/*
 * One step of an attribute walk: the attribute at *offset of `end` bytes. An attribute's length
 * counts its 4-byte header; the next begins at the following multiple of 4, which may lie past the
 * end (the kernel need not pad the last). Returns false at the end, or at the first that does not
 * fit.
 */
bool nq_attribute_next(const uint8_t *bytes, size_t end, size_t *offset, uint16_t *type,
		       const uint8_t **value, uint16_t *length);

#endif
