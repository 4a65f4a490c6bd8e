//! wsgi.input and wsgi.errors.

use serde_json::json;

use super::server;

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
