/*
 * places.h - where the parts of a packet lie, for what judges: reader.c. It reads by itself,
 * nothing of src/.
 */
#ifndef HOSTILE_PLACES_H
#define HOSTILE_PLACES_H

#include "hostile.h"

struct place {
	unsigned version; /* 0: not IP, or its headers are not all there */
	size_t header;	  /* length of the IP header, without extensions of IPv6 */
	size_t transport;
	unsigned protocol;
	size_t source, destination; /* of the pseudo-header */
	bool fragment;		    /* part of a datagram; */
	bool later;		    /* not its first */
};

struct place place_find(const uint8_t *bytes, size_t length);

/* Where the checksum of a transport lies in its header; 0: it has none that is ours to write. */
size_t place_checksum(const struct place *place);

/* Whether `size` bytes hold a TCP header, with its options. */
bool place_has_tcp(const uint8_t *bytes, size_t size);

#endif
