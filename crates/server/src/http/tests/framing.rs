//! Requests come in whole and in order, or not at all; replies are framed as HTTP wants.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const GET: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
const LAST: &str = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_reply_of_one_piece_has_a_length_and_the_connection_stays() {
    let server = Server::new(echo()).await;
    let mut client = server.connect();
    client.send(GET).await;
    let reply = client.until("GET /a ").await;
    let (start, rest) = reply.split_once("x-request-id: ").unwrap();
    assert_eq!(start, "HTTP/1.1 200 OK\r\nserver: wasgi\r\n");
    assert_eq!(&rest[12..], "\r\ncontent-length: 7\r\n\r\nGET /a ");
    client.send(LAST).await;
    let reply = client.rest().await;
    assert!(
        reply.contains("connection: close\r\n") && reply.ends_with("GET /last "),
        "{reply}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_date_is_told() {
    let server = Server::new(echo()).await;
    let mut client = server.connect();
    client.send(LAST).await;
    let mut reply = String::new();
    client.stream.read_to_string(&mut reply).await.unwrap();
    assert!(
        reply.contains("\r\ndate: ") && reply.contains(" GMT\r\n"),
        "{reply}"
    );
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::with(echo(), 4, None, Limits::default()).await;
    let post = "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nxyz";
    let chunked = "PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\nT: u\r\n\r\n";
    let all = server.all(&[GET, post, chunked, GET, LAST].concat()).await;
    let bodies: Vec<&str> = all
        .split("\r\n\r\n")
        .skip(1)
        .map(|part| part.split("HTTP/1.1").next().unwrap())
        .collect();
    assert_eq!(
        bodies,
        ["GET /a ", "POST /b xyz", "PUT /c abc", "GET /a ", "GET /last "]
    );
}

#[tokio::test(start_paused = true)]
async fn requests_are_found_however_they_are_split_up() {
    let server = Server::new(echo()).await;
    let mut client = server.connect();
    let chunked =
        "PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
    for byte in [GET, chunked, LAST].concat().bytes() {
        client.stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let all = client.rest().await;
    assert_eq!(statuses(&all), ["200", "200", "200"]);
    assert!(all.contains("PUT /c abc"), "{all}");
}

#[tokio::test(start_paused = true)]
async fn nothing_passes_after_a_refused_head() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let server = Server::new(app(move |request| {
        counted.fetch_add(1, Ordering::Relaxed);
        request.text("ok")
    }))
    .await;
    for (bad, status) in [
        ("GET / HTTP/1.1\nHost: a\n\n", "400"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/3.0\r\n\r\n", "505"),
        ("\x16\x03\x01\x02", "400"),
    ] {
        calls.store(0, Ordering::Relaxed);
        let all = server.all(&[GET, bad, GET].concat()).await;
        assert_eq!(statuses(&all), ["200", status], "{bad:?}");
        assert!(all.contains("connection: close"), "{all}");
        assert_eq!(calls.load(Ordering::Relaxed), 1, "{bad:?}");
    }
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(70_000));
    assert_eq!(statuses(&server.all(&long).await), ["431"]);
    let log = server.log();
    assert!(
        log.contains("192.0.2.1 - - [") && log.contains("] \"-\" 431 "),
        "{log}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_why_and_gives_the_request_id_of_the_log() {
    let server = Server::new(echo()).await;
    let all = server.all("GET / HTTP/1.1\r\n\r\n").await;
    let (_, text) = all.split_once("\r\n\r\n").unwrap();
    let (why, id) = text.trim_end().split_once("\nrequest ").unwrap();
    assert_eq!(why, "400 Bad Request: the Host header field is missing");
    assert!(server.log().contains(&format!("id={id}\n")), "{id}");
}

fn stream(fields: &'static [(&'static str, &'static str)], status: u16) -> Closure {
    app(move |mut request| async move {
        request.head(status, fields);
        for piece in ["one ", "two ", "three"] {
            if request.chunk(piece, false).await.is_err() {
                break;
            }
        }
        request.reply.finish();
        reusable()
    })
}

#[tokio::test(start_paused = true)]
async fn a_streamed_reply_is_chunked_or_for_http_1_0_ends_with_the_connection() {
    let server = Server::new(stream(&[], 200)).await;
    let all = server.all(LAST).await;
    assert!(all.contains("transfer-encoding: chunked\r\n"), "{all}");
    assert!(
        all.ends_with("\r\n\r\n4\r\none \r\n4\r\ntwo \r\n5\r\nthree\r\n0\r\n\r\n"),
        "{all}"
    );

    let all = server
        .all("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        .await;
    assert!(
        all.starts_with("HTTP/1.0 200 OK\r\n") && all.ends_with("\r\n\r\none two three"),
        "{all}"
    );
    assert!(
        !all.contains("chunked") && !all.contains("content-length"),
        "{all}"
    );
}

#[tokio::test(start_paused = true)]
async fn http_1_0_keeps_the_connection_when_asked_and_able() {
    let server = Server::new(echo()).await;
    let keep = "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let all = server.all(&[keep, "GET /b HTTP/1.0\r\n\r\n", GET].concat()).await;
    assert_eq!(statuses(&all), ["200", "200"]);
    assert!(
        all.contains("connection: keep-alive\r\n") && all.ends_with("GET /b "),
        "{all}"
    );
}

#[tokio::test(start_paused = true)]
async fn replies_without_body_have_none_whatever_the_app_sends() {
    let head = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
    for (status, fields, request, has) in [
        (200, &[][..], head, None),
        (
            200,
            &[("content-length", "13")],
            head,
            Some("content-length: 13\r\n"),
        ),
        (204, &[("content-length", "13")], GET, None),
        (304, &[("etag", "\"x\"")], GET, Some("etag: \"x\"\r\n")),
        (205, &[], GET, Some("content-length: 0\r\n")),
    ] {
        let server = Server::new(stream(fields, status)).await;
        let all = server.all(&[request, LAST].concat()).await;
        let (reply, rest) = all.split_once("\r\n\r\n").unwrap();
        let reply = format!("{reply}\r\n");
        assert!(rest.starts_with("HTTP/1.1 "), "{status}: {all}");
        assert!(!reply.contains("chunked"), "{status}: {all}");
        match has {
            Some(field) => assert!(reply.contains(field), "{status}: {all}"),
            None => assert!(!reply.contains("content-length"), "{status}: {all}"),
        }
    }
    let server = Server::new(echo()).await;
    let all = server.all(&[head, LAST].concat()).await;
    assert!(
        all.split("\r\n\r\n")
            .next()
            .unwrap()
            .contains("content-length: 7"),
        "{all}"
    );
}

#[tokio::test(start_paused = true)]
async fn too_long_a_reply_is_cut_to_its_length_and_too_short_a_one_cuts_the_connection() {
    let server = Server::new(stream(&[("Content-Length", "6")], 200)).await;
    let all = server.all(&[GET, LAST].concat()).await;
    assert_eq!(statuses(&all), ["200", "200"]);
    assert!(all.ends_with("\r\n\r\none tw"), "{all}");
    assert!(
        server.log().contains("longer than its Content-Length of 6"),
        "{}",
        server.log()
    );

    let server = Server::new(stream(&[("Content-Length", "60")], 200)).await;
    let all = server.all(&[GET, LAST].concat()).await;
    assert_eq!(statuses(&all), ["200"]);
    assert!(
        all.contains("content-length: 60\r\n") && all.ends_with("one two three"),
        "{all}"
    );
    assert!(
        server.log().contains("after 13 of the 60 bytes"),
        "{}",
        server.log()
    );

    // The same in one piece, which is framed by another road.
    for (length, statuses_expected, body) in [("1", ["200", "200"].as_slice(), "x"), ("9", &["200"], "xyz")] {
        let server = Server::new(app(move |mut request| async move {
            request.head(200, &[("Content-Length", length)]);
            let _ = request.chunk("xyz", true).await;
            request.reply.finish();
            reusable()
        }))
        .await;
        let all = server.all(&[GET, LAST].concat()).await;
        assert_eq!(statuses(&all), statuses_expected);
        assert!(all.ends_with(&format!("\r\n\r\n{body}")), "{all}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_apps_own_fields_reach_the_peer() {
    let server = Server::new(app(|mut request| async move {
        request.reply.head(ReplyHead {
            status: 299,
            reason: Bytes::from_static(b"Just Fine"),
            headers: [
                ("Server", "mine"),
                ("Set-Cookie", "a=1"),
                ("Set-Cookie", "b=2"),
                ("X-Latin", "caf\u{e9}"),
            ]
            .map(|(name, value)| (Bytes::from(name), Bytes::from(value)))
            .to_vec(),
        });
        request.reply.finish();
        reusable()
    }))
    .await;
    let all = server.all(LAST).await;
    assert!(
        all.starts_with("HTTP/1.1 299 Just Fine\r\nserver: mine\r\n"),
        "{all}"
    );
    assert!(
        all.contains("set-cookie: a=1\r\nset-cookie: b=2\r\nx-latin: caf\u{e9}\r\n"),
        "{all}"
    );
    assert!(
        all.contains("content-length: 0\r\n") && !all.contains("wasgi"),
        "{all}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_failure_becomes_a_status_and_within_a_reply_cuts_the_connection() {
    for (failure, status) in [
        (Failure::App, "500"),
        (Failure::BadReply("no".to_owned()), "500"),
        (Failure::TimeLimit, "504"),
        (Failure::CpuLimit, "504"),
        (Failure::Killed, "503"),
        (Failure::Exited(1), "500"),
        (Failure::Crashed("stack".to_owned()), "500"),
        (Failure::Lost("its process ended".to_owned()), "502"),
        (Failure::NotStarted("no memory".to_owned()), "503"),
        (Failure::Body(BodyError::TooLarge), "413"),
        (Failure::Body(BodyError::TimedOut), "408"),
    ] {
        let shown = failure.to_string();
        let told = !matches!(failure, Failure::App | Failure::Body(_));
        let server = Server::new(app(move |mut request| {
            let failure = failure.clone();
            async move {
                // Not sent before the first piece, so that it can still be taken back.
                request.head(200, &[]);
                request.fail(failure)
            }
        }))
        .await;
        let all = server.all(LAST).await;
        assert_eq!(statuses(&all), [status]);
        assert!(all.contains("\nrequest ") && all.contains("text/plain"), "{all}");
        assert_eq!(
            server.log().contains(&format!("]: {shown}\n")),
            told,
            "{}",
            server.log()
        );
    }
    for fields in [&[][..], &[("Content-Length", "100")]] {
        let server = Server::new(app(move |mut request| async move {
            request.head(200, fields);
            let _ = request.chunk("begun", false).await;
            request.fail(Failure::TimeLimit)
        }))
        .await;
        let all = server.all(&[GET, LAST].concat()).await;
        assert_eq!(statuses(&all), ["200"]);
        assert!(all.trim_end().ends_with("begun"), "{all}");
        assert!(
            server.log().contains("time limit reached, within the reply"),
            "{}",
            server.log()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_the_engine_should_not_have_let_through_is_a_500() {
    for (status, fields) in [
        (100, &[][..]),
        (200, &[("bad name", "x")]),
        (200, &[("x", "a\nb")]),
        (200, &[("content-length", "+1")]),
    ] {
        let server = Server::new(stream(fields, status)).await;
        assert_eq!(statuses(&server.all(LAST).await), ["500"]);
        assert!(
            server.log().contains("the app's reply is not valid"),
            "{}",
            server.log()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_vanishes_is_a_500_and_replaced() {
    let server = Server::new(app(|request| async move {
        match request.environ("PATH_INFO").as_str() {
            "/a" => panic!("a bug of the host"),
            _ => request.text("ok").await,
        }
    }))
    .await;
    let all = server.all(&[GET, LAST].concat()).await;
    assert_eq!(statuses(&all), ["500", "200"]);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_sends_more_than_the_peer_is_to_get_runs_to_its_end() {
    let server = Server::new(app(|mut request| async move {
        request.head(200, &[("Content-Length", "3")]);
        for _ in 0..1000 {
            request.chunk(vec![b'x'; 10_000], false).await.unwrap();
        }
        request.reply.finish();
        reusable()
    }))
    .await;
    // There is one worker.
    let all = server
        .all(&["HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", GET, LAST].concat())
        .await;
    assert_eq!(statuses(&all), ["200", "200", "200"]);
    assert!(all.ends_with("\r\n\r\nxxx"), "{all}");
}
