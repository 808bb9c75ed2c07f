/*
 * TCP connections through the rewriter. The choices drive both ends of one connection: segments in
 * order, again, ahead, lost on the way, with content replaced; whoever receives must never be given
 * two bytes of the same number, and both must come to an end. The content of the input is a packet
 * of a stranger's, which may be anything and comes between them; then only what leaves is judged.
 */
#include <stdlib.h>

#include "packet/edit.h"
#include "table/rewrite.h"
#include "target.h"

enum {
	FIN = 1,
	SYN = 2,
	ACK = 16,
	STREAM = 16384,	 /* bytes that one end sends at most, */
	ARRIVES = 16384, /* and that come of them */
	ROUNDS = 3000,
};

static const int64_t timeout = INT64_C(100000000000);

/* What one end sends, and what of it has left and has reached the other. Positions are from 0. */
struct stream {
	uint32_t start; /* number of the SYN */
	uint32_t sent, acknowledged;
	bool ended; /* with a FIN at `sent` */
	bool end_acknowledged;
	uint8_t bytes[ARRIVES];
	bool left[ARRIVES], came[ARRIVES];
	uint32_t arrived; /* without a hole */
	uint32_t end;	  /* UINT32_MAX: no FIN has come */
};

struct line {
	struct run *run;
	struct nq_rewrite *rewrite;
	int64_t now;
	bool is_ip6, whole_sums;
	bool trusted; /* no stranger has had a word */
	struct stream streams[2];
};

struct segment {
	unsigned direction;
	uint32_t at, length, acknowledged;
	uint8_t flags;
	bool replaced, lost;
	uint32_t sack_left, sack_right; /* equal: none */
	const uint8_t *content;
	uint32_t content_length;
};

/* The same however often it is sent; runs of the same, so that contents have something in common.
 */
static uint8_t stream_byte(unsigned direction, uint32_t at)
{
	return (uint8_t)("abc"[(at / 5 + direction) % 3]);
}

static void put32(uint8_t *bytes, uint32_t value)
{
	for (unsigned i = 0; i < 4; i++)
		bytes[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* The packet of a segment, in a block of its own size. */
static uint8_t *make_packet(const struct line *line, const struct segment *segment, size_t *length)
{
	const struct stream *own = &line->streams[segment->direction];
	const struct stream *other = &line->streams[!segment->direction];
	size_t ip = line->is_ip6 ? 40 : 20;
	size_t options = segment->flags & SYN			     ? 4
			 : segment->sack_left != segment->sack_right ? 12
								     : 0;
	uint8_t *bytes, *tcp;

	*length = ip + 20 + options + segment->length;
	bytes = hostile_take_bytes(NULL, *length);
	memset(bytes, 0, *length);
	tcp = bytes + ip;
	bytes[0] = line->is_ip6 ? 0x60 : 0x45;
	bytes[line->is_ip6 ? 6 : 9] = 6;
	bytes[line->is_ip6 ? 23 : 15] = (uint8_t)(1 + segment->direction);
	bytes[line->is_ip6 ? 39 : 19] = (uint8_t)(2 - segment->direction);
	tcp[1] = (uint8_t)(1 + segment->direction);
	tcp[3] = (uint8_t)(2 - segment->direction);
	put32(tcp + 4, own->start + !(segment->flags & SYN) + segment->at);
	if (segment->flags & ACK)
		put32(tcp + 8, other->start + 1 + segment->acknowledged);
	tcp[12] = (uint8_t)((20 + options) << 2);
	tcp[13] = segment->flags;
	tcp[14] = tcp[15] = 0xff;
	if (segment->flags & SYN) {
		memcpy(tcp + 20, "\2\4\4\0", 4); /* an MSS of 1024 */
	} else if (options) {
		memcpy(tcp + 20, "\1\1\5\12", 4);
		put32(tcp + 24, other->start + 1 + segment->sack_left);
		put32(tcp + 28, other->start + 1 + segment->sack_right);
	}
	for (uint32_t i = 0; i < segment->length; i++)
		tcp[20 + options + i] = stream_byte(segment->direction, segment->at + i);
	(void)nq_edit_complete(bytes, (uint32_t)*length);
	return bytes;
}

/* What left, read by the receiver. */
static void receive(struct line *line, const struct segment *segment, const uint8_t *tcp,
		    size_t length)
{
	struct stream *own = &line->streams[segment->direction];
	struct stream *other = &line->streams[!segment->direction];
	uint32_t at = get32(tcp + 4) + (tcp[13] & SYN ? 1 : 0) - own->start - 1;
	uint32_t acknowledged = get32(tcp + 8) - other->start - 1;
	uint32_t header = (tcp[12] >> 4) * 4U;
	uint32_t size = (uint32_t)length - header;

	for (uint32_t i = 0; i < size; i++) {
		uint32_t place = at + i;

		/* What has arrived may be repeated in any shape. */
		if ((int32_t)(place - own->arrived) < 0)
			continue;
		if (!CHECK(line->run, place < ARRIVES))
			return;
		if (own->left[place])
			CHECK(line->run, own->bytes[place] == tcp[header + i]);
		own->left[place] = true;
		own->bytes[place] = tcp[header + i];
		own->came[place] = own->came[place] || !segment->lost;
		CHECK(line->run, place < own->end);
	}
	if (tcp[13] & FIN && !segment->lost) {
		CHECK(line->run, own->end == UINT32_MAX || own->end == at + size);
		own->end = at + size;
	}
	while (own->arrived < ARRIVES && own->came[own->arrived])
		own->arrived++;
	if (own->end != UINT32_MAX)
		CHECK(line->run, own->arrived <= own->end);
	if (!(tcp[13] & ACK) || segment->lost)
		return;
	/* Its sender hears of no more than it sent. */
	if (CHECK(line->run, acknowledged <= other->sent + other->ended) &&
	    acknowledged >= other->acknowledged) {
		other->acknowledged = acknowledged < other->sent ? acknowledged : other->sent;
		other->end_acknowledged = other->ended && acknowledged == other->sent + 1;
	}
}

/* A packet through the rewriter and on; true when it left, of `*length`, from where it then lies.
 */
static bool pass(struct line *line, struct nq_packet *packet, const uint8_t *content,
		 uint32_t content_length, enum nq_rewritten *result)
{
	struct nq_packet before = hostile_remember(packet);
	uint8_t *old = hostile_take_bytes(packet->data, packet->length);
	uint8_t *block = hostile_take(content ? content_length : 0);
	const char *reason;

	if (content)
		copy_bytes(block, content, content_length);
	reason = nq_rewrite_pass(line->rewrite, packet, content ? block : NULL, content_length,
				 line->now, result);
	if (reason) {
		hostile_refused(line->run, packet, &before, old);
	} else if (packet->dirty) {
		size_t follows = 0;

		CHECK(line->run, !nq_edit_finish(packet, true));
		if (packet->length == before.length)
			follows = hostile_verify_share(line->run, old, packet->data, packet->length,
						       packet->csum_complete);
		hostile_verify(line->run, packet->data, packet->length, 0, follows);
	} else {
		CHECK(line->run, packet->length == before.length);
		CHECK(line->run, same_bytes(packet->data, old, before.length));
	}
	free(block);
	hostile_give_bytes(old);
	return !reason;
}

static void send_segment(struct line *line, const struct segment *segment)
{
	struct stream *own = &line->streams[segment->direction];
	size_t length, ip = line->is_ip6 ? 40 : 20;
	uint8_t *bytes = make_packet(line, segment, &length);
	struct nq_packet packet = {.spare = line->run->spare,
				   .data = bytes,
				   .length = (uint32_t)length,
				   .have = NQ_HAVE_HEADER | NQ_HAVE_PAYLOAD,
				   .csum_complete = line->whole_sums};
	enum nq_rewritten result;

	if ((segment->length || segment->flags & FIN) && segment->at + segment->length > own->sent)
		own->sent = segment->at + segment->length;
	if (segment->flags & FIN)
		own->ended = true;
	if (pass(line, &packet, segment->replaced ? segment->content : NULL,
		 segment->content_length, &result)) {
		CHECK(line->run, result != NQ_REWRITTEN_NO_STREAM);
		if (line->trusted) {
			CHECK(line->run, result != NQ_REWRITTEN_DAMAGED);
			CHECK(line->run, packet.length >= ip + 20);
			receive(line, segment, packet.data + ip, packet.length - ip);
		}
	} else {
		CHECK(line->run, segment->replaced && !segment->length);
	}
	hostile_give_bytes(bytes);
}

static void choose_segment(struct line *line)
{
	struct run *run = line->run;
	uint8_t content[100];
	struct segment segment = {.direction = below(run, 2),
				  .flags = ACK,
				  .content = content,
				  .length = one_in(run, 16) ? below(run, 1025) : below(run, 61)};
	const struct stream *own = &line->streams[segment.direction];
	const struct stream *other = &line->streams[!segment.direction];

	switch (below(run, 8)) {
	case 0: /* an acknowledgement, or a keep-alive */
		segment.length = 0;
		segment.at = one_in(run, 4) ? own->sent - 1 : own->sent;
		if (segment.at == UINT32_MAX)
			segment.at = 0;
		break;
	case 1:
	case 2:
		segment.at = below(run, own->sent + 1);
		break;
	case 3:
		segment.at = own->sent + below(run, 100);
		break;
	default:
		segment.at = own->sent;
	}
	if (own->ended || segment.at > STREAM) {
		uint32_t most = own->ended ? own->sent : STREAM;

		if (segment.at > most)
			segment.at = most;
		if (segment.length > most - segment.at)
			segment.length = most - segment.at;
	}
	if ((!own->ended && one_in(run, 16) && segment.at + segment.length >= own->sent) ||
	    (own->ended && segment.at + segment.length == own->sent))
		segment.flags |= FIN;
	segment.acknowledged = other->arrived + (other->arrived == other->end);
	if (one_in(run, 4)) {
		segment.acknowledged = below(run, other->arrived + 1);
	} else if (one_in(run, 4)) {
		segment.sack_left = segment.acknowledged + below(run, 200);
		segment.sack_right = segment.sack_left + below(run, 200);
	}
	segment.lost = one_in(run, 4);
	segment.replaced = one_in(run, 2);
	segment.content_length = below(run, sizeof(content) + 1);
	if (segment.replaced) {
		/* Much is the same at the beginning, or all else. */
		for (uint32_t i = 0; i < segment.content_length; i++)
			content[i] = stream_byte(segment.direction, segment.at + i);
		if (segment.content_length)
			content[below(run, segment.content_length)] = (uint8_t)below(run, 256);
		if (one_in(run, 4))
			fill(run, content, segment.content_length);
	}
	line->now += below(run, 256) * INT64_C(1000000);
	send_segment(line, &segment);
}

static void open_line(struct line *line)
{
	struct segment segment = {.flags = SYN};

	for (unsigned i = 0; i < 2; i++) {
		line->streams[i].start = below(line->run, UINT32_MAX);
		line->streams[i].end = UINT32_MAX;
	}
	send_segment(line, &segment);
	segment.direction = 1;
	segment.flags = SYN | ACK;
	send_segment(line, &segment);
}

static bool is_done(const struct stream *stream)
{
	return stream->acknowledged == stream->sent && stream->ended == stream->end_acknowledged;
}

/* Nothing is lost any more: both ends send again what is not acknowledged, until nothing is. */
static void close_line(struct line *line)
{
	unsigned rounds = 0;

	while (!is_done(&line->streams[0]) || !is_done(&line->streams[1])) {
		if (!CHECK(line->run, rounds++ < ROUNDS))
			return;
		for (unsigned i = 0; i < 2; i++) {
			const struct stream *own = &line->streams[i];
			const struct stream *other = &line->streams[!i];
			struct segment segment = {.direction = i, .flags = ACK};

			segment.at = own->acknowledged;
			segment.length = own->sent - own->acknowledged;
			if (segment.length > 200)
				segment.length = 200;
			if (own->ended && segment.at + segment.length == own->sent)
				segment.flags |= FIN;
			if (is_done(own) && own->ended)
				segment.at = own->sent + 1, segment.flags = ACK;
			segment.acknowledged = other->arrived + (other->arrived == other->end);
			if (segment.length || segment.flags & FIN || !is_done(other))
				send_segment(line, &segment);
		}
	}
	for (unsigned i = 0; i < 2; i++) {
		for (uint32_t at = line->streams[i].arrived; at < ARRIVES; at++)
			CHECK(line->run, !line->streams[i].left[at]);
	}
}

static void pass_stranger(struct line *line, struct target *target)
{
	uint8_t *bytes = hostile_take_bytes(target->bytes, target->length);
	struct nq_packet packet = target_packet(target);
	uint8_t content[64];
	uint32_t length = below(line->run, sizeof(content) + 1);
	enum nq_rewritten result;

	fill(line->run, content, length);
	packet.data = bytes;
	line->trusted = false;
	line->now += below(line->run, 256) * (timeout / 64);
	(void)pass(line, &packet, one_in(line->run, 2) ? content : NULL, length, &result);
	hostile_give_bytes(bytes);
}

/* One table of each kind for all inputs, empty before each: their memory is large. */
static struct nq_rewrite *find_table(bool waits)
{
	static struct nq_table *tables[2];
	const struct nq_rewrite_options options = {.max = 4, .timeout = timeout, .waits = waits};

	if (!tables[waits])
		tables[waits] = nq_rewrite_class.make(&options);
	return (struct nq_rewrite *)tables[waits];
}

static int64_t *find_clock(void)
{
	static int64_t now = 1;

	return &now;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	struct target target = target_begin("rewrite", input, size);
	struct line *line = calloc(1, sizeof(*line));
	struct nq_rewrite_stats stats;

	if (!line)
		return 0;
	line->run = target.run;
	line->rewrite = find_table(one_in(target.run, 2));
	line->now = *find_clock();
	line->is_ip6 = one_in(target.run, 2);
	line->whole_sums = one_in(target.run, 2);
	line->trusted = true;
	open_line(line);
	while (target.run->input_left) {
		if (target.length && one_in(target.run, 16))
			pass_stranger(line, &target);
		else
			choose_segment(line);
	}
	if (line->trusted) {
		close_line(line);
		nq_rewrite_stats(line->rewrite, line->now, &stats);
		CHECK(target.run, stats.kept == 0 && stats.connections <= 1);
	}
	nq_rewrite_stats(line->rewrite, line->now, &stats);
	CHECK(target.run, stats.connections <= 4 && stats.kept <= NQ_REWRITE_KEPT);
	line->now += 2 * timeout;
	nq_rewrite_stats(line->rewrite, line->now, &stats);
	CHECK(target.run, stats.connections == 0 && stats.kept == 0);
	*find_clock() = line->now;
	free(line);
	target_end(&target);
	return 0;
}
