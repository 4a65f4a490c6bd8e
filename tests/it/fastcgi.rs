//! What only FastCGI has: records, kept connections, aborts, and questions of the web server's.

use std::sync::LazyLock;

use crate::client::Connection;
use crate::gateway_client::{Asked, Door, record};
use crate::server::{Server, config};

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let doors = "http = \"127.0.0.1:0\"\nfastcgi = \"127.0.0.1:0\"";
    Server::start(&config("pep3333", "workers = 2").replace("http = \"127.0.0.1:0\"", doors))
});

fn connect() -> Connection {
    Door::FastCgi.connect(&SERVER)
}

/// The next record.
#[track_caller]
fn next(connection: &mut Connection, came: &mut Vec<u8>) -> (u8, u8, Vec<u8>) {
    loop {
        if let Some(record) = record::take(came) {
            return record;
        }
        came.extend(connection.some());
    }
}

/// The reply to a request, up to its end.
#[track_caller]
fn reply(connection: &mut Connection, came: &mut Vec<u8>, id: u8) -> String {
    let mut text = Vec::new();
    loop {
        let (kind, of, content) = next(connection, came);
        assert_eq!(of, id);
        match kind {
            record::STDOUT => text.extend(content),
            record::END => {
                assert_eq!(content, [0; 8], "complete");
                return String::from_utf8(text).expect("text");
            }
            kind => panic!("a record of type {kind}"),
        }
    }
}

#[test]
fn a_kept_connection_serves_many_requests() {
    let (mut connection, mut came) = (connect(), Vec::new());
    for number in 0..50u8 {
        let id = 1 + number % 3;
        let body = format!("body {number}");
        connection
            .send(Asked::post("/echo", body.clone()).records(id, 1))
            .send(record::of(record::STDIN, id, body.as_bytes()))
            .send(record::of(record::STDIN, id, b""));
        let text = reply(&mut connection, &mut came, id);
        assert!(
            text.contains("\r\nStatus: 200 OK\r\n\r\n") && text.ends_with(&body),
            "{text}"
        );
    }
    // The app has read nothing of this one; the next is found behind it all the same.
    connection
        .send(Asked::post("/ok", vec![b'x'; 50_000]).records(1, 1))
        .send(record::of(record::STDIN, 1, &[b'x'; 50_000]))
        .send(record::of(record::STDIN, 1, b""));
    assert!(reply(&mut connection, &mut came, 1).ends_with("fine\n"));
    connection
        .send(Asked::get("/ok").records(2, 0))
        .send(record::of(record::STDIN, 2, b""));
    assert!(reply(&mut connection, &mut came, 2).ends_with("fine\n"));
    assert!(connection.is_closed(), "it was not to be kept any longer");
}

#[test]
fn a_body_of_unknown_length_ends_with_its_records() {
    let mut connection = connect();
    connection.send(Asked::new("POST", "/echo").records(1, 0));
    for piece in ["one ", "two ", "three"] {
        connection.send(Door::FastCgi.body(piece.as_bytes()));
    }
    connection.send(Door::FastCgi.end());
    let reply = Door::FastCgi.reply(&mut connection, "POST").expect(200);
    assert_eq!(reply.text(), "one two three");
}

#[test]
fn a_body_of_another_length_than_told_ends_the_connection() {
    for (body, what) in [("hal", "shorter"), ("more than told", "longer")] {
        let mark = SERVER.log.mark();
        let mut connection = connect();
        connection
            .send(Asked::post("/echo", "whole").records(1, 1))
            .send(Door::FastCgi.body(body.as_bytes()))
            .send(Door::FastCgi.end());
        assert!(connection.is_closed());
        let what = format!("the body is {what} than CONTENT_LENGTH");
        SERVER.log.wait_for(mark, &what);
    }
}

#[test]
fn a_second_request_at_a_time_is_refused_and_the_first_goes_on() {
    let (mut connection, mut came) = (connect(), Vec::new());
    connection
        .send(Asked::get("/stream?n=2&pause=0.5").records(1, 1))
        .send(record::of(record::STDIN, 1, b""))
        .send(Asked::get("/ok").records(2, 1))
        .send(record::of(record::STDIN, 2, b""));
    let mut first = Vec::new();
    loop {
        match next(&mut connection, &mut came) {
            (record::END, 2, content) => {
                assert_eq!(content, [0, 0, 0, 0, 1, 0, 0, 0], "FCGI_CANT_MPX_CONN");
                break;
            }
            (record::STDOUT, 1, content) => first.extend(content),
            other => panic!("{other:?}"),
        }
    }
    let rest = reply(&mut connection, &mut came, 1);
    assert!(rest.ends_with("chunk 1\n"), "{rest}");
    connection
        .send(Asked::get("/ok").records(2, 1))
        .send(record::of(record::STDIN, 2, b""));
    assert!(reply(&mut connection, &mut came, 2).ends_with("fine\n"));
}

#[test]
fn what_the_web_server_wants_to_know_is_answered() {
    let (mut connection, mut came) = (connect(), Vec::new());
    let names = b"\x0e\0FCGI_MAX_CONNS\x0f\0FCGI_MPXS_CONNS\x03\0FOO";
    connection.send(record::of(record::GET_VALUES, 0, names));
    assert_eq!(
        next(&mut connection, &mut came),
        (record::VALUES, 0, b"\x0f\x01FCGI_MPXS_CONNS0".to_vec())
    );
    connection.send(record::of(77, 0, b"what is this"));
    assert_eq!(
        next(&mut connection, &mut came),
        (record::UNKNOWN, 0, vec![77, 0, 0, 0, 0, 0, 0, 0])
    );
    // A filter's role.
    connection.send(record::of(record::BEGIN, 1, &[0, 3, 1, 0, 0, 0, 0, 0]));
    assert_eq!(
        next(&mut connection, &mut came),
        (record::END, 1, vec![0, 0, 0, 0, 3, 0, 0, 0])
    );
    connection
        .send(Asked::get("/ok").records(1, 1))
        .send(record::of(record::STDIN, 1, b""));
    assert!(reply(&mut connection, &mut came, 1).ends_with("fine\n"));
}

#[test]
fn an_aborted_request_ends_and_the_connection_goes_on() {
    let (mut connection, mut came) = (connect(), Vec::new());
    let mark = SERVER.log.mark();
    connection
        .send(Asked::get("/stream?n=1000&pause=0.05").records(1, 1))
        .send(record::of(record::STDIN, 1, b""));
    assert_eq!(next(&mut connection, &mut came).0, record::STDOUT);
    connection.send(record::of(record::ABORT, 1, b""));
    while next(&mut connection, &mut came).0 != record::END {}
    SERVER.log.wait_for(mark, "/stream?n=1000&pause=0.05");
    connection
        .send(Asked::get("/ok").records(1, 1))
        .send(record::of(record::STDIN, 1, b""));
    assert!(reply(&mut connection, &mut came, 1).ends_with("fine\n"));
}

#[test]
fn a_reply_that_fails_midway_has_no_end() {
    let mut connection = connect();
    connection
        .send(Asked::get("/raise-midway").records(1, 1))
        .send(record::of(record::STDIN, 1, b""));
    let (text, has_ended) = Door::FastCgi.taken(connection.rest());
    assert!(text.ends_with(b"first chunk\n") && !has_ended);
}

#[test]
fn paths_are_found_as_nginx_sends_them() {
    let environ = |asked: &Asked| {
        let environ = Door::FastCgi.ask(&SERVER, asked).expect(200).json();
        let text = |name: &str| environ[name].as_str().expect("a text").to_owned();
        (text("SCRIPT_NAME"), text("PATH_INFO"))
    };
    let root = (String::new(), "/environ".to_owned());
    // Its own fastcgi_params alone, and with the two lines that guides add to them.
    let alone = Asked::get("/environ")
        .without("PATH_INFO")
        .with("SCRIPT_NAME", "/environ");
    assert_eq!(environ(&alone), root);
    assert_eq!(
        environ(&alone.and("PATH_INFO", "/environ").and("SCRIPT_NAME", "")),
        root
    );
    let below = Asked::get("/em/environ")
        .with("SCRIPT_NAME", "/em")
        .with("PATH_INFO", "/environ");
    assert_eq!(environ(&below), ("/em".to_owned(), "/environ".to_owned()));
}

#[test]
fn records_that_cannot_be_read_end_the_connection() {
    for (bytes, what) in [
        (b"\x02\x01\0\x01\0\x08\0\0".to_vec(), "its version is not 1"),
        (
            record::of(record::BEGIN, 1, &[0, 1]),
            "it begins a request and is too short",
        ),
        (record::of(record::PARAMS, 0, b"x"), "its request id is 0"),
    ] {
        let mark = SERVER.log.mark();
        let mut connection = connect();
        connection.send(bytes);
        assert!(connection.is_closed());
        let line = SERVER
            .log
            .wait_for(mark, "fastcgi from 127.0.0.1: a FastCGI record cannot be read");
        assert!(line.contains(what), "{line}");
    }
    // One that belongs to a request is answered.
    let mut connection = connect();
    connection
        .send(record::of(record::BEGIN, 1, &[0, 1, 1, 0, 0, 0, 0, 0]))
        .send(record::of(record::PARAMS, 1, b"\x0e\x03REQUEST_METHODGE"))
        .send(record::of(record::PARAMS, 1, b""));
    let reply = Door::FastCgi.reply(&mut connection, "GET").expect(400);
    assert!(
        reply.text().contains("runs past the FastCGI params"),
        "{}",
        reply.text()
    );
}
