#include "lua/config.h"

#include <lauxlib.h>
#include <string.h>

#include "host/clock.h"
#include "lua/args.h"
#include "lua/filter.h"
#include "lua/watch.h"

enum kind { INTEGER, BOOLEAN, VERDICT, FILTER, SECONDS };

static const struct key {
	const char *name;
	enum kind kind;
	uint64_t least, most; /* INTEGER */
	uint64_t initial;
	uint32_t flag; /* BOOLEAN: NQ_FLAG_* */
} keys[NQ_KEY_COUNT] = {
	[NQ_KEY_MAX_PACKETS] = {"max_packets", INTEGER, 1, 65536, 4096, 0},
	[NQ_KEY_BUFFER_SIZE] = {"buffer_size", INTEGER, 4096, 1 << 30, 10 << 20, 0},
	[NQ_KEY_COPY_RANGE] = {"copy_range", INTEGER, 0, NQ_PACKET_MAX, NQ_PACKET_MAX, 0},
	[NQ_KEY_FAIL_OPEN] = {"fail_open", BOOLEAN, 0, 1, 0, NQ_FLAG_FAIL_OPEN},
	[NQ_KEY_GSO] = {"gso", BOOLEAN, 0, 1, 1, NQ_FLAG_GSO},
	[NQ_KEY_CONNTRACK] = {"conntrack", BOOLEAN, 0, 1, 0, NQ_FLAG_CONNTRACK},
	[NQ_KEY_UID_GID] = {"uid_gid", BOOLEAN, 0, 1, 0, NQ_FLAG_UID_GID},
	[NQ_KEY_SECCTX] = {"secctx", BOOLEAN, 0, 1, 0, NQ_FLAG_SECCTX},
	[NQ_KEY_DEFAULT] = {"default", VERDICT, 0, 0, NQ_ACCEPT, 0},
	[NQ_KEY_ON_ERROR] = {"on_error", VERDICT, 0, 0, NQ_DROP, 0},
	[NQ_KEY_TIME_LIMIT] = {"time_limit", SECONDS, 0, 0, NQ_TIME_LIMIT, 0},
	[NQ_KEY_MEMORY_LIMIT] = {"memory_limit", INTEGER, 1 << 20, 1ULL << 40, 256 << 20, 0},
	[NQ_KEY_HOLD_LIMIT] = {"hold_limit", SECONDS, 0, 0, 30 * NQ_SECOND, 0},
	[NQ_KEY_LOOP_MARK] = {"loop_mark", INTEGER, 0, UINT32_MAX, NQ_LOOP_MARK, 0},
	[NQ_KEY_SANDBOX] = {"sandbox", BOOLEAN, 0, 1, 0, 0},
	[NQ_KEY_FILTER] = {"filter", FILTER, 0, 0, 0, 0},
};

static int find_key(const char *name)
{
	for (int i = 0; i < NQ_KEY_COUNT; i++) {
		if (strcmp(keys[i].name, name) == 0)
			return i;
	}
	return -1;
}

static int unknown_key(lua_State *L, const char *function, const char *name)
{
	luaL_Buffer known;

	luaL_buffinit(L, &known);
	for (int i = 0; i < NQ_KEY_COUNT; i++) {
		luaL_addstring(&known, i ? ", " : "");
		luaL_addstring(&known, keys[i].name);
	}
	luaL_pushresult(&known);
	return luaL_error(L, "unknown config key '%s' to '%s' (known: %s)", name, function,
			  lua_tostring(L, -1));
}

static uint64_t read_value(lua_State *L, const struct key *key, const char *function,
			   struct nq_config_layer *layer)
{
	const char *text;

	switch (key->kind) {
	case INTEGER:
		return (uint64_t)nq_arg_integer(L, -1, function, key->name, (lua_Integer)key->least,
						(lua_Integer)key->most);
	case SECONDS:
		return (uint64_t)nq_arg_seconds(L, -1, function, key->name, true);
	case BOOLEAN:
		return nq_arg_boolean(L, -1, function, key->name);
	case FILTER:
		layer->filter = nq_filter_keep(L, -1, function, key->name);
		return 0;
	default:
		text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
		if (strcmp(text, "accept") == 0)
			return NQ_ACCEPT;
		if (strcmp(text, "drop") != 0)
			nq_arg_error(L, -1, function, key->name, "\"accept\" or \"drop\"");
		return NQ_DROP;
	}
}

void nq_config_read(lua_State *L, int index, const char *function, struct nq_config_layer *layer)
{
	memset(layer, 0, sizeof(*layer));
	if (lua_isnoneornil(L, index))
		return;
	nq_arg_table(L, index, function, "config");
	index = lua_absindex(L, index);
	lua_pushnil(L);
	while (lua_next(L, index)) {
		int key;

		if (lua_type(L, -2) != LUA_TSTRING)
			unknown_key(L, function, luaL_tolstring(L, -2, NULL));
		key = find_key(lua_tostring(L, -2));
		if (key < 0)
			unknown_key(L, function, lua_tostring(L, -2));
		if (key >= 0) {
			layer->values[key] = read_value(L, &keys[key], function, layer);
			layer->set |= 1u << key;
		}
		lua_pop(L, 1);
	}
}

void nq_config_settle(const struct nq_config_layer *const *layers, unsigned count,
		      struct nq_settings *settings)
{
	uint64_t values[NQ_KEY_COUNT];
	uint32_t set = 0;

	for (int i = 0; i < NQ_KEY_COUNT; i++)
		values[i] = keys[i].initial;
	memset(settings, 0, sizeof(*settings));
	for (unsigned n = 0; n < count; n++) {
		set |= layers[n]->set;
		if (layers[n]->set & 1u << NQ_KEY_FILTER)
			settings->filter = layers[n]->filter;
		for (int i = 0; i < NQ_KEY_COUNT; i++) {
			if (layers[n]->set & 1u << i)
				values[i] = layers[n]->values[i];
		}
	}
	if (!(set & 1u << NQ_KEY_ON_ERROR))
		values[NQ_KEY_ON_ERROR] = values[NQ_KEY_FAIL_OPEN] ? NQ_ACCEPT : NQ_DROP;
	settings->kernel.max_packets = (uint32_t)values[NQ_KEY_MAX_PACKETS];
	settings->kernel.copy_range = (uint32_t)values[NQ_KEY_COPY_RANGE];
	for (int i = 0; i < NQ_KEY_COUNT; i++) {
		if (keys[i].kind == BOOLEAN && values[i])
			settings->kernel.flags |= keys[i].flag;
	}
	settings->buffer_size = (uint32_t)values[NQ_KEY_BUFFER_SIZE];
	settings->loop_mark = (uint32_t)values[NQ_KEY_LOOP_MARK];
	settings->time_limit = (int64_t)values[NQ_KEY_TIME_LIMIT];
	settings->memory_limit = (int64_t)values[NQ_KEY_MEMORY_LIMIT];
	settings->hold_limit = (int64_t)values[NQ_KEY_HOLD_LIMIT];
	settings->default_verdict = (enum nq_verdict)values[NQ_KEY_DEFAULT];
	settings->sandbox = values[NQ_KEY_SANDBOX] != 0;
	settings->on_error = (enum nq_verdict)values[NQ_KEY_ON_ERROR];
}

static int64_t value_of(const struct nq_config_layer *layer, enum nq_config_key key)
{
	return (int64_t)(layer->set & 1u << key ? layer->values[key] : keys[key].initial);
}

int64_t nq_config_memory_limit(const struct nq_config_layer *layer)
{
	return value_of(layer, NQ_KEY_MEMORY_LIMIT);
}

int64_t nq_config_time_limit(const struct nq_config_layer *layer)
{
	return value_of(layer, NQ_KEY_TIME_LIMIT);
}

void nq_config_push(lua_State *L, const struct nq_settings *settings)
{
	lua_createtable(L, 0, NQ_KEY_COUNT);
	lua_pushinteger(L, settings->kernel.max_packets);
	lua_setfield(L, -2, "max_packets");
	lua_pushinteger(L, settings->kernel.copy_range);
	lua_setfield(L, -2, "copy_range");
	lua_pushinteger(L, settings->buffer_size);
	lua_setfield(L, -2, "buffer_size");
	if (settings->filter) {
		lua_pushstring(L, nq_filter_expression(settings->filter));
		lua_setfield(L, -2, "filter");
	}
	lua_pushinteger(L, settings->loop_mark);
	lua_setfield(L, -2, "loop_mark");
	lua_pushstring(L, nq_verdict_name(settings->default_verdict));
	lua_setfield(L, -2, "default");
	lua_pushstring(L, nq_verdict_name(settings->on_error));
	lua_setfield(L, -2, "on_error");
	lua_pushnumber(L, (lua_Number)settings->time_limit / (lua_Number)NQ_SECOND);
	lua_setfield(L, -2, "time_limit");
	lua_pushinteger(L, settings->memory_limit);
	lua_setfield(L, -2, "memory_limit");
	lua_pushnumber(L, (lua_Number)settings->hold_limit / (lua_Number)NQ_SECOND);
	lua_setfield(L, -2, "hold_limit");
	for (int i = 0; i < NQ_KEY_COUNT; i++) {
		if (keys[i].kind != BOOLEAN)
			continue;
		lua_pushboolean(L, i == NQ_KEY_SANDBOX
					   ? settings->sandbox
					   : (settings->kernel.flags & keys[i].flag) != 0);
		lua_setfield(L, -2, keys[i].name);
	}
}

int nq_config_keys(lua_State *L)
{
	static const char *const kinds[] = {"integer", "boolean", "verdict", "filter", "seconds"};

	lua_createtable(L, NQ_KEY_COUNT, 0);
	for (int i = 0; i < NQ_KEY_COUNT; i++) {
		lua_createtable(L, 0, 5);
		lua_pushstring(L, keys[i].name);
		lua_setfield(L, -2, "name");
		lua_pushstring(L, kinds[keys[i].kind]);
		lua_setfield(L, -2, "kind");
		if (keys[i].kind == INTEGER) {
			lua_pushinteger(L, (lua_Integer)keys[i].least);
			lua_setfield(L, -2, "least");
			lua_pushinteger(L, (lua_Integer)keys[i].most);
			lua_setfield(L, -2, "most");
			lua_pushinteger(L, (lua_Integer)keys[i].initial);
		} else if (keys[i].kind == BOOLEAN) {
			lua_pushboolean(L, keys[i].initial != 0);
		} else if (keys[i].kind == SECONDS) {
			lua_pushnumber(L, (lua_Number)keys[i].initial / (lua_Number)NQ_SECOND);
		} else if (keys[i].kind == VERDICT) {
			lua_pushstring(L, nq_verdict_name((enum nq_verdict)keys[i].initial));
		} else {
			lua_pushnil(L);
		}
		lua_setfield(L, -2, "default");
		lua_rawseti(L, -2, i + 1);
	}
	return 1;
}
