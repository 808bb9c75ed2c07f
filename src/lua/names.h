/*
 * names.h - from a key of an index to a small number, without hashing the string.
 *
 * Lua keeps one copy of every short string, so a name is known by its address. The names are
 * anchored in the registry for the life of the state.
 */
#ifndef NQ_NAMES_H
#define NQ_NAMES_H

#include <lua.h>
#include <stdbool.h>

enum { NQ_NAMES_SIZE = 256 };

struct nq_names {
	const char *keys[NQ_NAMES_SIZE];
	unsigned char codes[NQ_NAMES_SIZE];
};

/*
 * Pushes a userdata with a struct nq_names that maps list[i] (short strings, fewer than half of
 * NQ_NAMES_SIZE, up to a NULL) to i + 1. Keep it alive while it is used. May raise for want of
 * memory.
 */
struct nq_names *nq_names_new(lua_State *L, const char *const *list);

/* The code of the value at `index`, 0 when it is no string or none of the names. */
static inline unsigned nq_names_find(const struct nq_names *names, lua_State *L, int index)
{
	const char *key;
	size_t at;

	if (lua_type(L, index) != LUA_TSTRING)
		return 0;
	key = lua_tostring(L, index);
	at = ((size_t)key >> 4 ^ (size_t)key >> 12) % NQ_NAMES_SIZE;
	while (names->keys[at]) {
		if (names->keys[at] == key)
			return names->codes[at];
		at = (at + 1) % NQ_NAMES_SIZE;
	}
	return 0;
}

/* Raises "`what` has no field 'x'" for the key at `index`, with the name of the list that is
 * nearest, and `where` (NULL: nothing) such a field is. */
int nq_names_refuse(lua_State *L, int index, const char *what, const char *const *list,
		    const char *where);

/* Whether the list has the name. */
bool nq_names_has(const char *const *list, const char *name);

#endif
