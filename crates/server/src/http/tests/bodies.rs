//! Request bodies: read as the app reads, bounded, and never confused with the next request.

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;

const LAST: &str = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn small() -> Limits {
    Limits {
        request_body: 10,
        ..Limits::default()
    }
}

fn post(length: usize, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn chunked(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_announced_too_long_never_reaches_the_app() {
    let server = Server::with(app(|_| async { panic!("called") }), 1, None, small()).await;
    let all = server.all(&[&post(11, "12345678901"), LAST].concat()).await;
    assert_eq!(statuses(&all), ["413"]);
    assert!(all.contains("connection: close"), "{all}");

    let mut client = server.connect();
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(statuses(&client.rest().await), ["413"]);
}

#[tokio::test(start_paused = true)]
async fn a_chunked_body_is_counted() {
    let server = Server::with(echo(), 1, None, small()).await;
    let all = server
        .all(&[&chunked("5\r\n12345\r\n5\r\n67890\r\n0\r\n\r\n"), LAST].concat())
        .await;
    assert_eq!(statuses(&all), ["200", "200"]);
    let all = server
        .all(&[&chunked("5\r\n12345\r\n6\r\n678901\r\n0\r\n\r\n"), LAST].concat())
        .await;
    assert_eq!(statuses(&all), ["413"]);
    let all = server.all(&chunked("7fffffffffffffff\r\n12345678901")).await;
    assert_eq!(statuses(&all), ["413"]);
}

#[tokio::test(start_paused = true)]
async fn continue_is_sent_when_the_app_reads() {
    let (told, mut asked) = mpsc::unbounded_channel();
    let server = Server::new(app(move |mut request| {
        let told = told.clone();
        async move {
            told.send(()).unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            let body = request.read().await.unwrap();
            request.text(body).await
        }
    }))
    .await;
    let mut client = server.connect();
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-Continue\r\n\r\n")
        .await;
    asked.recv().await.unwrap();
    assert!(
        timeout(Duration::from_millis(500), client.stream.read_u8())
            .await
            .is_err()
    );
    assert_eq!(client.until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("abc").await;
    client.until("\r\n\r\nabc").await;
}

#[tokio::test(start_paused = true)]
async fn an_unread_body_is_not_taken_for_a_request() {
    let server = Server::new(app(|request| request.text("ok"))).await;
    let inner = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    // Whole in the buffer: skipped.
    let all = server.all(&[&post(inner.len(), inner), LAST].concat()).await;
    assert_eq!(statuses(&all), ["200", "200"]);
    assert!(!server.log().contains("smuggled"), "{}", server.log());
    // Still to come: the connection ends, and what comes is thrown away for a while, so that the reply is not lost.
    let mut client = server.connect();
    client.send(&post(1 << 20, inner)).await;
    let begun = tokio::time::Instant::now();
    assert_eq!(statuses(&client.until("ok").await), ["200"]);
    assert!(
        timeout(Duration::from_secs(1), client.stream.read(&mut [0]))
            .await
            .unwrap()
            .unwrap()
            == 0
    );
    client.send(inner).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(client.stream.write_all(b"x").await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(!server.log().contains("smuggled"), "{}", server.log());
}

#[tokio::test(start_paused = true)]
async fn broken_framing_ends_the_body_for_the_app_and_is_a_400() {
    let (told, mut seen) = mpsc::unbounded_channel();
    let server = Server::new(app(move |mut request| {
        let told = told.clone();
        async move {
            let error = request.read().await.unwrap_err();
            told.send(error).unwrap();
            request.fail(Failure::Body(error))
        }
    }))
    .await;
    let all = server
        .all(&chunked(
            "3\r\nabcd\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        ))
        .await;
    assert_eq!(statuses(&all), ["400"]);
    assert_eq!(seen.recv().await, Some(BodyError::PeerGone));
    assert!(!server.log().contains("smuggled"), "{}", server.log());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_leaves_within_its_body_is_told_to_the_app() {
    let (told, mut seen) = mpsc::unbounded_channel();
    let server = Server::new(app(move |mut request| {
        let told = told.clone();
        async move {
            told.send(request.read().await).unwrap();
            request.fail(Failure::Body(BodyError::PeerGone))
        }
    }))
    .await;
    for head in [post(10, "abc"), chunked("5\r\nab")] {
        let mut client = server.connect();
        client.send(&head).await;
        drop(client);
        assert_eq!(seen.recv().await, Some(Err(BodyError::PeerGone)));
    }
    assert!(server.log().contains("\" 499 0 "), "{}", server.log());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_leaves_ends_the_reply_but_not_the_app() {
    let (told, mut seen) = mpsc::unbounded_channel();
    let server = Server::new(app(move |mut request| {
        let told = told.clone();
        async move {
            request.head(200, &[]);
            while request.chunk(vec![b'x'; 1000], false).await.is_ok() {}
            tokio::time::sleep(Duration::from_secs(1)).await;
            told.send("closed").unwrap();
            request.reply.finish();
            reusable()
        }
    }))
    .await;
    let mut client = server.connect_with(1000);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.stream.read_u8().await.unwrap();
    drop(client);
    assert_eq!(seen.recv().await, Some("closed"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_peer_holds_the_app_back() {
    let (told, mut seen) = mpsc::unbounded_channel();
    let server = Server::new(app(move |mut request| {
        let told = told.clone();
        async move {
            request.head(200, &[]);
            for _ in 0..1000 {
                request.chunk(vec![b'x'; 10_000], false).await.unwrap();
                told.send(10_000).unwrap();
            }
            request.reply.finish();
            reusable()
        }
    }))
    .await;
    let mut client = server.connect_with(1000);
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    let mut sent = 0;
    while let Ok(Some(size)) = timeout(Duration::from_secs(1), seen.recv()).await {
        sent += size;
    }
    assert!(
        (10_000..300_000).contains(&sent),
        "{sent} bytes are held for a peer that takes none"
    );
    let all = client.rest().await;
    assert!(all.ends_with("0\r\n\r\n"));
    let (_, body) = all.split_once("\r\n\r\n").unwrap();
    assert_eq!(body.matches('x').count(), 10_000_000);
}

#[tokio::test(start_paused = true)]
async fn the_body_can_be_read_while_the_reply_is_written() {
    let server = Server::new(app(|mut request| async move {
        request.head(200, &[]);
        while let Some(piece) = poll_fn(|cx| request.body.poll_chunk(cx)).await {
            request.chunk(piece.unwrap(), false).await.unwrap();
        }
        request.reply.finish();
        reusable()
    }))
    .await;
    let mut client = server.connect();
    client.send(&chunked("3\r\nabc\r\n")).await;
    client.until("3\r\nabc\r\n").await;
    client.send("2\r\nde\r\n").await;
    client.until("2\r\nde\r\n").await;
    client.send("0\r\n\r\n").await;
    client.until("0\r\n\r\n").await;
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_is_out_frees_the_connection_from_a_body_the_app_still_holds() {
    let server = Server::with(
        app(|request| async move {
            match request.environ("PATH_INFO").as_str() {
                "/" => {
                    let Request { body, mut reply, .. } = request;
                    reply.head(ReplyHead {
                        status: 200,
                        reason: Bytes::new(),
                        headers: Vec::new(),
                    });
                    reply.chunk(Bytes::from_static(b"first"), true);
                    reply.finish();
                    tokio::time::sleep(Duration::from_secs(3600)).await;
                    drop(body);
                    reusable()
                }
                _ => request.text("second").await,
            }
        }),
        2,
        None,
        Limits::default(),
    )
    .await;
    let begun = tokio::time::Instant::now();
    let all = server.all(&[&post(3, "abc"), LAST].concat()).await;
    assert!(all.contains("first") && all.ends_with("second"), "{all}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn who_reads_a_body_when_the_reply_is_out_is_woken() {
    let (told, mut seen) = mpsc::unbounded_channel();
    let server = Server::new(app(move |request| {
        let told = told.clone();
        async move {
            let Request {
                mut body, mut reply, ..
            } = request;
            reply.head(ReplyHead {
                status: 200,
                reason: Bytes::new(),
                headers: Vec::new(),
            });
            reply.chunk(Bytes::from_static(b"ok"), true);
            reply.finish();
            told.send(poll_fn(|cx| body.poll_chunk(cx)).await).unwrap();
            reusable()
        }
    }))
    .await;
    let begun = tokio::time::Instant::now();
    let mut client = server.connect();
    client.send(&post(10, "")).await;
    assert_eq!(seen.recv().await, Some(Some(Err(BodyError::PeerGone))));
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_never_ends_is_cut_at_reply_size_and_the_app_hears_of_it() {
    let (told, heard) = tokio::sync::oneshot::channel();
    let told = Arc::new(Mutex::new(Some(told)));
    let endless = app(move |mut request| {
        let told = told.lock().unwrap().take();
        async move {
            request.head(200, &[]);
            let mut pieces = 0;
            while request.chunk("x".repeat(100), false).await.is_ok() {
                pieces += 1;
            }
            told.into_iter().for_each(|told| told.send(pieces).unwrap());
            reusable()
        }
    });
    let limits = Limits {
        reply_size: 1000,
        ..Limits::default()
    };
    let server = Server::with(endless, 1, None, limits).await;
    let reply = server.all("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    let (_, body) = reply.split_once("\r\n\r\n").unwrap();
    assert!(body.matches('x').count() <= 1000, "{reply}");
    assert!(
        !reply.ends_with("0\r\n\r\n"),
        "the client must see that it is cut: {reply}"
    );
    // The piece that was too much was still taken, and the next was not.
    assert_eq!(heard.await, Ok(11));
    let log = server.log();
    assert!(
        log.contains("longer than limits.reply-size (1000 bytes)"),
        "{log}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_reply_as_long_as_reply_size_goes_out_and_one_that_is_longer_at_once_is_a_500() {
    let server = Server::with(
        echo(),
        1,
        None,
        Limits {
            reply_size: 7,
            ..Limits::default()
        },
    )
    .await;
    let all = server
        .all("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /ab HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(statuses(&all), ["200", "500"]);
    assert!(all.contains("\r\n\r\nGET /a "), "{all}");
}
