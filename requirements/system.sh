#!/bin/sh
# Brings the programs of system.txt where this may and can be done: as root, with apt-get, on a machine that isn't run by
# systemd (a container). It never fails: a test whose program is missing says so, and fails where it could be had.
# No service is started: what tests need they start themselves, on loopback.
set -u
PATH=$PATH:/usr/sbin:/sbin
missing=
installed() { # what is no program: a library that one needs
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}
while read -r package program; do
	case $package in '' | '#'*) continue ;; esac
	command -v "${program:-$package}" >/dev/null 2>&1 || installed "$package" || missing="$missing $package"
done <"$(dirname "$0")/system.txt"
[ -z "$missing" ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
	echo "setup-system: not here, and there is no apt-get:$missing" >&2
	exit 0
fi
if [ "$(id -u)" != 0 ] || [ -d /run/systemd/system ]; then
	echo "setup-system: not here; install them yourself:  apt-get install --no-install-recommends$missing" >&2
	exit 0
fi

# What invoke-rc.d and deb-systemd-invoke ask before they start anything; 101 is no.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	trap 'exit 1' INT TERM
	printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
fi
install() {
	# shellcheck disable=SC2086 # the list is to be split
	DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 install -y --no-install-recommends \
		$missing </dev/null >/dev/null
}
install 2>/dev/null || { apt-get -qq update >/dev/null && install; } ||
	echo "setup-system: apt-get could not install:$missing" >&2
exit 0
