# The profile: what the native CPython executes while it answers requests, which clang optimises the guest's CPython for.
# Sourced by build.sh.
# shellcheck shell=bash

PROFILE=$WORK/profile
PROFILE_PACKAGES="flask werkzeug jinja2 markupsafe itsdangerous click blinker"

# Parts of CPython's own tests that run once beside the requests: what no count reached would be compiled for size.
PROFILE_TESTS="test_array test_base64 test_binascii test_bisect test_bytes test_collections test_complex test_dataclasses \
test_datetime test_deque test_descr test_dict test_enum test_exceptions test_float test_format test_functools \
test_generators test_heapq test_itertools test_json test_list test_long test_operator test_patma test_pickle test_re \
test_set test_sort test_statistics test_str test_struct test_tuple test_unicodedata test_userdict"

profile_cflags() {
    [ -z "$PROFDATA" ] || echo "-fprofile-instr-use=$PROFILE/python.profdata -Wno-profile-instr-unprofiled -Wno-profile-instr-out-of-date"
}

collect_profile() {
    local name path=$PROFILE/packages
    rm -rf "$PROFILE"
    mkdir -p "$path"
    for name in $PROFILE_PACKAGES; do
        unpack "$name"
        case $name in
        markupsafe) cp -R "$SRC/markupsafe/src/markupsafe" "$path" ;;
        *) cp -R "$SRC/$name"/. "$path" ;;
        esac
    done
    # With its C part, as in the guest.
    "$NATIVE_CC" -O1 -fPIC -shared -fprofile-instr-generate -I"$CPYTHON/Include" -I"$NATIVE" \
        "$path/markupsafe/_speedups.c" -o "$path/markupsafe/_speedups.so"
    cd "$PROFILE"
    # A fixed hash secret: the same build gets the same profile.
    export PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
    LLVM_PROFILE_FILE=$PROFILE/requests-%m.profraw PYTHONPATH=$path "$NATIVE/python" "$PYTHON_WASM/profile/workload.py"
    # shellcheck disable=SC2086
    LLVM_PROFILE_FILE=$PROFILE/tests-%p-%m.profraw "$NATIVE/python" -m test -q $PROFILE_TESTS ||
        echo "some failed; what they executed has been counted all the same"
    "$PROFDATA" merge -o requests.profdata requests-*.profraw
    "$PROFDATA" merge -o tests.profdata tests-*.profraw
    # The tests run for longer than the requests, but only to show what there is.
    "$PROFDATA" merge -weighted-input=20,requests.profdata -weighted-input=1,tests.profdata -o python.profdata
    rm ./*.profraw
}

take_profile() {
    local one
    if [ -z "$PROFDATA" ]; then
        say "with a WASI SDK CPython is compiled without a profile, which makes requests about 6 % slower"
        return
    fi
    for one in $PROFILE_PACKAGES; do fetch "$one"; done
    # shellcheck disable=SC2086
    step profile "$(stamp native-make) $(lock_line $PROFILE_PACKAGES) $(contents "$PYTHON_WASM/profile") $PROFILE_TESTS $(declare -f collect_profile)" \
        "taking a profile of CPython" collect_profile
}
