#!/usr/bin/env bash
# Runs the targets, all or those named, with libFuzzer for FUZZ_SECONDS each (default 10). They begin with the cases of
# tests/corpus and what earlier runs have found worth keeping, in target/fuzz/corpus.
#
# On the stable compiler: libFuzzer needs the counters that LLVM puts in, and those are had by flags that cargo-fuzz gives as
# well. What it needs a nightly compiler for is the address sanitizer; there is no unsafe code here.
set -euo pipefail
cd "$(dirname "$0")/../../.."

seconds=${FUZZ_SECONDS:-10}
targets=("$@")
[ $# -gt 0 ] || targets=(http uwsgi scgi fastcgi forwarded proxy)
out=$PWD/target/fuzz
export CARGO_TARGET_DIR=$out
# `make` gives another compiler where there is no cc.
read -ra cargo <<<"${CARGO:-cargo}"
command -v c++ >/dev/null || export CXX=${CXX:-clang++-19}
build=(--quiet --locked --manifest-path crates/protocol/fuzz/Cargo.toml)

"${cargo[@]}" run "${build[@]}" --no-default-features --bin seeds -- "$out/seeds"

host=$(rustc -vV | sed -n 's/^host: //p')
flags="--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    flags+=" -Cllvm-args=-sanitizer-coverage-$option"
done
# With a target named, the flags are not for what runs during the build.
RUSTFLAGS=$flags "${cargo[@]}" build "${build[@]}" --release --target "$host" "${targets[@]/#/--bin=}"
for target in "${targets[@]}"; do
    mkdir -p "$out/corpus/$target" "$out/found"
    log=$out/$target.log
    # A unit may take a second and the whole 512 MiB: what grows with its input shows.
    if ! "$out/$host/release/$target" "$out/corpus/$target" "$out/seeds/$target" -max_total_time="$seconds" -timeout=2 \
        -rss_limit_mb=512 -max_len=8192 -artifact_prefix="$out/found/$target-" -print_final_stats=1 >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        echo "fuzz: $target: found something; target/fuzz/found has the input" >&2
        exit 1
    fi
    awk -v target="$target" '/number_of_executed_units/ { runs = $2 } /peak_rss_mb/ { peak = $2 } / cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") cov = $(i + 1) }
        END { printf "%s: %d inputs, %d edges reached, at most %d MB\n", target, runs, cov, peak; exit !(runs > 100) }' "$log"
done
