/*
 * store.h - values by key for all threads of a process: bounded, with an optional time to live.
 *
 * Each call is atomic. Any thread. Keys have at most NQ_LRU_KEY_MAX bytes.
 */
#ifndef NQ_TABLE_STORE_H
#define NQ_TABLE_STORE_H

#include <stdbool.h>

#include "table/clock.h"
#include "table/lru.h"
#include "table/registry.h"
#include "table/value.h"

#define NQ_STORE_BYTES_LEAST 4096
#define NQ_STORE_BYTES_MOST ((size_t)1 << (sizeof(size_t) == 8 ? 36 : 30))
#define NQ_STORE_BYTES ((size_t)16 << 20) /* when nothing else is asked for */

struct nq_store;

/* For nq_registry_get: 0 takes the table as it is, or makes one of NQ_STORE_BYTES. */
struct nq_store_options {
	size_t max_bytes;
};

extern const struct nq_table_class nq_store_class;

size_t nq_store_max_bytes(const struct nq_store *store);

/*
 * False: there is none. A string is copied to `buffer` as far as it has `capacity` for it: when
 * value->string.length is more, nothing is copied and the caller asks again.
 */
bool nq_store_get(struct nq_store *store, const void *key, size_t length,
		  const struct nq_clock *clock, struct nq_value *value, char *buffer,
		  size_t capacity);

/*
 * `life`: nanoseconds, 0: for ever. 0, or -ENOSPC: the value does not fit, and nothing has changed.
 */
int nq_store_set(struct nq_store *store, const void *key, size_t length,
		 const struct nq_value *value, int64_t life, const struct nq_clock *clock);

/* The same, if there is no value yet; else -EEXIST. */
int nq_store_add(struct nq_store *store, const void *key, size_t length,
		 const struct nq_value *value, int64_t life, const struct nq_clock *clock);

/*
 * Adds *by (a number) to the number that is there, in Lua's arithmetic; with none there, *by
 * becomes the value and lives for `life`. 0 with the new value in *result; -ENOSPC; or -EDOM with
 * the kind of what is there, which is no number, in result->kind.
 */
int nq_store_incr(struct nq_store *store, const void *key, size_t length, const struct nq_value *by,
		  int64_t life, const struct nq_clock *clock, struct nq_value *result);

/* Whether there was one. */
bool nq_store_delete(struct nq_store *store, const void *key, size_t length,
		     const struct nq_clock *clock);

void nq_store_flush(struct nq_store *store);

unsigned nq_store_stripes(const struct nq_store *store);

/*
 * Writes the keys of one stripe, each as its length in 2 bytes (host order) and its bytes, as far
 * as whole keys fit `capacity`: returns the bytes that all take.
 */
size_t nq_store_keys(struct nq_store *store, unsigned stripe, const struct nq_clock *clock,
		     char *buffer, size_t capacity);

void nq_store_stats(struct nq_store *store, struct nq_lru_stats *stats);

#endif
