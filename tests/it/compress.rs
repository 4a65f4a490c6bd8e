//! `[compress]`: replies of apps on their way to clients that take them compressed.

use std::fs;
use std::io::Read;

use brotli::Decompressor;
use flate2::read::GzDecoder;

use crate::client::Reply;
use crate::server::{Server, config, folder, packages};

const COMPRESS: &str = "[compress]\nencodings = [\"br\", \"gzip\"]\n";
const LARGE: usize = 3 << 20;

fn large() -> Vec<u8> {
    let lines = (0..).map(|number: u32| format!("{number:x} {:x}\n", number.wrapping_mul(2_654_435_761)));
    let mut text = Vec::new();
    for line in lines {
        text.extend_from_slice(line.as_bytes());
        if text.len() >= LARGE {
            break;
        }
    }
    text
}

fn start(app: &str, compress: &str) -> Server {
    let packages = packages();
    let dir = folder(&config(
        "compressed",
        &format!(
            "python-path = [{packages:?}]\nworkers = 1\n{app}\n[files]\n\"/data\" = {{ path = \"data\", write = true }}\n\n{compress}"
        ),
    ));
    fs::write(dir.path().join("data/large.txt"), large()).expect("a file for the test");
    Server::start_in(dir, |_| {})
}

fn ask(server: &Server, target: &str, accepts: &str) -> Reply {
    server.request("GET", target, &format!("Accept-Encoding: {accepts}\r\n"), b"")
}

fn decoded(reply: &Reply) -> Vec<u8> {
    let mut out = Vec::new();
    match reply.header("content-encoding") {
        Some("gzip") => GzDecoder::new(&reply.body[..]).read_to_end(&mut out),
        Some("br") => Decompressor::new(&reply.body[..], 4096).read_to_end(&mut out),
        other => panic!("{other:?}: {:?}", reply.head),
    }
    .expect("what was compressed");
    out
}

#[test]
fn clients_get_what_they_take_and_it_is_the_same() {
    for isolation in ["", "isolation = \"request\""] {
        let server = start(isolation, COMPRESS);
        for target in ["/page", "/missing", "/stream", "/file", "/varies"] {
            let plain = server.get(target);
            assert_eq!(plain.header("content-encoding"), None);
            assert_eq!(
                plain.header("vary").map(str::to_lowercase).as_deref(),
                Some(if target == "/varies" {
                    "cookie, accept-encoding"
                } else {
                    "accept-encoding"
                })
            );
            for (accepts, coding) in [("gzip, br", "br"), ("gzip, br;q=0.5", "gzip")] {
                let reply = ask(&server, target, accepts).expect(plain.status());
                assert_eq!(reply.header("content-encoding"), Some(coding), "{target}");
                assert_eq!(reply.head.all("vary").len(), 1, "{:?}", reply.head);
                assert_eq!(reply.header("content-length"), None);
                assert_eq!(reply.header("accept-ranges"), None);
                assert!(decoded(&reply) == plain.body, "{target} {coding}");
                assert!(reply.body.len() < plain.body.len() * 2 / 3, "{target} {coding}");
            }
        }
        let log = server.log.all();
        assert!(
            !log.contains("Traceback") && !log.contains("AssertionError"),
            "{log}"
        );
    }
}

#[test]
fn pythons_own_gzip_reads_it() {
    let server = start("", COMPRESS);
    let reply = ask(&server, "/page", "gzip").expect(200);
    let read = server.post("/decoded", &reply.body).expect(200);
    assert!(read.body == server.get("/page").body);
}

#[test]
fn other_replies_go_out_as_they_are() {
    let server = start("", COMPRESS);
    for (target, status) in [
        ("/short", 200),
        ("/failed", 500),
        ("/kept", 200),
        ("/nothing", 204),
    ] {
        let plain = server.get(target);
        let reply = ask(&server, target, "gzip, br").expect(status);
        assert_eq!(reply.header("content-encoding"), None, "{target}");
        assert_eq!(reply.header("vary"), None, "{target}");
        assert!(reply.body == plain.body, "{target}");
    }
    let reply = ask(&server, "/encoded", "gzip, br").expect(200);
    assert_eq!(decoded(&reply).len(), server.get("/page").body.len());
    assert_eq!(
        reply.header("content-length"),
        Some(reply.body.len().to_string().as_str())
    );
    let part = server.request(
        "GET",
        "/file",
        "Accept-Encoding: gzip\r\nRange: bytes=5-9\r\n",
        b"",
    );
    assert_eq!(part.header("content-encoding"), None);
    assert!(part.expect(206).body == large()[5..10]);

    // Nothing is said: nothing is compressed.
    let reply = ask(&start("", ""), "/page", "gzip, br").expect(200);
    assert_eq!(reply.header("content-encoding"), None);
    assert_eq!(reply.header("vary"), None);
}

#[test]
fn a_tag_is_weak_and_still_found_and_head_says_what_get_does() {
    let server = start("", COMPRESS);
    let strong = server
        .get("/page")
        .header("etag")
        .expect("Flask's own")
        .to_owned();
    let reply = ask(&server, "/page", "gzip").expect(200);
    let tag = reply.header("etag").expect("a tag").to_owned();
    assert_eq!(tag, format!("W/{strong}"));
    let fields = format!("Accept-Encoding: gzip\r\nIf-None-Match: {tag}\r\n");
    let unchanged = server.request("GET", "/page", &fields, b"").expect(304);
    assert_eq!(unchanged.header("etag"), Some(tag.as_str()));
    assert_eq!(unchanged.header("content-encoding"), None);
    let head = server
        .request("HEAD", "/page", "Accept-Encoding: gzip\r\n", b"")
        .expect(200);
    for name in [
        "content-encoding",
        "etag",
        "vary",
        "content-length",
        "content-type",
    ] {
        assert_eq!(head.header(name), reply.header(name), "{name}");
    }
}

#[test]
fn an_event_arrives_before_the_next_is_made() {
    let types = format!("{COMPRESS}types = [\"text/*\"]\n");
    let server = start("", &types);
    for coding in ["gzip", "br"] {
        let mut client = server.connect();
        client.send(format!(
            "POST /events HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\nContent-Length: 3\r\n\r\n"
        ));
        let (mut sent, mut expected) = (Vec::new(), String::new());
        for number in 1..=3 {
            // The app makes an event once it has another byte of the body.
            client.send("x");
            if number == 1 {
                assert_eq!(client.head_to("POST").status, 200);
            }
            expected.push_str(&format!("data: event {number}\n\n"));
            while so_far(coding, &sent) != expected {
                sent.extend(client.chunk().expect("the body goes on"));
            }
        }
    }
}

/// What a client that reads as bytes come has of the body.
fn so_far(coding: &str, bytes: &[u8]) -> String {
    let mut decoder: Box<dyn Read> = match coding {
        "gzip" => Box::new(GzDecoder::new(bytes)),
        _ => Box::new(Decompressor::new(bytes, 4096)),
    };
    let (mut out, mut byte) = (String::new(), [0]);
    while let Ok(1) = decoder.read(&mut byte) {
        out.push(byte[0] as char);
    }
    out
}

#[test]
fn a_client_that_leaves_frees_the_worker() {
    let server = start("", COMPRESS);
    for _ in 0..3 {
        let mut client = server.connect();
        client.send("GET /endless HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
        assert_eq!(client.head_to("GET").status, 200);
        client.chunk().expect("the body goes on");
        drop(client);
        // There is one worker.
        ask(&server, "/short", "gzip").expect(200);
    }
}

#[test]
fn a_reply_that_breaks_off_does_not_look_whole() {
    let server = start("", COMPRESS);
    let reply = ask(&server, "/broken", "gzip");
    assert!(!reply.complete);
    assert!(so_far("gzip", &reply.body).len() <= 10_000);
    server
        .log
        .wait_for(0, "the reply ended after 10000 of the 20000 bytes");
}
