/*
 * values.h - different values, each kept once and known by a number: many prefixes have the same.
 */
#ifndef NQ_TABLE_VALUES_H
#define NQ_TABLE_VALUES_H

#include "table/hash.h"
#include "table/value.h"

struct nq_values {
	struct nq_hash_key key;
	struct nq_stored_value *list; /* number 1 is list[0] */
	uint32_t count, capacity;
	char *pool; /* the strings, one behind the other */
	size_t pool_length, pool_capacity;
	uint32_t *index; /* numbers by hash; a power of two, NULL once sealed */
	size_t index_size;
};

void nq_values_init(struct nq_values *values);
void nq_values_fini(struct nq_values *values);

/* The number of the value, from 1 on; a string is copied. 0: no memory, or 4 GB of strings. */
uint32_t nq_values_add(struct nq_values *values, const struct nq_value *value);

/* No more will be added: gives back what only that needs. */
void nq_values_seal(struct nq_values *values);

/* A string lies in the pool. */
void nq_values_get(const struct nq_values *values, uint32_t number, struct nq_value *value);

#endif
