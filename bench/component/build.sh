#!/usr/bin/env bash
# Makes the app in a folder into a component: build.sh FOLDER OUTPUT
set -euo pipefail
cd "$(dirname "$0")"
app=$1
made=$2
out=../../target/bench/components
if [ -f "$made" ] && [ -z "$(find . "$app" -name __pycache__ -prune -o -type f -newer "$made" -print)" ]; then
    exit 0
fi

# The interfaces, as the installed wasmtime's own crate has them. Cargo only fetches for a package, so it gets one that
# depends on nothing but that crate.
version=$(wasmtime --version | cut -d ' ' -f 2)
wit=$out/wit-$version
if [ ! -d "$wit" ]; then
    room=$(mktemp -d)
    trap 'rm -rf "$room"' EXIT
    mkdir -p "$room/src" "$out"
    : >"$room/src/lib.rs"
    cat >"$room/Cargo.toml" <<TOML
[package]
name = "wit"
version = "0.0.0"
edition = "2021"
[workspace]
[dependencies]
wasmtime-wasi-http = { version = "=$version", default-features = false }
TOML
    cargo metadata --quiet --format-version 1 --manifest-path "$room/Cargo.toml" >"$room/metadata.json"
    manifest=$(grep -o '"manifest_path":"[^"]*/wasmtime-wasi-http-[^"]*"' "$room/metadata.json" | head -n 1 | cut -d '"' -f 4)
    crate=$(dirname "$manifest")
    found=$(find "$crate" -path '*/p3/*' -prune -o -name http.wit -print | head -n 1)
    [ -n "$found" ] || { echo "wasmtime-wasi-http $version has no http.wit" >&2; exit 1; }
    cp -R "$(dirname "$(dirname "$found")")" "$wit"
fi

componentize-py -d "$wit" -w wasi:http/proxy componentize adapter -p . -p "$app" -p ../../target/bench/packages -o "$made.new" >&2
mv "$made.new" "$made"
