#include "table/connections.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SECOND INT64_C(1000000000)

/* A closed connection's last packets may come again for so long (RFC 9293: twice the lifetime of a
 * segment, here of 60 s). */
#define CLOSED_TIMEOUT (120 * SECOND)
/* Senders repeat what is not acknowledged, and try a window that is shut, at least every two
 * minutes (RFC 9293 section 3.8.6.1, RFC 6298 section 2.5; Linux: 120 s). */
#define REPEAT_TIMEOUT (300 * SECOND)

int nq_connections_init(struct nq_connections *connections, uint32_t limit, int64_t timeout,
			struct nq_blocks *blocks)
{
	uint32_t buckets = 16;

	while (buckets < limit && buckets < 1U << 31)
		buckets *= 2;
	*connections = (struct nq_connections){
		.limit = limit, .timeout = timeout, .bucket_mask = buckets - 1, .blocks = blocks};
	nq_hash_key_make(&connections->key);
	/* Zeroed memory is mapped page by page when it is first written. */
	connections->memory = calloc((size_t)limit + 1, sizeof(struct nq_connection));
	connections->buckets = calloc(buckets, sizeof(uint32_t));
	if (connections->memory && connections->buckets)
		return 0;
	nq_connections_fini(connections);
	return -ENOMEM;
}

void nq_connections_fini(struct nq_connections *connections)
{
	free(connections->memory);
	free(connections->buckets);
	*connections = (struct nq_connections){0};
}

static struct nq_connection *at(const struct nq_connections *connections, uint32_t number)
{
	return &connections->memory[number];
}

static uint32_t number_of(const struct nq_connections *connections,
			  const struct nq_connection *connection)
{
	return (uint32_t)(connection - connections->memory);
}

static uint32_t *find_bucket(const struct nq_connections *connections, const struct nq_ends *ends)
{
	uint64_t hash = nq_hash(&connections->key, ends, sizeof(*ends));

	return &connections->buckets[hash & connections->bucket_mask];
}

static void unlink_from_list(struct nq_connections *connections, struct nq_connection *connection)
{
	unsigned list = connection->list;

	if (connection->older)
		at(connections, connection->older)->newer = connection->newer;
	else
		connections->oldest[list] = connection->newer;
	if (connection->newer)
		at(connections, connection->newer)->older = connection->older;
	else
		connections->newest[list] = connection->older;
}

static void link_to_list(struct nq_connections *connections, struct nq_connection *connection,
			 enum nq_connection_list list)
{
	uint32_t number = number_of(connections, connection);

	connection->list = (uint8_t)list;
	connection->newer = 0;
	connection->older = connections->newest[list];
	if (connection->older)
		at(connections, connection->older)->newer = number;
	else
		connections->oldest[list] = number;
	connections->newest[list] = number;
}

static void clear(struct nq_connections *connections, struct nq_connection *connection)
{
	for (unsigned i = 0; i < 2; i++) {
		nq_sequence_reset(&connection->directions[i], connections->blocks);
		connection->scales[i] = -1;
		connection->segments[i] = 0;
	}
	connection->has_syn = false;
}

static void forget(struct nq_connections *connections, struct nq_connection *connection)
{
	uint32_t number = number_of(connections, connection);
	uint32_t *link = find_bucket(connections, &connection->ends);

	while (*link != number)
		link = &at(connections, *link)->chain;
	*link = connection->chain;
	unlink_from_list(connections, connection);
	clear(connections, connection);
	connection->chain = connections->unused;
	connections->unused = number;
	connections->count--;
}

static bool is_over(const struct nq_connections *connections,
		    const struct nq_connection *connection, int64_t now)
{
	int64_t timeout = connections->timeout;

	if (connection->list == NQ_CONNECTIONS_CLOSED && timeout > CLOSED_TIMEOUT)
		timeout = CLOSED_TIMEOUT;
	return now - connection->seen > timeout;
}

struct nq_connection *nq_connections_find(struct nq_connections *connections,
					  const struct nq_ends *ends, int64_t now)
{
	uint32_t number = *find_bucket(connections, ends);
	struct nq_connection *connection;

	while (number && memcmp(&at(connections, number)->ends, ends, sizeof(*ends)) != 0)
		number = at(connections, number)->chain;
	if (!number)
		return NULL;
	connection = at(connections, number);
	if (is_over(connections, connection, now)) {
		forget(connections, connection);
		connections->expired++;
		return NULL;
	}
	connection->seen = now;
	if (connections->newest[connection->list] != number) {
		unlink_from_list(connections, connection);
		link_to_list(connections, connection, connection->list);
	}
	return connection;
}

/* Makes room for one more. */
static void make_room(struct nq_connections *connections, int64_t now)
{
	for (unsigned list = 0; list < NQ_CONNECTIONS_LISTS; list++) {
		uint32_t number = connections->oldest[list];

		if (number && is_over(connections, at(connections, number), now)) {
			forget(connections, at(connections, number));
			connections->expired++;
		}
	}
	if (connections->count < connections->limit)
		return;
	for (unsigned list = 0; list < NQ_CONNECTIONS_LISTS; list++) {
		if (connections->oldest[list]) {
			forget(connections, at(connections, connections->oldest[list]));
			connections->evicted++;
			return;
		}
	}
}

struct nq_connection *nq_connections_add(struct nq_connections *connections,
					 const struct nq_ends *ends, int64_t now)
{
	struct nq_connection *connection;
	uint32_t *bucket = find_bucket(connections, ends);
	uint32_t number;

	make_room(connections, now);
	number = connections->unused;
	if (number)
		connections->unused = at(connections, number)->chain;
	else
		number = ++connections->touched;
	connection = at(connections, number);
	memset(connection, 0, sizeof(*connection));
	connection->ends = *ends;
	connection->scales[0] = connection->scales[1] = -1;
	connection->seen = now;
	connection->chain = *bucket;
	*bucket = number;
	link_to_list(connections, connection, NQ_CONNECTIONS_PLAIN);
	connections->count++;
	return connection;
}

void nq_connection_restart(struct nq_connections *connections, struct nq_connection *connection)
{
	clear(connections, connection);
	nq_connection_move(connections, connection, NQ_CONNECTIONS_PLAIN);
}

void nq_connection_move(struct nq_connections *connections, struct nq_connection *connection,
			enum nq_connection_list list)
{
	if (connection->list == list)
		return;
	unlink_from_list(connections, connection);
	link_to_list(connections, connection, list);
}

bool nq_connections_reclaim(struct nq_connections *connections, int64_t now)
{
	int64_t most =
		connections->timeout < REPEAT_TIMEOUT ? connections->timeout : REPEAT_TIMEOUT;
	bool found = false;

	if (now < connections->reclaim_after)
		return false;
	connections->reclaim_after = now + SECOND;
	for (unsigned list = 0; list < NQ_CONNECTIONS_LISTS; list++) {
		uint32_t number = connections->oldest[list];

		while (number && now - at(connections, number)->seen > most) {
			struct nq_connection *connection = at(connections, number);

			number = connection->newer;
			if (connection->directions[0].blocks || connection->directions[1].blocks) {
				forget(connections, connection);
				connections->expired++;
				found = true;
			}
		}
	}
	return found;
}

void nq_connections_expire(struct nq_connections *connections, int64_t now)
{
	for (unsigned list = 0; list < NQ_CONNECTIONS_LISTS; list++) {
		while (connections->oldest[list] &&
		       is_over(connections, at(connections, connections->oldest[list]), now)) {
			forget(connections, at(connections, connections->oldest[list]));
			connections->expired++;
		}
	}
}
