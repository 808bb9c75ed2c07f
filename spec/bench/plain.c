/*
 * plain.c - the loop that tutorials show, as the measure for ours: libmnl and libnetfilter_queue, a
 * receive call and a verdict message per packet. Not an example of how to write one.
 *
 *     plain QUEUE [accept|drop|edit OFFSET VALUE]
 *
 * `edit` writes one byte of a UDP packet with the library's packet buffer and sends it back.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnetfilter_queue/libnetfilter_queue.h>
#include <libnetfilter_queue/libnetfilter_queue_ipv4.h>
#include <libnetfilter_queue/libnetfilter_queue_udp.h>
#include <libnetfilter_queue/pktbuff.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { MAX_PACKETS = 65536, BUFFER_SIZE = 64 << 20 };

struct plain {
	struct mnl_socket *socket;
	uint16_t queue;
	uint32_t verdict;
	bool edit;
	unsigned offset;
	uint8_t value;
};

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void send_message(struct plain *plain, const struct nlmsghdr *header)
{
	if (mnl_socket_sendto(plain->socket, header, header->nlmsg_len) < 0)
		die("mnl_socket_sendto");
}

static void put_edited(const struct plain *plain, struct nlmsghdr *header, struct nlattr *payload)
{
	struct pkt_buff *packet = pktb_alloc(AF_INET, mnl_attr_get_payload(payload),
					     mnl_attr_get_payload_len(payload), 0);
	struct iphdr *ip;
	struct udphdr *udp;

	if (!packet)
		die("pktb_alloc");
	ip = nfq_ip_get_hdr(packet);
	if (ip && plain->offset < pktb_len(packet) &&
	    nfq_ip_set_transport_header(packet, ip) == 0) {
		udp = nfq_udp_get_hdr(packet);
		if (udp) {
			pktb_data(packet)[plain->offset] = plain->value;
			nfq_udp_compute_checksum_ipv4(udp, ip);
			nfq_nlmsg_verdict_put_pkt(header, pktb_data(packet), pktb_len(packet));
		}
	}
	pktb_free(packet);
}

static int judge(const struct nlmsghdr *message, void *data)
{
	struct plain *plain = data;
	struct nlattr *attributes[NFQA_MAX + 1] = {NULL};
	struct nfqnl_msg_packet_hdr *packet;
	char buffer[MNL_SOCKET_BUFFER_SIZE];
	struct nlmsghdr *header;

	if (nfq_nlmsg_parse(message, attributes) < 0 || !attributes[NFQA_PACKET_HDR])
		return MNL_CB_ERROR;
	packet = mnl_attr_get_payload(attributes[NFQA_PACKET_HDR]);
	header = nfq_nlmsg_put(buffer, NFQNL_MSG_VERDICT, plain->queue);
	nfq_nlmsg_verdict_put(header, (int)ntohl(packet->packet_id), (int)plain->verdict);
	if (plain->edit && attributes[NFQA_PAYLOAD])
		put_edited(plain, header, attributes[NFQA_PAYLOAD]);
	send_message(plain, header);
	return MNL_CB_OK;
}

static void configure(struct plain *plain)
{
	char buffer[MNL_SOCKET_BUFFER_SIZE];
	struct nlmsghdr *header;
	int size = BUFFER_SIZE;
	int fd = mnl_socket_get_fd(plain->socket);

	/* Without privilege up to net.core.rmem_max, like the subject. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0 &&
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)) < 0)
		die("setsockopt");
	header = nfq_nlmsg_put(buffer, NFQNL_MSG_CONFIG, plain->queue);
	nfq_nlmsg_cfg_put_cmd(header, AF_INET, NFQNL_CFG_CMD_BIND);
	send_message(plain, header);
	header = nfq_nlmsg_put(buffer, NFQNL_MSG_CONFIG, plain->queue);
	nfq_nlmsg_cfg_put_params(header, NFQNL_COPY_PACKET, 0xffff);
	nfq_nlmsg_cfg_put_qmaxlen(header, MAX_PACKETS);
	mnl_attr_put_u32(header, NFQA_CFG_FLAGS, htonl(NFQA_CFG_F_GSO));
	mnl_attr_put_u32(header, NFQA_CFG_MASK, htonl(NFQA_CFG_F_GSO));
	send_message(plain, header);
}

int main(int argc, char **argv)
{
	struct plain plain = {.verdict = NF_ACCEPT};
	size_t size = 0xffff + MNL_SOCKET_BUFFER_SIZE / 2;
	char *buffer = malloc(size);
	unsigned port;

	if (argc == 3 && strcmp(argv[2], "drop") == 0)
		plain.verdict = NF_DROP;
	else if (argc == 5 && strcmp(argv[2], "edit") == 0)
		plain.edit = true;
	else if (argc != 2 && !(argc == 3 && strcmp(argv[2], "accept") == 0)) {
		fprintf(stderr, "usage: plain QUEUE [accept|drop|edit OFFSET VALUE]\n");
		return 64;
	}
	plain.queue = (uint16_t)atoi(argv[1]);
	if (plain.edit) {
		plain.offset = (unsigned)atoi(argv[3]);
		plain.value = (uint8_t)atoi(argv[4]);
	}
	plain.socket = mnl_socket_open(NETLINK_NETFILTER);
	if (!buffer || !plain.socket || mnl_socket_bind(plain.socket, 0, MNL_SOCKET_AUTOPID) < 0)
		die("mnl_socket");
	port = mnl_socket_get_portid(plain.socket);
	configure(&plain);
	for (;;) {
		ssize_t got = mnl_socket_recvfrom(plain.socket, buffer, size);

		if (got < 0)
			die("mnl_socket_recvfrom");
		if (mnl_cb_run(buffer, (size_t)got, 0, port, judge, &plain) < 0)
			die("mnl_cb_run");
	}
}
