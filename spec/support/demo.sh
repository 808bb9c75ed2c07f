#!/bin/sh
# The main job on real packets, in a private network: `sh demo.sh BUILD` re-enters itself in the lab.
set -eu
build=$1
if [ "${2:-}" != inside ]; then
	exec "$build/bin/nfqueue" lab -- sh "$0" "$build" inside
fi

folder=$(mktemp -d)
pids=""
cleanup() {
	for pid in $pids; do kill "$pid" 2>/dev/null || :; done
	rm -rf "$folder"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Waits until a command succeeds, at most 10 seconds.
until_true() {
	tries=100
	until "$@" >/dev/null 2>&1; do
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || { echo "gave up waiting for: $*" >&2; exit 1; }
		sleep 0.1
	done
}

# The client's view; a moment later the handler's lines about the same packets are there too.
client() {
	sed -u 's/^/  client | /'
	sleep 0.3
}

echo 'The weather today: cloudy' >"$folder/index.html"
busybox httpd -f -p 127.0.0.1:8080 -h "$folder" &
pids="$pids $!"
until_true curl -s -o /dev/null http://127.0.0.1:8080/

echo "A private network; every packet in it passes kernel queue 0 and the handler scripts/demo.lua:"
echo "  nfqueue run scripts/demo.lua -q 0"
"$build/bin/nfqueue" run scripts/demo.lua -q 0 >"$folder/packets" 2>"$folder/log" &
judge=$!
pids="$pids $judge"
until_true grep -q ready "$folder/log"
tail -f -n +1 "$folder/packets" | sed -u 's/^/ handler | /' &
pids="$pids $!"

echo
echo "Four pings: the third is dropped, replies are given a TTL of 42."
ping -n -c 4 -i 0.3 -W 1 127.0.0.1 2>&1 | grep -E 'from|packet loss' | client
echo
echo "A page that says 'cloudy' on the server:"
curl -s --max-time 5 http://127.0.0.1:8080/ | client
echo
echo "A port the handler drops:"
curl -sS --max-time 1 http://127.0.0.1:8081/ 2>&1 | client || :
kill -TERM "$judge"
status=0
wait "$judge" || status=$?
echo
echo "Stopped; every packet had its verdict (exit status $status)."
exit "$status"
