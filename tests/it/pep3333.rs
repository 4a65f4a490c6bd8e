//! PEP 3333, clause by clause, as the client and the log see it.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::Framing;
use crate::server::{Server, config};

/// One worker, since some paths look back at what an earlier request did.
static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start(&config("pep3333", "workers = 1")));

fn server() -> &'static Server {
    &SERVER
}

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

/// A 500 that tells the client nothing of the app, with `said` in the log.
#[track_caller]
fn expect_refused(target: &str, said: &str) {
    let mark = server().log.mark();
    let reply = server().get(target).expect(500);
    let text = reply.text();
    assert!(
        !text.contains("Traceback") && !text.contains("Error:") && !text.contains(".py"),
        "{text}"
    );
    server().log.wait_for(mark, said);
    server().get("/ok").expect(200);
}

/// A 200 whose body stops without its end, with `said` in the log.
#[track_caller]
fn expect_cut(target: &str, start: &str, said: &str) {
    let mark = server().log.mark();
    let reply = server().get(target);
    assert_eq!(reply.status(), 200);
    assert!(!reply.complete, "the reply looks complete: {:?}", reply.text());
    assert_eq!(reply.text(), start);
    server().log.wait_for(mark, said);
    server().get("/ok").expect(200);
}

// environ

#[test]
fn environ_holds_what_the_pep_requires() {
    let mut connection = server().connect();
    connection.send(
        "GET /environ?a=b%20c&d HTTP/1.1\r\nHost: example.test:81\r\nX-Tag: one\r\nConnection: close\r\n\r\n",
    );
    let environ = connection.reply().expect(200).json();
    let port = server().address().port().to_string();
    assert_eq!(environ["type"], "dict", "a builtin dict, not a subclass");
    assert_eq!(environ["REQUEST_METHOD"], "GET");
    assert_eq!(environ["SCRIPT_NAME"], "");
    assert_eq!(environ["PATH_INFO"], "/environ");
    assert_eq!(environ["QUERY_STRING"], "a=b%20c&d", "not decoded");
    assert_eq!(environ["SERVER_PROTOCOL"], "HTTP/1.1");
    assert_eq!(
        environ["SERVER_PORT"],
        port.as_str(),
        "where it listens, not what the client says"
    );
    assert!(environ["SERVER_NAME"].is_string());
    assert_eq!(environ["REMOTE_ADDR"], "127.0.0.1");
    let remote: u16 = environ["REMOTE_PORT"]
        .as_str()
        .expect("a string")
        .parse()
        .expect("a port");
    assert_ne!(remote, 0);
    assert_eq!(environ["HTTP_HOST"], "example.test:81");
    assert_eq!(environ["HTTP_X_TAG"], "one");
    assert_eq!(environ["wsgi.version"], json!([1, 0]));
    assert_eq!(environ["wsgi.url_scheme"], "http");
    assert_eq!(environ["wsgi.multithread"], false);
    assert_eq!(environ["wsgi.multiprocess"], true);
    assert_eq!(environ["wsgi.run_once"], false);
    assert_eq!(environ["wsgi.input_terminated"], true);
    for key in ["wsgi.input", "wsgi.errors", "wsgi.file_wrapper"] {
        assert!(environ[key].is_string(), "{key} is missing");
    }
    assert_eq!(environ.get("HTTP_CONTENT_LENGTH"), None);
    assert_eq!(environ.get("HTTP_CONTENT_TYPE"), None);
}

#[test]
fn environ_has_the_body_s_type_and_length() {
    let reply = server().request(
        "POST",
        "/environ",
        "Content-Type: text/x-test; q=1\r\nContent-Length: 3\r\n",
        b"abc",
    );
    let environ = reply.expect(200).json();
    assert_eq!(environ["CONTENT_TYPE"], "text/x-test; q=1");
    assert_eq!(environ["CONTENT_LENGTH"], "3");
    let environ = server()
        .request("POST", "/environ", "Transfer-Encoding: chunked\r\n", b"0\r\n\r\n")
        .json();
    assert!(
        environ.get("CONTENT_LENGTH").is_none_or(|length| length == ""),
        "{environ}"
    );
}

#[test]
fn environ_strings_are_latin_1() {
    let mut connection = server().connect();
    connection
        .send(b"GET /environ?q=\xc3\xa9 HTTP/1.1\r\nHost: h\r\nX-Word: caf\xe9\r\nConnection: close\r\n\r\n");
    let reply = connection.reply();
    // A byte above 127 is not allowed in a request target, so refusing it is right as well.
    if reply.status() == 200 {
        assert_eq!(reply.json()["QUERY_STRING"], "q=\u{c3}\u{a9}");
    } else {
        assert_eq!(reply.status(), 400);
    }
    let environ = server().request("GET", "/environ", "", b"").expect(200).json();
    assert_eq!(environ.get("HTTP_X_WORD"), None);
    let mut connection = server().connect();
    connection.send(
        b"GET /environ HTTP/1.1\r\nHost: h\r\nX-Word: caf\xe9 \xe2\x82\xac\r\nConnection: close\r\n\r\n",
    );
    let environ = connection.reply().expect(200).json();
    assert_eq!(
        environ["HTTP_X_WORD"], "caf\u{e9} \u{e2}\u{82}\u{ac}",
        "one character for each byte"
    );
}

#[test]
fn path_info_is_decoded_once() {
    let body = server().get("/environ%3Fnot-a-query?x=1").expect(404).text();
    assert_eq!(body, "no such path\n");
    let environ = server().get("/%65nviron?x=%2541").expect(200).json();
    assert_eq!(environ["PATH_INFO"], "/environ");
    assert_eq!(environ["QUERY_STRING"], "x=%2541");
    // %2565 is "%65" after one decoding, which is no path of the app; decoded twice it would be /environ.
    server().get("/%2565nviron").expect(404);
}

#[test]
fn fields_of_the_same_name_are_joined() {
    let environ = server().request(
        "GET",
        "/environ",
        "X-Tag: one\r\nX-Tag: two\r\nCookie: a=1\r\nCookie: b=2\r\n",
        b"",
    );
    let environ = environ.expect(200).json();
    assert_eq!(
        environ["HTTP_X_TAG"].as_str().expect("a string").replace(' ', ""),
        "one,two"
    );
    assert_eq!(
        environ["HTTP_COOKIE"], "a=1; b=2",
        "RFC 9113 8.2.3: cookies are joined with a semicolon"
    );
}

#[test]
fn fields_that_could_pass_for_others_are_dropped() {
    let fields =
        "X_Forwarded_For: 1.2.3.4\r\nContent_Length: 99\r\nProxy: http://evil.test/\r\nScript_Name: /x\r\n";
    let environ = server()
        .request("GET", "/environ", fields, b"")
        .expect(200)
        .json();
    for key in [
        "HTTP_X_FORWARDED_FOR",
        "HTTP_CONTENT_LENGTH",
        "HTTP_PROXY",
        "HTTP_SCRIPT_NAME",
    ] {
        assert_eq!(environ.get(key), None, "{key} reached the app");
    }
    assert_eq!(environ["SCRIPT_NAME"], "");
    assert_ne!(environ["CONTENT_LENGTH"], "99");
}

// start_response() and write()

#[test]
fn write_comes_before_the_iterable() {
    let reply = server().get("/write").expect(200);
    assert_eq!(reply.text(), "written twice, then returned\n");
}

#[test]
fn write_takes_bytes_only() {
    expect_refused("/write-str", "TypeError");
}

#[test]
fn an_exception_after_write_cuts_the_reply() {
    expect_cut("/write-then-raise", "some of it\n", "after write");
}

#[test]
fn a_body_without_start_response_is_an_error() {
    expect_refused("/no-start-response", "start_response");
    expect_refused("/no-start-response-empty", "start_response");
    expect_refused("/too-late-start-response", "start_response");
}

#[test]
fn start_response_may_come_with_the_first_step() {
    let reply = server().get("/late-start-response").expect(202);
    assert_eq!(reply.head.reason, "Later");
    assert_eq!(reply.text(), "late but right\n");
}

#[test]
fn a_second_start_response_needs_exc_info() {
    expect_refused("/twice", "start_response");
}

#[test]
fn exc_info_replaces_a_head_that_has_not_gone_out() {
    let reply = server().get("/twice-with-exc-info").expect(503);
    assert_eq!(reply.head.reason, "Replaced");
    assert_eq!(
        reply.header("X-First"),
        None,
        "fields of the first head are forgotten"
    );
    assert_eq!(reply.text(), "the error page\n");
    assert_eq!(
        server().get("/exc-info-first").expect(500).text(),
        "my own error page\n"
    );
}

#[test]
fn the_head_waits_for_the_first_byte() {
    let reply = server().get("/lazy-head").expect(500);
    assert_eq!(reply.head.reason, "Replaced");
    assert_eq!(reply.text(), "replaced\n");
}

#[test]
fn exc_info_after_the_head_raises_in_the_app_and_cuts_the_reply() {
    expect_cut("/exc-info-too-late", "first chunk\n", "found out too late");
}

#[test]
fn status_lines_are_checked() {
    for (status, code, reason) in [
        ("200%20OK", 200, "OK"),
        ("299%20Very%20Odd", 299, "Very Odd"),
        ("599%20X", 599, "X"),
    ] {
        let reply = server().get(&format!("/status?s={status}")).expect(code);
        assert_eq!(reply.head.reason, reason);
    }
    for status in [
        "",
        "OK",
        "20%20OK",
        "2000%20OK",
        "abc%20OK",
        "100%20Continue",
        "600%20X",
        "200%20a%0d%0ab",
        "200%20%00",
        "-20%20OK",
    ] {
        expect_refused(&format!("/status?s={status}"), "status");
    }
    expect_refused("/status-bytes", "status");
}

#[test]
fn header_names_and_values_are_checked() {
    let reply = server()
        .get("/header?name=X-Odd!%23$&value=a%20%22b%22%09c")
        .expect(200);
    assert_eq!(reply.header("X-Odd!#$"), Some("a \"b\"\tc"));
    let reply = server().get("/header?name=X-Latin&value=caf%e9").expect(200);
    assert_eq!(
        reply.header("X-Latin"),
        Some("caf\u{e9}"),
        "latin-1 goes out byte for byte"
    );
    for bad in [
        "name=&value=x",
        "name=X%20A&value=x",
        "name=X-A:&value=x",
        "name=X%0d%0aY&value=x",
        "name=X%e9&value=x",
        "name=X-A&value=a%0d%0aX-Injected:%20yes",
        "name=X-A&value=a%0ab",
        "name=X-A&value=a%0db",
        "name=X-A&value=a%00b",
        "name=X-A&value=a%7fb",
        "name=X-A&value=%1b[31m",
    ] {
        expect_refused(&format!("/header?{bad}"), "header");
    }
}

#[test]
fn hop_by_hop_headers_are_refused() {
    for name in [
        "Connection",
        "Keep-Alive",
        "Transfer-Encoding",
        "TE",
        "Trailer",
        "Upgrade",
        "Proxy-Authenticate",
    ] {
        let mark = server().log.mark();
        let reply = server().get(&format!("/header?name={name}&value=x"));
        assert_eq!(reply.status(), 500, "{name}");
        server().log.wait_for(mark, name);
    }
}

#[test]
fn headers_of_the_wrong_type_are_refused() {
    for path in [
        "header-not-latin1",
        "header-bytes",
        "header-number",
        "headers-none",
        "headers-triple",
    ] {
        let mark = server().log.mark();
        server().get(&format!("/{path}")).expect(500);
        server().log.wait_for(mark, "Error");
    }
    server().get("/ok").expect(200);
}

#[test]
fn headers_keep_their_order_and_number() {
    let reply = server().get("/cookies").expect(200);
    assert_eq!(reply.head.all("Set-Cookie"), ["a=1", "b=2"]);
    assert_eq!(reply.header("X-Latin"), Some("caf\u{e9}"));
    assert!(
        reply.header("Date").is_some(),
        "RFC 9110 6.6.1: an origin server with a clock sends Date"
    );
    let reply = server().get("/own-server-and-date").expect(200);
    assert_eq!(reply.header("Server"), Some("mine"));
    assert_eq!(reply.header("Date"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
}

// Content-Length and bodies

#[test]
fn a_reply_of_one_piece_gets_its_length() {
    assert_eq!(
        server().get("/one-chunk").expect(200).head.framing,
        Framing::Length(10)
    );
    assert_eq!(
        server().get("/empty").expect(200).head.framing,
        Framing::Length(0)
    );
}

#[test]
fn a_reply_of_unknown_length_is_chunked() {
    let reply = server().get("/two-chunks").expect(200);
    assert_eq!(reply.head.framing, Framing::Chunked);
    assert_eq!(reply.text(), "two chunks\n");
}

#[test]
fn a_right_length_is_kept() {
    for pieces in [1, 3] {
        let reply = server()
            .get(&format!("/length?claim=10&send=10&pieces={pieces}"))
            .expect(200);
        assert_eq!(reply.head.framing, Framing::Length(10));
        assert_eq!(reply.text(), "zzzzzzzzzz");
    }
}

#[test]
fn bytes_past_the_length_are_not_sent() {
    for pieces in [1, 5] {
        let mark = server().log.mark();
        let mut connection = server().connect();
        connection.send(format!(
            "GET /length?claim=4&send=10&pieces={pieces} HTTP/1.1\r\nHost: test\r\n\r\n"
        ));
        let reply = connection.reply();
        if reply.status() == 200 {
            // What follows on this connection must not be taken for the next reply.
            assert_eq!(reply.text(), "zzzz");
            connection.send("GET /ok HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
            if let Some(next) = connection.reply_or_close() {
                assert_eq!(next.expect(200).text(), "fine\n");
            }
        } else {
            assert_eq!(reply.status(), 500);
        }
        server().log.wait_for(mark, "Content-Length");
    }
}

#[test]
fn a_reply_shorter_than_its_length_is_cut() {
    let mark = server().log.mark();
    let reply = server().get("/length?claim=10&send=4&pieces=2");
    assert!(
        reply.status() == 500 || !reply.complete,
        "the client takes it for whole: {reply:?}"
    );
    server().log.wait_for(mark, "Content-Length");
    server().get("/ok").expect(200);
}

#[test]
fn a_length_that_is_none_is_an_error() {
    for claim in ["x", "-1", "%2b3", "3,%203", "99999999999999999999999", ""] {
        let mark = server().log.mark();
        let reply = server().get(&format!("/length?claim={claim}&send=3"));
        assert_eq!(reply.status(), 500, "Content-Length: {claim}");
        server().log.wait_for(mark, "ontent-");
    }
    let mark = server().log.mark();
    server().get("/two-lengths").expect(500);
    server().log.wait_for(mark, "ontent-");
}

#[test]
fn statuses_without_a_body_get_none() {
    for status in [204, 304] {
        let mut connection = server().connect();
        connection.send(format!(
            "GET /bodyless?s={status}%20X HTTP/1.1\r\nHost: test\r\n\r\n"
        ));
        let reply = connection.reply().expect(status);
        assert_eq!(reply.header("X-Kept"), Some("yes"));
        // The connection is still in step: the next reply starts where this one ended.
        connection.send("GET /ok HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        assert_eq!(connection.reply().expect(200).text(), "fine\n");
    }
}

#[test]
fn only_bytes_are_a_body() {
    expect_refused("/str-body", "TypeError");
    expect_refused("/int-body", "TypeError");
    expect_refused("/whole-str", "TypeError");
    expect_refused("/whole-bytes", "TypeError");
    expect_refused("/none", "TypeError");
    expect_refused("/number", "TypeError");
    expect_cut("/str-chunk-midway", "first chunk\n", "TypeError");
}

#[test]
fn exceptions_are_logged_with_their_traceback() {
    expect_refused("/raise-at-once", "ValueError: before start_response");
    expect_refused(
        "/raise-after-head",
        "ValueError: after start_response, before a byte",
    );
    expect_cut("/raise-midway", "first chunk\n", "ValueError: midway");
    let mark = server().log.mark();
    server().get("/raise-at-once").expect(500);
    server().log.wait_for(mark, "Traceback (most recent call last):");
    server().log.wait_for(mark, "in raise_at_once");
}

#[test]
fn chunks_go_out_as_they_are_produced() {
    let mut connection = server().connect();
    let start = Instant::now();
    connection.send("GET /stream?n=3&pause=0.6 HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(connection.head_to("GET").framing, Framing::Chunked);
    let mut arrived = Vec::new();
    while let Some(chunk) = connection.chunk().filter(|chunk| !chunk.is_empty()) {
        arrived.push((String::from_utf8(chunk).expect("text"), start.elapsed()));
    }
    let texts: Vec<_> = arrived.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(
        texts,
        ["chunk 0\n", "chunk 1\n", "chunk 2\n"],
        "a piece of the app is a chunk on the wire"
    );
    let gaps: Vec<_> = arrived.windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
    assert!(
        gaps.iter().all(|gap| *gap > Duration::from_millis(300)),
        "they came together: {arrived:?}"
    );
}

#[test]
fn large_replies_arrive_whole() {
    let body = server().get("/big?mib=24").expect(200).body;
    assert_eq!(body.len(), 24 << 20);
    for (number, word) in body.chunks(8).enumerate() {
        assert_eq!(word, format!("{number:08x}").as_bytes());
    }
    let body = server().get("/big-written?mib=3").expect(200).body;
    assert_eq!(body.len(), 3 << 20);
    assert!(body.starts_with(b"00000000") && body.ends_with(b"00000002"));
}

#[test]
fn file_wrapper_sends_the_file_and_closes_it() {
    let file = std::fs::read(crate::server::project().join("tests/apps/pep3333/long.txt")).expect("is there");
    for block in [1000, 65536] {
        assert_eq!(
            server().get(&format!("/file?block={block}")).expect(200).body,
            file
        );
    }
    let closed = server().get("/closed").expect(200).json();
    let count = closed
        .as_array()
        .expect("a list")
        .iter()
        .filter(|name| **name == "file")
        .count();
    assert_eq!(count, 2);
}

// close()

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

// wsgi.input

#[test]
fn input_can_be_read_in_every_way() {
    let body = b"one\ntwo\r\n\nlast";
    for (how, pieces) in [
        ("read", json!(["one\ntwo\r\n\nlast", "", ""])),
        ("read-none", json!(["one\ntwo\r\n\nlast"])),
        ("read-minus", json!(["one\ntwo\r\n\nlast"])),
        ("read-zero", json!(["", "one", ""])),
        ("read-3", json!(["one", "\ntw", "o\r\n", "\nla", "st", ""])),
        ("read-too-much", json!(["one\ntwo\r\n\nlast", ""])),
        ("readline", json!(["one\n", "two\r\n", "\n", "last", ""])),
        ("readline-4", json!(["one\n", "two\r", "\n", "\n", "last"])),
        ("readlines", json!(["one\n", "two\r\n", "\n", "last"])),
        ("readlines-hint", json!(["one\n", "two\r\n", "|", "\n", "last"])),
        ("iterate", json!(["one\n", "two\r\n", "\n", "last"])),
        ("mixed", json!(["on", "e\n", "two\r\n", "\n", "last", ""])),
        ("nothing", json!([])),
    ] {
        let target = format!("/input?how={how}");
        assert_eq!(
            server().post(&target, body).expect(200).json(),
            pieces,
            "{how}, with Content-Length"
        );
        let mut chunked = Vec::new();
        for byte in body {
            chunked.extend([b'1', b'\r', b'\n', *byte, b'\r', b'\n']);
        }
        chunked.extend(b"0\r\n\r\n");
        let reply = server().request("POST", &target, "Transfer-Encoding: chunked\r\n", &chunked);
        assert_eq!(reply.expect(200).json(), pieces, "{how}, chunked");
    }
    assert_eq!(
        server().get("/input?how=read").expect(200).json(),
        json!(["", "", ""]),
        "no body is an empty one"
    );
}

#[test]
fn large_bodies_arrive_whole() {
    let body: Vec<u8> = (0..9_000_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    assert_eq!(server().post("/echo", &body).expect(200).body, body);
    let mut connection = server().connect();
    connection.send(format!(
        "POST /echo-streaming HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    let sender = connection.send_meanwhile(body.clone());
    assert_eq!(connection.reply().expect(200).body, body);
    sender.join().expect("all was sent");
    let mut chunked = Vec::new();
    for piece in body.chunks(12_345) {
        chunked.extend(format!("{:x};extension=1\r\n", piece.len()).bytes());
        chunked.extend(piece);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\nX-Trailer: ignored\r\n\r\n");
    let reply = server()
        .request("POST", "/echo", "Transfer-Encoding: chunked\r\n", &chunked)
        .expect(200);
    assert_eq!(reply.body, body);
}

#[test]
fn the_app_reads_while_the_client_still_sends() {
    let mut connection = server().connect();
    connection.send("POST /dialogue HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    for word in ["alpha", "beta", "gamma"] {
        connection.send(format!("{:x}\r\n{word}\n\r\n", word.len() + 1));
        if word == "alpha" {
            assert_eq!(connection.head_to("POST").status, 200);
        }
        let chunk = connection.chunk().expect("a chunk before the request has ended");
        assert_eq!(String::from_utf8(chunk).expect("text"), format!("got {word}\n"));
    }
    connection.send("0\r\n\r\n");
    assert_eq!(connection.chunk().expect("the end"), b"");
}

#[test]
fn an_input_kept_from_one_request_gives_nothing_of_the_next() {
    server().post("/keep-input", "the first body").expect(200);
    let reply = server().post("/read-kept", "secret of the second").expect(200);
    assert!(!reply.text().contains("secret"), "{}", reply.text());
    assert!(
        reply.text().ends_with(" 20\n"),
        "the second request's own body is still whole: {}",
        reply.text()
    );
}

#[test]
fn a_body_left_unread_does_not_disturb_the_next_request() {
    for (target, size) in [("/ok", 10), ("/half-read", 200_000)] {
        let mut connection = server().connect();
        connection.send(format!(
            "POST {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\n\r\n"
        ));
        // The body itself looks like a request, should anyone take it for one.
        let mut body = b"GET /cookies HTTP/1.1\r\nHost: test\r\n\r\n".repeat(size / 37 + 1);
        body.truncate(size);
        connection.send(&body);
        connection.reply().expect(200);
        connection.send("GET /one-chunk HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        // Closing the connection is right too; answering from within the body is not.
        if let Some(next) = connection.reply_or_close() {
            assert_eq!(next.expect(200).text(), "one chunk\n");
        }
    }
}

// wsgi.errors

#[test]
fn wsgi_errors_goes_to_the_log_line_by_line() {
    let mark = server().log.mark();
    server().get("/errors").expect(200);
    for line in ["to wsgi.errors", "one line", "second line"] {
        let found = server().log.wait_for(mark, line);
        assert!(found.ends_with(line), "a line of its own: {found:?}");
        assert!(found.contains("pep3333"), "marked with the app: {found:?}");
    }
}

// Under wsgiref.validate

static VALIDATED: LazyLock<Server> = LazyLock::new(|| Server::start(&config("validated", "workers = 1")));

#[test]
fn wsgiref_validate_has_no_complaint() {
    let server = &*VALIDATED;
    for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
        let reply = server
            .request(method, "/path?query=1", "X-Field: value\r\n", b"")
            .expect(200);
        assert_eq!(reply.text(), if method == "HEAD" { "" } else { "valid\n" });
    }
    for method in ["POST", "PUT", "PATCH"] {
        let fields = "Content-Type: text/plain\r\nContent-Length: 5000\r\n";
        assert_eq!(
            server
                .request(method, "/echo", fields, &[b'v'; 5000])
                .expect(200)
                .body,
            [b'v'; 5000]
        );
        let fields = "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n";
        let reply = server
            .request(method, "/echo", fields, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            .expect(200);
        assert_eq!(reply.text(), "abcde");
    }
    assert_eq!(server.post("/lines", "a\nb\nc").expect(200).text(), "a\n|b\n|c");
    for _ in 0..2 {
        let reply = server.get("/stream").expect(200);
        assert_eq!(reply.head.framing, Framing::Chunked);
        assert_eq!(reply.text(), "chunk 0\nchunk 1\nchunk 2\n");
        server.request("HEAD", "/stream", "", b"").expect(200);
    }
    assert_eq!(server.get("/write").expect(200).text(), "written\nreturned\n");
    server.get("/none").expect(204);
    server.get("/errors").expect(200);
    server.log.wait_for(0, "another line");
    let log = server.log.all();
    for complaint in [
        "AssertionError",
        "WSGIWarning",
        "Traceback",
        "without being closed",
    ] {
        assert!(!log.contains(complaint), "{log}");
    }
}
