/*
 * lua_target.h - targets whose work is done by a Lua file, in one state with the module in it.
 *
 * The file returns a function of the content and the choices, both strings. An error of it is a
 * failed check; what it returns is a packet that was sent, to be judged, or nothing.
 */
#ifndef HOSTILE_LUA_TARGET_H
#define HOSTILE_LUA_TARGET_H

#include "target.h"

/* One input through spec/fuzz/targets/NAME.lua. */
int lua_target_run(const char *name, const uint8_t *input, size_t size);

#endif
