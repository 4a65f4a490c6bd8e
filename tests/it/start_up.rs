//! Starting: apps that cannot be served are refused with the reason, and CPython is compiled once.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::server::{Run, Server, app_folder, bare_wasgi, config, config_with_entry, folder, run, wasgi};

const TIME: Duration = Duration::from_secs(90);

/// The folder `packages` of a test's app, as a line of its app.toml.
fn python_path(app: &str) -> String {
    format!("python-path = [{:?}]", app_folder(app).join("packages"))
}

/// Both commands that start an app must refuse it: not 0, nothing listening, the reason on stderr.
#[track_caller]
fn expect_refused(file: &str, more: &str, reasons: &[&str]) -> Run {
    let entry = format!("wsgi-file = {file:?}");
    let toml = config_with_entry("refused", &entry, more);
    let dir = folder(&toml);
    let mut last = None;
    for command in ["check", "serve"] {
        let run = run(wasgi().arg(command).arg(dir.path().join("app.toml")), TIME);
        assert_ne!(run.code(), 0, "{command} {file}");
        assert_ne!(run.code(), 101, "a panic of {command} {file}: {}", run.stderr);
        assert!(
            !run.stderr.contains("listening on"),
            "{command} {file}: {}",
            run.stderr
        );
        for reason in reasons {
            assert!(
                run.stderr.contains(reason),
                "{command} {file} does not say {reason:?}:\n{}",
                run.stderr
            );
        }
        last = Some(run);
    }
    last.expect("both were run")
}

#[test]
fn an_app_that_fails_to_import_is_refused_with_its_traceback() {
    expect_refused(
        "raises.py",
        "",
        &[
            "Traceback (most recent call last):",
            "raises.py",
            "in connect",
            "RuntimeError: no database here",
        ],
    );
    expect_refused("syntax.py", "", &["SyntaxError", "syntax.py", "line 1"]);
    expect_refused(
        "missing_import.py",
        "",
        &["ModuleNotFoundError: No module named 'nowhere_to_be_found'"],
    );
}

#[test]
fn an_app_without_the_callable_is_refused() {
    expect_refused(
        "nothing.py",
        "",
        &["nothing.py", "'application'", "did you mean app?"],
    );
    expect_refused("text.py", "", &["application", "str"]);
    let dir = folder(&config_with_entry("refused", "module = \"nothing:create\"", ""));
    let run = run(wasgi().arg("serve").arg(dir.path().join("app.toml")), TIME);
    assert_ne!(run.code(), 0);
    assert!(
        run.stderr.contains("create") && run.stderr.contains("nothing"),
        "{}",
        run.stderr
    );
}

#[test]
fn an_app_that_leaves_while_it_is_imported_is_refused() {
    expect_refused("exits.py", "", &["the settings are incomplete"]);
    expect_refused("leaves.py", "", &["exit code 0"]);
}

#[test]
fn an_import_without_end_is_refused() {
    let start = Instant::now();
    let run = expect_refused("loops.py", "[limits]\nstart-time = \"4s\"", &["4s"]);
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "took {:?}: {}",
        start.elapsed(),
        run.stderr
    );
    expect_refused("grows.py", "[limits]\nmemory = \"96MiB\"", &["MemoryError"]);
}

#[test]
fn a_package_with_a_native_extension_is_refused_by_name() {
    let run = expect_refused(
        "native.py",
        &python_path("refused"),
        &["'thing'", "native extension", ".so"],
    );
    assert!(
        run.stderr.contains("native.py"),
        "where it was imported: {}",
        run.stderr
    );
    let run = expect_refused(
        "native_part.py",
        &python_path("refused"),
        &["'pkg'", "native extension"],
    );
    assert!(
        run.stderr.contains("_core.cpython-313-x86_64-linux-gnu.so"),
        "{}",
        run.stderr
    );
}

#[test]
fn an_optional_native_extension_is_done_without() {
    let server = Server::start(&config("speedups", &(python_path("speedups") + "\nworkers = 1")));
    assert_eq!(server.get("/").expect(200).text(), "python 42");
    // The extension module that is built in belongs to a later version than this package.
    assert_eq!(server.get("/escape").expect(200).text(), "in python: a&lt;b");
}

#[test]
fn check_says_when_all_is_well() {
    let dir = folder(&config("pep3333", ""));
    let run = run(wasgi().arg("check").arg(dir.path().join("app.toml")), TIME);
    assert_eq!(run.code(), 0, "{}", run.stderr);
    assert!(
        run.stdout.contains("ok") && run.stdout.contains("app.toml"),
        "{}",
        run.stdout
    );
}

// Compiling

fn check(cache: &Path) -> Run {
    let mut command = bare_wasgi();
    command
        .env("XDG_CACHE_HOME", cache)
        .args(["check", "app:application", "--root"]);
    command.arg(app_folder("pep3333"));
    run(&mut command, Duration::from_secs(300))
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn cpython_is_compiled_once_and_a_broken_cache_is_not_trusted() {
    let cache = tempfile::tempdir().expect("a folder for the test");
    let first = check(cache.path());
    assert_eq!(first.code(), 0, "{}", first.stderr);
    assert!(
        first.stderr.contains("compiling"),
        "says what takes so long: {}",
        first.stderr
    );
    let kept: Vec<_> = files(cache.path());
    let largest = kept
        .iter()
        .max_by_key(|path| fs::metadata(path).map(|data| data.len()).unwrap_or(0));
    let largest = largest.expect("something is cached").clone();

    let second = check(cache.path());
    assert_eq!(second.code(), 0, "{}", second.stderr);
    assert!(!second.stderr.contains("compiling"), "{}", second.stderr);

    // One byte in the middle of the machine code.
    let mut bytes = fs::read(&largest).expect("is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, &bytes).expect("can be written");
    let third = check(cache.path());
    assert_eq!(third.code(), 0, "{}", third.stderr);
    assert!(
        third.stderr.contains("compiling"),
        "a changed file was trusted: {}",
        third.stderr
    );
    assert_ne!(
        fs::read(&largest).ok(),
        Some(bytes),
        "the broken file was replaced"
    );
}

#[test]
fn a_cache_that_cannot_be_written_is_done_without() {
    let cache = tempfile::tempdir().expect("a folder for the test");
    // A file where a folder should be, since root may write anywhere.
    let file = cache.path().join("file");
    fs::write(&file, "not a folder").expect("can be written");
    let run = check(&file);
    assert_eq!(run.code(), 0, "{}", run.stderr);
}
