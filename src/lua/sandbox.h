/*
 * sandbox.h - a Lua state out of which a script cannot reach: `sandbox = true`.
 *
 * The whole state becomes one, for good, before the script is read. Then there is no io, no debug,
 * no package and no C module; os tells the time alone; `require` reads Lua text from the script's
 * folder and the package path; bytecode is neither made nor loaded; every function of the string
 * and table libraries ends in bounded time; metatables of strings and userdata are closed, and
 * __gc, which would run anywhere, is refused. Of nfqueue's own functions those that reach files,
 * other states or the kernel's queues raise.
 */
#ifndef NQ_LUA_SANDBOX_H
#define NQ_LUA_SANDBOX_H

#include <lua.h>
#include <stdbool.h>

#include "lua/config.h"

/*
 * Makes the state a sandbox for the script at `script`; the libraries and nfqueue.core are open.
 * Modules that are loaded already are not found by it. Raises for want of memory.
 */
void nq_sandbox_enter(lua_State *L, const char *script);

bool nq_sandbox_is(lua_State *L);

/* Raises, naming `function`, when the layer asks for a sandbox and this state is none. */
void nq_sandbox_check(lua_State *L, const struct nq_config_layer *layer, const char *function);

/* Raises, naming `function`, in a sandbox for a file that is not in the script's folder. */
void nq_sandbox_check_file(lua_State *L, const char *path, const char *function);

/* Raises in a sandbox, and in a confined worker, for a tcpdump expression in which a name would be
 * looked up. */
void nq_sandbox_check_filter(lua_State *L, const char *expression, const char *function,
			     const char *name);

/* enclose(script): nq_sandbox_enter, of the command's own state. */
int nq_enclose(lua_State *L);

#endif
