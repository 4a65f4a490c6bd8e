//! Starts the real `wasgi` with an app.toml of its own, and ends it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::client::{Connection, PATIENCE, Reply};

/// Where the packages of tests/apps/requirements.txt are.
///
/// # Panics
/// If they are not installed: a test that needs Flask must not pass without it.
pub fn packages() -> PathBuf {
    let folder = project().join("target/test-packages");
    assert!(
        folder.join("flask").is_dir(),
        "{} is missing: run `make packages` first",
        folder.join("flask").display()
    );
    folder
}

/// The project's root folder.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// An app.toml for tests/apps/`app`/app.py, on a port that the system chooses.
///
/// `more` continues the `[app]` table, and may open others.
pub fn config(app: &str, more: &str) -> String {
    config_with_entry(app, "wsgi-file = \"app.py\"", more)
}

/// As `config`, with another line to say where the callable is.
pub fn config_with_entry(app: &str, entry: &str, more: &str) -> String {
    let root = app_folder(app);
    format!("[listen]\nhttp = \"127.0.0.1:0\"\n\n[app]\nname = \"{app}\"\nroot = {root:?}\n{entry}\n{more}\n")
}

/// The folder of a test's app.
pub fn app_folder(app: &str) -> PathBuf {
    project().join("tests/apps").join(app)
}

/// The command under test. Its compiled code is cached where `cargo clean` finds it.
pub fn wasgi() -> Command {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
    let mut command = bare_wasgi();
    command.env("XDG_CACHE_HOME", &cache);
    static COMPILED: OnceLock<()> = OnceLock::new();
    COMPILED.get_or_init(|| {
        // Once for all tests, so that they do not all compile CPython at the same time.
        let root = app_folder("pep3333");
        let mut check = bare_wasgi();
        check
            .env("XDG_CACHE_HOME", &cache)
            .args(["check", "app:application", "--root"])
            .arg(root);
        let run = run(&mut check, Duration::from_secs(300));
        assert!(
            run.status.success(),
            "the first `wasgi check` fails:\n{}{}",
            run.stdout,
            run.stderr
        );
        if geteuid().is_root() {
            share_compiled(&cache);
        }
    });
    command
}

/// Number of www-data, user and group, on any Debian.
pub const WWW_DATA: u32 = 33;

/// Whether root runs the tests, and www-data can reach what servers need: a clone in a folder of root's alone is closed to it.
pub fn can_become_www_data() -> bool {
    let is_open =
        |folder: &Path| fs::metadata(folder).is_ok_and(|found| found.permissions().mode() & 0o5 == 0o5);
    let can = geteuid().is_root() && project().ancestors().all(is_open);
    if !can {
        eprintln!(
            "not looked at: what root does for www-data, which needs root and a project that others may read"
        );
    }
    can
}

/// Servers that become www-data keep compiled code in a folder of their own.
fn share_compiled(cache: &Path) {
    let (from, to) = (cache.join("wasgi"), cache.join("wasgi-www-data"));
    fs::create_dir_all(&to).expect("a folder for the test");
    fs::set_permissions(cache, fs::Permissions::from_mode(0o755)).expect("can be changed");
    fs::set_permissions(&to, fs::Permissions::from_mode(0o700)).expect("can be changed");
    for entry in fs::read_dir(from).expect("was made").flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let copy = to.join(entry.file_name());
            fs::copy(entry.path(), &copy).expect("can be copied");
            chown(&copy, Some(WWW_DATA), Some(WWW_DATA)).expect("root may");
        }
    }
    chown(&to, Some(WWW_DATA), Some(WWW_DATA)).expect("root may");
}

/// The command with nothing of this process's environment but PATH and HOME.
pub fn bare_wasgi() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wasgi"));
    command.env_clear();
    for name in ["PATH", "HOME"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// What a command that ends by itself did.
pub struct Run {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    #[track_caller]
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| panic!("ended by a signal ({}): {}", self.status, self.stderr))
    }
}

/// Runs a command to its end; one that does not end in time is killed and fails the test.
pub fn run(command: &mut Command, time: Duration) -> Run {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command can be started");
    let stdout = collect(child.stdout.take().expect("piped"));
    let stderr = collect(child.stderr.take().expect("piped"));
    let status = wait(&mut child, time);
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let stdout = stdout.join().expect("reads the output");
    let stderr = stderr.join().expect("reads the output");
    let status =
        status.unwrap_or_else(|| panic!("{command:?} runs for more than {time:?}:\n{stdout}{stderr}"));
    Run {
        status,
        stdout,
        stderr,
    }
}

fn collect(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn wait(child: &mut Child, time: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + time;
    loop {
        if let Some(status) = child.try_wait().expect("the child can be waited for") {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A running server. Ends with this value, or with the test process if it is kept in a static.
pub struct Server {
    child: Mutex<Child>,
    pid: Pid,
    pub log: Arc<Log>,
    pub dir: TempDir,
    _guard: Guard,
}

impl Server {
    /// Serves an app.toml of this text, in a folder of its own with an empty folder `data` beside it.
    #[track_caller]
    pub fn start(toml: &str) -> Self {
        let dir = folder(toml);
        Self::start_in(dir, |_| {})
    }

    /// As `start`, in a folder that holds an `app.toml`; `change` may add to the command.
    #[track_caller]
    pub fn start_in(dir: TempDir, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = wasgi();
        command.arg("serve").arg(dir.path().join("app.toml"));
        change(&mut command);
        Self::spawn(dir, &mut command)
    }

    /// Starts a command that serves, and waits until it says that it does.
    #[track_caller]
    pub fn spawn(dir: TempDir, command: &mut Command) -> Self {
        Self::spawn_with_input(dir, command, Stdio::null())
    }

    /// As `spawn`, with this as standard input.
    #[track_caller]
    pub fn spawn_with_input(dir: TempDir, command: &mut Command, input: Stdio) -> Self {
        let mut child = command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command can be started");
        let guard = Guard::new(child.id());
        let pid = Pid::from_child(&child);
        let log = Log::of(&mut child);
        let server = Self {
            child: Mutex::new(child),
            pid,
            log,
            dir,
            _guard: guard,
        };
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            if server.log.has(0, "listening on ") {
                return server;
            }
            let status = server.child().try_wait().expect("the child can be waited for");
            if status.is_some() {
                server.log.wait_for_end();
            }
            assert!(
                status.is_none(),
                "the server ended ({status:?}) before it listened:\n{}",
                server.log.all()
            );
            assert!(
                Instant::now() < deadline,
                "the server does not listen:\n{}",
                server.log.all()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw_pid()
    }

    /// The first TCP address it listens on.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        self.addresses()[0]
    }

    /// The TCP addresses it listens on, in the order it told them.
    #[track_caller]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let lines = self.log.since(0);
        lines
            .iter()
            .filter_map(|line| line.split_once("listening on http://"))
            .map(|(_, address)| {
                let address = address.split(',').next().unwrap_or(address);
                address
                    .parse()
                    .unwrap_or_else(|_| panic!("not an address: {address:?}"))
            })
            .collect()
    }

    pub fn connect(&self) -> Connection {
        Connection::tcp(self.address())
    }

    /// Sends a GET on a connection of its own.
    pub fn get(&self, target: &str) -> Reply {
        self.request("GET", target, "", b"")
    }

    /// Sends a POST with a body of known length on a connection of its own.
    pub fn post(&self, target: &str, body: impl AsRef<[u8]>) -> Reply {
        let body = body.as_ref();
        self.request(
            "POST",
            target,
            &format!("Content-Length: {}\r\n", body.len()),
            body,
        )
    }

    /// Sends a request on a connection of its own; `fields` are whole lines.
    pub fn request(&self, method: &str, target: &str, fields: &str, body: &[u8]) -> Reply {
        let mut connection = self.connect();
        connection.send(format!(
            "{method} {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{fields}\r\n"
        ));
        if !body.is_empty() {
            connection.send(body);
        }
        connection.reply_to(method)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("the server is there to be signalled");
    }

    /// Waits for the server to end by itself.
    #[track_caller]
    pub fn wait(&self, time: Duration) -> ExitStatus {
        let status = wait(&mut self.child(), time);
        status.unwrap_or_else(|| panic!("the server runs for more than {time:?} more:\n{}", self.log.all()))
    }

    pub fn has_not_ended(&self) -> bool {
        matches!(self.child().try_wait(), Ok(None))
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("proc is there");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("a process has memory");
        line.trim()
            .trim_end_matches(" kB")
            .parse::<usize>()
            .expect("a number")
            * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut child = self.child();
        if matches!(child.try_wait(), Ok(None)) {
            let _ = child.kill();
            let _ = child.wait();
        }
        drop(child);
        if thread::panicking() {
            eprintln!(
                "--- the server's log ---\n{}--- end of log ---",
                self.log.tail(200)
            );
        }
    }
}

/// A folder with this app.toml and an empty folder `data`.
pub fn folder(toml: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder for the test");
    fs::write(dir.path().join("app.toml"), toml).expect("a file for the test");
    fs::create_dir(dir.path().join("data")).expect("a folder for the test");
    dir
}

/// Ends a server when the test process is gone, however that came about: statics are never dropped.
///
/// A shell waits for the end of a pipe of which this process has the other side.
struct Guard {
    shell: Child,
    _pipe: Option<ChildStdin>,
}

impl Guard {
    fn new(pid: u32) -> Self {
        let mut shell = Command::new("sh")
            .args(["-c", &format!("read line; kill -KILL {pid}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let pipe = shell.stdin.take();
        Self { shell, _pipe: pipe }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The server has been waited for by now, so its pid may be another's: the shell must not wake.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// What a server has written, line by line, standard output and standard error together.
pub struct Log {
    lines: Mutex<Vec<(Instant, String)>>,
    grown: Condvar,
    readers: Mutex<Vec<thread::JoinHandle<()>>>,
}

impl Log {
    fn of(child: &mut Child) -> Arc<Self> {
        let log = Arc::new(Self {
            lines: Mutex::default(),
            grown: Condvar::new(),
            readers: Mutex::default(),
        });
        log.follow(child.stdout.take().expect("piped"));
        log.follow(child.stderr.take().expect("piped"));
        log
    }

    fn follow(self: &Arc<Self>, from: impl Read + Send + 'static) {
        let log = Arc::clone(self);
        let reader = thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while matches!(from.read_until(b'\n', &mut line), Ok(1..)) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                log.lines().push((Instant::now(), text));
                log.grown.notify_all();
                line.clear();
            }
        });
        self.readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(reader);
    }

    /// Waits until everything that an ended server has written is here.
    fn wait_for_end(&self) {
        for reader in self
            .readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            let _ = reader.join();
        }
    }

    fn lines(&self) -> MutexGuard<'_, Vec<(Instant, String)>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many lines there are; later lines are "since" this mark.
    pub fn mark(&self) -> usize {
        self.lines().len()
    }

    pub fn since(&self, mark: usize) -> Vec<String> {
        self.lines()[mark..]
            .iter()
            .map(|(_, line)| line.clone())
            .collect()
    }

    pub fn has(&self, mark: usize, text: &str) -> bool {
        self.lines()[mark..].iter().any(|(_, line)| line.contains(text))
    }

    /// Waits for a line since `mark` that contains `text`; returns it.
    #[track_caller]
    pub fn wait_for(&self, mark: usize, text: &str) -> String {
        self.wait_until(mark, text, |line| line.contains(text)).1
    }

    /// Waits for a line since `mark` of which `is` holds; returns when it came, and the line.
    #[track_caller]
    pub fn wait_until(&self, mark: usize, what: &str, is: impl Fn(&str) -> bool) -> (Instant, String) {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.lines();
        loop {
            if let Some(found) = lines[mark..].iter().find(|(_, line)| is(line)) {
                return found.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(lines);
                panic!("no line {what:?} in the log:\n{}", self.since(mark).join("\n"));
            }
            lines = self
                .grown
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    pub fn all(&self) -> String {
        self.tail(usize::MAX)
    }

    fn tail(&self, count: usize) -> String {
        let lines = self.lines();
        let start = lines.len().saturating_sub(count);
        lines[start..]
            .iter()
            .map(|(_, line)| format!("{line}\n"))
            .collect()
    }
}
