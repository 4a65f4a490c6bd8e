//! Coming and going: signals, sockets left behind, connections that stay open.

use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::Connection;
use crate::server::{Server, config, folder, run, wasgi};

const SOON: Duration = Duration::from_secs(10);

fn start(more: &str) -> Server {
    Server::start(&config("pep3333", &format!("workers = 1\n{more}")))
}

/// Waits until nothing accepts connections at this address any more.
#[track_caller]
fn expect_refused(server: &Server) {
    let deadline = Instant::now() + SOON;
    while TcpStream::connect(server.address()).is_ok() {
        assert!(Instant::now() < deadline, "connections are still accepted");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_signal_lets_running_requests_finish() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = start("");
        let mut idle = server.connect();
        idle.send("GET /ok HTTP/1.1\r\nHost: test\r\n\r\n")
            .reply()
            .expect(200);
        let mut running = server.connect();
        running.send("GET /stream?n=3&pause=0.7 HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(running.head_to("GET").status, 200);
        server.signal(signal);
        expect_refused(&server);
        assert!(idle.is_closed(), "nothing more comes on an idle connection");
        for number in 0..3 {
            assert_eq!(
                running.chunk().expect("a chunk"),
                format!("chunk {number}\n").as_bytes()
            );
        }
        assert_eq!(running.chunk().expect("the end"), b"");
        assert_eq!(server.wait(SOON).code(), Some(0), "{}", server.log.all());
    }
}

#[test]
fn a_stop_is_bounded() {
    let server = start("[limits]\nstop-time = \"600ms\"");
    let mut running = server.connect();
    running.send("GET /stream?n=2&pause=30 HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(running.head_to("GET").status, 200);
    let start = Instant::now();
    server.signal(Signal::TERM);
    let status = server.wait(SOON);
    assert!(
        start.elapsed() >= Duration::from_millis(550),
        "ended after {:?}",
        start.elapsed()
    );
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "ended after {:?}",
        start.elapsed()
    );
    assert_eq!(status.code(), Some(0), "{}", server.log.all());
}

#[test]
fn a_second_signal_ends_at_once() {
    let server = start("");
    let mut running = server.connect();
    running.send("GET /stream?n=2&pause=30 HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(running.head_to("GET").status, 200);
    server.signal(Signal::TERM);
    expect_refused(&server);
    let start = Instant::now();
    server.signal(Signal::TERM);
    let status = server.wait(SOON);
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "ended after {:?}",
        start.elapsed()
    );
    assert_ne!(status.code(), Some(0), "not everything was finished");
}

#[test]
fn slow_clients_do_not_hold_up_a_stop() {
    let server = start("[limits]\nstop-time = \"20s\"");
    let mut half = server.connect();
    half.send("GET /ok HTTP/1.1\r\nHo");
    let _silent = server.connect();
    server.get("/ok").expect(200);
    let start = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait(Duration::from_secs(30)).code(), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "ended after {:?}",
        start.elapsed()
    );
}

// Unix sockets

fn on_socket(path: &Path) -> String {
    config("pep3333", "workers = 1").replace("127.0.0.1:0", &format!("unix:{}", path.display()))
}

fn environ(path: &Path) -> serde_json::Value {
    let mut connection = Connection::unix(path);
    connection.send("GET /environ HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    connection.reply().expect(200).json()
}

#[test]
fn a_unix_socket_is_served_and_removed() {
    let place = tempfile::tempdir().expect("a folder for the test");
    let path = place.path().join("app.sock");
    let server = Server::start(&on_socket(&path));
    server
        .log
        .wait_for(0, &format!("listening on unix:{}", path.display()));
    let environ = environ(&path);
    assert_eq!(environ["HTTP_HOST"], "test");
    for key in ["SERVER_NAME", "SERVER_PORT"] {
        assert!(
            environ[key].as_str().is_some_and(|value| !value.is_empty()),
            "PEP 3333: {key} is never empty"
        );
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait(SOON).code(), Some(0));
    assert!(!path.exists(), "the socket is left behind");
}

#[test]
fn a_stale_socket_is_replaced() {
    let place = tempfile::tempdir().expect("a folder for the test");
    let path = place.path().join("app.sock");
    drop(UnixListener::bind(&path).expect("a socket"));
    assert!(path.exists());
    let server = Server::start(&on_socket(&path));
    environ(&path);
    // A server that was killed leaves a socket behind as well.
    server.signal(Signal::KILL);
    server.wait(SOON);
    assert!(path.exists());
    let _next = Server::start(&on_socket(&path));
    environ(&path);
}

#[test]
fn a_live_socket_is_refused() {
    let place = tempfile::tempdir().expect("a folder for the test");
    let path = place.path().join("app.sock");
    let _first = Server::start(&on_socket(&path));
    let dir = folder(&on_socket(&path));
    let second = run(
        wasgi().arg("serve").arg(dir.path().join("app.toml")),
        Duration::from_secs(60),
    );
    assert_ne!(second.code(), 0);
    assert!(second.stderr.contains("app.sock"), "{}", second.stderr);
    assert!(!second.stderr.contains("listening on"), "{}", second.stderr);
    environ(&path);
}

#[test]
fn a_file_in_the_socket_s_place_is_left_alone() {
    let place = tempfile::tempdir().expect("a folder for the test");
    let path = place.path().join("app.sock");
    fs::write(&path, "precious").expect("can be written");
    let dir = folder(&on_socket(&path));
    let run = run(
        wasgi().arg("serve").arg(dir.path().join("app.toml")),
        Duration::from_secs(60),
    );
    assert_ne!(run.code(), 0);
    assert!(run.stderr.contains("app.sock"), "{}", run.stderr);
    assert_eq!(fs::read_to_string(&path).expect("is there"), "precious");
}
