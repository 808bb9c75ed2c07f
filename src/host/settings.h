/*
 * settings.h - what one queue is asked to do, checked and complete; and how a start-up failure is
 * told.
 */
#ifndef NQ_SETTINGS_H
#define NQ_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "netlink/config.h"
#include "packet/filter.h"
#include "packet/packet.h"

/* The usual mark of injected packets, by which a rule lets them pass: "nq". */
#define NQ_LOOP_MARK 0x6e71

struct nq_settings {
	struct nq_queue_config kernel;
	uint32_t buffer_size; /* bytes */
	uint32_t loop_mark;   /* of packets that are injected; 0: none */
	const struct nq_filter
		*filter; /* what does not match is accepted unseen; NULL: all is judged */
	enum nq_verdict
		default_verdict;  /* NQ_ACCEPT or NQ_DROP: the handler returned without deciding */
	int64_t memory_limit;	  /* bytes of the state, and of copies of packets */
	int64_t hold_limit;	  /* nanoseconds: how long a packet is held unless told otherwise */
	int64_t time_limit;	  /* nanoseconds: of one call into the script */
	bool sandbox;		  /* the state's: see lua/sandbox.h */
	enum nq_verdict on_error; /* NQ_ACCEPT or NQ_DROP: the handler raised, or its worker died */
};

/* One sentence for the user, the errno behind it, and the exit status of the command (sysexits.h).
 */
struct nq_failure {
	int status;
	int error;	    /* positive errno */
	char message[2048]; /* a script error brings its traceback */
};

/* Fills *failure and returns -error, for `return nq_fail(...)`. */
int nq_fail(struct nq_failure *failure, int status, int error, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* Of a netfilter socket that did not open: the kernel's lack, 69; or the process's own, 1. */
int nq_fail_socket(struct nq_failure *failure, int error);

/* "conntrack", ... for bit `index` of the flags, and the kernel option it needs; index <
 * NQ_FLAG_COUNT. */
const char *nq_flag_name(unsigned index);
const char *nq_flag_requirement(unsigned index);

#endif
