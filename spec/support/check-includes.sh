#!/bin/sh
# The folders of src/ may include themselves and those below: lua -> host -> netlink, table -> packet.
# lua.h belongs to src/lua and main.c alone.
set -eu
status=0

check() {
	folder=$1
	allowed=$2
	found=$(grep -nE '^#include "' "src/$folder"/*.[ch] 2>/dev/null |
		grep -vE "#include \"($allowed)/" || :)
	if [ -n "$found" ]; then
		echo "src/$folder may include only $allowed:" >&2
		echo "$found" >&2
		status=1
	fi
}

check packet 'packet'
check table 'table|packet'
check netlink 'netlink|packet'
check host 'host|netlink|table|packet'
check lua 'lua|host|netlink|table|packet'

found=$(grep -rnE '^#include <(lua|lauxlib|lualib)\.h>' src | grep -vE '^src/(lua/|main\.c:)' || :)
if [ -n "$found" ]; then
	echo "only src/lua and src/main.c may include Lua's headers:" >&2
	echo "$found" >&2
	status=1
fi
found=$(grep -rnE '^#include <(linux|libmnl|libnetfilter)' src/packet src/table 2>/dev/null || :)
if [ -n "$found" ]; then
	echo "src/packet and src/table know no kernel:" >&2
	echo "$found" >&2
	status=1
fi
exit $status
