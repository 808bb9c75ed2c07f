/*
 * print.h - a packet as one line, much as tcpdump -n prints it.
 */
#ifndef NQ_PRINT_H
#define NQ_PRINT_H

#include <stdbool.h>
#include <stddef.h>

#include "packet/packet.h"

/* Room for the longest line. */
#define NQ_PRINT_SIZE 256

/* Writes the line, with a terminating zero and without a newline. Any bytes may be in the packet.
 */
void nq_packet_print(struct nq_packet *packet, char line[NQ_PRINT_SIZE]);

/* The letters of set TCP flags in the order FSRPAUEC (RFC 9293 section 3.1), at most 8 and a zero.
 */
void nq_tcp_flags_print(uint8_t flags, char letters[9]);

/* The other way: `length` letters in any order. False when there is another among them. */
bool nq_tcp_flags_read(const char *letters, size_t length, uint8_t *flags);

#endif
