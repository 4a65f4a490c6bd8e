# Our C modules, the C entry and the final python.wasm. Sourced by build.sh.
# shellcheck shell=bash

# Our own C sees CPython's internals: the entry sets what the public API has no way for.
own_cflags() {
    printf '%s ' "$GUEST_CFLAGS" -DPy_BUILD_CORE -Wall -I"$GUEST" -I"$CPYTHON/Include" -I"$CPYTHON/Include/internal" \
        -I"$CPYTHON/Include/internal/mimalloc" -I"$CPYTHON/Modules/_hacl/include" -I"$CPYTHON/Modules/_hacl" \
        -I"$LIBS_DIR/include" -I"$PYTHON_WASM/modules" -I"$PYTHON_WASM/modules/include"
}

compile_modules() {
    local objects=$WORK/objects/modules flags
    flags=$(own_cflags)
    rm -rf "$objects"
    mkdir -p "$objects"
    # shellcheck disable=SC2086
    for source in "$PYTHON_WASM"/modules/*.c; do
        $GUEST_CC $flags -c "$source" -o "$objects/$(basename "$source" .c).o"
    done
    # CPython's own socket module over our socket layer.
    # shellcheck disable=SC2086
    $GUEST_CC $flags -w -include "$PYTHON_WASM/modules/sockets.h" -I"$CPYTHON/Modules" \
        -c "$CPYTHON/Modules/socketmodule.c" -o "$objects/socketmodule.o"
    # What MarkupSafe has as an extension module. The entry makes it a built-in one of the package's name.
    unpack markupsafe
    # shellcheck disable=SC2086
    $GUEST_CC $flags -DPyInit__speedups=PyInit_markupsafe_speedups \
        -c "$SRC/markupsafe/src/markupsafe/_speedups.c" -o "$objects/markupsafe.o"
}

compile_entry() {
    local objects=$WORK/objects/entry sources=("$PYTHON_WASM"/entry/*.c) flags
    [ -e "${sources[0]}" ] || sources=("$WORK"/stub/*.c)
    flags=$(own_cflags)
    rm -rf "$objects"
    mkdir -p "$objects"
    # shellcheck disable=SC2086
    for source in "${sources[@]}"; do
        $GUEST_CC $flags -I"$PYTHON_WASM/entry" -c "$source" -o "$objects/$(basename "$source" .c).o"
    done
}

link_wasm() {
    local linked=$WORK/python-linked.wasm
    # No -O here: at the link it takes 25 s and changes nothing. The stack lies below the data, so that running out of it
    # traps instead of overwriting data. 8 MiB, as on Linux.
    # shellcheck disable=SC2046,SC2086
    (cd "$GUEST" && $GUEST_CC -mexec-model=reactor \
        -Wl,--stack-first -Wl,-z,stack-size=8388608 -Wl,--gc-sections \
        -Wl,--export=__stack_pointer -Wl,--export-table -Wl,--wrap=__wasi_path_open \
        -o "$linked" "$WORK"/objects/entry/*.o "$WORK"/objects/modules/*.o \
        "libpython${PYVERSION%.*}.a" $(cat libs.txt) -L"$LIBS_DIR/lib" -lscrypt $GUEST_LIBS)
    # -O2 makes the file as small as -O3 in two thirds of the time; with neither does Python run measurably faster than
    # clang's -O3 left it. The features are named because the wasm-opt of Debian 12 is older than clang 19's list of them.
    wasm-opt -O2 --strip-debug --strip-producers \
        --enable-simd --enable-bulk-memory --enable-sign-ext --enable-mutable-globals --enable-nontrapping-float-to-int \
        --enable-multivalue --enable-reference-types \
        "$linked" -o "$WORK/python-optimised.wasm"
    local size
    size=$(wc -c <"$WORK/python-optimised.wasm")
    echo "python.wasm has $size bytes"
    [ "$size" -le $((12 * 1024 * 1024)) ] || { echo "python.wasm has $size bytes, more than the 12 MiB allowed"; exit 1; }
    mkdir -p "$OUT"
    mv "$WORK/python-optimised.wasm" "$OUT/python.wasm"
}

link_guest() {
    fetch markupsafe
    step modules "$(stamp guest-make) $(lock_line markupsafe) $(contents "$PYTHON_WASM/modules") $(declare -f own_cflags compile_modules)" \
        "compiling our C modules" compile_modules
    step entry "$(stamp guest-make) $(contents "$PYTHON_WASM/entry") $(declare -f own_cflags compile_entry)" \
        "compiling the guest's entry" compile_entry
    [ -e "$OUT/python.wasm" ] || rm -f "$STAMPS/link"
    step link "$(stamp modules entry guest-make lib-scrypt) $(wasm-opt --version) $(declare -f link_wasm)" \
        "linking python.wasm" link_wasm
}
