#!/usr/bin/env bash
# Looks for the programs that the guest build needs. On Debian it installs what is missing, elsewhere it says what is.
set -euo pipefail

say() { printf 'python-wasm: %s\n' "$*" >&2; }

missing_programs=()
missing_packages=()

# need PACKAGE WHAT COMMAND...: the Debian package is wanted when the command fails.
need() {
    local package=$1 what=$2
    shift 2
    "$@" >/dev/null 2>&1 && return
    missing_packages+=("$package")
    missing_programs+=("$what")
}

# have_builtins: clang's runtime for wasm32, a file whose place differs between Debian releases.
have_builtins() {
    find -L "$(clang-19 -print-resource-dir)/lib" /usr/lib/llvm-19/lib/clang/19/lib -name 'libclang_rt.builtins*.a' 2>/dev/null |
        grep -E 'wasi|wasm32' | grep -qv wasm64
}

# have_profile: clang's runtime for programs that count what they execute, for this machine.
have_profile() {
    echo 'int main(void) { return 0; }' | clang-19 -fprofile-instr-generate -x c -o /dev/null -
}

# have_libc: headers and start files of this machine's own C library, for the native build.
have_libc() {
    echo 'int main(void) { return 0; }' | "$1" -include stdio.h -x c -o /dev/null -
}

need python3 "Python 3.9 or later" python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))'
need python3-pip "pip" python3 -m pip --version
need binaryen "wasm-opt (Binaryen 108 or later)" wasm-opt --version
need make make make --version
need patch patch patch --version
need xz-utils xz xz --version
need ca-certificates "CA certificates" test -e /etc/ssl/certs/ca-certificates.crt -o ! -e /etc/debian_version
if [ -z "${WASI_SDK_PATH:-}" ]; then
    need clang-19 "clang 19" clang-19 --version
    need lld-19 "wasm-ld 19" wasm-ld-19 --version
    need llvm-19 "llvm-ar 19 and llvm-profdata 19" sh -c 'llvm-ar-19 --version && llvm-profdata-19 --version'
    need libclang-rt-19-dev-wasm32 "clang 19's builtins for wasm32" have_builtins
    need libc6-dev "the C library's headers" have_libc clang-19
    need libclang-rt-19-dev "clang 19's profile runtime" have_profile
else
    need gcc "a C compiler for this machine" have_libc "${CC:-cc}"
fi
command -v cargo >/dev/null || {
    say "cargo is missing: install Rust with rustup (https://rustup.rs) and try again"
    exit 1
}

[ ${#missing_packages[@]} -gt 0 ] || exit 0

if ! { [ -r /etc/os-release ] && grep -qx 'ID=debian' /etc/os-release && command -v apt-get >/dev/null; }; then
    say "missing: $(printf '%s, ' "${missing_programs[@]}" | sed 's/, $//')"
    say "install them with this system's package manager and try again; for the compiler the simplest is a WASI SDK"
    say "(https://github.com/WebAssembly/wasi-sdk/releases) unpacked somewhere and WASI_SDK_PATH naming that folder"
    exit 1
fi

say "installing Debian packages: ${missing_packages[*]}"
as_root=()
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || {
        say "not root and no sudo; as root run: apt-get install ${missing_packages[*]}"
        exit 1
    }
    as_root=(sudo)
fi
log=$(mktemp)
install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing_packages[@]}" >"$log" 2>&1
}
# The lists of a fresh machine are empty or old; the first try tells, and costs nothing when they are good.
if ! install; then
    "${as_root[@]}" apt-get update -q >"$log" 2>&1 || {
        tail -n 5 "$log" >&2
        say "apt-get update failed: check the network and /etc/apt, then try again"
        exit 1
    }
    install || {
        tail -n 15 "$log" >&2
        say "apt-get could not install ${missing_packages[*]}; Debian 12 has clang-19 since its point releases of 2025, and later ones have it; log: $log"
        exit 1
    }
fi
rm -f "$log"
