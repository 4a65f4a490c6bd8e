//! Spans, from the configuration to a collector on the loopback.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use crate::server::{Server, config};

/// Takes one message, and answers it.
fn collect(listener: &TcpListener) -> serde_json::Value {
    let (mut stream, _) = listener.accept().expect("an exporter");
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a socket");
    let mut all = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&all).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && let Some(length) = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "))
            && body.len() >= length.parse().expect("a number")
        {
            assert!(head.starts_with("POST /v1/traces HTTP/1.1"), "{head}");
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .expect("it waits");
            return serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
        }
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).expect("in time");
        assert!(read > 0, "{text}");
        all.extend_from_slice(&buffer[..read]);
    }
}

#[test]
fn a_request_becomes_spans_with_its_id() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it listens").port();
    let more = format!("isolation = \"request\"\nworkers = 1\n[trace]\notlp = \"http://127.0.0.1:{port}\"");
    let server = Server::start(&config("talkative", &more));
    let reply = server.get("/quiet?secret").expect(200);
    let message = collect(&listener);
    let spans = message["resourceSpans"][0]["scopeSpans"][0]["spans"]
        .as_array()
        .unwrap_or_else(|| panic!("{message}"))
        .clone();
    let names: Vec<_> = spans.iter().filter_map(|span| span["name"].as_str()).collect();
    assert_eq!(names, ["GET", "queue", "guest", "rewind"], "{message}");
    let attributes = spans[0]["attributes"].to_string();
    let id = reply.header("X-Request-Id").expect("an id");
    assert!(attributes.contains(&format!("\"{id}\"")), "{attributes}");
    assert!(
        attributes.contains("\"/quiet\"") && !message.to_string().contains("secret"),
        "{message}"
    );
    let trace = spans[0]["traceId"].as_str().expect("a trace");
    server.log.wait_for(0, &format!(" trace={trace} id={id}"));
}
