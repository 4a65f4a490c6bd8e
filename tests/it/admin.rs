//! The operator's way in: probes, figures for Prometheus and uwsgitop, and apps taken out of service and back.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::client::PATIENCE;
use crate::server::{Server, config, folder, packages, project};

const TOKEN: &str = "0123456789abcdef0123";

/// A server of tests/apps/plain with everything that `[admin]` offers.
struct Watched {
    server: Server,
}

impl Watched {
    fn start() -> Self {
        let admin = "[admin]\nsocket = \"admin.sock\"\ntcp = \"127.0.0.1:0\"\ntoken = \"${ADMIN_TOKEN}\"\nstats = \"127.0.0.1:0\"\n";
        let dir = folder(&config("plain", admin));
        let server = Server::start_in(dir, |command| {
            command.env("ADMIN_TOKEN", TOKEN);
        });
        Self { server }
    }

    fn socket(&self) -> PathBuf {
        self.server.dir.path().join("admin.sock")
    }

    /// Where it said that it listens for this.
    fn address(&self, what: &str) -> String {
        let line = self.server.log.wait_for(0, &format!("{what} on http://"));
        line.rsplit_once("http://").unwrap().1.to_owned()
    }

    fn ask(&self, method: &str, target: &str) -> (u16, String) {
        ask(UnixStream::connect(self.socket()).unwrap(), method, target, "")
    }

    fn ask_over_tcp(&self, target: &str, fields: &str) -> (u16, String) {
        ask(
            TcpStream::connect(self.address("admin")).unwrap(),
            "GET",
            target,
            fields,
        )
    }

    fn app(&self) -> Value {
        let (status, text) = self.ask("GET", "/apps");
        assert_eq!(status, 200);
        let apps: Value = serde_json::from_str(&text).unwrap();
        apps[0].clone()
    }
}

fn ask(mut stream: impl Read + Write, method: &str, target: &str, fields: &str) -> (u16, String) {
    write!(
        stream,
        "{method} {target} HTTP/1.0\r\nHost: admin\r\n{fields}\r\n"
    )
    .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").expect("a whole head");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

#[test]
fn the_socket_is_its_users_alone_and_goes_with_the_server() {
    let watched = Watched::start();
    let mode = fs::metadata(watched.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    watched.server.signal(Signal::TERM);
    assert!(watched.server.wait(PATIENCE).success());
    assert!(!watched.socket().exists());
}

#[test]
fn probes_are_answered_without_the_token_and_nothing_else_is() {
    let watched = Watched::start();
    for target in ["/healthz", "/readyz"] {
        assert_eq!(watched.ask_over_tcp(target, ""), (200, "ok\n".to_owned()));
    }
    let right = format!("Authorization: Bearer {TOKEN}\r\n");
    let wrong = format!("Authorization: Bearer {TOKEN}0\r\n");
    for target in [
        "/metrics",
        "/stats",
        "/apps",
        "/apps/plain/log",
        "/apps/plain/drain",
    ] {
        for fields in ["", &wrong] {
            let (status, text) = watched.ask_over_tcp(target, fields);
            assert_eq!(status, 401, "{target}: {text}");
        }
    }
    for target in ["/metrics", "/stats", "/apps", "/apps/plain/log"] {
        assert_eq!(watched.ask_over_tcp(target, &right).0, 200, "{target}");
    }
    let log = watched.server.log.since(0).join("\n");
    assert!(!log.contains(TOKEN), "{log}");
}

#[test]
fn a_server_that_stops_is_not_ready() {
    let watched = Watched::start();
    assert_eq!(watched.ask("GET", "/readyz").0, 200);
    // A request that runs keeps it there.
    let mut slow = watched.server.connect();
    slow.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n");
    let deadline = Instant::now() + PATIENCE;
    while watched.app()["in_flight"] != 1 {
        assert!(Instant::now() < deadline, "{}", watched.app());
        thread::sleep(Duration::from_millis(5));
    }
    watched.server.signal(Signal::TERM);
    loop {
        let (status, _) = watched.ask("GET", "/readyz");
        if status == 503 {
            break;
        }
        assert!(status == 200 && Instant::now() < deadline, "{status}");
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(watched.ask("GET", "/healthz").0, 200);
    slow.send("0123456789");
    slow.reply();
    watched.server.wait(PATIENCE);
}

#[test]
fn figures_tell_what_clients_got() {
    let watched = Watched::start();
    for _ in 0..10 {
        watched.server.get("/").expect(200);
    }
    watched.server.get("/nothing/here");
    let deadline = Instant::now() + PATIENCE;
    while watched.app()["requests"] != 11 {
        assert!(Instant::now() < deadline, "{}", watched.app());
        thread::sleep(Duration::from_millis(5));
    }
    let app = watched.app();
    assert_eq!(
        (&app["name"], &app["state"]),
        (&"plain".into(), &"serving".into())
    );
    assert_eq!((&app["generation"], &app["instances"]), (&1.into(), &2.into()));
    assert!(app["statuses"][1].as_u64().unwrap() >= 10, "{app}");
    assert!(
        app["memory"].as_u64().unwrap() > 0 && app["cpu_ms"].as_f64().unwrap() > 0.0,
        "{app}"
    );
    let (half, most) = (app["p50_ms"].as_f64().unwrap(), app["p99_ms"].as_f64().unwrap());
    assert!(0.0 < half && half <= most && most < 60_000.0, "{app}");
    let (status, metrics) = watched.ask("GET", "/metrics");
    assert_eq!(status, 200);
    for line in [
        "wasgi_app_up{app=\"plain\"} 1",
        "wasgi_request_duration_seconds_count{app=\"plain\"} 11",
        "wasgi_queue_duration_seconds_count{app=\"plain\"} 11",
        "wasgi_instances{app=\"plain\"} 2",
        "wasgi_requests_in_flight{app=\"plain\"} 0",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line}\nin\n{metrics}");
    }
}

#[test]
fn prometheus_finds_nothing_to_blame() {
    let watched = Watched::start();
    watched.server.get("/").expect(200);
    let (_, metrics) = watched.ask("GET", "/metrics");
    let mut promtool = Command::new(promtool())
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(metrics.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.is_empty(),
        "{said}\nof\n{metrics}"
    );
}

fn promtool() -> PathBuf {
    let path = project().join("target/promtool");
    assert!(
        path.exists(),
        "{} is missing: run `make target/promtool` first",
        path.display()
    );
    path
}

/// The real one, in a terminal of its own.
#[test]
fn uwsgitop_shows_the_app() {
    let watched = Watched::start();
    watched.server.get("/").expect(200);
    let uwsgitop = packages().join("bin/uwsgitop");
    assert!(
        uwsgitop.exists(),
        "{} is missing: run `make packages`",
        uwsgitop.display()
    );
    let command = format!("python3 {} {}", uwsgitop.display(), watched.address("stats"));
    let mut terminal = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .env("TERM", "xterm")
        .env("LINES", "40")
        .env("COLUMNS", "200")
        .env("PYTHONPATH", packages())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script of bsdutils starts");
    let (told, screen) = mpsc::channel();
    let mut output = terminal.stdout.take().unwrap();
    let reader = thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = output.read(&mut bytes) {
            let _ = told.send(String::from_utf8_lossy(&bytes[..count]).into_owned());
        }
    });
    let mut shown = String::new();
    let deadline = Instant::now() + PATIENCE;
    while !(shown.contains("plain") && shown.contains("uwsgi-wasgi")) && Instant::now() < deadline {
        match screen.recv_timeout(Duration::from_millis(100)) {
            Ok(more) => shown.push_str(&more),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    let _ = terminal.stdin.take().unwrap().write_all(b"q");
    let _ = terminal.kill();
    let _ = terminal.wait();
    let _ = reader.join();
    assert!(
        shown.contains("plain") && shown.contains("uwsgi-wasgi"),
        "{shown:?}"
    );
    assert!(!shown.contains("Traceback"), "{shown:?}");
}

#[test]
fn a_drained_app_takes_no_requests_until_it_is_resumed() {
    let watched = Watched::start();
    watched.server.get("/").expect(200);
    assert_eq!(watched.ask("GET", "/apps/plain/drain").0, 405);
    assert_eq!(watched.ask("POST", "/apps/other/drain").0, 404);
    assert_eq!(watched.ask("POST", "/apps/plain/drain").0, 200);
    let reply = watched.server.get("/").expect(503);
    assert!(reply.header("retry-after").is_some());
    assert_eq!(watched.app()["state"], "drained");
    assert_eq!(watched.ask("POST", "/apps/plain/resume").0, 200);
    watched.server.get("/").expect(200);
    assert_eq!(watched.ask("POST", "/apps/plain/rollback").0, 409);
}

#[test]
fn an_apps_lines_are_followed_as_they_come() {
    let watched = Watched::start();
    watched.server.get("/before").expect(200);
    let mut follower = UnixStream::connect(watched.socket()).unwrap();
    follower.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(follower, "GET /apps/plain/log?follow HTTP/1.0\r\nHost: a\r\n\r\n").unwrap();
    let mut told = String::new();
    let mut until = |text: &str| {
        let mut bytes = [0; 4096];
        while !told.contains(text) {
            let count = follower.read(&mut bytes).expect("a line in time");
            assert!(count > 0, "{text:?} is not in {told:?}");
            told.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    };
    until("GET /before");
    watched.server.get("/after").expect(200);
    until("GET /after");
}
