#include "lua/names.h"

#include <string.h>

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
