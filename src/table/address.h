/*
 * address.h - addresses and prefixes read from text (RFC 4291 section 2.2 and 2.3, RFC 4632), as
 * numbers.
 */
#ifndef NQ_TABLE_ADDRESS_H
#define NQ_TABLE_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The address's bits from the top of `high` on; bits behind them are 0. */
struct nq_address {
	uint64_t high, low;
	uint8_t bits; /* 32: IPv4, 128: IPv6 */
};

struct nq_prefix {
	struct nq_address address; /* no bits set behind `length` */
	uint8_t length;
};

/* Text as inet_pton takes it: no leading zeros, no zone, nothing around it. */
bool nq_address_parse(const char *text, size_t length, struct nq_address *address);

/* Bytes in network order: 4 or 16 of them. */
bool nq_address_read(const uint8_t *bytes, size_t length, struct nq_address *address);

enum nq_prefix_result {
	NQ_PREFIX_OK,
	NQ_PREFIX_NO_ADDRESS,  /* what is in front of the slash, if there is one, is no address */
	NQ_PREFIX_BAD_LENGTH,  /* what is behind the slash is no length, or too much */
	NQ_PREFIX_SURPLUS_BITS /* the address has bits behind the length: `prefix` is without */
};

/* An address, or an address, a slash and a length. */
enum nq_prefix_result nq_prefix_parse(const char *text, size_t length, struct nq_prefix *prefix);

/* The prefix's last address. */
void nq_prefix_end(const struct nq_prefix *prefix, uint64_t *high, uint64_t *low);

#define NQ_PREFIX_TEXT 56

/* As text, with a terminating zero. */
void nq_prefix_print(const struct nq_prefix *prefix, char text[NQ_PREFIX_TEXT]);

#endif
