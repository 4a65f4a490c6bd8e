//! Quotas of folders: what goes beyond fails in Python, what goes away makes room, whoever writes.

use std::path::Path;
use std::sync::Arc;

use wasgi_engine::{AppSpec, Isolation, Mount, Quota};

use crate::site::*;

/// Runs the path's Python, and answers with the name of the errno that it met, or with what it left in `out`.
const RUNS: &str = r#"
import errno, os
kept = []
def app(environ, start_response):
    start_response("200 OK", [])
    names = {"os": os, "kept": kept, "out": "fine"}
    try:
        exec(environ["PATH_INFO"][1:], names)
    except OSError as error:
        names["out"] = errno.errorcode[error.errno]
    return [str(names["out"]).encode()]
"#;

fn quota(bytes: u64, files: u64) -> Quota {
    Quota {
        bytes: Some(bytes),
        files: Some(files),
    }
}

/// An app that writes to `data`.
fn writer(data: &Path, quota: Quota) -> Site {
    site(RUNS, |spec: &mut AppSpec| {
        spec.isolation = Isolation::Worker;
        spec.mounts.push(Mount {
            host: data.to_owned(),
            guest: "/data".into(),
            write: true,
            quota,
        });
    })
}

fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("folder");
    entries
        .map(|entry| entry.expect("entry").metadata().expect("metadata").len())
        .sum()
}

/// What each piece of Python answers, one after the other in one instance.
async fn expect(site: &Site, steps: &[(&str, &str)]) {
    let mut instance = site.app.start().await.expect("starts");
    for (code, expected) in steps {
        let said = ask(&mut instance, &format!("/{code}")).await;
        assert_eq!(said, *expected, "{code}\n{}", site.log.text());
    }
}

const WRITE: &str = "
def put(name, size, mode='wb', at=0):
    with open('/data/' + name, mode, buffering=0) as file:
        file.seek(at)
        return file.write(b'x' * size)
";

fn with_put(code: &str) -> String {
    format!("{WRITE}{code}")
}

#[tokio::test]
async fn bytes_end_at_the_quota_and_come_back() {
    let data = tempfile::tempdir().expect("folder");
    std::fs::write(data.path().join("before"), [0; 100]).expect("write");
    let site = writer(data.path(), quota(1000, 100));
    let steps = [
        ("put('a', 900)", "fine"),
        ("put('a', 900, 'r+b')", "fine"),
        ("put('b', 1)", "ENOSPC"),
        ("put('a', 1, 'ab')", "ENOSPC"),
        ("put('a', 2, 'r+b', 899)", "ENOSPC"),
        ("put('a', 1, 'r+b', 899)", "fine"),
        ("os.truncate('/data/a', 901)", "ENOSPC"),
        ("os.truncate('/data/a', 400)", "fine"),
        ("put('b', 500)", "fine"),
        ("put('b', 501)", "ENOSPC"),
        ("put('b', 0, 'wb'); os.truncate('/data/a', 900)", "fine"),
        ("os.remove('/data/before'); put('b', 100)", "fine"),
        ("put('c', 1)", "ENOSPC"),
        ("os.replace('/data/b', '/data/a'); put('c', 900)", "fine"),
        ("put('c', 1, 'r+b', 2000)", "ENOSPC"),
        (
            "fd = os.open('/data/c', os.O_RDWR); os.pwrite(fd, b'x', 900)",
            "ENOSPC",
        ),
    ];
    let steps = steps.map(|(code, expected)| (with_put(code), expected));
    expect(
        &site,
        &steps.each_ref().map(|(code, expected)| (&**code, *expected)),
    )
    .await;
    assert_eq!(size(data.path()), 1000);
}

#[tokio::test]
async fn names_of_every_kind_end_at_the_quota_and_come_back() {
    let data = tempfile::tempdir().expect("folder");
    let site = writer(data.path(), quota(1000, 3));
    expect(
        &site,
        &[
            ("open('/data/a', 'w').close()", "fine"),
            ("open('/data/a', 'w').close()", "fine"),
            ("os.mkdir('/data/folder')", "fine"),
            ("os.symlink('a', '/data/folder/link')", "fine"),
            ("open('/data/b', 'x')", "ENOSPC"),
            ("open('/data/folder/missing/b', 'w')", "ENOSPC"),
            ("os.mkdir('/data/b')", "ENOSPC"),
            ("os.symlink('a', '/data/b')", "ENOSPC"),
            ("os.link('/data/a', '/data/b')", "ENOSPC"),
            ("os.rename('/data/a', '/data/b')", "fine"),
            (
                "os.remove('/data/folder/link'); os.link('/data/b', '/data/c')",
                "fine",
            ),
            ("os.mkdir('/data/d')", "ENOSPC"),
            ("os.rmdir('/data/folder'); os.mkdir('/data/d')", "fine"),
            ("os.mkdir('/data/d')", "ENOSPC"),
            ("os.remove('/data/c'); os.mkdir('/data/d')", "EEXIST"),
            ("open('/data/c', 'w').close(); os.mkdir('/data/e')", "ENOSPC"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_deleted_file_that_is_open_still_takes_room() {
    let data = tempfile::tempdir().expect("folder");
    let site = writer(data.path(), quota(1000, 10));
    let steps = [
        (
            "f = open('/data/a', 'wb', 0); kept.append(f); f.write(b'x' * 600); os.remove('/data/a')",
            "fine",
        ),
        ("put('b', 600)", "ENOSPC"),
        ("kept[0].write(b'x' * 400); put('b', 1)", "ENOSPC"),
        ("kept[0].truncate(500); put('b', 500)", "fine"),
        ("kept.pop().close(); put('b', 1000)", "fine"),
        (
            "os.link('/data/b', '/data/c'); os.remove('/data/b'); put('d', 1)",
            "ENOSPC",
        ),
        (
            "kept.append(open('/data/c')); os.replace('/data/d', '/data/c'); put('d', 1)",
            "ENOSPC",
        ),
    ];
    let steps = steps.map(|(code, expected)| (with_put(code), expected));
    expect(
        &site,
        &steps.each_ref().map(|(code, expected)| (&**code, *expected)),
    )
    .await;
    // The instance is gone, and with it what it had open.
    expect(&site, &[(&with_put("put('d', 1000)"), "fine")]).await;
}

#[tokio::test]
async fn instances_that_write_at_once_share_a_quota() {
    let data = tempfile::tempdir().expect("folder");
    let site = Arc::new(writer(data.path(), quota(100_000, 1000)));
    site.app.start().await.expect("starts");
    let mut writers = tokio::task::JoinSet::new();
    for name in ["a", "b", "c", "d"] {
        let site = site.clone();
        // Each to a file of its own, and to one of all, which each of them cuts short now and then.
        let code = format!(
            "
import errno
out = 0
for round in range(200):
    try:
        with open('/data/{name}', 'ab', 0) as file: file.write(b'x' * 500)
        with open('/data/all', 'ab', 0) as file: file.write(b'x' * 500)
        if round % 10 == 0: os.truncate('/data/all', 50)
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
        out += 1
"
        );
        writers.spawn(async move {
            let mut instance = site.app.start().await.expect("starts");
            ask(&mut instance, &format!("/{code}"))
                .await
                .parse::<u32>()
                .expect("a count")
        });
    }
    let refused: u32 = writers.join_all().await.into_iter().sum();
    let size = size(data.path());
    assert!(
        refused > 0 && size <= 100_000 && size > 98_000,
        "{refused} {size}"
    );
    // What is counted is what there is.
    let rest = 100_000 - size;
    let code = |bytes| format!("open('/data/rest', 'wb', 0).write(b'x' * {bytes})");
    expect(&site, &[(&code(rest + 1), "ENOSPC"), (&code(rest), "fine")]).await;
}

#[tokio::test]
async fn temporary_files_of_all_instances_are_bounded_together() {
    let site = site(RUNS, |spec| {
        spec.isolation = Isolation::Request;
        spec.limits.temp = quota(1000, 3);
    });
    let (mut one, mut two) = (
        site.app.start().await.expect("starts"),
        site.app.start().await.expect("starts"),
    );
    let write = |bytes| format!("/open('/tmp/a', 'wb', 0).write(b'x' * {bytes})");
    assert_eq!(ask(&mut one, &write(600)).await, "fine");
    assert_eq!(ask(&mut two, &write(600)).await, "ENOSPC");
    assert_eq!(ask(&mut two, "/os.mkdir('/tmp/b')").await, "fine");
    assert_eq!(ask(&mut two, "/os.mkdir('/tmp/c')").await, "ENOSPC");
    one.rewind(false).await.expect("rewinds");
    assert_eq!(ask(&mut two, &write(1000)).await, "fine");
    drop(two);
    assert_eq!(ask(&mut one, &write(1000)).await, "fine");
}

#[tokio::test]
async fn a_quota_makes_a_device_of_its_mount() {
    let data = tempfile::tempdir().expect("folder");
    let site = writer(data.path(), quota(1000, 10));
    expect(
        &site,
        &[
            ("open('/tmp/a', 'w').write('x')", "fine"),
            ("os.rename('/tmp/a', '/data/a')", "EXDEV"),
            ("os.link('/tmp/a', '/data/a')", "EXDEV"),
            ("import shutil; shutil.move('/tmp/a', '/data/a')", "fine"),
        ],
    )
    .await;
}

#[tokio::test]
async fn open_files_end_at_their_limit_and_nothing_breaks() {
    let site = site(RUNS, |spec| {
        spec.isolation = Isolation::Worker;
        spec.limits.open_files = 20;
    });
    expect(
        &site,
        &[
            ("kept.extend(open('/app/app.py') for _ in range(20))", "fine"),
            ("kept.append(open('/app/app.py'))", "EMFILE"),
            ("kept.pop().close(); kept.append(open('/app/app.py'))", "fine"),
            ("os.listdir('/app')", "EMFILE"),
            ("kept.clear(); os.listdir('/app')", "fine"),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_was_taken_for_an_open_file_is_given_back_whatever_others_did_to_it() {
    let data = tempfile::tempdir().expect("folder");
    let site = writer(data.path(), quota(100, 10));
    let mut instance = site.app.start().await.expect("starts");
    let written = "kept.append(open('/data/a', 'wb', 0)); out = kept[0].write(bytes(60))";
    assert_eq!(ask(&mut instance, &format!("/{written}")).await, "60");
    // As an operator does to a log.
    let log = std::fs::File::options().write(true).open(data.path().join("a"));
    log.and_then(|log| log.set_len(0)).expect("truncates");
    let more = "out = kept[0].write(bytes(41))";
    assert_eq!(ask(&mut instance, &format!("/{more}")).await, "ENOSPC");
    let gone = "os.remove('/data/a'); kept.pop().close(); out = open('/data/b', 'wb', 0).write(bytes(100))";
    assert_eq!(ask(&mut instance, &format!("/{gone}")).await, "100");
}
