//! Notes which wasmtime is compiled in: `wasgi --version` names it, and wasmtime itself does not tell.

use std::path::Path;

fn main() {
    let lock =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("../../Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    let text = std::fs::read_to_string(&lock).expect("Cargo.lock is at the workspace's root");
    let version = text
        .split_once("name = \"wasmtime\"\nversion = \"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .expect("Cargo.lock names wasmtime")
        .0;
    println!("cargo::rustc-env=WASGI_WASMTIME_VERSION={version}");
}
