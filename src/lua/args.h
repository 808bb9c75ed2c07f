/*
 * args.h - checked arguments whose errors name the argument: "bad argument 'mark' to 'accept'
 * (...)".
 *
 * All of these raise.
 */
#ifndef NQ_ARGS_H
#define NQ_ARGS_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Raises: bad argument 'name' to 'function' (`expected` expected, got <what is at index>). */
int nq_arg_error(lua_State *L, int index, const char *function, const char *name,
		 const char *expected);

lua_Integer nq_arg_integer(lua_State *L, int index, const char *function, const char *name,
			   lua_Integer least, lua_Integer most);

/* A number of seconds up to 1e9, as nanoseconds; `positive`: more than 0 (what is less than a
 * nanosecond is one). */
int64_t nq_arg_seconds(lua_State *L, int index, const char *function, const char *name,
		       bool positive);
const char *nq_arg_string(lua_State *L, int index, const char *function, const char *name,
			  size_t *length);
bool nq_arg_boolean(lua_State *L, int index, const char *function, const char *name);
void nq_arg_table(lua_State *L, int index, const char *function, const char *name);

/* Pushes nil, message, error: what a failure of the world returns. Returns 3. */
int nq_push_failure(lua_State *L, int error, const char *message);

#endif
