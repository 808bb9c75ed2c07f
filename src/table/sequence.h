/*
 * sequence.h - one direction of a TCP connection whose content changes its length on the way.
 *
 * The sender counts bytes as it made them ("in"), the receiver as they reach it ("out"). This keeps
 * where each edit lies in both, keeps the new content until the receiver has acknowledged it, and
 * says for each segment what goes on in its place. Sequence numbers wrap around; all distances are
 * below 2^31.
 *
 *     in    |  same  |  edit  |   same   |edit|    same    | in_next
 *                    |         \          \    \            \
 *     out   |  same  |   edit   |   same   |edit|    same    | out_next
 *            in_base ... what lies before is acknowledged and forgotten
 *
 * Each byte of an edit stands for its share of the new content, which may be several bytes or none:
 * so an acknowledgement inside an edit says nothing too much, the sender sees that there is
 * progress, and it holds something to send again until the last byte is through.
 *
 * It reads no packet, keeps no connection and takes no lock. What is told about segments is what
 * came over the network, and may be anything.
 */
#ifndef NQ_TABLE_SEQUENCE_H
#define NQ_TABLE_SEQUENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "table/blocks.h"

/* For each direction: edits kept, and bytes of the store that they take, at most. */
#define NQ_SEQUENCE_EDITS 4096
#define NQ_SEQUENCE_BYTES (4 << 20)
/* How far ahead data may be that does not wait, where the receiver's window is not known. */
#define NQ_SEQUENCE_HOLE (1 << 20)

struct nq_sequence {
	bool known;	 /* the numbers below are; else everything passes as it is */
	bool fresh;	 /* nothing but a SYN has passed */
	bool edited;	 /* there has been an edit, so the numbers may differ */
	bool finished;	 /* a FIN has passed: it is the last number */
	bool has_hint;	 /* the receiver acknowledged what has not passed here */
	bool has_last;	 /* the last byte that went out is known */
	bool narrow;	 /* what was longer than its sender's segments did not get through */
	bool wide;	 /* what was longer did: what does not later is lost */
	bool watches;	 /* something longer is on its way, at its first try: */
	bool has_window; /* the receiver's window is */
	uint8_t last;	 /* that byte */
	uint8_t repeats; /* times that something went again since an acknowledgement came */
	uint32_t start;	 /* number of the SYN */
	uint32_t in_next, out_next;    /* behind what has passed */
	uint32_t in_base, out_base;    /* behind what is acknowledged and forgotten */
	uint32_t acknowledged;	       /* by the receiver (out) */
	uint32_t hint;		       /* what it acknowledged beyond out_next */
	uint32_t window_end;	       /* the receiver takes nothing from there on (out) */
	uint32_t watched, watched_end; /* where that is (out) */
	uint32_t shorts;   /* segments to stay as short as their sender's before another try */
	uint32_t patience; /* how many that were at first, the last time */
	uint32_t largest;  /* payload of a segment not to be cut further, as its sender made it */
	uint32_t oldest, newest; /* edits: chains of blocks; 0: none */
	uint32_t edits, blocks;	 /* how many of each are kept */
};

/* A segment as its sender made it. */
struct nq_segment {
	uint32_t seq;
	bool syn, fin;
	bool super;	      /* longer than the wire takes: it is cut up later */
	bool waits;	      /* for data in front of it that has not passed */
	bool replaced;	      /* `content` is to go in the place of `bytes` */
	const uint8_t *bytes; /* its payload */
	uint32_t length;
	const uint8_t *content;
	uint32_t content_length;
	uint32_t room; /* payload that goes into one packet of this kind */
};

enum nq_passing {
	NQ_PASSED,	    /* as it was to be */
	NQ_PASSED_AGAIN,    /* the range had passed already */
	NQ_PASSED_BARE,	    /* behind a hole: without its data */
	NQ_PASSED_NOT_KEPT, /* the edit cannot be kept now: without its data */
};

/* What goes on in the place of a segment. */
struct nq_passage {
	enum nq_passing passing;
	uint32_t seq;
	bool fin;
	bool edited;	      /* a new edit was taken */
	bool cut;	      /* part of it did not fit */
	const uint8_t *bytes; /* those of the segment, of its content, or of `buffer` */
	uint32_t length;
};

/* Forgets everything; edits go back to the store. */
void nq_sequence_reset(struct nq_sequence *sequence, struct nq_blocks *blocks);

/* Begins with a SYN of this number, or in the middle: the next byte has this number in and out. */
void nq_sequence_start(struct nq_sequence *sequence, uint32_t syn);
void nq_sequence_start_in_middle(struct nq_sequence *sequence, uint32_t next);

/*
 * A segment with data, SYN or FIN. `buffer` holds NQ_SEQUENCE_BUFFER bytes. The sequence must be
 * known.
 */
#define NQ_SEQUENCE_BUFFER 65536
void nq_sequence_pass(struct nq_sequence *sequence, struct nq_blocks *blocks,
		      const struct nq_segment *segment, uint8_t *buffer,
		      struct nq_passage *passage);

/* The number of a segment that carries nothing: an acknowledgement, a keep-alive, or a reset. */
uint32_t nq_sequence_bare(const struct nq_sequence *sequence, const struct nq_blocks *blocks,
			  uint32_t seq);
uint32_t nq_sequence_of_reset(const struct nq_sequence *sequence, const struct nq_blocks *blocks,
			      uint32_t seq);

/* The receiver acknowledged everything before `ack` (out): content before it is forgotten. */
void nq_sequence_acknowledge(struct nq_sequence *sequence, struct nq_blocks *blocks, uint32_t ack);

/* From in to out. */
uint32_t nq_sequence_out(const struct nq_sequence *sequence, const struct nq_blocks *blocks,
			 uint32_t in);

/*
 * From out to in, for the end of what has been received (an acknowledgement, the right edge of a
 * SACK block), and for its beginning (a left edge).
 */
uint32_t nq_sequence_in(const struct nq_sequence *sequence, const struct nq_blocks *blocks,
			uint32_t out);
uint32_t nq_sequence_in_left(const struct nq_sequence *sequence, const struct nq_blocks *blocks,
			     uint32_t out);

/* a before b, modulo 2^32 (RFC 9293 section 3.4) */
static inline bool nq_before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

#endif
