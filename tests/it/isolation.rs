//! `isolation = "request"`: each request finds the app as it was after its import, and many may wait at a time.

use std::thread;
use std::time::{Duration, Instant};

use crate::server::{Server, config};

const FRESH: &str = "[0, 0, False, 0, False]";

fn server(more: &str) -> Server {
    Server::start(&config("canary", more))
}

#[test]
fn a_worker_remembers_unless_it_is_told_not_to() {
    let server = server("workers = 1");
    assert_eq!(server.get("/").expect(200).text(), FRESH);
    assert_eq!(server.get("/").expect(200).text(), "[1, 1, True, 1, True]");
}

#[test]
fn no_request_finds_anything_of_another() {
    let server = server("workers = 1\nisolation = \"request\"\n[limits]\nconcurrency = 2");
    for path in ["/", "/", "/grow", "/", "/fail", "/", "/"] {
        let reply = server.get(path);
        match path {
            "/fail" => assert_eq!(reply.status(), 500),
            // It finds its own hoard, and nothing else.
            "/grow" => assert_eq!(reply.expect(200).text(), "[0, 1, False, 0, False]"),
            _ => assert_eq!(reply.expect(200).text(), FRESH, "{path}"),
        }
    }
}

#[test]
fn warm_up_requests_leave_what_any_request_would_find() {
    let server = server("workers = 1\nisolation = \"request\"\nwarmup = [\"/\"]");
    let first = server.get("/").expect(200).text();
    assert!(first.starts_with("[20, 20, True, "), "{first}");
    assert_eq!(server.get("/").expect(200).text(), first);
}

#[test]
fn many_requests_sleep_at_a_time() {
    let server = server("workers = 1\nisolation = \"request\"\n[limits]\nconcurrency = 40");
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| assert_eq!(server.get("/sleep").expect(200).text(), FRESH));
        }
    });
    // One after the other they would take 40 s.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}
