# The guest's standard library, our Python package, and CPython's tests. Sourced by build.sh.
# shellcheck shell=bash

# Left out: what needs a screen, a terminal, processes or pip, and the tests (they go to target/python/test).
STDLIB_WITHOUT="test idlelib tkinter turtledemo turtle.py ensurepip venv lib2to3 pydoc_data curses msilib \
__phello__ _aix_support.py _ios_support.py _android_support.py"

# compile_python FOLDER GUEST-FOLDER: .pyc files that name the guest's paths. Unchecked: the library is mounted read-only,
# and looking at the source's time for every import costs more than it tells.
compile_python() {
    "$NATIVE/python" -m compileall -q -f -j "$JOBS" --invalidation-mode unchecked-hash -s "$1" -p "$2" "$1"
}

copy_stdlib() {
    local new=$WORK/stdlib-new one
    rm -rf "$new"
    mkdir -p "$new"
    cp -R "$CPYTHON/Lib" "$new/$PYDIR"
    cd "$new/$PYDIR"
    for one in $STDLIB_WITHOUT; do rm -rf "./$one"; done
    find . -name __pycache__ -prune -exec rm -rf {} +
    find . -type d \( -name tests -o -name idle_test \) -prune -exec rm -rf {} +
    cp "$GUEST"/build/lib.*/_sysconfigdata*.py .
    mkdir -p site-packages
    rm -f site-packages/README.txt
    unpack tzdata
    cp -R "$SRC/tzdata"/tzdata "$SRC/tzdata"/tzdata-*.dist-info site-packages
    compile_python "$new/$PYDIR" "/lib/$PYDIR"
    mkdir -p "$OUT/lib"
    rm -rf "$WORK/stdlib-old"
    [ ! -e "$OUT/lib/$PYDIR" ] || mv "$OUT/lib/$PYDIR" "$WORK/stdlib-old"
    mv "$new/$PYDIR" "$OUT/lib/$PYDIR"
    rm -rf "$WORK/stdlib-old" "$new"
}

copy_package() {
    local site=$OUT/lib/$PYDIR/site-packages new=$WORK/package-new one
    rm -rf "$new"
    cp -R "$PYTHON_WASM/lib" "$new"
    find "$new" -name __pycache__ -prune -exec rm -rf {} +
    compile_python "$new" "/lib/$PYDIR/site-packages"
    for one in "$new"/*; do
        rm -rf "${site:?}/$(basename "$one")"
        mv "$one" "$site/"
    done
}

copy_tests() {
    local new=$WORK/tests-new
    rm -rf "$new"
    mkdir -p "$new"
    cp -R "$CPYTHON/Lib/test" "$new/test"
    (cd "$new/test" && rm -rf test_tkinter test_ttk test_ctypes test_free_threading test_capi test_cext test_cppext \
        test_multiprocessing_* test_pyrepl test_idle.py test_asyncio leakers tkinterdata)
    cp "$PYTHON_WASM"/tests/*.py "$new/test"
    find "$new" -name __pycache__ -prune -exec rm -rf {} +
    # Some tests are broken on purpose or written in encodings that the native build lacks; they stay uncompiled.
    compile_python "$new" /tests || true
    rm -rf "$OUT/test"
    mv "$new" "$OUT/test"
}

build_stdlib() {
    fetch tzdata
    [ -e "$OUT/lib/$PYDIR/os.py" ] || rm -f "$STAMPS/stdlib"
    step stdlib "$(stamp guest-make) $(lock_line tzdata) $STDLIB_WITHOUT $(declare -f copy_stdlib compile_python)" \
        "compiling the standard library" copy_stdlib
    if [ -d "$PYTHON_WASM/lib" ]; then
        step package "$(stamp stdlib) $(contents "$PYTHON_WASM/lib") $(declare -f copy_package compile_python)" "" copy_package
    fi
    [ -e "$OUT/test/test" ] || rm -f "$STAMPS/tests"
    step tests "$(stamp native-make) $(contents "$PYTHON_WASM/tests") $(declare -f copy_tests compile_python)" "compiling CPython's tests" copy_tests
}
