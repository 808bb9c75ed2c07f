#include <ctype.h>
#include <lauxlib.h>
#include <string.h>

#include "lua/pattern.h"
#include "lua/sandbox_parts.h"

/* Where a search begins: 1 is the first byte, -1 the last one; what lies before the first is it. */
static size_t first_byte(lua_Integer init, size_t length)
{
	if (init > 0)
		return (size_t)init;
	if (init == 0 || init < -(lua_Integer)length)
		return 1;
	return length + (size_t)init + 1;
}

static void begin(struct nq_pattern_match *match, const char *subject, size_t length,
		  const char *pattern, size_t pattern_length)
{
	match->subject = subject;
	match->subject_end = subject + length;
	match->pattern_end = pattern + pattern_length;
	match->steps = nq_pattern_budget(length, pattern_length);
}

static const char *try_at(lua_State *L, struct nq_pattern_match *match, const char *at,
			  const char *pattern)
{
	const char *end = nq_pattern_at(match, at, pattern);

	if (match->error)
		luaL_error(L, "%s", match->error);
	return end;
}

/* Pushes a capture; the whole match, from `at` to `end`, where the pattern has none at all. */
static void push_capture(lua_State *L, const struct nq_pattern_match *match, unsigned index,
			 const char *at, const char *end)
{
	if (index >= match->count) {
		if (index != 0)
			luaL_error(L, "invalid capture index %%%d", (int)index + 1);
		lua_pushlstring(L, at, (size_t)(end - at));
		return;
	}
	if (match->captures[index].length == NQ_CAPTURE_OPEN)
		luaL_error(L, "unfinished capture");
	if (match->captures[index].length == NQ_CAPTURE_POSITION)
		lua_pushinteger(L, match->captures[index].start - match->subject + 1);
	else
		lua_pushlstring(L, match->captures[index].start,
				(size_t)match->captures[index].length);
}

static int push_captures(lua_State *L, const struct nq_pattern_match *match, const char *at,
			 const char *end)
{
	unsigned count = match->count == 0 && at ? 1 : match->count;

	luaL_checkstack(L, (int)count, "too many captures");
	for (unsigned i = 0; i < count; i++)
		push_capture(L, match, i, at, end);
	return (int)count;
}

/* Whether it stands for itself alone; a ')' or ']' does not make it a pattern. */
static bool is_plain(const char *pattern, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if (pattern[i] && strchr("^$*+?.([%-", pattern[i]))
			return false;
	}
	return true;
}

/* As string.find, which tells the place, and string.match, which does not. */
static int search(lua_State *L, bool tell)
{
	size_t length, pattern_length;
	const char *subject = luaL_checklstring(L, 1, &length);
	const char *pattern = luaL_checklstring(L, 2, &pattern_length);
	size_t first = first_byte(luaL_optinteger(L, 3, 1), length) - 1;
	struct nq_pattern_match match;
	bool anchored;

	if (first > length) {
		lua_pushnil(L);
		return 1;
	}
	if (tell && (lua_toboolean(L, 4) || is_plain(pattern, pattern_length))) {
		/* In time linear in both, unlike the stock search. */
		const char *found =
			memmem(subject + first, length - first, pattern, pattern_length);

		if (!found) {
			lua_pushnil(L);
			return 1;
		}
		lua_pushinteger(L, found - subject + 1);
		lua_pushinteger(L, found - subject + (lua_Integer)pattern_length);
		return 2;
	}
	begin(&match, subject, length, pattern, pattern_length);
	anchored = pattern_length > 0 && *pattern == '^';
	for (const char *at = subject + first; at <= match.subject_end; at++) {
		const char *end = try_at(L, &match, at, pattern + anchored);

		if (end && tell) {
			lua_pushinteger(L, at - subject + 1);
			lua_pushinteger(L, end - subject);
			return push_captures(L, &match, NULL, NULL) + 2;
		}
		if (end)
			return push_captures(L, &match, at, end);
		if (anchored)
			break;
	}
	lua_pushnil(L);
	return 1;
}

/***
string.find of a sandbox, as in Lua 5.4, but that it ends: see pattern.h.
@function string.find
@raise `pattern too complex`
*/
static int string_find(lua_State *L)
{
	return search(L, true);
}

/***
string.match of a sandbox, as in Lua 5.4, but that it ends.
@function string.match
@raise `pattern too complex`
*/
static int string_match(lua_State *L)
{
	return search(L, false);
}

/* Upvalues: 1 the subject, 2 the pattern, 3 where to go on, 4 where the last match ended or -1. */
static int gmatch_step(lua_State *L)
{
	size_t length, pattern_length;
	const char *subject = lua_tolstring(L, lua_upvalueindex(1), &length);
	const char *pattern = lua_tolstring(L, lua_upvalueindex(2), &pattern_length);
	size_t next = (size_t)lua_tointeger(L, lua_upvalueindex(3));
	lua_Integer last = lua_tointeger(L, lua_upvalueindex(4));
	struct nq_pattern_match match;

	begin(&match, subject, length, pattern, pattern_length);
	for (; next <= length; next++) {
		const char *end = try_at(L, &match, subject + next, pattern);

		if (end && end - subject != last) {
			lua_pushinteger(L, end - subject);
			lua_copy(L, -1, lua_upvalueindex(3));
			lua_copy(L, -1, lua_upvalueindex(4));
			return push_captures(L, &match, subject + next, end);
		}
	}
	lua_pushinteger(L, (lua_Integer)length + 1);
	lua_replace(L, lua_upvalueindex(3));
	return 0;
}

/***
string.gmatch of a sandbox, as in Lua 5.4, but that each step ends.
@function string.gmatch
@raise `pattern too complex`, in a step
*/
static int string_gmatch(lua_State *L)
{
	size_t length;
	size_t first;

	luaL_checklstring(L, 1, &length);
	luaL_checkstring(L, 2);
	first = first_byte(luaL_optinteger(L, 3, 1), length) - 1;
	lua_settop(L, 2);
	lua_pushinteger(L, (lua_Integer)(first > length ? length + 1 : first));
	lua_pushinteger(L, -1);
	lua_pushcclosure(L, gmatch_step, 4);
	return 1;
}

static void check_size(lua_State *L, size_t size)
{
	if (size > NQ_SANDBOX_STRING)
		luaL_error(L, "resulting string too large (in the sandbox: at most %d bytes)",
			   (int)NQ_SANDBOX_STRING);
}

/* Adds the replacement string at 3 with its captures filled in. */
static void add_template(lua_State *L, struct nq_pattern_match *match, luaL_Buffer *result,
			 const char *at, const char *end)
{
	size_t length;
	const char *text = lua_tolstring(L, 3, &length);
	const char *text_end = text + length;

	while (text < text_end) {
		const char *percent = memchr(text, '%', (size_t)(text_end - text));
		size_t plain = (size_t)((percent ? percent : text_end) - text);

		luaL_addlstring(result, text, plain);
		check_size(L, luaL_bufflen(result));
		if (!percent)
			return;
		text = percent + 1;
		if (text < text_end && *text == '%') {
			luaL_addchar(result, '%');
		} else if (text < text_end && *text == '0') {
			luaL_addlstring(result, at, (size_t)(end - at));
		} else if (text < text_end && isdigit((unsigned char)*text)) {
			push_capture(L, match, (unsigned)(*text - '1'), at, end);
			luaL_tolstring(L, -1, NULL);
			lua_remove(L, -2);
			luaL_addvalue(result);
		} else {
			luaL_error(L, "invalid use of '%%' in replacement string");
		}
		check_size(L, luaL_bufflen(result));
		text++;
	}
}

/* Adds what stands for the match. `kind` is the type of the replacement at 3. */
static void add_replacement(lua_State *L, struct nq_pattern_match *match, luaL_Buffer *result,
			    const char *at, const char *end, int kind)
{
	if (kind == LUA_TFUNCTION) {
		lua_pushvalue(L, 3);
		lua_call(L, push_captures(L, match, at, end), 1);
	} else if (kind == LUA_TTABLE) {
		push_capture(L, match, 0, at, end);
		lua_gettable(L, 3);
	} else {
		add_template(L, match, result, at, end);
		return;
	}
	if (!lua_toboolean(L, -1)) {
		lua_pop(L, 1);
		luaL_addlstring(result, at, (size_t)(end - at));
	} else if (!lua_isstring(L, -1)) {
		luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
	} else {
		luaL_addvalue(result);
	}
	check_size(L, luaL_bufflen(result));
}

/***
string.gsub of a sandbox, as in Lua 5.4, but that it ends, and makes at most 16 MiB.
@function string.gsub
@raise `pattern too complex`, `resulting string too large`
*/
static int string_gsub(lua_State *L)
{
	size_t length, pattern_length;
	const char *subject = luaL_checklstring(L, 1, &length);
	const char *pattern = luaL_checklstring(L, 2, &pattern_length);
	int kind = lua_type(L, 3);
	lua_Integer most = luaL_optinteger(L, 4, (lua_Integer)length + 1);
	lua_Integer count = 0;
	const char *at = subject;
	const char *last = NULL;
	struct nq_pattern_match match;
	luaL_Buffer result;
	bool anchored = pattern_length > 0 && *pattern == '^';

	luaL_argexpected(L,
			 kind == LUA_TNUMBER || kind == LUA_TSTRING || kind == LUA_TFUNCTION ||
				 kind == LUA_TTABLE,
			 3, "string/function/table");
	begin(&match, subject, length, pattern, pattern_length);
	luaL_buffinit(L, &result);
	while (count < most) {
		const char *end = try_at(L, &match, at, pattern + anchored);

		if (end && end != last) {
			count++;
			add_replacement(L, &match, &result, at, end, kind);
			at = last = end;
		} else if (at < match.subject_end) {
			luaL_addchar(&result, *at++);
		} else {
			break;
		}
		if (anchored)
			break;
	}
	luaL_addlstring(&result, at, (size_t)(match.subject_end - at));
	luaL_pushresult(&result);
	lua_pushinteger(L, count);
	return 2;
}

/***
string.rep of a sandbox: makes at most 16 MiB. The stock one repeats even the empty string as often
as it is told.
@function string.rep
@raise `resulting string too large`
*/
static int string_rep(lua_State *L)
{
	size_t length, separator_length;
	lua_Integer count;
	lua_CFunction stock = lua_tocfunction(L, lua_upvalueindex(1));

	luaL_checklstring(L, 1, &length);
	count = luaL_checkinteger(L, 2);
	luaL_optlstring(L, 3, "", &separator_length);
	if (length + separator_length == 0 || count <= 0) {
		lua_pushliteral(L, "");
		return 1;
	}
	if ((lua_Unsigned)count > NQ_SANDBOX_STRING)
		check_size(L, NQ_SANDBOX_STRING + 1);
	check_size(L, (length + separator_length) * (size_t)count);
	return stock(L);
}

/***
string.pack of a sandbox: the sizes of its fields ("c100") are the only way to more bytes than it is
given, and sum up to at most 16 MiB.
@function string.pack
@raise `resulting string too large`
*/
static int string_pack(lua_State *L)
{
	const char *format = luaL_checkstring(L, 1);
	lua_CFunction stock = lua_tocfunction(L, lua_upvalueindex(1));
	size_t sum = 0;

	for (; *format; format++) {
		size_t number = 0;

		if (*format != 'c')
			continue;
		for (; isdigit((unsigned char)format[1]); format++) {
			number = number * 10 + (size_t)(format[1] - '0');
			check_size(L, number);
		}
		sum += number;
		check_size(L, sum);
	}
	return stock(L);
}

void nq_sandbox_strings(lua_State *L)
{
	static const luaL_Reg own[] = {
		{"find", string_find},
		{"match", string_match},
		{"gmatch", string_gmatch},
		{"gsub", string_gsub},
		{NULL, NULL},
	};
	static const luaL_Reg bounded[] = {
		{"rep", string_rep}, {"pack", string_pack}, {NULL, NULL}};

	lua_getglobal(L, LUA_STRLIBNAME);
	luaL_setfuncs(L, own, 0);
	nq_sandbox_wrap(L, bounded);
	lua_pushnil(L);
	lua_setfield(L, -2, "dump");
	lua_pop(L, 1);
	/* Every string has this metatable: who got hold of it could change them all. */
	lua_pushliteral(L, "");
	lua_getmetatable(L, -1);
	lua_pushboolean(L, 0);
	lua_setfield(L, -2, "__metatable");
	lua_pop(L, 2);
}
