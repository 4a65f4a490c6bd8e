//! `wasgi check --isolation`: which replies depend on what requests leave in memory.

use std::time::Duration;

use crate::server::{Run, config, folder, run, wasgi};

fn check(more: &str, paths: &[&str]) -> Run {
    let dir = folder(&config("remembers", more));
    let mut command = wasgi();
    command
        .arg("check")
        .arg(dir.path().join("app.toml"))
        .arg("--isolation");
    for path in paths {
        command.args(["--path", path]);
    }
    run(&mut command, Duration::from_secs(90))
}

/// Checks one path alone; what is said of it.
#[track_caller]
fn line(path: &str, code: i32) -> String {
    let run = check("", &[path]);
    assert_eq!(run.code(), code, "{path}: {}{}", run.stdout, run.stderr);
    let line = run
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{path}: ")));
    line.unwrap_or_else(|| panic!("no line for {path}: {}", run.stdout))
        .to_owned()
}

#[test]
fn replies_that_depend_on_no_memory_pass() {
    assert_eq!(line("/same", 0), "same");
    assert_eq!(
        line("/chance", 0),
        "same; differs in any case, as with a clock or chance: X-Time, body"
    );
    assert_eq!(line("/caf%C3%A9", 0), "same (answers 404)");
    let large = line("/large", 0);
    assert!(
        large.starts_with("same; costs a new instance with isolation: the app's memory grew by "),
        "{large}"
    );
}

#[test]
fn a_reply_that_depends_on_memory_is_told_with_its_place() {
    let visits = line("/visits", 1);
    assert!(
        visits.starts_with("depends on memory between requests: body: `")
            && visits.contains(", this is visit 2` in round 2 of a worker, `")
            && visits.ends_with(", this is visit 1` after a fresh start"),
        "{visits}"
    );
    assert_eq!(
        line("/limited", 1),
        "depends on memory between requests: status: `429` in round 4 of a worker, `200` after a fresh start"
    );
    assert_eq!(
        line("/first", 1),
        "depends on memory between requests: X-First: nothing in round 2 of a worker, `yes` after a fresh start"
    );
    let secret = line("/secret", 1);
    assert!(
        secret.contains("body: a worker keeps `signed with ")
            && secret.contains("each fresh start has its own"),
        "{secret}"
    );
}

#[test]
fn one_path_that_remembers_shows_in_another() {
    let run = check("warmup = [\"/same\"]", &["/same", "/first", "/limited"]);
    assert_eq!(run.code(), 1);
    assert!(run.stdout.contains("/same: same\n"), "{}", run.stdout);
    // The first request of a worker has been another's.
    assert!(
        run.stdout
            .contains("/limited: depends on memory between requests: status: `429` in round 2"),
        "{}",
        run.stdout
    );
    assert!(
        run.stderr
            .contains("app.toml: isolation makes a difference to 2 of 3 paths\nhint: "),
        "{}",
        run.stderr
    );
}

#[test]
fn without_paths_the_warm_up_paths_are_asked_for() {
    let run = check("warmup = [\"/same\", \"/chance\"]", &[]);
    assert_eq!(run.code(), 0, "{}{}", run.stdout, run.stderr);
    let paths: Vec<_> = run
        .stdout
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|it| it.0)
        .collect();
    assert_eq!(paths[..2], ["/same", "/chance"]);
    assert!(
        run.stdout
            .ends_with("app.toml: ok (isolation makes no difference; paths: 2, rounds: 5)\n")
    );
    let run = check("", &[]);
    assert!(
        run.stdout.starts_with("/: same (answers 404)\n"),
        "{}",
        run.stdout
    );
    let run = check("", &["same"]);
    assert_eq!(run.code(), 2);
    assert!(
        run.stderr
            .contains("--path: `same` is not a path of the app\nhint: "),
        "{}",
        run.stderr
    );
}
