#include <ctype.h>
#include <lauxlib.h>
#include <string.h>

#include "lua/lane.h"
#include "lua/sandbox.h"

/*
 * libpcap looks every word up that it does not know: hosts over the network, ports and protocols in
 * files. So in a sandbox, and where a socket would be the worker's end, its expressions consist of
 * numbers, addresses and these.
 */
static const char *const words[] = {
	"and",
	"or",
	"not",
	"host",
	"net",
	"mask",
	"port",
	"portrange",
	"src",
	"dst",
	"proto",
	"ip",
	"ip6",
	"tcp",
	"udp",
	"sctp",
	"icmp",
	"icmp6",
	"igmp",
	"ah",
	"esp",
	"pim",
	"vrrp",
	"len",
	"less",
	"greater",
	"broadcast",
	"multicast",
	"tcpflags",
	"tcp-fin",
	"tcp-syn",
	"tcp-rst",
	"tcp-push",
	"tcp-ack",
	"tcp-urg",
	"tcp-ece",
	"tcp-cwr",
	"icmptype",
	"icmpcode",
	"icmp-echoreply",
	"icmp-unreach",
	"icmp-sourcequench",
	"icmp-redirect",
	"icmp-echo",
	"icmp-routeradvert",
	"icmp-routersolicit",
	"icmp-timxceed",
	"icmp-paramprob",
	"icmp-tstamp",
	"icmp-tstampreply",
};

enum { EXPRESSION_MAX = 4096 };

static bool consists_of(const char *word, size_t length, const char *bytes)
{
	for (size_t i = 0; i < length; i++) {
		if (!strchr(bytes, word[i]))
			return false;
	}
	return true;
}

static bool is_harmless(const char *word, size_t length)
{
	static const char hexadecimal[] = "0123456789abcdefABCDEF";

	if (consists_of(word, length, "0123456789.-"))
		return true;
	if (length > 2 && word[0] == '0' && word[1] == 'x')
		return consists_of(word + 2, length - 2, hexadecimal);
	if (memchr(word, ':', length))
		return consists_of(word, length, "0123456789abcdefABCDEF:.");
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strlen(words[i]) == length && memcmp(words[i], word, length) == 0)
			return true;
	}
	return false;
}

static bool is_of_word(char byte)
{
	return isalnum((unsigned char)byte) || (byte && strchr("_.:-\\", byte));
}

void nq_sandbox_check_filter(lua_State *L, const char *expression, const char *function,
			     const char *name)
{
	if (!nq_sandbox_is(L) && !nq_state_get(L)->confined)
		return;
	if (strlen(expression) > EXPRESSION_MAX)
		luaL_error(L, "bad argument '%s' to '%s' (in a sandbox: at most %d bytes)", name,
			   function, (int)EXPRESSION_MAX);
	while (*expression) {
		const char *word = expression;

		while (is_of_word(*expression))
			expression++;
		if (expression == word) {
			expression++;
			continue;
		}
		if (!is_harmless(word, (size_t)(expression - word))) {
			lua_pushlstring(L, word, (size_t)(expression - word));
			luaL_error(
				L,
				"bad argument '%s' to '%s' (no name is looked up in a sandbox or "
				"a confined worker: '%s')",
				name, function, lua_tostring(L, -1));
		}
	}
}
