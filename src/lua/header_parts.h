/*
 * header_parts.h - what the files of the header classes share: header.c (the classes), and what
 * their fields are read (header_fields.c) and assigned (header_set.c) with. Not for others.
 */
#ifndef NQ_LUA_HEADER_PARTS_H
#define NQ_LUA_HEADER_PARTS_H

#include "lua/header.h"

/* One class a protocol; `ip4` and `ip6` are the same class as `ip`. */
enum class { CLASS_IP, CLASS_TCP, CLASS_UDP, CLASS_ICMP, CLASS_COUNT };

extern const char *const nq_header_class_names[CLASS_COUNT];

/* Codes of the fields: positions in the class's names, from 1; methods come behind the fields. */
enum ip_field {
	FIELD_IP_VERSION = 1,
	FIELD_IP_SRC,
	FIELD_IP_DST,
	FIELD_IP_SRC_BYTES,
	FIELD_IP_DST_BYTES,
	FIELD_IP_TTL,
	FIELD_IP_TOS,
	FIELD_IP_ID,
	FIELD_IP_DF,
	FIELD_IP_MF,
	FIELD_IP_FRAG_OFFSET,
	FIELD_IP_LENGTH,
	FIELD_IP_PROTOCOL,
	FIELD_IP_CHECKSUM,
	FIELD_IP_OFFSET,
};

enum tcp_field {
	FIELD_TCP_SPORT = 1,
	FIELD_TCP_DPORT,
	FIELD_TCP_SEQ,
	FIELD_TCP_ACK_SEQ,
	FIELD_TCP_FLAGS,
	FIELD_TCP_WINDOW,
	FIELD_TCP_URG_PTR,
	FIELD_TCP_MSS,
	FIELD_TCP_CHECKSUM,
	FIELD_TCP_FIN, /* the booleans, in the order of their bits */
	FIELD_TCP_SYN,
	FIELD_TCP_RST,
	FIELD_TCP_PSH,
	FIELD_TCP_ACK,
	FIELD_TCP_URG,
	FIELD_TCP_ECE,
	FIELD_TCP_CWR,
	FIELD_TCP_OFFSET,
	FIELD_TCP_OPTION, /* methods */
	FIELD_TCP_SET_OPTION,
};

enum udp_field {
	FIELD_UDP_SPORT = 1,
	FIELD_UDP_DPORT,
	FIELD_UDP_LENGTH,
	FIELD_UDP_CHECKSUM,
	FIELD_UDP_OFFSET
};

enum icmp_field {
	FIELD_ICMP_TYPE = 1,
	FIELD_ICMP_CODE,
	FIELD_ICMP_ID,
	FIELD_ICMP_SEQ,
	FIELD_ICMP_CHECKSUM,
	FIELD_ICMP_OFFSET,
	FIELD_ICMP_EMBEDDED
};

/*
 * First line of every method. The header is looked for again, since the content may have been
 * replaced; usually the layout is known. Raises for other values and dead packets.
 */
struct nq_packet *nq_header_check(lua_State *L, enum class class, const char *method,
				  uint32_t *offset);

/* Pushes a field of the header at `offset`; the layout is known. */
void nq_header_push_field(lua_State *L, struct nq_packet *packet, enum class class, unsigned code,
			  uint32_t offset);

/*
 * Assigns the value at index 3 to the field. Raises: for fields that decide the layout, naming
 * them, for values that do not fit, and with the reason for edits that are refused.
 */
void nq_header_set_field(lua_State *L, struct nq_packet *packet, enum class class, unsigned code,
			 uint32_t offset);

/* tcp:set_option(kind, bytes) */
int nq_tcp_set_option(lua_State *L);

#endif
