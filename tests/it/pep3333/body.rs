//! Bodies of replies: their length, their pieces, their type.

use std::time::{Duration, Instant};

use super::{expect_cut, expect_refused, server};
use crate::client::Framing;
use crate::server::project;

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
        server().log.wait_for(mark, "longer than its Content-Length of 4");
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
    server().log.wait_for(mark, "4 of the 10 bytes");
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
    // Told once, whichever test asked first.
    server().log.wait_for(0, "Traceback (most recent call last):");
    server().log.wait_for(0, "in raise_at_once");
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
    let file = std::fs::read(project().join("tests/apps/pep3333/long.txt")).expect("is there");
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
