/*
 * Flows beside a model that is a plain list: which packet meets which flow, in which direction,
 * which are forgotten and when, and what is decided. The choices make packets of a few ends, and
 * ICMP errors about them. The content is a packet of a stranger's, which may be anything and comes
 * between them; then only what holds for any table is judged.
 */
#include <stdlib.h>

#include "packet/tuple.h"
#include "table/flow.h"
#include "target.h"

enum { FIN = 1, SYN = 2, RST = 4, ACK = 16 };
enum { TCP = 6, UDP = 17, OTHER = 47 };
enum { CLOSED, OPEN, LISTS, MOST = 6, ENDS = 3 };

static const int64_t SECOND = INT64_C(1000000000);

/* What a packet is about: the end at `from` sends to the end at `to`. */
struct talk {
	unsigned version, protocol;
	unsigned from, to; /* an address and a port each */
	uint8_t flags;	   /* of TCP */
	bool is_error;	   /* an ICMP error about such a packet, from somewhere */
};

/* A flow as it should be. */
struct known {
	bool there;
	struct nq_flow *flow;
	struct talk talk; /* its first packet */
	bool ended[ENDS];
	bool closed;
	int64_t seen;
	uint64_t order; /* in its list */
	enum nq_verdict verdict;
};

struct world {
	struct run *run;
	struct nq_flows flows;
	struct known known[MOST];
	unsigned max;
	int64_t timeout, now;
	uint64_t order;
	bool trusted; /* no stranger has been met */
	/* What went in the call at hand, and in all. */
	const struct nq_flow *gone[4];
	unsigned gone_count;
};

static void remember_gone(void *context, struct nq_entry *entry)
{
	struct world *world = context;

	if (CHECK(world->run, world->gone_count < COUNT(world->gone)))
		world->gone[world->gone_count++] = (const struct nq_flow *)entry;
}

/* --- Packets --- */

static size_t put_ends(uint8_t *bytes, const struct talk *talk)
{
	bool is_ip6 = talk->version == 6;
	uint8_t *transport = bytes + (is_ip6 ? 40 : 20);

	bytes[0] = is_ip6 ? 0x60 : 0x45;
	bytes[is_ip6 ? 6 : 9] = (uint8_t)talk->protocol;
	bytes[is_ip6 ? 7 : 8] = 64;
	bytes[is_ip6 ? 23 : 15] = (uint8_t)(1 + talk->from / 2);
	bytes[is_ip6 ? 39 : 19] = (uint8_t)(1 + talk->to / 2);
	if (talk->protocol == OTHER)
		return (size_t)(transport - bytes);
	transport[1] = (uint8_t)(1 + talk->from % 2);
	transport[3] = (uint8_t)(1 + talk->to % 2);
	if (talk->protocol == UDP) {
		transport[5] = 8;
		return (size_t)(transport - bytes) + 8;
	}
	transport[12] = 5 << 4;
	transport[13] = talk->flags;
	return (size_t)(transport - bytes) + 20;
}

static void put_total(uint8_t *bytes, size_t length)
{
	if (bytes[0] == 0x45)
		bytes[3] = (uint8_t)length;
	else
		bytes[5] = (uint8_t)(length - 40);
}

static size_t make_packet(uint8_t bytes[256], const struct talk *talk)
{
	static const struct talk router = {.from = 2 * ENDS, .to = 2 * ENDS + 2};
	struct talk outer = router;
	size_t at = talk->version == 6 ? 40 : 20, length;

	memset(bytes, 0, 256);
	if (!talk->is_error) {
		length = put_ends(bytes, talk);
		put_total(bytes, length);
		return length;
	}
	outer.version = talk->version;
	outer.protocol = OTHER;
	put_ends(bytes, &outer);
	bytes[talk->version == 6 ? 6 : 9] = talk->version == 6 ? 58 : 1;
	bytes[at] = talk->version == 6 ? 1 : 3;
	at += 8;
	length = put_ends(bytes + at, talk);
	put_total(bytes + at, length);
	/* Routers embed eight bytes of what is behind the addresses at least. */
	if (talk->protocol == TCP)
		length -= 12;
	put_total(bytes, at + length);
	return at + length;
}

/* --- The model --- */

static int64_t time_of(const struct world *world, bool closed)
{
	return closed && world->timeout > 10 * SECOND ? 10 * SECOND : world->timeout;
}

static bool is_over(const struct world *world, const struct known *known)
{
	return world->now - known->seen > time_of(world, known->closed);
}

static struct known *find_known(struct world *world, const struct talk *talk)
{
	for (unsigned i = 0; i < world->max; i++) {
		struct known *known = &world->known[i];
		const struct talk *first = &known->talk;

		if (known->there && first->version == talk->version &&
		    first->protocol == talk->protocol &&
		    ((first->from == talk->from && first->to == talk->to) ||
		     (first->from == talk->to && first->to == talk->from)))
			return known;
	}
	return NULL;
}

/* First in the list of the closed ones, or of the others. */
static struct known *find_oldest(struct world *world, bool closed)
{
	struct known *oldest = NULL;

	for (unsigned i = 0; i < world->max; i++) {
		struct known *known = &world->known[i];

		if (known->there && known->closed == closed &&
		    (!oldest || known->order < oldest->order))
			oldest = known;
	}
	return oldest;
}

static unsigned count_known(const struct world *world)
{
	unsigned count = 0;

	for (unsigned i = 0; i < world->max; i++)
		count += world->known[i].there;
	return count;
}

/* This one should have gone next. */
static void expect_gone(struct world *world, struct known *known, unsigned *gone)
{
	if (CHECK(world->run, *gone < world->gone_count))
		CHECK(world->run, world->gone[*gone] == known->flow);
	known->there = false;
	++*gone;
}

static void touch(struct world *world, struct known *known, const struct talk *talk)
{
	bool was_closed = known->closed;

	known->seen = world->now;
	known->order = ++world->order;
	if (talk->is_error || talk->protocol != TCP)
		return;
	known->ended[talk->from % ENDS] |= talk->flags & FIN;
	if (talk->flags & RST || (talk->from != talk->to && known->ended[talk->from % ENDS] &&
				  known->ended[talk->to % ENDS]))
		known->closed = true;
	if (known->closed != was_closed)
		known->order = ++world->order;
}

static bool begins_anew(const struct known *known, const struct talk *talk)
{
	return known->closed && !talk->is_error && talk->protocol == TCP &&
	       (talk->flags & (SYN | ACK | RST)) == SYN;
}

/* What is known after such a packet; NULL: it belongs to nothing. */
static struct known *meet_known(struct world *world, const struct talk *talk, unsigned *gone)
{
	struct known *known = find_known(world, talk);

	if (known && (is_over(world, known) || begins_anew(known, talk))) {
		expect_gone(world, known, gone);
		known = NULL;
	}
	if (!known && talk->is_error)
		return NULL;
	if (!known) {
		if (count_known(world) == world->max) {
			struct known *oldest = find_oldest(world, true);

			expect_gone(world, oldest ? oldest : find_oldest(world, false), gone);
		}
		for (known = world->known; known->there; known++)
			;
		*known = (struct known){.there = true, .talk = *talk};
	}
	touch(world, known, talk);
	return known;
}

/* --- Steps --- */

static struct nq_packet packet_of(uint8_t *bytes, size_t length)
{
	return (struct nq_packet){.data = bytes,
				  .length = (uint32_t)length,
				  .have = NQ_HAVE_HEADER | NQ_HAVE_PAYLOAD};
}

static struct talk choose_talk(struct run *run)
{
	static const uint8_t flags[] = {ACK,	   SYN, SYN | ACK, FIN | ACK, RST,
					RST | ACK, FIN, 0,	   SYN | RST, SYN | FIN};
	static const uint8_t protocols[] = {TCP, TCP, UDP, OTHER};
	uint32_t what = below(run, 256);
	struct talk talk = {.version = what & 1 ? 6 : 4,
			    .protocol = protocols[what >> 1 & 3],
			    .is_error = (what >> 3 & 7) == 7,
			    .flags = flags[below(run, COUNT(flags))]};

	talk.from = (what >> 6) % ENDS;
	talk.to = below(run, ENDS);
	/* Without ports an address is all there is of an end. */
	if (talk.protocol == OTHER) {
		talk.from &= ~1U;
		talk.to &= ~1U;
	}
	return talk;
}

static void check_direction(struct world *world, const struct known *known, const struct talk *talk,
			    bool reply)
{
	/* An error goes to the one that sent what it is about. */
	unsigned sender = talk->is_error ? talk->to : talk->from;

	if (talk->from == talk->to)
		CHECK(world->run, reply == talk->is_error);
	else
		CHECK(world->run, reply == (sender != known->talk.from));
}

static void meet(struct world *world)
{
	struct talk talk = choose_talk(world->run);
	uint8_t bytes[256];
	size_t length = make_packet(bytes, &talk);
	uint8_t *block = hostile_take_bytes(bytes, length);
	struct nq_packet packet = packet_of(block, length);
	struct nq_flow *flow;
	struct known *known;
	unsigned gone = 0;
	bool reply = false;

	flow = nq_flows_meet(&world->flows, &packet, world->now, &reply);
	if (world->trusted) {
		known = meet_known(world, &talk, &gone);
		CHECK(world->run, gone == world->gone_count && gone <= 2);
		if (CHECK(world->run, (known != NULL) == (flow != NULL)) && known) {
			if (!known->flow)
				known->flow = flow;
			CHECK(world->run, known->flow == flow && flow->verdict == known->verdict);
			check_direction(world, known, &talk, reply);
		}
	}
	CHECK(world->run, talk.is_error || flow);
	hostile_give_bytes(block);
}

static void decide(struct world *world)
{
	struct talk talk = choose_talk(world->run);
	uint8_t bytes[256];
	size_t length = make_packet(bytes, &talk);
	uint8_t *block = hostile_take_bytes(bytes, length);
	struct nq_packet packet = packet_of(block, length);
	enum nq_verdict verdict = nq_flows_decide(&world->flows, &packet, world->now);
	struct known *known = find_known(world, &talk);

	CHECK(world->run, world->gone_count == 0);
	if (known && (is_over(world, known) || begins_anew(known, &talk)))
		known = NULL;
	if (world->trusted)
		CHECK(world->run, verdict == (known ? known->verdict : NQ_UNDECIDED));
	if (known && known->verdict != NQ_UNDECIDED)
		touch(world, known, &talk);
	hostile_give_bytes(block);
}

/* As a handler does, to a flow it has. */
static void set_verdict(struct world *world)
{
	static const enum nq_verdict verdicts[] = {NQ_ACCEPT, NQ_DROP, NQ_UNDECIDED};
	struct known *known = &world->known[below(world->run, world->max)];

	if (!known->there)
		return;
	known->verdict = verdicts[below(world->run, COUNT(verdicts))];
	known->flow->verdict = known->verdict;
}

/* Often to where the time of one is just over, or just not. */
static void pass_time(struct world *world)
{
	const struct known *known = &world->known[below(world->run, world->max)];
	int64_t by = below(world->run, 256);
	int64_t end = known->seen + time_of(world, known->closed) + by % 2;

	if (by < 8 && known->there && end > world->now)
		world->now = end;
	else
		world->now += by * SECOND / 16;
}

static void expire(struct world *world)
{
	struct known *known = NULL;
	unsigned gone = 0;
	bool did = nq_ends_table_expire(&world->flows.table, world->now);

	CHECK(world->run, world->gone_count == did);
	for (unsigned i = 0; i < LISTS && !known; i++) {
		known = find_oldest(world, i == CLOSED);
		if (known && !is_over(world, known))
			known = NULL;
	}
	if (!world->trusted || !CHECK(world->run, did == (known != NULL)) || !known)
		return;
	expect_gone(world, known, &gone);
}

/* A stranger's packet meets the same flow again, and the other way it goes the other way. */
static void meet_stranger(struct world *world, struct target *target)
{
	uint8_t *bytes = hostile_take_bytes(target->bytes, target->length);
	uint8_t *copy = hostile_take_bytes(target->bytes, target->length);
	struct nq_packet packet = target_packet(target);
	const struct nq_flow_tuple *tuple;
	const struct nq_flow *flow;
	bool reply, again;

	packet.data = bytes;
	world->trusted = false;
	flow = nq_flows_meet(&world->flows, &packet, world->now, &reply);
	CHECK(world->run, same_bytes(bytes, copy, target->length));
	CHECK(world->run, flow == NULL || nq_tuple_find(&packet, &tuple));
	CHECK(world->run, world->gone_count <= 2);
	if (flow && flow->entry.list == OPEN) {
		enum nq_verdict verdict = nq_flows_decide(&world->flows, &packet, world->now);

		CHECK(world->run, verdict == flow->verdict);
		CHECK(world->run,
		      flow == nq_flows_meet(&world->flows, &packet, world->now, &again));
		CHECK(world->run, reply == again);
	}
	hostile_give_bytes(bytes);
	hostile_give_bytes(copy);
}

/* --- What holds for any table --- */

static void check_table(struct world *world)
{
	const struct nq_ends_table *table = &world->flows.table;
	unsigned count = 0;

	for (unsigned list = 0; list < LISTS; list++) {
		int64_t seen = 0;
		uint32_t before = 0;

		for (uint32_t at = table->oldest[list]; at && count <= MOST;) {
			const struct nq_entry *entry = nq_ends_table_at(table, at);

			CHECK(world->run, entry->list == list && entry->older == before);
			CHECK(world->run, entry->seen >= seen && entry->seen <= world->now);
			seen = entry->seen;
			before = at;
			at = entry->newer;
			count++;
		}
		CHECK(world->run, table->newest[list] == before);
	}
	CHECK(world->run, count == table->count && count <= world->max);
	if (world->trusted)
		CHECK(world->run, count == count_known(world));
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	struct target target = target_begin("flows", input, size);
	struct world world = {.run = target.run, .now = SECOND, .trusted = true};

	world.max = 1 + below(target.run, MOST);
	world.timeout = (1 + (int64_t)below(target.run, 40)) * SECOND;
	if (nq_flows_init(&world.flows, world.max, world.timeout, remember_gone, &world) != 0)
		abort();
	while (target.run->input_left) {
		uint32_t step = below(target.run, 16);

		world.gone_count = 0;
		if (step < 8)
			meet(&world);
		else if (step < 10)
			decide(&world);
		else if (step < 12)
			set_verdict(&world);
		else if (step < 13)
			expire(&world);
		else if (step < 15 || !target.length)
			pass_time(&world);
		else
			meet_stranger(&world, &target);
		check_table(&world);
	}
	/* All go, one by one. */
	for (unsigned left = world.flows.table.count; left > 0; left--) {
		world.gone_count = 0;
		CHECK(target.run, nq_ends_table_expire(&world.flows.table, INT64_MAX));
	}
	CHECK(target.run, !nq_ends_table_expire(&world.flows.table, INT64_MAX));
	CHECK(target.run, world.flows.table.count == 0);
	nq_flows_fini(&world.flows);
	target_end(&target);
	return 0;
}
