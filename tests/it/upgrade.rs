//! SIGUSR2: a new process takes the place of the old one.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::client::{Connection, PATIENCE};
use crate::server::{Server, config, folder};

const UPGRADES: usize = 5;

/// A server with a pid file, and whichever process it has become.
struct Upgraded {
    server: Server,
    pidfile: PathBuf,
}

impl Upgraded {
    fn start(toml: &str, notify: Option<&Path>) -> Self {
        let dir = folder(toml);
        let pidfile = dir.path().join("pid");
        let server = Server::start_in(dir, |command| {
            command.arg("--pidfile").arg(&pidfile);
            if let Some(notify) = notify {
                command.env("NOTIFY_SOCKET", notify);
            }
        });
        Self { server, pidfile }
    }

    fn pid(&self) -> Pid {
        let text = fs::read_to_string(&self.pidfile).expect("the pid file is there");
        let pid = text.trim().parse().expect("a number");
        Pid::from_raw(pid).expect("not 0")
    }

    /// Waits until the old process is gone and the new one serves.
    #[track_caller]
    fn upgrade(&self) {
        let old = self.pid();
        let mark = self.server.log.mark();
        kill_process(old, Signal::USR2).expect("the server is there");
        self.server
            .log
            .wait_for(mark, "serves; running requests may finish");
        let deadline = Instant::now() + PATIENCE;
        while is_alive(&self.server, old) {
            assert!(Instant::now() < deadline, "the old process stays");
            thread::sleep(Duration::from_millis(5));
        }
        assert_ne!(self.pid(), old);
    }
}

/// Whether a process runs; one that waits for its parent to look at it does not.
fn is_alive(server: &Server, pid: Pid) -> bool {
    if pid.as_raw_pid() == server.pid() {
        return server.has_not_ended();
    }
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
    test_kill_process(pid).is_ok() && !stat.contains(") Z ")
}

impl Drop for Upgraded {
    fn drop(&mut self) {
        // The processes after the first are no children of the test's.
        if let Ok(text) = fs::read_to_string(&self.pidfile)
            && let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw)
        {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

#[test]
fn no_request_fails_while_processes_take_over_from_each_other() {
    let upgraded = Upgraded::start(&config("pep3333", "workers = 2"), None);
    let address = upgraded.server.address();
    let over = AtomicBool::new(false);
    let request = "GET /ok HTTP/1.1\r\nHost: test\r\n\r\n";
    let counts = thread::scope(|scope| {
        let kept = || {
            let (mut count, mut connection) = (0, Connection::tcp(address));
            while !over.load(Ordering::Relaxed) {
                // A connection that the server ends, it has said so in the reply before.
                let reply = connection.send(request).reply().expect(200);
                count += 1;
                if reply.head.header("connection") == Some("close") {
                    connection = Connection::tcp(address);
                }
            }
            count
        };
        let new = || {
            let mut count = 0;
            while !over.load(Ordering::Relaxed) {
                Connection::tcp(address).send(request).reply().expect(200);
                count += 1;
            }
            count
        };
        let clients = [
            scope.spawn(kept),
            scope.spawn(kept),
            scope.spawn(new),
            scope.spawn(new),
        ];
        for _ in 0..UPGRADES {
            upgraded.upgrade();
        }
        over.store(true, Ordering::Relaxed);
        clients.map(|client| client.join().expect("all its requests are answered"))
    });
    println!("requests: {counts:?}");
    assert!(
        counts.iter().sum::<usize>() > 1000,
        "not much of a load: {counts:?}"
    );
    assert!(upgraded.server.wait(PATIENCE).success());
}

#[test]
fn the_file_of_a_unix_socket_goes_with_the_last_process() {
    let place = tempfile::tempdir().expect("a folder for the test");
    let (path, notify) = (place.path().join("app.sock"), place.path().join("notify"));
    let told = UnixDatagram::bind(&notify).expect("a socket");
    told.set_read_timeout(Some(PATIENCE)).expect("an option");
    let toml = config("pep3333", "workers = 1").replace("127.0.0.1:0", &format!("unix:{}", path.display()));
    let upgraded = Upgraded::start(&toml, Some(&notify));
    upgraded.upgrade();
    let mut connection = Connection::unix(&path);
    connection.send("GET /ok HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    connection.reply().expect(200);

    // systemd is told which process it is to look after.
    let expected = format!("MAINPID={}\n", upgraded.pid().as_raw_pid());
    let next = || {
        let mut text = [0; 512];
        let length = told.recv(&mut text).expect("told in time");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    assert!(
        std::iter::repeat_with(next)
            .take(5)
            .any(|text| text.starts_with(&expected))
    );

    let last = upgraded.pid();
    kill_process(last, Signal::TERM).expect("the server is there");
    let deadline = Instant::now() + PATIENCE;
    while path.exists() || upgraded.pidfile.exists() {
        assert!(
            Instant::now() < deadline,
            "the last process leaves its files behind"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_new_process_that_cannot_serve_leaves_the_old_one_in_its_place() {
    let place = tempfile::tempdir().expect("a folder for the test");
    let path = place.path().join("app.sock");
    let toml = config("pep3333", "workers = 1").replace("127.0.0.1:0", &format!("unix:{}", path.display()));
    let upgraded = Upgraded::start(&toml, None);
    let before = upgraded.pid();
    let file = upgraded.server.dir.path().join("app.toml");
    fs::write(&file, toml.replace("app.py", "gone.py")).expect("can be written");
    for _ in 0..2 {
        let mark = upgraded.server.log.mark();
        kill_process(before, Signal::USR2).expect("the server is there");
        let line = upgraded
            .server
            .log
            .wait_for(mark, "upgrade: the new process ended before it served");
        assert!(line.contains("this process goes on"), "{line}");
        assert!(
            upgraded.server.log.has(mark, "gone.py"),
            "the log says why:\n{}",
            upgraded.server.log.all()
        );
        let mut connection = Connection::unix(&path);
        connection.send("GET /ok HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        connection.reply().expect(200);
        assert_eq!(upgraded.pid(), before);
    }
    // Once it is mended, an upgrade goes through.
    fs::write(&file, toml).expect("can be written");
    upgraded.upgrade();
    Connection::unix(&path);
}
