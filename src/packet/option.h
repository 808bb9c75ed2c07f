/*
 * option.h - the options of a TCP header (RFC 9293 section 3.1): finding and setting them.
 */
#ifndef NQ_OPTION_H
#define NQ_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "packet/packet.h"

enum { NQ_OPTION_END = 0, NQ_OPTION_NOP = 1, NQ_OPTION_MSS = 2, NQ_OPTION_SACK = 5 };
enum { NQ_TCP_OPTIONS_MAX = 40 };

/*
 * The option `kind` of a TCP header (RFC 9293 section 3.1) at `offset` of the packet: its value's
 * offset and length, without kind and length bytes. False when it is not there; options behind the
 * end-of-list option or a malformed one are not.
 */
bool nq_tcp_option_find(const struct nq_packet *packet, uint32_t offset, uint8_t kind,
			uint32_t *value, uint8_t *length);

struct nq_tcp_options {
	uint8_t bytes[NQ_TCP_OPTIONS_MAX];
	uint8_t length; /* a multiple of 4 */
};

/*
 * Fills *options with those of `size` bytes at `bytes` and `kind` with this value (NULL: without
 * `kind`), in the place of the old one or behind the others. Padding that stood between them stays
 * as long as there is room. A refusal as in edit.h, or NULL.
 */
const char *nq_tcp_options_set(struct nq_tcp_options *options, const uint8_t *bytes, uint32_t size,
			       uint8_t kind, const uint8_t *value, size_t length);

#endif
