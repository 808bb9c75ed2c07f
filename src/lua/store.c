#include "table/store.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lua/args.h"
#include "lua/tables.h"

#define WHAT "shared store"

static const char metatable_key;

static struct nq_store *check_store(lua_State *L, const char *method)
{
	return (struct nq_store *)nq_tables_check(L, method, WHAT)->table;
}

static const struct nq_clock *clock_of(lua_State *L)
{
	return ((const struct nq_tables_handle *)lua_touserdata(L, 1))->clock;
}

static const char *read_key(lua_State *L, const char *method, size_t *length)
{
	const char *key = nq_arg_string(L, 2, method, "key", length);

	if (*length > NQ_LRU_KEY_MAX)
		nq_arg_error(L, 2, method, "key", "string of at most 65535 bytes");
	return key;
}

/***
Get the value of a key.
@function store:get
@tparam string key at most 65,535 bytes
@treturn string|number|boolean|nil the value; nil when there is none, or its time is over
@raise for a key that is no such string
*/
static int store_get(lua_State *L)
{
	struct nq_store *store = check_store(L, "get");
	size_t length;
	const char *key = read_key(L, "get", &length);
	size_t capacity = 512;
	char small[512];
	char *buffer = small;
	struct nq_value value;

	while (nq_store_get(store, key, length, clock_of(L), &value, buffer, capacity)) {
		if (value.kind != NQ_VALUE_STRING || value.string.length <= capacity) {
			nq_tables_push_value(L, &value);
			return 1;
		}
		/* It may be another one by the next time. */
		capacity = value.string.length;
		buffer = lua_newuserdatauv(L, capacity, 0);
	}
	lua_pushnil(L);
	return 1;
}

static int push_no_space(lua_State *L, const struct nq_store *store, const struct nq_value *value)
{
	char text[400];

	snprintf(text, sizeof(text),
		 "a value of %zu bytes does not fit in shared store '%s' (max_bytes %zu)",
		 value->kind == NQ_VALUE_STRING ? value->string.length : sizeof(value->integer),
		 ((const struct nq_table *)store)->name, nq_store_max_bytes(store));
	return nq_push_failure(L, ENOSPC, text);
}

/***
Set the value of a key, for all queues.
@function store:set
@tparam string key at most 65,535 bytes
@tparam string|number|boolean value integers and floats stay what they are
@tparam[opt] number ttl seconds after which it is gone; without it, it stays until it is the one
used longest ago when room is needed
@treturn boolean true; or nil, message, errno (ENOSPC) when key and value take more than half of the
store
@raise for arguments of a wrong type
*/
static int store_set(lua_State *L)
{
	struct nq_store *store = check_store(L, "set");
	size_t length;
	const char *key = read_key(L, "set", &length);
	struct nq_value value;
	int64_t life;

	nq_tables_value(L, 3, "set", "value", &value);
	life = nq_tables_seconds(L, 4, "set", "ttl");
	if (nq_store_set(store, key, length, &value, life, clock_of(L)) != 0)
		return push_no_space(L, store, &value);
	lua_pushboolean(L, 1);
	return 1;
}

/***
Set the value of a key that has none: of all queues that try, one succeeds.
@function store:add
@tparam string key at most 65,535 bytes
@tparam string|number|boolean value
@tparam[opt] number ttl seconds after which it is gone
@treturn boolean whether it was set; or nil, message, errno (ENOSPC) as for `set`
@raise for arguments of a wrong type
*/
static int store_add(lua_State *L)
{
	struct nq_store *store = check_store(L, "add");
	size_t length;
	const char *key = read_key(L, "add", &length);
	struct nq_value value;
	int64_t life;
	int error;

	nq_tables_value(L, 3, "add", "value", &value);
	life = nq_tables_seconds(L, 4, "add", "ttl");
	error = nq_store_add(store, key, length, &value, life, clock_of(L));
	if (error == -ENOSPC)
		return push_no_space(L, store, &value);
	lua_pushboolean(L, error == 0);
	return 1;
}

/***
Add to the number of a key: no addition of any queue is lost.
@function store:incr
@tparam string key at most 65,535 bytes
@tparam[opt=1] number n what to add, also negative
@tparam[opt] number ttl seconds after which it is gone, counted from when the key is made: later
calls do not prolong it, so that a count per minute ends after a minute
@treturn number the sum, which is `n` for a key that had no value; integers wrap around as in Lua
@raise for arguments of a wrong type, and when the key's value is no number
@usage if nfqueue.shared("hits"):incr(pkt.ip.src, 1, 60) > 100 then return pkt:drop() end
*/
static int store_incr(lua_State *L)
{
	struct nq_store *store = check_store(L, "incr");
	static const char *const kinds[] = {"false", "true", "an integer", "a float", "a string"};
	size_t length;
	const char *key = read_key(L, "incr", &length);
	struct nq_value by = {.kind = NQ_VALUE_INTEGER, .integer = 1};
	struct nq_value result;
	int64_t life;
	int error;

	if (!lua_isnoneornil(L, 3)) {
		if (lua_type(L, 3) != LUA_TNUMBER)
			nq_arg_error(L, 3, "incr", "n", "number");
		nq_tables_value(L, 3, "incr", "n", &by);
	}
	life = nq_tables_seconds(L, 4, "incr", "ttl");
	error = nq_store_incr(store, key, length, &by, life, clock_of(L), &result);
	if (error == -ENOSPC)
		return push_no_space(L, store, &by);
	if (error == -EDOM)
		return luaL_error(L, "cannot add to the value of this key: it is %s",
				  kinds[result.kind]);
	nq_tables_push_value(L, &result);
	return 1;
}

/***
Forget a key.
@function store:delete
@tparam string key at most 65,535 bytes
@treturn boolean whether it had a value
@raise for a key that is no such string
*/
static int store_delete(lua_State *L)
{
	struct nq_store *store = check_store(L, "delete");
	size_t length;
	const char *key = read_key(L, "delete", &length);

	lua_pushboolean(L, nq_store_delete(store, key, length, clock_of(L)));
	return 1;
}

static void push_keys(lua_State *L, int list, const char *buffer, size_t size)
{
	lua_Integer count = (lua_Integer)lua_rawlen(L, list);

	while (size) {
		uint16_t length;

		memcpy(&length, buffer, sizeof(length));
		lua_pushlstring(L, buffer + sizeof(length), length);
		lua_rawseti(L, list, ++count);
		buffer += sizeof(length) + length;
		size -= sizeof(length) + length;
	}
}

/***
All keys that have a value, in no order. It walks the whole store: not for every packet.
@function store:keys
@treturn {string,...} list of keys
*/
static int store_keys(lua_State *L)
{
	struct nq_store *store = check_store(L, "keys");
	size_t capacity = 0;
	char *buffer = NULL;

	lua_settop(L, 1);
	lua_newtable(L);
	lua_pushnil(L);
	/* 2 the list, 3 the buffer */
	for (unsigned stripe = 0; stripe < nq_store_stripes(store); stripe++) {
		size_t size;

		while ((size = nq_store_keys(store, stripe, clock_of(L), buffer, capacity)) >
		       capacity) {
			/* More may come before the next time. */
			capacity = size + size / 8;
			buffer = lua_newuserdatauv(L, capacity, 0);
			lua_replace(L, 3);
		}
		push_keys(L, 2, buffer, size);
	}
	lua_settop(L, 2);
	return 1;
}

/***
Forget all keys.
@function store:flush
*/
static int store_flush(lua_State *L)
{
	nq_store_flush(check_store(L, "flush"));
	return 0;
}

static void set_integer(lua_State *L, const char *name, uint64_t value)
{
	lua_pushinteger(L, (lua_Integer)value);
	lua_setfield(L, -2, name);
}

/***
What is in the store: `keys` (those whose time is over are counted until their place is needed),
`bytes` in use, `max_bytes`, `evicted` (keys that went because room was needed).
@function store:stats
@treturn table of integers
*/
static int store_stats(lua_State *L)
{
	struct nq_store *store = check_store(L, "stats");
	struct nq_lru_stats stats;

	nq_store_stats(store, &stats);
	lua_createtable(L, 0, 4);
	set_integer(L, "keys", stats.entries);
	set_integer(L, "bytes", stats.bytes);
	set_integer(L, "max_bytes", nq_store_max_bytes(store));
	set_integer(L, "evicted", stats.evicted);
	return 1;
}

static int store_tostring(lua_State *L)
{
	return nq_tables_tostring(L, WHAT);
}

static int store_gc(lua_State *L)
{
	return nq_tables_gc(L, WHAT);
}

void nq_store_register(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{"get", store_get},	{"set", store_set},	  {"add", store_add},
		{"incr", store_incr},	{"delete", store_delete}, {"keys", store_keys},
		{"flush", store_flush}, {"stats", store_stats},	  {NULL, NULL},
	};
	static const luaL_Reg metamethods[] = {
		{"__tostring", store_tostring},
		{"__gc", store_gc},
		{NULL, NULL},
	};

	nq_class_make(L, &metatable_key, "nfqueue.shared", WHAT, methods, metamethods);
}

/***
The store of this name: one for all queues of the process, whichever asks first makes it. It is
bounded: what was used longest ago goes when room is needed. It stays until the process ends, also
when scripts are loaded anew.
@function shared
@tparam string name 1 to 255 bytes
@tparam[opt] table options `max_bytes` (integer from 4,096 to 64 GiB, default 16 MiB): all that it
takes. The memory is reserved at once, and used as the store fills
@treturn store or nil, message, errno
@raise for a wrong option, naming it, and when the store exists with another `max_bytes`
*/
int nq_store_open(lua_State *L)
{
	static const char *const known[] = {"max_bytes", NULL};
	const char *name = nq_tables_name(L, 1, "shared");
	struct nq_store_options options = {.max_bytes = 0};
	struct nq_tables_handle *handle;
	int error;

	if (!lua_isnoneornil(L, 2)) {
		nq_arg_table(L, 2, "shared", "options");
		nq_tables_known(L, 2, "shared", known);
		if (lua_getfield(L, 2, "max_bytes") != LUA_TNIL)
			options.max_bytes =
				(size_t)nq_arg_integer(L, -1, "shared", "max_bytes",
						       NQ_STORE_BYTES_LEAST, NQ_STORE_BYTES_MOST);
	}
	handle = nq_tables_push(L, &metatable_key);
	error = nq_tables_obtain(L, handle, &nq_store_class, name, &options);
	if (error == -EEXIST)
		return luaL_error(
			L,
			"bad argument 'max_bytes' to 'shared' (store '%s' exists with %I, got %I)",
			name, (LUAI_UACINT)nq_store_max_bytes((struct nq_store *)handle->table),
			(LUAI_UACINT)options.max_bytes);
	return error ? nq_tables_failure(L, error, WHAT, name) : 1;
}
