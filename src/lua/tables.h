/*
 * tables.h - what the classes of tables share: the registry and the clock of a Lua state, handles,
 * values.
 *
 * All of these may raise, unless it says so.
 */
#ifndef NQ_LUA_TABLES_H
#define NQ_LUA_TABLES_H

#include <lauxlib.h>
#include <lua.h>

#include "lua/class.h"
#include "table/clock.h"
#include "table/registry.h"
#include "table/value.h"

/* Of one Lua state; lives as long as it. */
struct nq_tables {
	struct nq_registry *registry;
	unsigned generation; /* of the state's script: see nq_registry_get */
	struct nq_clock clock;
	int64_t manual; /* nanoseconds, where the clock is moved by hand */
};

/* Called once a state: a registry of its own, the state's clock, and the classes. */
void nq_tables_register(lua_State *L);
struct nq_tables *nq_tables_get(lua_State *L);

/* The state shares the registry (it takes a reference) from now on. Before its script runs. */
void nq_tables_attach(lua_State *L, struct nq_registry *registry, unsigned generation);

/* tables_clock([seconds]): this state's tables go by a clock that stands there; nil: the
 * state's: the system's monotonic one, or that of the loaded handler that is entered. */
int nq_tables_clock(lua_State *L);

/* --- Handles of tables: userdata of such classes --- */

struct nq_tables_handle {
	struct nq_table *table; /* NULL: not yet, or collected */
	const struct nq_clock *clock;
};

/* Pushes a handle without a table. */
struct nq_tables_handle *nq_tables_push(lua_State *L, const void *key);

/* Gives it one: what nq_registry_get returns. Does not raise. */
int nq_tables_obtain(lua_State *L, struct nq_tables_handle *handle,
		     const struct nq_table_class *class, const char *name, const void *options);

/* Pushes nil, message, errno for what it returned. */
int nq_tables_failure(lua_State *L, int error, const char *what, const char *name);

/* The handle at 1, with its table: one that the collector has closed raises. */
struct nq_tables_handle *nq_tables_check(lua_State *L, const char *method, const char *what);

int nq_tables_tostring(lua_State *L, const char *what);
int nq_tables_gc(lua_State *L, const char *what);

/* --- Arguments and results --- */

/* A name: 1 to 255 bytes, none of them zero. */
const char *nq_tables_name(lua_State *L, int index, const char *function);

/* A number of seconds above 0, nothing: 0; in nanoseconds. */
int64_t nq_tables_seconds(lua_State *L, int index, const char *function, const char *name);

/* A number from `least` to `most`, not NaN. */
double nq_tables_number(lua_State *L, int index, const char *function, const char *name,
			double least, double most);

/* A string lives as long as the one at `index`. */
void nq_tables_value(lua_State *L, int index, const char *function, const char *name,
		     struct nq_value *value);
void nq_tables_push_value(lua_State *L, const struct nq_value *value);

/* Raises for a key of the table at `index` that is none of `known`, up to a NULL. */
void nq_tables_known(lua_State *L, int index, const char *function, const char *const *known);

/* Something to be freed, should what follows raise: the object is put into a userdata, left on the
 * stack. */
struct nq_guard {
	void *object;
	void (*free)(void *object);
};

struct nq_guard *nq_guard_push(lua_State *L, void (*free)(void *object));

/* Frees what it guards, now. Does not raise. */
void nq_guard_free(struct nq_guard *guard);

/* --- The classes --- */

void nq_store_register(lua_State *L);
void nq_bucket_register(lua_State *L);
void nq_cidrset_register(lua_State *L);
void nq_domainset_register(lua_State *L);

/* shared(name, options), bucket(name, options), cidrset(entries), domainset(entries) */
int nq_store_open(lua_State *L);
int nq_bucket_open(lua_State *L);
int nq_cidrset_open(lua_State *L);
int nq_domainset_open(lua_State *L);

#endif
