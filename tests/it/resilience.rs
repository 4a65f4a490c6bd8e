//! The server in trouble that is not an app's: killed, out of descriptors, out of disk.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{Connection, PATIENCE};
use crate::server::{Server, config, folder, wasgi};

/// `serve` behind a shell that sets a limit first.
fn limited(limit: &str, dir: &Path) -> Command {
    let program = wasgi();
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{limit}; exec \"$0\" \"$@\"")])
        .arg(program.get_program())
        .arg("serve")
        .arg(dir.join("app.toml"))
        .env_clear();
    for (name, value) in program.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command
}

#[test]
fn a_killed_server_leaves_nothing_in_the_way_of_the_next() {
    let place = tempfile::tempdir().expect("a folder for the test");
    let at = |name: &str| place.path().join(name);
    let (socket, pidfile, temporary) = (at("app.sock"), at("pid"), at("tmp"));
    fs::create_dir(&temporary).expect("a folder");
    let toml = config("pep3333", "workers = 2\nsnapshot-cache = true")
        .replace("127.0.0.1:0", &format!("unix:{}", socket.display()));
    let start = || {
        Server::start_in(folder(&toml), |command| {
            command.arg("--pidfile").arg(&pidfile).env("TMPDIR", &temporary);
        })
    };
    let litter = || -> Vec<PathBuf> {
        let entries = fs::read_dir(&temporary).expect("is there").flatten();
        entries.map(|entry| entry.path()).collect()
    };
    for _ in 0..3 {
        let server = start();
        let mut running = Connection::unix(&socket);
        running.send("GET /stream?n=2&pause=30 HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(running.head_to("GET").status, 200);
        assert_eq!(
            fs::read_to_string(&pidfile).expect("is there").trim(),
            server.pid().to_string()
        );
        // Its own; what the ones before left is gone.
        assert!(litter().len() <= 1, "{:?}", litter());
        server.signal(Signal::KILL);
        server.wait(PATIENCE);
        assert!(socket.exists() && pidfile.exists(), "nothing was cleared up");
    }
    let server = start();
    let mut connection = Connection::unix(&socket);
    connection.send("GET /ok HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    connection.reply().expect(200);
    server.signal(Signal::TERM);
    assert_eq!(server.wait(PATIENCE).code(), Some(0));
    assert!(!socket.exists() && !pidfile.exists());
    assert!(litter().is_empty(), "{:?}", litter());
}

#[test]
fn a_server_that_is_told_to_stop_leaves_no_temporary_files() {
    let place = tempfile::tempdir().expect("a folder for the test");
    for isolation in ["worker", "request"] {
        let toml = config("pep3333", &format!("workers = 3\nisolation = \"{isolation}\""));
        let toml = format!("{toml}\n[limits]\nstop-time = \"100ms\"\n");
        let server = Server::start_in(folder(&toml), |command| {
            command.env("TMPDIR", place.path());
        });
        // Some that run when it is told, and are not done in time.
        let mut running: Vec<Connection> = (0..3).map(|_| server.connect()).collect();
        for connection in &mut running {
            connection.send("GET /stream?n=2&pause=30 HTTP/1.1\r\nHost: test\r\n\r\n");
            assert_eq!(connection.head_to("GET").status, 200);
        }
        assert_eq!(fs::read_dir(place.path()).expect("is there").count(), 1);
        server.signal(Signal::TERM);
        assert_eq!(server.wait(PATIENCE).code(), Some(0));
        let left: Vec<_> = fs::read_dir(place.path()).expect("is there").flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn without_descriptors_connections_wait_and_are_served_once_there_are_some() {
    let dir = folder(&config("pep3333", "workers = 1"));
    let mut command = limited("ulimit -n 64", dir.path());
    let server = Server::spawn(dir, &mut command);
    server.get("/ok").expect(200);
    let mark = server.log.mark();
    let mut held: Vec<TcpStream> = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while !server.log.has(mark, "cannot accept connections on ") {
        assert!(
            Instant::now() < deadline,
            "{} connections and no word",
            held.len()
        );
        held.push(TcpStream::connect(server.address()).expect("waits in the backlog"));
        thread::sleep(Duration::from_millis(5));
    }
    // Ten more attempts to accept, and no more lines.
    let mut waiting = server.connect();
    waiting.send("GET /ok HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    thread::sleep(Duration::from_secs(1));
    let lines = server.log.since(mark);
    let told = lines
        .iter()
        .filter(|line| line.contains("cannot accept connections"));
    assert_eq!(told.count(), 1, "{}", server.log.all());
    drop(held);
    waiting.reply().expect(200);
    server.get("/ok").expect(200);
}

/// A file system of a megabyte; unmounted when dropped.
struct Tiny(tempfile::TempDir);

impl Tiny {
    /// `None` if this process may not mount.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a folder for the test");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(dir))
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_costs_the_caches_and_no_request() {
    let Some(tiny) = Tiny::mount() else {
        println!("not run: this process may not mount a small file system to fill");
        return;
    };
    let start = || {
        Server::start_in(
            folder(&config("pep3333", "workers = 1\nsnapshot-cache = true")),
            |command| {
                command.env("XDG_CACHE_HOME", tiny.0.path());
            },
        )
    };
    let server = start();
    let line = server.log.wait_for(0, "its image is not kept: ");
    assert!(line.to_lowercase().contains("no space left"), "{line}");
    server.get("/ok").expect(200);
    drop(server);
    let left: u64 = walk(tiny.0.path()).iter().map(|(_, length)| length).sum();
    assert!(
        left < 500 << 10,
        "half-written files fill the disk: {:?}",
        walk(tiny.0.path())
    );
    // And so does the next start.
    start().get("/ok").expect(200);
}

#[test]
fn a_full_disk_under_the_log_is_told_once_and_lines_come_again_when_there_is_room() {
    let Some(tiny) = Tiny::mount() else {
        println!("not run: this process may not mount a small file system to fill");
        return;
    };
    let (log, ballast) = (tiny.0.path().join("wasgi.log"), tiny.0.path().join("ballast"));
    let toml = config("pep3333", "workers = 1").replace("127.0.0.1:0", "unix:app.sock");
    let dir = folder(&format!("{toml}\n[log]\nfile = {log:?}\n"));
    let socket = dir.path().join("app.sock");
    let mut command = wasgi();
    command.arg("serve").arg(dir.path().join("app.toml"));
    let mut server = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command can be started");
    let said = collect(server.stderr.take().expect("is piped"));
    let ask = |target: &str| {
        let mut connection = Connection::unix(&socket);
        connection.send(format!(
            "GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        ));
        connection.reply().expect(200);
    };
    wait_until("the socket", || UnixStream::connect(&socket).is_ok());
    ask("/ok?before");
    let has = |text: &str| fs::read_to_string(&log).unwrap_or_default().contains(text);
    wait_until("a line", || has("/ok?before"));

    // To the last byte of it.
    let mut file = fs::File::create(&ballast).expect("a file");
    for block in [4096, 1] {
        while file.write_all(&vec![0; block]).is_ok() {}
    }
    let long = "x".repeat(5000);
    for _ in 0..20 {
        ask(&format!("/ok?lost{long}"));
    }
    let told = format!(
        "error: the log cannot be written to {}: No space left on device",
        log.display()
    );
    wait_until("a word of it", || {
        said.lock().expect("the reader").contains(&told)
    });
    fs::remove_file(&ballast).expect("is there");
    drop(file);
    // A line that was cut by the end of the disk is ended first.
    ask("/ok?after");
    wait_until("lines again", || has("\" 200") && has("GET /ok?after HTTP/1.1"));
    wait_until("what is missing", || {
        has("log lines lost before the last ones: they could not be written")
    });
    let _ = server.kill();
    let _ = server.wait();
    let said = said.lock().expect("the reader").clone();
    assert_eq!(said.matches("the log cannot be written").count(), 1, "{said}");
    assert_eq!(said.matches("is written to").count(), 1, "{said}");
    let text = fs::read_to_string(&log).expect("is there");
    let after = text
        .lines()
        .find(|line| line.contains("/ok?after"))
        .expect("was there");
    assert!(!after.contains("/ok?lost"), "{after}");
}

/// What comes on a pipe, as it comes.
fn collect(mut pipe: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let all = Arc::new(Mutex::new(String::new()));
    let gathered = Arc::clone(&all);
    thread::spawn(move || {
        let mut some = [0; 4096];
        while let Ok(read @ 1..) = pipe.read(&mut some) {
            let text = String::from_utf8_lossy(&some[..read]).into_owned();
            gathered.lock().expect("the test").push_str(&text);
        }
    });
    all
}

#[track_caller]
fn wait_until(what: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "{what} does not come");
        thread::sleep(Duration::from_millis(10));
    }
}

fn walk(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("is there").flatten() {
        let kind = entry.metadata().expect("is there");
        match kind.is_dir() {
            true => found.extend(walk(&entry.path())),
            false => found.push((entry.path(), kind.len())),
        }
    }
    found
}

#[test]
fn a_log_that_cannot_be_written_holds_nobody_up() {
    let place = tempfile::tempdir().expect("a folder for the test");
    let socket = place.path().join("app.sock");
    let toml = config("pep3333", "workers = 1").replace("127.0.0.1:0", &format!("unix:{}", socket.display()));
    let dir = folder(&toml);
    let mut command = limited("exec 2>/dev/full", dir.path());
    let mut server = command
        .stdin(Stdio::null())
        .spawn()
        .expect("the command can be started");
    let deadline = Instant::now() + Duration::from_secs(120);
    let answered = loop {
        if let Ok(mut stream) = UnixStream::connect(&socket) {
            let mut reply = String::new();
            let _ = stream.write_all(b"GET /ok HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
            let _ = stream.read_to_string(&mut reply);
            break reply;
        }
        if Instant::now() > deadline {
            break String::new();
        }
        thread::sleep(Duration::from_millis(20));
    };
    let _ = server.kill();
    let _ = server.wait();
    assert!(answered.starts_with("HTTP/1.1 200 "), "{answered:?}");
}
