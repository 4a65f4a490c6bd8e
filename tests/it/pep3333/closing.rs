//! close() is called after every reply, however it ended.

use std::time::{Duration, Instant};

use super::server;
use crate::server::{Server, config};

/// Waits until the app's close() has been called under this name, and fails if it was called twice.
#[track_caller]
fn expect_closed_once(name: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let closed = server().get("/closed").expect(200).json();
        let count = closed
            .as_array()
            .expect("a list")
            .iter()
            .filter(|closed| **closed == name)
            .count();
        assert!(count < 2, "close() was called {count} times under {name}");
        if count == 1 {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "close() was not called under {name}: {closed}"
        );
    }
}

#[test]
fn close_is_called_after_every_kind_of_end() {
    for (what, status) in [
        ("nothing", 200),
        ("raise", 200),
        ("raise-first", 500),
        ("str", 200),
        ("no-head", 500),
        ("late-head", 200),
    ] {
        let reply = server().get(&format!("/closing?name=after-{what}&what={what}"));
        assert_eq!(reply.status(), status, "{what}");
        assert_eq!(
            reply.complete,
            matches!(what, "nothing" | "raise-first" | "no-head"),
            "{what}"
        );
        expect_closed_once(&format!("after-{what}"));
    }
}

#[test]
fn close_is_called_after_head() {
    let reply = server()
        .request("HEAD", "/closing?name=head&what=nothing", "", b"")
        .expect(200);
    assert!(reply.body.is_empty());
    expect_closed_once("head");
}

#[test]
fn a_body_without_end_keeps_no_worker_once_nobody_takes_it() {
    // Of its own, since it has one worker to lose.
    let server = Server::start(&config("pep3333", "workers = 1\n[limits]\nqueue-time = \"5s\""));
    for method in ["GET", "HEAD"] {
        let mut connection = server.connect();
        connection.send(format!(
            "{method} /closing?name={method}&what=long HTTP/1.1\r\nHost: test\r\n\r\n"
        ));
        assert_eq!(connection.head_to(method).status, 200);
        drop(connection);
        let closed = server.get("/closed").expect(200).text();
        assert!(closed.contains(method), "close() was not called: {closed}");
    }
}

#[test]
fn close_is_called_when_the_client_goes_away() {
    for what in ["long", "slow"] {
        let mut connection = server().connect();
        connection.send(format!(
            "GET /closing?name=gone-{what}&what={what} HTTP/1.1\r\nHost: test\r\n\r\n"
        ));
        connection.head_to("GET");
        connection.chunk().expect("the first chunk");
        drop(connection);
        expect_closed_once(&format!("gone-{what}"));
    }
}

#[test]
fn an_exception_in_close_is_logged() {
    let mark = server().log.mark();
    let reply = server().get("/close-raises");
    assert_eq!(reply.status(), 200);
    server().log.wait_for(mark, "ValueError: in close");
    expect_closed_once("close-raises");
}
