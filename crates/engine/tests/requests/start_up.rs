//! Starts that fail.

use std::time::Duration;

use wasgi_engine::{AppSpec, StartError};

use crate::site::*;

#[tokio::test]
async fn a_start_that_fails_says_why() {
    let refused = |code: &'static str, change: fn(&mut AppSpec)| async move {
        let site = site(code, change);
        let error = site.app.start().await.err().expect("refused");
        (error, site.log.text())
    };
    let (error, log) = refused("import no_such_module", |_| ()).await;
    assert_eq!(
        error.to_string(),
        "the app cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'"
    );
    assert!(
        log.contains("File \"/app/app.py\", line 1") && !log.contains("wasgi/start.py"),
        "{log}"
    );

    let (error, _) = refused("application = 1", |_| ()).await;
    assert!(
        error
            .to_string()
            .contains("app has no 'app'; did you mean application?"),
        "{error}"
    );
    let (error, _) = refused("app = 1", |_| ()).await;
    assert!(
        error
            .to_string()
            .contains("'app' of app is a int, not a WSGI callable"),
        "{error}"
    );
    let (error, _) = refused("import sys; sys.exit(4)", |_| ()).await;
    assert!(
        matches!(error, StartError::Import(ref line) if line == "SystemExit: 4"),
        "{error}"
    );
    let (error, _) = refused("import os; os._exit(4)", |_| ()).await;
    assert!(matches!(error, StartError::Exited(4)), "{error}");
    let (error, log) = refused("while True: pass", |spec| {
        // Long enough for Python itself on a busy machine, so that it is the app that is struck.
        spec.limits.start = Duration::from_secs(4)
    })
    .await;
    assert!(matches!(error, StartError::TimeLimit(_)), "{error}");
    assert!(log.contains("while True: pass"), "{log}");
    let (error, _) = refused("x = bytes(1 << 28)", |_| ()).await;
    assert!(matches!(error, StartError::Memory { .. }), "{error}");
    let (error, _) = refused("", |spec| spec.limits.memory = 1 << 20).await;
    assert!(error.to_string().contains("not even Python fits"), "{error}");
}

/// Runs longer than a request may, in each place of a start after the import.
const SLOW: &str = r#"
import gc, time, wasgi

class Slow:
    def __del__(self):
        time.sleep(0.8)
        print("collected")

# Garbage that the seal collects.
gc.disable()
slow = Slow()
slow.itself = slow
del slow

@wasgi.after_restore
def hook():
    time.sleep(0.8)
    print("restored")

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"ok"]
"#;

#[tokio::test]
async fn what_makes_an_instance_ready_has_the_limit_of_the_start() {
    let site = site(SLOW, |spec| {
        spec.warmup = vec!["/".into()];
        spec.limits.time = Duration::from_millis(500);
        spec.limits.grace = Duration::ZERO;
    });
    let mut instance = site.app.start().await.expect("starts");
    assert_eq!(site.log.text(), "-: collected\n-: restored");
    assert_eq!(ask(&mut instance, "/").await, "ok");
    instance.rewind(true).await.expect("rewinds");
    assert_eq!(ask(&mut instance, "/").await, "ok");
    assert_eq!(site.log.text().matches("restored").count(), 2);
}
