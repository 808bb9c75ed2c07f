#include "table/hash.h"

#include <endian.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

struct state {
	uint64_t v[4];
};

static inline uint64_t rotate(uint64_t word, unsigned bits)
{
	return word << bits | word >> (64 - bits);
}

static inline void mix(struct state *s)
{
	s->v[0] += s->v[1];
	s->v[1] = rotate(s->v[1], 13) ^ s->v[0];
	s->v[0] = rotate(s->v[0], 32);
	s->v[2] += s->v[3];
	s->v[3] = rotate(s->v[3], 16) ^ s->v[2];
	s->v[0] += s->v[3];
	s->v[3] = rotate(s->v[3], 21) ^ s->v[0];
	s->v[2] += s->v[1];
	s->v[1] = rotate(s->v[1], 17) ^ s->v[2];
	s->v[2] = rotate(s->v[2], 32);
}

static inline void take(struct state *s, uint64_t word)
{
	s->v[3] ^= word;
	mix(s);
	s->v[0] ^= word;
}

static inline void absorb(struct state *s, const struct nq_hash_key *key, const void *bytes,
			  size_t length)
{
	const uint8_t *at = bytes;
	uint64_t word = 0;
	size_t left = length;

	s->v[0] = key->words[0] ^ 0x736f6d6570736575;
	s->v[1] = key->words[1] ^ 0x646f72616e646f6d;
	s->v[2] = key->words[0] ^ 0x6c7967656e657261;
	s->v[3] = key->words[1] ^ 0x7465646279746573;
	for (; left >= 8; left -= 8, at += 8) {
		memcpy(&word, at, 8);
		take(s, le64toh(word));
	}
	/* The rest of the bytes below, the length on top. */
	word = (uint64_t)length << 56;
	for (size_t i = 0; i < left; i++)
		word |= (uint64_t)at[i] << 8 * i;
	take(s, word);
}

static inline uint64_t finish(struct state *s)
{
	mix(s);
	mix(s);
	mix(s);
	return s->v[0] ^ s->v[1] ^ s->v[2] ^ s->v[3];
}

void nq_hash_key_make(struct nq_hash_key *key)
{
	struct timespec now;

	if (getrandom(key, sizeof(*key), 0) == (ssize_t)sizeof(*key))
		return;
	/* No random numbers in this sandbox: better guessable than none. */
	clock_gettime(CLOCK_MONOTONIC, &now);
	key->words[0] = (uint64_t)now.tv_nsec << 32 ^ (uint64_t)now.tv_sec ^ (uint64_t)getpid();
	key->words[1] = (uint64_t)(uintptr_t)key;
}

uint64_t nq_hash(const struct nq_hash_key *key, const void *bytes, size_t length)
{
	struct state s;

	absorb(&s, key, bytes, length);
	s.v[2] ^= 0xff;
	return finish(&s);
}

void nq_hash_wide(const struct nq_hash_key *key, const void *bytes, size_t length,
		  uint8_t digest[16])
{
	struct nq_hash_key wide = {{key->words[0], key->words[1] ^ 0xee}};
	struct state s;
	uint64_t half;

	absorb(&s, &wide, bytes, length);
	s.v[2] ^= 0xee;
	half = htole64(finish(&s));
	memcpy(digest, &half, 8);
	s.v[1] ^= 0xdd;
	half = htole64(finish(&s));
	memcpy(digest + 8, &half, 8);
}
