#include "lua/names.h"

#include <ctype.h>
#include <lauxlib.h>
#include <string.h>

/* Longer ones are no slips of names, which are shorter. */
enum { NEAR_LENGTH = 20 };

struct nq_names *nq_names_new(lua_State *L, const char *const *list)
{
	struct nq_names *names = lua_newuserdatauv(L, sizeof(*names), 1);

	memset(names, 0, sizeof(*names));
	lua_newtable(L); /* the anchor */
	for (unsigned char i = 0; list[i]; i++) {
		const char *key = lua_pushstring(L, list[i]);
		size_t at = ((size_t)key >> 4 ^ (size_t)key >> 12) % NQ_NAMES_SIZE;

		while (names->keys[at])
			at = (at + 1) % NQ_NAMES_SIZE;
		names->keys[at] = key;
		names->codes[at] = (unsigned char)(i + 1);
		lua_rawseti(L, -2, i + 1);
	}
	lua_setiuservalue(L, -2, 1);
	return names;
}

static unsigned least(unsigned one, unsigned other)
{
	return one < other ? one : other;
}

/* Letters to be left out, added, replaced or swapped with the next; case does not matter. */
static unsigned distance(const char *one, size_t one_length, const char *other, size_t other_length)
{
	unsigned rows[NEAR_LENGTH + 1][NEAR_LENGTH + 1];

	for (size_t i = 0; i <= one_length; i++)
		rows[i][0] = (unsigned)i;
	for (size_t k = 0; k <= other_length; k++)
		rows[0][k] = (unsigned)k;
	for (size_t i = 1; i <= one_length; i++) {
		for (size_t k = 1; k <= other_length; k++) {
			int a = tolower((unsigned char)one[i - 1]);
			int b = tolower((unsigned char)other[k - 1]);

			rows[i][k] = least(rows[i - 1][k - 1] + (a != b),
					   least(rows[i - 1][k], rows[i][k - 1]) + 1);
			if (i > 1 && k > 1 && a == tolower((unsigned char)other[k - 2]) &&
			    b == tolower((unsigned char)one[i - 2]))
				rows[i][k] = least(rows[i][k], rows[i - 2][k - 2] + 1);
		}
	}
	return rows[one_length][other_length];
}

static const char *find_near(const char *const *list, const char *text, size_t length)
{
	unsigned most = length < 3 ? 0 : length < 5 ? 1 : 2;
	const char *nearest = NULL;

	if (length == 0 || length > NEAR_LENGTH)
		return NULL;
	for (; *list; list++) {
		unsigned here = strlen(*list) > NEAR_LENGTH
					? most + 1
					: distance(text, length, *list, strlen(*list));

		if (here < most || (here == most && !nearest)) {
			nearest = *list;
			most = here;
		}
	}
	return nearest;
}

bool nq_names_has(const char *const *list, const char *name)
{
	while (*list && strcmp(*list, name) != 0)
		list++;
	return *list != NULL;
}

int nq_names_refuse(lua_State *L, int index, const char *what, const char *const *list,
		    const char *where)
{
	bool is_string = lua_type(L, index) == LUA_TSTRING;
	size_t length;
	const char *text = luaL_tolstring(L, index, &length);
	const char *near = is_string && !where ? find_near(list, text, length) : NULL;

	if (where)
		return luaL_error(L, "%s has no field '%s' (did you mean %s?)", what, text, where);
	if (near)
		return luaL_error(L, "%s has no field '%s' (did you mean '%s'?)", what, text, near);
	return luaL_error(L, "%s has no field '%s'", what, text);
}
