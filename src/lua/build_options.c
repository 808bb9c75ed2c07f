/* The parts of nfqueue.build that have a length of their own: options; and how keys are named. */
#include <lauxlib.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "lua/args.h"
#include "lua/build.h"
#include "packet/bytes.h"

static const char function[] = "build";

enum { PATH_SIZE = NQ_BUILD_PATH };
enum { OPTION_MSS = 2, OPTION_SCALE = 3, OPTION_SACK_PERMITTED = 4, OPTION_SACK = 5 };
enum { OPTION_TIMESTAMPS = 8 };

/* Options as they are collected: kind, length, value. */
struct options {
	const char *path;
	uint8_t *bytes;
	size_t length, room;
	bool counts_header; /* whether an option's length includes its kind and length bytes */
};

int nq_build_find(lua_State *L, int index, const char *const *list)
{
	if (lua_type(L, index) != LUA_TSTRING)
		return -1;
	for (int i = 0; list[i]; i++) {
		if (strcmp(list[i], lua_tostring(L, index)) == 0)
			return i;
	}
	return -1;
}

const char *nq_build_text(lua_State *L)
{
	const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";

	return strlen(text) == lua_rawlen(L, -1) ? text : "";
}

void nq_build_path(char path[NQ_BUILD_PATH], const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(path, NQ_BUILD_PATH, format, arguments);
	va_end(arguments);
}

int nq_build_refuse(lua_State *L, const char *path, const char *reason)
{
	return luaL_error(L, "bad argument '%s' to 'build' (%s)", path, reason);
}

int nq_build_unknown(lua_State *L, int index, const char *path)
{
	const char *key = luaL_tolstring(L, index, NULL);

	return luaL_error(L, "unknown key '%s%s%s' to 'build'", path, *path ? "." : "", key);
}

int nq_build_too_long(lua_State *L, const char *path, size_t room)
{
	return luaL_error(L,
			  "bad argument '%s' to 'build' (longer than the %d bytes there is room "
			  "for)",
			  path, (int)room);
}

static void add_option(lua_State *L, struct options *options, uint8_t kind, const void *value,
		       size_t length)
{
	size_t left = options->room - options->length;
	uint8_t *at = options->bytes + options->length;

	if (left < 2 || length > left - 2)
		nq_build_too_long(L, options->path, options->room);
	at[0] = kind;
	at[1] = (uint8_t)(length + (options->counts_header ? 2 : 0));
	memcpy(at + 2, value, length);
	options->length += 2 + length;
}

/* The integer list[position] of the table at the top, 32 bits. */
static uint32_t read_u32(lua_State *L, const char *path, int position)
{
	char name[PATH_SIZE];
	uint32_t value;

	nq_build_path(name, "%s[%d]", path, position);
	lua_rawgeti(L, -1, position);
	value = (uint32_t)nq_arg_integer(L, -1, function, name, 0, 0xffffffff);
	lua_pop(L, 1);
	return value;
}

void nq_build_expect_list(lua_State *L, const char *path, const char *expected, lua_Unsigned least,
			  lua_Unsigned most)
{
	if (lua_type(L, -1) != LUA_TTABLE || lua_rawlen(L, -1) < least || lua_rawlen(L, -1) > most)
		nq_arg_error(L, -1, function, path, expected);
}

/* RFC 2018: { { left, right }, ... } */
static void add_sack(lua_State *L, struct options *options, const char *path)
{
	uint8_t bytes[32];
	int count;

	nq_build_expect_list(L, path, "list of 1 to 4 blocks { left, right }", 1, 4);
	count = (int)lua_rawlen(L, -1);
	for (int i = 0; i < count; i++) {
		char name[PATH_SIZE];

		nq_build_path(name, "%s[%d]", path, i + 1);
		lua_rawgeti(L, -1, i + 1);
		nq_build_expect_list(L, name, "block { left, right }", 2, 2);
		nq_put_u32(bytes + 8 * i, read_u32(L, name, 1));
		nq_put_u32(bytes + 8 * i + 4, read_u32(L, name, 2));
		lua_pop(L, 1);
	}
	add_option(L, options, OPTION_SACK, bytes, (size_t)(8 * count));
}

/* The value at the top of the stack as the option of that name. */
static void add_named(lua_State *L, struct options *options, uint8_t kind, const char *name)
{
	char path[PATH_SIZE];
	uint8_t bytes[8];

	nq_build_path(path, "%s.%s", options->path, name);
	switch (kind) {
	case OPTION_MSS: /* RFC 9293 section 3.2 */
		nq_put_u16(bytes, (uint32_t)nq_arg_integer(L, -1, function, path, 0, 65535));
		add_option(L, options, kind, bytes, 2);
		break;
	case OPTION_SCALE: /* RFC 7323 section 2.2 */
		bytes[0] = (uint8_t)nq_arg_integer(L, -1, function, path, 0, 255);
		add_option(L, options, kind, bytes, 1);
		break;
	case OPTION_SACK_PERMITTED: /* RFC 2018 section 2 */
		if (nq_arg_boolean(L, -1, function, path))
			add_option(L, options, kind, bytes, 0);
		break;
	case OPTION_SACK:
		add_sack(L, options, path);
		break;
	default: /* timestamps, RFC 7323 section 3.2 */
		nq_build_expect_list(L, path, "list { value, echo }", 2, 2);
		nq_put_u32(bytes, read_u32(L, path, 1));
		nq_put_u32(bytes + 4, read_u32(L, path, 2));
		add_option(L, options, OPTION_TIMESTAMPS, bytes, 8);
	}
}

static const char *const tcp_names[256] = {
	[OPTION_MSS] = "mss",
	[OPTION_SCALE] = "window_scale",
	[OPTION_SACK_PERMITTED] = "sack_permitted",
	[OPTION_SACK] = "sack",
	[OPTION_TIMESTAMPS] = "timestamps",
};

/* The kind that the key at `index` names, by number or by name; raises for other keys. */
static uint8_t option_kind(lua_State *L, int index, const char *path, const char *const *names)
{
	lua_Integer number;
	int is_integer = 0;

	if (lua_type(L, index) == LUA_TSTRING && names) {
		for (int kind = 2; kind < 256; kind++) {
			if (names[kind] && strcmp(names[kind], lua_tostring(L, index)) == 0)
				return (uint8_t)kind;
		}
	}
	if (lua_type(L, index) != LUA_TNUMBER)
		nq_build_unknown(L, index, path);
	number = lua_tointegerx(L, index, &is_integer);
	if (!is_integer || number < 2 || number > 255) /* 0 and 1 are padding */
		nq_build_unknown(L, index, path);
	return (uint8_t)number;
}

/* The table at the top: values by kind, in ascending order of kinds. */
static void read_table(lua_State *L, struct options *options, const char *const *names)
{
	enum { ABSENT, NUMBERED, NAMED } given[256] = {ABSENT};

	lua_pushnil(L);
	while (lua_next(L, -2)) {
		uint8_t kind = option_kind(L, -2, options->path, names);

		if (given[kind])
			luaL_error(L,
				   "bad argument '%s' to 'build' (option %d is there twice, by "
				   "name and by number)",
				   options->path, kind);
		given[kind] = lua_type(L, -2) == LUA_TSTRING ? NAMED : NUMBERED;
		lua_pop(L, 1);
	}
	for (int kind = 2; kind < 256; kind++) {
		char path[PATH_SIZE];
		const char *value;
		size_t length;

		if (!given[kind])
			continue;
		if (given[kind] == NAMED) {
			lua_pushstring(L, names[kind]);
			lua_rawget(L, -2);
			add_named(L, options, (uint8_t)kind, names[kind]);
		} else {
			nq_build_path(path, "%s[%d]", options->path, kind);
			lua_rawgeti(L, -1, kind);
			value = nq_arg_string(L, -1, function, path, &length);
			if (length > 255)
				nq_build_too_long(L, path, 255);
			add_option(L, options, (uint8_t)kind, value, length);
		}
		lua_pop(L, 1);
	}
}

static void read_any(lua_State *L, struct options *options, const char *const *names)
{
	if (lua_type(L, -1) == LUA_TSTRING) {
		const char *text = lua_tolstring(L, -1, &options->length);

		if (options->length > options->room)
			nq_build_too_long(L, options->path, options->room);
		memcpy(options->bytes, text, options->length);
	} else if (lua_type(L, -1) == LUA_TTABLE) {
		read_table(L, options, names);
	} else {
		nq_arg_error(L, -1, function, options->path, "string, or table by kind,");
	}
}

uint8_t nq_build_read_options(lua_State *L, const char *path, bool is_tcp,
			      uint8_t bytes[NQ_BUILD_OPTIONS])
{
	struct options options = {
		.path = path, .bytes = bytes, .room = NQ_BUILD_OPTIONS, .counts_header = true};

	read_any(L, &options, is_tcp ? tcp_names : NULL);
	return (uint8_t)options.length;
}

size_t nq_build_read_options6(lua_State *L, const char *path, uint8_t bytes[NQ_BUILD_OPTIONS6])
{
	struct options options = {.path = path, .bytes = bytes, .room = NQ_BUILD_OPTIONS6};

	read_any(L, &options, NULL);
	return options.length;
}

uint8_t nq_build_add_mss(lua_State *L, uint8_t options[NQ_BUILD_OPTIONS], uint8_t length,
			 uint16_t mss)
{
	if (length > NQ_BUILD_OPTIONS - 4)
		nq_build_too_long(L, "tcp.options", NQ_BUILD_OPTIONS - 4);
	memmove(options + 4, options, length);
	options[0] = OPTION_MSS;
	options[1] = 4;
	nq_put_u16(options + 2, mss);
	return (uint8_t)(length + 4);
}
