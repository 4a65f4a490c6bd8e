//! What apps reply, and what of it reaches the client.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use wasgi_engine::{BodyError, Failure, Request};

use crate::site::*;

#[tokio::test]
async fn a_reply_of_one_piece_is_known_to_be_whole() {
    let site = site(
        r#"
def app(environ, start_response):
    body = ascii(environ["PATH_INFO"]).encode()
    start_response("201 Created", [("X-A", "1")])
    return [body]
"#,
        |_| (),
    );
    let (report, seen) = site.request(body(&[]), 9, WAITS).await;
    assert!(report.reusable, "{report:?}");
    let head = seen.head.expect("head");
    assert_eq!((head.status, &head.reason[..]), (201, &b"Created"[..]));
    assert_eq!(head.headers, [(Bytes::from("X-A"), Bytes::from("1"))]);
    assert_eq!(
        seen.chunks,
        [(Bytes::from(r"'/\xc3\xa9'"), true)],
        "latin-1 native strings"
    );
    assert!(seen.finished);
}

#[tokio::test]
async fn pieces_go_out_as_they_are_made_and_the_body_is_read_as_it_comes() {
    let site = site(
        r#"
def app(environ, start_response):
    start_response("200 OK", [])
    yield b""
    for line in environ["wsgi.input"]:
        yield b"<" + line + b">"
"#,
        |_| (),
    );
    let (_, seen) = site.request(body(&["one\ntw", "o\nthree"]), 99, WAITS).await;
    let chunks: Vec<_> = seen.chunks.iter().map(|(data, _)| &data[..]).collect();
    assert_eq!(chunks, [&b"<one\n>"[..], b"<two\n>", b"<three>"]);
    assert!(seen.finished);
}

#[tokio::test]
async fn close_is_called_when_the_client_has_gone_away_and_nothing_is_logged_as_an_error() {
    let site = site(
        r#"
class Reply:
    def __iter__(self):
        while True:
            yield b"x"
    def close(self):
        print("closed")

def app(environ, start_response):
    start_response("200 OK", [])
    return Reply()
"#,
        |_| (),
    );
    let (report, seen) = site.request(body(&[]), 2, GONE).await;
    assert!(report.reusable, "{report:?}");
    assert_eq!(seen.chunks.len(), 2);
    assert_eq!(site.log.text(), "r1: closed");
}

#[tokio::test]
async fn a_failed_body_is_an_oserror_in_python_and_the_client_is_told_at_once() {
    let site = site(
        r#"
def app(environ, start_response):
    try:
        environ["wsgi.input"].read()
    except OSError as error:
        print("got", type(error).__name__, error.errno)
    start_response("200 OK", [])
    return [b"too late"]
"#,
        |_| (),
    );
    for (error, words) in [
        (BodyError::TooLarge, "got OSError 22"),
        (BodyError::TimedOut, "got TimeoutError 73"),
        (BodyError::PeerGone, "got BrokenPipeError 64"),
    ] {
        let pieces = [Ok(&b"some"[..]), Err(error)].into();
        let (report, seen) = site
            .request(
                Body {
                    pieces,
                    endless: false,
                },
                9,
                WAITS,
            )
            .await;
        assert!(report.reusable, "{report:?}");
        assert_eq!(seen.failure.expect("failure").0, Failure::Body(error));
        assert!(seen.head.is_none());
        assert!(site.log.text().contains(words), "{}", site.log.text());
    }
}

#[tokio::test]
async fn wsgi_input_kept_over_the_end_of_its_request_reads_nothing_of_the_next() {
    let code = "
kept = []
def app(environ, start_response):
    start_response('200 OK', [])
    kept.append(environ['wsgi.input'])
    return [kept[0].read() or b'nothing']
";
    let site = site(code, |_| ());
    let mut instance = site.app.start().await.expect("starts");
    let mut replies = Vec::new();
    for text in ["first", "second"] {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let reply = Client {
            seen: seen.clone(),
            room: 9,
            then: WAITS,
            waker: None,
        };
        let request = Request::new(
            environ(&[("PATH_INFO", "/")]),
            text.into(),
            Box::new(body(&[text])),
            Box::new(reply),
        );
        assert!(instance.handle(request).await.reusable);
        replies.push(seen.lock().expect("seen").chunks[0].0.clone());
    }
    assert_eq!(replies, ["first", "nothing"]);
}
