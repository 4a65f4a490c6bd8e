//! What a request is called, and which trace it is part of.

use std::io::{Read, Write as _};
use std::net::TcpListener;
use std::thread;

use tokio::sync::mpsc;
use wasgi_config::{Logging, Tracing};

use super::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// An app that says what it was called: `id|traceparent`.
fn ids() -> Closure {
    app(|mut request| async move {
        let told = ["HTTP_X_REQUEST_ID", "HTTP_TRACEPARENT"].map(|key| request.environ(key));
        let told = told.join("|");
        request.head(200, &[("X-Request-Id", "of the app")]);
        let _ = request.chunk(told, true).await;
        request.reply.finish();
        reusable()
    })
}

fn ask(fields: &str) -> String {
    format!("GET /a?b HTTP/1.1\r\nHost: a\r\n{fields}Connection: close\r\n\r\n")
}

/// The id that the reply's head tells, how often it does, and the body.
fn told(reply: &str) -> (String, String) {
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    let ids: Vec<&str> = head
        .lines()
        .filter_map(|line| line.strip_prefix("x-request-id: "))
        .collect();
    assert_eq!(ids.len(), 1, "{reply}");
    (ids[0].to_owned(), body.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_request_has_one_id_for_the_client_the_app_and_the_log() {
    let server = Server::new(ids()).await;
    let reply = server.all(&ask("X-Request-Id: forged\r\n")).await;
    let (id, body) = told(&reply);
    assert_eq!(id.len(), 12, "{id}");
    assert_eq!(body, format!("{id}|"));
    assert!(server.log().ends_with(&format!(" id={id}\n")), "{}", server.log());
    // In the server's own replies as well.
    let refused = server.all("nonsense\r\n\r\n").await;
    let (id, body) = told(&refused);
    assert!(body.contains(&format!("request {id}\n")), "{body}");
}

#[tokio::test(start_paused = true)]
async fn a_trusted_peers_id_is_taken_over_if_it_is_sane() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let log = Log::start(&Logging {
        file: Some(path.clone()),
        trust_request_id: true,
        ..Logging::default()
    })
    .unwrap();
    let server = Server::with_log(ids(), log).await;
    let (id, body) = told(&server.all(&ask("X-Request-Id: of-nginx:1\r\n")).await);
    assert_eq!((id.as_str(), body.as_str()), ("of-nginx:1", "of-nginx:1|"));
    for fields in [
        "X-Request-Id: a b\r\n",
        "X-Request-Id: a]\r\n",
        "X-Request-Id: a\r\nX-Request-Id: b\r\n",
        &format!("X-Request-Id: {}\r\n", "x".repeat(65)),
    ] {
        assert_eq!(told(&server.all(&ask(fields)).await).0.len(), 12, "{fields}");
    }
    server.log.flush(Duration::from_secs(10));
    let log = std::fs::read_to_string(path).unwrap();
    assert!(log.contains(" id=of-nginx:1\n"), "{log}");
}

#[tokio::test(start_paused = true)]
async fn a_valid_traceparent_is_passed_on_and_logged() {
    let server = Server::new(ids()).await;
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let (id, body) = told(&server.all(&ask(&format!("Traceparent: {parent}\r\n"))).await);
    assert_eq!(body, format!("{id}|{parent}"));
    assert!(
        server.log().contains(&format!(" trace={TRACE} id={id}\n")),
        "{}",
        server.log()
    );
    server.all(&ask("Traceparent: 00-x\" trace=y\r\n")).await;
    assert_eq!(server.log().matches(" trace=").count(), 1, "{}", server.log());
}

/// Takes one message of an exporter, and answers it.
fn collect(listener: &TcpListener, answer: &str) -> serde_json::Value {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&all).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "))
                .unwrap();
            if body.len() == length.parse::<usize>().unwrap() {
                assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
                assert!(head.contains("\r\nContent-Type: application/json\r\n"), "{head}");
                stream.write_all(answer.as_bytes()).unwrap();
                return serde_json::from_str(body).unwrap();
            }
        }
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "{text}");
        all.extend_from_slice(&buffer[..read]);
    }
}

#[tokio::test]
async fn spans_reach_the_collector_and_a_dead_one_holds_nobody_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = Server::new(ids()).await;
    let tracing = Tracing {
        host: "127.0.0.1".to_owned(),
        port,
        path: "/v1/traces".to_owned(),
        sample: 1.0,
    };
    server.log.trace(&tracing).unwrap();
    let (tell, mut messages) = mpsc::unbounded_channel();
    let collector = thread::spawn(move || {
        for status in ["200 OK", "503 Busy"] {
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            tell.send(collect(&listener, &answer)).unwrap();
        }
    });
    let parent = format!("00-{TRACE}-b7ad6b7169203331-00");
    let (id, body) = told(&server.all(&ask(&format!("Traceparent: {parent}\r\n"))).await);
    let (trace, span) = {
        let (_, context) = body.split_once('|').unwrap();
        let parts: Vec<&str> = context.split('-').collect();
        assert_eq!((parts[0], parts[1], parts[3]), ("00", TRACE, "01"), "{context}");
        (parts[1].to_owned(), parts[2].to_owned())
    };
    assert_ne!(span, "b7ad6b7169203331");
    let first = messages.recv().await.unwrap();
    server.all(&ask("")).await;
    let second = messages.recv().await.unwrap();
    collector.join().unwrap();
    let spans = |message: &serde_json::Value| {
        message["resourceSpans"][0]["scopeSpans"][0]["spans"]
            .as_array()
            .unwrap()
            .clone()
    };
    let found = spans(&first);
    let names: Vec<_> = found.iter().map(|span| span["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["GET", "queue", "guest"]);
    for one in &found {
        assert_eq!(one["traceId"], *trace);
        let nanos = |key: &str| one[key].as_str().unwrap().parse::<u128>().unwrap();
        assert!(nanos("startTimeUnixNano") <= nanos("endTimeUnixNano"), "{one}");
        assert!(nanos("startTimeUnixNano") > 1_500_000_000_000_000_000, "{one}");
    }
    assert_eq!(
        (&found[0]["spanId"], &found[0]["parentSpanId"]),
        (&(*span).into(), &"b7ad6b7169203331".into())
    );
    assert!(found[1..].iter().all(|one| one["parentSpanId"] == *span));
    let attributes = found[0]["attributes"].to_string();
    for part in ["\"/a\"", "\"GET\"", "\"200\"", "\"test\"", &format!("\"{id}\"")] {
        assert!(attributes.contains(part), "{attributes}");
    }
    assert!(spans(&second)[0].get("parentSpanId").is_none());
    // The second found it busy, and now it is gone: requests go on, and it is told once.
    for _ in 0..20 {
        server.all(&ask("")).await;
    }
    let told = format!("warning: traces cannot be sent to 127.0.0.1:{port}: it answers 503");
    until(|| server.log().contains(&told)).await;
    assert_eq!(server.log().matches("warning").count(), 1, "{}", server.log());
}
