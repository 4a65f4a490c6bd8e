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
