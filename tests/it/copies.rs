//! Workers are copies of the app after its import. What was opened or drawn there must not be shared by mistake.

use std::collections::HashSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::server::{Server, config};

const FILES: &str = "[files]\n\"/data\" = { path = \"data\", write = true }";

fn text(server: &Server, target: &str) -> String {
    server.get(target).expect(200).text()
}

#[test]
fn files_kept_open_since_the_import_work_in_every_copy() {
    let server = Server::start(&config(
        "kept",
        &format!("workers = 3\nmax-requests = 4\n{FILES}"),
    ));
    thread::scope(|scope| {
        for client in 0..4 {
            let server = &server;
            scope.spawn(move || {
                for number in 0..15 {
                    assert_eq!(text(server, &format!("/note-{client}-{number}")), "noted");
                }
            });
        }
    });
    assert_eq!(text(&server, "/seen"), "60");
    let log = fs::read_to_string(server.dir.path().join("data/app.log")).expect("the app's log");
    let lines: HashSet<_> = log.lines().collect();
    assert_eq!(
        (lines.len(), log.lines().count()),
        (60, 60),
        "each line once, and whole"
    );
    assert!(lines.contains("/note-3-14"), "{log}");
}

#[test]
fn copies_draw_different_random_values() {
    // A new copy for nearly every request.
    let server = Server::start(&config("copied", "workers = 2\nmax-requests = 1"));
    let mut seen = HashSet::new();
    for _ in 0..10 {
        for value in text(&server, "/random").split(' ') {
            assert!(seen.insert(value.to_owned()), "{value} came twice");
        }
    }
}

#[test]
fn fork_handlers_run_once_in_every_copy() {
    for more in [
        "workers = 2\nmax-requests = 1",
        "workers = 1\nisolation = \"request\"",
    ] {
        let server = Server::start(&config("copied", more));
        for _ in 0..4 {
            assert_eq!(text(&server, "/forks"), "1 in a child, 0 before");
        }
    }
}

#[test]
fn clocks_go_on_in_every_copy() {
    let server = Server::start(&config("copied", "workers = 1\nmax-requests = 1"));
    let clocks = || {
        let text = text(&server, "/clock");
        let (since_import, monotonic) = text.split_once(' ').expect("two numbers");
        (
            since_import.parse::<f64>().expect("a number"),
            monotonic.parse::<f64>().expect("a number"),
        )
    };
    let first = clocks();
    let asked = Instant::now();
    thread::sleep(Duration::from_millis(300));
    let second = clocks();
    let passed = asked.elapsed().as_secs_f64();
    for (before, after) in [(first.0, second.0), (first.1, second.1)] {
        assert!(
            after - before >= 0.29 && after - before <= passed + 1.0,
            "{first:?} {second:?}"
        );
    }
}
