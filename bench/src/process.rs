//! A server under test: started, looked at, stopped.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, read_to_string};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use crate::apps::App;
use crate::client::{Reply, ask};

/// For a server to give its first reply. The first of all compiles CPython.
const START: Duration = Duration::from_secs(60);

/// For one reply of a server that is up.
pub const REPLY: Duration = Duration::from_secs(15);

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// Working directory.
    pub folder: PathBuf,
    /// All of the environment.
    pub env: Vec<(&'static str, OsString)>,
    /// The port it will listen on.
    pub port: u16,
    /// Takes its standard output and standard error.
    pub log: PathBuf,
}

/// A server that has answered once. Stopped when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// On 127.0.0.1.
    pub port: u16,
    /// From exec to the end of the first reply.
    pub cold_start: Duration,
    log: PathBuf,
}

/// Why there are no figures of a server.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// It cannot run this here.
    Unavailable(String),
    /// It ran, with errors or wrong answers: whatever its speed was, it does not count.
    Failed(String),
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self::Unavailable(why)
    }
}

impl From<Trouble> for String {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Unavailable(why) | Trouble::Failed(why) => why,
        }
    }
}

/// Memory of a process and its children, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Proportional set size: shared pages count by their share.
    pub pss: u64,
    /// Pages of no other process.
    pub private: u64,
    /// Pages of no file, an image in memory among those: written since, or never of one.
    pub anonymous: u64,
}

/// Lets this process and the servers open as many files as they may: a thousand connections need that many.
pub fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )
    .is_err()
    {
        eprintln!("bench: cannot raise the limit of open files");
    }
}

impl Launch {
    /// Starts the server and waits for a right answer of `app`.
    ///
    /// # Errors
    /// `Unavailable` with what the server said when it did not come up, `Failed` if its answer was wrong.
    pub fn start(&self, app: &App) -> Result<Running, Trouble> {
        let body = app.body();
        self.start_asking(
            |port| ask(port, "/", body.as_deref(), REPLY),
            |reply| app.check(reply),
        )
    }

    /// Starts the server and waits until it replies to `ask`, rightly as `check` sees it.
    ///
    /// # Errors
    /// As of [`start`](Self::start).
    pub fn start_asking(
        &self,
        ask: impl Fn(u16) -> std::io::Result<Reply>,
        check: impl Fn(&Reply) -> Result<(), String>,
    ) -> Result<Running, Trouble> {
        let failed = |what: &str, error: std::io::Error| format!("{what}: {error}");
        let name = self.command[0].to_string_lossy().into_owned();
        fs::create_dir_all(self.log.parent().unwrap_or(&self.folder))
            .map_err(|error| failed("log folder", error))?;
        let log = File::create(&self.log).map_err(|error| failed("log", error))?;
        let begun = Instant::now();
        let child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .current_dir(&self.folder)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|error| failed("log", error))?)
            .stderr(log)
            .spawn()
            .map_err(|error| failed(&name, error))?;
        let mut running = Running {
            child,
            port: self.port,
            cold_start: Duration::ZERO,
            log: self.log.clone(),
        };
        loop {
            if let Ok(reply) = ask(self.port) {
                running.cold_start = begun.elapsed();
                check(&reply).map_err(|wrong| Trouble::Failed(format!("wrong answer: {wrong}")))?;
                return Ok(running);
            }
            if let Ok(Some(status)) = running.child.try_wait() {
                return Err(format!("{} ({status})", running.last_words()).into());
            }
            if begun.elapsed() > START {
                return Err(format!("no answer within {START:?}: {}", running.last_words()).into());
            }
            sleep(Duration::from_micros(500));
        }
    }
}

impl Running {
    /// Asks for the app's page.
    ///
    /// # Errors
    /// Without a right answer.
    pub fn check(&self, app: &App) -> Result<Reply, String> {
        let reply = ask(self.port, "/", app.body().as_deref(), REPLY).map_err(|error| error.to_string())?;
        app.check(&reply)
            .map(|()| reply)
            .map_err(|wrong| format!("wrong answer: {wrong}"))
    }

    /// The end of what the server wrote, in one line.
    pub fn last_words(&self) -> String {
        let text = read_to_string(&self.log).unwrap_or_default();
        // A hint says what to do about a mistake that is not the reader's here.
        let lines: Vec<_> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with("hint:"))
            .collect();
        let words = lines[lines.len().saturating_sub(2)..].join("; ");
        // Paths of what this program has made say nothing to the reader.
        let made = self.log.parent().and_then(Path::parent).unwrap_or(&self.log);
        let words = words.replace(&format!("{}/", made.display()), "");
        match words.char_indices().nth(300) {
            Some((end, _)) => format!("{}...", &words[..end]),
            None if words.is_empty() => "it said nothing".into(),
            None => words,
        }
    }

    /// Waits until the server has written a text.
    ///
    /// # Errors
    /// If it does not within `patience`.
    pub fn wait_for(&self, text: &str, patience: Duration) -> Result<(), String> {
        let begun = Instant::now();
        while !read_to_string(&self.log).unwrap_or_default().contains(text) {
            if begun.elapsed() > patience {
                return Err(format!(
                    "it has not said {text:?} within {patience:?}: {}",
                    self.last_words()
                ));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Memory of the server and its children now.
    pub fn memory(&self) -> Memory {
        let mut sum = Memory::default();
        for pid in tree(self.child.id()) {
            let text = read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            for line in text.lines() {
                let mut words = line.split_ascii_whitespace();
                let (Some(name), Some(value)) = (words.next(), words.next()) else {
                    continue;
                };
                let bytes = value.parse::<u64>().unwrap_or(0) << 10;
                match name {
                    "Pss:" => sum.pss += bytes,
                    "Anonymous:" => sum.anonymous += bytes,
                    "Private_Clean:" | "Private_Dirty:" => sum.private += bytes,
                    _ => (),
                }
            }
        }
        sum
    }

    /// Mappings of the server's process now.
    pub fn mappings(&self) -> usize {
        read_to_string(format!("/proc/{}/maps", self.child.id())).map_or(0, |text| text.lines().count())
    }

    /// CPU time of the server and its children so far, in user and kernel mode.
    pub fn cpu(&self) -> Duration {
        let ticks: u64 = tree(self.child.id())
            .iter()
            .filter_map(|pid| stat(*pid))
            .map(|stat| stat.ticks)
            .sum();
        // USER_HZ, 100 on every Linux.
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let identity = |pid| Some((pid, stat(pid)?.started));
        let all: Vec<_> = tree(self.child.id()).into_iter().filter_map(identity).collect();
        signal(self.child.id(), Signal::TERM);
        let begun = Instant::now();
        let mut ended = false;
        while !ended && begun.elapsed() < Duration::from_secs(3) {
            ended = matches!(self.child.try_wait(), Ok(Some(_)));
            sleep(Duration::from_millis(5));
        }
        // What is left of it: a process id alone might be another's by now.
        for (pid, started) in all {
            if stat(pid).is_some_and(|stat| stat.started == started) {
                signal(pid, Signal::KILL);
            }
        }
        let _ = self.child.wait();
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }
}

struct Stat {
    parent: u32,
    ticks: u64,
    started: u64,
}

/// Of proc(5) `/proc/PID/stat`: fields 4, 14 and 15, 22. The name in field 2 may hold anything, so count from its end.
fn stat(pid: u32) -> Option<Stat> {
    let text = read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<_> = text[text.rfind(')')? + 2..].split(' ').collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        parent: number(4)? as u32,
        ticks: number(14)? + number(15)?,
        started: number(22)?,
    })
}

/// A process and all below it.
fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        if let Some(stat) = stat(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        found.extend(children.remove(&found[next]).unwrap_or_default());
        next += 1;
    }
    found
}
