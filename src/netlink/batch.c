#include "netlink/batch.h"

#include <endian.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include "netlink/config.h"

/* nlmsghdr, nfgenmsg, then the verdict header attribute: the same for every verdict. */
struct verdict_message {
	struct nlmsghdr head;
	struct nfgenmsg family;
	struct nlattr attribute;
	struct nfqnl_msg_verdict_hdr verdict;
};

_Static_assert(sizeof(struct verdict_message) == 32, "no padding between the parts of a verdict");

enum {
	TYPE_VERDICT = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_VERDICT,
	TYPE_BATCH = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_VERDICT_BATCH,
	/* Datagrams beyond this gain nothing and meet the limit of the send buffer sooner. */
	DATAGRAM_LIMIT = 192 * 1024,
};

static uint32_t kernel_verdict(const struct nq_packet *packet)
{
	switch (packet->verdict) {
	case NQ_DROP:
	case NQ_REJECT:
		return NF_DROP;
	case NQ_AGAIN:
		return NF_REPEAT;
	case NQ_REQUEUE:
		return NF_QUEUE_NR((uint32_t)packet->target) |
		       (packet->bypass ? NF_VERDICT_FLAG_QUEUE_BYPASS : 0);
	default:
		return NF_ACCEPT;
	}
}

static uint8_t *put_u32(uint8_t *at, uint16_t type, uint32_t value)
{
	struct nlattr head = {.nla_len = sizeof(head) + 4, .nla_type = type};
	uint32_t wire = htobe32(value);

	memcpy(at, &head, sizeof(head));
	memcpy(at + sizeof(head), &wire, sizeof(wire));
	return at + sizeof(head) + sizeof(wire);
}

/*
 * What changes in the packet's conntrack entry, as ctnetlink takes it: in both pairs the mask tells
 * which bits of the entry are replaced.
 */
static uint8_t *put_conntrack(uint8_t *at, const struct nq_packet *packet)
{
	struct nlattr nest = {.nla_type = NFQA_CT | NLA_F_NESTED};
	uint8_t *end = at + sizeof(nest);

	if (packet->send & NQ_SEND_CONNMARK) {
		end = put_u32(end, CTA_MARK, packet->connmark & packet->connmask);
		end = put_u32(end, CTA_MARK_MASK, packet->connmask);
	}
	if (packet->send & NQ_SEND_LABEL) {
		static const uint16_t types[] = {CTA_LABELS, CTA_LABELS_MASK};

		for (unsigned i = 0; i < 2; i++) {
			uint32_t words[4] = {0};
			struct nlattr head = {.nla_len = sizeof(head) + sizeof(words),
					      .nla_type = types[i]};

			words[packet->label / 32] = 1u << packet->label % 32;
			memcpy(end, &head, sizeof(head));
			memcpy(end + sizeof(head), words, sizeof(words));
			end += sizeof(head) + sizeof(words);
		}
	}
	nest.nla_len = (uint16_t)(end - at);
	memcpy(at, &nest, sizeof(nest));
	return end;
}

static uint32_t next_start(const struct nq_batch_store *store)
{
	const struct nq_batch_entry *last;

	if (store->count == 0)
		return 0;
	last = &store->entries[store->count - 1];
	return last->start + last->length;
}

static void write_message(uint8_t *at, enum nq_seq_class class, uint16_t type, uint16_t queue,
			  uint32_t id, uint32_t verdict, uint32_t length)
{
	struct verdict_message message = {
		.head = {.nlmsg_len = length,
			 .nlmsg_type = type,
			 .nlmsg_flags = NLM_F_REQUEST,
			 .nlmsg_seq = nq_seq(class, queue, id)},
		.family = {.nfgen_family = 0, .version = NFNETLINK_V0, .res_id = htobe16(queue)},
		.attribute = {.nla_len = sizeof(struct nlattr) + sizeof(message.verdict),
			      .nla_type = NFQA_VERDICT_HDR},
		.verdict = {.verdict = htobe32(verdict), .id = htobe32(id)},
	};

	memcpy(at, &message, sizeof(message));
}

/* The entry is whole before it counts: a successor trusts `count`. */
static void commit(struct nq_batch_store *store)
{
	__atomic_store_n(&store->count, store->count + 1, __ATOMIC_RELEASE);
}

/*
 * Lengthens a run in place. In this order a death between the two stores leaves a batch verdict up
 * to the older id, which is as right as the single verdict it was.
 */
static void extend_run(uint8_t *at, uint32_t id)
{
	uint16_t type = TYPE_BATCH;
	uint32_t wire = htobe32(id);

	memcpy(at + offsetof(struct verdict_message, head.nlmsg_type), &type, sizeof(type));
	__atomic_signal_fence(__ATOMIC_RELEASE);
	memcpy(at + offsetof(struct verdict_message, verdict.id), &wire, sizeof(wire));
}

void nq_batch_add(struct nq_batch *batch, struct nq_batch_run *run, const struct nq_packet *packet,
		  bool open)
{
	struct nq_batch_store *store = batch->store;
	struct nq_batch_entry *entry;
	uint32_t verdict = kernel_verdict(packet);
	bool plain = !packet->send && (packet->verdict == NQ_ACCEPT || packet->verdict == NQ_DROP ||
				       packet->verdict == NQ_REJECT);
	uint8_t *at, *end;

	if (plain && !open && run->serial == batch->serial && run->verdict == verdict) {
		extend_run(store->wire + store->entries[run->entry].start, packet->id);
		return;
	}
	entry = &store->entries[store->count];
	entry->start = next_start(store);
	entry->queue = packet->queue;
	entry->payload_length = 0;
	at = store->wire + entry->start;
	end = at + sizeof(struct verdict_message);
	if (packet->send & NQ_SEND_MARK)
		end = put_u32(end, NFQA_MARK, packet->send_mark);
	if (packet->send & NQ_SEND_PRIORITY)
		end = put_u32(end, NFQA_PRIORITY, packet->send_priority);
	if (packet->send & (NQ_SEND_CONNMARK | NQ_SEND_LABEL))
		end = put_conntrack(end, packet);
	if (packet->send & NQ_SEND_BYTES) {
		struct nlattr head = {.nla_len = (uint16_t)(sizeof(head) + packet->length),
				      .nla_type = NFQA_PAYLOAD};

		memcpy(end, &head, sizeof(head));
		end += sizeof(head);
		entry->payload = (uint64_t)(packet->data - batch->base);
		entry->payload_length = packet->length;
	}
	entry->length = (uint32_t)(end - at);
	write_message(at, NQ_SEQ_VERDICT, TYPE_VERDICT, packet->queue, packet->id, verdict,
		      entry->length + entry->payload_length);
	run->serial = plain && !open ? batch->serial : 0;
	run->entry = store->count;
	run->verdict = verdict;
	commit(store);
}

void nq_batch_add_id(struct nq_batch *batch, uint16_t queue, uint32_t id, enum nq_verdict verdict,
		     bool batched)
{
	struct nq_batch_store *store = batch->store;
	struct nq_batch_entry *entry = &store->entries[store->count];

	entry->start = next_start(store);
	entry->length = sizeof(struct verdict_message);
	entry->queue = queue;
	entry->payload_length = 0;
	write_message(store->wire + entry->start, NQ_SEQ_DOUBTFUL,
		      batched ? TYPE_BATCH : TYPE_VERDICT, queue, id,
		      verdict == NQ_DROP ? NF_DROP : NF_ACCEPT, entry->length);
	commit(store);
}

void nq_batch_doubt(struct nq_batch *batch)
{
	struct nq_batch_store *store = batch->store;

	for (uint32_t i = 0; i < store->count; i++) {
		uint8_t *at = store->wire + store->entries[i].start +
			      offsetof(struct verdict_message, head.nlmsg_seq);
		uint32_t seq;

		memcpy(&seq, at, sizeof(seq));
		seq = nq_seq(NQ_SEQ_DOUBTFUL, nq_seq_queue(seq), seq);
		memcpy(at, &seq, sizeof(seq));
	}
}

/* Pieces of entries [first, last) for one sendmsg: neighbours without payload are one piece. */
static size_t gather(const struct nq_batch *batch, uint32_t first, uint32_t last,
		     struct iovec *pieces)
{
	static const uint8_t zeros[NLMSG_ALIGNTO];
	struct nq_batch_store *store = batch->store;
	size_t count = 0;
	bool joined = false;

	for (uint32_t i = first; i < last; i++) {
		const struct nq_batch_entry *entry = &store->entries[i];
		uint32_t padding = NLMSG_ALIGN(entry->payload_length) - entry->payload_length;

		if (joined)
			pieces[count - 1].iov_len += entry->length;
		else
			pieces[count++] = (struct iovec){store->wire + entry->start, entry->length};
		joined = entry->payload_length == 0;
		if (joined)
			continue;
		pieces[count++] =
			(struct iovec){batch->base + entry->payload, entry->payload_length};
		if (padding)
			pieces[count++] = (struct iovec){(void *)zeros, padding};
	}
	return count;
}

/* How many entries from `first` on make one datagram of about `limit` bytes; at least one. */
static uint32_t datagram_end(const struct nq_batch_store *store, uint32_t first, size_t limit)
{
	size_t size = 0;
	uint32_t last = first;

	while (last < store->count) {
		size += store->entries[last].length +
			NLMSG_ALIGN(store->entries[last].payload_length);
		if (last > first && size > limit)
			break;
		last++;
	}
	return last;
}

int nq_batch_flush(struct nq_batch *batch)
{
	struct nq_batch_store *store = batch->store;
	struct iovec pieces[3 * NQ_BATCH_ENTRIES];
	size_t limit = DATAGRAM_LIMIT;
	uint32_t first = 0;
	int error = 0;

	while (first < store->count) {
		uint32_t last = datagram_end(store, first, limit);
		struct msghdr message = {.msg_iov = pieces,
					 .msg_iovlen = gather(batch, first, last, pieces)};

		if (sendmsg(batch->fd, &message, 0) >= 0) {
			first = last;
			continue;
		}
		if (errno == EINTR)
			continue;
		/* The whole datagram was refused for its size or for want of memory: smaller ones,
		 * same order. */
		if ((errno == EMSGSIZE || errno == ENOBUFS || errno == ENOMEM) &&
		    last - first > 1) {
			limit = limit > 8192 ? limit / 2 : 0;
			continue;
		}
		error = -errno;
		break;
	}
	batch->serial++;
	if (first == store->count) {
		__atomic_store_n(&store->count, 0, __ATOMIC_RELEASE);
	} else if (first > 0) {
		/* What was sent goes; a reader in between sees some twice, which the kernel answers
		 * with ENOENT. */
		uint32_t left = store->count - first;

		memmove(store->entries, store->entries + first, left * sizeof(store->entries[0]));
		__atomic_store_n(&store->count, left, __ATOMIC_RELEASE);
	}
	return error;
}
