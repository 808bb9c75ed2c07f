/*
 * cidr_flatten.h - prefixes sorted, and flattened into the ranges they leave visible.
 */
#ifndef NQ_TABLE_CIDR_FLATTEN_H
#define NQ_TABLE_CIDR_FLATTEN_H

#include "table/address.h"

struct nq_cidr_item {
	uint64_t high, low; /* a prefix's address, as in struct nq_address */
	uint32_t number;    /* of its value, not 0 */
	uint8_t length;
};

struct nq_cidr_items {
	struct nq_cidr_item *list;
	size_t count, capacity;
};

struct nq_cidr_range {
	uint64_t high, low;
	uint32_t number; /* 0: in no prefix */
};

struct nq_cidr_ranges {
	struct nq_cidr_range *list;
	size_t count;
	size_t prefixes; /* different ones */
	bool conflicting;
	struct nq_prefix conflict; /* was there with different numbers; the last one counts */
};

/*
 * Sorts the items, all of one family, and fills ranges->list, a block of the caller: each range
 * reaches to the next, and has another number than the one before; the first is not 0. False: no
 * memory.
 */
bool nq_cidr_flatten(struct nq_cidr_items *items, uint8_t bits, struct nq_cidr_ranges *ranges);

#endif
