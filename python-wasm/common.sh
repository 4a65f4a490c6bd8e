# Paths, messages and the up-to-date check shared by the guest build scripts. Sourced, never run.
# shellcheck shell=bash

PYTHON_WASM=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$PYTHON_WASM")
LOCK=$PYTHON_WASM/sources.lock
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/wasgi/sources

OUT=$ROOT/target/python       # what the host uses
WORK=$ROOT/target/guest       # everything in between
SRC=$WORK/src
LOGS=$WORK/logs
STAMPS=$WORK/stamps
JOBS=${JOBS:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)}

say() { printf 'python-wasm: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

# on_debian: Debian itself; its derivatives have other archives.
on_debian() { [ -r /etc/os-release ] && grep -qx 'ID=debian' /etc/os-release && command -v apt-get >/dev/null; }

sha256_of() {
    if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi | cut -d' ' -f1
}

# lock_field NAME COLUMN: one field of a source's line in the lock.
lock_field() { awk -v name="$1" -v column="$2" '$1 == name { print $column }' "$LOCK"; }

# lock_line NAME...: whole lines of the lock, as part of a step's key.
lock_line() { for one in "$@"; do awk -v name="$one" '$1 == name' "$LOCK"; done; }

# contents PATH...: a hash of files and of whole folders, names included.
contents() {
    local path
    for path in "$@"; do
        if [ -d "$path" ]; then
            (cd "$path" && find . -type f ! -name '*.pyc' -print | LC_ALL=C sort | while read -r file; do
                printf '%s %s\n' "$(sha256_of "$file")" "$file"
            done)
        elif [ -e "$path" ]; then
            printf '%s %s\n' "$(sha256_of "$path")" "$(basename "$path")"
        fi
    done
}

# step NAME KEY LABEL FUNCTION: runs FUNCTION with its output in a log, unless it last succeeded with the same KEY (any
# text that changes when the inputs do). REBUILT tells later steps that something below them changed.
step() {
    local name=$1 key=$2 label=$3 function=$4 began=$SECONDS log=$LOGS/$1.log
    mkdir -p "$LOGS" "$STAMPS"
    key=$(printf '%s' "$key" | if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d' ' -f1)
    if [ "$(cat "$STAMPS/$name" 2>/dev/null)" = "$key" ]; then return; fi
    rm -f "$STAMPS/$name"
    [ -z "$label" ] || say "$label ..."
    # In the background because bash ignores errexit in a function called from a condition.
    (set -euo pipefail; exec 9>&-; "$function") >"$log" 2>&1 &
    if ! wait $!; then
        tail -n 25 "$log" >&2
        die "$name failed; the whole log is $log"
    fi
    printf '%s\n' "$key" >"$STAMPS/$name"
    [ -z "$label" ] || say "$label: done in $((SECONDS - began)) s"
}

# stamp NAME...: the keys of finished steps, as part of a later step's key.
stamp() { local one; for one in "$@"; do cat "$STAMPS/$one" 2>/dev/null || echo missing; done; }
