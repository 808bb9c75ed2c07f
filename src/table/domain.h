/*
 * domain.h - the content of a name set: domain names that stand for themselves and what is below
 * them.
 *
 * Names are bytes: the case of ASCII letters and a dot at the end do not matter, anything else does
 * (names of other alphabets are written as DNS carries them, xn--...). Each lies once in a pool,
 * and a hash table leads there; a search asks it for each of the searched name's ends, from the
 * last label on. The hash of an end goes on from the one of the shorter end, so a search reads each
 * byte once.
 */
#ifndef NQ_TABLE_DOMAIN_H
#define NQ_TABLE_DOMAIN_H

#include <stdbool.h>

#include "table/set.h"

/* RFC 1035 section 2.3.4, without the dot at the end. */
#define NQ_DOMAIN_MAX 253
#define NQ_DOMAIN_LABEL_MAX 63

struct nq_domains;
struct nq_domain_builder;

extern const struct nq_set_kind nq_domain_kind;

struct nq_domain_builder *nq_domain_builder_new(void);
void nq_domain_builder_free(struct nq_domain_builder *builder); /* NULL: does nothing */

/*
 * "example.com" stands for itself and all below, "*.example.com" only for what is below. 0,
 * -ENOMEM, -E2BIG (NQ_SET_ENTRIES_MAX), or -EINVAL with *problem: why it is no name.
 */
int nq_domain_add(struct nq_domain_builder *builder, const char *name, size_t length,
		  const char **problem);

/*
 * Lines: empty, one name, or as in hosts(5) an address and names, of which those that every machine
 * gives itself ("localhost") are passed over. '#' begins a comment. See nq_list_parse.
 */
int nq_domain_parse(void *builder, const char *text, size_t length, struct nq_list *list);

/* NULL: no memory. The builder is used up. */
struct nq_domains *nq_domain_build(struct nq_domain_builder *builder);
void nq_domain_free(struct nq_domains *domains); /* NULL: does nothing */

/* The same for contents of the same names; not 0. */
uint64_t nq_domain_fingerprint(const struct nq_domains *domains);

/* Different names: "*.example.com" beside "example.com" is none. */
size_t nq_domain_count(const struct nq_domains *domains);

/* Any bytes: what cannot be a name is in no set. */
bool nq_domain_has(const struct nq_domains *domains, const char *name, size_t length);

#endif
