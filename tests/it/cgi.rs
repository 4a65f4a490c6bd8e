//! `wasgi cgi`, as web servers start it: a file that is the program, the request in the environment.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::client::{PATIENCE, Reply};
use crate::gateway_client::cgi_as_http;
use crate::server::{app_folder, wasgi};

/// A folder with `app.cgi`, which runs one of tests/apps.
fn program(app: &str, more: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder for the test");
    write(
        &dir,
        &format!(
            "name = \"{app}\"\nroot = {:?}\nwsgi-file = \"app.py\"\n{more}\n",
            app_folder(app)
        ),
    );
    dir
}

fn write(dir: &TempDir, app: &str) {
    let file = dir.path().join("app.cgi");
    fs::write(&file, format!("#!/usr/bin/env -S wasgi cgi\n[app]\n{app}")).expect("can be written");
    fs::set_permissions(&file, Permissions::from_mode(0o755)).expect("chmod");
}

/// The program and its environment, as a web server has it.
fn command(dir: &TempDir, method: &str, path: &str) -> Command {
    let mut command = Command::new(dir.path().join("app.cgi"));
    command.env_clear();
    // The cache of the tests, with compiled code in it.
    command.envs(
        wasgi()
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let own = Path::new(env!("CARGO_BIN_EXE_wasgi")).parent().expect("a folder");
    command.env("PATH", format!("{}:/usr/bin:/bin", own.display()));
    command
        .envs([
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("SERVER_NAME", "front.example"),
            ("SERVER_PORT", "80"),
            ("REMOTE_ADDR", "192.0.2.7"),
            ("QUERY_STRING", ""),
            ("SCRIPT_NAME", "/cgi-bin/app.cgi"),
        ])
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

struct Answer {
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

impl Answer {
    #[track_caller]
    fn reply(self) -> Reply {
        assert!(!self.stdout.is_empty(), "no reply: {}", self.stderr);
        Reply::parse(cgi_as_http(&self.stdout), "GET")
    }
}

/// Runs it to its end, with all of a body.
fn answer(command: &mut Command, body: &[u8]) -> Answer {
    let mut child = command.spawn().expect("env, and wasgi beside it");
    let mut input = child.stdin.take().expect("piped");
    // It need not read all.
    let _ = input.write_all(body);
    drop(input);
    end(child)
}

/// Waits for its end.
fn end(mut child: Child) -> Answer {
    let mut stderr = child.stderr.take().expect("piped");
    let said = std::thread::spawn(move || {
        let mut said = String::new();
        let _ = stderr.read_to_string(&mut said);
        said
    });
    let mut stdout = Vec::new();
    let _ = child.stdout.take().expect("piped").read_to_end(&mut stdout);
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().expect("can be waited for") {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                let _ = child.kill();
                panic!("the program does not end");
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    Answer {
        code: status.code(),
        stdout,
        stderr: said.join().expect("what it said"),
    }
}

#[test]
fn the_app_is_told_of_the_request_and_nothing_of_the_process() {
    let dir = program("pep3333", "[log]\naccess = \"combined\"");
    let mut asked = command(&dir, "GET", "/environ");
    asked.env("QUERY_STRING", "a=b").env("DATABASE_PASSWORD", "hush");
    asked
        .env("HTTP_HOST", "front.example:8080")
        .env("HTTP_PROXY", "http://evil.example/");
    let told = answer(&mut asked, b"");
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    assert_eq!(told.stderr, "", "the web server has an access log of its own");
    let environ = told.reply().expect(200).json();
    for (name, value) in [
        ("SCRIPT_NAME", "/cgi-bin/app.cgi"),
        ("PATH_INFO", "/environ"),
        ("QUERY_STRING", "a=b"),
        ("REMOTE_ADDR", "192.0.2.7"),
        ("HTTP_HOST", "front.example:8080"),
    ] {
        assert_eq!(environ[name], value, "{name} of {environ}");
    }
    for name in ["HTTP_PROXY", "DATABASE_PASSWORD", "PATH", "XDG_CACHE_HOME"] {
        assert_eq!(environ.get(name), None, "{name} reached the app");
    }
}

#[test]
fn words_of_a_query_are_no_options() {
    let dir = program("pep3333", "");
    let mut asked = command(&dir, "GET", "/ok");
    // RFC 3875 4.4, as of `/cgi-bin/app.cgi/ok?--python-dir+/nowhere+--help`.
    asked.args(["--python-dir", "/nowhere", "--help"]);
    assert_eq!(answer(&mut asked, b"").reply().expect(200).text(), "fine\n");
}

#[test]
fn variables_of_a_request_are_not_taken_for_the_owners() {
    let dir = program("pep3333", "[app.env]\nKEY = \"${HTTP_KEY}\"");
    let mut asked = command(&dir, "GET", "/ok");
    let told = answer(asked.env("HTTP_KEY", "the client's"), b"");
    assert_eq!(told.code, Some(2), "{}", told.stderr);
    assert!(told.stderr.contains("HTTP_KEY"), "{}", told.stderr);
}

#[test]
fn a_body_is_read_by_its_length_and_a_chunked_one_to_its_end() {
    let dir = program("pep3333", "");
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let length = body.len().to_string();
    let mut asked = command(&dir, "POST", "/echo");
    let reply = answer(asked.env("CONTENT_LENGTH", length), &body)
        .reply()
        .expect(200);
    assert!(reply.body == body, "{} bytes came back", reply.body.len());
    let mut asked = command(&dir, "POST", "/echo");
    let reply = answer(asked.env("HTTP_TRANSFER_ENCODING", "chunked"), &body).reply();
    assert!(reply.expect(200).body == body, "with chunks taken apart");

    // What follows the body is not waited for.
    let mut asked = command(&dir, "POST", "/echo");
    let mut child = asked.env("CONTENT_LENGTH", "4").spawn().expect("can be started");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(b"bodyand").expect("is read");
    assert_eq!(end(child).reply().expect(200).text(), "body");
    drop(input);
}

#[test]
fn a_client_that_goes_within_its_body_ends_the_request() {
    let dir = program("pep3333", "");
    let mut asked = command(&dir, "POST", "/echo");
    let told = answer(asked.env("CONTENT_LENGTH", "100"), b"half");
    assert_eq!((told.code, &*told.stdout), (Some(1), &b""[..]), "{}", told.stderr);
}

#[test]
fn a_reply_is_sent_as_it_is_made_until_the_web_server_gives_it_up() {
    let dir = program("pep3333", "");
    let mut asked = command(&dir, "GET", "/stream");
    asked.env("QUERY_STRING", "n=1000&pause=0.1");
    let mut child = asked.spawn().expect("can be started");
    let (mut came, mut piece) = (Vec::new(), [0; 4096]);
    let stdout = child.stdout.as_mut().expect("piped");
    while !String::from_utf8_lossy(&came).contains("chunk 1\n") {
        let length = stdout.read(&mut piece).expect("can be read");
        assert!(length > 0, "it ended: {:?}", String::from_utf8_lossy(&came));
        came.extend_from_slice(&piece[..length]);
    }
    let asked = Instant::now();
    // As Apache does when the client is gone.
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
    assert_eq!(end(child).code, Some(1));
    assert!(
        asked.elapsed() < Duration::from_secs(20),
        "it did not wait for the last chunk"
    );
}

#[test]
fn limits_hold_and_what_went_wrong_is_told_on_stderr_alone() {
    let dir = program("limits", "[limits]\ntime = \"500ms\"");
    let told = answer(&mut command(&dir, "GET", "/loop"), b"");
    assert_eq!(told.code, Some(0), "there is a reply: {}", told.stderr);
    assert!(told.stderr.contains("TimeLimit"), "{}", told.stderr);
    let reply = told.reply().expect(504);
    assert!(!reply.text().contains("Traceback"), "{}", reply.text());

    write(&dir, "modul = \"x:y\"\n");
    let told = answer(&mut command(&dir, "GET", "/"), b"");
    assert_eq!(told.code, Some(2));
    assert!(
        told.stderr.contains("app.cgi:3: app.modul: unknown key"),
        "{}",
        told.stderr
    );
    assert!(!told.reply().expect(500).text().contains("modul"));

    write(&dir, "root = \".\"\nmodule = \"nowhere:app\"\n");
    let told = answer(&mut command(&dir, "GET", "/"), b"");
    assert_eq!(told.code, Some(1));
    assert!(
        told.stderr.contains("No module named 'nowhere'"),
        "{}",
        told.stderr
    );
    told.reply().expect(500);
}

#[test]
fn with_a_snapshot_the_app_is_imported_once_for_all_requests() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let app =
        "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'here']\n";
    fs::create_dir(dir.path().join("app")).expect("a folder");
    fs::write(
        dir.path().join("app/main.py"),
        format!("print('imported')\n{app}"),
    )
    .expect("can be written");
    write(
        &dir,
        "root = \"app\"\nwsgi-file = \"main.py\"\nsnapshot-cache = true\n",
    );
    let first = answer(&mut command(&dir, "GET", "/"), b"");
    assert!(first.stderr.contains(" imported\n"), "{}", first.stderr);
    assert_eq!(first.reply().expect(200).text(), "here");
    let second = answer(&mut command(&dir, "GET", "/"), b"");
    assert_eq!(second.stderr, "");
    assert_eq!(second.reply().expect(200).text(), "here");
}

#[test]
fn without_a_request_it_says_what_it_is_for() {
    let dir = program("pep3333", "");
    let mut asked = command(&dir, "GET", "/");
    let told = answer(asked.env_remove("REQUEST_METHOD"), b"");
    assert_eq!((told.code, &*told.stdout), (Some(2), &b""[..]));
    assert!(told.stderr.contains("no REQUEST_METHOD"), "{}", told.stderr);
}
