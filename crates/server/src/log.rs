//! The server's log: what it does, a line for each request, and what apps say.
//!
//! Lines are made harmless and whole by whoever tells them, and written from a thread of its own, so that no worker waits
//! for a slow terminal or a full disk.

mod access;
mod app;
mod batch;
mod bucket;
mod datagram;
mod date;
mod desk;
mod escape;
mod file;
#[cfg(test)]
mod forgery;
mod format;
mod own;
mod place;
mod recent;
mod sink;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

pub use wasgi_config::AccessFormat;
use wasgi_config::{APP, LogTo, Logging, Tracing};
use wasgi_engine::{AppLog, COUNTED, News};

pub(crate) use access::Access;
use app::App;
use batch::{Line, Severity};
use bucket::{REPORT, Verdict};
use datagram::Datagrams;
use date::DateCache;
use desk::{Desk, Share};
use escape::escape;
pub(crate) use escape::json;
pub use escape::{ascii_json, harmless};
use file::{LogFile, Rotation};
pub use own::OwnLog;
pub use place::OpenRoom;
use place::Place;
pub use recent::Tail;
use sink::{Sink, Stream};

use crate::request_id::RequestId;
use crate::trace::{MaybeTracer, Tracer};

/// Longest line of an app, in bytes before escaping.
const LINE_MAX: usize = 8 << 10;

/// What a line takes of an app's rate beside its text, so that empty ones are not free.
const LINE_COST: usize = 32;

/// Takes lines and writes them, whole and in order. A clone writes to the same place.
///
/// Taking a line costs a copy: when lines come faster than they can be written, the log says how many were lost
/// rather than make anybody wait. The server's own lines, access lines and those of each app have room of their own to
/// wait in, so that nobody's lines are lost to another's flood.
#[derive(Clone)]
pub struct Log {
    front: Arc<Front>,
}

struct Front {
    desk: Arc<Desk>,
    /// Where the lines of apps wait, if they have files of their own.
    files: Option<Files>,
    /// Where the lines of apps wait whose owners have files of their own besides.
    own: OnceLock<Arc<Desk>>,
    /// Whether any of those tells what requests cost.
    own_bills: AtomicBool,
    apps: RwLock<HashMap<Arc<str>, Arc<App>>>,
    format: AccessFormat,
    trusts_request_id: bool,
    tracer: MaybeTracer,
}

/// A file per app. Its desk has a thread of its own: a terminal that hangs does not keep lines from the files.
struct Files {
    desk: Arc<Desk>,
    /// With [`APP`] in it.
    path: PathBuf,
    rotation: Option<Rotation>,
}

thread_local! {
    /// Where a thread makes its lines.
    static MAKING: RefCell<(String, DateCache)> = RefCell::default();
}

impl Log {
    /// A log to stderr, in colour if that is a terminal and `NO_COLOR` is not set.
    ///
    /// # Errors
    /// As [`to`](Self::to).
    pub fn to_stderr(format: AccessFormat) -> io::Result<Self> {
        Self::to(Box::new(io::stderr()), format, is_colourful())
    }

    /// The log that the configuration asks for.
    ///
    /// # Errors
    /// When its file cannot be opened, or a thread cannot be started.
    pub fn start(settings: &Logging) -> io::Result<Self> {
        let rotation = settings.rotate_size.map(|size| Rotation {
            size,
            keep: settings.rotate_keep,
        });
        let is_per_app = |path: &&PathBuf| path.to_string_lossy().contains(APP);
        let sink: Box<dyn Sink> = match (&settings.file, settings.to) {
            (Some(path), _) if !is_per_app(&path) => {
                let mut file = LogFile::new(Place::Path(path.clone()), rotation);
                file.open()?;
                Box::new(file)
            }
            (_, LogTo::Stderr) => Box::new(Stream(Box::new(io::stderr()))),
            (_, LogTo::Syslog) => Box::new(Datagrams::syslog()),
            (_, LogTo::Journald) => Box::new(Datagrams::journal()),
        };
        let files = match settings.file.as_ref().filter(is_per_app) {
            Some(path) => Some(Files {
                desk: Desk::open(None, false, Box::new(io::stderr()))?,
                path: path.clone(),
                rotation,
            }),
            None => None,
        };
        // No other sink asks for colour.
        let colour = settings.to == LogTo::Stderr && sink.name().is_none() && is_colourful();
        Ok(Self {
            front: Arc::new(Front {
                desk: Desk::open(Some(sink), colour, Box::new(io::stderr()))?,
                files,
                own: OnceLock::new(),
                own_bills: AtomicBool::new(false),
                apps: RwLock::default(),
                format: settings.access.clone(),
                trusts_request_id: settings.trust_request_id,
                tracer: MaybeTracer::new(),
            }),
        })
    }

    /// A log to any writer. It is written to from a thread of its own.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn to(writer: Box<dyn Write + Send>, format: AccessFormat, colour: bool) -> io::Result<Self> {
        let sink: Box<dyn Sink> = Box::new(Stream(writer));
        Ok(Self {
            front: Arc::new(Front {
                desk: Desk::open(Some(sink), colour, Box::new(io::stderr()))?,
                files: None,
                own: OnceLock::new(),
                own_bills: AtomicBool::new(false),
                apps: RwLock::default(),
                format,
                trusts_request_id: false,
                tracer: MaybeTracer::new(),
            }),
        })
    }

    /// Has the spans of requests sent to a collector from now on.
    ///
    /// # Errors
    /// When the thread that sends them cannot be started.
    pub fn trace(&self, tracing: &Tracing) -> io::Result<()> {
        let front = Arc::downgrade(&self.front);
        let tell = move |text: fmt::Arguments<'_>| {
            if let Some(front) = front.upgrade() {
                Self { front }.warn(text);
            }
        };
        let tracer = Tracer::start(tracing, Box::new(tell))?;
        // A second one is not started.
        let _ = self.front.tracer.set(tracer);
        Ok(())
    }

    /// A line about what the server does.
    pub fn note(&self, text: fmt::Arguments<'_>) {
        self.tell(Severity::Notice, None, |line, _| {
            escape(line, text);
            (0, "")
        });
    }

    /// A line about something that went wrong and was dealt with.
    pub fn warn(&self, text: fmt::Arguments<'_>) {
        self.tell(Severity::Warning, None, |line, _| {
            marked(line, "warning: ", "33", text)
        });
    }

    /// A line about something that went wrong and has to be seen to.
    pub fn error(&self, text: fmt::Arguments<'_>) {
        self.tell(Severity::Error, None, |line, _| {
            marked(line, "error: ", "31", text)
        });
    }

    /// Where the lines of one app go, marked with its name.
    pub fn app(&self, name: &str) -> Arc<dyn AppLog> {
        self.app_within(name, None)
    }

    /// As [`app`](Self::app), for an app that may say so many bytes per second, and a few times that at once.
    ///
    /// What it says beyond is dropped, and a line a second tells how much that was.
    pub fn app_within(&self, name: &str, rate: Option<u64>) -> Arc<dyn AppLog> {
        let app = self.of(name);
        app.set_rate(rate);
        Arc::new(OfApp {
            log: self.clone(),
            app,
        })
    }

    /// The last lines of an app, access lines included, and those to come. `name` is not looked at: the log remembers
    /// whatever app it is asked for.
    pub fn tail(&self, name: &str) -> Tail {
        self.of(name).tail()
    }

    /// Opens files anew, so that those that were moved away stay as they are.
    pub fn reopen(&self) {
        self.front.desks().for_each(|desk| desk.reopen());
    }

    /// Waits until all lines have been written, but not longer than `most`.
    pub fn flush(&self, most: Duration) {
        let end = Instant::now() + most;
        if let Some(tracer) = self.tracer() {
            tracer.flush(end);
        }
        self.front.desks().for_each(|desk| desk.flush(end));
    }

    /// A warning about a request to an app: one of the app's lines, since the app may have any number of them.
    pub(crate) fn warn_of(&self, name: &str, id: RequestId, text: fmt::Arguments<'_>) {
        let app = self.of(name);
        self.say(&app, Severity::Warning, Some(id), 0, |line| {
            marked(line, "warning: ", "33", format_args!("app {name} [{id}]: {text}"))
        });
    }

    pub(crate) fn access(&self, access: &Access<'_>) {
        let (front, format) = (&self.front, &self.front.format);
        if *format == AccessFormat::Off && front.own.get().is_none() {
            return;
        }
        let app = access.app.map(|name| self.of(name));
        if *format != AccessFormat::Off {
            self.make(|line, dates| {
                access.write(format, dates, line);
                if let Some(app) = &app {
                    app.keep(line, Instant::now());
                }
                let line = access_line(line, app.as_ref(), access.id);
                let place = app.as_ref().map_or(0, |app| app.place);
                let desk = app.as_ref().map_or(&front.desk, |_| front.desk_of_apps());
                desk.push(place, Share::Access, &line);
            });
        }
        if let Some((desk, own)) = front.own.get().zip(app.as_ref().and_then(|app| app.own()))
            && own.format != AccessFormat::Off
        {
            self.make(|line, dates| {
                access.write(&own.format, dates, line);
                let line = access_line(line, app.as_ref(), access.id);
                desk.push(own.share.place, Share::App(&own.share), &line);
            });
        }
    }

    /// Whether access lines tell what their requests cost.
    pub(crate) fn has_bill(&self) -> bool {
        self.front.format.has_bill() || self.front.own_bills.load(Ordering::Relaxed)
    }

    /// Whether what peers call their requests is taken over.
    pub(crate) fn trusts_request_id(&self) -> bool {
        self.front.trusts_request_id
    }

    pub(crate) fn tracer(&self) -> Option<&Tracer> {
        self.front.tracer.get()
    }

    /// What is known of an app, from now on.
    fn of(&self, name: &str) -> Arc<App> {
        let apps = &self.front.apps;
        if let Some(app) = apps.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Arc::clone(app);
        }
        let mut apps = apps.write().unwrap_or_else(PoisonError::into_inner);
        let app = apps.entry(name.into()).or_insert_with(|| {
            let place = self.front.files.as_ref().map_or(0, |files| {
                let path = files.path.to_string_lossy().replace(APP, name);
                files
                    .desk
                    .add(Box::new(LogFile::new(Place::Path(path.into()), files.rotation)))
            });
            let app = App::new(name, place);
            self.front.desk_of_apps().know(&app);
            app
        });
        Arc::clone(app)
    }

    /// A line of the server's own.
    fn tell(
        &self,
        severity: Severity,
        id: Option<RequestId>,
        write: impl FnOnce(&mut String, &mut DateCache) -> (usize, &'static str),
    ) {
        self.make(|line, dates| {
            let mark = write(line, dates);
            let line = Line {
                text: line,
                mark,
                severity,
                app: None,
                id,
            };
            self.front.desk.push(0, Share::Server, &line);
        });
    }

    /// A line of an app, of about `bytes`, unless it has said too much.
    fn say(
        &self,
        app: &Arc<App>,
        severity: Severity,
        id: Option<RequestId>,
        bytes: usize,
        write: impl FnOnce(&mut String) -> (usize, &'static str),
    ) {
        let now = Instant::now();
        match app.takes(bytes + LINE_COST, now) {
            Verdict::Passes => {}
            Verdict::HeldBack { first } => {
                if first {
                    self.front.desk_of_apps().report(app, now + REPORT);
                }
                return;
            }
        }
        self.make(|line, _| {
            let mark = write(line);
            app.keep(line, now);
            let line = Line {
                text: line,
                mark,
                severity,
                app: Some(&app.name),
                id,
            };
            self.front.desk_of_apps().push(app.place, Share::App(app), &line);
            if let Some((desk, own)) = self.front.own.get().zip(app.own())
                && !own.is_over
            {
                desk.push(own.share.place, Share::App(&own.share), &line);
            }
        });
    }

    /// Makes a line where no lock is held.
    fn make(&self, with: impl FnOnce(&mut String, &mut DateCache)) {
        MAKING.with_borrow_mut(|(line, dates)| {
            line.clear();
            with(line, dates);
        });
    }
}

impl Front {
    fn desks(&self) -> impl Iterator<Item = &Arc<Desk>> {
        [&self.desk]
            .into_iter()
            .chain(self.files.iter().map(|files| &files.desk))
            .chain(self.own.get())
    }

    /// The desk whose places apps have.
    fn desk_of_apps(&self) -> &Arc<Desk> {
        self.files.as_ref().map_or(&self.desk, |files| &files.desk)
    }
}

fn access_line<'a>(text: &'a str, app: Option<&'a Arc<App>>, id: RequestId) -> Line<'a> {
    Line {
        text,
        mark: (0, ""),
        severity: Severity::Info,
        app: app.map(|app| &app.name),
        id: Some(id),
    }
}

/// Whether standard error shows colours, and is to.
fn is_colourful() -> bool {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !plain
}

fn marked(
    line: &mut String,
    mark: &str,
    colour: &'static str,
    text: fmt::Arguments<'_>,
) -> (usize, &'static str) {
    line.push_str(mark);
    escape(line, text);
    (mark.len(), colour)
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
        self.desks().for_each(|desk| desk.close());
    }
}

struct OfApp {
    log: Log,
    app: Arc<App>,
}

impl AppLog for OfApp {
    fn is_news(&self, request: Option<&str>, failure: &str) -> bool {
        let now = Instant::now();
        match self.app.fails(failure, request, now) {
            News::Whole => true,
            News::Counted { first } => {
                if first {
                    let desk = self.log.front.desk_of_apps();
                    desk.report(&self.app, now + COUNTED);
                }
                false
            }
        }
    }

    fn line(&self, request: Option<&str>, text: &str) {
        let text = &text[..text.floor_char_boundary(LINE_MAX)];
        self.log.say(&self.app, Severity::Info, None, text.len(), |line| {
            let name = &self.app.name;
            match request {
                Some(id) => escape(line, format_args!("app {name} [{id}]")),
                None => escape(line, format_args!("app {name}")),
            }
            let mark = (line.len(), "36");
            line.push(' ');
            escape(line, format_args!("{text}"));
            mark
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::desk::WAITING_MAX;
    use super::*;

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

    #[test]
    fn a_flood_of_one_app_costs_nobody_else_a_line() {
        let (log, out, open) = gated(false);
        let (loud, quiet) = (log.app("loud"), log.app("quiet"));
        for number in 0..20_000 {
            loud.line(None, &"x".repeat(1000));
            if number % 100 == 0 {
                quiet.line(None, &format!("{number}"));
                log.note(format_args!("note {number}"));
            }
        }
        drop(open);
        log.flush(Duration::from_secs(10));
        let told: String = out
            .try_iter()
            .map(|bytes| String::from_utf8(bytes).unwrap())
            .collect();
        for number in (0..20_000).step_by(100) {
            assert!(told.contains(&format!("app quiet {number}\n")), "{number}");
            assert!(told.contains(&format!("\nnote {number}\n")), "{number}");
        }
        let kept = told.lines().filter(|line| line.starts_with("app loud")).count();
        assert!(kept < 1000, "{kept}");
        let lost: usize = told
            .lines()
            .filter_map(|line| {
                line.strip_prefix("warning: ")?
                    .strip_suffix(" log lines lost: they come faster than they can be written")
            })
            .map(|lost| lost.parse::<usize>().unwrap())
            .sum();
        assert_eq!(kept + lost, 20_000);
    }

    #[test]
    fn what_an_app_says_beyond_its_rate_is_counted_and_told_once_a_second() {
        let told = lines(false, |log| {
            let app = log.app_within("loud", Some(10_000));
            let begun = Instant::now();
            (0..1000).for_each(|_| app.line(Some("abc"), &"x".repeat(1000 - LINE_COST)));
            assert!(begun.elapsed() < Duration::from_secs(1));
            log.app("quiet").line(None, "heard");
        });
        let passed = told.lines().filter(|line| line.ends_with("xxx")).count();
        assert!((40..50).contains(&passed), "{passed}");
        let held_back = 1000 - passed;
        let kib = (held_back * 1000).div_ceil(1024);
        let report = format!("app loud: suppressed {held_back} lines ({kib} KiB) in the last second\n");
        assert!(told.contains(&report), "{told}");
        assert!(told.contains("app quiet heard\n"));
    }

    #[test]
    fn a_destination_that_fails_is_told_and_recovers() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let settings = Logging {
            file: Some(inner.join("{app}.log")),
            ..Logging::default()
        };
        let log = Log::start(&settings).unwrap();
        let (broken, whole) = (log.app("broken"), log.app("whole"));
        std::fs::create_dir(inner.join("broken.log")).unwrap();
        let second = Duration::from_secs(1);
        for number in 0..100 {
            broken.line(None, &format!("lost {number}"));
            whole.line(None, &format!("{number}"));
        }
        log.flush(10 * second);
        std::fs::remove_dir(inner.join("broken.log")).unwrap();
        broken.line(None, "kept");
        log.flush(10 * second);
        let read = |name: &str| std::fs::read_to_string(inner.join(name)).unwrap();
        assert_eq!(read("whole.log").lines().count(), 100);
        assert_eq!(
            read("broken.log"),
            "app broken kept\nwarning: 100 log lines lost before the last ones: they could not be written\n"
        );
        // Moved away, as logrotate does.
        std::fs::rename(inner.join("whole.log"), inner.join("whole.old")).unwrap();
        log.reopen();
        log.flush(10 * second);
        whole.line(None, "new");
        log.flush(10 * second);
        assert_eq!(read("whole.log"), "app whole new\n");
    }

    #[test]
    fn a_tail_has_what_was_said_and_what_comes() {
        let (log, _out, _open) = gated(true);
        let app = log.app("a");
        app.line(Some("abc"), "before\x1b");
        let mut tail = log.tail("a");
        log.app("b").line(None, "of another");
        app.line(None, "after");
        assert_eq!(tail.recent, ["app a [abc] before\\x1b"]);
        assert_eq!(&*tail.lines.try_recv().unwrap(), "app a after");
        assert!(tail.lines.try_recv().is_err());
    }
}
