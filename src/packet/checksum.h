/*
 * checksum.h - the Internet checksum (RFC 1071) over bytes at any alignment.
 *
 * Sums are carried as 64-bit partial sums in host order of 16-bit words as they lie in memory, so
 * that pieces can be added in any order; each piece but the last must have an even length. It knows
 * no protocol: what is summed is the caller's choice.
 */
#ifndef NQ_CHECKSUM_H
#define NQ_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* Adds `length` bytes at `bytes` to the partial sum `sum`; an odd last byte counts as if a zero
 * followed. */
uint64_t nq_checksum_add(uint64_t sum, const uint8_t *bytes, size_t length);

/* Folds a partial sum to the 16-bit complement, in memory order: memcpy it into the header. */
uint16_t nq_checksum_fold(uint64_t sum);

#endif
