//! The files and command lines of other servers, as guides have them, serve.
//!
//! The files are in tests/uwsgi. They are copied, with Flask in a virtual environment where they expect one.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::client::Connection;
use crate::daemon::{Daemon, wait_until};
use crate::gateway_client::Asked;
use crate::server::{Server, can_become_www_data, packages, project, run, wasgi};

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
    let ini = dir.path().join("uwsgi.ini");
    if let (false, Ok(text)) = (can_become_www_data(), fs::read_to_string(&ini)) {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with("uid") && !line.starts_with("gid"));
        fs::write(&ini, lines.collect::<Vec<_>>().join("\n")).expect("can be written");
    }
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

/// nginx as Debian has it, whose workers are www-data's, before a unix socket; ends with this value.
struct Nginx {
    child: Child,
    address: SocketAddr,
}

impl Nginx {
    fn before(dir: &Path, socket: &Path) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let address = free.local_addr().expect("an address");
        drop(free);
        let (dir, socket) = (dir.display(), socket.display());
        let user = if geteuid().is_root() { "user www-data;" } else { "" };
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {dir}/{kind};"))
            .join(" ");
        let text = format!(
            "{user} daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log;\n\
             events {{}}\nhttp {{ access_log off; {temp}\n\
             server {{ listen {address}; location / {{ include /etc/nginx/uwsgi_params; uwsgi_pass unix:{socket}; }} }} }}\n"
        );
        let file = dir.to_string() + "/nginx.conf";
        fs::write(&file, text).expect("can be written");
        let mut command = Command::new("/usr/sbin/nginx");
        let child = command.arg("-c").arg(&file).stdin(Stdio::null()).spawn();
        let child = child.expect("nginx is installed: run `make test-tools` first");
        let nginx = Self { child, address };
        wait_until("nginx listens", || TcpStream::connect(address).is_ok());
        nginx
    }

    fn get(&self, target: &str) -> (u16, String) {
        let mut connection = Connection::tcp(self.address);
        connection.send(format!(
            "GET {target} HTTP/1.1\r\nHost: front.example\r\nConnection: close\r\n\r\n"
        ));
        let reply = connection.reply();
        (
            reply.head.status,
            String::from_utf8_lossy(&reply.body).into_owned(),
        )
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it only if it is asked.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// Whose a process is, and its group.
fn ids(pid: i32) -> [String; 2] {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    ["Uid:", "Gid:"].map(|field| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.expect("proc tells it")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    })
}

const WWW_DATA: &str = "33 33 33 33";

#[test]
fn the_file_of_a_guide_with_http_serves() {
    let server = serve_in(copy("first"), &["serve", "uwsgi.ini"]);
    let reply = server.get("/");
    assert_eq!(
        (reply.head.status, &*reply.body),
        (200, &b"Hello from the first guide"[..])
    );
    let said = server.log.all();
    assert!(
        said.contains("uwsgi.ini: 2 options are not needed here"),
        "{said}"
    );
    assert!(!said.contains("not supported"), "{said}");
    if can_become_www_data() {
        assert_eq!(ids(server.pid()), [WWW_DATA; 2]);
    }
    let path = |name| server.dir.path().join(name);
    let pid = fs::read_to_string(path("uwsgi.pid")).expect("a pid file");
    assert_eq!(pid.trim(), server.pid().to_string());
    let mark = server.log.mark();
    fs::write(path("uwsgi.fifo"), "r").expect("the fifo takes it");
    server.log.wait_for(mark, ": loaded anew");
}

#[test]
fn the_file_of_a_guide_with_a_socket_serves_nginx() {
    let dir = copy("first");
    let ini = fs::read_to_string(dir.path().join("uwsgi.ini")).expect("the guide's file");
    let ini = ini.replace("http = 127.0.0.1:0", "socket = %dhello.sock");
    fs::write(dir.path().join("uwsgi.ini"), ini).expect("can be written");
    let server = serve_in(dir, &["serve", "uwsgi.ini"]);
    let nginx = Nginx::before(server.dir.path(), &server.dir.path().join("hello.sock"));
    assert_eq!(nginx.get("/"), (200, "Hello from the first guide".to_owned()));
}

#[test]
fn the_file_of_a_guide_with_a_daemon_and_nginx_in_front_serves() {
    let dir = copy("second");
    let path = |name| dir.path().join(name);
    let daemon = Daemon::of(&path("shop.pid"));
    let started = run(
        wasgi()
            .args(["serve", "uwsgi.ini", "--venv", "venv"])
            .current_dir(dir.path()),
        TIME,
    );
    let said = || fs::read_to_string(path("shop.log")).unwrap_or_default();
    assert_eq!(started.code(), 0, "{}\n{}", started.stderr, said());
    let nginx = Nginx::before(dir.path(), &path("shop.sock"));
    assert_eq!(
        nginx.get("/"),
        (200, "Hello from the second guide".to_owned()),
        "{}",
        said()
    );
    assert_eq!(
        nginx.get("/robots.txt"),
        (200, "User-agent: *\n".to_owned()),
        "{}",
        said()
    );
    let found = fs::metadata(path("shop.sock")).expect("a socket");
    assert_eq!(found.mode() & 0o777, 0o664);
    let pid = daemon.pid().expect("a pid file");
    if geteuid().is_root() {
        assert_eq!(found.uid(), 33);
    }
    if can_become_www_data() {
        assert_eq!(ids(pid), [WWW_DATA; 2]);
    }
    assert!(!said().contains("not supported"), "{}", said());
    let process = Pid::from_raw(pid).expect("not 0");
    kill_process(process, Signal::TERM).expect("it runs");
    wait_until("it ends", || {
        said().contains("stopping: ") && daemon.pid().is_none()
    });
}

#[test]
fn the_file_of_a_guide_that_is_named_after_its_app_serves() {
    let dir = copy("third");
    let mut command = wasgi();
    command
        .args(["serve", "notes.ini", "--venv", "venv"])
        .current_dir(dir.path());
    if geteuid().is_root() {
        // As the guide has its user in nginx's group.
        command.gid(33);
    }
    let server = Server::spawn(dir, &mut command);
    let socket = server.dir.path().join("uwsgi.notes.sock");
    assert_eq!(ask(&socket, "/"), (200, "Hello from the third guide".to_owned()));
    let nginx = Nginx::before(server.dir.path(), &socket);
    assert_eq!(nginx.get("/"), (200, "Hello from the third guide".to_owned()));
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
