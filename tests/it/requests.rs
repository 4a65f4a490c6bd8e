//! Requests that run or wait, as the operator sees them, and ends them: `wasgi ps` and `wasgi kill`.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{Connection, PATIENCE};
use crate::server::{Run, Server, config, run, wasgi};

fn start(more: &str) -> Server {
    Server::start(&config(
        "limits",
        &format!("{more}\n[admin]\nsocket = \"admin.sock\""),
    ))
}

pub(crate) fn ask(server: &Server, arguments: &[&str]) -> Run {
    let socket = server.dir.path().join("admin.sock");
    run(
        wasgi().args(arguments).arg("--admin").arg(socket),
        Duration::from_secs(30),
    )
}

fn requests(server: &Server) -> Vec<Value> {
    let told = ask(server, &["ps", "--json"]);
    assert_eq!(told.code(), 0, "{}", told.stderr);
    serde_json::from_str(&told.stdout).expect("JSON")
}

/// The request for `target`, once it is at `place`.
#[track_caller]
pub(crate) fn found(server: &Server, target: &str, place: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let requests = requests(server);
        if let Some(request) = requests
            .iter()
            .find(|it| it["target"] == target && it["where"] == place)
        {
            return request.clone();
        }
        assert!(
            Instant::now() < deadline,
            "{target} is not at {place}: {requests:?}"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

#[track_caller]
fn nothing_is_left(server: &Server) {
    let deadline = Instant::now() + PATIENCE;
    while let left = requests(server)
        && !left.is_empty()
    {
        assert!(Instant::now() < deadline, "{left:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn send(server: &Server, target: &str) -> Connection {
    let mut connection = server.connect();
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
    connection
}

#[test]
fn a_request_is_listed_and_ended_alone() {
    let server = start("workers = 2\n[limits]\ntime = \"10m\"");
    let (mut looping, mut asleep) = (send(&server, "/loop?all=1"), send(&server, "/sleep"));
    let request = found(&server, "/loop?all=1", "guest");
    found(&server, "/sleep", "sleep");
    assert_eq!(
        (&request["app"], &request["method"], &request["peer"]),
        (&"limits".into(), &"GET".into(), &"127.0.0.1".into())
    );
    let id = request["id"].as_str().expect("an id");
    // What it has cost is told while it runs.
    let deadline = Instant::now() + PATIENCE;
    while found(&server, "/loop?all=1", "guest")["cpu_ms"].as_f64() < Some(50.0) {
        assert!(Instant::now() < deadline);
    }
    let apps = ask(&server, &["top", "--json"]).stdout;
    let apps: Value = serde_json::from_str(&apps).expect("JSON");
    assert!(apps[0]["cpu_percent"].as_f64() > Some(10.0), "{apps}");
    let table = ask(&server, &["ps"]).stdout;
    assert!(table.starts_with("APP     ID"), "{table}");
    assert!(
        table
            .lines()
            .any(|line| line.contains(id) && line.ends_with("GET /loop?all=1")),
        "{table}"
    );
    assert_eq!(ask(&server, &["ps", "other"]).stdout.lines().count(), 1);

    let mark = server.log.mark();
    let unknown = ask(&server, &["kill", "0123456789ab"]);
    assert_eq!(unknown.code(), 1);
    assert!(
        unknown.stderr.contains("there is no request 0123456789ab"),
        "{}",
        unknown.stderr
    );
    let told = ask(&server, &["kill", &format!("limits/{id}")]);
    assert_eq!(
        (told.code(), told.stdout),
        (0, format!("app limits: request limits/{id} is ended\n"))
    );
    let reply = looping.reply().expect(503);
    assert_eq!(reply.header("x-request-id"), Some(id));
    assert!(
        reply.text().contains(id) && !reply.text().contains("Traceback"),
        "{}",
        reply.text()
    );
    server
        .log
        .wait_for(mark, "wasgi.limit.Killed: the operator has ended the request");
    server.log.wait_for(mark, "in loop");
    server
        .log
        .wait_for(mark, "the operator has ended its request; worker");
    // The neighbour has not noticed.
    let neighbour = found(&server, "/sleep", "sleep");
    let told = ask(&server, &["kill", neighbour["id"].as_str().expect("an id")]);
    assert_eq!(told.code(), 0, "{}", told.stderr);
    asleep.reply().expect(503);
    server.get("/ok").expect(200);
    nothing_is_left(&server);
}

#[test]
fn a_request_that_waits_for_a_worker_is_ended_there() {
    let server = start("workers = 1\n[limits]\ntime = \"10m\"\nqueue-time = \"10m\"");
    let _busy = send(&server, "/sleep");
    found(&server, "/sleep", "sleep");
    let (mut first, mut second) = (send(&server, "/ok?first"), send(&server, "/ok?second"));
    let waiting = found(&server, "/ok?first", "queue");
    assert_eq!(
        (&waiting["worker"], &waiting["memory"]),
        (&Value::Null, &0.into())
    );
    found(&server, "/ok?second", "queue");
    let mark = server.log.mark();
    assert_eq!(ask(&server, &["kill", waiting["id"].as_str().unwrap()]).code(), 0);
    first.reply().expect(503);
    let busy = found(&server, "/sleep", "sleep");
    assert_eq!(ask(&server, &["kill", busy["id"].as_str().unwrap()]).code(), 0);
    second.reply().expect(200);
    // Only the one that had a worker has cost it.
    server.log.wait_for(mark, "worker 1 is replaced");
    nothing_is_left(&server);
}

#[test]
fn a_reply_on_its_way_is_cut() {
    let server = start("workers = 1\n[limits]\ntime = \"10m\"\nwrite-time = \"10m\"");
    let mut connection = send(&server, "/reply-for-ever");
    assert_eq!(connection.head_to("GET").status, 200);
    let sending = found(&server, "/reply-for-ever", "sending");
    assert_eq!(ask(&server, &["kill", sending["id"].as_str().unwrap()]).code(), 0);
    while let Some(chunk) = connection.chunk() {
        assert!(!chunk.is_empty(), "a reply that was ended is not whole");
    }
    nothing_is_left(&server);
    server.get("/ok").expect(200);
}

#[test]
fn what_clients_call_things_reaches_no_terminal() {
    let server = start("workers = 1\n[limits]\ntime = \"10m\"\n[log]\ntrust-request-id = true");
    let mut connection = server.connect();
    // U+009B, which some terminals take for an escape.
    connection.send(b"GET /sleep?\xc2\x9b31m HTTP/1.1\r\nHost: test\r\nX-Request-Id: a/b+c=@.:-\r\n\r\n");
    let deadline = Instant::now() + PATIENCE;
    while requests(&server).is_empty() {
        assert!(Instant::now() < deadline);
    }
    let told = ask(&server, &["ps"]).stdout;
    let json = ask(&server, &["ps", "--json"]).stdout;
    for text in [&told, &json] {
        assert!(
            text.chars().all(|c| c == '\n' || (' '..='~').contains(&c)),
            "{text:?}"
        );
    }
    assert!(
        told.contains("a/b+c=@.:-") && told.contains("/sleep?\\x9b31m"),
        "{told:?}"
    );
    assert_eq!(ask(&server, &["kill", "a/b+c=@.:-"]).code(), 0);
    connection.reply().expect(503);
}
