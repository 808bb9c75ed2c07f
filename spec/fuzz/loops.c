/*
 * The loop with a kernel made of a socket pair: packets come in, are accepted, dropped, edited,
 * held, settled and delayed in any order, workers die in between, and each packet must get the one
 * verdict that was decided for it, with what goes with it.
 */
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netlink.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host/clock.h"
#include "host/loop_parts.h"
#include "hostile.h"
#include "packet/edit.h"

enum {
	VERDICT_TYPE = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_VERDICT,
	BATCH_TYPE = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_VERDICT_BATCH,
	CONFIG_TYPE = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_CONFIG,
	LOOP_ROUNDS = 150,
	LOOP_STEPS = 25,
	QUEUES = 2,
	PACKETS = 4000,	 /* of a queue in a round, at most */
	KEPT_MOST = 250, /* so that all their verdicts fit the socket's buffer */
	TEXT = 28,	 /* offset of the payload in hostile_udp */
	FOREVER = 1000,	 /* seconds */
};

/* Where hostile_put_facts has what differs from packet to packet here. */
enum { AT_CT = 8, AT_SECCTX = 12, AT_L2HEADER = 14 };

/* What the kernel will see of a verdict. */
struct outcome {
	uint32_t verdict;
	uint32_t mark; /* 0: none comes with it */
	uint32_t text; /* 0: no content comes with it */
};

enum phase { OPEN, DECIDED, HELD };

struct sent {
	enum phase phase;
	struct outcome wanted;
	bool arrived;
	struct nq_held *held;
	struct outcome last; /* held: when nobody settles it */
};

struct queue {
	uint32_t count; /* packets sent; id = index + 1 */
	struct sent packets[PACKETS];
};

struct model {
	struct run *run;
	struct nq_memory *memory;
	struct nq_loop *loop;
	struct nq_settings settings[QUEUES];
	int kernel, worker; /* the two ends */
	struct queue queues[QUEUES];
	unsigned held; /* packets in phase HELD with a time that does not end */
	unsigned kept; /* at most, roughly */
	bool deadly;   /* workers die now */
	jmp_buf death;
	uint8_t *received;
};

static const uint16_t numbers[QUEUES] = {7, 0x1234};

static struct sent *find_sent(struct model *model, const struct nq_packet *packet)
{
	struct queue *queue = &model->queues[packet->queue == numbers[1]];

	CHECK(model->run, packet->id >= 1 && packet->id <= queue->count);
	return &queue->packets[packet->id - 1];
}

/* --- The kernel's side --- */

static void send_message(struct model *model, const void *bytes, size_t length)
{
	CHECK(model->run, send(model->kernel, bytes, length, 0) == (ssize_t)length);
}

static void send_packet(struct model *model, unsigned number)
{
	struct queue *queue = &model->queues[number];
	uint8_t packet[sizeof(hostile_udp)];
	struct message message;
	uint32_t id;

	if (queue->count == PACKETS)
		return;
	id = ++queue->count;
	queue->packets[id - 1] = (struct sent){.phase = OPEN};
	memcpy(packet, hostile_udp, sizeof(packet));
	put_host32(packet + TEXT, id);
	hostile_make_whole(&message, packet, sizeof(packet));
	message.bytes[18] = (uint8_t)(numbers[number] >> 8);
	message.bytes[19] = (uint8_t)numbers[number];
	message.bytes[HEADER + 4] = (uint8_t)(id >> 24);
	message.bytes[HEADER + 5] = (uint8_t)(id >> 16);
	message.bytes[HEADER + 6] = (uint8_t)(id >> 8);
	message.bytes[HEADER + 7] = (uint8_t)id;
	put_host32(message.bytes + message.starts[AT_CT] + 8, id);
	put_host32(message.bytes + message.starts[AT_SECCTX] + 4, id);
	put_host32(message.bytes + message.starts[AT_L2HEADER] + 4, id);
	send_message(model, message.bytes, message.length);
}

/* A message was received by a worker that died before it could tell: its packet gets on_error. */
static void lose_packet(struct model *model)
{
	uint8_t bytes[MESSAGE_MAX];
	struct queue *queue;
	struct sent *sent;

	if (recv(model->worker, bytes, sizeof(bytes), MSG_DONTWAIT) < HEADER ||
	    host16(bytes + 4) != PACKET_TYPE)
		return;
	queue = &model->queues[get16(bytes + 18) == numbers[1]];
	sent = &queue->packets[get32(bytes + HEADER + 4) - 1];
	CHECK(model->run, sent->phase == OPEN);
	sent->phase = DECIDED;
	sent->wanted = (struct outcome){.verdict = NF_DROP};
}

static void settle(struct model *model, struct sent *sent, const struct outcome *got)
{
	struct run *run = model->run;

	CHECK(run, sent->phase == DECIDED);
	CHECK(run, sent->wanted.verdict == got->verdict);
	CHECK(run, sent->wanted.mark == got->mark);
	CHECK(run, sent->wanted.text == got->text);
	sent->arrived = true;
	run->verdicts++;
}

static void read_verdict(struct model *model, const uint8_t *bytes, size_t length)
{
	struct run *run = model->run;
	struct queue *queue = &model->queues[get16(bytes + 18) == numbers[1]];
	bool doubtful = nq_seq_class(host32(bytes + 8)) == NQ_SEQ_DOUBTFUL;
	struct outcome got = {0};
	uint32_t id = 0;

	for (size_t at = HEADER; at + 4 <= length;) {
		size_t size = host16(bytes + at);

		if (!CHECK(run, size >= 4 && size <= length - at))
			return;
		switch (host16(bytes + at + 2)) {
		case NFQA_VERDICT_HDR:
			got.verdict = get32(bytes + at + 4);
			id = get32(bytes + at + 8);
			break;
		case NFQA_MARK:
			got.mark = get32(bytes + at + 4);
			break;
		case NFQA_PAYLOAD:
			CHECK(run, size == 4 + sizeof(hostile_udp));
			got.text = host32(bytes + at + 4 + TEXT);
			break;
		default:
			CHECK(run, !"an attribute that was not asked for");
		}
		at += (size + 3) & ~(size_t)3;
	}
	if (host16(bytes + 4) == BATCH_TYPE) {
		for (uint32_t i = 0; i < id && i < queue->count; i++)
			if (!queue->packets[i].arrived)
				settle(model, &queue->packets[i], &got);
		return;
	}
	if (!CHECK(run, id >= 1 && id <= queue->count))
		return;
	/* Twice only where somebody died. */
	if (queue->packets[id - 1].arrived)
		CHECK(run, doubtful);
	else
		settle(model, &queue->packets[id - 1], &got);
}

static void answer(struct model *model, const uint8_t *request)
{
	struct {
		struct nlmsghdr head;
		int error;
		struct nlmsghdr about;
	} message = {.head = {.nlmsg_len = sizeof(message), .nlmsg_type = NLMSG_ERROR}};

	memcpy(&message.about, request, sizeof(message.about));
	message.head.nlmsg_seq = message.about.nlmsg_seq;
	send_message(model, &message, sizeof(message));
}

/* All that the worker has sent. */
static void be_kernel(struct model *model)
{
	for (;;) {
		ssize_t got = recv(model->kernel, model->received, 1 << 20, MSG_DONTWAIT);

		if (got < 0)
			return;
		model->run->datagrams++;
		for (size_t at = 0; at + HEADER <= (size_t)got;) {
			const uint8_t *bytes = model->received + at;
			uint32_t size = host32(bytes), type = host16(bytes + 4);

			if (!CHECK(model->run, size >= HEADER && size <= (size_t)got - at))
				return;
			if (type == CONFIG_TYPE)
				answer(model, bytes);
			else if (CHECK(model->run, type == VERDICT_TYPE || type == BATCH_TYPE))
				read_verdict(model, bytes, size);
			at += (size + 3) & ~(size_t)3;
		}
	}
}

/* --- The judge --- */

/* A random verdict on the packet, but for holding it. */
static void decide(struct model *model, struct nq_packet *packet, struct outcome *wanted)
{
	struct run *run = model->run;
	uint32_t choice = below(run, 8);

	*wanted = (struct outcome){.verdict = NF_ACCEPT};
	packet->verdict = NQ_ACCEPT;
	if (choice < 2) {
		packet->verdict = NQ_DROP;
		packet->send = 0;
		wanted->verdict = NF_DROP;
		return;
	}
	if (choice == 3) {
		packet->send |= NQ_SEND_MARK;
		packet->send_mark = wanted->mark = 1 + below(run, 1000);
	}
	if (choice == 4 || packet->dirty) {
		wanted->text = packet->id ^ 0x80000000;
		CHECK(run, !nq_edit_patch(packet, TEXT, (uint8_t *)&wanted->text, 4));
		CHECK(run, !nq_edit_finish(packet, true));
	}
}

static void check_held(struct model *model, const struct nq_held *held)
{
	struct run *run = model->run;
	const struct nq_packet *packet = &held->packet;

	CHECK(run, packet->kept && packet->length == sizeof(hostile_udp));
	CHECK(run, packet->dirty || host32(packet->data + TEXT) == packet->id);
	CHECK(run, packet->ct_length == 8 && host32(packet->ct + 4) == packet->id);
	CHECK(run, host32((const uint8_t *)packet->secctx) == packet->id);
	CHECK(run, host32(packet->l2header) == packet->id);
	CHECK(run, packet->mark == 0x11223344 && packet->uid == 1000);
}

static int64_t some_time(struct run *run)
{
	return below(run, 3) ? FOREVER * NQ_SECOND : 0;
}

static void delay(struct model *model, struct nq_packet *packet, struct outcome *wanted)
{
	do
		decide(model, packet, wanted);
	while (packet->verdict != NQ_ACCEPT);
	packet->verdict = NQ_DELAY;
	packet->delay = some_time(model->run);
}

static void settle_held(struct model *model, struct sent *sent)
{
	struct nq_held *held = sent->held;

	check_held(model, held);
	sent->phase = DECIDED;
	sent->held = NULL;
	model->held--;
	if (below(model->run, 4) == 0)
		delay(model, &held->packet, &sent->wanted);
	else
		decide(model, &held->packet, &sent->wanted);
	nq_held_settle(held);
}

/* One of those that are held for ever, if there is one. */
static void settle_any(struct model *model)
{
	struct queue *queue = &model->queues[below(model->run, QUEUES)];
	uint32_t from = queue->count ? below(model->run, queue->count) : 0;

	for (uint32_t i = from; model->held && i < queue->count; i++) {
		if (queue->packets[i].held) {
			settle_held(model, &queue->packets[i]);
			return;
		}
	}
}

static void hold(struct model *model, struct sent *sent)
{
	struct run *run = model->run;
	struct nq_packet *packet = &model->loop->packet;
	enum nq_verdict verdict =
		(enum nq_verdict[]){NQ_UNDECIDED, NQ_ACCEPT, NQ_DROP}[below(run, 3)];
	int64_t time = some_time(run);
	bool edited = below(run, 3) == 0;
	uint32_t text = packet->id ^ 0x40000000;
	struct nq_held *held;

	if (edited)
		CHECK(run, !nq_edit_patch(packet, TEXT, (uint8_t *)&text, 4));
	if (!CHECK(run, nq_loop_hold(model->loop, time, verdict, sent, &held) == 0))
		return;
	check_held(model, held);
	sent->last = (struct outcome){.verdict = verdict == NQ_DROP ? NF_DROP : NF_ACCEPT};
	if (edited && verdict != NQ_DROP)
		sent->last.text = text;
	sent->phase = HELD;
	if (time) {
		sent->held = held;
		model->held++;
		return;
	}
	/* It ends with the next step. */
	sent->phase = DECIDED;
	sent->wanted = sent->last;
}

static void judge(void *context, struct nq_loop *loop)
{
	struct model *model = context;
	struct run *run = model->run;
	struct nq_packet *packet;

	while ((packet = nq_loop_next(loop)) != NULL) {
		struct sent *sent = find_sent(model, packet);
		uint32_t choice = below(run, 10);

		CHECK(run, sent->phase == OPEN && !sent->arrived);
		if (below(run, 3) == 0)
			settle_any(model);
		if (model->kept < KEPT_MOST && choice < 3) {
			model->kept++;
			hold(model, sent);
		} else if (model->kept < KEPT_MOST && choice < 5) {
			model->kept++;
			sent->phase = DECIDED;
			delay(model, packet, &sent->wanted);
			CHECK(run, nq_loop_delay(loop) == 0);
		} else if (choice == 9) {
			sent->phase = DECIDED;
			sent->wanted = (struct outcome){.verdict = NF_DROP};
			return; /* failed: on_error */
		} else {
			sent->phase = DECIDED;
			decide(model, packet, &sent->wanted);
		}
		if (model->deadly && below(run, 40) == 0) {
			/* The verdict of the packet in the handler is lost with its worker. */
			sent->phase = DECIDED;
			sent->wanted = (struct outcome){.verdict = NF_DROP};
			if (sent->held)
				model->held--;
			sent->held = NULL;
			longjmp(model->death, 1);
		}
		if (packet->verdict == NQ_UNDECIDED || sent->phase == HELD || !loop->current ||
		    loop->settled)
			continue; /* held */
		nq_loop_settle(loop);
	}
}

static void tick(void *context, struct nq_loop *loop)
{
	(void)context;
	(void)loop;
}

static void release(void *context, void *owner)
{
	struct model *model = context;
	struct sent *sent = owner;

	CHECK(model->run, sent->phase == DECIDED || sent->held);
	if (sent->held) {
		sent->phase = DECIDED;
		sent->wanted = sent->last;
		sent->held = NULL;
		model->held--;
	}
}

static const struct nq_loop_calls calls = {.judge = judge, .tick = tick, .release = release};

/* --- The cases --- */

static void new_loop(struct model *model)
{
	model->loop = nq_loop_new(model->memory, 0, model->worker, model->settings, NULL, &calls,
				  model, NULL);
	if (!model->loop) {
		perror("nq_loop_new");
		exit(1);
	}
}

/* What a death does to the packets that were kept, and to messages on their way. */
static void die(struct model *model)
{
	for (unsigned q = 0; q < QUEUES; q++) {
		struct queue *queue = &model->queues[q];

		for (uint32_t i = 0; i < queue->count; i++) {
			struct sent *sent = &queue->packets[i];

			/* Their own verdict, in the kernel's own copy. */
			if (sent->held) {
				sent->phase = DECIDED;
				sent->wanted = sent->last;
				sent->wanted.text = 0;
				sent->held = NULL;
			} else if (sent->phase == DECIDED && !sent->arrived && sent->last.text &&
				   sent->wanted.text == sent->last.text) {
				sent->wanted.text = 0;
			}
		}
	}
	model->held = 0;
	model->kept = 0;
	nq_loop_free(model->loop);
	for (uint32_t lost = below(model->run, 4); lost > 0; lost--)
		lose_packet(model);
	new_loop(model);
}

static void take_over(struct model *model)
{
	struct nq_failure failure;
	/* Nobody dies while a dead one's packets are judged: longjmp goes to the step. */
	bool deadly = model->deadly;
	/* It tells of each packet that was in the handler. */
	int standard_error = dup(STDERR_FILENO);

	model->deadly = false;
	if (!freopen("/dev/null", "w", stderr))
		perror("freopen");
	CHECK(model->run, nq_loop_join(model->loop, &failure) == 0);
	dup2(standard_error, STDERR_FILENO);
	close(standard_error);
	model->deadly = deadly;
}

static void step(struct model *model)
{
	struct run *run = model->run;

	if (setjmp(model->death)) {
		be_kernel(model); /* what was sent before */
		die(model);
		take_over(model);
		be_kernel(model);
		/* The packet that comes first tells of the orphans. */
		for (unsigned q = 0; q < QUEUES; q++)
			send_packet(model, q);
		return;
	}
	for (uint32_t count = below(run, 3) ? below(run, 20) : below(run, 100); count > 0; count--)
		send_packet(model, below(run, QUEUES));
	while (nq_loop_step(model->loop) > 0)
		be_kernel(model);
	be_kernel(model);
	/* From outside, each sent at once. */
	for (uint32_t count = below(run, 5); count > 0; count--) {
		settle_any(model);
		be_kernel(model);
	}
	model->kept = model->loop->keep.count;
}

static void test_loop(struct run *run, struct model *model, bool deadly)
{
	int ends[2], size = 1 << 20;
	unsigned open = 0;

	memset(model, 0, sizeof(*model));
	model->run = run;
	model->memory = nq_memory_new(1, numbers, QUEUES, NULL);
	model->received = hostile_take(1 << 20);
	model->deadly = deadly;
	if (!model->memory || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) < 0) {
		perror("socketpair");
		exit(1);
	}
	model->kernel = ends[0];
	model->worker = ends[1];
	for (unsigned i = 0; i < 2; i++)
		(void)setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	for (unsigned q = 0; q < QUEUES; q++)
		model->settings[q] =
			(struct nq_settings){.default_verdict = NQ_ACCEPT, .on_error = NQ_DROP};
	new_loop(model);
	model->memory->worker_state = NQ_WORKER_READY;
	nq_memory_lane(model->memory, 0)->joined = 1;
	for (unsigned i = 0; i < LOOP_STEPS; i++)
		step(model);
	model->deadly = false;
	while (nq_loop_step(model->loop) > 0)
		be_kernel(model);
	nq_keep_end(model->loop);
	CHECK(run, nq_loop_finish(model->loop) == 0);
	be_kernel(model);
	for (unsigned q = 0; q < QUEUES; q++) {
		CHECK(run, model->loop->queues[q].kept == 0);
		for (uint32_t i = 0; i < model->queues[q].count; i++)
			open += !model->queues[q].packets[i].arrived;
	}
	CHECK(run, open == 0);
	CHECK(run, model->loop->keep.count == 0 && model->held == 0);
	CHECK(run, model->loop->keep.arena.used == 0);
	nq_loop_free(model->loop);
	nq_memory_free(model->memory);
	close(ends[0]);
	close(ends[1]);
	free(model->received);
}

void hostile_test_loops(struct run *run, uint64_t percent)
{
	struct model *model = hostile_take(sizeof(*model));

	begin(run, "loops that keep packets");
	for (uint64_t round = 0; round < LOOP_ROUNDS * percent / 100; round++)
		test_loop(run, model, false);
	begin(run, "loops that keep packets and die");
	for (uint64_t round = 0; round < LOOP_ROUNDS * percent / 100; round++)
		test_loop(run, model, true);
	free(model);
}
