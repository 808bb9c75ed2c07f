#include "netlink/config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnetfilter_queue/libnetfilter_queue.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <unistd.h>

/* Room for the largest request: header, command, parameters, length, flags and mask. */
enum { REQUEST_SIZE = 256, SEND_BUFFER = 1 << 20 };

int nq_socket_open(void)
{
	struct sockaddr_nl address = {.nl_family = AF_NETLINK};
	int one = 1;
	int bytes = SEND_BUFFER;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER);

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		int error = errno;

		close(fd);
		return -error;
	}
	/* Without it an error answer to a 64 KB verdict brings the 64 KB back. */
	(void)setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
	/* A larger datagram of verdicts saves calls; a refusal only means smaller datagrams. */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	return fd;
}

int nq_socket_set_buffer(int fd, uint32_t bytes, uint32_t *got)
{
	int wanted = bytes > INT32_MAX / 2 ? INT32_MAX / 2 : (int)bytes;
	int given = 0;
	socklen_t size = sizeof(given);

	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &wanted, sizeof(wanted)) < 0 &&
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &wanted, sizeof(wanted)) < 0)
		return -errno;
	if (getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &given, &size) < 0)
		return -errno;
	*got = (uint32_t)given /
	       2; /* the kernel keeps twice the figure, for its own structures (socket(7)) */
	return 0;
}

static struct nlmsghdr *start_request(char *buffer, uint16_t queue, uint32_t seq)
{
	struct nlmsghdr *header = nfq_nlmsg_put(buffer, NFQNL_MSG_CONFIG, queue);

	header->nlmsg_flags |= NLM_F_ACK;
	header->nlmsg_seq = seq;
	return header;
}

static int send_request(int fd, const struct nlmsghdr *header)
{
	for (;;) {
		if (send(fd, header, header->nlmsg_len, 0) >= 0)
			return 0;
		if (errno != EINTR)
			return -errno;
	}
}

static void put_flags(struct nlmsghdr *header, uint32_t flags, uint32_t mask)
{
	mnl_attr_put_u32(header, NFQA_CFG_FLAGS, htonl(flags));
	mnl_attr_put_u32(header, NFQA_CFG_MASK, htonl(mask));
}

int nq_config_probe_flag(int fd, uint16_t queue, uint32_t flag, uint32_t seq)
{
	char buffer[REQUEST_SIZE];
	struct nlmsghdr *header = start_request(buffer, queue, seq);

	put_flags(header, flag, flag);
	return send_request(fd, header);
}

/* A range of 0 would mean the largest. */
static void put_copy_range(struct nlmsghdr *header, uint32_t copy_range)
{
	if (copy_range)
		nfq_nlmsg_cfg_put_params(header, NFQNL_COPY_PACKET, (int)copy_range);
	else
		nfq_nlmsg_cfg_put_params(header, NFQNL_COPY_META, 0);
}

int nq_config_bind(int fd, uint16_t queue, const struct nq_queue_config *config, uint32_t seq)
{
	char buffer[REQUEST_SIZE];
	struct nlmsghdr *header = start_request(buffer, queue, seq);

	nfq_nlmsg_cfg_put_cmd(header, AF_UNSPEC, NFQNL_CFG_CMD_BIND);
	put_copy_range(header, config->copy_range);
	nfq_nlmsg_cfg_put_qmaxlen(header, config->max_packets);
	if (config->flags)
		put_flags(header, config->flags, config->flags);
	return send_request(fd, header);
}

int nq_config_change(int fd, uint16_t queue, const struct nq_queue_config *config, uint32_t seq)
{
	char buffer[REQUEST_SIZE];
	struct nlmsghdr *header = start_request(buffer, queue, seq);

	put_copy_range(header, config->copy_range);
	nfq_nlmsg_cfg_put_qmaxlen(header, config->max_packets);
	put_flags(header, config->flags, (1u << NQ_FLAG_COUNT) - 1);
	return send_request(fd, header);
}

int nq_config_limit(int fd, uint16_t queue, uint32_t max_packets, bool set_fail_open, uint32_t seq)
{
	char buffer[REQUEST_SIZE];
	struct nlmsghdr *header = start_request(buffer, queue, seq);

	nfq_nlmsg_cfg_put_qmaxlen(header, max_packets);
	if (set_fail_open)
		put_flags(header, NQ_FLAG_FAIL_OPEN, NQ_FLAG_FAIL_OPEN);
	return send_request(fd, header);
}

int nq_config_unbind(int fd, uint16_t queue, uint32_t seq)
{
	char buffer[REQUEST_SIZE];
	struct nlmsghdr *header = start_request(buffer, queue, seq);

	nfq_nlmsg_cfg_put_cmd(header, AF_UNSPEC, NFQNL_CFG_CMD_UNBIND);
	return send_request(fd, header);
}

int nq_config_ask_privilege(int fd, uint32_t seq)
{
	char buffer[REQUEST_SIZE];
	struct nlmsghdr *header = start_request(buffer, 0, seq);

	/* PF_UNBIND is obsolete and does nothing, but the privilege is checked first. */
	nfq_nlmsg_cfg_put_cmd(header, AF_UNSPEC, NFQNL_CFG_CMD_PF_UNBIND);
	return send_request(fd, header);
}
