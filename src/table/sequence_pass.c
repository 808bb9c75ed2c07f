/* What becomes of a segment: what is new in it is taken, and what goes on in its place is made. */
#include "table/sequence_parts.h"

/* --- What has not passed before -------------------------------------------------------------- */

/*
 * Data that passed while nobody was here to see it: the receiver has acknowledged it, so it fills
 * the hole before `from`. After an edit such data had the wrong numbers, and there is no way on.
 */
static bool skip_hole(struct nq_sequence *sequence, uint32_t from)
{
	uint32_t hole = from - sequence->in_next;

	if (sequence->edited || !sequence->has_hint ||
	    nq_before(sequence->hint, sequence->out_next + hole))
		return false;
	sequence->in_next += hole;
	sequence->out_next += hole;
	sequence->in_base = sequence->in_next;
	sequence->out_base = sequence->acknowledged = sequence->out_next;
	sequence->has_hint = sequence->has_last = sequence->fresh = false;
	return true;
}

/* Keeps the distances short; false when unacknowledged edits lie further back than any window. */
static bool keep_reach(struct nq_sequence *sequence, uint32_t length)
{
	uint32_t in_reach = sequence->in_next - sequence->in_base;
	uint32_t out_reach = sequence->out_next - sequence->out_base;

	if (in_reach + length < NQ_SEQUENCE_REACH_MOST &&
	    out_reach + length < NQ_SEQUENCE_REACH_MOST)
		return true;
	if (sequence->oldest)
		return false;
	/* Without edits both are equally far. */
	sequence->in_base += in_reach - NQ_SEQUENCE_REACH;
	sequence->out_base += out_reach - NQ_SEQUENCE_REACH;
	sequence->acknowledged = nq_later(sequence->acknowledged, sequence->out_base);
	return true;
}

/* What fills the hole before `from` will pass as it is. False when that is no place for data. */
static bool leave_hole(struct nq_sequence *sequence, uint32_t from)
{
	uint32_t hole = from - sequence->in_next;
	uint32_t most_hole = NQ_SEQUENCE_HOLE;

	if (sequence->has_window)
		most_hole = nq_before(sequence->out_next, sequence->window_end)
				    ? sequence->window_end - sequence->out_next
				    : 0;
	if (sequence->finished || hole > most_hole ||
	    !keep_reach(sequence, nq_most(NQ_SEQUENCE_BUFFER, hole)))
		return false;
	sequence->in_next += hole;
	sequence->out_next += hole;
	sequence->has_last = sequence->fresh = false;
	return true;
}

/*
 * How many bytes the payload and its new content have in common at the beginning and at the end;
 * what lies between them is the edit. It has at least one byte of the payload, for the sender to
 * send again. False: they are the same. The payload is not empty.
 */
static bool find_difference(const struct nq_segment *segment, uint32_t *before, uint32_t *behind)
{
	uint32_t common = nq_least(segment->length, segment->content_length);
	uint32_t front = 0, back = 0;

	while (front < common && segment->bytes[front] == segment->content[front])
		front++;
	if (front == segment->length && front == segment->content_length)
		return false;
	while (back < common - front &&
	       segment->bytes[segment->length - 1 - back] ==
		       segment->content[segment->content_length - 1 - back])
		back++;
	if (front + back == segment->length) {
		if (front)
			front--;
		else
			back--;
	}
	*before = front;
	*behind = back;
	return true;
}

static bool keep_edit(struct nq_sequence *sequence, struct nq_blocks *blocks,
		      const struct nq_sequence_edit *edit, const uint8_t *content)
{
	uint32_t count = nq_blocks_count(sizeof(*edit) + edit->out_length);
	uint32_t chain;

	if (sequence->edits >= NQ_SEQUENCE_EDITS ||
	    sequence->blocks + count > NQ_SEQUENCE_BYTES / NQ_BLOCK_SIZE)
		return false;
	chain = nq_blocks_take(blocks, count);
	if (!chain)
		return false;
	nq_sequence_store(blocks, chain, edit);
	nq_blocks_write(blocks, chain, sizeof(*edit), content, edit->out_length);
	if (sequence->newest) {
		struct nq_sequence_edit newest = nq_sequence_load(blocks, sequence->newest);

		newest.next = chain;
		nq_sequence_store(blocks, sequence->newest, &newest);
	} else {
		sequence->oldest = chain;
	}
	sequence->newest = chain;
	sequence->edits++;
	sequence->blocks += count;
	sequence->edited = true;
	return true;
}

/*
 * Takes the part of a segment that has not passed yet, behind the first `old` bytes of its payload.
 * False when it must not pass now.
 */
static bool take_new(struct nq_sequence *sequence, struct nq_blocks *blocks,
		     const struct nq_segment *segment, uint32_t old, bool *edited)
{
	uint32_t length = segment->length - old;
	uint32_t out_length = length;
	uint8_t last = segment->length ? segment->bytes[segment->length - 1] : 0;
	uint32_t before, behind;

	if (!keep_reach(sequence, nq_most(NQ_SEQUENCE_BUFFER, segment->content_length)))
		return false;
	if (segment->replaced && length && find_difference(segment, &before, &behind)) {
		struct nq_sequence_edit edit = {
			.in = sequence->in_next + (before - old),
			.in_length = segment->length - before - behind,
			.out = sequence->out_next + (before - old),
			.out_length = segment->content_length - before - behind,
		};

		/* What has passed is not changed any more. */
		if (before < old || !keep_edit(sequence, blocks, &edit, segment->content + before))
			return false;
		out_length = segment->content_length - old;
		if (out_length)
			last = segment->content[segment->content_length - 1];
		*edited = true;
	}
	if (out_length) {
		sequence->last = last;
		sequence->has_last = true;
	}
	if (length)
		sequence->fresh = false;
	sequence->in_next += length;
	sequence->out_next += out_length;
	if (segment->fin) {
		sequence->fresh = false;
		sequence->finished = true;
		sequence->in_next++;
		sequence->out_next++;
	}
	return true;
}

/* --- What goes on ---------------------------------------------------------------------------- */

/*
 * One byte that the receiver has had, so that it says again what it has: in the place of data that
 * needs no sending. Without data it would look like a repeated acknowledgement. The byte is the
 * right one wherever the receiver might be without it.
 */
static void make_probe(const struct nq_sequence *sequence, uint8_t *buffer,
		       struct nq_passage *passage)
{
	uint32_t place = sequence->out_next - sequence->finished - 1;

	passage->seq = place;
	passage->bytes = buffer;
	buffer[0] = sequence->has_last ? sequence->last : 0;
	passage->length =
		sequence->has_last || !nq_before(sequence->acknowledged, place + 1) ? 1 : 0;
}

/* Whether an edit has a byte in [from, to) (in). */
static bool meets_edit(const struct nq_sequence *sequence, const struct nq_blocks *blocks,
		       uint32_t from, uint32_t to)
{
	if (sequence->newest) {
		struct nq_sequence_edit edit = nq_sequence_load(blocks, sequence->newest);

		if (!nq_before(from, edit.in + edit.in_length))
			return false;
	}
	for (uint32_t chain = sequence->oldest; chain;) {
		struct nq_sequence_edit edit = nq_sequence_load(blocks, chain);

		if (!nq_before(edit.in, to))
			return false;
		if (nq_before(from, edit.in + edit.in_length))
			return true;
		chain = edit.next;
	}
	return false;
}

/*
 * Writes `length` bytes that go out from number `out` on into the buffer: those of edits as they
 * were kept, the others from the payload, which begins with number `in`. Returns how many there
 * are.
 */
static uint32_t gather(const struct nq_sequence *sequence, const struct nq_blocks *blocks,
		       const struct nq_segment *segment, uint32_t in, uint32_t out, uint32_t length,
		       uint8_t *buffer)
{
	uint32_t delta = sequence->in_base - sequence->out_base;
	uint32_t chain = sequence->oldest;
	uint32_t done = 0;

	while (done < length) {
		struct nq_sequence_edit edit = {.out = out +
						       length}; /* behind all that is wanted */
		uint32_t at = out + done;
		uint32_t part, offset;

		if (chain)
			edit = nq_sequence_load(blocks, chain);
		if (nq_before(at, edit.out)) {
			part = nq_least(edit.out - at, length - done);
			offset = at + delta - in;
			if (offset > segment->length || part > segment->length - offset)
				break;
			memcpy(buffer + done, segment->bytes + offset, part);
		} else {
			offset = at - edit.out;
			part = 0;
			if (offset < edit.out_length) {
				part = nq_least(edit.out_length - offset, length - done);
				nq_blocks_read(blocks, chain, sizeof(edit) + offset, buffer + done,
					       part);
			}
			if (offset + part == edit.out_length || offset > edit.out_length) {
				delta = edit.in + edit.in_length - edit.out - edit.out_length;
				chain = edit.next;
			}
		}
		done += part;
	}
	return done;
}

/* For so many segments, and each time for twice as many. */
static void stay_short(struct nq_sequence *sequence)
{
	sequence->narrow = true;
	sequence->patience = sequence->patience ? nq_least(sequence->patience * 2, 1 << 16) : 64;
	sequence->shorts = sequence->patience;
}

/* How much of the `wanted` bytes from number `out` on may go in one packet. */
static uint32_t find_room(struct nq_sequence *sequence, const struct nq_segment *segment,
			  bool again, uint32_t out, uint32_t wanted)
{
	uint32_t room = segment->super ? segment->room : nq_most(segment->room, segment->length);

	/* Kernels drop what reaches beyond their window as a whole. */
	if (sequence->has_window && sequence->edited)
		wanted = nq_before(out, sequence->window_end)
				 ? nq_least(wanted, sequence->window_end - out)
				 : 0;
	/*
	 * A path may take less than the receiver said: what is sent again and again does not get
	 * through, so it becomes no longer than what its sender sends, and so does what follows,
	 * unless something longer did get through: then this was mere loss.
	 */
	if (again && !segment->super && wanted > segment->length &&
	    !nq_before(sequence->acknowledged, out)) {
		if (sequence->repeats == 1 && sequence->wide)
			room = nq_least(room, nq_most(segment->length, sequence->largest));
		else if (sequence->repeats == 1)
			stay_short(sequence);
		else if (sequence->repeats > 1)
			room = nq_most(segment->length, 1);
		if (sequence->repeats < 2)
			sequence->repeats++;
	}
	if (sequence->narrow && !segment->super &&
	    (again || sequence->shorts > 0 || sequence->watches))
		room = nq_least(room, nq_most(segment->length, sequence->largest));
	return nq_least(wanted, room);
}

/* Watches one packet that is longer than its sender's, for whether it arrives at the first try. */
static void watch_width(struct nq_sequence *sequence, const struct nq_segment *segment, bool again,
			uint32_t out, uint32_t length)
{
	if (again) {
		if (!sequence->watches || !nq_before(out, sequence->watched_end) ||
		    !nq_before(sequence->watched, out + length))
			return;
		sequence->watches = false;
		if (sequence->narrow)
			stay_short(sequence);
	} else if (sequence->shorts > 0) {
		sequence->shorts--;
	} else if (!sequence->watches && !segment->super &&
		   length > nq_most(segment->length, sequence->largest)) {
		sequence->watches = true;
		sequence->watched = out;
		sequence->watched_end = out + length;
	}
}

static void send_range(struct nq_sequence *sequence, const struct nq_blocks *blocks,
		       const struct nq_segment *segment, bool again, uint8_t *buffer,
		       struct nq_passage *passage)
{
	uint32_t in = segment->seq + segment->syn;
	uint32_t end = in + segment->length;
	uint32_t from = nq_later(in, sequence->in_base);
	uint32_t to = nq_later(in, nq_earlier(end, sequence->in_next - sequence->finished));
	bool met = nq_before(from, to) && meets_edit(sequence, blocks, from, to);
	uint32_t out, length, wanted;

	from = nq_earlier(from, to);
	out = nq_sequence_out(sequence, blocks, from);
	wanted = nq_sequence_out(sequence, blocks, to) - out;
	if (met && again && !segment->syn && nq_before(out, sequence->acknowledged)) {
		uint32_t had = nq_least(sequence->acknowledged - out, wanted);

		out += had;
		wanted -= had;
	}
	length = find_room(sequence, segment, again, out, wanted);
	watch_width(sequence, segment, again, out, length);
	passage->cut = length < wanted;
	passage->fin =
		segment->fin && sequence->finished && end == sequence->in_next - 1 && !passage->cut;
	passage->seq = out;
	if (!met) {
		passage->bytes = segment->bytes + (from - in);
	} else if (passage->edited && !again) {
		passage->bytes = segment->content;
	} else {
		uint32_t done = gather(sequence, blocks, segment, in, out, length, buffer);

		passage->fin = passage->fin && done == length;
		length = done;
		passage->bytes = buffer;
	}
	passage->length = length;
	if (segment->syn) {
		passage->seq = segment->seq;
		if (out != segment->seq + 1) {
			passage->length = 0;
			passage->fin = false;
		}
	} else if (length == 0 && !passage->fin) {
		make_probe(sequence, buffer, passage);
	}
}

void nq_sequence_pass(struct nq_sequence *sequence, struct nq_blocks *blocks,
		      const struct nq_segment *segment, uint8_t *buffer, struct nq_passage *passage)
{
	uint32_t from = segment->seq + segment->syn;
	uint32_t end = from + segment->length + segment->fin;
	bool again;

	*passage = (struct nq_passage){.passing = NQ_PASSED_BARE, .seq = sequence->out_next};
	if (!segment->super)
		sequence->largest = nq_most(sequence->largest, segment->length);
	/* SYN cookies: the receiver may have taken an earlier answer, of another number. */
	if (sequence->fresh && sequence->has_hint && from == sequence->hint &&
	    from != sequence->in_next && !segment->syn) {
		nq_sequence_start(sequence, from - 1);
		sequence->acknowledged = from;
	}
	if (nq_before(sequence->in_next, from) && !skip_hole(sequence, from) &&
	    (segment->waits || !leave_hole(sequence, from)))
		return;
	again = from != sequence->in_next || (!segment->length && sequence->finished);
	if (nq_before(sequence->in_next, end) && !sequence->finished) {
		uint32_t old = sequence->in_next - from;

		if (!take_new(sequence, blocks, segment, old, &passage->edited) && !again) {
			passage->passing = NQ_PASSED_NOT_KEPT;
			return;
		}
	}
	passage->passing = again && !passage->edited ? NQ_PASSED_AGAIN : NQ_PASSED;
	send_range(sequence, blocks, segment, again, buffer, passage);
}
