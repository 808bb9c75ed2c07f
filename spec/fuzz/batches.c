/*
 * Verdicts: random decisions through nq_batch into a socket, read back and compared with a model.
 */
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hostile.h"
#include "netlink/batch.h"
#include "netlink/config.h"

enum {
	VERDICT_TYPE = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_VERDICT,
	BATCH_TYPE = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_VERDICT_BATCH,
	BATCH_ROUNDS = 3000,
	MODEL_QUEUES = 3,
	MODEL_IDS = 400,
	BASE_SIZE = 1 << 20,
	RECEIVE_SIZE = 1 << 20,
};

/* What was decided for one packet, and what arrived for it. */
struct decision {
	uint32_t id;
	bool decided, arrived;
	bool alone; /* must not be part of a batch verdict: it carries something */
	uint32_t verdict;
	uint32_t send, mark, priority;
	uint8_t *payload;
	uint32_t payload_length;
};

struct model_queue {
	uint16_t number;
	uint32_t count; /* of packets received */
	struct decision packets[MODEL_IDS];
	struct nq_batch_run run;
};

struct model {
	struct nq_batch batch;
	int receiver;
	uint8_t *received; /* one datagram */
	bool doubtful;	   /* what lies in the batch was marked so */
	bool always_edit;  /* every verdict carries as many bytes as it may */
	struct model_queue queues[MODEL_QUEUES];
};

static struct model_queue *find_model(struct model *model, uint32_t number)
{
	for (unsigned i = 0; i < MODEL_QUEUES; i++)
		if (model->queues[i].number == number)
			return &model->queues[i];
	return NULL;
}

static void settle_batch(struct run *run, struct model_queue *queue, uint32_t id, uint32_t verdict)
{
	bool found = false;

	for (uint32_t i = 0; i < queue->count && queue->packets[i].id <= id; i++) {
		struct decision *packet = &queue->packets[i];

		found = packet->id == id;
		if (packet->arrived)
			continue;
		CHECK(run, packet->decided && !packet->alone && packet->verdict == verdict);
		packet->arrived = true;
		run->verdicts++;
	}
	CHECK(run, found);
}

static void settle_one(struct run *run, struct model_queue *queue, uint32_t id, uint32_t verdict,
		       const struct decision *got)
{
	for (uint32_t i = 0; i < queue->count; i++) {
		struct decision *packet = &queue->packets[i];

		if (packet->id != id)
			continue;
		CHECK(run, packet->decided && !packet->arrived);
		CHECK(run, packet->verdict == verdict && packet->send == got->send);
		CHECK(run, packet->mark == got->mark && packet->priority == got->priority);
		if (CHECK(run, packet->payload_length == got->payload_length))
			CHECK(run, same_bytes(packet->payload, got->payload, got->payload_length));
		packet->arrived = true;
		run->verdicts++;
		return;
	}
	CHECK(run, !"a verdict for a packet there is none of");
}

/* One message of a datagram, as the kernel reads it. */
static void read_verdict(struct run *run, struct model *model, uint8_t *bytes, size_t length)
{
	struct model_queue *queue = find_model(model, get16(bytes + 18));
	uint32_t type = host16(bytes + 4), seq = host32(bytes + 8);
	uint32_t verdict = 0, id = 0;
	struct decision got = {0};
	bool has_verdict = false;
	size_t at = HEADER;

	CHECK(run, host16(bytes + 6) == NLM_F_REQUEST && get16(bytes + 16) == 0);
	CHECK(run, nq_seq_queue(seq) == get16(bytes + 18));
	CHECK(run, nq_seq_class(seq) == (model->doubtful ? NQ_SEQ_DOUBTFUL : NQ_SEQ_VERDICT));
	while (at < length) {
		size_t size = host16(bytes + at);
		uint8_t *value = bytes + at + 4;

		if (!CHECK(run, size >= 4 && size <= length - at))
			return;
		switch (host16(bytes + at + 2)) {
		case NFQA_VERDICT_HDR:
			CHECK(run, size == 12);
			has_verdict = true;
			verdict = get32(value);
			id = get32(value + 4);
			break;
		case NFQA_MARK:
			got.send |= NQ_SEND_MARK;
			got.mark = get32(value);
			break;
		case NFQA_PRIORITY:
			got.send |= NQ_SEND_PRIORITY;
			got.priority = get32(value);
			break;
		case NFQA_PAYLOAD:
			got.send |= NQ_SEND_BYTES;
			got.payload = value;
			got.payload_length = (uint32_t)size - 4;
			break;
		default:
			CHECK(run, !"an attribute that verdicts have not");
		}
		at += (size + 3) & ~(size_t)3;
	}
	CHECK(run, has_verdict);
	if (!CHECK(run, queue != NULL))
		return;
	if (type == BATCH_TYPE) {
		CHECK(run, got.send == 0);
		settle_batch(run, queue, id, verdict);
	} else {
		CHECK(run, type == VERDICT_TYPE);
		settle_one(run, queue, id, verdict, &got);
	}
}

static void drain(struct run *run, struct model *model, uint32_t most)
{
	uint8_t *bytes = model->received;

	while (most-- > 0) {
		ssize_t got = recv(model->receiver, bytes, RECEIVE_SIZE, MSG_DONTWAIT);
		size_t length = (size_t)got, at = 0;

		if (got < 0)
			return;
		run->datagrams++;
		while (length - at >= HEADER) {
			size_t size = host32(bytes + at);

			run->bytes = bytes + at;
			run->length = length - at;
			if (!CHECK(run, size >= HEADER && size <= length - at))
				return;
			read_verdict(run, model, bytes + at, size);
			at += (size + 3) & ~(size_t)3;
			/* The last may be unpadded; ours pads with zeros. */
			for (size_t i = at - ((4 - size % 4) % 4); i < at && i < length; i++)
				CHECK(run, bytes[i] == 0);
		}
		CHECK(run, at == length);
	}
}

/* Flushes as the loop does: again and again while the socket is full. */
static void flush_model(struct run *run, struct model *model)
{
	int error = 0;

	for (unsigned tries = 0; tries < 10000; tries++) {
		error = nq_batch_flush(&model->batch);
		if (error != -EAGAIN && error != -ENOBUFS)
			break;
		CHECK(run, model->batch.store->count > 0);
		drain(run, model, 1 + below(run, 8));
	}
	CHECK(run, error == 0 && model->batch.store->count == 0);
	drain(run, model, UINT32_MAX);
	model->doubtful = false;
}

static bool any_open_below(const struct model_queue *queue, uint32_t index)
{
	for (uint32_t i = 0; i < index; i++)
		if (!queue->packets[i].decided)
			return true;
	return false;
}

static void decide(struct run *run, struct model *model, struct model_queue *queue, uint32_t index,
		   uint32_t payload_limit)
{
	struct decision *decision = &queue->packets[index];
	bool open = any_open_below(queue, index);
	struct nq_packet packet = {.id = decision->id, .queue = queue->number};

	decision->decided = true;
	decision->verdict = NF_ACCEPT;
	switch (model->always_edit ? 5 : below(run, 12)) {
	case 0:
		packet.verdict = NQ_AGAIN;
		decision->verdict = NF_REPEAT;
		decision->alone = true;
		break;
	case 1:
		packet.verdict = NQ_REQUEUE;
		packet.target = (uint16_t)draw(run);
		packet.bypass = one_in(run, 2);
		decision->verdict = (uint32_t)packet.target << 16 | NF_QUEUE |
				    (packet.bypass ? NF_VERDICT_FLAG_QUEUE_BYPASS : 0);
		decision->alone = true;
		break;
	case 2:
	case 3:
	case 4:
		packet.verdict = NQ_DROP;
		decision->verdict = NF_DROP;
		break;
	case 5:
		packet.verdict = NQ_MODIFY;
		packet.send = NQ_SEND_BYTES;
		break;
	default:
		packet.verdict = NQ_ACCEPT;
	}
	if (packet.verdict != NQ_DROP && one_in(run, 6))
		packet.send |= NQ_SEND_MARK;
	if (packet.verdict != NQ_DROP && one_in(run, 12))
		packet.send |= NQ_SEND_PRIORITY;
	if (packet.send & NQ_SEND_MARK)
		decision->mark = packet.send_mark = (uint32_t)draw(run);
	if (packet.send & NQ_SEND_PRIORITY)
		decision->priority = packet.send_priority = (uint32_t)draw(run);
	if (packet.send & NQ_SEND_BYTES) {
		packet.length = 1 + below(run, one_in(run, 10) ? payload_limit : 40);
		if (model->always_edit)
			packet.length = payload_limit;
		packet.data = model->batch.base + below(run, BASE_SIZE - packet.length);
		decision->payload = packet.data;
		decision->payload_length = packet.length;
	}
	decision->send = packet.send;
	decision->alone = decision->alone || packet.send;
	nq_batch_add(&model->batch, &queue->run, &packet, open);
}

/* One more packet, or one that was held: decided, or held for later. */
static void take_packet(struct run *run, struct model *model, uint32_t payload_limit)
{
	struct model_queue *queue = &model->queues[one_in(run, 3) ? below(run, MODEL_QUEUES) : 0];
	uint32_t index = queue->count;

	for (uint32_t i = 0; i < queue->count && one_in(run, 2); i++) {
		if (!queue->packets[i].decided && one_in(run, 2)) {
			decide(run, model, queue, i, payload_limit);
			return;
		}
	}
	if (index == MODEL_IDS)
		return;
	queue->packets[index].id = index ? queue->packets[index - 1].id + 1 : below(run, 1U << 31);
	if (one_in(run, 8))
		queue->packets[index].id += below(run, 5); /* lost ones */
	queue->count++;
	if (!one_in(run, 40))
		decide(run, model, queue, index, payload_limit);
}

static void fini_model(struct model *model)
{
	close(model->batch.fd);
	close(model->receiver);
	free(model->batch.store);
	free(model->batch.base);
	free(model->received);
	free(model);
}

static struct model *make_model(struct run *run, int type, int send_buffer)
{
	struct model *model = hostile_take(sizeof(*model));
	int ends[2];
	int room = 4 << 20;

	memset(model, 0, sizeof(*model));
	if (socketpair(AF_UNIX, type | SOCK_NONBLOCK, 0, ends) < 0) {
		perror("socketpair");
		exit(1);
	}
	setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof(send_buffer));
	setsockopt(ends[1], SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	model->receiver = ends[1];
	model->received = hostile_take(RECEIVE_SIZE);
	model->batch = (struct nq_batch){.store = hostile_take(sizeof(struct nq_batch_store)),
					 .base = hostile_take(BASE_SIZE),
					 .fd = ends[0],
					 .serial = 1};
	memset(model->batch.store, 0, sizeof(*model->batch.store));
	fill(run, model->batch.base, BASE_SIZE);
	model->queues[0].number = 0;
	model->queues[1].number = 65535;
	model->queues[2].number = (uint16_t)(1 + below(run, 65534));
	return model;
}

static void check_arrived(struct run *run, const struct model *model)
{
	for (unsigned q = 0; q < MODEL_QUEUES; q++) {
		const struct model_queue *queue = &model->queues[q];

		for (uint32_t i = 0; i < queue->count; i++)
			CHECK(run, queue->packets[i].decided == queue->packets[i].arrived);
	}
}

static void test_random_batches(struct run *run, uint64_t rounds)
{
	static const struct {
		int type, buffer;
		uint32_t payload_limit;
	} sockets[] = {{SOCK_DGRAM, 1 << 20, 65531},
		       {SOCK_SEQPACKET, 1 << 17, 20000},
		       {SOCK_DGRAM, 1 << 14, 8000},
		       {SOCK_SEQPACKET, 1, 1500}}; /* the least the kernel gives: 4,608 bytes */
	struct model *models[COUNT(sockets)];

	begin(run, "batches of verdicts");
	for (unsigned i = 0; i < COUNT(sockets); i++)
		models[i] = make_model(run, sockets[i].type, sockets[i].buffer);
	for (uint64_t round = 0; round < rounds; round++) {
		struct model *model = models[round % COUNT(sockets)];
		uint32_t payload_limit = sockets[round % COUNT(sockets)].payload_limit;

		for (unsigned q = 0; q < MODEL_QUEUES; q++) {
			memset(model->queues[q].packets, 0, sizeof(model->queues[q].packets));
			model->queues[q].count = 0;
		}
		for (uint32_t n = below(run, 400); n > 0; n--) {
			if (nq_batch_full(&model->batch) || one_in(run, 60)) {
				if (one_in(run, 8)) {
					nq_batch_doubt(&model->batch);
					model->doubtful = true;
				}
				flush_model(run, model);
			}
			take_packet(run, model, payload_limit);
		}
		flush_model(run, model);
		check_arrived(run, model);
	}
	for (unsigned i = 0; i < COUNT(sockets); i++)
		fini_model(models[i]);
}

/* A socket that is always full: a few verdicts leave, and others come behind those that stay. */
static void test_stuck_socket(struct run *run)
{
	struct model *model = make_model(run, SOCK_DGRAM, 1);
	unsigned partly = 0;

	begin(run, "a socket that stays full");
	model->always_edit = true;
	for (unsigned n = 0; n < 2 * MODEL_IDS; n++) {
		while (nq_batch_full(&model->batch)) {
			(void)nq_batch_flush(&model->batch);
			partly += model->batch.store->count > 0;
			drain(run, model, 1);
		}
		take_packet(run, model, 1400);
	}
	CHECK(run, partly > 0);
	flush_model(run, model);
	check_arrived(run, model);
	fini_model(model);
}

/* A verdict that no datagram can hold: it alone stays, with the error; what was before it went. */
static void test_too_large(struct run *run)
{
	struct model *model = make_model(run, SOCK_DGRAM, 1);
	struct model_queue *queue = &model->queues[0];
	int error;

	begin(run, "a verdict larger than the socket takes");
	for (uint32_t i = 0; i < 3; i++) {
		struct nq_packet packet = {.id = i + 1, .verdict = NQ_DROP};

		if (i == 1) {
			packet.verdict = NQ_MODIFY;
			packet.send = NQ_SEND_BYTES;
			packet.data = model->batch.base;
			packet.length = 60000;
		}
		queue->packets[i].id = i + 1;
		queue->packets[i].decided = i == 0;
		queue->count++;
		nq_batch_add(&model->batch, &queue->run, &packet, false);
	}
	error = nq_batch_flush(&model->batch);
	CHECK(run, error == -EMSGSIZE);
	CHECK(run, model->batch.store->count == 2);
	CHECK(run, model->batch.store->entries[0].payload_length == 60000);
	drain(run, model, UINT32_MAX);
	check_arrived(run, model);
	fini_model(model);
}

void hostile_test_batches(struct run *run, uint64_t percent)
{
	test_too_large(run);
	test_random_batches(run, BATCH_ROUNDS * percent / 100);
	test_stuck_socket(run);
}
