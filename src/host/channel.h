/*
 * channel.h - what the supervisor and its worker tell each other.
 *
 * The supervisor sends a script to change to; the worker reports what became of one: of that, or of
 * the one it was started with. An end that is closed is a message too: the worker shall leave, or
 * has died. Nothing here waits.
 */
#ifndef NQ_CHANNEL_H
#define NQ_CHANNEL_H

#include <stdint.h>

#include "host/settings.h"
#include "host/text.h"

/* Two descriptors, close-on-exec: 0 or -errno. */
int nq_channel_open(int ends[2]);

/* One of the supervisor's, whose scripts are numbered: 0 or -errno. */
int nq_channel_send_script(int fd, uint32_t generation, const struct nq_text *text);

/* 1: a script, to be freed; 0: nothing more; -EPIPE: there is nobody any more; another -errno: one
 * came, *generation, and could not be read. */
int nq_channel_take_script(int fd, uint32_t *generation, struct nq_text *text);

/* What became of script `generation`; failure->status 0: it judges. 0 or -errno. */
int nq_channel_send_report(int fd, uint32_t generation, const struct nq_failure *failure);

/* 1: a report; 0: nothing more, or nobody. */
int nq_channel_take_report(int fd, uint32_t *generation, struct nq_failure *failure);

#endif
