/*
 * pattern.h - Lua's patterns, matched within a budget of steps.
 *
 * The language is that of the reference manual (6.4.1), with the messages of the stock matcher.
 * Unlike that one it ends: every comparison, every byte of a pattern that is walked again and every
 * byte of a back reference costs a step, and who has none left fails with "pattern too complex".
 * It allocates nothing, does not unwind, and knows no Lua.
 */
#ifndef NQ_LUA_PATTERN_H
#define NQ_LUA_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NQ_PATTERN_CAPTURES = 32, NQ_PATTERN_DEPTH = 200 };

/* Lengths of captures that are none yet, or never. */
enum { NQ_CAPTURE_OPEN = -1, NQ_CAPTURE_POSITION = -2 };

struct nq_pattern_match {
	const char *subject, *subject_end; /* the caller's, as the pattern's */
	const char *pattern_end;
	uint64_t steps;	   /* left */
	const char *error; /* why it failed: constant; NULL: it did not, whatever it returned */
	unsigned depth;	   /* of the recursion at present */
	unsigned count;	   /* captures */
	struct {
		const char *start;
		ptrdiff_t length; /* or one of NQ_CAPTURE_* */
	} captures[NQ_PATTERN_CAPTURES];
};

/*
 * The steps that one call into a string function may take: linear in what it is given, and enough
 * for any pattern that a packet's payload is searched with.
 */
static inline uint64_t nq_pattern_budget(size_t subject, size_t pattern)
{
	return 1000000 + 32 * ((uint64_t)subject + pattern);
}

/*
 * Matches at `at`, within the subject, the pattern from `pattern` on: the end of the match, or NULL
 * for none or with ->error set. Captures are those of this match. Steps go on being counted down.
 */
const char *nq_pattern_at(struct nq_pattern_match *match, const char *at, const char *pattern);

#endif
