/*
 * module.h - the one symbol the module exports.
 */
#ifndef NQ_LUA_MODULE_H
#define NQ_LUA_MODULE_H

#include <lua.h>

/* Pushes the table that lua/nfqueue/init.lua builds the public module from. */
__attribute__((visibility("default"))) int luaopen_nfqueue_core(lua_State *L);

#endif
