/*
 * Faults: scenarios of Lua (the files of scenarios/) through the whole core, once for every
 * allocation and system call that they make, which then fails: once, or from there on.
 *
 *     faults MOST                         at most so many of each kind; 0: all
 *     faults 0 SCENARIO [KIND [N [always|once [ERRNO]]]]      what is told when one fails
 *
 * Nothing may crash, hang or leak; every packet that was delivered gets the verdict it gets without
 * faults, or that of an error; what raises says why; and the state goes on working. Scenarios are
 * tables: prepare() is called first, run() with faults, check(fine, message) after them.
 */
#include <dirent.h>
#include <errno.h>
#include <lauxlib.h>
#include <lualib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "faults.h"
#include "lua/module.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum { SECONDS = 30, TRACEBACK = 1, SCENARIO = 2 };

static const int errors[] = {EINTR, EAGAIN, ENOBUFS, ENOMEM, EPERM, EMSGSIZE, FAULT_SHORT};

static struct fault {
	const char *scenario;
	enum fault_kind kind;
	uint64_t n;
	bool always;
	int error;
} fault;

static unsigned failures, runs;

static void tell(const char *what)
{
	printf("FAILED: %s: %s %s %lu fails%s with %s: %s\n", fault.scenario,
	       fault_names[fault.kind], fault.n ? "number" : "of none", (unsigned long)fault.n,
	       fault.always ? " and all after it" : "",
	       fault.error == FAULT_SHORT ? "a short result" : strerror(fault.error), what);
	failures++;
}

static void die(int signal)
{
	tell(signal == SIGALRM ? "it hangs" : strsignal(signal));
	fflush(stdout);
	_exit(1);
}

static int traceback(lua_State *L)
{
	luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
	return 1;
}

static unsigned count_descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	unsigned count = 0;

	while (readdir(folder))
		count++;
	closedir(folder);
	return count;
}

/* Opens what scenarios use; the scenario, if any, is at SCENARIO. */
static int prepare(lua_State *L)
{
	const char *path = lua_touserdata(L, 1);

	luaL_openlibs(L);
	luaL_requiref(L, "nfqueue.core", luaopen_nfqueue_core, 1);
	if (!path)
		return 0;
	kernel_register(L);
	if (luaL_loadfile(L, path))
		return lua_error(L);
	lua_call(L, 0, 1);
	if (lua_getfield(L, -1, "prepare") == LUA_TFUNCTION)
		lua_call(L, 0, 0);
	else
		lua_pop(L, 1);
	return 1;
}

static bool explained(const char *message)
{
	return message && (strstr(message, "not enough memory") || strstr(message, "emory") ||
			   (fault.error == EAGAIN && strstr(message, "locked")) ||
			   (fault.error == EPERM && (strstr(message, "no privilege") ||
						     strstr(message, "held by another"))) ||
			   (fault.error != FAULT_SHORT && strstr(message, strerror(fault.error))));
}

/* The scenario's function, with what lies above it. */
static int call(lua_State *L, const char *name, int arguments)
{
	if (lua_getfield(L, SCENARIO, name) != LUA_TFUNCTION) {
		lua_pop(L, 1 + arguments);
		lua_pushnil(L);
		return LUA_OK;
	}
	lua_insert(L, -1 - arguments);
	return lua_pcall(L, arguments, 1, TRACEBACK);
}

static void run_scenario(lua_State *L, bool first)
{
	bool excused;
	int status;

	lua_getfield(L, SCENARIO, "run");
	fault_arm(fault.kind, fault.n, fault.always, fault.error);
	/* Without a traceback, which memory may not be there for. */
	status = lua_pcall(L, 0, 1, 0);
	fault_disarm();
	if (status != LUA_OK && first)
		tell(lua_tostring(L, -1));
	else if (status != LUA_OK && !explained(lua_tostring(L, -1)))
		tell(lua_isstring(L, -1) ? lua_tostring(L, -1) : "an error without a message");
	excused = lua_toboolean(L, -1);
	lua_pushboolean(L, status == LUA_OK);
	lua_insert(L, -2);
	if (call(L, "check", 2) != LUA_OK)
		tell(lua_tostring(L, -1));
	lua_settop(L, SCENARIO);
	if (kernel_judge(first, excused || fault_given_up()))
		tell(kernel_judge(false, true));
}

/* One life of a state. `path` NULL: only its birth, with faults. */
static void run(const char *path, bool first)
{
	unsigned descriptors = count_descriptors();
	int64_t blocks = fault_blocks(), mapped = fault_mapped(), used = 0;
	lua_State *L;

	runs++;
	alarm(SECONDS);
	kernel_begin();
	if (!path)
		fault_arm(fault.kind, fault.n, fault.always, fault.error);
	L = lua_newstate(fault_lua_alloc, &used);
	if (L) {
		if (path)
			lua_pushcfunction(L, traceback);
		lua_pushcfunction(L, prepare);
		lua_pushlightuserdata(L, (void *)path);
		if (lua_pcall(L, 1, LUA_MULTRET, path ? TRACEBACK : 0) != LUA_OK &&
		    (path || first || !explained(lua_tostring(L, -1))))
			tell(lua_tostring(L, -1));
		else if (path)
			run_scenario(L, first);
		fault_disarm();
		lua_close(L);
	}
	fault_disarm();
	kernel_run();
	kernel_end();
	if (used != 0)
		tell("Lua's memory is not all given back");
	if (fault_blocks() != blocks)
		tell(fault_blocks() < blocks ? "more blocks are freed than were taken"
					     : "blocks are not all given back");
	if (fault_mapped() != mapped)
		tell("mapped memory is not all given back");
	if (count_descriptors() != descriptors)
		tell("descriptors are left open");
}

static bool can_be_short(int kind)
{
	return kind == FAULT_SEND || kind == FAULT_SENDMSG || kind == FAULT_READ ||
	       kind == FAULT_WRITE || kind == FAULT_PREAD;
}

/* The n-th call of the kind fails, once and from there on, with each of its errors; of a sample
 * with one of them. */
static void fail_call(const char *path, enum fault_kind kind, uint64_t n, bool sample)
{
	bool memory = kind == FAULT_LUA || kind == FAULT_MEMORY;
	size_t count = memory ? 1 : COUNT(errors);

	for (size_t i = 0; i < 2 * count; i++) {
		int error = memory ? ENOMEM : errors[i / 2];

		if ((error == FAULT_SHORT && !can_be_short(kind)) ||
		    (sample && !memory && i != (n * 5 + kind) % (2 * count)))
			continue;
		fault = (struct fault){fault.scenario, kind, n, i % 2 != 0, error};
		run(path, false);
	}
}

static void sweep(const char *scenario, const char *path, uint64_t most)
{
	uint64_t counts[FAULT_KINDS];
	unsigned before = runs;

	fault = (struct fault){.scenario = scenario, .error = ENOMEM};
	run(path, true);
	for (int kind = 0; kind < FAULT_KINDS; kind++)
		counts[kind] = fault_count((enum fault_kind)kind);
	for (int kind = FAULT_LUA; kind < FAULT_KINDS; kind++) {
		uint64_t step = most && counts[kind] > most ? counts[kind] / most : 1;

		for (uint64_t n = 1; n <= counts[kind]; n += step)
			fail_call(path, (enum fault_kind)kind, n, most > 0);
	}
	printf("%s: %u runs, %lu allocations of Lua, %lu in C\n", scenario, runs - before,
	       (unsigned long)counts[FAULT_LUA], (unsigned long)counts[FAULT_MEMORY]);
	fflush(stdout);
}

static int compare(const void *a, const void *b)
{
	return strcmp(a, b);
}

int main(int argc, char **argv)
{
	static const char folder[] = "spec/faults/scenarios";
	static char names[32][256], path[sizeof(folder) + 300];
	unsigned count = 0;
	uint64_t most = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
	const struct dirent *entry;
	DIR *open;

	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGSEGV, die);
	signal(SIGABRT, die);
	signal(SIGBUS, die);
	signal(SIGALRM, die);
	if (argc > 2) {
		snprintf(path, sizeof(path), "%s/%s.lua", folder, argv[2]);
		if (argc == 3) {
			sweep(argv[2], strcmp(argv[2], "birth") ? path : NULL, most);
			printf("%u runs, %u failures\n", runs, failures);
			return failures > 0;
		}
		fault_show_log(true);
		fault = (struct fault){.scenario = argv[2], .error = ENOMEM};
		run(strcmp(argv[2], "birth") ? path : NULL, true);
		for (int kind = 0; kind < FAULT_KINDS; kind++) {
			printf("%s: %lu\n", fault_names[kind],
			       (unsigned long)fault_count((enum fault_kind)kind));
			if (strcmp(fault_names[kind], argv[3]) == 0)
				fault.kind = (enum fault_kind)kind;
		}
		fault.n = argc > 4 ? strtoul(argv[4], NULL, 10) : 1;
		fault.always = argc > 5 && strcmp(argv[5], "always") == 0;
		fault.error = argc > 6 ? atoi(argv[6]) : ENOMEM;
		run(strcmp(argv[2], "birth") ? path : NULL, false);
		return failures > 0;
	}
	open = opendir(folder);
	if (!open) {
		perror(folder);
		return 1;
	}
	while ((entry = readdir(open)) != NULL && count < 32) {
		const char *dot = strrchr(entry->d_name, '.');

		if (dot && strcmp(dot, ".lua") == 0)
			snprintf(names[count++], sizeof(names[0]), "%.*s",
				 (int)(dot - entry->d_name), entry->d_name);
	}
	closedir(open);
	qsort(names, count, sizeof(names[0]), compare);
	sweep("birth", NULL, most);
	for (unsigned i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "%s/%.200s.lua", folder, names[i]);
		sweep(names[i], path, most);
	}
	printf("%u runs, %u failures\n", runs, failures);
	return failures > 0;
}
