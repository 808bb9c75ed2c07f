#include "packet/checksum.h"

#include <string.h>

uint64_t nq_checksum_add(uint64_t sum, const uint8_t *bytes, size_t length)
{
	/* Words of 32 bits into a 64-bit sum: 2^32 words fit before it can overflow. */
	for (; length >= 16; bytes += 16, length -= 16) {
		uint32_t word[4];

		memcpy(word, bytes, sizeof(word));
		sum += (uint64_t)word[0] + word[1] + word[2] + word[3];
	}
	for (; length >= 2; bytes += 2, length -= 2) {
		uint16_t word;

		memcpy(&word, bytes, sizeof(word));
		sum += word;
	}
	if (length) {
		uint16_t word = 0;

		memcpy(&word, bytes, 1);
		sum += word;
	}
	return sum;
}

uint16_t nq_checksum_fold(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}
