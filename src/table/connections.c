#include "table/connections.h"

#define SECOND INT64_C(1000000000)

/* A closed connection's last packets may come again for so long (RFC 9293: twice the lifetime of a
 * segment, here of 60 s). */
#define CLOSED_TIMEOUT (120 * SECOND)
/* Senders repeat what is not acknowledged, and try a window that is shut, at least every two
 * minutes (RFC 9293 section 3.8.6.1, RFC 6298 section 2.5; Linux: 120 s). */
#define REPEAT_TIMEOUT (300 * SECOND)

static void clear(struct nq_connections *connections, struct nq_connection *connection)
{
	for (unsigned i = 0; i < 2; i++) {
		nq_sequence_reset(&connection->directions[i], connections->blocks);
		connection->scales[i] = -1;
		connection->segments[i] = 0;
	}
	connection->has_syn = false;
}

static void forget(void *context, struct nq_entry *entry)
{
	clear(context, (struct nq_connection *)entry);
}

int nq_connections_init(struct nq_connections *connections, uint32_t limit, int64_t timeout,
			struct nq_blocks *blocks)
{
	int64_t closed = timeout < CLOSED_TIMEOUT ? timeout : CLOSED_TIMEOUT;

	*connections =
		(struct nq_connections){.table = {.forget = forget,
						  .context = connections,
						  .timeouts = {[NQ_CONNECTIONS_CLOSED] = closed,
							       [NQ_CONNECTIONS_PLAIN] = timeout,
							       [NQ_CONNECTIONS_EDITED] = timeout}},
					.blocks = blocks};
	return nq_ends_table_init(&connections->table, limit, sizeof(struct nq_connection));
}

void nq_connections_fini(struct nq_connections *connections)
{
	nq_ends_table_fini(&connections->table);
}

struct nq_connection *nq_connections_find(struct nq_connections *connections,
					  const struct nq_ends *ends, int64_t now)
{
	uint32_t before = connections->table.count;
	struct nq_entry *entry = nq_ends_table_find(&connections->table, ends, now);

	connections->expired += before - connections->table.count;
	return (struct nq_connection *)entry;
}

struct nq_connection *nq_connections_add(struct nq_connections *connections,
					 const struct nq_ends *ends, int64_t now)
{
	struct nq_connection *connection;

	/* As many as lists at most: no packet waits long for others' end. */
	for (unsigned i = 0; i < NQ_ENDS_LISTS && nq_ends_table_expire(&connections->table, now);
	     i++)
		connections->expired++;
	connections->evicted += connections->table.count == connections->table.limit;
	connection = (struct nq_connection *)nq_ends_table_add(&connections->table, ends,
							       NQ_CONNECTIONS_PLAIN, now);
	connection->scales[0] = connection->scales[1] = -1;
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
	nq_ends_table_move(&connections->table, &connection->entry, (uint8_t)list);
}

bool nq_connections_reclaim(struct nq_connections *connections, int64_t now)
{
	struct nq_ends_table *table = &connections->table;
	int64_t timeout = table->timeouts[NQ_CONNECTIONS_EDITED];
	int64_t most = timeout < REPEAT_TIMEOUT ? timeout : REPEAT_TIMEOUT;
	bool found = false;

	if (now < connections->reclaim_after)
		return false;
	connections->reclaim_after = now + SECOND;
	for (unsigned list = 0; list < NQ_ENDS_LISTS; list++) {
		uint32_t number = table->oldest[list];

		while (number && now - nq_ends_table_at(table, number)->seen > most) {
			struct nq_entry *entry = nq_ends_table_at(table, number);
			const struct nq_connection *connection = (struct nq_connection *)entry;

			number = entry->newer;
			if (connection->directions[0].blocks || connection->directions[1].blocks) {
				nq_ends_table_forget(table, entry);
				connections->expired++;
				found = true;
			}
		}
	}
	return found;
}

void nq_connections_expire(struct nq_connections *connections, int64_t now)
{
	while (nq_ends_table_expire(&connections->table, now))
		connections->expired++;
}
