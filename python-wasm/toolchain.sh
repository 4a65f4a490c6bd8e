# The compiler for the guest: a WASI SDK when WASI_SDK_PATH names one, otherwise clang 19 and Debian 13's wasi-libc.
# Sourced by build.sh.
# shellcheck shell=bash

TARGET=wasm32-wasip1

# -O3 and SIMD were measured to pay; the emulations are wasi-libc's own and need their -l at the link.
GUEST_CFLAGS="-O3 -DNDEBUG -msimd128 -mbulk-memory -ffunction-sections -fdata-sections \
-D_WASI_EMULATED_SIGNAL -D_WASI_EMULATED_GETPID -D_WASI_EMULATED_PROCESS_CLOCKS -D_WASI_EMULATED_MMAN"
GUEST_LIBS="-lwasi-emulated-signal -lwasi-emulated-getpid -lwasi-emulated-process-clocks -lwasi-emulated-mman -ldl -lm"

toolchain() {
    if [ -n "${WASI_SDK_PATH:-}" ]; then
        local bin=$WASI_SDK_PATH/bin libc=$WASI_SDK_PATH/share/wasi-sysroot
        [ -x "$bin/clang" ] || die "WASI_SDK_PATH is $WASI_SDK_PATH, which has no bin/clang: name the folder a WASI SDK was unpacked into"
        GUEST_CC="$bin/clang --target=$TARGET --sysroot=$libc"
        AR=$bin/llvm-ar RANLIB=$bin/llvm-ranlib
        NATIVE_CC=${CC:-$(command -v cc || command -v gcc || command -v clang || true)}
        [ -n "$NATIVE_CC" ] || die "no C compiler for this machine: install gcc or clang"
        TOOLCHAIN_ID="$WASI_SDK_PATH $("$bin/clang" --version | head -n 1)"
        # A profile is read by the clang that wrote it, and a WASI SDK's makes no programs for this machine.
        PROFDATA=
        return
    fi
    fetch wasi-libc
    NATIVE_CC=clang-19
    GUEST_CC="clang-19 --target=$TARGET --sysroot=$SRC/wasi-libc/usr -resource-dir $WORK/clang"
    AR=llvm-ar-19 RANLIB=llvm-ranlib-19 PROFDATA=llvm-profdata-19
    TOOLCHAIN_ID="$(clang-19 --version | head -n 1) $(lock_line wasi-libc)"
    step toolchain "$TOOLCHAIN_ID" "" prepare_toolchain
}

prepare_toolchain() {
    unpack wasi-libc
    # Debian 12 and 13 put the compiler's wasm builtins in different places, and clang looks in a third one: give it a
    # resource folder of ours with links to the real ones.
    local real builtins
    real=$(clang-19 -print-resource-dir)
    builtins=$(find -L "$real/lib" /usr/lib/llvm-19/lib/clang/19/lib -name 'libclang_rt.builtins*.a' | grep -E 'wasi|wasm32' |
        grep -v wasm64 | head -n 1)
    [ -n "$builtins" ] || { echo "clang 19's wasm builtins not found: is libclang-rt-19-dev-wasm32 installed?"; exit 1; }
    rm -rf "$WORK/clang"
    mkdir -p "$WORK/clang/lib/wasm32-unknown-wasip1" "$WORK/clang/lib/wasip1"
    ln -s "$real/include" "$WORK/clang/include"
    ln -s "$builtins" "$WORK/clang/lib/wasm32-unknown-wasip1/libclang_rt.builtins.a"
    ln -s "$builtins" "$WORK/clang/lib/wasip1/libclang_rt.builtins-wasm32.a"
}
