#include "table/sequence_parts.h"

/* --- Beginning and end ----------------------------------------------------------------------- */

/* The oldest edit becomes part of what is forgotten. */
static void drop_oldest(struct nq_sequence *sequence, struct nq_blocks *blocks)
{
	uint32_t chain = sequence->oldest;
	struct nq_sequence_edit edit = nq_sequence_load(blocks, chain);

	sequence->in_base = edit.in + edit.in_length;
	sequence->out_base = edit.out + edit.out_length;
	sequence->oldest = edit.next;
	if (!edit.next)
		sequence->newest = 0;
	sequence->edits--;
	sequence->blocks -= nq_blocks_give(blocks, chain);
}

void nq_sequence_reset(struct nq_sequence *sequence, struct nq_blocks *blocks)
{
	while (sequence->oldest)
		drop_oldest(sequence, blocks);
	memset(sequence, 0, sizeof(*sequence));
}

void nq_sequence_start(struct nq_sequence *sequence, uint32_t syn)
{
	*sequence = (struct nq_sequence){.known = true, .fresh = true, .start = syn};
	sequence->in_next = sequence->out_next = syn + 1;
	sequence->in_base = sequence->out_base = sequence->acknowledged = syn;
}

void nq_sequence_start_in_middle(struct nq_sequence *sequence, uint32_t next)
{
	*sequence = (struct nq_sequence){.known = true, .start = next - NQ_SEQUENCE_REACH - 1};
	sequence->in_next = sequence->out_next = next;
	sequence->in_base = sequence->out_base = sequence->acknowledged = next - NQ_SEQUENCE_REACH;
}

/* --- From one numbering to the other --------------------------------------------------------- */

/*
 * Where in the new content (`out` bytes) the share of byte `at` of the edit (`in` bytes) begins.
 * Rounded up, so that from wherever its receiver is, one byte brings it further.
 */
static uint32_t share(uint32_t at, uint32_t out, uint32_t in)
{
	return (uint32_t)(((uint64_t)at * out + in - 1) / in);
}

/*
 * The other way: the last byte of the edit before whose share nothing is missing when the new
 * content is there up to `at`; or the first whose share begins there or behind it.
 */
static uint32_t find_share(uint32_t at, const struct nq_sequence_edit *edit, bool first)
{
	if (first && at)
		return (uint32_t)((uint64_t)(at - 1) * edit->in_length / edit->out_length + 1);
	return (uint32_t)((uint64_t)at * edit->in_length / edit->out_length);
}

uint32_t nq_sequence_out(const struct nq_sequence *sequence, const struct nq_blocks *blocks,
			 uint32_t in)
{
	uint32_t delta = sequence->out_base - sequence->in_base;

	if (!nq_before(in, sequence->in_next))
		return sequence->out_next + (in - sequence->in_next);
	for (uint32_t chain = sequence->oldest; chain;) {
		struct nq_sequence_edit edit = nq_sequence_load(blocks, chain);
		uint32_t inside = in - edit.in;

		if (nq_before(in, edit.in))
			break;
		if (inside < edit.in_length)
			return edit.out + share(inside, edit.out_length, edit.in_length);
		delta = edit.out + edit.out_length - edit.in - edit.in_length;
		chain = edit.next;
	}
	return in + delta;
}

static uint32_t find_in(const struct nq_sequence *sequence, const struct nq_blocks *blocks,
			uint32_t out, bool left)
{
	uint32_t delta = sequence->in_base - sequence->out_base;

	if (!nq_before(out, sequence->out_next))
		return sequence->in_next + (out - sequence->out_next);
	for (uint32_t chain = sequence->oldest; chain;) {
		struct nq_sequence_edit edit = nq_sequence_load(blocks, chain);
		uint32_t inside = out - edit.out;

		if (nq_before(out, edit.out))
			break;
		if (inside < edit.out_length)
			return edit.in + find_share(inside, &edit, left);
		delta = edit.in + edit.in_length - edit.out - edit.out_length;
		chain = edit.next;
	}
	/* Where edits are forgotten old numbers are off, but none is of before the beginning. */
	if (nq_before(out + delta, sequence->start + 1) && !nq_before(out, sequence->start + 1))
		return sequence->start + 1;
	return out + delta;
}

uint32_t nq_sequence_in(const struct nq_sequence *sequence, const struct nq_blocks *blocks,
			uint32_t out)
{
	return find_in(sequence, blocks, out, false);
}

uint32_t nq_sequence_in_left(const struct nq_sequence *sequence, const struct nq_blocks *blocks,
			     uint32_t out)
{
	return find_in(sequence, blocks, out, true);
}

uint32_t nq_sequence_bare(const struct nq_sequence *sequence, const struct nq_blocks *blocks,
			  uint32_t seq)
{
	if (!sequence->known || !sequence->edited)
		return seq;
	/* What it is ahead of may not have passed here, and fills no hole. */
	if (!nq_before(seq, sequence->in_next))
		return sequence->out_next;
	/* A keep-alive lies one before the next byte: its receiver has to answer. */
	if (seq == sequence->in_next - 1)
		return sequence->out_next - 1;
	return nq_sequence_out(sequence, blocks, seq);
}

uint32_t nq_sequence_of_reset(const struct nq_sequence *sequence, const struct nq_blocks *blocks,
			      uint32_t seq)
{
	if (!sequence->known || !sequence->edited)
		return seq;
	/* A reset counts only with the very number its receiver waits for (RFC 5961 section 3). */
	if (seq == nq_sequence_in(sequence, blocks, sequence->acknowledged))
		return sequence->acknowledged;
	return nq_sequence_out(sequence, blocks, seq);
}

void nq_sequence_acknowledge(struct nq_sequence *sequence, struct nq_blocks *blocks, uint32_t ack)
{
	if (!sequence->known)
		return;
	if (nq_before(sequence->out_next, ack) || (sequence->fresh && ack != sequence->out_next)) {
		sequence->has_hint = true;
		sequence->hint = ack;
		return;
	}
	if (nq_before(ack, sequence->acknowledged))
		return;
	if (ack != sequence->acknowledged)
		sequence->repeats = 0;
	sequence->acknowledged = ack;
	if (sequence->watches && !nq_before(ack, sequence->watched_end)) {
		sequence->watches = sequence->narrow = false;
		sequence->wide = true;
		sequence->shorts = 0;
	}
	/* Also without progress: what was taken away has no bytes to be acknowledged. */
	while (sequence->oldest) {
		struct nq_sequence_edit edit = nq_sequence_load(blocks, sequence->oldest);

		if (nq_before(ack, edit.out + edit.out_length))
			break;
		drop_oldest(sequence, blocks);
	}
}
