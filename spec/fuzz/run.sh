#!/bin/sh
# Runs the targets named (spec/fuzz/targets).
#
#   run.sh fuzz TARGET...     with libFuzzer, from what is in spec/fuzz/corpus and what earlier runs found
#   run.sh corpus TARGET...   makes spec/fuzz/corpus a few inputs that reach all code that known ones do
#   run.sh replay TARGET...   the corpus once
#
# Environment: BUILD (default build/fuzz), FUZZ_SECONDS (in all, default 60). What is found and what fails lies in
# build/fuzz/found and build/fuzz/failed; run a file of the latter again with build/fuzz/targets/TARGET FILE.
set -eu

what=$1
shift
build=${BUILD:-build/fuzz}
corpus=spec/fuzz/corpus
found=build/fuzz/found
failed=build/fuzz/failed
seconds=$((${FUZZ_SECONDS:-60} / $#))
[ "$seconds" -gt 0 ] || seconds=1
status=0
# An allocation of this size is a failure.
common="-rss_limit_mb=2048 -malloc_limit_mb=256 -timeout=10 -max_len=${FUZZ_LENGTH:-700}"
UBSAN_OPTIONS=print_stacktrace=1
export UBSAN_OPTIONS

fuzz() {
	mkdir -p "$found/$1" "$failed" "$corpus/$1"
	log=build/fuzz/$1.log
	leaks=1
	# A Lua state frees when it collects: after each input something looks leaked, and the search takes most time.
	[ ! -f "spec/fuzz/targets/$1.lua" ] || leaks=0
	# shellcheck disable=SC2086
	if ! "$build/targets/$1" $common -detect_leaks=$leaks -max_total_time="$seconds" -print_final_stats=1 -artifact_prefix="$failed/$1-" \
		"$found/$1" "$corpus/$1" >"$log" 2>&1; then
		echo "fuzz: $1 failed:"
		grep -v '^#' "$log" | tail -60
		status=1
		return
	fi
	inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
	reached=$(sed -n 's/.*cov: \([0-9]*\).*/\1/p' "$log" | tail -1)
	echo "fuzz: $1: $inputs inputs in $seconds s, $reached edges reached"
}

choose() {
	mkdir -p "$found/$1" "$corpus/$1" "$corpus/$1.new"
	build/fuzz/cover/"$1" "$corpus/$1" "$found/$1" | while read -r path; do
		# Named by content, so that the same input keeps its name.
		cp "$path" "$corpus/$1.new/$(sha1sum <"$path" | cut -c1-12)"
	done
	rm -rf "${corpus:?}/$1"
	mv "$corpus/$1.new" "$corpus/$1"
	echo "corpus: $1: $(find "$corpus/$1" -type f | wc -l) files, $(cat "$corpus/$1"/* | wc -c) bytes"
}

for target; do
	case $what in
	fuzz) fuzz "$target" ;;
	corpus) choose "$target" ;;
	replay) "$build/targets/$target" "$corpus/$target" || status=1 ;;
	*)
		echo "run.sh: no such thing: $what" >&2
		exit 64
		;;
	esac
done
exit $status
