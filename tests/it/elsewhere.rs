//! The files and command lines of other servers, as guides have them, serve.
//!
//! The files are in tests/uwsgi. They are copied, with Flask in a virtual environment where they expect one.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::Connection;
use crate::gateway_client::Asked;
use crate::server::{Server, packages, project, run, wasgi};

const TIME: Duration = Duration::from_secs(60);

/// A copy of tests/uwsgi/`name`, with a virtual environment that has Flask.
fn copy(name: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let copied = Command::new("cp")
        .arg("-r")
        .arg(project().join("tests/uwsgi").join(name).join("."))
        .arg(dir.path())
        .status();
    assert!(copied.expect("cp").success());
    // For whom root becomes.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("can be changed");
    let lib = dir.path().join("venv/lib/python3.13");
    fs::create_dir_all(&lib).expect("a folder for the test");
    symlink(packages(), lib.join("site-packages")).expect("a link for the test");
    dir
}

fn serve_in(dir: TempDir, words: &[&str]) -> Server {
    let mut command = wasgi();
    command.args(words).current_dir(dir.path());
    Server::spawn(dir, &mut command)
}

/// What a uwsgi packet for `target` gets.
fn ask(socket: &Path, target: &str) -> (u16, String) {
    let mut connection = Connection::unix(socket);
    connection.send(Asked::get(target).packet(0));
    let reply = connection.reply();
    (
        reply.head.status,
        String::from_utf8_lossy(&reply.body).into_owned(),
    )
}

#[test]
fn the_file_of_a_guide_with_http_serves() {
    let server = serve_in(copy("first"), &["serve", "uwsgi.ini"]);
    let reply = server.get("/");
    assert_eq!(
        (reply.head.status, &*reply.body),
        (200, &b"Hello from the first guide"[..])
    );
    let said = server.log.all();
    for wanted in [
        "uwsgi.ini:18: pidfile: not supported: ",
        "uwsgi.ini:19: master-fifo: not supported: ",
        "uwsgi.ini: 2 options are not needed here",
    ] {
        assert!(said.contains(wanted), "{wanted}\n{said}");
    }
}

#[test]
fn the_file_of_a_guide_with_nginx_in_front_serves() {
    let dir = copy("second");
    // Its log goes to a file, so that nothing is told here.
    let mut child = wasgi()
        .args(["serve", "uwsgi.ini", "--venv", "venv"])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command can be started");
    let (socket, log) = (dir.path().join("shop.sock"), dir.path().join("shop.log"));
    let said = || fs::read_to_string(&log).unwrap_or_default();
    let deadline = Instant::now() + TIME;
    while !said().contains("listening on ") && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    let answers = said()
        .contains("listening on ")
        .then(|| [ask(&socket, "/"), ask(&socket, "/robots.txt")]);
    let _ = child.kill();
    let _ = child.wait();
    let said = said();
    let [page, file] = answers.unwrap_or_else(|| panic!("it does not listen:\n{said}"));
    assert_eq!(page, (200, "Hello from the second guide".to_owned()), "{said}");
    assert_eq!(file, (200, "User-agent: *\n".to_owned()), "{said}");
    assert!(said.contains("daemonize: not supported: "), "{said}");
}

#[test]
fn the_file_of_a_guide_that_is_named_after_its_app_serves() {
    let server = serve_in(copy("third"), &["serve", "notes.ini", "--venv", "venv"]);
    let socket = server.dir.path().join("uwsgi.notes.sock");
    assert_eq!(ask(&socket, "/"), (200, "Hello from the third guide".to_owned()));
    drop(server);
}

#[test]
fn command_lines_of_guides_serve() {
    let http = "127.0.0.1:0";
    for words in [
        &[
            "uwsgi",
            "--http",
            http,
            "--wsgi-file",
            "hello.py",
            "--callable",
            "app",
            "-H",
            "venv",
        ][..],
        &[
            "uwsgi",
            "--socket",
            http,
            "--protocol=http",
            "-w",
            "hello:app",
            "--venv=venv",
            "-p2",
        ],
        &["uwsgi", "--ini", "uwsgi.ini"],
        &[
            "gunicorn",
            "-w",
            "2",
            "-b",
            http,
            "--pythonpath",
            "venv/lib/python3.13/site-packages",
            "hello:app",
        ],
    ] {
        let server = serve_in(copy("first"), words);
        let reply = server.get("/");
        assert_eq!(
            (reply.head.status, &*reply.body),
            (200, &b"Hello from the first guide"[..]),
            "{words:?}"
        );
    }
}

#[test]
fn a_wsgi_file_of_mod_wsgi_serves() {
    let dir = copy("first");
    let text = format!(
        "import sys\nsys.path.insert(0, {:?})\n\nfrom hello import app as application\n",
        dir.path()
    );
    fs::write(dir.path().join("hello.wsgi"), text).expect("a file for the test");
    let server = serve_in(
        dir,
        &[
            "uwsgi",
            "--http",
            "127.0.0.1:0",
            "-H",
            "venv",
            "--wsgi-file",
            "hello.wsgi",
        ],
    );
    assert_eq!(server.get("/").head.status, 200);
}

#[test]
fn what_is_imported_serves_alike() {
    let dir = copy("first");
    let imported = run(
        wasgi().args(["import", "uwsgi.ini"]).current_dir(dir.path()),
        TIME,
    );
    assert_eq!(imported.code(), 0, "{}", imported.stderr);
    assert!(
        imported
            .stdout
            .contains("# uwsgi.ini:7: thunder-lock: not needed here: "),
        "{}",
        imported.stdout
    );
    fs::write(dir.path().join("app.toml"), &imported.stdout).expect("a file for the test");
    let server = serve_in(dir, &["serve"]);
    assert_eq!(server.get("/").body, b"Hello from the first guide");
}
