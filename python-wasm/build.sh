#!/usr/bin/env bash
# Builds the guest: CPython for WASI with our entry, and its standard library, into target/python.
#
#   target/python/python.wasm       the reactor that the host loads
#   target/python/lib/python3.13/   the standard library (/lib/python3.13 in the guest), our package in site-packages
#   target/python/test/             CPython's own tests, for run_tests.py
#   target/python/VERSION           CPython's version
#
# What is up to date is left alone. Logs of the steps are in target/guest/logs. JOBS=N sets how many compilers run at once.
set -euo pipefail
LC_ALL=C
export LC_ALL
# The native Python counts what it executes; the counts matter only when profile.sh asks for them.
LLVM_PROFILE_FILE=/dev/null
export LLVM_PROFILE_FILE
# What the caller's make or shell means for its own build must not reach CPython's.
unset MAKEFLAGS MFLAGS MAKELEVEL CFLAGS CPPFLAGS CXXFLAGS LDFLAGS CONFIG_SITE PYTHONPATH PYTHONHOME

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for part in common fetch toolchain libs python profile link stdlib; do
    # shellcheck source=/dev/null
    . "$here/$part.sh"
done

case $ROOT in
*[[:space:]]*) die "$ROOT: CPython's makefiles cannot build in a folder with a blank in its name; clone into another one" ;;
esac
mkdir -p "$WORK" "$OUT"
# One build at a time in this tree.
if command -v flock >/dev/null; then
    exec 9>"$WORK/.lock"
    flock -n 9 || { say "another build is running in this tree; waiting for it"; flock 9; }
fi

"$here/deps.sh"
toolchain
build_libs
build_cpython
link_guest
build_stdlib
printf '%s\n' "$PYVERSION" | cmp -s - "$OUT/VERSION" || printf '%s\n' "$PYVERSION" >"$OUT/VERSION"
