//! The server's end of a group's process: starts it, sees that it answers, and starts it anew when it ends.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;
use wasgi_engine::PythonFiles;
use wasgi_protocol::frames::{Decoder, Kind, Reader, encode};

use crate::conversation::{Conversation, Lost, unexpected};
use crate::descriptors::send_with;
use crate::messages::{Confined, Folder, Setup, User};
use crate::serve::COMMAND;

/// How often a process is asked whether it is there, and how long it may take to answer.
const ASKED_EVERY: Duration = Duration::from_secs(3);
const ANSWERS_WITHIN: Duration = Duration::from_secs(12);

/// How long a process may take until it is ready: without machine code to take over it compiles Python.
const READY_WITHIN: Duration = Duration::from_secs(180);

/// First and longest wait before a process that has ended is started anew, and how long one must have lived for the first.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
const STEADY: Duration = Duration::from_secs(30);

/// A wait for the next start that a request takes part in.
const SHORT_WAIT: Duration = Duration::from_secs(1);

/// How long a process that is not wanted any more may take to end by itself.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// What a process may write to its standard error, lines and bytes of each; it has nothing to say there but panics.
const STDERR: (usize, usize) = (50, 500);

/// Where what happens to a process is told.
pub trait GroupLog: Send + Sync + 'static {
    /// What is as it should be.
    fn note(&self, text: &str);
    /// What is not.
    fn error(&self, text: &str);
}

/// What a process is to be.
pub struct Program {
    /// The group's name.
    pub name: String,
    /// Another user than the server's.
    pub user: Option<User>,
    /// Whether it must not run where the kernel has no Landlock.
    pub require_landlock: bool,
    /// What its apps see, and nothing else is there for it.
    pub folders: Vec<Folder>,
    /// The guest.
    pub python: PythonFiles,
    /// Opens the file with the guest's machine code, for a start; without one the process compiles it.
    pub code: Box<dyn Fn() -> Option<File> + Send + Sync>,
    /// Made for the group if it is not there: for images and temporary files.
    pub home: PathBuf,
}

/// A process with the apps of a group. It ends when this is dropped.
pub struct Process {
    shared: Arc<Shared>,
    /// Dropped with this; the thread that looks after the process sees it.
    wanted: Option<Sender<()>>,
    /// Numbers for apps.
    next: AtomicU64,
    sockets: Handle,
}

struct Shared {
    program: Program,
    log: Arc<dyn GroupLog>,
    state: watch::Sender<State>,
}

#[derive(Clone)]
enum State {
    Starting,
    Up(Arc<Link>),
    /// Why, and when the next start is tried.
    Down(Arc<str>, Instant),
}

/// One run of the process.
pub(crate) struct Link {
    control: Mutex<UnixStream>,
    condemned: Mutex<Option<String>>,
}

impl Link {
    fn new(control: UnixStream) -> Arc<Self> {
        Arc::new(Self {
            control: Mutex::new(control),
            condemned: Mutex::default(),
        })
    }

    fn control(&self) -> MutexGuard<'_, UnixStream> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn condemned(&self) -> MutexGuard<'_, Option<String>> {
        self.condemned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the process ended, for this reason.
    pub(crate) fn condemn(&self, why: &str) {
        self.condemned().get_or_insert_with(|| why.to_owned());
        self.hang_up();
    }

    /// Ends the conversation with the process, which has whoever looks after it end it.
    fn hang_up(&self) {
        let _ = self.control().shutdown(std::net::Shutdown::Both);
    }

    /// Sends a frame without content; whoever does not take it at once is not well.
    fn say(&self, kind: Kind, socket: Option<&UnixStream>) -> io::Result<()> {
        let mut frame = Vec::new();
        encode(kind, &[], &mut frame).map_err(io::Error::other)?;
        let control = self.control();
        let sent = match socket {
            Some(socket) => send_with(&*control, &frame, socket.as_fd(), false)?,
            None => {
                let flags = rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT;
                rustix::net::send(&*control, &frame, flags)?
            }
        };
        match sent == frame.len() {
            true => Ok(()),
            false => Err(io::Error::other("the process takes no orders")),
        }
    }
}

impl Process {
    /// Starts the process, and goes on to do so. Returns before it is ready.
    ///
    /// # Errors
    /// When there are no more threads.
    pub fn start(program: Program, log: Arc<dyn GroupLog>, sockets: Handle) -> io::Result<Arc<Self>> {
        let (wanted, is_wanted) = mpsc::channel();
        let shared = Arc::new(Shared {
            program,
            log,
            state: watch::Sender::new(State::Starting),
        });
        let looked_after = Arc::clone(&shared);
        // A thread that lives as long as the process: the kernel kills it when the thread that started it ends.
        thread::Builder::new()
            .name("group".to_owned())
            .spawn(move || looked_after.look_after(&is_wanted))?;
        Ok(Arc::new(Self {
            shared,
            wanted: Some(wanted),
            next: AtomicU64::new(1),
            sockets,
        }))
    }

    /// The group's name.
    pub fn name(&self) -> &str {
        &self.shared.program.name
    }

    /// The folders that it may use.
    pub fn folders(&self) -> &[Folder] {
        &self.shared.program.folders
    }

    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn sockets(&self) -> &Handle {
        &self.sockets
    }

    /// The process that runs, once one does; not `lost`, which does not answer any more.
    ///
    /// # Errors
    /// In words for the log, when the next start is some time away.
    pub(crate) async fn up(&self, lost: Option<&Arc<Link>>) -> Result<Arc<Link>, String> {
        let mut states = self.shared.state.subscribe();
        loop {
            let state = states.borrow_and_update().clone();
            match state {
                State::Up(link) if lost.is_none_or(|lost| !Arc::ptr_eq(lost, &link)) => return Ok(link),
                State::Down(why, until) => {
                    let wait = until.saturating_duration_since(Instant::now());
                    if wait > SHORT_WAIT {
                        let name = self.name();
                        return Err(format!(
                            "the process of group {name} {why}; its next start is tried in {wait:.1?}"
                        ));
                    }
                }
                State::Up(_) | State::Starting => {}
            }
            if states.changed().await.is_err() {
                return Err("the server is ending".to_owned());
            }
        }
    }

    /// Begins a conversation with a process that runs.
    pub(crate) fn open(&self, link: &Link) -> Result<Conversation, Lost> {
        let (ours, theirs) = UnixStream::pair()?;
        match link.say(Kind::Open, Some(&theirs)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(Lost::Ended),
            Err(error) => {
                link.condemn("takes no orders");
                return Err(error.into());
            }
        }
        let _inside = self.sockets.enter();
        Ok(Conversation::new(ours, Reader::Server)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.wanted = None;
        if let State::Up(link) = &*self.shared.state.borrow() {
            link.hang_up();
        }
    }
}

fn is_over(wanted: &Receiver<()>) -> bool {
    wanted.try_recv() == Err(mpsc::TryRecvError::Disconnected)
}

impl Shared {
    fn look_after(self: Arc<Self>, wanted: &Receiver<()>) {
        let name = &self.program.name;
        let mut wait = BACKOFF.0;
        while !is_over(wanted) {
            self.state.send_replace(State::Starting);
            let begun = Instant::now();
            let why = match self.spawn() {
                Ok((child, control)) => {
                    let pid = child.id();
                    let (why, was_ready) = self.run(child, control, wanted);
                    if is_over(wanted) {
                        return;
                    }
                    let also = match was_ready {
                        true => "its running requests fail, ",
                        false => "",
                    };
                    self.log.error(&format!(
                        "group {name}: its process {pid} {why}; {also}a new one is started in {wait:?}"
                    ));
                    why
                }
                Err(why) => {
                    self.log.error(&format!(
                        "group {name}: its process cannot be started, next try in {wait:?}: {why}"
                    ));
                    format!("cannot be started: {why}")
                }
            };
            if begun.elapsed() >= STEADY {
                wait = BACKOFF.0;
            }
            self.state
                .send_replace(State::Down(why.into(), Instant::now() + wait));
            if let Err(RecvTimeoutError::Disconnected) = wanted.recv_timeout(wait) {
                return;
            }
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    fn spawn(&self) -> Result<(Child, UnixStream), String> {
        let program = &self.program;
        make_home(&program.home, program.user)
            .map_err(|error| format!("{}: {error}", program.home.display()))?;
        let (ours, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
        // The very program that runs here, also when another has taken its place on disk.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("wasgi")
            .args([COMMAND, &program.name])
            .env_clear()
            .env("TMPDIR", program.home.join("tmp"))
            .current_dir("/")
            // A terminal's signals are for the server.
            .process_group(0)
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if let Some(user) = program.user {
            // In this order: gid, no other groups, and then the user, for good.
            command.gid(user.gid).uid(user.uid);
        }
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        if let Some(stderr) = child.stderr.take() {
            let (log, name) = (Arc::clone(&self.log), program.name.clone());
            let _ = thread::Builder::new()
                .name("group-stderr".to_owned())
                .spawn(move || tell_lines(stderr, &*log, &name));
        }
        Ok((child, ours))
    }

    /// Looks after a process until it ends; how it did, and whether it had been ready.
    fn run(&self, mut child: Child, control: UnixStream, wanted: &Receiver<()>) -> (String, bool) {
        let mut is_ready = false;
        let talked = self.talk(&control, child.id(), wanted, &mut is_ready);
        let _ = control.shutdown(std::net::Shutdown::Both);
        drop(control);
        let status = end(&mut child);
        let why = match (talked, status) {
            (Err(why), _) => why,
            (Ok(()), Ok(status)) => how(status),
            (Ok(()), Err(error)) => format!("is lost: {error}"),
        };
        (why, is_ready)
    }

    /// Until the process hangs up; tells whether it got ready.
    ///
    /// # Errors
    /// Why it is to be ended.
    fn talk(
        &self,
        control: &UnixStream,
        pid: u32,
        wanted: &Receiver<()>,
        is_ready: &mut bool,
    ) -> Result<(), String> {
        let failed = |error: io::Error| format!("cannot be talked to: {error}");
        control.set_read_timeout(Some(ASKED_EVERY)).map_err(failed)?;
        control.set_write_timeout(Some(ANSWERS_WITHIN)).map_err(failed)?;
        self.hand_over(control).map_err(failed)?;
        let link = Link::new(control.try_clone().map_err(failed)?);
        let mut decoder = Decoder::new(Reader::Server);
        // Of the question that has not been answered.
        let mut asked: Option<Instant> = None;
        let begun = Instant::now();
        let mut buffer = [0; 1024];
        loop {
            let mut socket = control;
            match socket.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => decoder.push(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if is_over(wanted) {
                        break;
                    }
                    match asked {
                        _ if !*is_ready && begun.elapsed() > READY_WITHIN => {
                            return Err(format!("is not ready after {READY_WITHIN:?} and was ended"));
                        }
                        Some(asked) if asked.elapsed() > ANSWERS_WITHIN => {
                            return Err(format!("has not answered for {ANSWERS_WITHIN:?} and was ended"));
                        }
                        None if *is_ready => {
                            if link.say(Kind::Ping, None).is_err() {
                                return Err("takes no orders and was ended".to_owned());
                            }
                            asked = Some(Instant::now());
                        }
                        _ => {}
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
                Err(error) => return Err(failed(error)),
            }
            let broken = |what: &dyn std::fmt::Display| format!("broke the protocol and was ended: {what}");
            while let Some(frame) = decoder.next_frame().map_err(|error| broken(&error))? {
                match frame.kind {
                    Kind::Pong => asked = None,
                    Kind::Ready if !*is_ready => {
                        *is_ready = true;
                        let confined: Confined =
                            serde_json::from_slice(&frame.payload).map_err(|error| broken(&error))?;
                        self.tell_ready(pid, confined);
                        self.state.send_replace(State::Up(Arc::clone(&link)));
                    }
                    Kind::Unfit if !*is_ready => {
                        let why = String::from_utf8_lossy(&frame.payload);
                        return Err(format!("cannot do its work: {why}"));
                    }
                    _ => return Err(broken(&unexpected(&frame))),
                }
            }
        }
        match link.condemned().take() {
            Some(why) => Err(format!("{why} and was ended")),
            None => Ok(()),
        }
    }

    fn tell_ready(&self, pid: u32, confined: Confined) {
        let name = &self.program.name;
        let who = match self.program.user {
            Some(user) => format!(" as user {}", user.uid),
            None => String::new(),
        };
        match confined.landlock {
            true => self.log.note(&format!(
                "group {name}: process {pid} runs its apps{who}, confined by Landlock and seccomp"
            )),
            false => self.log.error(&format!(
                "group {name}: process {pid} runs its apps{who}, confined by seccomp alone: this kernel has no Landlock"
            )),
        }
    }

    /// Sends what the process is to be, and the machine code.
    fn hand_over(&self, mut control: &UnixStream) -> io::Result<()> {
        let program = &self.program;
        let setup = Setup {
            name: program.name.clone(),
            python: program.python.clone(),
            cache: program.home.join("cache"),
            temp: program.home.join("tmp"),
            folders: program.folders.clone(),
            require_landlock: program.require_landlock,
            user: program.user,
        };
        let mut frame = Vec::new();
        encode(Kind::Setup, &[&serde_json::to_vec(&setup)?], &mut frame).map_err(io::Error::other)?;
        let code = (program.code)();
        let sent = match &code {
            Some(code) => send_with(control, &frame, code.as_fd(), true)?,
            None => 0,
        };
        control.write_all(&frame[sent..])
    }
}

/// Waits for the end of a process, and brings it about if that takes long.
fn end(child: &mut Child) -> io::Result<ExitStatus> {
    let begun = Instant::now();
    while begun.elapsed() < ENDS_WITHIN {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.kill()?;
    child.wait()
}

fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        // Whose name std puts behind its number.
        (Some(signal), _) => match status.to_string().strip_prefix("signal: ") {
            Some(named) => format!("was ended by signal {named}"),
            None => format!("was ended by signal {signal}"),
        },
        (None, Some(code)) => format!("ended with exit code {code}"),
        (None, None) => "ended".to_owned(),
    }
}

/// The group's own folder, in one that belongs to this process's user.
fn make_home(home: &Path, user: Option<User>) -> io::Result<()> {
    if let Some(parent) = home.parent() {
        // Others are to get to theirs; what is in them is private.
        DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(home) {
        Ok(()) => {
            if let Some(user) = user {
                chown(home, Some(user.uid), Some(user.gid))?;
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let there = fs::symlink_metadata(home)?;
            let uid = user.map_or_else(|| rustix::process::geteuid().as_raw(), |user| user.uid);
            match there.is_dir() && there.uid() == uid {
                true => Ok(()),
                false => Err(io::Error::other(format!(
                    "it does not belong to the group's user ({uid}): remove it, it will be made anew"
                ))),
            }
        }
        Err(error) => Err(error),
    }
}

/// Tells some of what a process writes to its standard error, and takes in the rest.
fn tell_lines(stderr: ChildStderr, log: &dyn GroupLog, name: &str) {
    let (lines, bytes) = STDERR;
    let mut reader = BufReader::new(stderr);
    for _ in 0..lines {
        let mut line = Vec::new();
        match reader.by_ref().take(bytes as u64).read_until(b'\n', &mut line) {
            Ok(1..) => log.note(&format!(
                "group {name}: {}",
                String::from_utf8_lossy(&line).trim_end()
            )),
            Ok(0) | Err(_) => return,
        }
    }
    let _ = io::copy(&mut reader, &mut io::sink());
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    struct Quiet;

    impl GroupLog for Quiet {
        fn note(&self, _: &str) {}
        fn error(&self, _: &str) {}
    }

    /// A process that is not there, and the two ends of the line to it.
    pub(crate) fn of_nobody() -> (Arc<Process>, Arc<Link>, UnixStream) {
        let program = Program {
            name: "nobody".to_owned(),
            user: None,
            require_landlock: false,
            folders: Vec::new(),
            python: PythonFiles {
                wasm: PathBuf::new(),
                lib: PathBuf::new(),
                version: String::new(),
            },
            code: Box::new(|| None),
            home: PathBuf::new(),
        };
        let until = Instant::now() + Duration::from_secs(3600);
        let process = Process {
            shared: Arc::new(Shared {
                program,
                log: Arc::new(Quiet),
                state: watch::Sender::new(State::Down("is not there".into(), until)),
            }),
            wanted: None,
            next: AtomicU64::new(1),
            sockets: Handle::current(),
        };
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        (Arc::new(process), Link::new(ours), theirs)
    }
}
