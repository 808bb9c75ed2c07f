/*
 * cidr.h - the content of an address set: prefixes with values, found by the longest that holds an
 * address.
 *
 * Prefixes are flattened into the ranges they leave visible,
 *
 *     10.0.0.0/8 a          10.0.0.0  a
 *     10.1.0.0/16 b         10.1.0.0  b
 *                           10.2.0.0  a
 *                           11.0.0.0  -
 *
 * sorted by their first address: at most twice as many as prefixes. A search is one for the last
 * range that does not begin behind the address; it takes the same few steps for every set of a
 * size, whatever the prefixes look like. IPv4 begins with a table of the upper 16 bits, IPv6 with a
 * tree of every 64th address.
 */
#ifndef NQ_TABLE_CIDR_H
#define NQ_TABLE_CIDR_H

#include <stdbool.h>

#include "table/address.h"
#include "table/set.h"
#include "table/value.h"

#define NQ_CIDR_VALUE_MAX 255 /* bytes of a string */

struct nq_cidr;
struct nq_cidr_builder;

extern const struct nq_set_kind nq_cidr_kind;

struct nq_cidr_builder *nq_cidr_builder_new(void);
void nq_cidr_builder_free(struct nq_cidr_builder *builder); /* NULL: does nothing */

/* A string is copied. 0, -ENOMEM, or -E2BIG: NQ_SET_ENTRIES_MAX. */
int nq_cidr_add(struct nq_cidr_builder *builder, const struct nq_prefix *prefix,
		const struct nq_value *value);

/*
 * Lines: empty, or a prefix and behind blanks its value, a string (none: true). A word that begins
 * with
 * '#' or ';' begins a comment. See nq_list_parse.
 */
int nq_cidr_parse(void *builder, const char *text, size_t length, struct nq_list *list);

/* Of prefixes added twice the last one counts. NULL: no memory. The builder is used up. */
struct nq_cidr *nq_cidr_build(struct nq_cidr_builder *builder);
void nq_cidr_free(struct nq_cidr *cidr); /* NULL: does nothing */

/* A prefix that was added with two different values, if there is one; after nq_cidr_build. */
bool nq_cidr_conflict(const struct nq_cidr_builder *builder, struct nq_prefix *prefix);

/* The same for contents that answer alike; not 0. */
uint64_t nq_cidr_fingerprint(const struct nq_cidr *cidr);

/* Different prefixes. */
size_t nq_cidr_count(const struct nq_cidr *cidr);

/* The value of the longest prefix that holds the address; a string lies in the content. */
bool nq_cidr_find(const struct nq_cidr *cidr, const struct nq_address *address,
		  struct nq_value *value);

#endif
