#include "lua/capture.h"

#include <lauxlib.h>
#include <string.h>

#include "lua/args.h"
#include "lua/packet.h"
#include "packet/capture_file.h"

static const char reader_key, writer_key;

struct reader {
	struct nq_reader *file; /* NULL: closed */
};

struct writer {
	struct nq_writer *file; /* NULL: closed */
	enum nq_writer_link link;
};

/* The object at 1 whose metatable is at `key`. Raises for anything else. */
static void *check_object(lua_State *L, const void *key, const char *method, const char *name)
{
	void *object = lua_touserdata(L, 1);

	if (object && lua_getmetatable(L, 1)) {
		lua_rawgetp(L, LUA_REGISTRYINDEX, key);
		if (lua_rawequal(L, -1, -2)) {
			lua_pop(L, 2);
			return object;
		}
	}
	nq_arg_error(L, 1, method, "self", name);
	return NULL;
}

static struct reader *check_reader(lua_State *L, const char *method)
{
	return check_object(L, &reader_key, method, "reader");
}

static struct writer *check_writer(lua_State *L, const char *method)
{
	return check_object(L, &writer_key, method, "writer");
}

static const char *check_path(lua_State *L, const char *function)
{
	size_t length;
	const char *path = nq_arg_string(L, 1, function, "path", &length);

	if (strlen(path) != length)
		luaL_error(L, "bad argument 'path' to '%s' (it contains a zero byte)", function);
	return path;
}

static bool push_method(lua_State *L, const luaL_Reg *methods, const char *name)
{
	for (; methods->name; methods++) {
		if (strcmp(methods->name, name) == 0) {
			lua_pushcfunction(L, methods->func);
			return true;
		}
	}
	return false;
}

static int push_failure(lua_State *L, const struct nq_capture_failure *failure)
{
	return nq_push_failure(L, failure->error, failure->message);
}

/***
Open a capture file, pcap or pcapng, whatever its name. Packets are read from link types NFLOG, RAW,
IPV4, IPV6, Ethernet (with VLAN tags), Linux cooked (1 and 2), PPP, NULL and LOOP.
@function pcap.open
@tparam string path
@treturn reader `for pkt, prefix in reader do`; or nil, message, errno: no such file, no capture
file or a link type that is not known (EINVAL), no libpcap in this build (ENOTSUP)
@raise for a path that is none
@usage for pkt in assert(nfqueue.pcap.open("in.pcap")) do print(pkt) end
*/
static int capture_open(lua_State *L)
{
	const char *path = check_path(L, "open");
	struct nq_capture_failure failure;
	struct reader *reader = lua_newuserdatauv(L, sizeof(*reader), 0);

	reader->file = NULL;
	lua_rawgetp(L, LUA_REGISTRYINDEX, &reader_key);
	lua_setmetatable(L, -2);
	reader->file = nq_reader_open(path, &failure);
	return reader->file ? 1 : push_failure(L, &failure);
}

/* Pushes a made packet with a copy of the bytes. */
static void push_packet(lua_State *L, const struct nq_packet *packet)
{
	struct nq_made_packet *made = nq_packet_new_made(L);
	int self = lua_gettop(L);
	uint8_t *bytes = lua_newuserdatauv(L, packet->length, 0);

	if (packet->length)
		memcpy(bytes, packet->data, packet->length);
	lua_setiuservalue(L, self, 1);
	made->packet = *packet;
	made->packet.data = bytes;
	made->packet.l2header = NULL;
	if (packet->l2header) {
		lua_createtable(L, 0, 1);
		made->packet.l2header = (const uint8_t *)lua_pushlstring(
			L, (const char *)packet->l2header, packet->l2header_length);
		lua_setfield(L, -2, "l2header");
		lua_setiuservalue(L, self, 3);
	}
}

/* Pushes the next packet and its prefix: 2; nothing at the end: 0; or -1 with *failure. */
static int push_next(lua_State *L, struct reader *reader, struct nq_capture_failure *failure)
{
	struct nq_packet packet = {.spare = NULL};
	struct nq_capture_note note;
	int got = nq_reader_next(reader->file, &packet, &note, failure);

	if (got <= 0)
		return got;
	push_packet(L, &packet);
	if (note.prefix)
		lua_pushlstring(L, note.prefix, note.prefix_length);
	else
		lua_pushnil(L);
	return 2;
}

static struct reader *check_open_reader(lua_State *L, const char *method)
{
	struct reader *reader = check_reader(L, method);

	if (!reader->file)
		luaL_error(L, "reader is closed");
	return reader;
}

/***
The next packet, as nfqueue.packet makes them, with what the file tells: time, length on the wire,
sender, VLAN, interfaces, and of link type NFLOG queue, mark, hook, user. Records without an IP
packet are passed over: see `reader.skipped`.
@function reader:read
@treturn packet nil at the end of the file; or nil, message, errno (EINVAL) where it is damaged
@treturn string|nil NFLOG's prefix, in recordings of nfqueue the verdict
@raise `reader is closed`
*/
static int reader_read(lua_State *L)
{
	struct reader *reader = check_open_reader(L, "read");
	struct nq_capture_failure failure;
	int results;

	lua_settop(L, 1);
	results = push_next(L, reader, &failure);
	if (results < 0)
		return push_failure(L, &failure);
	if (results == 0)
		lua_pushnil(L);
	return results ? results : 1;
}

/***
The same for a loop, `for pkt, prefix in reader do`, which ends at the end of the file.
@function reader:__call
@treturn packet nil at the end of the file
@treturn string|nil NFLOG's prefix
@raise where the file is damaged; `reader is closed`
*/
static int reader_call(lua_State *L)
{
	struct reader *reader = check_open_reader(L, "reader");
	struct nq_capture_failure failure;
	int results;

	lua_settop(L, 1);
	results = push_next(L, reader, &failure);
	if (results < 0)
		return luaL_error(L, "%s", failure.message);
	if (results == 0)
		lua_pushnil(L);
	return results ? results : 1;
}

/***
Close the file, once; the garbage collector and a to-be-closed variable do it too.
@function reader:close
*/
static int reader_close(lua_State *L)
{
	struct reader *reader = check_reader(L, "close");

	nq_reader_close(reader->file);
	reader->file = NULL;
	return 0;
}

static const luaL_Reg reader_methods[] = {
	{"read", reader_read}, {"close", reader_close}, {NULL, NULL}};

/* `skipped`: records without an IP packet so far; `linktype`: in libpcap's words; and methods. */
static int reader_index(lua_State *L)
{
	const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";

	check_reader(L, "index");
	if (push_method(L, reader_methods, name))
		return 1;
	if (strcmp(name, "skipped") == 0)
		lua_pushinteger(L,
				(lua_Integer)nq_reader_skipped(check_open_reader(L, name)->file));
	else if (strcmp(name, "linktype") == 0)
		lua_pushstring(L, nq_reader_link(check_open_reader(L, name)->file));
	else
		return luaL_error(L, "reader has no field '%s'", luaL_tolstring(L, 2, NULL));
	return 1;
}

static int reader_tostring(lua_State *L)
{
	lua_pushstring(L, check_reader(L, "tostring")->file ? "reader" : "reader (closed)");
	return 1;
}

struct create_options {
	enum nq_writer_link link;
	bool append;
};

static void read_options(lua_State *L, struct create_options *options)
{
	*options = (struct create_options){.link = NQ_WRITER_NFLOG};
	if (lua_isnoneornil(L, 2))
		return;
	nq_arg_table(L, 2, "create", "options");
	lua_pushnil(L);
	while (lua_next(L, 2)) {
		const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";

		if (strcmp(name, "linktype") == 0) {
			const char *link =
				lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";

			if (strcmp(link, "raw") == 0)
				options->link = NQ_WRITER_RAW;
			else if (strcmp(link, "nflog") != 0)
				nq_arg_error(L, -1, "create", "linktype", "\"nflog\" or \"raw\"");
		} else if (strcmp(name, "append") == 0) {
			options->append = nq_arg_boolean(L, -1, "create", "append");
		} else {
			luaL_error(L, "unknown option '%s' to 'create' (known: linktype, append)",
				   luaL_tolstring(L, -2, NULL));
		}
		lua_pop(L, 1);
	}
}

/***
Make a pcap file that packets are written to; one that is there is emptied. Each record is in the
file when `write` returns, so nothing has to be flushed. Several threads, or processes, that create
the same path while others have it open write one file, a whole record at a time. A path may name a
pipe
("/dev/stdout").
@function pcap.create
@tparam string path
@tparam[opt] table options `linktype` (default `"nflog"`, which has room for queue, mark,
interfaces, user and verdict, and is read by tshark and tcpdump; `"raw"`: the packets alone),
`append` (boolean, default false: a file of that link type is continued, say by the worker that
follows a dead one)
@treturn writer or nil, message, errno: cannot be made, cannot be continued (EINVAL), no libpcap in
this build (ENOTSUP)
@raise for a wrong or an unknown option
@usage local record = assert(nfqueue.pcap.create("dropped.pcap"))
*/
static int capture_create(lua_State *L)
{
	const char *path = check_path(L, "create");
	struct nq_capture_failure failure;
	struct create_options options;
	struct writer *writer;

	lua_settop(L, 2);
	read_options(L, &options);
	writer = lua_newuserdatauv(L, sizeof(*writer), 0);
	*writer = (struct writer){.link = options.link};
	lua_rawgetp(L, LUA_REGISTRYINDEX, &writer_key);
	lua_setmetatable(L, -2);
	writer->file = nq_writer_create(path, options.link, options.append, &failure);
	return writer->file ? 1 : push_failure(L, &failure);
}

/* The prefix at 3: what is given, else the packet's verdict. */
static const char *check_prefix(lua_State *L, const struct writer *writer,
				const struct nq_packet *packet)
{
	size_t length;
	const char *prefix;

	if (lua_isnoneornil(L, 3))
		return nq_verdict_name(packet->verdict);
	prefix = nq_arg_string(L, 3, "write", "verdict", &length);
	if (length > NQ_CAPTURE_PREFIX || strlen(prefix) != length)
		luaL_error(L,
			   "bad argument 'verdict' to 'write' (at most %d bytes, none of them "
			   "zero)",
			   NQ_CAPTURE_PREFIX);
	if (writer->link == NQ_WRITER_RAW)
		luaL_error(L, "bad argument 'verdict' to 'write' (link type raw has no room for "
			      "it)");
	return prefix;
}

/***
Write a packet as it is now, with its own time, or the present where it has none.
@function writer:write
@tparam packet pkt
@tparam[opt] string verdict any text of at most 127 bytes, kept as NFLOG's prefix; default the
packet's verdict, if it has one
@treturn boolean true; or nil, message, errno: nothing of it is in the file then
@raise `writer is closed`, `packet is no longer valid`, and for anything else
*/
static int writer_write(lua_State *L)
{
	struct writer *writer = check_writer(L, "write");
	const struct nq_packet *packet = nq_packet_at(L, 2);
	struct nq_capture_failure failure;
	const char *prefix;

	if (!packet) {
		nq_arg_error(L, 2, "write", "pkt", "packet");
		return 0; /* not reached */
	}
	prefix = check_prefix(L, writer, packet);
	if (!writer->file)
		return luaL_error(L, "writer is closed");
	if (!nq_writer_write(writer->file, packet, prefix, &failure))
		return push_failure(L, &failure);
	lua_pushboolean(L, 1);
	return 1;
}

/***
Close the file, once; the garbage collector and a to-be-closed variable do it too.
@function writer:close
*/
static int writer_close(lua_State *L)
{
	struct writer *writer = check_writer(L, "close");

	nq_writer_close(writer->file);
	writer->file = NULL;
	return 0;
}

static const luaL_Reg writer_methods[] = {
	{"write", writer_write}, {"close", writer_close}, {NULL, NULL}};

static int writer_index(lua_State *L)
{
	const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";

	check_writer(L, "index");
	if (push_method(L, writer_methods, name))
		return 1;
	return luaL_error(L, "writer has no field '%s'", luaL_tolstring(L, 2, NULL));
}

static int writer_tostring(lua_State *L)
{
	lua_pushstring(L, check_writer(L, "tostring")->file ? "writer" : "writer (closed)");
	return 1;
}

static void register_class(lua_State *L, const void *key, const char *name,
			   const luaL_Reg *metamethods)
{
	lua_newtable(L);
	luaL_setfuncs(L, metamethods, 0);
	lua_pushstring(L, name);
	lua_pushvalue(L, -1);
	lua_setfield(L, -3, "__name");
	lua_setfield(L, -2, "__metatable");
	lua_rawsetp(L, LUA_REGISTRYINDEX, key);
}

void nq_capture_push(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{"open", capture_open}, {"create", capture_create}, {NULL, NULL}};
	static const luaL_Reg reader[] = {
		{"__call", reader_call},   {"__index", reader_index},
		{"__close", reader_close}, {"__tostring", reader_tostring},
		{"__gc", reader_close},	   {NULL, NULL},
	};
	static const luaL_Reg writer[] = {
		{"__index", writer_index},
		{"__close", writer_close},
		{"__tostring", writer_tostring},
		{"__gc", writer_close},
		{NULL, NULL},
	};

	register_class(L, &reader_key, "nfqueue.reader", reader);
	register_class(L, &writer_key, "nfqueue.writer", writer);
	luaL_newlib(L, functions);
}
