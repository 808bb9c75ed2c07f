/* What a handler can read and assign of a packet, through a Lua state: accessor.lua. */
#include "lua_target.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	return lua_target_run("accessor", input, size);
}
