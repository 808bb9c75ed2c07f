/*
 * sets.h - what the userdata of address and name sets share.
 */
#ifndef NQ_LUA_SETS_H
#define NQ_LUA_SETS_H

#include "lua/tables.h"
#include "table/set.h"

struct nq_sets_handle {
	struct nq_tables_handle handle;
	/* Not in the userdata: the set refers to it, and where there is no memory to call a
	 * finalizer, Lua gives up on it. NULL: collected. */
	struct nq_set_reader *reader;
};

static inline struct nq_set *nq_sets_set(struct nq_sets_handle *handle)
{
	return (struct nq_set *)handle->handle.table;
}

/*
 * Pushes a handle of the set with this name (NULL: none) that is made with guard->object, a
 * content, and raises when there is one made with another; returns what is to be returned to Lua.
 * `fingerprint`: see nq_set_options.
 */
int nq_sets_open(lua_State *L, const void *key, const struct nq_table_class *class,
		 const struct nq_set_kind *kind, const char *name, struct nq_guard *content,
		 uint64_t fingerprint);

struct nq_sets_handle *nq_sets_check(lua_State *L, const char *method, const char *what);
int nq_sets_load(lua_State *L, const char *what);
int nq_sets_len(lua_State *L, const char *what);
int nq_sets_gc(lua_State *L, const char *what);

/* The field `name` of the table at 1, NULL without one; it lives as long as the table has it. */
const char *nq_sets_name(lua_State *L, const char *function);

#endif
