# CPython: the source with its patches, a native build (cross compiling needs one), the guest build, the final link.
# Sourced by build.sh.
# shellcheck shell=bash

CPYTHON=$SRC/cpython
NATIVE=$WORK/native
GUEST=$WORK/guest-build
PYVERSION=$(lock_field cpython 2)
PYDIR=python${PYVERSION%.*}

# Modules that we compile and link ourselves; CPython's makefile only learns their names, for its table of built-ins, so
# that a change in python-wasm/modules needs no new CPython.
OWN_MODULES="_socket _wasgi_kdf"

unpack_cpython() {
    unpack cpython
    cd "$CPYTHON"
    local name
    while read -r name; do
        [ -n "$name" ] || continue
        echo "applying $name"
        patch -p1 -s --no-backup-if-mismatch <"$PYTHON_WASM/patches/$name"
    done <"$PYTHON_WASM/patches/series"
}

configure_native() {
    rm -rf "$NATIVE"
    mkdir -p "$NATIVE"
    cd "$NATIVE"
    # It compiles the standard library and runs CPython's build scripts, so it does without most extension modules.
    local skip=() module
    for module in _decimal _ssl _hashlib _sqlite3 _ctypes _tkinter _curses _curses_panel readline _gdbm _dbm _bz2 _lzma _uuid \
        zlib _codecs_cn _codecs_hk _codecs_iso2022 _codecs_jp _codecs_kr _codecs_tw _multibytecodec pyexpat _elementtree \
        _multiprocessing _posixshmem nis syslog termios resource _lsprof _interpreters _interpchannels _interpqueues; do
        skip+=("py_cv_module_$module=n/a")
    done
    # Where it takes the profile, its source must be read as the guest's is, which has no computed gotos.
    local count=${PROFDATA:+-fprofile-instr-generate}
    env CC="$NATIVE_CC" OPT='-O1 -DNDEBUG' CFLAGS="$count" LDFLAGS="$count" PKG_CONFIG_LIBDIR="$WORK/none" "${skip[@]}" \
        ../src/cpython/configure --without-ensurepip --disable-test-modules ${count:+--without-computed-gotos}
}

make_native() {
    cd "$NATIVE"
    make -j"$JOBS" python platform sharedmods
}

configure_guest() {
    rm -rf "$GUEST"
    mkdir -p "$GUEST/Modules"
    cd "$GUEST"
    # config.site and --host as in CPython's own Tools/wasm/wasi.py. PKG_CONFIG_LIBDIR keeps this machine's libraries out.
    local no=() one
    for one in memfd_create; do no+=("ac_cv_func_$one=no"); done
    # shellcheck disable=SC2086
    env CONFIG_SITE="$CPYTHON/Tools/wasm/config.site-wasm32-wasi" PKG_CONFIG_LIBDIR="$WORK/none" HOSTRUNNER=false \
        CC="$GUEST_CC" CPP="$GUEST_CC -E" CXX="$GUEST_CC" AR="$AR" RANLIB="$RANLIB" READELF=true \
        CFLAGS="${GUEST_CFLAGS#-O3 -DNDEBUG} $(profile_cflags)" OPT='-O3 -DNDEBUG' LDFLAGS= \
        ZLIB_CFLAGS="-I$LIBS_DIR/include" ZLIB_LIBS="-L$LIBS_DIR/lib -lz" \
        BZIP2_CFLAGS="-I$LIBS_DIR/include" BZIP2_LIBS="-L$LIBS_DIR/lib -lbz2" \
        LIBLZMA_CFLAGS="-I$LIBS_DIR/include" LIBLZMA_LIBS="-L$LIBS_DIR/lib -llzma" \
        LIBSQLITE3_CFLAGS="-I$LIBS_DIR/include" LIBSQLITE3_LIBS="-L$LIBS_DIR/lib -lsqlite3" \
        "${no[@]}" \
        ../src/cpython/configure --host=wasm32-unknown-wasi --build="$("$CPYTHON/config.guess")" \
        --with-build-python="$NATIVE/python" --prefix=/ --without-ensurepip --disable-test-modules \
        --with-pymalloc --disable-ipv6
    for one in $OWN_MODULES; do echo "$one"; done >Modules/Setup.local
}

make_guest() {
    cd "$GUEST"
    make -j"$JOBS" "libpython${PYVERSION%.*}.a" Modules/_hacl/libHacl_Hash_SHA2.a Modules/_decimal/libmpdec/libmpdec.a \
        Modules/expat/libexpat.a
    # platform writes the _sysconfigdata module that the standard library needs.
    make -j"$JOBS" pybuilddir.txt || true
    # What CPython itself would link beside its own archive, for link_guest.
    # shellcheck disable=SC2016
    printf 'include Makefile\nprint-libs:\n\t@echo $(MODLIBS) $(LIBS) $(SYSLIBS)\n' | make -s -f - print-libs | tail -n 1 >libs.txt
}

build_cpython() {
    fetch cpython
    step cpython-source "$(lock_line cpython) $(contents "$PYTHON_WASM/patches") $(declare -f unpack_cpython)" \
        "unpacking and patching CPython $PYVERSION" unpack_cpython
    step native-configure "$(stamp cpython-source) $NATIVE_CC $PROFDATA $(declare -f configure_native)" \
        "configuring CPython for this machine" configure_native
    step native-make "$(stamp native-configure) $(declare -f make_native)" "building CPython for this machine" make_native
    take_profile
    step guest-configure "$(stamp native-make profile) $TOOLCHAIN_ID $GUEST_CFLAGS $OWN_MODULES $(declare -f configure_guest profile_cflags)" \
        "configuring CPython for WebAssembly" configure_guest
    step guest-make "$(stamp guest-configure) $(stamp lib-{zlib,bzip2,xz,sqlite}) $(declare -f make_guest)" \
        "building CPython for WebAssembly" make_guest
}
