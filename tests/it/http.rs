//! HTTP/1.1 as it is on the wire: what is served, what is refused, and who may keep the server waiting.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Connection, Framing};
use crate::server::{Server, config};

static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start(&config("pep3333", "workers = 2")));

/// Waits for nobody. It has one worker, so tests take turns: see `impatient`.
static IMPATIENT: LazyLock<Server> = LazyLock::new(|| {
    let more = "workers = 1\n[limits]\nhead-time = \"1s\"\nbody-time = \"1s\"\nidle-time = \"1s\"\nwrite-time = \"1s\"\n\
                request-body = \"100KiB\"\nrequest-head = \"16KiB\"";
    Server::start(&config("pep3333", more))
});

/// The server that waits for nobody, for one test at a time.
fn impatient() -> (&'static Server, MutexGuard<'static, ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    (&IMPATIENT, turn)
}

const OK: &str = "GET /ok HTTP/1.1\r\nHost: test\r\n\r\n";

/// Sends bytes that are no valid request, followed by one that would be.
///
/// Wants the status, a closed connection, and nothing said to what followed: who disagrees about where a request ends
/// must not get a second one through.
#[track_caller]
fn expect_refused(request: &[u8], statuses: &[u16]) {
    let shown = crate::client::latin1(&request[..request.len().min(200)]);
    let mut connection = SERVER.connect();
    connection.send(request).send(OK);
    let reply = connection.reply();
    assert!(
        statuses.contains(&reply.status()),
        "{} for {shown:?}",
        reply.status()
    );
    assert!(reply.complete, "cut: {shown:?}");
    assert!(connection.is_closed(), "{shown:?}");
}

// Connections

#[test]
fn a_connection_serves_many_requests() {
    let mut connection = SERVER.connect();
    for _ in 0..5 {
        assert_eq!(connection.send(OK).reply().expect(200).text(), "fine\n");
        connection.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody");
        assert_eq!(connection.reply().expect(200).text(), "body");
    }
    connection.send("GET /ok HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let reply = connection.reply().expect(200);
    assert_eq!(reply.header("Connection"), Some("close"));
    assert!(connection.is_closed());
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut connection = SERVER.connect();
    let mut all = String::new();
    for number in 0..6 {
        // The first are the slow ones.
        all += &format!(
            "GET /stream?n=2&pause=0.0{} HTTP/1.1\r\nHost: test\r\n\r\n",
            6 - number
        );
        all += &format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 6\r\n\r\nbody {number}");
        all += "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    }
    connection.send(all);
    for number in 0..6 {
        assert_eq!(connection.reply().expect(200).text(), "chunk 0\nchunk 1\n");
        assert_eq!(connection.reply().expect(200).text(), format!("body {number}"));
        assert_eq!(connection.reply().expect(200).text(), "abc");
    }
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let mut connection = SERVER.connect();
    let request = "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\n5;x=\"y\"\r\npedia\r\n0\r\n\r\n";
    for byte in request.bytes() {
        connection.send([byte]);
    }
    assert_eq!(connection.reply().expect(200).text(), "wikipedia");
}

// HEAD, HTTP/1.0, Expect

#[test]
fn head_gets_the_head_alone() {
    for target in [
        "/ok",
        "/one-chunk",
        "/two-chunks",
        "/length?claim=10&send=10",
        "/empty",
        "/big?mib=200",
    ] {
        let mut connection = SERVER.connect();
        connection.send(format!("HEAD {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let head = connection.reply_to("HEAD").expect(200);
        assert!(head.header("Content-Type").is_some());
        if target == "/length?claim=10&send=10" {
            assert_eq!(
                head.header("Content-Length"),
                Some("10"),
                "what the app says of its GET"
            );
        }
        assert_eq!(
            connection.send(OK).reply().expect(200).text(),
            "fine\n",
            "in step after HEAD {target}"
        );
    }
}

#[test]
fn http_1_0_gets_no_chunks() {
    let mut connection = SERVER.connect();
    connection.send("GET /two-chunks HTTP/1.0\r\n\r\n");
    let reply = connection.reply().expect(200);
    assert_eq!(reply.head.framing, Framing::Close);
    assert_eq!(reply.text(), "two chunks\n");
    let mut connection = SERVER.connect();
    connection.send("GET /one-chunk HTTP/1.0\r\n\r\n");
    assert_eq!(connection.reply().expect(200).text(), "one chunk\n");
    assert!(connection.is_closed(), "HTTP/1.0 closes unless asked not to");
    let mut connection = SERVER.connect();
    connection.send("GET /one-chunk HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let reply = connection.reply().expect(200);
    if reply
        .header("Connection")
        .is_some_and(|value| value.eq_ignore_ascii_case("keep-alive"))
    {
        connection.send("GET /environ HTTP/1.0\r\n\r\n");
        assert_eq!(
            connection.reply().expect(200).json()["SERVER_PROTOCOL"],
            "HTTP/1.0"
        );
    } else {
        assert!(connection.is_closed());
    }
}

#[test]
fn expect_100_continue_is_answered_when_the_app_reads() {
    let mut connection = SERVER.connect();
    connection.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(connection.head_to("POST").status, 100);
    connection.send("hello");
    assert_eq!(connection.reply().expect(200).text(), "hello");

    // An app that answers without reading spares the client the body.
    let mut connection = SERVER.connect();
    connection.send("POST /ok HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(connection.reply().expect(200).text(), "fine\n");
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_sent() {
    let (server, _turn) = impatient();
    let mut connection = server.connect();
    connection
        .send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 102401\r\nExpect: 100-continue\r\n\r\n");
    connection.reply().expect(413);
    let mark = server.log.mark();
    let reply = server.request("POST", "/errors", "Content-Length: 99999999999\r\n", b"");
    assert_eq!(reply.status(), 413);
    server.log.wait_for(mark, " 413 ");
    assert!(!server.log.has(mark, "to wsgi.errors"), "the app has seen it");
    server
        .request("POST", "/sum", "Content-Length: 102400\r\n", &[b'x'; 102_400])
        .expect(200);
}

#[test]
fn a_chunked_body_is_cut_off_at_its_limit() {
    let (server, _turn) = impatient();
    let mut body = Vec::new();
    for _ in 0..40 {
        body.extend(b"1000\r\n");
        body.extend([b'x'; 4096]);
        body.extend(b"\r\n");
    }
    body.extend(b"0\r\n\r\n");
    let reply = server.request("POST", "/sum", "Transfer-Encoding: chunked\r\n", &body);
    assert_eq!(reply.status(), 413);
    server.get("/ok").expect(200);
}

// Targets

#[test]
fn an_absolute_target_names_its_host() {
    let mut connection = SERVER.connect();
    connection.send("GET http://test/environ?a=b HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let environ = connection.reply().expect(200).json();
    assert_eq!(
        (&environ["PATH_INFO"], &environ["HTTP_HOST"]),
        (&"/environ".into(), &"test".into())
    );
    expect_refused(b"GET http://other/ok HTTP/1.1\r\nHost: test\r\n\r\n", &[400]);
    expect_refused(b"GET ok HTTP/1.1\r\nHost: test\r\n\r\n", &[400]);
    expect_refused(
        b"CONNECT test:80 HTTP/1.1\r\nHost: test:80\r\n\r\n",
        &[400, 405, 501],
    );
}

// Refused

#[test]
fn ambiguous_lengths_are_refused() {
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 4\r\nContent-Length: 5",
        "Content-Length: 4\r\nContent-Length: 4",
        "Content-Length: 4, 4",
        "Content-Length: +4",
        "Content-Length: -4",
        "Content-Length: 0x4",
        "Content-Length: 4 4",
        "Content-Length: 4;",
        "Content-Length:",
        "Content-Length : 4",
        "Content_Length: 4\r\nContent-Length: x",
    ] {
        let request = format!("POST /echo HTTP/1.1\r\nHost: test\r\n{fields}\r\n\r\nabcd");
        expect_refused(request.as_bytes(), &[400]);
    }
    // A length that is only too large may be told so; what matters is that no digits are dropped.
    for length in ["18446744073709551620", "340282366920938463463374607431768211460"] {
        let request = format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\nabcd");
        expect_refused(request.as_bytes(), &[400, 413]);
    }
    let transfer_codings: [&[u8]; 9] = [
        b"gzip, chunked",
        b"chunked, gzip",
        b"chunked, chunked",
        b"identity",
        b"x",
        b"\"chunked\"",
        b"chunked\x0b",
        b"chunke",
        b"",
    ];
    for value in transfer_codings {
        let mut request = b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: ".to_vec();
        request.extend(value);
        request.extend(b"\r\n\r\n0\r\n\r\n");
        expect_refused(&request, &[400, 501]);
    }
    for fields in [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
    ] {
        let request = format!("POST /echo HTTP/1.1\r\nHost: test\r\n{fields}\r\n\r\n0\r\n\r\n");
        expect_refused(request.as_bytes(), &[400, 501]);
    }
    expect_refused(
        b"POST /echo HTTP/1.0\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400],
    );
}

#[test]
fn malformed_heads_are_refused() {
    let lines: [&[u8]; 17] = [
        b"X A: b",
        b"X-A : b",
        b" X-A: b",
        b": b",
        b"X-A",
        b"X-\x00A: b",
        b"X-A: a\x00b",
        b"X-A: a\rb",
        b"X-A: a\x1bb",
        b"X-A: a\x7fb",
        b"X\xe9: b",
        b"X(A): b",
        b"X-A: b\r\n folded: yes",
        b"X-A: b\r\n\tfolded",
        b"X-A: b\nX-B: c",
        b"Host: other",
        b"Host: test",
    ];
    for line in lines {
        let mut request = b"GET /ok HTTP/1.1\r\nHost: test\r\n".to_vec();
        request.extend(line);
        request.extend(b"\r\n\r\n");
        expect_refused(&request, &[400]);
    }
    for request in [
        "GET /ok HTTP/1.1\r\n\r\n",
        "GET /ok HTTP/1.1\nHost: test\n\n",
        "GET /ok HTTP/1.1\r\nHost: test\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: test\r\n\n",
        "GET  /ok HTTP/1.1\r\nHost: test\r\n\r\n",
        "GET /ok  HTTP/1.1\r\nHost: test\r\n\r\n",
        "GET /ok HTTP/1.1 \r\nHost: test\r\n\r\n",
        " GET /ok HTTP/1.1\r\nHost: test\r\n\r\n",
        "GET /o k HTTP/1.1\r\nHost: test\r\n\r\n",
        "GET /ok\r\n\r\n",
        "GE(T /ok HTTP/1.1\r\nHost: test\r\n\r\n",
        "GET /ok\0 HTTP/1.1\r\nHost: test\r\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: te st\r\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: test/ok\r\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: user@test\r\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: test:port\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03 a browser that wants TLS\r\n\r\n",
    ] {
        expect_refused(request.as_bytes(), &[400]);
    }
    for version in [
        "HTTP/1.2",
        "HTTP/2.0",
        "HTTP/0.9",
        "HTTP/11",
        "HTTP/1.1.1",
        "http/1.1",
        "HTTX/1.1",
        "HTTP/1",
    ] {
        expect_refused(
            format!("GET /ok {version}\r\nHost: test\r\n\r\n").as_bytes(),
            &[400, 505],
        );
    }
}

#[test]
fn bad_percent_signs_do_not_reach_the_app_as_paths() {
    for target in ["/ok%", "/ok%4", "/ok%zz", "/ok%00"] {
        let reply = SERVER.get(target);
        assert!(
            matches!(reply.status(), 400 | 404),
            "{target}: {}",
            reply.status()
        );
    }
}

#[test]
fn overlong_heads_are_refused() {
    let (server, _turn) = impatient();
    let long = "x".repeat(70_000);
    let many = "X-A: b\r\n".repeat(10_000);
    for (request, statuses) in [
        (
            format!("GET /ok HTTP/1.1\r\nHost: test\r\nX-Long: {long}\r\n\r\n"),
            &[431][..],
        ),
        (format!("GET /ok HTTP/1.1\r\nHost: test\r\n{many}\r\n"), &[431]),
        (format!("GET /{long} HTTP/1.1\r\nHost: test\r\n\r\n"), &[414, 431]),
        (
            format!("{long} / HTTP/1.1\r\nHost: test\r\n\r\n"),
            &[400, 414, 431],
        ),
        (format!("GET /ok HTTP/1.1\r\nHost: test\r\n{long}"), &[400, 431]),
    ] {
        let mut connection = SERVER.connect();
        connection.send(request);
        let reply = connection.reply();
        assert!(statuses.contains(&reply.status()), "{}", reply.status());
        assert!(connection.is_closed());
    }
    // The limit is the configured one: what the other server refuses, this one serves.
    let request = format!(
        "GET /ok HTTP/1.1\r\nHost: test\r\nX-Long: {}\r\n\r\n",
        "x".repeat(30_000)
    );
    SERVER.connect().send(&request).reply().expect(200);
    assert_eq!(server.connect().send(&request).reply().status(), 431);
}

#[test]
fn malformed_chunks_end_the_connection() {
    for body in [
        "x\r\n",
        "-1\r\na\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\nabc\n0\n\n",
        "ffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "10000000000000000\r\nabc\r\n0\r\n\r\n",
        "3 \u{b}\r\nabc\r\n0\r\n\r\n",
        "\r\n\r\n",
    ] {
        let mut connection = SERVER.connect();
        connection.send(format!(
            "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{body}{OK}"
        ));
        if let Some(reply) = connection.reply_or_close() {
            assert_eq!(reply.status(), 400, "{body:?}");
            assert!(connection.is_closed(), "{body:?}");
        }
    }
    SERVER.get("/ok").expect(200);
}

#[test]
fn a_body_that_breaks_off_is_not_taken_for_a_whole_one() {
    for request in [
        "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf",
        "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
    ] {
        let mut connection = SERVER.connect();
        connection.send(request).finish_sending();
        if let Some(reply) = connection.reply_or_close() {
            assert_eq!(reply.status(), 400, "{request:?}");
        }
    }
    SERVER.get("/ok").expect(200);
}

// Slow clients. One worker: who holds it holds everyone.

/// Asks on new connections until `until`; every answer must come quickly.
#[track_caller]
fn expect_quick_answers(server: &Server, until: Instant) {
    let mut count = 0;
    while count < 3 || Instant::now() < until {
        let start = Instant::now();
        server.get("/ok").expect(200);
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "an answer took {:?}",
            start.elapsed()
        );
        count += 1;
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn slow_heads_hold_no_worker_and_are_ended() {
    let (server, _turn) = impatient();
    let started = Instant::now();
    let mut slow: Vec<Connection> = (0..50).map(|_| server.connect()).collect();
    for (number, connection) in slow.iter_mut().enumerate() {
        connection.send(&OK[..number % OK.len()]);
    }
    expect_quick_answers(server, Instant::now());
    // A byte now and then does not buy more time: the limit is on the whole head.
    while started.elapsed() < Duration::from_millis(1500) {
        for connection in &mut slow {
            connection.try_send(b"x");
        }
        expect_quick_answers(server, Instant::now());
    }
    for mut connection in slow {
        if let Some(reply) = connection.reply_or_close() {
            assert!(matches!(reply.status(), 400 | 408), "{}", reply.status());
            assert!(connection.is_closed());
        }
    }
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "they were ended after {:?}",
        started.elapsed()
    );
}

#[test]
fn a_body_that_does_not_come_is_waited_for_no_longer_than_allowed() {
    let (server, _turn) = impatient();
    let mut connection = server.connect();
    let start = Instant::now();
    connection.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf");
    let reply = connection.reply();
    assert_eq!(reply.status(), 408);
    assert!(
        start.elapsed() >= Duration::from_millis(950),
        "gave up after {:?}",
        start.elapsed()
    );
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "gave up after {:?}",
        start.elapsed()
    );
    assert!(connection.is_closed());
    server.get("/ok").expect(200);
}

#[test]
fn an_idle_connection_is_closed() {
    let (server, _turn) = impatient();
    let mut connection = server.connect();
    connection.send(OK).reply().expect(200);
    let start = Instant::now();
    assert!(connection.is_closed());
    assert!(
        start.elapsed() >= Duration::from_millis(900),
        "closed after {:?}",
        start.elapsed()
    );
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "closed after {:?}",
        start.elapsed()
    );
}

#[test]
fn a_client_that_takes_no_reply_holds_its_worker_no_longer_than_allowed() {
    let (server, _turn) = impatient();
    let mut stuck = server.connect();
    stuck.send("GET /closing?name=unread&what=long HTTP/1.1\r\nHost: test\r\n\r\n");
    stuck.head_to("GET");
    // The only worker writes to somebody who does not read; it is free again after write-time.
    let start = Instant::now();
    server.get("/ok").expect(200);
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "free again after {:?}",
        start.elapsed()
    );
    drop(stuck);
}

// The queue

#[test]
fn requests_wait_for_a_worker_and_then_get_503() {
    let more = "workers = 1\n[limits]\nqueue = 1\nqueue-time = \"700ms\"\ntime = \"20s\"";
    let server = Server::start(&config("pep3333", more));
    // Busy for 4 seconds.
    let mut busy = server.connect();
    busy.send("GET /stream?n=3&pause=2 HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(busy.head_to("GET").status, 200);

    // Two more: one waits for its turn in vain, the other finds no place to wait.
    let ask = || {
        let start = Instant::now();
        let reply = server.get("/ok").expect(503);
        let seconds: u64 = reply
            .header("Retry-After")
            .expect("when to come again")
            .parse()
            .expect("seconds");
        assert!((1..=600).contains(&seconds));
        start.elapsed()
    };
    let (one, other) = thread::scope(|scope| {
        let (one, other) = (scope.spawn(ask), scope.spawn(ask));
        (one.join().expect("an answer"), other.join().expect("an answer"))
    });
    let (refused, waited) = (one.min(other), one.max(other));
    assert!(
        refused < Duration::from_millis(350),
        "there was no place, yet it took {refused:?}"
    );
    assert!(waited >= Duration::from_millis(700), "waited {waited:?}");

    // Whoever waits for less than that gets an answer.
    while let Some(chunk) = busy.chunk().filter(|chunk| !chunk.is_empty()) {
        assert!(chunk.starts_with(b"chunk"));
    }
    server.get("/ok").expect(200);
}
