/*
 * crc32c.h - the checksum of SCTP (RFC 9260 appendix A): CRC-32 with the Castagnoli polynomial.
 */
#ifndef NQ_CRC32C_H
#define NQ_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Over `length` bytes; stored in the packet in little-endian order. */
uint32_t nq_crc32c(const uint8_t *bytes, size_t length);

#endif
