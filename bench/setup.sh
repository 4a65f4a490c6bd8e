#!/usr/bin/env bash
# Gets what the benchmark needs besides wasgi: wrk, a virtual environment with the peers, the apps' packages.
# On Debian it installs missing programs, elsewhere it says what is missing. Does nothing when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

out=target/bench
say() { printf 'bench: %s\n' "$*" >&2; }

# The system's own Python first: distributions build theirs with a profile and LTO, and the peers shall not be slower
# than they are where people run them.
python=${BENCH_PYTHON:-}
[ -n "$python" ] || { [ -x /usr/bin/python3 ] && python=/usr/bin/python3; } || python=python3

have_headers() {
    "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'
}

missing=()
need() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}
need wrk command -v wrk
# In /usr/sbin, which not everybody has in PATH.
need nginx-light env PATH="$PATH:/usr/sbin" sh -c 'command -v nginx'
need python3 "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'
need python3-venv "$python" -c 'import ensurepip, venv'
# uWSGI comes as source.
need python3-dev have_headers
need gcc command -v gcc

if [ ${#missing[@]} -gt 0 ]; then
    if ! { [ -r /etc/os-release ] && grep -qx 'ID=debian' /etc/os-release && command -v apt-get >/dev/null; }; then
        say "missing: ${missing[*]} (names of Debian packages); install them with this system's package manager"
        exit 1
    fi
    say "installing Debian packages: ${missing[*]}"
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    log=$(mktemp)
    install() {
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >"$log" 2>&1
    }
    # The lists of a fresh machine are empty or old.
    install || { "${as_root[@]}" apt-get update -q >"$log" 2>&1 && install; } || {
        tail -n 15 "$log" >&2
        say "apt-get could not install ${missing[*]}; log: $log"
        exit 1
    }
    rm -f "$log"
fi

mkdir -p "$out"
pip=("$out/venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check)
wanted=$("$python" --version; cat bench/requirements.txt bench/apps/requirements.txt)
if [ "$(cat "$out/venv/.installed" 2>/dev/null)" != "$wanted" ]; then
    say "installing uWSGI, Granian, Gunicorn and Flask into $out/venv ($("$python" --version)); uWSGI is compiled"
    rm -rf "$out/venv"
    "$python" -m venv "$out/venv"
    "${pip[@]}" setuptools wheel
    "${pip[@]}" -r bench/requirements.txt || {
        say "pip could not install bench/requirements.txt: check the network, then try again"
        exit 1
    }
    printf '%s\n' "$wanted" >"$out/venv/.installed"
fi
if ! cmp -s bench/apps/requirements.txt "$out/packages/.installed"; then
    say "installing the apps' packages for wasgi into $out/packages"
    rm -rf "$out/packages"
    "${pip[@]}" --no-compile --target "$out/packages" -r bench/apps/requirements.txt || {
        say "pip could not install bench/apps/requirements.txt: check the network, then try again"
        exit 1
    }
    cp bench/apps/requirements.txt "$out/packages/.installed"
fi
if [ ! -e "$out/data/notes.db" ]; then
    mkdir -p "$out/data"
    "$out/venv/bin/python" bench/apps/sqlite/fill.py "$out/data/notes.db"
fi
