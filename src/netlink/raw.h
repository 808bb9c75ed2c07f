/*
 * raw.h - raw sockets: packets of our own making into the kernel's output path.
 *
 * The sockets need CAP_NET_RAW when they are opened and CAP_NET_RAW or CAP_NET_ADMIN for a mark;
 * they are opened before privileges are dropped and outlive that. They receive nothing. What goes
 * with one packet (mark, interface) goes as a control message with it, so threads share them.
 */
#ifndef NQ_RAW_H
#define NQ_RAW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nq_raw {
	int fd4, fd6;		      /* close-on-exec; or -errno: why it could not be opened */
	struct nq_raw_probes *probes; /* NULL: what is asked of the routes opens a socket */
};

/* An IPv6 header and what its length field can say; an IPv4 packet is at most 65,535 bytes. */
#define NQ_RAW_MOST (40 + 65535)

void nq_raw_open(struct nq_raw *raw);

/*
 * Opens the sockets through which routes and names are asked for, once, for a process that will not
 * be able to open any; threads take turns with them. 0 or -errno.
 */
int nq_raw_open_probes(struct nq_raw *raw);
void nq_raw_close(struct nq_raw *raw);

/* Where a packet goes, beside what it says itself. */
struct nq_raw_way {
	uint32_t mark;	    /* 0: none */
	unsigned interface; /* index; 0: as the routes have it */
};

/*
 * Sends the packet, IPv4 or IPv6 with a whole header, `length` as that says. A checksum that is
 * only the sum of the pseudo header is completed, and a TCP segment larger than the link carries
 * goes in pieces (see packet/offload.h); the kernel sums IPv4 headers. Never waits. Returns the
 * number of packets sent, or -errno.
 */
int nq_raw_send(const struct nq_raw *raw, const uint8_t *bytes, size_t length,
		const struct nq_raw_way *way);

/* `raw` of the rest: NULL, or its probes are used. */

/* Whether the routes have the address (4 or 16 bytes) for one of a network's broadcast. */
bool nq_raw_is_broadcast(const struct nq_raw *raw, uint8_t version, const uint8_t *target,
			 const struct nq_raw_way *way);

/*
 * The address to answer from, about a packet that was sent to `target` by `sender` (4 or 16 bytes):
 * `target` where that is this host's, else the one its routes give packets to `sender`. 0 or
 * -errno.
 */
int nq_raw_source(const struct nq_raw *raw, uint8_t version, const uint8_t *target,
		  const uint8_t *sender, const struct nq_raw_way *way, uint8_t *source);

/* if_indextoname(3) and if_nametoindex(3): false and 0 for an interface that is not there. `name`
 * has room for IF_NAMESIZE bytes. */
bool nq_raw_interface_name(const struct nq_raw *raw, unsigned index, char *name);
unsigned nq_raw_interface_index(const struct nq_raw *raw, const char *name);

#endif
