#!/bin/sh
# Installs the Debian packages named as arguments that are missing; without root, or on another
# distribution, says in one line what to run.
set -eu

if ! command -v dpkg-query >/dev/null 2>&1; then
	# Not Debian: only the build's essentials can be checked here; the rest fails by name when used.
	if pkg-config --exists lua5.4 libmnl libnetfilter_queue 2>/dev/null; then
		exit 0
	fi
	echo "Install what these Debian packages hold, then run make again: $*" >&2
	exit 1
fi

missing=""
for package in "$@"; do
	case $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || :) in
	*"ok installed") ;;
	*) missing="$missing $package" ;;
	esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "Missing packages; run this once, then make again:" >&2
	echo "  sudo apt-get install -y --no-install-recommends$missing" >&2
	exit 1
fi
echo "Installing:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null
