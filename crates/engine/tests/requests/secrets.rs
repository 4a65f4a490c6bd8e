//! Secret variables: there for requests and hooks, out of reach of whatever could come into an image.

use wasgi_engine::{AppSpec, Isolation, Secret, StartError};

use crate::site::*;

const VALUE: &str = "hunter2-äöü";

fn with_secret(isolation: Isolation) -> impl FnOnce(&mut AppSpec) {
    move |spec| {
        spec.isolation = isolation;
        spec.env = vec![("PLAIN".into(), "plain".into())];
        spec.secrets = vec![
            Secret {
                name: "KEY".into(),
                value: VALUE.into(),
            },
            Secret {
                name: "EMPTY".into(),
                value: String::new(),
            },
        ];
    }
}

/// Reads everywhere that it may; `HELD` stands for what keeps it from being copied.
const READS: &str = r#"
import os
import wsgiref.handlers  # goes through all of os.environ
import wasgi
from os import environ as other_name
HELD
plain = os.environ["PLAIN"], sorted(os.environ), os.getenv("MISSING", "default")
hooked = []

@wasgi.after_restore
def hook():
    hooked.append(os.environ["KEY"])

def app(environ, start_response):
    found = (hooked, os.getenv("KEY"), other_name.get("KEY"), os.environb[b"KEY"].decode(), os.environ["EMPTY"],
             plain, sorted(os.environ), type(os.environ).__name__)
    os.environ["KEY"] = "changed"
    start_response("200 OK", [])
    return [repr(found).encode()]
"#;

fn expected(key: &str) -> String {
    let key = format!("'{key}'");
    format!(
        "(['{VALUE}'], {key}, {key}, {key}, '', ('plain', ['PLAIN'], 'default'), ['EMPTY', 'KEY', 'PLAIN'], '_Environ')"
    )
}

#[tokio::test]
async fn requests_and_hooks_have_them() {
    for isolation in [Isolation::Worker, Isolation::Request] {
        for cached in [false, true, true] {
            let site = site(&READS.replace("HELD", ""), |spec| {
                with_secret(isolation)(spec);
                spec.snapshot_cache = cached;
            });
            let stored = match cached {
                true => Some(site.app.build_image().await.expect("builds")),
                false => None,
            };
            let mut instance = site.app.start().await.expect("starts");
            assert_eq!(ask(&mut instance, "/").await, expected(VALUE));
            assert_eq!(
                ask(&mut instance, "/").await,
                expected("changed"),
                "memory lives on"
            );
            for _ in 0..2 {
                instance.rewind(true).await.expect("rewinds");
                assert_eq!(ask(&mut instance, "/").await, expected(VALUE));
            }
            if let Some(image) = stored {
                let bytes = std::fs::read(&image.path).expect("image");
                std::fs::remove_file(&image.path).expect("rm");
                let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
                assert!(holds("PLAIN") && !holds("hunter2"));
            }
        }
    }
}

#[tokio::test]
async fn an_app_that_cannot_be_copied_has_them_too() {
    let site = site(
        &READS.replace("HELD", "held = open('/tmp/held', 'w')"),
        with_secret(Isolation::Worker),
    );
    for _ in 0..2 {
        let mut instance = site.app.start().await.expect("starts");
        assert_eq!(ask(&mut instance, "/").await, expected(VALUE));
    }
    assert!(
        site.log.text().contains("open after import"),
        "{}",
        site.log.text()
    );
}

#[tokio::test]
async fn reading_one_at_the_import_fails_whatever_the_default() {
    for read in [
        "os.environ['KEY']",
        "os.environ.get('KEY', 'default')",
        "os.getenv('KEY', 'default')",
        "os.environb.get(b'KEY', b'default')",
        "os.environ.setdefault('KEY', 'default')",
        "os.environ.pop('KEY', 'default')",
        "'KEY' in os.environ",
    ] {
        for held in ["", "held = open('/tmp/held', 'w')"] {
            let code =
                format!("import os\n{held}\ntry:\n    {read}\nexcept KeyError:\n    pass\napp = print\n");
            let site = site(&code, with_secret(Isolation::Request));
            match site.app.start().await {
                Err(StartError::Import(line)) => assert!(
                    line.starts_with("wasgi.secret.SecretWithheld: KEY is secret: ")
                        && line.ends_with("in a function given to wasgi.after_restore"),
                    "{read}: {line}"
                ),
                other => panic!("{read}: {:?}", other.map(|_| "started")),
            }
        }
    }
}

#[tokio::test]
async fn reading_one_in_the_warm_up_is_told_and_not_kept() {
    let code = r#"
import functools, os

@functools.cache
def key():
    return os.environ.get("KEY", "default")

def app(environ, start_response):
    found = key()
    start_response("200 OK", [])
    return [found.encode()]
"#;
    let site = site(code, |spec| {
        with_secret(Isolation::Request)(spec);
        spec.warmup = vec!["/".into()];
    });
    let mut instance = site.app.start().await.expect("starts");
    assert_eq!(ask(&mut instance, "/").await, VALUE);
    let log = site.log.text();
    assert!(log.contains("SecretWithheld: KEY is secret: "), "{log}");
    assert!(log.contains("warmup /: "), "{log}");
}

#[tokio::test]
async fn one_that_the_guest_cannot_be_given_is_refused_before_the_import() {
    let site = site("raise SystemExit", |spec| {
        spec.secrets = vec![Secret {
            name: "KEY".into(),
            value: "x".repeat(65_536),
        }];
    });
    let error = site.app.start().await.err().expect("refused").to_string();
    assert_eq!(error, "a secret is longer than 65535 bytes");
}

#[test]
fn debug_output_has_their_names_alone() {
    let secret = Secret {
        name: "KEY".into(),
        value: VALUE.into(),
    };
    assert_eq!(format!("{secret:?}"), "Secret(KEY)");
}
