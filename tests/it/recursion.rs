//! Recursion without end, in Python and in C, is Python's RecursionError and costs no worker.

use std::sync::LazyLock;

use crate::server::{Server, config};

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    Server::start(&config(
        "limits",
        "workers = 1\n[limits]\ntime = \"25s\"\nqueue-time = \"60s\"",
    ))
});

/// For what may cost a worker: the other one must keep its own.
static COSTLY: LazyLock<Server> = LazyLock::new(|| {
    let more = "workers = 1\n[limits]\ntime = \"25s\"\nqueue-time = \"60s\"";
    Server::start(&config("limits", more))
});

/// Every path must be answered by the same worker, with one of `starts`.
#[track_caller]
fn expect_survived(paths: &[&str], starts: &[&str]) {
    let mut failures = Vec::new();
    for path in paths {
        let worker = SERVER.get("/worker").expect(200).text();
        let reply = SERVER.get(path);
        let text = reply.text();
        if reply.status() != 200 || !starts.iter().any(|start| text.starts_with(start)) {
            failures.push(format!("{path}: {} {text:?}", reply.status()));
        } else if SERVER.get("/worker").expect(200).text() != worker {
            failures.push(format!("{path}: the worker is gone"));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn python_functions() {
    expect_survived(
        &["/recursion-python", "/recursion-method", "/recursion-generators"],
        &["RecursionError"],
    );
}

#[test]
fn built_in_types() {
    expect_survived(
        &[
            "/recursion-repr",
            "/recursion-repr-dict",
            "/recursion-equal",
            "/recursion-isinstance",
        ],
        &["RecursionError"],
    );
    expect_survived(
        &["/recursion-free", "/recursion-partial"],
        &["done", "RecursionError"],
    );
}

#[test]
fn parsers_and_writers() {
    expect_survived(
        &[
            "/recursion-json-loads",
            "/recursion-json-loads-objects",
            "/recursion-json-dumps",
            "/recursion-pickle",
            "/recursion-pickle-python",
            "/recursion-deepcopy",
            "/recursion-marshal",
            "/recursion-regex",
            "/recursion-xml",
        ],
        &["RecursionError"],
    );
    expect_survived(
        &["/recursion-regex-match"],
        &["done", "RecursionError", "MemoryError"],
    );
}

#[test]
fn the_compiler() {
    // The parser calls it MemoryError.
    expect_survived(
        &[
            "/recursion-compile-parentheses",
            "/recursion-compile-minus",
            "/recursion-compile-sum",
            "/recursion-compile-attributes",
            "/recursion-compile-not",
            "/recursion-compile-calls",
            "/recursion-compile-lambdas",
            "/recursion-ast",
            "/recursion-literal-eval",
        ],
        &["RecursionError", "MemoryError"],
    );
    expect_survived(
        &["/recursion-compile-strings"],
        &["done", "RecursionError", "MemoryError"],
    );
}

#[test]
fn a_raised_recursion_limit_does_not_raise_the_stack_s() {
    expect_survived(
        &["/recursion-unlimited-repr", "/recursion-unlimited-sort"],
        &["RecursionError", "MemoryError"],
    );
}

#[test]
fn frames_without_end_meet_the_memory_limit() {
    // Python's own frames are not on the stack; without its limit they fill the memory.
    let mark = COSTLY.log.mark();
    let reply = COSTLY.get("/recursion-unlimited");
    if reply.status() == 200 {
        assert!(reply.text().starts_with("MemoryError"), "{}", reply.text());
    } else {
        assert_eq!(reply.status(), 500);
        COSTLY.log.wait_for(mark, "memory limit of 256 MiB reached");
    }
    COSTLY.get("/ok").expect(200);
}

#[test]
fn long_chains_of_exceptions() {
    expect_survived(
        &["/recursion-exception-chain"],
        &["done", "RecursionError", "MemoryError"],
    );
    let mark = SERVER.log.mark();
    SERVER.get("/recursion-exception-chain-raised").expect(500);
    SERVER.log.wait_for(mark, "ValueError");
    SERVER.get("/ok").expect(200);
}

#[test]
fn an_uncaught_recursion_error_is_a_500_with_a_short_traceback() {
    let mark = SERVER.log.mark();
    SERVER.get("/recursion-uncaught").expect(500);
    SERVER
        .log
        .wait_for(mark, "RecursionError: maximum recursion depth exceeded");
    let frames = SERVER
        .log
        .since(mark)
        .iter()
        .filter(|line| line.contains("in deeper"))
        .count();
    assert!(
        (1..100).contains(&frames),
        "the same frame is shown {frames} times"
    );
    SERVER.get("/ok").expect(200);
}

#[test]
fn what_python_does_not_guard_costs_a_worker_at_most() {
    for path in ["/unguarded-map", "/unguarded-hash", "/unguarded-free"] {
        let mark = COSTLY.log.mark();
        let reply = COSTLY.get(path);
        if reply.status() != 200 {
            assert_eq!(reply.status(), 500, "{path}");
            COSTLY.log.wait_for(mark, "is replaced");
        }
        COSTLY.get("/ok").expect(200);
    }
}
