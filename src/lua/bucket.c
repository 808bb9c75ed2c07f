#include "table/bucket.h"

#include <errno.h>
#include <stdio.h>

#include "lua/args.h"
#include "lua/tables.h"

#define WHAT "bucket"

static const char metatable_key;

static struct nq_bucket *check_bucket(lua_State *L, const char *method)
{
	return (struct nq_bucket *)nq_tables_check(L, method, WHAT)->table;
}

/***
Take tokens from a key's bucket, which is the same for all queues.
@function bucket:take
@tparam string key of any length: an address, a name, both
@tparam[opt=1] number n tokens, also fractions; more than `burst` are never there
@treturn boolean whether there were as many; if not, none is taken
@raise for arguments of a wrong type
@usage if not limit:take(pkt.ip.src) then return pkt:drop() end
*/
static int bucket_take(lua_State *L)
{
	struct nq_bucket *bucket = check_bucket(L, "take");
	const struct nq_clock *clock = ((struct nq_tables_handle *)lua_touserdata(L, 1))->clock;
	size_t length;
	const char *key = nq_arg_string(L, 2, "take", "key", &length);
	double count = 1;

	if (!lua_isnoneornil(L, 3))
		count = nq_tables_number(L, 3, "take", "n", 0, 1e15);
	lua_pushboolean(L, nq_bucket_take(bucket, key, length, count, clock));
	return 1;
}

/***
What there is: `keys` (buckets), `max`, `evicted` (those that went because there were `max`).
@function bucket:stats
@treturn table of integers
*/
static int bucket_stats(lua_State *L)
{
	struct nq_bucket *bucket = check_bucket(L, "stats");
	struct nq_bucket_options options;
	struct nq_lru_stats stats;

	nq_bucket_stats(bucket, &stats);
	nq_bucket_options(bucket, &options);
	lua_createtable(L, 0, 3);
	lua_pushinteger(L, (lua_Integer)stats.entries);
	lua_setfield(L, -2, "keys");
	lua_pushinteger(L, options.max);
	lua_setfield(L, -2, "max");
	lua_pushinteger(L, (lua_Integer)stats.evicted);
	lua_setfield(L, -2, "evicted");
	return 1;
}

static int bucket_tostring(lua_State *L)
{
	return nq_tables_tostring(L, WHAT);
}

static int bucket_gc(lua_State *L)
{
	return nq_tables_gc(L, WHAT);
}

void nq_bucket_register(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{"take", bucket_take},
		{"stats", bucket_stats},
		{NULL, NULL},
	};
	static const luaL_Reg metamethods[] = {
		{"__tostring", bucket_tostring},
		{"__gc", bucket_gc},
		{NULL, NULL},
	};

	nq_class_make(L, &metatable_key, "nfqueue.bucket", WHAT, methods, metamethods);
}

static double read_option(lua_State *L, const char *name, double least, double most)
{
	double value = 0;

	if (lua_getfield(L, 2, name) != LUA_TNIL)
		value = nq_tables_number(L, -1, "bucket", name, least, most);
	lua_pop(L, 1);
	return value;
}

static void read_options(lua_State *L, struct nq_bucket_options *options)
{
	static const char *const known[] = {"rate", "burst", "max", NULL};

	*options = (struct nq_bucket_options){.rate = 0};
	if (lua_isnoneornil(L, 2))
		return;
	nq_arg_table(L, 2, "bucket", "options");
	nq_tables_known(L, 2, "bucket", known);
	options->rate = read_option(L, "rate", 1e-9, 1e12);
	options->burst = read_option(L, "burst", 1e-9, 1e15);
	if (lua_getfield(L, 2, "max") != LUA_TNIL)
		options->max =
			(uint32_t)nq_arg_integer(L, -1, "bucket", "max", 1, NQ_BUCKET_MAX_MOST);
	lua_pop(L, 1);
}

/***
Token buckets of this name, one for each key that is asked for: the same for all queues of the
process, since one source reaches several. A bucket begins with `burst` tokens and gains `rate` a
second up to that.
@function bucket
@tparam string name 1 to 255 bytes
@tparam[opt] table options `rate` (tokens a second, needed by who asks first), `burst` (tokens,
default: those of one second, at least 1), `max` (buckets kept, from 1 to 67,108,864, default
65,536: the one used longest ago goes, and is full when it comes again; 68 bytes each)
@treturn bucket or nil, message, errno
@raise for a wrong option, naming it, and when buckets of this name exist with other ones
@usage local limit = nfqueue.bucket("sources", { rate = 100, burst = 200 })
*/
int nq_bucket_open(lua_State *L)
{
	const char *name = nq_tables_name(L, 1, "bucket");
	struct nq_bucket_options options, have;
	struct nq_tables_handle *handle;
	char text[160];
	int error;

	read_options(L, &options);
	handle = nq_tables_push(L, &metatable_key);
	error = nq_tables_obtain(L, handle, &nq_bucket_class, name, &options);
	if (error == -EINVAL) {
		lua_pushnil(L);
		return nq_arg_error(L, -1, "bucket", "rate", "number from 1e-09 to 1000000000000");
	}
	if (error == -EEXIST) {
		nq_bucket_options((const struct nq_bucket *)handle->table, &have);
		snprintf(text, sizeof(text), "rate %.14g, burst %.14g and max %u", have.rate,
			 have.burst, have.max);
		return luaL_error(L, "bad argument 'options' to 'bucket' ('%s' exists with %s)",
				  name, text);
	}
	return error ? nq_tables_failure(L, error, WHAT, name) : 1;
}
