#!/bin/sh
# Puts the captures of Debian source packages into a folder: fetch.sh FOLDER PACKAGE...
# The list of sources is the machine's own with deb-src for deb, in a place of its own: the machine's stays as it is.
set -eu

folder=$1
shift

missing=""
for package in "$@"; do
	[ -e "$folder/$package/.complete" ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
	echo "Captures come from Debian source packages, and here is no apt-get. Put those of$missing into" >&2
	echo "$folder/PACKAGE yourself, with a file .complete beside them." >&2
	exit 1
fi

mkdir -p "$folder/apt/parts" "$folder/apt/lists/partial" "$folder/apt/cache/archives/partial" "$folder/apt/sources"
apt=$(cd "$folder/apt" && pwd)
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
	[ -f "$list" ] || continue
	sed -E -e 's/^Types:.*/Types: deb-src/' -e 's/^deb([[:space:]])/deb-src\1/' "$list" >"$apt/parts/${list##*/}"
done
set -- -o Dir::Etc::sourcelist=/nonexistent -o "Dir::Etc::sourceparts=$apt/parts" -o "Dir::State::lists=$apt/lists" \
	-o "Dir::Cache=$apt/cache" -o "APT::Sandbox::User=$(id -un)"
apt-get -qq "$@" update

for package in $missing; do
	echo "Fetching the captures of $package"
	# What Debian adds to the upstream archive is not needed, and may be gone from a mirror.
	(cd "$apt/sources" && apt-get -qq "$@" source --download-only "$package") >"$apt/log" 2>&1 || :
	found=""
	for archive in "$apt/sources/${package}"_*.orig.tar.*; do
		case $archive in
		*.asc | *\*) ;;
		*) found=$archive ;;
		esac
	done
	if [ -z "$found" ]; then
		cat "$apt/log" >&2
		echo "The source package $package cannot be had here." >&2
		exit 1
	fi
	rm -rf "$folder/$package"
	mkdir -p "$folder/$package"
	tar -xf "$found" -C "$folder/$package" --strip-components=1 --wildcards '*.pcap' '*.pcapng' '*.cap' '*.pcap.gz' \
		'*.pcapng.gz' 2>/dev/null || :
	touch "$folder/$package/.complete"
	rm -f "$apt/sources/${package}"_*
done
