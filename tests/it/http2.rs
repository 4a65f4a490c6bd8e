//! HTTP/2 with real clients, and with one that breaks the rules on purpose.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::PATIENCE;
use crate::http2_client::{
    ACK, CALM, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, PING, RESET,
    SETTINGS, WINDOW, frame, head, literal,
};
use crate::server::{Server, config, folder, project};

/// One for tests that leave its limits alone.
static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let files = project().join("docs");
    start(&format!("workers = 2\n[static]\n\"/files\" = {files:?}"))
});

/// One that speaks HTTP/2 without TLS, HTTP, and HTTPS.
fn start(more: &str) -> Server {
    let certificates = project().join("tests/certificates");
    let file = |name: &str| certificates.join(name).display().to_string();
    let listen = format!(
        "h2c = \"127.0.0.1:0\"\nhttps = {{ address = \"127.0.0.1:0\", cert = {:?}, key = {:?} }}\nhttp = \"127.0.0.1:0\"",
        file("one.pem"),
        file("one.key")
    );
    let toml = config("pep3333", more).replace("http = \"127.0.0.1:0\"", &listen);
    Server::start_in(folder(&toml), |_| {})
}

fn listening(server: &Server, scheme: &str) -> SocketAddr {
    let line = server.log.wait_for(0, &format!("listening on {scheme}://"));
    let (_, address) = line.split_once("://").expect("was waited for");
    address.parse().expect("an address")
}

fn h2c(server: &Server) -> SocketAddr {
    listening(server, "h2c")
}

fn program(name: &str, arguments: &[&str]) -> Output {
    let run = Command::new(name).args(arguments).stdin(Stdio::null()).output();
    let done = run.unwrap_or_else(|error| panic!("{name}: {error}: run `make test-tools` first"));
    let (out, err) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(done.status.success(), "{name} {arguments:?}: {out}{err}");
    done
}

/// curl by prior knowledge: what it prints.
fn curl(server: &Server, target: &str, arguments: &[&str]) -> Vec<u8> {
    let url = format!("http://{}{target}", h2c(server));
    let usual = [
        "--silent",
        "--show-error",
        "--max-time",
        "60",
        "--http2-prior-knowledge",
    ];
    program("curl", &[&usual, arguments, &[&url]].concat()).stdout
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("a text")
}

fn environ(printed: Vec<u8>) -> serde_json::Value {
    serde_json::from_slice(&printed).expect("JSON")
}

// Real clients

#[test]
fn tls_agrees_on_http_2_or_on_http_1_1_as_the_client_can() {
    let address = listening(&SERVER, "https");
    let authority = project().join("tests/certificates/ca.pem").display().to_string();
    let resolve = format!("one.test:{}:127.0.0.1", address.port());
    let url = format!("https://one.test:{}/environ", address.port());
    for (version, protocol) in [("--http2", "HTTP/2.0"), ("--http1.1", "HTTP/1.1")] {
        let arguments = [
            "--silent",
            "--show-error",
            version,
            "--cacert",
            &authority,
            "--resolve",
            &resolve,
            &url,
        ];
        let seen = environ(program("curl", &arguments).stdout);
        assert_eq!(seen["SERVER_PROTOCOL"], protocol);
        assert_eq!(seen["wsgi.url_scheme"], "https");
        assert_eq!(seen["HTTP_HOST"], format!("one.test:{}", address.port()));
    }
    SERVER.log.wait_for(0, "\"GET /environ HTTP/2.0\" 200 ");
}

#[test]
fn the_app_gets_the_request_that_curl_sends() {
    let seen = environ(curl(
        &SERVER,
        "/environ?a=%20b",
        &["-H", "X-Twice: 1", "-H", "X-Twice: 2", "-b", "c=3"],
    ));
    let address = h2c(&SERVER);
    for (key, value) in [
        ("REQUEST_METHOD", "GET".to_owned()),
        ("SERVER_PROTOCOL", "HTTP/2.0".to_owned()),
        ("QUERY_STRING", "a=%20b".to_owned()),
        ("HTTP_HOST", address.to_string()),
        ("HTTP_X_TWICE", "1,2".to_owned()),
        ("HTTP_COOKIE", "c=3".to_owned()),
        ("SERVER_PORT", address.port().to_string()),
        ("wsgi.url_scheme", "http".to_owned()),
    ] {
        assert_eq!(seen[key], value, "{key}");
    }
}

#[test]
fn nghttp_sends_cookies_apart_and_the_app_gets_one() {
    let url = format!("http://{}/environ", h2c(&SERVER));
    let cookies = ["-H", "cookie: a=1", "-H", "cookie: b=2", "-H", "cookie: c=3"];
    let seen = environ(program("nghttp", &[&cookies[..], &[&url]].concat()).stdout);
    assert_eq!(seen["HTTP_COOKIE"], "a=1; b=2; c=3");
    assert_eq!(seen["HTTP_HOST"], h2c(&SERVER).to_string());
}

#[test]
fn large_bodies_pass_both_ways() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let file = dir.path().join("body");
    // Counts on, so that what is missing or twice shows.
    let body: Vec<u8> = (0..(15 << 20) / 8)
        .flat_map(|part: u32| format!("{part:08x}").into_bytes())
        .collect();
    fs::write(&file, &body).expect("can be written");
    let named = format!("@{}", file.display());
    assert!(curl(&SERVER, "/echo", &["--data-binary", &named]) == body);
    // Without a Content-Length.
    let from = file.display().to_string();
    assert!(
        curl(
            &SERVER,
            "/echo",
            &["-H", "Content-Length:", "-X", "POST", "-T", &from]
        ) == body
    );
    let big = curl(&SERVER, "/big?mib=20", &[]);
    let part = |at: usize| &big[at * 8..at * 8 + 8];
    assert_eq!(big.len(), 20 << 20);
    assert!((0..big.len() / 8).all(|at| part(at) == format!("{at:08x}").as_bytes()));
}

#[test]
fn heads_without_bodies_and_statuses_come_through() {
    let told = |target, arguments: &[&str]| {
        let form = [
            "-o",
            "/dev/null",
            "-w",
            "%{http_version} %{response_code} %{size_download}",
        ];
        text(curl(&SERVER, target, &[&form, arguments].concat()))
    };
    assert_eq!(told("/ok", &["--head"]), "2 200 0");
    assert_eq!(told("/no-such", &[]), "2 404 13");
    assert_eq!(told("/bodyless?s=204%20No%20Content", &[]), "2 204 0");
    let head = text(curl(&SERVER, "/ok", &["--head"])).to_lowercase();
    for line in [
        "http/2 200",
        "content-length: 5\r",
        "date: ",
        "server: wasgi\r",
        "x-request-id: ",
    ] {
        assert!(head.contains(line), "{line}: {head}");
    }
    let file = text(curl(&SERVER, "/files/init.md", &["-o", "/dev/null", "-D", "-"])).to_lowercase();
    let (_, etag) = file.split_once("etag: ").expect("an etag");
    let same = format!("If-None-Match: {}", etag.lines().next().expect("its line"));
    assert_eq!(told("/files/init.md", &["-H", &same]), "2 304 0");
}

#[test]
fn h2load_has_all_its_requests_answered() {
    let url = format!("http://{}/ok", h2c(&SERVER));
    let out = text(program("h2load", &["-n", "2000", "-c", "4", "-m", "10", &url]).stdout);
    assert!(out.contains("2000 succeeded, 0 failed, 0 errored"), "{out}");
    assert!(out.contains("2000 2xx"), "{out}");
}

// Streams

#[test]
fn a_reply_arrives_as_it_is_produced_while_others_are_answered() {
    let mut client = Http2::connect(h2c(&SERVER));
    let slow = client.get("/stream?n=3&pause=0.3");
    let first = client.until(|frame| frame.kind == DATA).expect("a piece");
    assert_eq!((first.stream, &first.payload[..]), (slow, &b"chunk 0\n"[..]));
    let quick = client.get("/ok");
    let end = client.until(|frame| frame.flags & END_STREAM != 0 && frame.kind == DATA);
    assert_eq!(end.expect("an end").stream, quick);
    let rest = client.answer(slow);
    assert_eq!(String::from_utf8_lossy(&rest.body), "chunk 1\nchunk 2\n");
}

#[test]
fn an_app_reads_and_writes_at_the_same_time() {
    let mut client = Http2::connect(h2c(&SERVER));
    let stream = client.ask(0, "POST", "/dialogue", &[]);
    for line in ["one\n", "two\n"] {
        client.send(DATA, 0, stream, line.as_bytes());
        let got = client.until(|frame| frame.kind == DATA).expect("an answer");
        assert_eq!(got.payload, format!("got {line}").as_bytes());
    }
    // Trailer fields end the body, and mean nothing.
    let mut trailers = Vec::new();
    literal(&mut trailers, "x-sum", "1");
    client.send(HEADERS, END_HEADERS | END_STREAM, stream, &trailers);
    assert_eq!(client.answer(stream).body, b"");
}

#[test]
fn expect_100_continue_is_answered_when_the_app_reads() {
    let mut client = Http2::connect(h2c(&SERVER));
    let expect = [("expect", "100-continue"), ("content-length", "5")];
    let stream = client.ask(0, "POST", "/echo", &expect);
    let go_on = client.until(|frame| frame.kind == HEADERS).expect("a head");
    assert_eq!((go_on.status(), go_on.flags & END_STREAM), (Some(100), 0));
    client.send(DATA, END_STREAM, stream, b"hello");
    let answer = client.answer(stream);
    assert_eq!(
        (&answer.statuses[..], &answer.body[..]),
        (&[200][..], &b"hello"[..])
    );
    // An app that answers without reading spares the client the body.
    let stream = client.ask(0, "POST", "/ok", &expect);
    assert_eq!(client.answer(stream).statuses, [200]);
}

#[test]
fn a_body_that_is_too_large_costs_its_stream_and_nothing_else() {
    let server = start("workers = 1\n[limits]\nrequest-body = \"100KiB\"");
    let mut client = Http2::connect(h2c(&server));
    let told = client.ask(0, "POST", "/echo", &[("content-length", "102401")]);
    let answer = client.answer(told);
    assert_eq!(answer.statuses, [413]);
    let untold = client.ask(0, "POST", "/echo", &[]);
    let (mut sent, mut window) = (0, 65_535);
    while sent <= 102_400 {
        if window >= 16_000 {
            client.send(DATA, 0, untold, &[b'x'; 16_000]);
            (sent, window) = (sent + 16_000, window - 16_000);
            continue;
        }
        // It is opened again as the app reads.
        let more = client.until(|frame| frame.kind == WINDOW && frame.stream == untold);
        window += more.expect("a wider window").code();
    }
    assert_eq!(client.answer(untold).statuses, [413]);
    let ok = client.get("/ok");
    assert_eq!(client.answer(ok).statuses, [200]);
}

#[test]
fn a_client_that_takes_a_request_back_ends_it_for_the_app() {
    let server = start("workers = 1");
    let mut client = Http2::connect(h2c(&server));
    let stream = client.get("/closing?name=taken-back&what=slow");
    client.until(|frame| frame.kind == DATA).expect("a piece");
    client.send(RESET, 0, stream, &CANCEL.to_be_bytes());
    // The only worker is free again, and the app has been told.
    let closed = client.get("/closed");
    assert_eq!(client.answer(closed).body, b"[\"taken-back\"]");
    server
        .log
        .wait_for(0, "\"GET /closing?name=taken-back&what=slow HTTP/2.0\" 200 ");

    // Before the reply has begun.
    let stream = client.ask(0, "POST", "/echo", &[]);
    client.send(RESET, 0, stream, &CANCEL.to_be_bytes());
    server.log.wait_for(0, "\"POST /echo HTTP/2.0\" 499 ");
    let ok = client.get("/ok");
    assert_eq!(client.answer(ok).statuses, [200]);
}

#[test]
fn a_connection_that_ends_ends_its_requests_for_the_app() {
    let server = start("workers = 1");
    let mut client = Http2::connect(h2c(&server));
    client.get("/closing?name=gone&what=slow");
    client.until(|frame| frame.kind == DATA).expect("a piece");
    drop(client);
    assert_eq!(server.get("/closed").expect(200).text(), "[\"gone\"]");
}

#[test]
fn requests_that_mean_nothing_are_refused_one_by_one() {
    let mut client = Http2::connect(h2c(&SERVER));
    let connect = client.next_stream();
    let mut block = Vec::new();
    literal(&mut block, ":method", "CONNECT");
    literal(&mut block, ":authority", "test:443");
    client.send(HEADERS, END_HEADERS, connect, &block);
    assert_eq!(client.answer(connect).statuses, [501]);
    // With a status, a reset, or the end of the connection.
    let refused = |fields: &[(&str, &str)]| {
        let mut client = Http2::connect(h2c(&SERVER));
        let stream = client.ask(END_STREAM, "GET", "/environ", fields);
        let answer = client.answers(&[stream]).remove(&stream).unwrap_or_default();
        let has_none = answer.statuses.is_empty() && answer.body.is_empty();
        assert!(has_none || answer.statuses == [400], "{fields:?}: {answer:?}");
    };
    for fields in [
        &[("connection", "close")][..],
        &[("transfer-encoding", "chunked")],
        &[("upgrade", "websocket")],
        &[("te", "gzip")],
        &[("host", "other")],
        &[("X-Upper", "1")],
        &[(":path", "/twice")],
        &[("content-length", "5")],
        &[("content-length", "0"), ("content-length", "0")],
        &[("x", "a\r\nb: c")],
    ] {
        refused(fields);
    }
    // Extended CONNECT, as for WebSockets (RFC 8441).
    let extended = client.next_stream();
    let mut block = vec![0x86];
    for (name, value) in [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":path", "/"),
        (":authority", "test"),
    ] {
        literal(&mut block, name, value);
    }
    client.send(HEADERS, END_HEADERS, extended, &block);
    let answer = client.answer(extended);
    assert!(answer.reset.is_some() || answer.statuses == [501], "{answer:?}");
    let ok = client.get("/ok");
    assert_eq!(client.answer(ok).statuses, [200]);
}

// Ends

#[test]
fn a_stop_lets_running_requests_finish_and_says_goodbye() {
    let server = start("workers = 1");
    let mut client = Http2::connect(h2c(&server));
    let stream = client.get("/stream?n=4&pause=0.3");
    client.until(|frame| frame.kind == DATA).expect("a piece");
    server.signal(Signal::TERM);
    client.until(|frame| frame.kind == GOAWAY).expect("a goodbye");
    let answer = client.answer(stream);
    assert!(answer.body.ends_with(b"chunk 3\n"), "{answer:?}");
    assert_eq!(client.last_goaway().unwrap_or(0), 0, "the end is no error");
    assert_eq!(server.wait(PATIENCE).code(), Some(0));
}

#[test]
fn an_idle_client_that_does_not_leave_does_not_hold_up_a_stop() {
    let server = start("workers = 1");
    let mut client = Http2::connect(h2c(&server));
    let ok = client.get("/ok");
    client.answer(ok);
    let begun = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait(PATIENCE).code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[test]
fn no_request_is_lost_while_the_app_is_loaded_anew() {
    let server = start("workers = 2");
    let url = format!("http://{}/ok", h2c(&server));
    let load = Command::new("h2load")
        .args(["-n", "3000", "-c", "2", "-m", "4", &url])
        .stdout(Stdio::piped())
        .spawn()
        .expect("h2load is installed: run `make test-tools` first");
    for _ in 0..2 {
        let mark = server.log.mark();
        server.signal(Signal::HUP);
        server.log.wait_for(mark, ": loaded anew");
    }
    let out = text(load.wait_with_output().expect("it ends").stdout);
    assert!(out.contains("3000 2xx"), "{out}");
}

// Peers that mean no good

/// A server whose limits end soon.
fn impatient() -> Server {
    start(
        "workers = 1\n[limits]\nhead-time = \"1s\"\nidle-time = \"1s\"\nwrite-time = \"1s\"\nbody-time = \"1s\"\n\
         request-head = \"16KiB\"",
    )
}

/// Others are served, and the server has not grown by more than `most` MiB.
fn expect_well(server: &Server, before: usize, most: usize) {
    server.get("/ok").expect(200);
    let mut client = Http2::connect(h2c(server));
    let ok = client.get("/ok");
    assert_eq!(client.answer(ok).statuses, [200]);
    let grown = server.resident().saturating_sub(before) >> 20;
    assert!(grown <= most, "{grown} MiB more");
}

/// A server that has answered, and how much memory it has then.
fn warm(server: Server) -> (Server, usize) {
    expect_well(&server, usize::MAX, 0);
    let before = server.resident();
    (server, before)
}

#[test]
fn requests_that_are_taken_back_at_once_end_their_connection() {
    let (server, before) = warm(start("workers = 1"));
    let mut client = Http2::connect(h2c(&server));
    for _ in 0..20_000 {
        let stream = client.next_stream();
        let mut both = frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            stream,
            &head("GET", "/ok", &[]),
        );
        both.extend(frame(RESET, 0, stream, &CANCEL.to_be_bytes()));
        if !client.send_raw(&both) {
            break;
        }
    }
    let code = client.last_goaway();
    assert!(code.is_none_or(|code| code == CALM), "{code:?}");
    server.log.wait_for(0, "; the connection is closed");
    expect_well(&server, before, 64);
}

#[test]
fn requests_that_are_taken_back_one_after_the_other_end_their_connection_too() {
    let server = start("workers = 1");
    let mut client = Http2::connect(h2c(&server));
    let mut asked = 0;
    while asked < 1000 {
        let stream = client.ask(0, "POST", "/echo", &[]);
        // The server is at work on it.
        client.send(PING, 0, 0, &[1; 8]);
        if client
            .until(|frame| frame.kind == PING && frame.flags & ACK != 0)
            .is_none()
        {
            break;
        }
        client.send(RESET, 0, stream, &CANCEL.to_be_bytes());
        asked += 1;
    }
    assert!((100..1000).contains(&asked), "{asked} were taken");
    server.log.wait_for(
        0,
        "requests were taken back, 0 replied to; the connection is closed",
    );
    server.get("/ok").expect(200);
}

#[test]
fn a_head_without_end_ends_its_connection() {
    let (server, before) = warm(start("workers = 1"));
    let mut client = Http2::connect(h2c(&server));
    client.send(HEADERS, END_STREAM, 1, &head("GET", "/ok", &[]));
    let mut more = Vec::new();
    literal(&mut more, "x", &"y".repeat(1000));
    let mut sent = 0;
    while sent < 100_000 && client.send(CONTINUATION, 0, 1, &more) {
        sent += 1;
    }
    assert!(sent < 100_000, "all were taken");
    // Empty ones, which cost no bytes of the limit.
    let mut client = Http2::connect(h2c(&server));
    client.send(HEADERS, END_STREAM, 1, &head("GET", "/ok", &[]));
    let mut sent = 0;
    while sent < 1_000_000 && client.send(CONTINUATION, 0, 1, b"") {
        sent += 1;
    }
    assert!(sent < 1_000_000, "all were taken");
    expect_well(&server, before, 64);
}

#[test]
fn a_head_that_unpacks_to_much_is_refused() {
    let (server, before) = warm(start("workers = 1"));
    let mut client = Http2::connect(h2c(&server));
    // One field of 4,000 bytes in the table, and then a byte for each time it is meant.
    let mut block = head("GET", "/ok", &[]);
    let mut field = Vec::new();
    literal(&mut field, "x", &"y".repeat(4000));
    field[0] = 0x40;
    block.extend(field);
    block.extend([0xbe; 14_000 - 4000]);
    let stream = client.next_stream();
    client.send(HEADERS, END_HEADERS | END_STREAM, stream, &block);
    let answers = client.answers(&[stream]);
    let refused = |statuses: &[u16]| statuses.is_empty() || statuses == [431];
    assert!(
        answers
            .get(&stream)
            .is_none_or(|answer| refused(&answer.statuses)),
        "{answers:?}"
    );

    // Each just below the limit, a hundred of them that are never done.
    let mut client = Http2::connect_with(h2c(&server), &[(4, 0)]);
    for number in 0..100 {
        let stream = client.next_stream();
        let mut block = head("POST", "/echo", &[]);
        if number == 0 {
            let mut field = Vec::new();
            literal(&mut field, "x", &"y".repeat(4000));
            field[0] = 0x40;
            block.extend(field);
        }
        block.extend([0xbe; 13]);
        client.send(HEADERS, END_HEADERS, stream, &block);
    }
    expect_well_beside(&server, before, 64);
}

/// As [`expect_well`], while the worker may be held.
fn expect_well_beside(server: &Server, before: usize, most: usize) {
    let mut client = Http2::connect(h2c(server));
    let file = client.get("/no/such");
    assert!(!client.answer(file).statuses.is_empty());
    let grown = server.resident().saturating_sub(before) >> 20;
    assert!(grown <= most, "{grown} MiB more");
}

#[test]
fn frames_that_ask_for_answers_do_not_pile_up() {
    let (server, before) = warm(start("workers = 1"));
    for (kind, payload) in [(SETTINGS, &[0, 3, 0, 0, 0, 100][..]), (PING, &[7; 8])] {
        let mut client = Http2::connect(h2c(&server));
        // Nothing of what comes back is read, so that it is the server's to hold or to stop.
        client.flood(&frame(kind, 0, 0, payload).repeat(1000), 2000);
        expect_well(&server, before, 64);
    }
    // Small pieces of a body, which cost more than they say.
    let mut client = Http2::connect(h2c(&server));
    let stream = client.ask(0, "POST", "/stream?n=100&pause=0.1", &[]);
    client.flood(&frame(DATA, 0, stream, b"").repeat(1000), 1000);
    let mut client = Http2::connect(h2c(&server));
    let stream = client.ask(0, "POST", "/stream?n=100&pause=0.1", &[]);
    client.flood(&frame(DATA, 0, stream, b"x").repeat(1000), 1000);
    expect_well_beside(&server, before, 64);
}

#[test]
fn a_client_that_opens_no_window_holds_its_worker_no_longer_than_allowed() {
    let (server, before) = warm(start("workers = 1\n[limits]\nwrite-time = \"1s\""));
    // A window of nothing, and another of few bytes.
    for window in [0, 10] {
        let mut client = Http2::connect_with(h2c(&server), &[(4, window)]);
        let streams: Vec<_> = (0..5).map(|_| client.get("/big?mib=20")).collect();
        let begun = Instant::now();
        server.get("/ok").expect(200);
        assert!(
            begun.elapsed() < Duration::from_secs(100),
            "{:?}",
            begun.elapsed()
        );
        let answers = client.answers(&streams);
        assert!(
            answers
                .values()
                .all(|answer| answer.reset.is_some() || answer.statuses == [503])
        );
    }
    expect_well(&server, before, 128);
}

#[test]
fn slow_peers_are_not_waited_for() {
    let server = impatient();
    let address = h2c(&server);
    let ended = |mut client: Http2, what: &str| {
        let begun = Instant::now();
        while client.frame().is_some() {}
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(15), "{what}: {took:?}");
    };
    ended(Http2::silent(address), "nothing is said");
    let mut partly = Http2::silent(address);
    partly.send_raw(b"PRI * HTTP/2.0\r\n");
    ended(partly, "half a preface");
    ended(Http2::connect(address), "no request");
    let mut half = Http2::connect(address);
    half.send(HEADERS, END_STREAM, 1, &head("GET", "/ok", &[]));
    ended(half, "half a head");
    let mut idle = Http2::connect(address);
    let ok = idle.get("/ok");
    idle.answer(ok);
    ended(idle, "no further request");
    let mut body = Http2::connect(address);
    let stream = body.ask(0, "POST", "/echo", &[]);
    assert_eq!(body.answer(stream).statuses, [408]);
}

#[test]
fn a_peer_that_answers_no_ping_is_gone() {
    let server = impatient();
    let mut client = Http2::connect(h2c(&server));
    client.get("/closing?name=silent&what=slow");
    // Read, and never answered.
    let mut pings = 0;
    while let Some(frame) = client.frame() {
        pings += usize::from(frame.kind == PING && frame.flags & ACK == 0);
    }
    assert_eq!(pings, 1);
    assert_eq!(server.get("/closed").expect(200).text(), "[\"silent\"]");
}

#[test]
fn what_is_not_http_2_is_told_in_the_log() {
    for start in [
        &b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcdefghijklmnop",
    ] {
        let mark = SERVER.log.mark();
        let mut client = Http2::silent(h2c(&SERVER));
        client.send_raw(start);
        client.last_goaway();
        SERVER.log.wait_for(mark, "HTTP/2 from 127.0.0.1: ");
    }
}
