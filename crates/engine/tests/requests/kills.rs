//! Requests that are ended from outside, wherever they are.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wasgi_engine::{At, Failure, Request, Track, WhyNot};

use crate::site::*;

const APP: &str = r#"
import time, wasgi

def app(environ, start_response):
    start_response("200 OK", [])
    try:
        yield from DOES[environ["PATH_INFO"]](environ)
    finally:
        print("cleaned up")

def loop(environ):
    while True: pass

def sleep(environ):
    time.sleep(1e6)

def body(environ):
    environ["wsgi.input"].read()

def send(environ):
    while True: yield b"x"

def stubborn(environ):
    while True:
        try:
            while True: pass
        except wasgi.Killed:
            pass

DOES = {"/loop": loop, "/sleep": sleep, "/body": body, "/send": send, "/stubborn": stubborn}
"#;

async fn until(what: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !what() {
        assert!(Instant::now() < end, "in time");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A request that is ended once it is there; what was told of it before.
async fn killed(site: &Site, path: &str, at: At) -> (wasgi_engine::Report, Seen, Arc<Track>) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let client = Client {
        seen: seen.clone(),
        room: 3,
        then: WAITS,
        waker: None,
    };
    let waits = Body {
        pieces: VecDeque::new(),
        endless: true,
    };
    let environ = environ(&[
        ("REQUEST_METHOD", "POST"),
        ("PATH_INFO", path),
        ("REMOTE_ADDR", "10.0.0.7"),
    ]);
    let request = Request::new(environ, "r1".into(), Box::new(waits), Box::new(client));
    let track = Arc::clone(&request.track);
    assert_eq!((track.at(), track.memory()), (At::Waits, 0));
    let mut instance = site.app.start().await.expect("starts");
    let handled = tokio::spawn(async move { instance.handle(request).await });
    until(|| track.at() == at && track.memory() > 0).await;
    track.kill();
    let report = handled.await.expect("does not panic");
    let seen = std::mem::take(&mut *seen.lock().expect("seen"));
    (report, seen, track)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_ended_wherever_it_is_and_python_is_told_who_did_it() {
    let site = site(APP, time(Duration::from_secs(60)));
    for (path, at) in [
        ("/loop", At::Runs),
        ("/sleep", At::Sleeps),
        ("/body", At::ReadsBody),
        ("/send", At::SendsReply),
    ] {
        let (report, seen, track) = killed(&site, path, at).await;
        assert_eq!(report.why_not, Some(WhyNot::Killed), "{path}");
        assert!(matches!(seen.failure, Some((Failure::Killed, _))), "{path}");
        assert_eq!(
            (track.at(), track.peer(), track.target()),
            (At::Over, "10.0.0.7", path)
        );
        assert_eq!((track.cpu(), track.memory()), (report.cpu, report.memory));
        let log = site.log.text();
        assert!(
            log.contains(&format!("in {}", &path[1..])) || path == "/send",
            "{log}"
        );
    }
    let log = site.log.text();
    assert_eq!(log.matches("r1: cleaned up").count(), 4, "{log}");
    // A generator that has yielded gets no exception: it is closed, as when its client is gone.
    let told = "r1: wasgi.limit.Killed: the operator has ended the request";
    assert!(log.matches(told).count() >= 3, "{log}");
    assert!(!log.contains("TimeLimit"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_on_is_stopped_after_the_grace() {
    let site = site(APP, time(Duration::from_secs(60)));
    let start = Instant::now();
    let (report, seen, _) = killed(&site, "/stubborn", At::Runs).await;
    assert!(start.elapsed() < Duration::from_secs(30));
    assert_eq!(report.why_not, Some(WhyNot::Killed));
    assert!(matches!(seen.failure, Some((Failure::Killed, _))));
    let log = site.log.text();
    let stopped = "r1: POST /stubborn was stopped 500ms after the operator had ended it; memory: ";
    assert!(log.contains(stopped) && log.contains("in stubborn"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn others_go_on() {
    let site = site(APP, time(Duration::from_millis(1_500)));
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut instance = site.app.start().await.expect("starts");
    let neighbour = get("/loop", &seen);
    let neighbour = tokio::spawn(async move { instance.handle(neighbour).await });
    killed(&site, "/sleep", At::Sleeps).await;
    let report = neighbour.await.expect("does not panic");
    assert!(matches!(report.why_not, Some(WhyNot::TimeLimit(_))), "{report:?}");
}
