//! Time and memory: the client hears at once, Python knows where it was, the neighbour goes on.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wasgi_engine::{Failure, WhyNot};

use crate::site::*;

/// The client hears at the limit, not after the grace; Python says where it was.
async fn assert_time_limit(code: &str, where_it_was: &str, body: Body, room: usize) {
    let limit = Duration::from_millis(300);
    // Far longer than a busy machine is late, so that it tells an answer at the limit from one after the grace.
    let grace = Duration::from_secs(20);
    let site = site(code, |spec| {
        spec.limits.time = limit;
        spec.limits.grace = grace;
    });
    // The first start imports the app; it is not part of the request.
    site.app.start().await.expect("starts");
    let begun = Instant::now();
    let (report, seen) = site.request(body, room, WAITS).await;
    let (failure, at) = seen.failure.expect("failure");
    assert_eq!(failure, Failure::TimeLimit);
    assert!(at - begun >= limit, "answered before the limit: {:?}", at - begun);
    assert!(
        at - begun < grace / 2,
        "answered {:?} after the request began",
        at - begun
    );
    assert!(!report.reusable);
    let why = report.why_not.expect("why not").to_string();
    assert_eq!(why, "time limit of 300ms reached");
    let log = site.log.text();
    assert!(log.contains(where_it_was) && log.contains("TimeLimit"), "{log}");
    assert!(log.contains("r1: unwound"), "{log}");
}

fn unwinding(statement: &str) -> String {
    format!(
        r#"
import time
def app(environ, start_response):
    start_response("200 OK", [])
    try:
        {statement}
    finally:
        print("unwound")
"#
    )
}

#[tokio::test]
async fn an_endless_loop_meets_the_time_limit() {
    assert_time_limit(&unwinding("while True: pass"), "while True: pass", body(&[]), 9).await;
}

#[tokio::test]
async fn a_sleeper_meets_the_time_limit() {
    assert_time_limit(&unwinding("time.sleep(1e6)"), "time.sleep(1e6)", body(&[]), 9).await;
}

#[tokio::test]
async fn a_wait_for_the_body_meets_the_time_limit() {
    let waits = Body {
        pieces: VecDeque::new(),
        endless: true,
    };
    assert_time_limit(
        &unwinding("environ['wsgi.input'].read()"),
        "environ['wsgi.input'].read()",
        waits,
        9,
    )
    .await;
}

#[tokio::test]
async fn a_wait_for_a_slow_client_meets_the_time_limit() {
    assert_time_limit(
        &unwinding("while True: yield b'x'"),
        "while waiting for the client to take more of the reply",
        body(&[]),
        3,
    )
    .await;
}

#[tokio::test]
async fn who_runs_for_too_long_is_ended_and_who_waits_is_not() {
    let limit = Duration::from_millis(200);
    let code = unwinding(
        "time.sleep(1)
        if environ['PATH_INFO'] == '/runs':
            while True: pass
        return []",
    );
    let site = site(&code, |spec| {
        spec.limits.cpu = Some(limit);
        spec.limits.grace = Duration::from_secs(20);
    });
    let mut instance = site.app.start().await.expect("starts");
    let seen = Arc::<Mutex<Seen>>::default();
    let report = instance.handle(get("/sleeps", &seen)).await;
    assert!(report.reusable && report.cpu < limit, "{report:?}");
    assert!(seen.lock().expect("seen").finished);

    let seen = Arc::<Mutex<Seen>>::default();
    let report = instance.handle(get("/runs", &seen)).await;
    assert_eq!(report.why_not, Some(WhyNot::CpuLimit(limit)));
    assert!(report.cpu >= limit, "{report:?}");
    let failure = seen.lock().expect("seen").failure.clone();
    assert_eq!(failure.expect("failure").0, Failure::CpuLimit);
    let log = site.log.text();
    let told = "r1: wasgi.limit.CpuLimit: the request ran for longer than limits.cpu";
    assert!(log.contains(told), "{log}");
    assert_eq!(log.matches("r1: unwound").count(), 2, "{log}");
}

#[tokio::test]
async fn what_ignores_the_exception_is_stopped_after_the_grace() {
    let code = unwinding("sum(range(10**12))");
    let site = site(&code, time(Duration::from_millis(200)));
    let begun = Instant::now();
    let (report, seen) = site.request(body(&[]), 9, WAITS).await;
    let ended = begun.elapsed();
    assert_eq!(seen.failure.expect("failure").0, Failure::TimeLimit);
    assert!(!report.reusable);
    assert!(ended >= Duration::from_millis(700), "{ended:?}");
    assert!(!site.log.text().contains("unwound"), "{}", site.log.text());
}

#[tokio::test]
async fn a_sleeper_that_swallows_the_exception_is_stopped_after_the_grace() {
    let code = "
import time
def app(environ, start_response):
    while True:
        try:
            time.sleep(1e6)
        except BaseException as error:
            print('swallowed', type(error).__name__)
";
    let site = site(code, time(Duration::from_millis(200)));
    let (report, _) = site.request(body(&[]), 9, WAITS).await;
    assert!(!report.reusable);
    let log = site.log.text();
    assert!(
        log.starts_with("r1: swallowed TimeLimit\nr1: POST /é was stopped "),
        "{log}"
    );
}

#[tokio::test]
async fn an_endless_loop_leaves_its_thread_to_others() {
    let busy = site(
        "def app(e, s):\n    while True: pass\n",
        time(Duration::from_secs(4)),
    );
    let quick = site("def app(e, s):\n    s('200 OK', [])\n    return [b'x']\n", |_| ());
    // Importing is not what is measured; from here on an instance is there in a moment.
    for site in [&busy, &quick] {
        site.app.start().await.expect("starts");
    }
    // One thread for both: the second gets its turn only if the first gives it up.
    let ((_, busy), (at, quick)) = tokio::join!(busy.request(body(&[]), 9, WAITS), async {
        let (_, seen) = quick.request(body(&[]), 9, WAITS).await;
        (Instant::now(), seen)
    });
    assert!(quick.finished);
    let (failure, failed_at) = busy.failure.expect("failure");
    assert_eq!(failure, Failure::TimeLimit);
    assert!(at < failed_at, "the neighbour waited for the endless loop");
}

#[tokio::test]
async fn memory_stops_at_its_limit_and_python_knows() {
    let code = "
def app(environ, start_response):
    hoard = []
    try:
        while True:
            hoard.append(bytes(1 << 20))
    except MemoryError:
        held = len(hoard)
        del hoard
        print('held', held)
        raise
";
    let site = site(code, |spec| spec.limits.memory = 64 << 20);
    let (report, seen) = site.request(body(&[]), 9, WAITS).await;
    assert_eq!(seen.failure.expect("failure").0, Failure::App);
    let why = report.why_not.expect("why not").to_string();
    assert_eq!(why, "memory limit of 64 MiB reached");
    assert!(report.memory <= 64 << 20, "{}", report.memory);
    let log = site.log.text();
    let held: usize = log
        .split("held ")
        .nth(1)
        .and_then(|it| it.lines().next())
        .expect("held")
        .parse()
        .expect("number");
    assert!((20..64).contains(&held), "{held}");
    assert!(log.contains("MemoryError"), "{log}");
}

#[tokio::test]
async fn an_app_that_ends_its_interpreter_ends_only_itself() {
    for code in [0, 3, 200] {
        let site = site(
            &format!("import os\ndef app(e, s):\n    os._exit({code})\n"),
            |_| (),
        );
        let (report, seen) = site.request(body(&[]), 9, WAITS).await;
        assert_eq!(seen.failure.expect("failure").0, Failure::Exited(code));
        let said = format!("the app ended its interpreter with exit code {code}");
        assert_eq!(report.why_not.expect("why not").to_string(), said);
    }
}
