//! Peers that are slow, and the server's own end.

use tokio::time::Instant;

use super::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn limits() -> Limits {
    Limits {
        head_time: Duration::from_secs(10),
        body_time: Duration::from_secs(20),
        idle_time: Duration::from_secs(40),
        write_time: Duration::from_secs(80),
        ..Limits::default()
    }
}

async fn server(app: Closure) -> Server {
    Server::with(app, 1, None, limits()).await
}

fn assert_about(begun: Instant, seconds: u64) {
    let taken = begun.elapsed();
    let expected = Duration::from_secs(seconds);
    assert!(
        taken >= expected && taken < expected + Duration::from_secs(1),
        "{taken:?}, not {expected:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_head_that_drips_in_is_refused_in_time_and_holds_no_worker() {
    let server = server(echo()).await;
    let mut slow = server.connect();
    let begun = Instant::now();
    for byte in b"GET / HTTP" {
        slow.stream.write_all(&[*byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(900)).await;
    }
    // The one worker is free meanwhile.
    let all = server
        .all("GET /other HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    assert!(all.ends_with("GET /other "), "{all}");
    assert_eq!(statuses(&slow.until("\n").await), ["408"]);
    assert_about(begun, 10);
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_request_is_closed_without_a_word() {
    let server = server(echo()).await;
    let begun = Instant::now();
    assert_eq!(server.connect().rest().await, "");
    assert_about(begun, 10);
    assert_eq!(server.log(), "");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_idle_time() {
    let server = server(echo()).await;
    let mut client = server.connect();
    for _ in 0..3 {
        client.send(GET).await;
        client.until("GET / ").await;
        tokio::time::sleep(Duration::from_secs(39)).await;
    }
    client.send(GET).await;
    client.until("GET / ").await;
    let begun = Instant::now();
    assert_eq!(client.rest().await, "");
    assert_about(begun, 40);
}

#[tokio::test(start_paused = true)]
async fn the_next_head_on_a_connection_has_head_time_too() {
    let server = server(echo()).await;
    let mut client = server.connect();
    client.send(GET).await;
    client.until("GET / ").await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    client.send("GET").await;
    let begun = Instant::now();
    assert_eq!(statuses(&client.until("\n").await), ["408"]);
    assert_about(begun, 10);
}

#[tokio::test(start_paused = true)]
async fn a_long_request_is_not_an_idle_connection() {
    let server = server(app(|request| async move {
        tokio::time::sleep(Duration::from_secs(1000)).await;
        request.text("done").await
    }))
    .await;
    let mut client = server.connect();
    // Also when the start of the next one is there already.
    client.send(&format!("{GET}GET")).await;
    client.until("done").await;
    let begun = Instant::now();
    assert_eq!(statuses(&client.until("\n").await), ["408"]);
    assert_about(begun, 10);
}

#[tokio::test(start_paused = true)]
async fn a_body_may_be_slow_but_not_stop() {
    let server = server(echo()).await;
    let mut client = server.connect();
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
        .await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(19)).await;
        client.send("x").await;
    }
    let begun = Instant::now();
    assert_eq!(statuses(&client.until("\n").await), ["408"]);
    assert_about(begun, 20);
}

#[tokio::test(start_paused = true)]
async fn the_clock_for_a_body_runs_while_the_app_reads() {
    let server = server(app(|mut request| async move {
        tokio::time::sleep(Duration::from_secs(500)).await;
        let body = request.read().await.unwrap();
        request.text(body).await
    }))
    .await;
    let mut client = server.connect();
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
        .await;
    tokio::time::sleep(Duration::from_secs(510)).await;
    client.send("abc").await;
    client.until("\r\n\r\nabc").await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_is_given_up() {
    let (told, seen) = tokio::sync::oneshot::channel();
    let told = Mutex::new(Some(told));
    let server = server(app(move |mut request| {
        let told = told.lock().unwrap().take();
        async move {
            request.head(200, &[]);
            while request.chunk(vec![b'x'; 1000], false).await.is_ok() {}
            told.unwrap().send(Instant::now()).unwrap();
            request.reply.finish();
            reusable()
        }
    }))
    .await;
    let mut client = server.connect_with(1000);
    client.send(GET).await;
    client.stream.read_u8().await.unwrap();
    // A little now and then is enough.
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(79)).await;
        client.stream.read_exact(&mut [0; 10]).await.unwrap();
    }
    let begun = Instant::now();
    seen.await.unwrap();
    assert_about(begun, 80);
}

#[tokio::test(start_paused = true)]
async fn a_stop_finishes_what_runs_and_closes_what_is_idle() {
    let server = server(app(|mut request| async move {
        request.head(200, &[]);
        request.chunk("begun ", false).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        request.chunk("ended", false).await.unwrap();
        request.reply.finish();
        reusable()
    }))
    .await;
    let (mut running, mut idle, mut partial) = (server.connect(), server.connect(), server.connect());
    partial.send("GET / HT").await;
    running.send(&[GET, GET].concat()).await;
    running.until("begun \r\n").await;
    server.stop.send(Some(Ending::Stop)).unwrap();
    let begun = Instant::now();
    assert_eq!(idle.rest().await, "");
    assert_eq!(partial.rest().await, "");
    assert!(begun.elapsed() < Duration::from_secs(3));
    let rest = running.rest().await;
    assert!(rest.contains("ended") && rest.ends_with("0\r\n\r\n"), "{rest}");
    server.stop.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_reply_goes_out_no_faster_than_reply_rate_and_holds_no_worker_for_it() {
    let limits = Limits {
        reply_rate: 100,
        ..limits()
    };
    let app = app(|mut request| async move {
        if request.environ("PATH_INFO") == "/pieces" {
            request.head(200, &[]);
            for _ in 0..100 {
                request.chunk("0123456789", false).await.unwrap();
            }
            request.reply.finish();
            return reusable();
        }
        let size = if request.environ("PATH_INFO") == "/whole" {
            1000
        } else {
            20
        };
        request.text("x".repeat(size)).await
    });
    let server = Server::with(app, 1, None, limits).await;
    let close = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let begun = Instant::now();
    let whole = server.all(&close("/whole")).await;
    assert!(whole.ends_with(&"x".repeat(1000)), "{whole}");
    assert!(whole.contains("content-length: 1000\r\n"), "{whole}");
    // The first piece does not wait.
    assert_about(begun, 9);

    let mut slow = server.connect();
    slow.stream.write_all(close("/whole").as_bytes()).await.unwrap();
    slow.until("x").await;
    let begun = Instant::now();
    assert!(server.all(&close("/short")).await.ends_with(&"x".repeat(20)));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    drop(slow);

    let begun = Instant::now();
    let pieces = server.all(&close("/pieces")).await;
    assert_eq!(pieces.matches("0123456789").count(), 100, "{pieces}");
    // Its end comes when another piece would.
    assert_about(begun, 10);
}
