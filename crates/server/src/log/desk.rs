//! Where lines wait, and the thread that writes them.
//!
//! ```text
//! server's notes   1 MiB --.
//! access lines     1 MiB ---+--> a batch per place --> its sink: stderr, a file, syslog, the journal
//! app a          256 KiB --'
//! app b          256 KiB -'
//! ```
//!
//! Whoever fills its share loses lines, and nobody else does.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::app::App;
use super::batch::{Batch, Line, Severity};
use super::escape::escape;
use super::sink::{Failed, Sink};

/// Most bytes of lines that wait to be written, of the server's own and again of access lines; further lines are
/// counted instead.
pub(super) const WAITING_MAX: usize = 1 << 20;

/// The same for each app, while few say much; when many do, all of them together have [`APPS_WAITING_MAX`].
const APP_WAITING_MAX: usize = 256 << 10;
const APPS_WAITING_MAX: usize = 16 << 20;

/// An app's least share, so that it has room for a line.
const APP_WAITING_MIN: usize = 16 << 10;

/// How long lines are gathered before they are written together.
const GATHER: Duration = Duration::from_millis(1);

/// Between two looks at what can be let go of.
const REST: Duration = Duration::from_secs(10);

/// Whose share a line takes.
#[derive(Clone, Copy)]
pub(super) enum Share<'a> {
    Server,
    Access,
    App(&'a Arc<App>),
}

pub(super) struct Desk {
    state: Mutex<State>,
    /// Told when there is something to do and the writer sleeps.
    wake: Condvar,
    /// Told when all lines have been written.
    written: Condvar,
    colour: bool,
}

#[derive(Default)]
struct State {
    places: Vec<Place>,
    /// Places with lines, or lost ones.
    due: Vec<usize>,
    /// Bytes that wait of the server's own lines and of access lines.
    waiting: [usize; 2],
    /// Apps with bytes that wait.
    waiting_apps: Vec<Arc<App>>,
    /// When to tell what of an app was counted.
    reports: Vec<(Instant, Arc<App>)>,
    known: Vec<Arc<App>>,
    sleeping: bool,
    writing: bool,
    closed: bool,
    reopen: bool,
}

struct Place {
    batch: Batch,
    /// Absent while the writer uses it.
    sink: Option<Box<dyn Sink>>,
    /// What takes its place once the writer is done with it.
    next: Option<Box<dyn Sink>>,
    marked: bool,
    /// Lines that found no room.
    lost: u64,
    /// Lines lost since the sink fails, if it does.
    failing: Option<u64>,
}

impl Desk {
    /// A desk with a place for `sink`, number 0. What becomes of sinks is told to `tell`.
    ///
    /// # Errors
    /// When the writer's thread cannot be started.
    pub(super) fn open(
        sink: Option<Box<dyn Sink>>,
        colour: bool,
        tell: Box<dyn Write + Send>,
    ) -> std::io::Result<Arc<Self>> {
        let desk = Arc::new(Self {
            state: Mutex::default(),
            wake: Condvar::new(),
            written: Condvar::new(),
            colour,
        });
        if let Some(sink) = sink {
            desk.add(sink);
        }
        let of_writer = Arc::clone(&desk);
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            Writer {
                desk: of_writer,
                tell,
            }
            .run()
        })?;
        Ok(desk)
    }

    /// Another place, and its number.
    pub(super) fn add(&self, sink: Box<dyn Sink>) -> usize {
        let mut state = self.lock();
        state.places.push(Place {
            batch: Batch::default(),
            marked: sink.wants_marks(),
            sink: Some(sink),
            next: None,
            lost: 0,
            failing: None,
        });
        state.places.len() - 1
    }

    /// Has lines of a place go elsewhere from now on.
    pub(super) fn replace(&self, place: usize, sink: Box<dyn Sink>) {
        if let Some(place) = self.lock().places.get_mut(place) {
            place.next = Some(sink);
            place.change_sink();
        }
    }

    /// Has what is kept of an app's lines given up when it is quiet.
    pub(super) fn know(&self, app: &Arc<App>) {
        self.lock().known.push(Arc::clone(app));
    }

    pub(super) fn push(&self, place: usize, share: Share<'_>, line: &Line<'_>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let has_room = state.charge(share, line.text.len() + 1);
        let Some(at) = state.places.get_mut(place) else {
            return;
        };
        let was_due = at.batch.lines > 0 || at.lost > 0;
        if has_room {
            at.batch.push(line, self.colour, at.marked);
        } else {
            at.lost += 1;
        }
        if !was_due {
            state.due.push(place);
        }
        self.wake(guard);
    }

    /// Has it told at `due` what of the app is counted until then: what it is held back, and its failures that come again.
    pub(super) fn report(&self, app: &Arc<App>, due: Instant) {
        let mut state = self.lock();
        state.reports.push((due, Arc::clone(app)));
        self.wake(state);
    }

    /// Has files opened anew.
    pub(super) fn reopen(&self) {
        let mut state = self.lock();
        state.reopen = true;
        self.wake(state);
    }

    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.wake(state);
    }

    /// Waits until all lines have been written, but not past `end`.
    pub(super) fn flush(&self, end: Instant) {
        let mut state = self.lock();
        let now = Instant::now();
        state.reports.iter_mut().for_each(|(due, _)| *due = now);
        if std::mem::take(&mut state.sleeping) {
            self.wake.notify_one();
        }
        while state.is_busy() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self
                .written
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let sleeping = std::mem::take(&mut state.sleeping);
        drop(state);
        if sleeping {
            self.wake.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes room for so many bytes, if there is.
    fn charge(&mut self, share: Share<'_>, bytes: usize) -> bool {
        let app = match share {
            Share::App(app) => app,
            Share::Server | Share::Access => {
                let waiting = &mut self.waiting[usize::from(matches!(share, Share::Access))];
                let has_room = *waiting < WAITING_MAX;
                *waiting += if has_room { bytes } else { 0 };
                return has_room;
            }
        };
        let waiting = app.waiting();
        if waiting == 0 {
            self.waiting_apps.push(Arc::clone(app));
        }
        let most = (APPS_WAITING_MAX / self.waiting_apps.len()).clamp(APP_WAITING_MIN, APP_WAITING_MAX);
        let has_room = waiting < most;
        // Never 0 again before it is written: it is in the list once.
        app.set_waiting(waiting + if has_room { bytes } else { 0 });
        has_room
    }

    fn is_busy(&self) -> bool {
        !self.due.is_empty() || self.writing || self.reopen || !self.reports.is_empty()
    }

    /// Tells of the apps whose time has come; of all of them when the log is closed.
    fn tell_counted(&mut self, now: Instant, colour: bool) {
        let closed = self.closed;
        let mut told = Vec::new();
        self.reports.retain(|(due, app)| {
            let is_due = closed || *due <= now;
            if is_due {
                told.push(Arc::clone(app));
            }
            !is_due
        });
        for app in told {
            let mut lines = Vec::new();
            if let Some(held_back) = app.held_back() {
                let (count, kib) = (held_back.lines, held_back.bytes.div_ceil(1024));
                lines.push(format!("suppressed {count} lines ({kib} KiB) in the last second"));
            }
            lines.extend(app.repeated(now));
            let Some(place) = self.places.get_mut(app.place) else {
                continue;
            };
            for line in lines {
                let mut text = String::new();
                escape(&mut text, format_args!("app {}: {line}", app.name));
                app.keep(&text, now);
                if place.batch.lines == 0 && place.lost == 0 {
                    self.due.push(app.place);
                }
                let line = Line {
                    text: &text,
                    mark: (0, ""),
                    severity: Severity::Warning,
                    app: Some(&app.name),
                    id: None,
                };
                place.batch.push(&line, colour, place.marked);
            }
        }
    }

    /// When there is something to do at the latest.
    fn next(&self, rest: Option<Instant>) -> Option<Instant> {
        let reports = self.reports.iter().map(|(due, _)| *due);
        reports.chain(rest).min()
    }
}

impl Place {
    /// Puts the next sink in, unless the writer has the present one.
    fn change_sink(&mut self) {
        if self.sink.is_some() && self.next.is_some() {
            self.sink = self.next.take();
        }
    }
}

struct Writer {
    desk: Arc<Desk>,
    tell: Box<dyn Write + Send>,
}

impl Writer {
    fn run(mut self) {
        let desk = Arc::clone(&self.desk);
        let mut batch = Batch::default();
        // While something is held that can be let go of.
        let mut rest = None;
        loop {
            let mut state = desk.lock();
            loop {
                let now = Instant::now();
                state.tell_counted(now, desk.colour);
                if !state.due.is_empty() || state.reopen || rest.is_some_and(|rest| rest <= now) {
                    break;
                }
                // A report may have come to nothing.
                desk.written.notify_all();
                if state.closed {
                    return;
                }
                state.sleeping = true;
                state = match state.next(rest) {
                    Some(next) => {
                        let left = next.saturating_duration_since(now);
                        let waited = desk.wake.wait_timeout(state, left);
                        waited.unwrap_or_else(PoisonError::into_inner).0
                    }
                    None => desk.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                };
                state.sleeping = false;
            }
            if !state.closed && !state.due.is_empty() {
                drop(state);
                thread::sleep(GATHER);
                state = desk.lock();
            }
            state.writing = true;
            let due = std::mem::take(&mut state.due);
            let reopen = std::mem::take(&mut state.reopen);
            state.waiting = [0; 2];
            for app in state.waiting_apps.drain(..) {
                app.set_waiting(0);
            }
            drop(state);
            for place in due {
                self.write(place, &mut batch);
            }
            if reopen {
                self.each_sink(|sink| sink.reopen());
            }
            let now = Instant::now();
            if rest.is_none_or(|rest| rest <= now) {
                rest = self.rest(now).then(|| now + REST);
            }
            desk.lock().writing = false;
            desk.written.notify_all();
        }
    }

    fn write(&mut self, number: usize, batch: &mut Batch) {
        let mut state = self.desk.lock();
        let place = &mut state.places[number];
        std::mem::swap(&mut place.batch, batch);
        let lost = std::mem::take(&mut place.lost);
        let (marked, failing) = (place.marked, place.failing);
        let Some(mut sink) = place.sink.take() else { return };
        drop(state);
        if lost > 0 {
            push_warning(
                batch,
                &format!("warning: {lost} log lines lost: they come faster than they can be written"),
                marked,
            );
        }
        let failing = match (sink.write(batch, Instant::now()), failing) {
            (Ok(()), None) => None,
            (Ok(()), Some(lost)) => {
                self.is_back(&mut *sink, lost, batch, marked);
                None
            }
            (Err(Failed { lost, error }), before) => {
                if before.is_none()
                    && let Some(name) = sink.name()
                {
                    self.say(&format!(
                        "error: the log cannot be written to {name}: {error}; its lines are lost until it can"
                    ));
                }
                Some(before.unwrap_or_default() + lost)
            }
        };
        batch.clear();
        let mut state = self.desk.lock();
        let place = &mut state.places[number];
        (place.sink, place.failing) = (Some(sink), failing);
        place.change_sink();
    }

    /// Tells what was lost, here and where it was lost from.
    fn is_back(&mut self, sink: &mut dyn Sink, lost: u64, batch: &mut Batch, marked: bool) {
        if let Some(name) = sink.name() {
            self.say(&format!(
                "the log is written to {name} again; {lost} lines were lost"
            ));
        }
        batch.clear();
        push_warning(
            batch,
            &format!("warning: {lost} log lines lost before the last ones: they could not be written"),
            marked,
        );
        let _ = sink.write(batch, Instant::now());
    }

    /// True if something is held that may be let go of later.
    fn rest(&mut self, now: Instant) -> bool {
        let known = self.desk.lock().known.clone();
        let mut holds = false;
        known.iter().for_each(|app| holds |= app.rest(now));
        self.each_sink(|sink| holds |= sink.rest(now));
        holds
    }

    fn each_sink(&self, mut with: impl FnMut(&mut dyn Sink)) {
        let places = self.desk.lock().places.len();
        for number in 0..places {
            let taken = self.desk.lock().places[number].sink.take();
            if let Some(mut sink) = taken {
                with(&mut *sink);
                let place = &mut self.desk.lock().places[number];
                place.sink = Some(sink);
                place.change_sink();
            }
        }
    }

    fn say(&mut self, text: &str) {
        // Nowhere to tell of a failure of this one.
        let _ = self.tell.write_all(format!("{text}\n").as_bytes());
        let _ = self.tell.flush();
    }
}

fn push_warning(batch: &mut Batch, text: &str, marked: bool) {
    let line = Line {
        text,
        mark: (0, ""),
        severity: Severity::Warning,
        app: None,
        id: None,
    };
    batch.push(&line, false, marked);
}
