/*
 * proc.h - what /proc/net/netfilter/nfnetlink_queue says of the queues of this network namespace.
 *
 * The file is readable by root only; its descriptor goes on working after privileges are dropped.
 */
#ifndef NQ_PROC_H
#define NQ_PROC_H

#include <stdint.h>
#include <sys/types.h>

struct nq_proc_queue {
	uint32_t portid;
	uint32_t waiting;	/* packets in the queue, without a verdict */
	uint32_t copy_mode;	/* NFQNL_COPY_* */
	uint32_t copy_range;	/* bytes */
	uint32_t queue_dropped; /* the queue was full */
	uint32_t user_dropped;	/* the receive buffer was full */
	uint32_t id_sequence;	/* id of the packet queued last */
};

/* A close-on-exec descriptor, or -errno. */
int nq_proc_open(void);

/* Reads the line of queue `number` through `fd`: 0, -ESRCH when no socket holds it, or another
 * -errno. */
int nq_proc_read(int fd, uint16_t number, struct nq_proc_queue *queue);

/*
 * Finds a process that has the netfilter netlink socket with this port id open.
 * Returns its pid and writes its name; 0 when it cannot be seen from here.
 */
pid_t nq_proc_holder(uint32_t portid, char name[32]);

#endif
