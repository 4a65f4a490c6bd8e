//! What the figures were measured on.

use std::fs::read_to_string;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::place::Place;

/// Machine and versions, name by name, in the order of the report.
pub fn describe(place: &Place) -> Map<String, Value> {
    let cpus = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let memory = read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = field(&memory, "MemTotal").and_then(|value| value.split(' ').next()?.parse::<u64>().ok());
    let python = place.program("python");
    let load = read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().and_then(|load| load.parse::<f64>().ok());
    let facts = [
        ("cpu", json!(field(&cpus, "model name").unwrap_or("unknown"))),
        (
            "cores",
            json!(std::thread::available_parallelism().map_or(0, usize::from)),
        ),
        ("memory_gib", json!(kilobytes.unwrap_or(0) >> 20)),
        (
            "kernel",
            json!(
                read_to_string("/proc/sys/kernel/osrelease")
                    .unwrap_or_default()
                    .trim()
            ),
        ),
        ("load_before", json!(load)),
        ("wasgi", json!(first_line(&place.wasgi, &["--version"]))),
        (
            "wasgi_build",
            json!(place.wasgi.strip_prefix(&place.root).unwrap_or(&place.wasgi)),
        ),
        ("python", json!(first_line(&python, &["--version"]))),
        ("uwsgi", json!(package(&python, "uwsgi"))),
        ("granian", json!(package(&python, "granian"))),
        ("gunicorn", json!(package(&python, "gunicorn"))),
        ("flask", json!(package(&python, "flask"))),
        ("wrk", json!(first_line(Path::new("wrk"), &["-v"]))),
        (
            "wasmtime",
            json!(first_line(Path::new("wasmtime"), &["--version"])),
        ),
    ];
    facts
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}

/// What a program says of itself; wrk says it while it fails.
fn first_line(program: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().next()?.split(" [").next()?.trim().to_owned())
}

fn package(python: &Path, name: &str) -> Option<String> {
    first_line(
        python,
        &[
            "-c",
            &format!("import importlib.metadata as m; print(m.version('{name}'))"),
        ],
    )
}
