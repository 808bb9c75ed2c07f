/*
 * faults.h - what the files of the fault tests share: calls of the core that fail when told to, and
 * a kernel made of socket pairs.
 *
 * The program is linked with --wrap, so that what the core calls lands here: allocations and system
 * calls, counted, and the n-th of a kind, or all from there on, fail. Lua's own allocations are
 * another kind. What libraries call is not touched.
 */
#ifndef FAULTS_H
#define FAULTS_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Kinds of calls; FAULT_MEMORY is every allocation of the core in C. The rest are as in names. */
enum fault_kind {
	FAULT_NONE,
	FAULT_LUA,
	FAULT_MEMORY,
	FAULT_SOCKET,
	FAULT_BIND,
	FAULT_SEND,
	FAULT_SENDMSG,
	FAULT_RECVMMSG,
	FAULT_EPOLL_CREATE,
	FAULT_EPOLL_CTL,
	FAULT_EPOLL_WAIT,
	FAULT_EVENTFD,
	FAULT_TIMERFD_CREATE,
	FAULT_TIMERFD_SETTIME,
	FAULT_POLL,
	FAULT_READ,
	FAULT_WRITE,
	FAULT_OPEN,
	FAULT_PREAD,
	FAULT_PTHREAD_CREATE,
	FAULT_SETSOCKOPT,
	FAULT_GETSOCKOPT,
	FAULT_KINDS,
};

extern const char *const fault_names[FAULT_KINDS];

enum { FAULT_SHORT = -1 }; /* in place of an errno: done, but less is told */

/* From here on, until fault_disarm: the n-th call (from 1; 0: none) of the kind, or all from it on,
 * fails. */
void fault_arm(enum fault_kind kind, uint64_t n, bool always, int error);
void fault_disarm(void);

/* Calls of the kind while it was armed. */
uint64_t fault_count(enum fault_kind kind);

/* Whether this call is one that fails; *error: its errno. */
bool fault_strikes(enum fault_kind kind, int *error);

/* What the core has and has not given back. */
int64_t fault_blocks(void);
int64_t fault_mapped(void);

/* Whether the core has said that a queue is given up. */
bool fault_given_up(void);

/* Shows what the core logs. */
void fault_show_log(bool show);

/* A lua_Alloc; its context is an int64_t, the bytes in use. */
void *fault_lua_alloc(void *context, void *block, size_t had, size_t size);

/* --- kernel.c --- */

/* No sockets, no packets. */
void kernel_begin(void);

/* Answers requests, takes verdicts and delivers packets; called whenever the core looks. */
void kernel_run(void);

/* The core waits: the same; and nothing comes. */
void kernel_wait(void);
void kernel_idle(void);

/* A netlink socket of the core: its end, or -1 with errno. kernel_owns: whether it is one. */
int kernel_socket(void);
bool kernel_owns(int fd);

/* The global table `kernel`: send(queue, bytes), waiting() -> packets without verdict, and
 * stop(queue, bytes): sent when nothing is left to do. */
void kernel_register(lua_State *L);

/*
 * What is wrong with the verdicts, or NULL. The first time what was decided is noted; then each
 * packet must have that, or be dropped. `excused`: some may have none.
 */
const char *kernel_judge(bool first, bool excused);
void kernel_end(void);

#endif
