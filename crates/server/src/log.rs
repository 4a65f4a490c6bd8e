//! The server's log: lines to stderr, from one thread, so that no worker waits for a slow terminal.

mod access;
mod date;
mod escape;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use wasgi_engine::AppLog;

pub(crate) use access::Access;
pub use access::AccessFormat;
use date::DateCache;
use escape::escape;

/// Most bytes of lines that wait to be written; further lines are counted instead.
const WAITING_MAX: usize = 1 << 20;

/// Longest line of an app, in bytes before escaping.
const LINE_MAX: usize = 8 << 10;

/// How long lines are gathered before they are written together.
const GATHER: Duration = Duration::from_millis(1);

/// Takes lines and writes them, whole and in order. A clone writes to the same place.
///
/// Taking a line costs a copy: when lines come faster than they can be written, the log says how many were lost
/// rather than make anybody wait.
#[derive(Clone)]
pub struct Log {
    front: Arc<Front>,
}

struct Front {
    shared: Arc<Shared>,
    format: AccessFormat,
    colour: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Told when there is a line and the writer sleeps.
    wake: Condvar,
    /// Told when all lines have been written.
    written: Condvar,
}

#[derive(Default)]
struct State {
    lines: String,
    lost: u64,
    sleeping: bool,
    writing: bool,
    closed: bool,
    dates: DateCache,
}

impl Log {
    /// A log to stderr, in colour if that is a terminal and `NO_COLOR` is not set.
    ///
    /// # Errors
    /// As [`to`](Self::to).
    pub fn to_stderr(format: AccessFormat) -> io::Result<Self> {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self::to(
            Box::new(io::stderr()),
            format,
            io::stderr().is_terminal() && !plain,
        )
    }

    /// A log to any writer. It is written to from a thread of its own.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn to(writer: Box<dyn Write + Send>, format: AccessFormat, colour: bool) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_writer = Arc::clone(&shared);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || of_writer.write(writer))?;
        Ok(Self {
            front: Arc::new(Front {
                shared,
                format,
                colour,
            }),
        })
    }

    /// A line about what the server does.
    pub fn note(&self, text: fmt::Arguments<'_>) {
        self.line(|line, _| escape(line, text));
    }

    /// A line about something that went wrong and was dealt with.
    pub fn warn(&self, text: fmt::Arguments<'_>) {
        self.marked("warning: ", "33", text);
    }

    /// A line about something that went wrong and has to be seen to.
    pub fn error(&self, text: fmt::Arguments<'_>) {
        self.marked("error: ", "31", text);
    }

    /// Where the lines of one app go, marked with its name.
    pub fn app(&self, name: &str) -> Arc<dyn AppLog> {
        Arc::new(OfApp {
            log: self.clone(),
            name: name.to_owned(),
        })
    }

    /// Waits until all lines have been written, but not longer than `most`.
    pub fn flush(&self, most: Duration) {
        let end = Instant::now() + most;
        let shared = &self.front.shared;
        let mut state = shared.lock();
        while !state.lines.is_empty() || state.writing {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = shared
                .written
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    pub(crate) fn access(&self, access: &Access<'_>) {
        match self.front.format {
            AccessFormat::Off => {}
            AccessFormat::Combined | AccessFormat::CombinedBill => {
                self.line(|line, dates| access.combined(dates, line));
            }
            AccessFormat::Json | AccessFormat::JsonBill => {
                self.line(|line, dates| access.json(dates, line));
            }
        }
    }

    /// Whether access lines tell what their requests cost.
    pub(crate) fn has_bill(&self) -> bool {
        self.front.format.has_bill()
    }

    fn marked(&self, mark: &str, colour: &str, text: fmt::Arguments<'_>) {
        self.line(|line, _| {
            self.coloured(line, colour, format_args!("{mark}"));
            escape(line, text);
        });
    }

    fn coloured(&self, line: &mut String, colour: &str, text: fmt::Arguments<'_>) {
        if self.front.colour {
            line.push_str("\x1b[");
            line.push_str(colour);
            line.push('m');
        }
        escape(line, text);
        if self.front.colour {
            line.push_str("\x1b[0m");
        }
    }

    /// Formats a line right into what will be written.
    fn line(&self, write: impl FnOnce(&mut String, &mut DateCache)) {
        let shared = &self.front.shared;
        let mut guard = shared.lock();
        let state = &mut *guard;
        if state.lines.len() >= WAITING_MAX {
            state.lost += 1;
            return;
        }
        write(&mut state.lines, &mut state.dates);
        state.lines.push('\n');
        let wake = std::mem::take(&mut state.sleeping);
        drop(guard);
        if wake {
            shared.wake.notify_one();
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("format", &self.front.format)
            .finish_non_exhaustive()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer's thread.
    fn write(&self, mut writer: Box<dyn Write + Send>) {
        let mut lines = String::new();
        loop {
            let mut state = self.lock();
            while state.lines.is_empty() {
                if state.closed {
                    return;
                }
                state.sleeping = true;
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if !state.closed {
                drop(state);
                thread::sleep(GATHER);
                state = self.lock();
            }
            std::mem::swap(&mut state.lines, &mut lines);
            state.writing = true;
            let lost = std::mem::take(&mut state.lost);
            drop(state);
            if lost > 0 {
                lines.push_str(&format!(
                    "warning: {lost} log lines lost: they come faster than they can be written\n"
                ));
            }
            // Nowhere to tell of a failure: the log itself has failed.
            let _ = writer.write_all(lines.as_bytes()).and_then(|()| writer.flush());
            lines.clear();
            self.lock().writing = false;
            self.written.notify_all();
        }
    }
}

struct OfApp {
    log: Log,
    name: String,
}

impl AppLog for OfApp {
    fn line(&self, request: Option<&str>, text: &str) {
        self.log.line(|line, _| {
            let name = &self.name;
            match request {
                Some(id) => self.log.coloured(line, "36", format_args!("app {name} [{id}]")),
                None => self.log.coloured(line, "36", format_args!("app {name}")),
            }
            line.push(' ');
            let text = &text[..text.floor_char_boundary(LINE_MAX)];
            escape(line, format_args!("{text}"));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Takes a write when it is told to.
    struct Gate(mpsc::Sender<Vec<u8>>, mpsc::Receiver<()>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.1.recv();
            let _ = self.0.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated(colour: bool) -> (Log, mpsc::Receiver<Vec<u8>>, mpsc::Sender<()>) {
        let (written, out) = mpsc::channel();
        let (open, gate) = mpsc::channel();
        (
            Log::to(Box::new(Gate(written, gate)), AccessFormat::Combined, colour).unwrap(),
            out,
            open,
        )
    }

    fn lines(colour: bool, tell: impl FnOnce(&Log)) -> String {
        let (log, out, open) = gated(colour);
        drop(open);
        tell(&log);
        log.flush(Duration::from_secs(10));
        out.try_iter()
            .map(|bytes| String::from_utf8(bytes).unwrap())
            .collect()
    }

    #[test]
    fn an_app_cannot_forge_lines_or_reach_the_terminal() {
        let told = lines(false, |log| {
            let app = log.app("hello");
            app.line(
                Some("abc"),
                "one\r\napp other [x] two\x1b[2Jthree\u{9b}\u{202e}four\tfive",
            );
            app.line(None, "start");
        });
        assert_eq!(
            told,
            "app hello [abc] one\\r\\napp other [x] two\\x1b[2Jthree\\x9b\\u{202e}four\tfive\napp hello start\n"
        );
    }

    #[test]
    fn an_apps_line_is_cut_to_its_limit() {
        let told = lines(false, |log| log.app("a").line(None, &"\u{e9}".repeat(10_000)));
        assert_eq!(told, format!("app a {}\n", "\u{e9}".repeat(4096)));
    }

    #[test]
    fn colour_is_for_terminals() {
        assert_eq!(lines(false, |log| log.warn(format_args!("a"))), "warning: a\n");
        assert_eq!(
            lines(true, |log| log.warn(format_args!("a"))),
            "\x1b[33mwarning: \x1b[0ma\n"
        );
    }

    #[test]
    fn lines_that_nobody_takes_are_counted_and_hold_nobody_up() {
        let (log, out, open) = gated(false);
        // The writer is stuck in its first write; the rest fills what may wait.
        for number in 0..WAITING_MAX / 100 {
            log.note(format_args!("{number} {}", "x".repeat(200)));
        }
        drop(open);
        log.flush(Duration::from_secs(10));
        log.note(format_args!("last"));
        log.flush(Duration::from_secs(10));
        let told: String = out
            .try_iter()
            .map(|bytes| String::from_utf8(bytes).unwrap())
            .collect();
        assert!(told.len() < WAITING_MAX * 5 / 2, "{}", told.len());
        let lost = told.lines().find_map(|line| {
            line.strip_prefix("warning: ")?
                .strip_suffix(" log lines lost: they come faster than they can be written")
        });
        let kept = told.lines().filter(|line| line.ends_with('x')).count();
        assert_eq!(lost.unwrap().parse::<usize>().unwrap() + kept, WAITING_MAX / 100);
        assert!(told.ends_with("\nlast\n"));
    }

    #[test]
    fn lines_of_many_threads_stay_whole() {
        let told = lines(false, |log| {
            thread::scope(|scope| {
                for name in ["a", "b", "c", "d"] {
                    scope.spawn(move || (0..200).for_each(|_| log.note(format_args!("{}", name.repeat(50)))));
                }
            });
        });
        assert_eq!(told.lines().count(), 800);
        assert!(
            told.lines()
                .all(|line| line.len() == 50 && line.bytes().all(|b| b == line.as_bytes()[0]))
        );
    }
}
