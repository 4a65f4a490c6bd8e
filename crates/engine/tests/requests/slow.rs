//! Where a request is, told by the host from the guest's memory: of one that takes long, and of one that was stopped.

use std::collections::VecDeque;
use std::time::Duration;

use wasgi_engine::Failure;

use crate::site::*;

/// An app that takes long in `statement`, in line 7 of `Report.build`.
fn app(statement: &str) -> String {
    format!(
        r#"
import time, os
class Report:
    def build(self, environ):
        take = environ["wsgi.input"].read
        end = time.monotonic() + 0.5
        {statement}
        yield b"done"

def app(environ, start_response):
    start_response("200 OK", [])
    yield from Report().build(environ)
"#
    )
}

/// The log of a request that is slow after 200 ms, and goes on.
async fn slow_log(statement: &str, body: Body, room: usize) -> String {
    let site = site(&app(statement), |spec| {
        spec.limits.slow = Some(Duration::from_millis(200));
        spec.limits.time = Duration::from_secs(5);
    });
    site.app.start().await.expect("starts");
    site.request(body, room, WAITS).await;
    site.log.text()
}

const STACK: &str = r#"
r1:   File "/app/app.py", line 12, in app
r1:   File "/app/app.py", line 7, in Report.build"#;

#[tokio::test]
async fn a_slow_request_tells_its_python_stack_once_and_goes_on() {
    for statement in [
        "while time.monotonic() < end: pass",
        "all(map(end.__gt__, iter(time.monotonic, None)))",
    ] {
        let log = slow_log(statement, body(&[]), 9).await;
        let head = "r1: POST /é has taken 200ms and is running; memory: ";
        assert!(log.starts_with(head) && log.ends_with(STACK), "{log}");
        assert_eq!(log.lines().count(), 3, "{log}");
    }
}

#[tokio::test]
async fn a_slow_request_that_waits_in_the_host_tells_for_what() {
    let log = slow_log("time.sleep(0.5)", body(&[]), 9).await;
    assert!(
        log.contains("has taken 200ms and is asleep; ") && log.ends_with(STACK),
        "{log}"
    );

    // It has its reply, or its exception, long after the log was told.
    let waits = Body {
        pieces: VecDeque::new(),
        endless: true,
    };
    let log = slow_log("take()", waits, 9).await;
    let waiting = "and waits for more of the request's body; ";
    assert!(log.contains(waiting) && log.contains(STACK), "{log}");
    assert_eq!(log.matches("has taken").count(), 1, "{log}");

    // A generator that has yielded is not running.
    let log = slow_log("while True: yield b'x'", body(&[]), 3).await;
    let waiting = "and waits for the client to take more of the reply; ";
    assert!(
        log.contains(waiting) && log.contains("; no Python code is running"),
        "{log}"
    );
}

#[tokio::test]
async fn a_quick_request_tells_nothing() {
    assert_eq!(slow_log("pass", body(&[]), 9).await, "");
}

#[tokio::test]
async fn who_is_stopped_after_the_grace_leaves_its_stack() {
    let site = site(&app("sum(range(10**12))"), time(Duration::from_millis(200)));
    site.request(body(&[]), 9, WAITS).await;
    let log = site.log.text();
    assert!(
        log.contains("r1: POST /é was stopped 500ms after its time limit; memory: "),
        "{log}"
    );
    assert!(log.ends_with(STACK), "{log}");
}

#[tokio::test]
async fn who_crashes_leaves_its_stack() {
    let site = site(&app("os.abort()"), |_| ());
    let (_, seen) = site.request(body(&[]), 9, WAITS).await;
    assert!(matches!(seen.failure, Some((Failure::Crashed(_), _))));
    let log = site.log.text();
    assert!(
        log.contains("r1: POST /é crashed the instance: abort; memory: "),
        "{log}"
    );
    assert!(log.ends_with(STACK), "{log}");
}

#[tokio::test]
async fn a_deep_stack_is_told_from_its_inner_end_whatever_its_names() {
    let code = r#"
import time
def down(n):
    return time.sleep(0.5) if n == 0 else down(n - 1)

scope = {}
exec(compile("def odd(f):\n    f(20)", "\ud800\N{SNAKE}" + "x" * 300, "exec"), scope)

def app(environ, start_response):
    start_response("200 OK", [])
    scope["odd"](down if environ["PATH_INFO"] != "/deep" else lambda _: down(100))
    return [b"done"]
"#;
    let site = site(code, |spec| spec.limits.slow = Some(Duration::from_millis(200)));
    let mut instance = site.app.start().await.expect("starts");
    ask(&mut instance, "/").await;
    let log = site.log.text();
    assert_eq!(log.matches("in down").count(), 21, "{log}");
    let odd = format!("File \"\u{fffd}\u{1f40d}{}\", line 2, in odd", "x".repeat(198));
    assert!(log.contains(&odd), "{log}");
    ask(&mut instance, "/deep").await;
    assert_eq!(site.log.text().matches("in down").count(), 21 + 50);
}

#[tokio::test]
async fn who_is_refused_memory_leaves_the_stack_of_that_moment() {
    let refused = "\n            try: bytearray(1 << 30)\n            except MemoryError: pass";
    let site = site(&app(&format!("if True:{refused}")), |spec| {
        spec.limits.memory = 128 << 20
    });
    let (report, seen) = site.request(body(&[]), 9, WAITS).await;
    assert!(seen.finished && !report.reusable, "{report:?}");
    let log = site.log.text();
    assert!(
        log.contains("r1: POST /é was refused more memory than 128 MiB; memory: "),
        "{log}"
    );
    assert!(
        log.contains("line 12, in app") || log.contains("in Report.build"),
        "{log}"
    );
}

#[tokio::test]
async fn a_failure_that_is_no_news_is_not_told_again() {
    let site = site(&app("{}[1]"), |_| ());
    site.request(body(&[]), 9, WAITS).await;
    let told = site.log.text();
    assert!(told.contains("KeyError: 1"), "{told}");
    site.log.forget_news();
    site.request(body(&[]), 9, WAITS).await;
    assert_eq!(site.log.text(), told);
    let names = site.log.failures();
    assert_eq!(names, ["KeyError at /app/app.py:7 in Report.build"; 2]);

    let site = crate::site::site(&app("os.abort()"), |_| ());
    site.log.forget_news();
    site.request(body(&[]), 9, WAITS).await;
    assert!(!site.log.text().contains("Python stack"), "{}", site.log.text());
    let name = "a request crashed the instance: abort at /app/app.py:7 in Report.build";
    assert_eq!(site.log.failures(), [name]);
}
