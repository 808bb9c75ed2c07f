/* Answers to rejected packets: made by packet/reject.h, sent through the raw sockets. */
#include <errno.h>
#include <string.h>

#include "host/loop_parts.h"
#include "packet/reject.h"

/* ICMP errors a second, and at once: what the kernel's net.ipv4.icmp_msgs_per_sec defaults to. */
enum { ICMP_ERRORS = 1000 };

static bool is_link_local(const struct nq_build_ip *ip)
{
	return ip->version == 6 && ip->dst[0] == 0xfe && (ip->dst[1] & 0xc0) == 0x80;
}

static void report(struct nq_loop *loop, const struct nq_loop_queue *queue, int error)
{
	uint64_t suppressed;

	if (!nq_log_allow(&loop->answer_reports, 1, &suppressed))
		return;
	nq_log(NQ_LOG_WARN, "queue %u: cannot answer a rejected packet, only drop it: %s%s",
	       queue->number, strerror(-error),
	       error == -EPERM ? " (it needs CAP_NET_RAW, and no firewall rule that drops it)"
			       : "");
}

void nq_loop_answer(struct nq_loop *loop, const struct nq_loop_queue *queue,
		    struct nq_packet *packet)
{
	struct nq_raw_way way = {.mark = queue->settings.loop_mark};
	struct nq_build build;
	uint8_t bytes[NQ_REJECT_MOST];
	uint8_t source[16];
	uint64_t suppressed;
	int error;

	if (!loop->raw || nq_reject_answer(packet, &build))
		return;
	/* RFC 4443 section 2.4 (f), RFC 1812 section 4.3.2.8. */
	if (build.transport == NQ_BUILD_ICMP &&
	    !nq_log_allow(&loop->errors, ICMP_ERRORS, &suppressed))
		return;
	if (is_link_local(&build.ip))
		way.interface = packet->have & NQ_HAVE_IIF ? packet->iif : packet->oif;
	if (nq_raw_is_broadcast(loop->raw, build.ip.version, build.ip.src, &way))
		return;
	/* An error is this host's own word; a reset speaks for the one that was asked. */
	if (build.transport == NQ_BUILD_ICMP &&
	    nq_raw_source(loop->raw, build.ip.version, build.ip.src, build.ip.dst, &way, source) ==
		    0)
		memcpy(build.ip.src, source, sizeof(build.ip.src));
	nq_build_write(&build, bytes);
	error = nq_raw_send(loop->raw, bytes, nq_build_size(&build), &way);
	if (error < 0)
		report(loop, queue, error);
}
