/*
 * script.h - handler scripts: read as text, run once, and their result checked.
 */
#ifndef NQ_SCRIPT_H
#define NQ_SCRIPT_H

#include <lua.h>

#include "host/settings.h"
#include "host/text.h"
#include "host/watchdog.h"
#include "lua/config.h"

/* What a script (or a handler given to nfqueue.new) consists of: registry references, LUA_NOREF:
 * absent. */
struct nq_script {
	int packet, open, close;
	struct nq_config_layer config;
};

/*
 * Checks the handler at `index`, a function or a table { packet, open, close, config }, and takes
 * references. Raises, naming `function`.
 */
void nq_script_take(lua_State *L, int index, const char *function, struct nq_script *script);
void nq_script_release(lua_State *L, struct nq_script *script);

/*
 * Loads the file, or `text` as if it were its content, and runs its chunk with the table of
 * arguments at `arguments` (0: an empty one). 0, or -errno with *failure: 66 no such file, 65 a
 * script that fails or returns no handler, 78 a wrong configuration in it. Does not raise.
 */
int nq_script_load(lua_State *L, const char *path, const struct nq_text *text, int arguments,
		   struct nq_script *script, struct nq_failure *failure);

/* The message handler under every call into a script: the error as a string, with a traceback. */
int nq_script_traceback(lua_State *L);

/*
 * Calls the hook, NQ_CALL_OPEN or NQ_CALL_CLOSE, with the value at the top of the stack (popped) as
 * its argument: 0, or the message on the stack and a nonzero status. LUA_NOREF: nothing is called.
 */
int nq_script_call_hook(lua_State *L, int hook, enum nq_call kind);

#endif
