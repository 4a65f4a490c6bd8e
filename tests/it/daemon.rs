//! A server in the background, and what steers it beside signals.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::{Connection, PATIENCE};
use crate::server::{Run, config, folder, run, wasgi};

/// A daemon, known by its pid file; killed with this value.
pub struct Daemon {
    pidfile: PathBuf,
}

impl Daemon {
    pub fn of(pidfile: &Path) -> Self {
        Self {
            pidfile: pidfile.to_owned(),
        }
    }

    pub fn pid(&self) -> Option<i32> {
        fs::read_to_string(&self.pidfile).ok()?.trim().parse().ok()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(pid) = self.pid().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Waits until it holds.
#[track_caller]
pub fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn serve(dir: &Path) -> Run {
    run(
        wasgi().arg("serve").arg(dir.join("app.toml")),
        Duration::from_secs(120),
    )
}

#[test]
fn a_daemon_serves_when_its_start_returns_and_is_steered_by_letters_and_files() {
    let more = "workers = 1\n[log]\nfile = \"log\"\n[server]\ndaemon = true\npidfile = \"pid\"\nfifo = \"fifo\"\ntouch-reload = [\"touched\"]\n";
    let dir = folder(&config("pep3333", more).replace("127.0.0.1:0", "unix:app.sock"));
    let path = |name| dir.path().join(name);
    let daemon = Daemon::of(&path("pid"));
    let started = serve(dir.path());
    assert_eq!(started.code(), 0, "{}", started.stderr);
    let ask = || {
        let mut connection = Connection::unix(&path("app.sock"));
        connection.send("GET /ok HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        connection.reply().expect(200)
    };
    ask();
    let pid = daemon.pid().expect("it has a pid file");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let after_name: Vec<&str> = stat
        .rsplit(')')
        .next()
        .expect("proc(5)")
        .split_whitespace()
        .collect();
    let (session, terminal) = (after_name[3], after_name[4]);
    assert_eq!((session, terminal), (&*pid.to_string(), "0"), "{stat}");
    wait_until("it lets go of standard error", || {
        let open = fs::read_link(format!("/proc/{pid}/fd/2"));
        open.is_ok_and(|open| open == Path::new("/dev/null"))
    });

    let log = || fs::read_to_string(path("log")).expect("it has a log");
    let reloads = || log().matches("app pep3333: loaded anew").count();
    let mut fifo = fs::OpenOptions::new()
        .write(true)
        .open(path("fifo"))
        .expect("a pipe");
    assert_eq!(fs::metadata(path("fifo")).expect("a pipe").mode() & 0o777, 0o600);
    fifo.write_all(b"x\nr").expect("is taken");
    wait_until("r reloads", || reloads() == 1);
    assert!(log().contains("fifo: 'x' means nothing here: "), "{}", log());
    fs::write(path("touched"), "").expect("can be written");
    wait_until("a touched file reloads", || reloads() == 2);
    ask();

    fifo.write_all(b"q").expect("is taken");
    wait_until("q ends it", || {
        !Path::new(&format!("/proc/{pid}")).exists() || is_zombie(pid)
    });
    assert!(!path("pid").exists() && !path("app.sock").exists());
}

/// One whose parent, the first process of the machine or the container, does not look at it.
fn is_zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

#[test]
fn a_daemon_that_does_not_serve_has_failed_to_start() {
    let more = "[server]\ndaemon = true\npidfile = \"pid\"\n";
    let dir = folder(&config("pep3333", more).replace("127.0.0.1:0", "unix:app.sock"));
    let _taken = std::os::unix::net::UnixListener::bind(dir.path().join("app.sock")).expect("a socket");
    let _daemon = Daemon::of(&dir.path().join("pid"));
    let started = serve(dir.path());
    assert_eq!(started.code(), 1, "{}", started.stderr);
    let wanted = format!("process {} is listening there", std::process::id());
    assert!(started.stderr.contains(&wanted), "{}", started.stderr);
    assert!(!dir.path().join("pid").exists());
}
