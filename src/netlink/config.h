/*
 * config.h - the queue's socket and the configuration messages of nfnetlink_queue.
 *
 * Requests are only sent here; their answers come in the packet stream (message.h) and are matched
 * by sequence number. One socket serves one thread. Nothing here logs or decides.
 */
#ifndef NQ_CONFIG_H
#define NQ_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Sequence numbers of our messages: 2 bits of class, then 16 of the queue's number, then 14 of the
 * packet's id or of what the request is about. Answers are told apart by it.
 */
enum nq_seq_class {
	NQ_SEQ_VERDICT = 0,
	NQ_SEQ_DOUBTFUL = 1, /* a verdict that a dead worker may have sent already */
	NQ_SEQ_CONFIG = 2,
	NQ_SEQ_BARRIER = 3,
};

static inline uint32_t nq_seq(enum nq_seq_class class, uint16_t queue, uint32_t low)
{
	return (uint32_t) class << 30 | (uint32_t)queue << 14 | (low & 0x3fff);
}

static inline enum nq_seq_class nq_seq_class(uint32_t seq)
{
	return (enum nq_seq_class)(seq >> 30);
}

static inline uint16_t nq_seq_queue(uint32_t seq)
{
	return (uint16_t)(seq >> 14);
}

/* NFQA_CFG_F_* of linux/netfilter/nfnetlink_queue.h */
enum {
	NQ_FLAG_FAIL_OPEN = 1 << 0,
	NQ_FLAG_CONNTRACK = 1 << 1,
	NQ_FLAG_GSO = 1 << 2,
	NQ_FLAG_UID_GID = 1 << 3,
	NQ_FLAG_SECCTX = 1 << 4,
};
#define NQ_FLAG_COUNT 5

struct nq_queue_config {
	uint32_t max_packets;
	uint32_t copy_range; /* bytes; 0: metadata only */
	uint32_t flags;	     /* NQ_FLAG_* */
};

static inline bool nq_config_equal(const struct nq_queue_config *one,
				   const struct nq_queue_config *other)
{
	return one->max_packets == other->max_packets && one->copy_range == other->copy_range &&
	       one->flags == other->flags;
}

/* Opens a non-blocking, close-on-exec NETLINK_NETFILTER socket with a port id: the descriptor, or
 * -errno. */
int nq_socket_open(void);

/*
 * Asks for a receive buffer of `bytes`: with CAP_NET_ADMIN beyond net.core.rmem_max, else up to it.
 * *got: what the kernel gave, in the same unit. 0 or -errno.
 */
int nq_socket_set_buffer(int fd, uint32_t bytes, uint32_t *got);

/*
 * Each sends one acknowledged request (NLM_F_ACK) with sequence number `seq`; 0 or -errno of the
 * send.
 *
 * probe_flag asks about one flag of a queue that is not bound and changes nothing: the answer is
 * EOPNOTSUPP where the kernel lacks it, ENODEV where it has it, EPERM without privilege or when
 * another socket holds the queue. bind takes the queue and sets everything in one message, so that
 * no packet meets half a configuration (between a bind alone and the copy mode the kernel drops
 * what arrives). change does the same to a queue that is bound. limit sets max_packets again: to 0
 * before leaving, or unchanged as a barrier, its answer lying behind every packet numbered so far.
 */
int nq_config_probe_flag(int fd, uint16_t queue, uint32_t flag, uint32_t seq);
int nq_config_bind(int fd, uint16_t queue, const struct nq_queue_config *config, uint32_t seq);
int nq_config_change(int fd, uint16_t queue, const struct nq_queue_config *config, uint32_t seq);
int nq_config_limit(int fd, uint16_t queue, uint32_t max_packets, bool set_fail_open, uint32_t seq);
int nq_config_unbind(int fd, uint16_t queue, uint32_t seq);

/*
 * Sends a request that needs nothing but privilege. The answer's errno: 0: this process may
 * configure queues in its network namespace; EPERM: it may not; EINVAL: the kernel knows no
 * nfnetlink_queue.
 */
int nq_config_ask_privilege(int fd, uint32_t seq);

#endif
