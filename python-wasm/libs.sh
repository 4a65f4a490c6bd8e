# The C libraries of the guest: zlib, bzip2, xz, SQLite, scrypt. Sourced by build.sh.
# shellcheck shell=bash

LIBS_DIR=$WORK/libs

build_libs() {
    local one
    for one in zlib bzip2 xz sqlite scrypt; do
        fetch "$one"
        step "lib-$one" "$TOOLCHAIN_ID $GUEST_CFLAGS $(lock_line "$one") $(declare -f "build_$one" archive) $(contents "$PYTHON_WASM/modules/locks.h")" \
            "building $one" "build_$one"
    done
}

# archive LIB FLAGS... -- SOURCE...: compiles the sources, $JOBS at a time, into $LIBS_DIR/lib/libLIB.a.
archive() {
    local lib=$1 flags=() objects=$WORK/objects/$1 source
    shift
    while [ "$1" != -- ]; do flags+=("$1"); shift; done
    shift
    rm -rf "$objects"
    mkdir -p "$objects" "$LIBS_DIR/lib" "$LIBS_DIR/include"
    for source in "$@"; do printf '%s\0%s\0' "$source" "$objects/$(basename "$source" .c).o"; done |
        xargs -0 -n 2 -P "$JOBS" sh -c 'compiler=$0; source=$2; object=$3; exec $compiler $1 -c "$source" -o "$object"' \
            "$GUEST_CC" "$GUEST_CFLAGS ${flags[*]}"
    rm -f "$LIBS_DIR/lib/lib$lib.a"
    "$AR" rcs "$LIBS_DIR/lib/lib$lib.a" "$objects"/*.o
}

build_zlib() {
    unpack zlib
    local from=$SRC/zlib/src/zlib
    archive z -DHAVE_UNISTD_H -D_LARGEFILE64_SOURCE=0 -- "$from"/*.c
    cp "$from/zlib.h" "$from/zconf.h" "$LIBS_DIR/include"
}

build_bzip2() {
    unpack bzip2
    local from=$SRC/bzip2/bzip2-1.0.8
    archive bz2 -- "$from"/{blocksort,huffman,crctable,randtable,compress,decompress,bzlib}.c
    cp "$from/bzlib.h" "$LIBS_DIR/include"
}

build_xz() {
    unpack xz
    local from=$SRC/xz/xz/src file sources=()
    # The same choice of files as the crate's own build script, without threads.
    for file in "$from"/liblzma/{common,lzma,lz,check,delta,rangecoder,simple}/*.c "$from"/common/tuklib_physmem.c; do
        case $(basename "$file" .c) in
        crc32_small | crc64_small | crc_clmul_consts_gen | *tablegen | *mt) ;;
        *) sources+=("$file") ;;
        esac
    done
    archive lzma -DHAVE_CONFIG_H=1 -I"$SRC/xz" -I"$from/common" \
        -I"$from"/liblzma/{api,lzma,lz,check,simple,delta,common,rangecoder} -- "${sources[@]}"
    cp -R "$from/liblzma/api/lzma.h" "$from/liblzma/api/lzma" "$LIBS_DIR/include"
}

build_sqlite() {
    unpack sqlite
    local from=$SRC/sqlite/sqlite3
    # No WAL: it shares memory between the processes that have the database open, and instances share none. No
    # memory-mapped files: wasi-libc's mmap is a copy. locks.h puts the host's file locks in place of fcntl's.
    archive sqlite3 -include "$PYTHON_WASM/modules/locks.h" \
        -DSQLITE_OS_UNIX=1 -DSQLITE_THREADSAFE=0 -DSQLITE_OMIT_WAL -DSQLITE_MAX_MMAP_SIZE=0 -DSQLITE_OMIT_LOAD_EXTENSION \
        -DSQLITE_TEMP_STORE=2 -DSQLITE_DEFAULT_MEMSTATUS=0 -DSQLITE_DQS=3 \
        -DSQLITE_ENABLE_FTS3 -DSQLITE_ENABLE_FTS3_PARENTHESIS -DSQLITE_ENABLE_FTS4 -DSQLITE_ENABLE_FTS5 \
        -DSQLITE_ENABLE_RTREE -DSQLITE_ENABLE_MATH_FUNCTIONS -DSQLITE_ENABLE_COLUMN_METADATA -DSQLITE_ENABLE_DBSTAT_VTAB \
        -DSQLITE_ENABLE_STAT4 -DSQLITE_SOUNDEX -DSQLITE_USE_URI -DSQLITE_EXTRA_INIT=wasgi_sqlite_init \
        -DHAVE_USLEEP=1 -DHAVE_ISNAN -DHAVE_LOCALTIME_R \
        -- "$from/sqlite3.c"
    cp "$from/sqlite3.h" "$from/sqlite3ext.h" "$LIBS_DIR/include"
}

build_scrypt() {
    unpack scrypt
    local from=$SRC/scrypt/scrypt-1.3.3
    # Only the memory-hard core; modules/kdf.c has the rest, on CPython's own hash functions.
    archive scrypt -I"$from"/libcperciva/util -- "$from"/lib/crypto/crypto_scrypt_smix.c
    cp "$from"/lib/crypto/crypto_scrypt_smix.h "$LIBS_DIR/include"
}
