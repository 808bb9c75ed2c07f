#!/bin/sh
# The kernel specs in the emulated machine: `sh spec/guest/test.sh [FILE...]`. Without files all of spec/kernel and
# spec/guest, in two machines at a time (specs wait more than they work), and what needs SELinux in a third one
# booted with it. The last line counts all runs.
set -eu
here=$(dirname "$0")
# Enough for a slow host; a hang ends here.
limit=${NFQUEUE_GUEST_TIMEOUT:-2700}
status=0

if [ $# -gt 0 ]; then
	exec "$here/run" --timeout $limit -- lua5.4 spec/run.lua "$@"
fi
log=$(mktemp)
other=
trap '[ -z "$other" ] || kill "$other" 2>/dev/null || :; rm -f "$log" "$log.other"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

run() {
	"$here/run" --timeout $limit "$@" 2>&1 || echo "spec/guest: the guest ended with status $?"
}
# shellcheck disable=SC2012
every_other() { # FIRST: 0 or 1
	(cd "$here/../.." && ls spec/kernel/*_spec.lua spec/guest/*_spec.lua) | awk -v first="$1" 'NR % 2 == first'
}

"$here/make-root" # once, not in both
# shellcheck disable=SC2046
"$here/run" --timeout $limit -- lua5.4 spec/run.lua $(every_other 0) >"$log.other" 2>&1 &
other=$!
# shellcheck disable=SC2046
run -- lua5.4 spec/run.lua $(every_other 1) | tee "$log"
run --selinux -- lua5.4 spec/run.lua spec/guest/selinux/secctx_spec.lua | tee -a "$log"
wait "$other" || echo "spec/guest: the guest ended with status $?" >>"$log.other"
other=
tee -a "$log" <"$log.other"

! grep -q '^spec/guest: the guest ended' "$log" || status=1
awk '/^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ { passed += $1; failed += $3; skipped += $5; runs++ }
	END {
		if (runs != 3) { print "a guest gave no result"; failed++ }
		printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
		exit failed > 0 || passed == 0
	}' "$log" || status=1
exit $status
