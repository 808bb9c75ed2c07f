#include "lua/module.h"

#include <errno.h>
#include <lauxlib.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/log.h"
#include "host/namespace.h"
#include "lua/args.h"
#include "lua/build.h"
#include "lua/capture.h"
#include "lua/config.h"
#include "lua/control.h"
#include "lua/filter.h"
#include "lua/flows.h"
#include "lua/header.h"
#include "lua/lane.h"
#include "lua/load.h"
#include "lua/packet.h"
#include "lua/queue.h"
#include "lua/rewrite.h"
#include "lua/run.h"
#include "lua/sandbox.h"
#include "lua/send.h"
#include "lua/tables.h"

static const char loaded_key;

/* log(level, message): 0 debug to 3 error; at most 20 lines a second from one state. */
static int core_log(lua_State *L)
{
	enum nq_log_level level = (enum nq_log_level)nq_arg_integer(L, 1, "log", "level", 0, 3);
	const char *message = nq_arg_string(L, 2, "log", "message", NULL);
	uint64_t suppressed;

	if (!nq_log_enabled(level) || !nq_log_allow(&nq_state_get(L)->limit, 20, &suppressed))
		return 0;
	if (suppressed)
		nq_log(NQ_LOG_WARN,
		       "%llu lines of the script were not logged: more than 20 a second",
		       (unsigned long long)suppressed);
	nq_log(level, "%s", message);
	return 0;
}

/* cores() -> number of processors this process may use */
static int core_cores(lua_State *L)
{
	cpu_set_t set;

	lua_pushinteger(L, sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1);
	return 1;
}

/* enter_namespace() -> true, or nil, message, errno: see host/namespace.h */
static int core_enter_namespace(lua_State *L)
{
	int error = nq_namespace_enter();

	if (error)
		return nq_push_failure(L, -error, strerror(-error));
	lua_pushboolean(L, 1);
	return 1;
}

/* execute(list of strings) -> does not return; or nil, message, errno */
static int core_execute(lua_State *L)
{
	size_t count;
	const char **words;

	nq_arg_table(L, 1, "execute", "words");
	count = (size_t)lua_rawlen(L, 1);
	words = lua_newuserdatauv(L, (count + 1) * sizeof(*words), 0);
	luaL_checkstack(L, (int)count + 4, "too many words");
	for (size_t i = 0; i < count; i++) {
		lua_rawgeti(L, 1, (lua_Integer)i + 1);
		words[i] = nq_arg_string(L, -1, "execute", "words", NULL);
	}
	words[count] = NULL;
	if (count)
		execvp(words[0], (char *const *)words);
	return nq_push_failure(L, count ? errno : EINVAL, strerror(count ? errno : EINVAL));
}

/* setenv(name, value) */
static int core_setenv(lua_State *L)
{
	const char *name = nq_arg_string(L, 1, "setenv", "name", NULL);
	const char *value = nq_arg_string(L, 2, "setenv", "value", NULL);

	if (setenv(name, value, 1) < 0)
		return nq_push_failure(L, errno, strerror(errno));
	lua_pushboolean(L, 1);
	return 1;
}

/* geteuid() -> effective user id */
static int core_geteuid(lua_State *L)
{
	lua_pushinteger(L, geteuid());
	return 1;
}

int luaopen_nfqueue_core(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{"new", nq_queue_new},
		{"start", nq_queue_start},
		{"stop", nq_queue_stop_all},
		{"packet", nq_packet_make},
		{"build", nq_packet_build},
		{"flows", nq_flows_make},
		{"rewrite", nq_rewrite_make},
		{"send", nq_send},
		{"filter", nq_filter_make},
		{"load", nq_load},
		{"wrap", nq_wrap},
		{"shared", nq_store_open},
		{"bucket", nq_bucket_open},
		{"cidrset", nq_cidrset_open},
		{"domainset", nq_domainset_open},
		{"tables_clock", nq_tables_clock},
		{"after", nq_timer_after},
		{"every", nq_timer_every},
		{"now", nq_timer_now},
		{"run", nq_run},
		{"supervise", nq_run_supervised},
		{"enclose", nq_enclose},
		{"ask", nq_ask},
		{"is_name", nq_is_name},
		{"config_keys", nq_config_keys},
		{"log", core_log},
		{"cores", core_cores},
		{"enter_namespace", core_enter_namespace},
		{"execute", core_execute},
		{"setenv", core_setenv},
		{"geteuid", core_geteuid},
		{NULL, NULL},
	};

	/* Once a state, however often it is required: the handles of both copies must be of one
	 * class. */
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, &loaded_key) == LUA_TTABLE)
		return 1;
	nq_state_register(L);
	nq_watch_register(L);
	nq_header_register(L);
	nq_packet_register(L);
	nq_queue_register(L);
	nq_load_register(L);
	nq_rewrite_register(L);
	nq_filter_register(L);
	nq_tables_register(L);
	nq_timer_register(L);
	nq_flows_register(L);
	luaL_newlib(L, functions);
	lua_pushstring(L, NQ_VERSION);
	lua_setfield(L, -2, "version");
	nq_capture_push(L);
	lua_setfield(L, -2, "pcap");
	lua_pushboolean(L, nq_pcap_available());
	lua_setfield(L, -2, "has_pcap");
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &loaded_key);
	return 1;
}
