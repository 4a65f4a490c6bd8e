//! `isolation = "request"`: each request finds the app as it was after its import, and many may wait at a time.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{Server, config};

fn server(more: &str) -> Server {
    Server::start(&config("canary", more))
}

/// What the app finds of earlier requests, by place.
#[track_caller]
fn canaries(server: &Server, path: &str) -> Value {
    server.get(path).expect(200).json()
}

fn fresh() -> Value {
    json!({"global": 0, "table": 0, "module": false, "C cache": 0, "grown memory": 0, "tmp": false})
}

const REQUEST: &str = "workers = 1\nisolation = \"request\"\n[limits]\nconcurrency = 1";

/// A canary that a worker keeps, and a request does not find.
#[track_caller]
fn expect_kept_by_a_worker_alone(path: &str, place: &str, kept: &Value) {
    let worker = server("workers = 1");
    assert_eq!(
        canaries(&worker, "/")[place],
        fresh()[place],
        "nothing was there before"
    );
    worker.get(path);
    assert_eq!(canaries(&worker, "/")[place], *kept, "a worker keeps it");
    let request = server(REQUEST);
    for _ in 0..3 {
        request.get(path);
        assert_eq!(canaries(&request, "/"), fresh());
    }
}

#[test]
fn a_global_lives_as_long_as_its_request() {
    expect_kept_by_a_worker_alone("/", "global", &json!(2));
}

#[test]
fn a_patched_module_lives_as_long_as_its_request() {
    expect_kept_by_a_worker_alone("/", "module", &json!(true));
}

#[test]
fn a_cache_in_c_lives_as_long_as_its_request() {
    expect_kept_by_a_worker_alone("/", "C cache", &json!(2));
}

#[test]
fn grown_memory_lives_as_long_as_its_request() {
    expect_kept_by_a_worker_alone("/grow", "grown memory", &json!(40 << 20));
}

#[test]
fn a_temporary_file_lives_as_long_as_its_request() {
    expect_kept_by_a_worker_alone("/", "tmp", &json!(true));
}

#[test]
fn what_a_failed_request_leaves_lives_as_long_as_the_request() {
    expect_kept_by_a_worker_alone("/fail", "table", &json!(2));
}

#[test]
fn no_request_finds_anything_of_another() {
    let server = server("workers = 1\nisolation = \"request\"\n[limits]\nconcurrency = 2");
    for path in ["/", "/", "/grow", "/", "/fail", "/", "/"] {
        match path {
            "/fail" => _ = server.get(path).expect(500),
            "/grow" => {
                let found = canaries(&server, path);
                let own = json!({"table": 1, "grown memory": 40 << 20});
                for (place, value) in fresh().as_object().expect("an object") {
                    assert_eq!(
                        &found[place],
                        own.get(place).unwrap_or(value),
                        "its own hoard, and nothing else"
                    );
                }
            }
            _ => assert_eq!(canaries(&server, path), fresh(), "{path}"),
        }
    }
}

#[test]
fn warm_up_requests_leave_what_any_request_would_find() {
    let server = server("workers = 1\nisolation = \"request\"\nwarmup = [\"/\"]");
    let first = canaries(&server, "/");
    assert_eq!(
        first,
        json!({"global": 20, "table": 20, "module": true, "C cache": 20, "grown memory": 0, "tmp": false}),
        "memory is copied; /tmp is each copy's own"
    );
    assert_eq!(canaries(&server, "/"), first);
}

#[test]
fn many_requests_sleep_at_a_time() {
    let server = server("workers = 1\nisolation = \"request\"\n[limits]\nconcurrency = 40");
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| assert_eq!(canaries(&server, "/sleep"), fresh()));
        }
    });
    // One after the other they would take 40 s.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}
