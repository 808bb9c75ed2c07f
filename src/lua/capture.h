/*
 * capture.h - nfqueue.pcap: capture files as packets, and packets into capture files.
 */
#ifndef NQ_LUA_CAPTURE_H
#define NQ_LUA_CAPTURE_H

#include <lua.h>

/* Pushes the table nfqueue.pcap: open(path), create(path, options). Called once a state. */
void nq_capture_push(lua_State *L);

#endif
