#include "table/rewrite.h"

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>

#include "packet/bytes.h"
#include "packet/edit.h"
#include "table/connections.h"
#include "table/segment.h"

struct nq_rewrite {
	struct nq_table table;
	struct nq_rewrite_options options;
	pthread_mutex_t lock; /* of all that follows */
	struct nq_blocks blocks;
	struct nq_connections connections;
	struct nq_rewrite_stats stats;
	uint8_t buffer[NQ_SEQUENCE_BUFFER];
};

/* nq_connection.scales, besides 0 to 14 (RFC 7323 section 2.3). */
enum { SCALE_UNKNOWN = -1, SCALE_NONE = 15 };

static struct nq_table *make(const void *options)
{
	struct nq_rewrite *rewrite = calloc(1, sizeof(*rewrite));
	int error;

	if (!rewrite)
		return NULL;
	rewrite->options = *(const struct nq_rewrite_options *)options;
	error = nq_blocks_init(&rewrite->blocks, NQ_REWRITE_KEPT);
	if (!error)
		error = nq_connections_init(&rewrite->connections, rewrite->options.max,
					    rewrite->options.timeout, &rewrite->blocks);
	if (error) {
		nq_blocks_fini(&rewrite->blocks);
		free(rewrite);
		errno = -error;
		return NULL;
	}
	pthread_mutex_init(&rewrite->lock, NULL);
	nq_table_init(&rewrite->table, &nq_rewrite_class);
	return &rewrite->table;
}

static int matches(const struct nq_table *table, const void *options)
{
	const struct nq_rewrite *rewrite = (const struct nq_rewrite *)table;
	const struct nq_rewrite_options *wanted = options;

	return rewrite->options.max == wanted->max && rewrite->options.timeout == wanted->timeout &&
	       rewrite->options.waits == wanted->waits;
}

static void destroy(struct nq_table *table)
{
	struct nq_rewrite *rewrite = (struct nq_rewrite *)table;

	nq_connections_fini(&rewrite->connections);
	nq_blocks_fini(&rewrite->blocks);
	pthread_mutex_destroy(&rewrite->lock);
	free(rewrite);
}

const struct nq_table_class nq_rewrite_class = {make, matches, destroy};

/* --- Beginnings and ends of connections --------------------------------------------------------
 */

/*
 * A SYN: begins a direction, or the whole connection anew where its ports were used before. One
 * that does not fit to a connection in progress may be a stranger's (RFC 5961 section 4): it counts
 * only when it is answered.
 */
static void see_syn(struct nq_rewrite *rewrite, struct nq_connection *connection,
		    const struct nq_tcp *tcp)
{
	struct nq_sequence *own = &connection->directions[tcp->direction];
	struct nq_sequence *other = &connection->directions[!tcp->direction];

	if (own->known && own->start == tcp->seq)
		return;
	if (!(tcp->flags & NQ_TCP_ACK)) {
		if (connection->entry.list == NQ_CONNECTIONS_CLOSED || !other->known) {
			nq_connection_restart(&rewrite->connections, connection);
			nq_sequence_start(own, tcp->seq);
		} else if (!own->known && other->fresh) {
			nq_sequence_start(own, tcp->seq); /* both begin at once */
		} else {
			connection->has_syn = true;
			connection->syn_direction = (uint8_t)tcp->direction;
			connection->syn = tcp->seq;
		}
	} else if (connection->has_syn && connection->syn_direction != tcp->direction &&
		   tcp->ack == connection->syn + 1) {
		nq_connection_restart(&rewrite->connections, connection);
		nq_sequence_start(other, tcp->ack - 1);
		nq_sequence_start(own, tcp->seq);
	} else if (!own->known || own->fresh) {
		nq_sequence_start(own, tcp->seq); /* or another one: SYN cookies */
	}
}

/* What a SYN of the present connection announces. */
static void read_announcements(struct nq_connection *connection, const struct nq_tcp *tcp)
{
	connection->segments[tcp->direction] = tcp->mss;
	connection->scales[tcp->direction] = tcp->has_scale ? (int8_t)tcp->scale : SCALE_NONE;
}

/* How far a window is shifted; SCALE_UNKNOWN when the SYNs were not seen. */
static int find_scale(const struct nq_connection *connection, const struct nq_tcp *tcp)
{
	int own = connection->scales[tcp->direction];
	int other = connection->scales[!tcp->direction];

	if (own == SCALE_UNKNOWN || other == SCALE_UNKNOWN)
		return SCALE_UNKNOWN;
	return own == SCALE_NONE || other == SCALE_NONE || tcp->flags & NQ_TCP_SYN ? 0 : own;
}

static void see_window(struct nq_connection *connection, const struct nq_tcp *tcp)
{
	struct nq_sequence *other = &connection->directions[!tcp->direction];
	int scale = find_scale(connection, tcp);
	uint32_t end;

	if (scale == SCALE_UNKNOWN || !other->known)
		return;
	end = tcp->ack + ((uint32_t)tcp->window << scale);
	if (!other->has_window || nq_before(other->window_end, end)) {
		other->has_window = true;
		other->window_end = end;
	}
}

static bool is_done(const struct nq_sequence *sequence)
{
	return sequence->finished && sequence->acknowledged == sequence->out_next;
}

/* --- Segments -----------------------------------------------------------------------------------
 */

/* Payload that fits into one packet. */
static uint32_t find_room(const struct nq_connection *connection, const struct nq_packet *packet,
			  const struct nq_tcp *tcp)
{
	uint32_t most = NQ_PACKET_MAX - tcp->payload;
	uint32_t mss = connection->segments[!tcp->direction];
	uint32_t overhead = tcp->payload - (tcp->version == 4 ? 40 : 60);

	if (packet->gso)
		return most;
	/* What every host takes (RFC 9293 section 3.7.1). */
	if (!mss)
		mss = tcp->version == 4 ? 536 : 1220;
	mss = mss > overhead ? mss - overhead : 0; /* RFC 6691 */
	return mss < most ? mss : most;
}

static void see_acknowledgement(struct nq_rewrite *rewrite, struct nq_connection *connection,
				const struct nq_tcp *tcp, struct nq_changes *changes)
{
	struct nq_sequence *other = &connection->directions[!tcp->direction];

	nq_sequence_acknowledge(other, &rewrite->blocks, tcp->ack);
	see_window(connection, tcp);
	if (!other->known || !other->edited)
		return;
	changes->ack = nq_sequence_in(other, &rewrite->blocks, tcp->ack);
	for (unsigned i = 0; i < tcp->sack_count; i++) {
		uint32_t left = nq_sequence_in_left(other, &rewrite->blocks, tcp->sacks[i].left);
		uint32_t right = nq_sequence_in(other, &rewrite->blocks, tcp->sacks[i].right);

		/* None of the sender's bytes is wholly in it. */
		if (!nq_before(left, right))
			continue;
		changes->sacks[changes->sack_count].left = left;
		changes->sacks[changes->sack_count].right = right;
		changes->sack_count++;
	}
	changes->has_sacks = tcp->sack_count > 0;
}

static enum nq_rewritten count(struct nq_rewrite *rewrite, const struct nq_passage *passage)
{
	rewrite->stats.edits += passage->edited;
	rewrite->stats.cut += passage->cut;
	switch (passage->passing) {
	case NQ_PASSED_AGAIN:
		rewrite->stats.again++;
		return NQ_REWRITTEN_AGAIN;
	case NQ_PASSED_BARE:
		rewrite->stats.hole++;
		return NQ_REWRITTEN_HOLE;
	case NQ_PASSED_NOT_KEPT:
		rewrite->stats.no_room++;
		return NQ_REWRITTEN_NO_ROOM;
	default:
		return NQ_REWRITTEN;
	}
}

/* The urgent pointer (RFC 6093) follows what it points at. */
static void move_urgent(struct nq_rewrite *rewrite, const struct nq_sequence *own,
			const struct nq_tcp *tcp, const struct nq_passage *passage,
			struct nq_changes *changes)
{
	uint32_t place;

	if (!(tcp->flags & NQ_TCP_URG) || !own->edited)
		return;
	place = nq_sequence_out(own, &rewrite->blocks, tcp->seq + tcp->urgent) - passage->seq;
	if (!(changes->flags & NQ_TCP_URG) || place - 1 >= 0x7fffffff) {
		changes->flags &= (uint8_t)~NQ_TCP_URG;
		changes->urgent = 0;
	} else {
		changes->urgent = (uint16_t)(place > 0xffff ? 0xffff : place);
	}
}

/* Whether one direction of a connection may be refused room that it is entitled to. */
static bool is_full(const struct nq_blocks *blocks)
{
	return blocks->limit - blocks->used < NQ_SEQUENCE_BYTES / NQ_BLOCK_SIZE;
}

static enum nq_rewritten pass_data(struct nq_rewrite *rewrite, struct nq_connection *connection,
				   const struct nq_packet *packet, const struct nq_tcp *tcp,
				   const uint8_t *content, size_t length,
				   struct nq_changes *changes)
{
	struct nq_sequence *own = &connection->directions[tcp->direction];
	struct nq_segment segment = {
		.seq = tcp->seq,
		.syn = (tcp->flags & NQ_TCP_SYN) != 0,
		.fin = (tcp->flags & NQ_TCP_FIN) != 0,
		.super = packet->gso,
		.waits = rewrite->options.waits,
		.replaced = content != NULL,
		.bytes = packet->data + tcp->payload,
		.length = tcp->length,
		.content = content,
		.content_length = (uint32_t)length,
		.room = find_room(connection, packet, tcp),
	};
	struct nq_passage passage;

	if (segment.syn && (!own->known || own->start != tcp->seq)) {
		/* Not of this connection, or not yet: no data passes uncounted. */
		changes->length = 0;
		return tcp->length ? NQ_REWRITTEN_HOLE : NQ_REWRITTEN;
	}
	if (!own->known)
		nq_sequence_start_in_middle(own, tcp->seq);
	nq_sequence_pass(own, &rewrite->blocks, &segment, rewrite->buffer, &passage);
	if (passage.passing == NQ_PASSED_NOT_KEPT && is_full(&rewrite->blocks) &&
	    nq_connections_reclaim(&rewrite->connections, connection->entry.seen))
		nq_sequence_pass(own, &rewrite->blocks, &segment, rewrite->buffer, &passage);
	if (own->edited && connection->entry.list == NQ_CONNECTIONS_PLAIN)
		nq_connection_move(&rewrite->connections, connection, NQ_CONNECTIONS_EDITED);
	changes->seq = passage.seq;
	changes->bytes = passage.bytes;
	changes->length = passage.length;
	if (!passage.fin)
		changes->flags &= (uint8_t)~NQ_TCP_FIN;
	if (passage.length == 0)
		changes->flags &= (uint8_t) ~(NQ_TCP_PSH | NQ_TCP_URG);
	move_urgent(rewrite, own, tcp, &passage, changes);
	return count(rewrite, &passage);
}

static enum nq_rewritten pass(struct nq_rewrite *rewrite, struct nq_connection *connection,
			      const struct nq_packet *packet, const struct nq_tcp *tcp,
			      const uint8_t *content, size_t length, struct nq_changes *changes)
{
	struct nq_sequence *own = &connection->directions[tcp->direction];
	struct nq_sequence *other = &connection->directions[!tcp->direction];
	enum nq_rewritten result = NQ_REWRITTEN;

	if (tcp->flags & NQ_TCP_SYN && !(tcp->flags & NQ_TCP_RST)) {
		see_syn(rewrite, connection, tcp);
		if (own->known && own->start == tcp->seq)
			read_announcements(connection, tcp);
	}
	if (tcp->flags & NQ_TCP_ACK)
		see_acknowledgement(rewrite, connection, tcp, changes);
	if (tcp->flags & NQ_TCP_RST) {
		changes->seq = nq_sequence_of_reset(own, &rewrite->blocks, tcp->seq);
		/* Its receiver may not believe it, so what is known stays. */
		if (!own->known || changes->seq == own->acknowledged || tcp->seq == own->in_next)
			nq_connection_move(&rewrite->connections, connection,
					   NQ_CONNECTIONS_CLOSED);
		return content ? NQ_REWRITTEN_NO_STREAM : NQ_REWRITTEN;
	}
	if (tcp->length || tcp->flags & (NQ_TCP_SYN | NQ_TCP_FIN))
		result = pass_data(rewrite, connection, packet, tcp, content, length, changes);
	else
		changes->seq = nq_sequence_bare(own, &rewrite->blocks, tcp->seq);
	if (is_done(own) && is_done(other))
		nq_connection_move(&rewrite->connections, connection, NQ_CONNECTIONS_CLOSED);
	return result;
}

/* NULL, or why its content cannot be replaced. */
static const char *check_content(const struct nq_packet *packet, const struct nq_tcp *tcp,
				 size_t length)
{
	if (length > NQ_REWRITE_CONTENT)
		return "the new content is longer than 1048576 bytes";
	if (!tcp->length)
		return length ? "it carries no data that could be replaced" : NULL;
	if (tcp->is_signed)
		return "it is signed (TCP MD5 or TCP-AO)";
	if (tcp->is_multipath)
		return "it belongs to a Multipath TCP connection, which numbers its data itself";
	(void)packet;
	return NULL;
}

static bool is_new(const struct nq_packet *packet, const struct nq_tcp *tcp, const uint8_t *content,
		   size_t length)
{
	return content &&
	       (length != tcp->length || memcmp(packet->data + tcp->payload, content, length) != 0);
}

const char *nq_rewrite_pass(struct nq_rewrite *rewrite, struct nq_packet *packet,
			    const uint8_t *content, size_t length, int64_t now,
			    enum nq_rewritten *result)
{
	struct nq_connection *connection;
	struct nq_changes changes;
	struct nq_tcp tcp;
	const char *reason = nq_tcp_read(packet, &tcp);

	*result = NQ_REWRITTEN;
	if (reason)
		return reason;
	if (!is_new(packet, &tcp, content, length))
		content = NULL;
	reason = content ? check_content(packet, &tcp, length) : NULL;
	if (reason)
		return reason;
	pthread_mutex_lock(&rewrite->lock);
	connection = nq_connections_find(&rewrite->connections, &tcp.ends, now);
	if (!connection && !content && !(tcp.flags & NQ_TCP_SYN))
		goto out;
	if (nq_tcp_damaged(packet, &tcp)) {
		rewrite->stats.damaged++;
		*result = NQ_REWRITTEN_DAMAGED;
		goto out;
	}
	if (!connection) {
		if (tcp.flags & NQ_TCP_RST)
			goto out;
		connection = nq_connections_add(&rewrite->connections, &tcp.ends, now);
	}
	nq_changes_begin(&changes, packet, &tcp);
	*result = pass(rewrite, connection, packet, &tcp, content, length, &changes);
	reason = nq_changes_apply(&changes, packet, &tcp, rewrite->buffer);
	packet->rewritten = true;
out:
	pthread_mutex_unlock(&rewrite->lock);
	return reason;
}

void nq_rewrite_stats(struct nq_rewrite *rewrite, int64_t now, struct nq_rewrite_stats *stats)
{
	pthread_mutex_lock(&rewrite->lock);
	nq_connections_expire(&rewrite->connections, now);
	*stats = rewrite->stats;
	stats->connections = rewrite->connections.table.count;
	stats->kept = (uint64_t)rewrite->blocks.used * NQ_BLOCK_SIZE;
	stats->evicted = rewrite->connections.evicted;
	stats->expired = rewrite->connections.expired;
	pthread_mutex_unlock(&rewrite->lock);
}
