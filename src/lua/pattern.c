#include "lua/pattern.h"

#include <ctype.h>
#include <string.h>

static const char *match_rest(struct nq_pattern_match *match, const char *at, const char *pattern);

static const char *fail(struct nq_pattern_match *match, const char *message)
{
	match->error = message;
	return NULL;
}

static bool spend(struct nq_pattern_match *match, size_t steps)
{
	if (match->steps < steps) {
		match->steps = 0;
		match->error = "pattern too complex";
		return false;
	}
	match->steps -= steps;
	return true;
}

/* Whether `byte` is of the class that the letter behind a % names; other letters name themselves.
 */
static bool is_of_class(int byte, int letter)
{
	int is;

	switch (tolower(letter)) {
	case 'a':
		is = isalpha(byte);
		break;
	case 'c':
		is = iscntrl(byte);
		break;
	case 'd':
		is = isdigit(byte);
		break;
	case 'g':
		is = isgraph(byte);
		break;
	case 'l':
		is = islower(byte);
		break;
	case 'p':
		is = ispunct(byte);
		break;
	case 's':
		is = isspace(byte);
		break;
	case 'u':
		is = isupper(byte);
		break;
	case 'w':
		is = isalnum(byte);
		break;
	case 'x':
		is = isxdigit(byte);
		break;
	default:
		return byte == letter;
	}
	return (is != 0) != (isupper(letter) != 0);
}

/* The ']' of the set whose '[' is before `p`; one that comes first stands for itself. */
static const char *find_set_end(struct nq_pattern_match *match, const char *p)
{
	const char *first;

	if (p < match->pattern_end && *p == '^')
		p++;
	for (first = p; p < match->pattern_end; p++) {
		if (*p == ']' && p != first)
			return p;
		if (*p == '%')
			p++;
	}
	return fail(match, "malformed pattern (missing ']')");
}

/* Behind the single item (a byte, a class, a set) at `p`. */
static const char *find_item_end(struct nq_pattern_match *match, const char *p)
{
	const char *end;

	switch (*p++) {
	case '%':
		if (p == match->pattern_end)
			return fail(match, "malformed pattern (ends with '%')");
		return p + 1;
	case '[':
		end = find_set_end(match, p);
		return end ? end + 1 : NULL;
	default:
		return p;
	}
}

/* Whether `byte` is in the set whose '[' and ']' are at `p` and `end`. */
static bool is_in_set(int byte, const char *p, const char *end)
{
	bool found = true;

	p++;
	if (*p == '^') {
		found = false;
		p++;
	}
	while (p < end) {
		if (*p == '%') {
			if (is_of_class(byte, (unsigned char)p[1]))
				return found;
			p += 2;
		} else if (p + 2 < end && p[1] == '-') {
			if ((unsigned char)p[0] <= byte && byte <= (unsigned char)p[2])
				return found;
			p += 3;
		} else {
			if ((unsigned char)*p == byte)
				return found;
			p++;
		}
	}
	return !found;
}

/* Whether the byte at `at`, if there is one, is what the item from `p` to `end` asks for. */
static bool is_item(struct nq_pattern_match *match, const char *at, const char *p, const char *end)
{
	int byte;

	if (at >= match->subject_end || !spend(match, (size_t)(end - p)))
		return false;
	byte = (unsigned char)*at;
	switch (*p) {
	case '.':
		return true;
	case '%':
		return is_of_class(byte, (unsigned char)p[1]);
	case '[':
		return is_in_set(byte, p, end - 1);
	default:
		return (unsigned char)*p == byte;
	}
}

/* item* and item+: as many as there are, then fewer, until the rest matches. */
static const char *match_most(struct nq_pattern_match *match, const char *at, const char *p,
			      const char *end)
{
	const char *last = at;

	while (is_item(match, last, p, end))
		last++;
	for (; !match->error; last--) {
		const char *result = match_rest(match, last, end + 1);

		if (result)
			return result;
		if (last == at)
			break;
	}
	return NULL;
}

/* item-: as few as will do. */
static const char *match_least(struct nq_pattern_match *match, const char *at, const char *p,
			       const char *end)
{
	while (!match->error) {
		const char *result = match_rest(match, at, end + 1);

		if (result)
			return result;
		if (match->error || !is_item(match, at, p, end))
			break;
		at++;
	}
	return NULL;
}

/* %bxy: up to the y that closes the x at `at`. */
static const char *match_balance(struct nq_pattern_match *match, const char *at, const char *p)
{
	size_t open = 1;

	if (match->pattern_end - p < 4)
		return fail(match, "malformed pattern (missing arguments to '%b')");
	if (at >= match->subject_end || *at != p[2])
		return NULL;
	for (at++; at < match->subject_end && spend(match, 1); at++) {
		if (*at == p[3]) {
			if (--open == 0)
				return at + 1;
		} else if (*at == p[2]) {
			open++;
		}
	}
	return NULL;
}

/* %f[set]: between a byte outside the set and one inside; the ends of the subject are zero bytes.
 * Behind the set, or NULL. */
static const char *match_frontier(struct nq_pattern_match *match, const char *at, const char *p)
{
	const char *end;
	int before, here;

	p += 2;
	if (p == match->pattern_end || *p != '[')
		return fail(match, "missing '[' after '%f' in pattern");
	end = find_item_end(match, p);
	if (!end || !spend(match, 2 * (size_t)(end - p)))
		return NULL;
	before = at == match->subject ? 0 : (unsigned char)at[-1];
	here = at == match->subject_end ? 0 : (unsigned char)*at;
	return !is_in_set(before, p, end - 1) && is_in_set(here, p, end - 1) ? end : NULL;
}

/* %1 to %9: the text of that capture once more. */
static const char *match_again(struct nq_pattern_match *match, const char *at, int digit)
{
	static const char *const messages[] = {
		"invalid capture index %0", "invalid capture index %1", "invalid capture index %2",
		"invalid capture index %3", "invalid capture index %4", "invalid capture index %5",
		"invalid capture index %6", "invalid capture index %7", "invalid capture index %8",
		"invalid capture index %9",
	};
	unsigned index = (unsigned)(digit - '1');
	size_t length;

	if (digit == '0' || index >= match->count ||
	    match->captures[index].length == NQ_CAPTURE_OPEN)
		return fail(match, messages[digit - '0']);
	/* A position has no text: nothing is equal to it. */
	if (match->captures[index].length == NQ_CAPTURE_POSITION)
		return NULL;
	length = (size_t)match->captures[index].length;
	if ((size_t)(match->subject_end - at) < length || !spend(match, 1 + length / 8) ||
	    memcmp(at, match->captures[index].start, length) != 0)
		return NULL;
	return at + length;
}

static const char *open_capture(struct nq_pattern_match *match, const char *at, const char *p)
{
	bool is_position = p + 1 < match->pattern_end && p[1] == ')';
	const char *result;

	if (match->count >= NQ_PATTERN_CAPTURES)
		return fail(match, "too many captures");
	match->captures[match->count].start = at;
	match->captures[match->count].length = is_position ? NQ_CAPTURE_POSITION : NQ_CAPTURE_OPEN;
	match->count++;
	result = match_rest(match, at, p + (is_position ? 2 : 1));
	if (!result)
		match->count--;
	return result;
}

static const char *close_capture(struct nq_pattern_match *match, const char *at, const char *p)
{
	unsigned index = match->count;
	const char *result;

	while (index > 0 && match->captures[index - 1].length != NQ_CAPTURE_OPEN)
		index--;
	if (index == 0)
		return fail(match, "invalid pattern capture");
	index--;
	match->captures[index].length = at - match->captures[index].start;
	result = match_rest(match, at, p + 1);
	if (!result)
		match->captures[index].length = NQ_CAPTURE_OPEN;
	return result;
}

/*
 * One item that may be repeated. True: the match goes on at *at and *p; false: it has ended with
 * *result.
 */
static bool match_item(struct nq_pattern_match *match, const char **at, const char **p,
		       const char **result)
{
	const char *end = find_item_end(match, *p);
	char suffix;

	*result = NULL;
	/* A set is walked to find its end, whether or not there is a byte to hold against it. */
	if (!end || !spend(match, (size_t)(end - *p)))
		return false;
	suffix = end < match->pattern_end ? *end : '\0';
	switch (suffix) {
	case '*':
		*result = match_most(match, *at, *p, end);
		return false;
	case '-':
		*result = match_least(match, *at, *p, end);
		return false;
	case '+':
		if (is_item(match, *at, *p, end))
			*result = match_most(match, *at + 1, *p, end);
		return false;
	case '?':
		if (is_item(match, *at, *p, end)) {
			*result = match_rest(match, *at + 1, end + 1);
			if (*result)
				return false;
		}
		*p = end + 1;
		return !match->error;
	default:
		if (!is_item(match, *at, *p, end))
			return false;
		*at += 1;
		*p = end;
		return true;
	}
}

static const char *match_loop(struct nq_pattern_match *match, const char *at, const char *p)
{
	const char *result;

	while (p < match->pattern_end) {
		char next = p + 1 < match->pattern_end ? p[1] : '\0';

		if (!spend(match, 1))
			return NULL;
		if (*p == '(')
			return open_capture(match, at, p);
		if (*p == ')')
			return close_capture(match, at, p);
		if (*p == '$' && p + 1 == match->pattern_end)
			return at == match->subject_end ? at : NULL;
		if (*p == '%' && next == 'b') {
			at = match_balance(match, at, p);
			p += 4;
		} else if (*p == '%' && next == 'f') {
			p = match_frontier(match, at, p);
			if (!p)
				return NULL;
		} else if (*p == '%' && next >= '0' && next <= '9') {
			at = match_again(match, at, next);
			p += 2;
		} else if (!match_item(match, &at, &p, &result)) {
			return result;
		}
		if (!at)
			return NULL;
	}
	return at;
}

static const char *match_rest(struct nq_pattern_match *match, const char *at, const char *pattern)
{
	const char *result;

	if (match->depth >= NQ_PATTERN_DEPTH)
		return fail(match, "pattern too complex");
	match->depth++;
	result = match_loop(match, at, pattern);
	match->depth--;
	return result;
}

const char *nq_pattern_at(struct nq_pattern_match *match, const char *at, const char *pattern)
{
	match->depth = 0;
	match->count = 0;
	match->error = NULL;
	if (!spend(match, 1))
		return NULL;
	return match_rest(match, at, pattern);
}
