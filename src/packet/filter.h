/*
 * filter.h - tcpdump expressions (pcap-filter(7)), compiled once and run over packets by libpcap.
 *
 * Expressions see a packet from its network header on (link type RAW), so those about a link layer
 * do not compile. A filter does not change and may be used by several threads. In a build without
 * libpcap (NQ_HAVE_PCAP) none can be made.
 */
#ifndef NQ_FILTER_H
#define NQ_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "packet/packet.h"

struct nq_filter;

/* Whether there is a libpcap; and what to say when there is none. */
bool nq_pcap_available(void);
#define NQ_PCAP_MISSING                                                                            \
	"this build has no libpcap: install Debian's libpcap-dev (or its like) and build again"

/*
 * Compiles the expression. NULL: *message, of `size` bytes, says why in libpcap's words, or
 * NQ_PCAP_MISSING. Names of hosts in it are looked up now, which may take a while.
 */
struct nq_filter *nq_filter_new(const char *expression, char *message, size_t size);
void nq_filter_free(struct nq_filter *filter);

const char *nq_filter_expression(const struct nq_filter *filter);

/*
 * Whether a packet matches, of which `length` bytes are here and `wire_length` were on the wire.
 * What an expression looks for behind the bytes that are here does not match.
 */
bool nq_filter_match(const struct nq_filter *filter, const uint8_t *bytes, uint32_t length,
		     uint32_t wire_length);

/* The same for a packet as it is now. */
static inline bool nq_filter_takes(const struct nq_filter *filter, const struct nq_packet *packet)
{
	bool is_known = packet->have & NQ_HAVE_WIRE_LENGTH;

	return nq_filter_match(filter, packet->data, packet->length,
			       is_known ? packet->wire_length : packet->length);
}

#endif
