/* Tables given to nfqueue.build, through a Lua state: describe.lua. */
#include "lua_target.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	return lua_target_run("describe", input, size);
}
