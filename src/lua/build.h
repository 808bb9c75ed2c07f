/*
 * build.h - nfqueue.build: from the tables that describe a packet to struct nq_build.
 *
 * build.c puts the parts together, build_parts.c reads the tables of the headers, build_options.c
 * and build_extensions.c what has a length of its own. Not the bytes: packet/build.h.
 */
#ifndef NQ_LUA_BUILD_H
#define NQ_LUA_BUILD_H

#include <lua.h>

#include "packet/build.h"

/* build(description): see the doc block. */
int nq_packet_build(lua_State *L);

/* --- between the files; all raise, naming the key by its path ("tcp.options") --- */

/* Stack indices: the user's table, and the table that keeps strings made for it alive. */
enum { NQ_BUILD_ARGUMENT = 1, NQ_BUILD_ANCHOR = 2, NQ_BUILD_PATH = 64 };
enum { NQ_BUILD_OPTIONS6 = 2046 }; /* the most that 256 units of 8 bytes have room for */

/* What the tables say; `build` holds the defaults, or what answers a packet, before they are read.
 */
struct nq_description {
	struct nq_build build;
	bool is_reply;
	bool has_payload;
	uint32_t mtu;	/* 0: not split */
	uint32_t id;	/* ip.id, of either version */
	uint32_t given; /* NQ_GIVEN_* */
	uint16_t mss;
	uint8_t flag_mask, flag_bits; /* TCP's booleans: which are given, and those that are true */
	int flags;		      /* TCP's letters, or -1 */
	const uint8_t *embedded;      /* in an ICMP error */
	size_t embedded_length;
};

/* Keys whose presence matters beside their value. */
enum {
	NQ_GIVEN_SRC = 1 << 0,
	NQ_GIVEN_DST = 1 << 1,
	NQ_GIVEN_ID = 1 << 2,
	NQ_GIVEN_DF = 1 << 3,
	NQ_GIVEN_FRAGMENT = 1 << 4, /* mf or frag_offset */
	NQ_GIVEN_PROTOCOL = 1 << 5,
	NQ_GIVEN_IP_CHECKSUM = 1 << 6,
	NQ_GIVEN_IP_OPTIONS = 1 << 7,
	NQ_GIVEN_FLOW_LABEL = 1 << 8,
	NQ_GIVEN_EXTENSIONS = 1 << 9,
	NQ_GIVEN_SPORT = 1 << 10,
	NQ_GIVEN_DPORT = 1 << 11,
	NQ_GIVEN_ACK_SEQ = 1 << 12,
	NQ_GIVEN_WINDOW = 1 << 13,
	NQ_GIVEN_MSS = 1 << 14,
	NQ_GIVEN_TYPE = 1 << 15,
	NQ_GIVEN_EMBEDDED = 1 << 16,
};

/* What a key's value is, and where it goes. */
enum nq_build_kind {
	NQ_BUILD_U8,
	NQ_BUILD_U16,
	NQ_BUILD_U32,
	NQ_BUILD_BOOLEAN,
	NQ_BUILD_CHECKSUM,
	NQ_BUILD_FLAG,
	NQ_BUILD_OWN, /* read by a function of its own */
};

struct nq_build_key {
	const char *name;
	enum nq_build_kind kind;
	size_t at;	/* offset in struct nq_description; NQ_BUILD_FLAG: the bit */
	uint32_t given; /* NQ_GIVEN_* of its presence, or 0 */
	void (*read)(lua_State *L, struct nq_description *description, const char *path);
};

/* Reads the table at the top; `keys` ends with one without a name. */
void nq_build_read_part(lua_State *L, const char *part, const struct nq_build_key *keys,
			struct nq_description *description);

/* The tables at the top of the stack: ip, and the one of a transport ("tcp", "udp", "icmp"). */
void nq_build_read_ip(lua_State *L, struct nq_description *description);
void nq_build_read_transport(lua_State *L, enum nq_build_transport transport,
			     struct nq_description *description);

/* After all tables were read: defaults, and what does not go together. */
void nq_build_settle_transport(lua_State *L, struct nq_description *description);
void nq_build_settle_ip(lua_State *L, struct nq_description *description);

/*
 * Options of an IPv4 or a TCP header at the top of the stack: a string as it is, or a table of
 * values by kind, in ascending order; TCP's may be named. At most NQ_BUILD_OPTIONS bytes, whose
 * number it returns.
 */
uint8_t nq_build_read_options(lua_State *L, const char *path, bool is_tcp,
			      uint8_t options[NQ_BUILD_OPTIONS]);

/* The same for hop-by-hop and destination options of IPv6. */
size_t nq_build_read_options6(lua_State *L, const char *path, uint8_t options[NQ_BUILD_OPTIONS6]);

/* Puts an MSS option before `length` bytes of TCP options: the new length. */
uint8_t nq_build_add_mss(lua_State *L, uint8_t options[NQ_BUILD_OPTIONS], uint8_t length,
			 uint16_t mss);

/* Extension headers from the list at the top. */
void nq_build_read_extensions(lua_State *L, const char *path, struct nq_build_ip *ip);

/* Puts a fragment header (RFC 8200 section 4.5) where it belongs among the extension headers. */
void nq_build_add_fragment(lua_State *L, struct nq_build_ip *ip, uint32_t id);

/* Which of the names, up to a NULL, the key at `index` is; -1: none. */
int nq_build_find(lua_State *L, int index, const char *const *list);

/* The string at the top; "" for what is no text: another type, or a zero byte in it. */
const char *nq_build_text(lua_State *L);

/* Writes the path of a key, which no nesting makes longer than the room. */
void nq_build_path(char path[NQ_BUILD_PATH], const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Raises `unknown key 'path.key' to 'build'` for the key at `index`; path may be "". */
int nq_build_unknown(lua_State *L, int index, const char *path);

/* Raises unless the top is a table with so many items: `bad argument 'path' to 'build' (...)`. */
void nq_build_expect_list(lua_State *L, const char *path, const char *expected, lua_Unsigned least,
			  lua_Unsigned most);

/* Raises: longer than the `room` bytes there is room for. */
int nq_build_too_long(lua_State *L, const char *path, size_t room);

/* Raises `bad argument 'path' to 'build' (reason)`. */
int nq_build_refuse(lua_State *L, const char *path, const char *reason);

#endif
