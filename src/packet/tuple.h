/*
 * tuple.h - both ends of a packet: addresses, protocol, and ports where the protocol has them.
 *
 * It is the packet's as it arrived: what is edited later does not change it, so that all packets of
 * a direction have the same one.
 */
#ifndef NQ_TUPLE_H
#define NQ_TUPLE_H

#include <stdbool.h>

#include "packet/packet.h"

/* Room for the longest text, its zero included. */
#define NQ_TUPLE_SIZE 128

/*
 * Whether the packet has one: not IP, later fragments and packets cut off before their ports have
 * none. Then *tuple points into the packet. Ports are those of TCP, UDP, SCTP, DCCP and UDP-Lite;
 * an ICMP echo message has its identifier in both places.
 */
bool nq_tuple_find(struct nq_packet *packet, const struct nq_flow_tuple **tuple);

/* Reads it before the packet is edited for the first time. */
void nq_tuple_freeze(struct nq_packet *packet);

/* Writes "tcp 192.0.2.1:40000 > 198.51.100.2:443", "icmp6 [2001:db8::1]:7 > [2001:db8::2]:7",
 * "47 192.0.2.1 > 198.51.100.2". Returns its length. */
size_t nq_tuple_print(const struct nq_flow_tuple *tuple, char text[NQ_TUPLE_SIZE]);

#endif
