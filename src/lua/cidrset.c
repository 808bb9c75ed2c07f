#include <errno.h>
#include <string.h>

#include "lua/args.h"
#include "lua/sets.h"
#include "table/cidr.h"

#define WHAT "cidrset"

static const char metatable_key;

/* Pushes the value found, nil for none. */
static int push_found(lua_State *L, struct nq_sets_handle *handle, const struct nq_address *address)
{
	struct nq_set *set = nq_sets_set(handle);
	char text[NQ_CIDR_VALUE_MAX];
	struct nq_value value;
	bool found;

	found = nq_cidr_find(nq_set_pin(set, handle->reader), address, &value);
	if (found && value.kind == NQ_VALUE_STRING) {
		/* Pushing may unwind, which a pin must not see. */
		memcpy(text, value.string.bytes, value.string.length);
		value.string.bytes = text;
	}
	nq_set_unpin(handle->reader);
	if (found)
		nq_tables_push_value(L, &value);
	else
		lua_pushnil(L);
	return 1;
}

/***
Find the longest prefix that holds an address.
@function cidrset:find
@tparam string address IPv4 or IPv6, as text
@treturn string|number|boolean|nil the prefix's value (true where none was given); nil when no
prefix holds it
@raise for anything but an address
@usage if blocked:find(pkt.ip.src) then return pkt:drop() end
*/
static int cidrset_find(lua_State *L)
{
	struct nq_sets_handle *handle = nq_sets_check(L, "find", WHAT);
	struct nq_address address;
	size_t length = 0;
	const char *text = lua_type(L, 2) == LUA_TSTRING ? lua_tolstring(L, 2, &length) : NULL;

	if (!text || !nq_address_parse(text, length, &address))
		return nq_arg_error(L, 2, "find", "address", "IPv4 or IPv6 address");
	return push_found(L, handle, &address);
}

/***
The same for an address in its raw form, as `pkt.ip.src_bytes` has it.
@function cidrset:find_bytes
@tparam string address 4 or 16 bytes
@treturn string|number|boolean|nil as `find`
@raise for a string of another length
*/
static int cidrset_find_bytes(lua_State *L)
{
	struct nq_sets_handle *handle = nq_sets_check(L, "find_bytes", WHAT);
	struct nq_address address;
	size_t length = 0;
	const char *bytes = lua_type(L, 2) == LUA_TSTRING ? lua_tolstring(L, 2, &length) : NULL;

	if (!bytes || !nq_address_read((const uint8_t *)bytes, length, &address))
		return nq_arg_error(L, 2, "find_bytes", "address", "string of 4 or 16 bytes");
	return push_found(L, handle, &address);
}

/***
Replace what is in the set by what is in files. A line is empty, or a prefix (`192.0.2.0/24`,
`2001:db8::1`) and, after blanks, its value: a string of at most 255 bytes, true where there is
none. A word that begins with `#` or `;` begins a comment. Of a prefix that comes twice the last
value counts. Other threads search the old content until the new one is complete. Files that did not
change since this set was last read from them are not read again.
@function cidrset:load
@tparam string path of a file
@tparam[opt] string ... more of them
@treturn integer the number of prefixes; or nil, message, errno, and the set is as it was. The
message names file and line of a wrong one (errno is EINVAL)
@raise for a path that is no string
*/
static int cidrset_load(lua_State *L)
{
	return nq_sets_load(L, WHAT);
}

static int cidrset_len(lua_State *L)
{
	return nq_sets_len(L, WHAT);
}

static int cidrset_tostring(lua_State *L)
{
	return nq_tables_tostring(L, WHAT);
}

static int cidrset_gc(lua_State *L)
{
	return nq_sets_gc(L, WHAT);
}

void nq_cidrset_register(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{"find", cidrset_find},
		{"find_bytes", cidrset_find_bytes},
		{"load", cidrset_load},
		{NULL, NULL},
	};
	static const luaL_Reg metamethods[] = {
		{"__len", cidrset_len},
		{"__tostring", cidrset_tostring},
		{"__gc", cidrset_gc},
		{NULL, NULL},
	};

	nq_class_make(L, &metatable_key, "nfqueue.cidrset", WHAT, methods, metamethods);
}

static int refuse_prefix(lua_State *L, const char *text, const char *problem)
{
	return luaL_error(L, "bad argument 'entries' to 'cidrset' ('%s' %s)", text, problem);
}

/* The prefix at -1, a string that stays where it is. */
static void read_prefix(lua_State *L, struct nq_prefix *prefix)
{
	size_t length;
	const char *text = nq_arg_string(L, -1, "cidrset", "entries", &length);
	char right[NQ_PREFIX_TEXT];

	switch (nq_prefix_parse(text, length, prefix)) {
	case NQ_PREFIX_NO_ADDRESS:
		refuse_prefix(L, text, "is no IPv4 or IPv6 address or prefix");
		break;
	case NQ_PREFIX_BAD_LENGTH:
		refuse_prefix(L, text,
			      prefix->address.bits == 32
				      ? "has a prefix length that is not from 0 to 32"
				      : "has a prefix length that is not from 0 to 128");
		break;
	case NQ_PREFIX_SURPLUS_BITS:
		nq_prefix_print(prefix, right);
		lua_pushfstring(L, "has bits set behind its prefix length (%s?)", right);
		refuse_prefix(L, text, lua_tostring(L, -1));
		break;
	case NQ_PREFIX_OK:
		break;
	}
}

static bool is_name(lua_State *L, int index)
{
	return lua_type(L, index) == LUA_TSTRING && strcmp(lua_tostring(L, index), "name") == 0;
}

/* One pair of the table: key at -2, value at -1. */
static void add_pair(lua_State *L, struct nq_cidr_builder *builder)
{
	struct nq_value value = {.kind = NQ_VALUE_TRUE};
	struct nq_prefix prefix;
	int error;

	if (lua_isinteger(L, -2)) {
		read_prefix(L, &prefix);
	} else {
		nq_tables_value(L, -1, "cidrset", "entries", &value);
		if (value.kind == NQ_VALUE_STRING && value.string.length > NQ_CIDR_VALUE_MAX)
			nq_arg_error(L, -1, "cidrset", "entries", "string of at most 255 bytes");
		lua_pushvalue(L, -2);
		read_prefix(L, &prefix);
		lua_pop(L, 1);
	}
	error = nq_cidr_add(builder, &prefix, &value);
	if (error)
		luaL_error(L, "cannot make cidrset: %s", strerror(-error));
}

static void free_builder(void *builder)
{
	nq_cidr_builder_free(builder);
}

static void free_content(void *content)
{
	nq_cidr_free(content);
}

/***
A set of address prefixes with values, searched in C. With a `name` it is in memory once for all
queues: whoever asks first makes it, later ones get it as it is by then, and give the same entries
or none.
@function cidrset
@tparam[opt] table entries prefixes as a list, or as keys with their value (a string of at most 255
bytes, a number, a boolean), or both; `name` (1 to 255 bytes)
@treturn cidrset or nil, message, errno
@raise for an entry that is no prefix or has bits set behind its length, for one given twice with
different values, and for a name that stands for a set made with other entries
@usage local nets = nfqueue.cidrset{ "192.0.2.0/24", ["10.0.0.0/8"] = "office", ["10.9.0.0/16"] =
"guests" }
*/
int nq_cidrset_open(lua_State *L)
{
	struct nq_guard *builder, *content;
	const char *name = NULL;
	struct nq_prefix twice;
	bool is_empty = true;

	lua_settop(L, 1);
	if (!lua_isnil(L, 1)) {
		nq_arg_table(L, 1, "cidrset", "entries");
		name = nq_sets_name(L, "cidrset");
	}
	builder = nq_guard_push(L, free_builder);
	content = nq_guard_push(L, free_content);
	builder->object = nq_cidr_builder_new();
	if (!builder->object)
		return luaL_error(L, "not enough memory");
	lua_pushnil(L);
	while (lua_istable(L, 1) && lua_next(L, 1)) {
		if (!is_name(L, -2)) {
			add_pair(L, builder->object);
			is_empty = false;
		}
		lua_pop(L, 1);
	}
	content->object = nq_cidr_build(builder->object);
	if (!content->object)
		return luaL_error(L, "not enough memory");
	if (nq_cidr_conflict(builder->object, &twice)) {
		char text[NQ_PREFIX_TEXT];

		nq_prefix_print(&twice, text);
		return refuse_prefix(L, text, "is given twice, with different values");
	}
	nq_guard_free(builder);
	return nq_sets_open(L, &metatable_key, &nq_cidrset_class, &nq_cidr_kind, name, content,
			    is_empty ? 0 : nq_cidr_fingerprint(content->object));
}
