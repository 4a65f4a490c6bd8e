//! systemd's side of a service, played by the test: sockets handed over, and what is told to NOTIFY_SOCKET.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{Connection, PATIENCE};
use crate::server::{Server, config, folder, run, wasgi};

fn on(http: &str) -> String {
    config("pep3333", "workers = 1").replace("127.0.0.1:0", http)
}

/// `wasgi serve` with its standard input as socket 3, as systemd starts it.
fn activated(toml: &str, names: &str) -> (tempfile::TempDir, Command) {
    let dir = folder(toml);
    let program = wasgi();
    let mut command = Command::new("sh");
    command
        .args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0 </dev/null"])
        .arg(program.get_program())
        .arg("serve")
        .arg(dir.path().join("app.toml"))
        .env_clear();
    for (name, value) in program.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", names);
    (dir, command)
}

#[test]
fn a_tcp_socket_of_systemd_is_served_by_each_of_its_names() {
    for address in ["systemd", "systemd:web", "fd:3"] {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let bound = socket.local_addr().expect("an address");
        let (dir, mut command) = activated(&on(address), "web");
        // Before the server is there, connections wait.
        let mut early = Connection::tcp(bound);
        early.send("GET /ok HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let server = Server::spawn_with_input(dir, &mut command, Stdio::from(OwnedFd::from(socket)));
        early.reply().expect(200);
        assert_eq!(server.address(), bound);
        server.signal(Signal::TERM);
        assert_eq!(server.wait(PATIENCE).code(), Some(0), "{}", server.log.all());
    }
}

#[test]
fn a_unix_socket_of_systemd_is_served_and_its_file_left() {
    let place = tempfile::tempdir().expect("a folder for the test");
    let path = place.path().join("web.sock");
    let socket = UnixListener::bind(&path).expect("a socket");
    let (dir, mut command) = activated(&on("systemd"), "");
    let server = Server::spawn_with_input(dir, &mut command, Stdio::from(OwnedFd::from(socket)));
    server
        .log
        .wait_for(0, &format!("listening on unix:{}", path.display()));
    let mut connection = Connection::unix(&path);
    connection.send("GET /ok HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    connection.reply().expect(200);
    server.signal(Signal::TERM);
    assert_eq!(server.wait(PATIENCE).code(), Some(0), "{}", server.log.all());
    assert!(path.exists(), "it is systemd's to remove");
}

#[test]
fn a_socket_that_was_not_handed_over_is_told_by_its_name() {
    let dir = folder(&on("systemd:web"));
    let run = run(
        wasgi().arg("serve").arg(dir.path().join("app.toml")),
        Duration::from_secs(60),
    );
    assert_eq!(run.code(), 1);
    assert!(
        run.stderr
            .contains("cannot listen on systemd:web: no such socket was handed over\nhint: "),
        "{}",
        run.stderr
    );
}

#[test]
fn systemd_hears_of_readiness_life_and_stop() {
    let place = tempfile::tempdir().expect("a folder for the test");
    let path = place.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("an option");
    let next = || {
        let mut text = [0; 512];
        let length = socket.recv(&mut text).expect("the server tells in time");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let server = Server::start_in(folder(&config("pep3333", "workers = 1")), |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    });
    assert_eq!(next(), "READY=1\nSTATUS=serving");
    let begun = Instant::now();
    for _ in 0..4 {
        assert_eq!(next(), "WATCHDOG=1");
    }
    // The first at once, three more 0.2 s apart.
    let time = begun.elapsed();
    assert!(time >= Duration::from_millis(500), "4 signs of life in {time:?}");
    server.signal(Signal::TERM);
    let told = std::iter::repeat_with(next).find(|text| text != "WATCHDOG=1");
    assert_eq!(
        told.as_deref(),
        Some("STOPPING=1\nSTATUS=stopping: running requests finish")
    );
    assert_eq!(server.wait(PATIENCE).code(), Some(0));
}

#[test]
fn a_stopped_server_is_silent_so_that_the_watchdog_acts() {
    let place = tempfile::tempdir().expect("a folder for the test");
    let path = place.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let server = Server::start_in(folder(&config("pep3333", "workers = 1")), |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "100000");
    });
    server.signal(Signal::STOP);
    socket
        .set_read_timeout(Some(Duration::from_millis(600)))
        .expect("an option");
    let deadline = Instant::now() + PATIENCE;
    // What was on its way when it stopped, then nothing for six watchdog times.
    while socket.recv(&mut [0; 512]).is_ok() {
        assert!(Instant::now() < deadline, "a stopped process says that it lives");
    }
    server.signal(Signal::CONT);
    socket.set_read_timeout(Some(PATIENCE)).expect("an option");
    let mut text = [0; 512];
    let length = socket.recv(&mut text).expect("signs of life again");
    assert_eq!(&text[..length], b"WATCHDOG=1");
}
