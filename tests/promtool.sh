#!/usr/bin/env bash
# Prometheus's own checker for /metrics, out of Debian's package: unpacked as the file that is named, not installed.
set -euo pipefail

into=$(realpath -ms "${1:?usage: promtool.sh FILE}")

say() { printf 'tests: %s\n' "$*" >&2; }

if command -v promtool >/dev/null; then
    ln -sf "$(command -v promtool)" "$into"
    exit
fi
if ! command -v apt-get >/dev/null; then
    say "promtool is missing: install Prometheus"
    exit 1
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
# As root apt would drop its rights, and then not be able to write here.
get() { apt-get -o APT::Sandbox::User=root -qq download prometheus; }
get 2>/dev/null || { apt-get -qq update && get; } || { say "cannot download prometheus: check the network"; exit 1; }
dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
mv usr/bin/promtool "$into"
