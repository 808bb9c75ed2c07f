/*
 * bytes.h - numbers in network byte order at any alignment.
 */
#ifndef NQ_BYTES_H
#define NQ_BYTES_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t nq_get_u16(const uint8_t *bytes)
{
	uint16_t value;

	memcpy(&value, bytes, sizeof(value));
	return be16toh(value);
}

static inline uint32_t nq_get_u32(const uint8_t *bytes)
{
	uint32_t value;

	memcpy(&value, bytes, sizeof(value));
	return be32toh(value);
}

static inline uint64_t nq_get_u64(const uint8_t *bytes)
{
	uint64_t value;

	memcpy(&value, bytes, sizeof(value));
	return be64toh(value);
}

static inline void nq_put_u16(uint8_t *bytes, uint32_t value)
{
	uint16_t word = htobe16((uint16_t)value);

	memcpy(bytes, &word, sizeof(word));
}

static inline void nq_put_u32(uint8_t *bytes, uint32_t value)
{
	uint32_t word = htobe32(value);

	memcpy(bytes, &word, sizeof(word));
}

#endif
