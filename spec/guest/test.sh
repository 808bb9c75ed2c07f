#!/bin/sh
# The kernel specs in the emulated machine: `sh spec/guest/test.sh [FILE...]`. What needs SELinux boots
# a second time with it. The last line counts both runs.
set -eu
here=$(dirname "$0")
# Enough for a slow host; a hang ends here.
limit=${NFQUEUE_GUEST_TIMEOUT:-1500}
status=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

if [ $# -gt 0 ]; then
	exec "$here/run" --timeout $limit -- lua5.4 spec/run.lua "$@"
fi
run() {
	{ "$here/run" --timeout $limit "$@" 2>&1 || echo "spec/guest: the guest ended with status $?"; } |
		tee -a "$log"
}
run -- lua5.4 spec/run.lua
run --selinux -- lua5.4 spec/run.lua spec/guest/selinux/secctx_spec.lua

! grep -q '^spec/guest: the guest ended' "$log" || status=1
awk '/^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ { passed += $1; failed += $3; skipped += $5; runs++ }
	END {
		if (runs != 2) { print "a guest gave no result"; failed++ }
		printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
		exit failed > 0 || passed == 0
	}' "$log" || status=1
exit $status
