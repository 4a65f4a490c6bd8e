//! A server that root starts, and that is another user's once its sockets are bound.
//!
//! Root alone can see it: for others only what they are refused is looked at.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::client::{Connection, PATIENCE};
use crate::server::{
    Server, WWW_DATA, app_folder, bare_wasgi, can_become_www_data, config, folder, project, run,
};

const SOON: Duration = Duration::from_secs(20);

/// A server for www-data, in a folder that only root may write to, with a key that only root may read.
fn start() -> Server {
    let more = "isolation = \"request\"\n[log]\naccess = \"json+bill\"\n[server]\nuser = \"www-data\"\n[admin]\nsocket = \"admin.sock\"\n";
    let listen = "http = [\"127.0.0.1:0\", \"unix:app.sock\"]\n\
                  https = { address = \"127.0.0.1:0\", cert = \"one.pem\", key = \"one.key\" }";
    let dir = folder(&config("pep3333", more).replace("http = \"127.0.0.1:0\"", listen));
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("can be changed");
    for name in ["one.pem", "one.key"] {
        fs::copy(
            project().join("tests/certificates").join(name),
            dir.path().join(name),
        )
        .expect("a certificate");
    }
    fs::set_permissions(dir.path().join("one.key"), fs::Permissions::from_mode(0o600))
        .expect("can be changed");
    let pidfile = dir.path().join("pid");
    Server::start_in(dir, |command| {
        command.arg("--pidfile").arg(pidfile);
    })
}

fn pid_in(server: &Server) -> i32 {
    let text = fs::read_to_string(server.dir.path().join("pid")).expect("the pid file is there");
    text.trim().parse().expect("a number")
}

/// Each thread of the process has no rights but www-data's, and cannot have more.
#[track_caller]
fn assert_is_www_data(pid: i32) {
    let threads: Vec<_> = fs::read_dir(format!("/proc/{pid}/task"))
        .expect("it runs")
        .collect();
    assert!(threads.len() > 3, "it has threads");
    for thread in threads {
        let path = thread.expect("an entry").path().join("status");
        // One that has ended meanwhile.
        let Ok(status) = fs::read_to_string(path) else {
            continue;
        };
        for (field, wanted) in [
            ("Uid:", "33 33 33 33"),
            ("Gid:", "33 33 33 33"),
            ("Groups:", "33"),
            ("NoNewPrivs:", "1"),
            ("CapPrm:", "0000000000000000"),
            ("CapEff:", "0000000000000000"),
        ] {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            let words: Vec<_> = line.expect("proc tells it").split_whitespace().collect();
            assert_eq!(words.join(" "), wanted, "{field}\n{status}");
        }
    }
}

fn owner(path: &Path) -> (u32, u32, u32) {
    let found = fs::metadata(path).expect("it is there");
    (found.uid(), found.gid(), found.mode() & 0o777)
}

#[test]
fn root_binds_and_reads_keys_and_is_then_another_user_for_good() {
    if !can_become_www_data() {
        return;
    }
    let server = start();
    assert_is_www_data(server.pid());
    server
        .log
        .wait_for(0, "running as www-data, user 33 and group 33");
    server.log.wait_for(0, "listening on https://");
    let path = |name| server.dir.path().join(name);
    assert_eq!(owner(&path("app.sock")), (WWW_DATA, WWW_DATA, 0o660));
    assert_eq!(owner(&path("admin.sock")), (WWW_DATA, WWW_DATA, 0o600));
    assert_eq!(owner(&path("pid")).0, WWW_DATA);
    assert_eq!(pid_in(&server), server.pid());
    for _ in 0..3 {
        server.get("/ok").expect(200);
    }
    let mut connection = Connection::unix(&path("app.sock"));
    connection.send("GET /ok HTTP/1.1\r\nHost: test\r\n\r\n");
    connection.reply().expect(200);
    // That the system still tells which pages a request has written.
    server.log.wait_for(0, "\"pages\":");

    server.signal(Signal::TERM);
    assert_eq!(server.wait(SOON).code(), Some(0));
    // It may not remove it from root's folder.
    assert_eq!(fs::read_to_string(path("pid")).expect("is there"), "");
}

#[test]
fn a_server_that_has_given_root_up_reloads_and_upgrades() {
    if !can_become_www_data() {
        return;
    }
    let server = start();
    // A new process reads it too, and is not root.
    fs::set_permissions(
        server.dir.path().join("one.key"),
        fs::Permissions::from_mode(0o644),
    )
    .expect("can be changed");
    let address = server.address();
    let mark = server.log.mark();
    server.signal(Signal::HUP);
    server.log.wait_for(mark, "app pep3333: loaded anew");
    server.get("/ok").expect(200);
    server.signal(Signal::USR2);
    server.log.wait_for(mark, "serves; running requests may finish");
    assert!(server.wait(SOON).success());
    let pid = pid_in(&server);
    assert_ne!(pid, server.pid());
    let new = Pid::from_raw(pid).expect("not 0");
    let checked = std::panic::catch_unwind(|| {
        assert_is_www_data(pid);
        let mut connection = Connection::tcp(address);
        connection.send("GET /ok HTTP/1.1\r\nHost: test\r\n\r\n");
        connection.reply().expect(200);
    });
    kill_process(new, Signal::TERM).expect("it runs");
    checked.expect("it serves");
    let deadline = Instant::now() + PATIENCE;
    while !fs::read_to_string(server.dir.path().join("pid")).is_ok_and(|text| text.is_empty()) {
        assert!(
            Instant::now() < deadline,
            "its pid file names a process that is gone"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn who_is_not_root_is_told_that_it_cannot_become_another() {
    if geteuid().is_root() && !can_become_www_data() {
        return;
    }
    let root = app_folder("pep3333");
    let toml = format!("[app]\nroot = {root:?}\nwsgi-file = \"app.py\"\n[server]\nuser = \"root\"\n");
    let dir = folder(&toml);
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("can be changed");
    fs::write(
        dir.path().join("app.ini"),
        "[uwsgi]\nmodule = app\nuid = root\ngid = root\nsocket = app.sock\nchown-socket = root:root\n",
    )
    .expect("a file");
    let command = || {
        let mut command = bare_wasgi();
        command.current_dir(dir.path());
        if can_become_www_data() {
            command.uid(WWW_DATA).gid(WWW_DATA);
        }
        command
    };
    let refused = run(command().args(["serve", "app.toml"]), SOON);
    assert_eq!(refused.code(), 2, "{}", refused.stderr);
    assert!(
        refused
            .stderr
            .starts_with("app.toml: server.user: only root can become root\nhint: "),
        "{}",
        refused.stderr
    );
    // uWSGI goes on, and so does what takes its files.
    let told = run(command().args(["import", "app.ini"]), SOON);
    assert_eq!(told.code(), 0, "{}", told.stderr);
    for line in [
        "# app.ini:3: uid: only root can become root: ",
        "# app.ini:4: gid: only root can become root: ",
        "# app.ini:6: chown-socket: only root can give a socket to root: ",
        "socket-owner = \":root\"",
    ] {
        assert!(told.stdout.contains(line), "{line}\n{}", told.stdout);
    }
    assert!(!told.stdout.contains("[server]"), "{}", told.stdout);
}
