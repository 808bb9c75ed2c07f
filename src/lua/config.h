/*
 * config.h - configuration tables: checked completely, layered, and turned into struct nq_settings.
 *
 * A layer is what one source set (the script, a call, the command line); later layers win key by
 * key, and what depends on another key (on_error on fail_open) is settled at the end. Layers hold
 * no Lua values, so they can be carried to another state, for as long as the first lives.
 */
#ifndef NQ_CONFIG_LAYER_H
#define NQ_CONFIG_LAYER_H

#include <lua.h>

#include "host/settings.h"

enum nq_config_key {
	NQ_KEY_MAX_PACKETS,
	NQ_KEY_BUFFER_SIZE,
	NQ_KEY_COPY_RANGE,
	NQ_KEY_FAIL_OPEN,
	NQ_KEY_GSO,
	NQ_KEY_CONNTRACK,
	NQ_KEY_UID_GID,
	NQ_KEY_SECCTX,
	NQ_KEY_DEFAULT,
	NQ_KEY_ON_ERROR,
	NQ_KEY_TIME_LIMIT,
	NQ_KEY_MEMORY_LIMIT,
	NQ_KEY_HOLD_LIMIT,
	NQ_KEY_LOOP_MARK,
	NQ_KEY_SANDBOX,
	NQ_KEY_FILTER,
	NQ_KEY_COUNT,
};

struct nq_config_layer {
	uint32_t set;			/* bit 1 << key: the source gave a value */
	uint64_t values[NQ_KEY_COUNT];	/* seconds: in nanoseconds */
	const struct nq_filter *filter; /* NQ_KEY_FILTER's; of the state that read it */
};

/*
 * Reads the table at `index` (nil or none: an empty layer) into *layer. Raises, naming `function`,
 * for anything but a table, an unknown key, a wrong type or a value out of range.
 */
void nq_config_read(lua_State *L, int index, const char *function, struct nq_config_layer *layer);

/* The defaults, then each of `count` layers in turn. */
void nq_config_settle(const struct nq_config_layer *const *layers, unsigned count,
		      struct nq_settings *settings);

/* memory_limit and time_limit of one layer, before there is a script that could set them: bytes,
 * nanoseconds. */
int64_t nq_config_memory_limit(const struct nq_config_layer *layer);
int64_t nq_config_time_limit(const struct nq_config_layer *layer);

/* Pushes a table with every key. */
void nq_config_push(lua_State *L, const struct nq_settings *settings);

/* config_keys() -> list of { name=, kind="integer"|"boolean"|"verdict"|"filter"|"seconds", least=,
 * most=, default= }
 */
int nq_config_keys(lua_State *L);

#endif
