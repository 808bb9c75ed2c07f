#include <errno.h>
#include <string.h>

#include "lua/args.h"
#include "lua/sets.h"
#include "table/domain.h"

#define WHAT "domainset"

static const char metatable_key;

/***
Whether the set has a name, or one that it is below: `example.com` in the set stands for
`www.example.com`, too.
@function domainset:has
@tparam string name any bytes; the case of ASCII letters and a dot at the end do not matter
@treturn boolean
@raise for anything but a string
*/
static int domainset_has(lua_State *L)
{
	struct nq_sets_handle *handle = nq_sets_check(L, "has", WHAT);
	struct nq_set *set = nq_sets_set(handle);
	size_t length;
	const char *name = nq_arg_string(L, 2, "has", "name", &length);
	bool has = nq_domain_has(nq_set_pin(set, handle->reader), name, length);

	nq_set_unpin(handle->reader);
	lua_pushboolean(L, has);
	return 1;
}

/***
Replace what is in the set by what is in files. A line is empty, or one name, or as in a hosts file
an address and names, of which `localhost` and the like are passed over. `*.example.com` stands only
for what is below. `#` begins a comment. Other threads search the old content until the new one is
complete. Files that did not change since this set was last read from them are not read again.
@function domainset:load
@tparam string path of a file
@tparam[opt] string ... more of them
@treturn integer the number of names; or nil, message, errno, and the set is as it was. The message
names file and line of a wrong one (errno is EINVAL)
@raise for a path that is no string
*/
static int domainset_load(lua_State *L)
{
	return nq_sets_load(L, WHAT);
}

static int domainset_len(lua_State *L)
{
	return nq_sets_len(L, WHAT);
}

static int domainset_tostring(lua_State *L)
{
	return nq_tables_tostring(L, WHAT);
}

static int domainset_gc(lua_State *L)
{
	return nq_sets_gc(L, WHAT);
}

void nq_domainset_register(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{"has", domainset_has},
		{"load", domainset_load},
		{NULL, NULL},
	};
	static const luaL_Reg metamethods[] = {
		{"__len", domainset_len},
		{"__tostring", domainset_tostring},
		{"__gc", domainset_gc},
		{NULL, NULL},
	};

	nq_class_make(L, &metatable_key, "nfqueue.domainset", WHAT, methods, metamethods);
}

/* One pair of the table: key at -2, value at -1. */
static void add_pair(lua_State *L, struct nq_domain_builder *builder)
{
	const char *problem = NULL;
	size_t length;
	const char *name;
	int error;

	if (!lua_isinteger(L, -2))
		luaL_error(L, "unknown key '%s' to 'domainset' (names are a list, beside 'name')",
			   luaL_tolstring(L, -2, NULL));
	name = nq_arg_string(L, -1, "domainset", "names", &length);
	error = nq_domain_add(builder, name, length, &problem);
	if (error == -EINVAL)
		luaL_error(L, "bad argument 'names' to 'domainset' ('%s' %s)", name, problem);
	if (error)
		luaL_error(L, "cannot make domainset: %s", strerror(-error));
}

static void free_builder(void *builder)
{
	nq_domain_builder_free(builder);
}

static void free_content(void *content)
{
	nq_domain_free(content);
}

/***
A set of domain names, each of which stands for itself and all below it (`*.example.com`: only for
those), searched in C. With a `name` it is in memory once for all queues: whoever asks first makes
it, later ones get it as it is by then, and give the same names or none.
@function domainset
@tparam[opt] table names a list; beside it `name` (1 to 255 bytes)
@treturn domainset or nil, message, errno
@raise for what is no domain name, and for a `name` that stands for a set made with other names
@usage local ads = nfqueue.domainset{ "ads.example", "*.tracker.example", name = "ads" }
*/
int nq_domainset_open(lua_State *L)
{
	struct nq_guard *builder, *content;
	const char *name = NULL;
	bool is_empty = true;

	lua_settop(L, 1);
	if (!lua_isnil(L, 1)) {
		nq_arg_table(L, 1, "domainset", "names");
		name = nq_sets_name(L, "domainset");
	}
	builder = nq_guard_push(L, free_builder);
	content = nq_guard_push(L, free_content);
	builder->object = nq_domain_builder_new();
	if (!builder->object)
		return luaL_error(L, "not enough memory");
	lua_pushnil(L);
	while (lua_istable(L, 1) && lua_next(L, 1)) {
		if (lua_type(L, -2) != LUA_TSTRING || strcmp(lua_tostring(L, -2), "name") != 0) {
			add_pair(L, builder->object);
			is_empty = false;
		}
		lua_pop(L, 1);
	}
	content->object = nq_domain_build(builder->object);
	if (!content->object)
		return luaL_error(L, "not enough memory");
	nq_guard_free(builder);
	return nq_sets_open(L, &metatable_key, &nq_domainset_class, &nq_domain_kind, name, content,
			    is_empty ? 0 : nq_domain_fingerprint(content->object));
}
