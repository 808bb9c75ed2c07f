#include "lua/tables.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "lua/args.h"
#include "lua/lane.h"
#include "lua/timer.h"

/* Registry keys: their addresses. */
static const char tables_key, guard_key;

static int64_t state_now(void *context)
{
	return nq_lua_table_time(context);
}

static int64_t manual_now(void *context)
{
	return ((const struct nq_tables *)context)->manual;
}

static int tables_gc(lua_State *L)
{
	struct nq_tables *tables = lua_touserdata(L, 1);

	nq_registry_release(tables->registry);
	tables->registry = NULL;
	return 0;
}

static int guard_gc(lua_State *L)
{
	nq_guard_free(lua_touserdata(L, 1));
	return 0;
}

void nq_tables_register(lua_State *L)
{
	struct nq_tables *tables = lua_newuserdatauv(L, sizeof(*tables), 0);

	memset(tables, 0, sizeof(*tables));
	tables->clock = (struct nq_clock){.now = state_now, .context = nq_state_get(L)};
	lua_createtable(L, 0, 1);
	lua_pushcfunction(L, tables_gc);
	lua_setfield(L, -2, "__gc");
	lua_setmetatable(L, -2);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &tables_key);
	lua_createtable(L, 0, 1);
	lua_pushcfunction(L, guard_gc);
	lua_setfield(L, -2, "__gc");
	lua_rawsetp(L, LUA_REGISTRYINDEX, &guard_key);
	tables->registry = nq_registry_new();
	if (!tables->registry)
		luaL_error(L, "not enough memory");
	nq_store_register(L);
	nq_bucket_register(L);
	nq_cidrset_register(L);
	nq_domainset_register(L);
}

struct nq_tables *nq_tables_get(lua_State *L)
{
	struct nq_tables *tables;

	lua_rawgetp(L, LUA_REGISTRYINDEX, &tables_key);
	tables = lua_touserdata(L, -1);
	lua_pop(L, 1);
	return tables;
}

void nq_tables_attach(lua_State *L, struct nq_registry *registry, unsigned generation)
{
	struct nq_tables *tables = nq_tables_get(L);

	nq_registry_hold(registry);
	nq_registry_release(tables->registry);
	tables->registry = registry;
	tables->generation = generation;
}

int nq_tables_clock(lua_State *L)
{
	struct nq_tables *tables = nq_tables_get(L);

	if (lua_isnoneornil(L, 1)) {
		tables->clock = (struct nq_clock){.now = state_now, .context = nq_state_get(L)};
		return 0;
	}
	tables->manual = (int64_t)(nq_tables_number(L, 1, "tables_clock", "seconds", 0, 9e9) * 1e9);
	tables->clock = (struct nq_clock){.now = manual_now, .context = tables};
	return 0;
}

/* --- Handles --- */

struct nq_tables_handle *nq_tables_push(lua_State *L, const void *key)
{
	struct nq_tables_handle *handle = nq_class_push(L, key, sizeof(*handle), 0);

	handle->clock = &nq_tables_get(L)->clock;
	return handle;
}

int nq_tables_obtain(lua_State *L, struct nq_tables_handle *handle,
		     const struct nq_table_class *class, const char *name, const void *options)
{
	const struct nq_tables *tables = nq_tables_get(L);

	/* The state is at its end: only a finalizer comes here. */
	if (!tables->registry)
		return -ECANCELED;
	return nq_registry_get(tables->registry, class, name, tables->generation, options,
			       &handle->table);
}

int nq_tables_failure(lua_State *L, int error, const char *what, const char *name)
{
	if (error == -ENOSPC)
		lua_pushfstring(L, "cannot make %s '%s': there are %d tables with names", what,
				name, NQ_REGISTRY_MAX);
	else
		lua_pushfstring(L, "cannot make %s '%s': %s", what, name ? name : "",
				strerror(-error));
	return nq_push_failure(L, -error, lua_tostring(L, -1));
}

struct nq_tables_handle *nq_tables_check(lua_State *L, const char *method, const char *what)
{
	struct nq_tables_handle *handle = nq_class_check(L, method, what);

	/* At the end of a state, a finalizer may still hold it. */
	if (!handle->table)
		luaL_error(L, "%s is closed", what);
	return handle;
}

int nq_tables_tostring(lua_State *L, const char *what)
{
	const struct nq_tables_handle *handle = nq_class_check(L, "tostring", what);

	if (!handle->table)
		lua_pushfstring(L, "%s (closed)", what);
	else if (handle->table->name)
		lua_pushfstring(L, "%s '%s'", what, handle->table->name);
	else
		lua_pushstring(L, what);
	return 1;
}

int nq_tables_gc(lua_State *L, const char *what)
{
	struct nq_tables_handle *handle = nq_class_check(L, "gc", what);

	nq_table_release(handle->table);
	handle->table = NULL;
	return 0;
}

struct nq_guard *nq_guard_push(lua_State *L, void (*free)(void *object))
{
	struct nq_guard *guard = nq_class_push(L, &guard_key, sizeof(*guard), 0);

	guard->free = free;
	return guard;
}

void nq_guard_free(struct nq_guard *guard)
{
	if (guard->object)
		guard->free(guard->object);
	guard->object = NULL;
}

/* --- Arguments and results --- */

const char *nq_tables_name(lua_State *L, int index, const char *function)
{
	size_t length;
	const char *name = nq_arg_string(L, index, function, "name", &length);

	if (length < 1 || length > 255 || strlen(name) != length)
		nq_arg_error(L, index, function, "name", "string of 1 to 255 bytes without a zero");
	return name;
}

double nq_tables_number(lua_State *L, int index, const char *function, const char *name,
			double least, double most)
{
	double value = 0;

	if (lua_type(L, index) == LUA_TNUMBER)
		value = lua_tonumber(L, index);
	if (lua_type(L, index) != LUA_TNUMBER || !(value >= least && value <= most)) {
		char expected[80];

		snprintf(expected, sizeof(expected), "number from %.14g to %.14g", least, most);
		nq_arg_error(L, index, function, name, expected);
	}
	return value;
}

int64_t nq_tables_seconds(lua_State *L, int index, const char *function, const char *name)
{
	double seconds;

	if (lua_isnoneornil(L, index))
		return 0;
	/* A nanosecond to thirty years. */
	seconds = nq_tables_number(L, index, function, name, 1e-9, 1e9);
	return (int64_t)ceil(seconds * 1e9);
}

void nq_tables_value(lua_State *L, int index, const char *function, const char *name,
		     struct nq_value *value)
{
	switch (lua_type(L, index)) {
	case LUA_TBOOLEAN:
		value->kind = lua_toboolean(L, index) ? NQ_VALUE_TRUE : NQ_VALUE_FALSE;
		break;
	case LUA_TNUMBER:
		if (lua_isinteger(L, index)) {
			value->kind = NQ_VALUE_INTEGER;
			value->integer = lua_tointeger(L, index);
		} else {
			value->kind = NQ_VALUE_FLOAT;
			value->real = lua_tonumber(L, index);
		}
		break;
	case LUA_TSTRING:
		value->kind = NQ_VALUE_STRING;
		value->string.bytes = lua_tolstring(L, index, &value->string.length);
		break;
	default:
		nq_arg_error(L, index, function, name, "string, number or boolean");
	}
}

void nq_tables_push_value(lua_State *L, const struct nq_value *value)
{
	switch (value->kind) {
	case NQ_VALUE_FALSE:
	case NQ_VALUE_TRUE:
		lua_pushboolean(L, value->kind == NQ_VALUE_TRUE);
		break;
	case NQ_VALUE_INTEGER:
		lua_pushinteger(L, value->integer);
		break;
	case NQ_VALUE_FLOAT:
		lua_pushnumber(L, value->real);
		break;
	case NQ_VALUE_STRING:
		lua_pushlstring(L, value->string.bytes, value->string.length);
	}
}

/* Pushes "a, b, c". */
static void push_list(lua_State *L, const char *const *names)
{
	lua_pushstring(L, *names);
	while (*++names) {
		lua_pushfstring(L, ", %s", *names);
		lua_concat(L, 2);
	}
}

void nq_tables_known(lua_State *L, int index, const char *function, const char *const *known)
{
	index = lua_absindex(L, index);
	lua_pushnil(L);
	while (lua_next(L, index)) {
		const char *const *name = known;

		while (*name &&
		       (lua_type(L, -2) != LUA_TSTRING || strcmp(*name, lua_tostring(L, -2)) != 0))
			name++;
		if (!*name) {
			luaL_tolstring(L, -2, NULL);
			push_list(L, known);
			luaL_error(L, "unknown key '%s' to '%s' (known: %s)", lua_tostring(L, -2),
				   function, lua_tostring(L, -1));
		}
		lua_pop(L, 1);
	}
}
