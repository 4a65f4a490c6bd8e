//! The log: what the app says, marked and made harmless, and a line for each request.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::PATIENCE;
use crate::server::{Server, config, folder, wasgi};

static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start(&config("talkative", "workers = 1")));

/// Calls a path; returns the line that contains `text`, and the id of the request from its access line.
#[track_caller]
fn say(path: &str, text: &str) -> (String, String) {
    let mark = SERVER.log.mark();
    SERVER.get(path).expect(200);
    let access = format!("\"GET {path} HTTP/1.1\"");
    let is_access = |line: &str| line.starts_with("127.0.0.1 - - [") && line.contains(&access);
    let (_, access) = SERVER.log.wait_until(mark, &access, is_access);
    let id = access
        .split(" id=")
        .nth(1)
        .unwrap_or_else(|| panic!("no id in {access:?}"))
        .to_owned();
    (SERVER.log.wait_for(mark, text), id)
}

#[test]
fn every_way_of_writing_ends_in_the_log() {
    for (path, text) in [
        ("/printing", "one printed line"),
        ("/printing", "the second of them"),
        ("/loggers", "INFO talkative: an informed line"),
        ("/loggers", "WARNING talkative: a warned line"),
        ("/loggers", "KeyError: 'logged, not raised'"),
        ("/errors", "a line for wsgi.errors"),
        ("/standard-error", "a line for stderr"),
        ("/half-a-line", "a line without its end"),
        ("/pieces", "a line in pieces"),
        ("/unicode", "caf\u{e9} \u{3053}\u{3053}\u{308d} \u{1f98b}"),
        ("/warning", "UserWarning: a warning from the app"),
    ] {
        let (line, id) = say(path, text);
        assert!(line.ends_with(text), "a line of its own: {line:?}");
        assert!(line.contains("talkative"), "marked with the app: {line:?}");
        assert!(line.contains(&id), "marked with the request {id}: {line:?}");
    }
    assert!(!SERVER.log.all().contains("a line nobody should see"));
}

#[test]
fn start_up_lines_are_marked_with_the_app() {
    let line = SERVER.log.wait_for(0, "printed while importing");
    assert!(line.contains("talkative"), "{line}");
}

#[test]
fn a_traceback_is_logged_line_by_line() {
    // Another test may have asked before: then it is told already.
    let mark = 0;
    SERVER.get("/raising").expect(500);
    let first = SERVER.log.wait_for(mark, "Traceback (most recent call last):");
    let last = SERVER.log.wait_for(mark, "of two lines");
    assert!(
        first.contains("talkative") && last.contains("talkative"),
        "{first}\n{last}"
    );
    SERVER.log.wait_for(mark, "ValueError: a traceback");
}

#[test]
fn the_app_cannot_forge_the_log() {
    let (line, _) = say("/forged", "before\\x1b");
    assert!(!line.contains('\x1b'), "{line:?}");
    let (line, _) = say("/forged", "GET /forged HTTP/1.1\" 200 0");
    assert!(
        line.contains("before") && !line.contains('\r'),
        "on the same line, and marked: {line:?}"
    );
    let (line, _) = say("/forged", "separator");
    assert!(
        line.contains("next") && line.contains("override"),
        "one line: {line:?}"
    );
    let harmless =
        |c: char| !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}');
    assert!(line.chars().all(harmless), "{line:?}");
}

#[test]
fn bytes_that_are_no_text_do_not_hurt() {
    let (line, _) = say("/not-utf8", "in latin-1");
    assert!(line.contains("caf"), "{line:?}");
}

#[test]
fn overlong_lines_are_bounded() {
    let mark = SERVER.log.mark();
    say("/long-line", "start-of-long-line");
    SERVER.get("/quiet").expect(200);
    let lines = SERVER.log.since(mark);
    assert!(
        lines.iter().all(|line| line.len() < 20_000),
        "{:?}",
        lines.iter().map(String::len).max()
    );
}

#[test]
fn a_flood_does_not_stop_the_server() {
    // Its own: the flood takes what the other tests' lines would need.
    let server = Server::start(&config("talkative", "workers = 1"));
    server.get("/flood").expect(200);
    for _ in 0..3 {
        server.get("/quiet").expect(200);
    }
}

#[test]
fn what_an_app_says_beyond_its_rate_is_told_in_one_line() {
    let server = Server::start(&config("talkative", "[limits]\nlog-rate = \"4KiB\""));
    let mark = server.log.mark();
    server.get("/flood").expect(200);
    let line = server.log.wait_for(mark, "app talkative: suppressed ");
    let (count, rest) = line
        .strip_prefix("app talkative: suppressed ")
        .and_then(|rest| rest.split_once(" lines ("))
        .unwrap_or_else(|| panic!("{line}"));
    assert!(rest.ends_with(" KiB) in the last second"), "{line}");
    assert!(count.parse::<u64>().is_ok_and(|count| count > 1000), "{line}");
    assert!(server.log.since(mark).len() < 5000);
    // Access lines are not the app's.
    server.log.wait_for(mark, "\"GET /flood HTTP/1.1\" 200");
}

#[test]
fn clients_cannot_forge_the_log() {
    let mark = SERVER.log.mark();
    let mut connection = SERVER.connect();
    connection.send(
        b"GET /quiet?q=%0a\"x\" HTTP/1.1\r\nHost: test\r\nConnection: close\r\nReferer: http://a/\" 200 1 \"b\r\n\
          User-Agent: caf\xe9 \\\"\r\n\r\n",
    );
    let status = connection.reply().status();
    let line = SERVER.log.wait_for(mark, "/quiet?q=");
    if status == 200 {
        assert!(
            line.contains("GET /quiet?q=%0a\\\"x\\\" HTTP/1.1\" 200 2 "),
            "{line}"
        );
        assert!(
            line.contains("\"http://a/\\\" 200 1 \\\"b\" \"caf\\xe9 \\\\\\\"\""),
            "{line}"
        );
    }
}

#[test]
fn access_lines_are_combined_with_time_and_worker() {
    let mark = SERVER.log.mark();
    let fields = "Referer: http://before/\r\nUser-Agent: tester/1.0\r\nX-Tag: twelve bytes\r\n";
    SERVER.request("GET", "/quiet?a=1", fields, b"").expect(200);
    let line = SERVER.log.wait_for(mark, "/quiet?a=1");
    let (start, rest) = line.split_once(" [").expect("a date");
    assert_eq!(start, "127.0.0.1 - -");
    let (date, rest) = rest.split_once("] ").expect("a date");
    assert!(
        date.len() == "31/Jul/2026:09:05:00 +0000".len() && date.ends_with(" +0000"),
        "{date}"
    );
    let expected = "\"GET /quiet?a=1 HTTP/1.1\" 200 12 \"http://before/\" \"tester/1.0\" ";
    let rest = rest.strip_prefix(expected).unwrap_or_else(|| panic!("{line}"));
    let (time, rest) = rest
        .split_once("ms app=talkative worker=1 id=")
        .unwrap_or_else(|| panic!("{line}"));
    assert!(
        time.parse::<f64>()
            .is_ok_and(|time| (0.0..10_000.0).contains(&time)),
        "{line}"
    );
    assert!(!rest.is_empty());
    let mark = SERVER.log.mark();
    SERVER.connect().send("nonsense\r\n\r\n").reply().expect(400);
    let line = SERVER.log.wait_for(mark, " 400 ");
    assert!(line.contains("worker=-"), "{line}");
}

#[test]
fn every_reply_tells_the_id_that_the_log_has() {
    let mark = SERVER.log.mark();
    let reply = SERVER.request("GET", "/quiet?id", "X-Request-Id: forged\r\n", b"");
    let line = SERVER.log.wait_for(mark, "/quiet?id");
    let id = reply.header("X-Request-Id").expect("an id");
    assert!(line.ends_with(&format!(" id={id}")) && id != "forged", "{line}");
}

#[test]
fn a_failed_request_shows_the_client_its_id() {
    let mark = SERVER.log.mark();
    let reply = SERVER.get("/raising").expect(500);
    let access = SERVER.log.wait_for(mark, "\"GET /raising HTTP/1.1\" 500");
    let id = access.split(" id=").nth(1).expect("an id");
    let shown = format!("{:?} {}", reply.head.headers, reply.text());
    assert!(shown.contains(id), "{shown} does not name {id}");
}

#[test]
fn access_lines_can_be_json_or_off() {
    let dir = folder(&config("talkative", "workers = 1"));
    let server = Server::start_in(dir, |command| {
        command.args(["--access-log", "json"]);
    });
    server.request("GET", "/quiet?\"q\"", "User-Agent: tester/1.0\r\n", b"");
    server.get("/quiet?second").expect(200);
    let line = server.log.wait_for(0, "/quiet?second");
    let line: serde_json::Value =
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert_eq!(
        (&line["status"], &line["method"]),
        (&200.into(), &"GET".into()),
        "{line}"
    );
    assert_eq!(line["target"], "/quiet?second");
    assert_eq!(line["worker"], 1);

    let dir = folder(&config("talkative", "workers = 1"));
    let server = Server::start_in(dir, |command| {
        command.args(["--access-log", "off"]);
    });
    let mark = server.log.mark();
    server.get("/quiet").expect(200);
    server.get("/printing").expect(200);
    server.log.wait_for(mark, "one printed line");
    assert!(!server.log.has(mark, "/quiet"), "{}", server.log.all());
}

/// Waits until a file has `text` in it.
#[track_caller]
fn in_file(path: &Path, text: &str) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        let all = fs::read_to_string(path).unwrap_or_default();
        if all.contains(text) {
            return all;
        }
        assert!(Instant::now() < end, "no {text:?} in {}: {all}", path.display());
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_app_has_a_file_of_its_own_that_is_opened_anew_when_asked() {
    let logs = tempfile::tempdir().unwrap();
    let (path, moved) = (logs.path().join("talkative.log"), logs.path().join("moved"));
    let table = format!(
        "workers = 1\n[log]\nfile = {:?}\naccess = {{ format = '%(method) %(uri) \"%(uagent)\" %(status) %(rsize)' }}",
        logs.path().join("{app}.log")
    );
    let server = Server::start(&config("talkative", &table));
    server
        .request("GET", "/printing?a", "User-Agent: \"x\r\n", b"")
        .expect(200);
    let all = in_file(&path, "GET /printing?a");
    assert!(all.contains("one printed line"), "{all}");
    assert!(all.contains("GET /printing?a \"\\x22x\" 200 2\n"), "{all}");
    assert!(!server.log.all().contains("one printed line"));

    fs::rename(&path, &moved).unwrap();
    server.signal(Signal::USR1);
    let end = Instant::now() + PATIENCE;
    while !path.exists() {
        server.get("/quiet?again").expect(200);
        assert!(Instant::now() < end);
    }
    let all = in_file(&path, "GET /quiet?again");
    assert!(!all.contains("/printing"), "{all}");

    // Where it cannot be written, requests go on, and it is told once.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let mark = server.log.mark();
    let end = Instant::now() + PATIENCE;
    while !server.log.has(mark, "error: the log cannot be written to") {
        server.get("/quiet").expect(200);
        assert!(Instant::now() < end, "{}", server.log.all());
    }
    fs::remove_dir(&path).unwrap();
    while !server.log.has(mark, "again; ") {
        server.get("/quiet").expect(200);
        assert!(Instant::now() < end, "{}", server.log.all());
    }
    in_file(&path, "lost before the last ones: they could not be written");
    assert_eq!(server.log.since(mark).len(), 2, "{}", server.log.all());
}

#[test]
fn a_log_file_takes_all_lines() {
    let logs = tempfile::tempdir().unwrap();
    let path = logs.path().join("all.log");
    let dir = folder(&config("talkative", "workers = 1"));
    let run = crate::server::run(
        wasgi()
            .current_dir(dir.path())
            .args(["serve", "--log-file", "nowhere/all.log"]),
        Duration::from_secs(30),
    );
    assert_eq!(run.code(), 2, "{}", run.stderr);
    assert!(
        run.stderr
            .contains("--log-file: the folder of `nowhere/all.log` is not there"),
        "{}",
        run.stderr
    );
    let mut child = wasgi()
        .current_dir(dir.path())
        .args(["serve", "--log-file"])
        .arg(&path)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let all = in_file(&path, "listening on http://127.0.0.1:");
    assert!(all.contains("app talkative printed while importing"), "{all}");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}");
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn there_is_no_colour_but_on_a_terminal() {
    say("/printing", "one printed line");
    assert!(!SERVER.log.all().contains('\x1b'));
    // Also not when asked what it can do.
    let help = crate::server::run(
        wasgi().args(["serve", "--help"]),
        std::time::Duration::from_secs(30),
    );
    assert!(!help.stdout.contains('\x1b'));
}

#[test]
fn a_failure_that_comes_again_is_told_once_and_counted() {
    let server = Server::start(&config("limits", "workers = 1"));
    let mark = server.log.mark();
    for _ in 0..4 {
        server.get("/exception").expect(500);
    }
    server.get("/sys-exit").expect(500);
    server.log.wait_for(mark, "SystemExit");
    server.signal(rustix::process::Signal::TERM);
    server.wait(std::time::Duration::from_secs(30));
    // What was counted is told before the server is gone.
    let counted = server
        .log
        .wait_for(mark, "3 more in the last minute, the last as request ");
    assert!(
        counted.contains("app limits: ValueError at /app/app.py:") && counted.contains(" in exception: "),
        "{counted}"
    );
    let lines = server.log.since(mark);
    let tracebacks = lines
        .iter()
        .filter(|line| line.contains("ValueError: the view does not work"));
    assert_eq!(tracebacks.count(), 1, "{lines:#?}");
}
