//! Log files of apps' owners: what the operator's log has of an app, once more, in a folder that the app may write to.
//!
//! Owners are not trusted. A folder of theirs that hangs, is full or is gone costs lines of that file alone: they wait at a
//! desk of their own, in a share of the app's own.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use wasgi_config::{APP, AccessFormat, Logging};

use super::app::App;
use super::batch::{Batch, Severity};
use super::desk::Desk;
use super::file::{LogFile, Rotation};
use super::place::{OpenRoom, Place};
use super::sink::{Failed, Sink};
use super::{Front, Log, marked};

/// Between two words to the operator that an owner's file cannot be written.
const TELL: Duration = Duration::from_secs(60);

/// A log file of an app's owner.
pub struct OwnLog {
    /// `[log]` of its `app.toml`: format and rotation.
    pub settings: Logging,
    /// Opens the folder of `[files]` that the file is in.
    pub open: OpenRoom,
    /// The file's path below it.
    pub inside: PathBuf,
}

/// Where the lines of one app go besides.
#[derive(Debug)]
pub(super) struct Own {
    /// Its place at the desk for such files, and its share there.
    pub(super) share: Arc<App>,
    pub(super) format: AccessFormat,
    /// Whether the owner wants none any more.
    pub(super) is_over: bool,
}

impl Own {
    fn ended(&self) -> Self {
        Self {
            share: Arc::clone(&self.share),
            format: AccessFormat::Off,
            is_over: true,
        }
    }
}

impl Log {
    /// Has the lines of an app written to its owner's own file as well from now on, or no longer.
    pub fn set_own(&self, name: &str, own: Option<OwnLog>) {
        let app = self.of(name);
        let before = app.own();
        let Some(own) = own else {
            // Its place is kept: it may come back.
            app.set_own(before.map(|own| Arc::new(own.ended())));
            return;
        };
        let desk = match self.front.own.get() {
            Some(desk) => desk,
            None => match Desk::open(None, false, Box::new(io::sink())) {
                Ok(desk) => self.front.own.get_or_init(|| desk),
                Err(error) => {
                    self.error(format_args!("app {name}: its own log cannot be written: {error}"));
                    return;
                }
            },
        };
        let OwnLog {
            settings,
            open,
            inside,
        } = own;
        let inside = PathBuf::from(inside.to_string_lossy().replace(APP, name));
        let rotation = settings.rotate_size.map(|size| Rotation {
            size,
            keep: settings.rotate_keep,
        });
        let shown = inside.display().to_string();
        let place = Place::OfApp {
            open,
            room: None,
            inside,
        };
        let sink = Box::new(Told {
            file: LogFile::new(place, rotation),
            shown,
            app: Arc::downgrade(&app),
            front: Arc::downgrade(&self.front),
            told: None,
        });
        let share = match before {
            Some(before) => {
                desk.replace(before.share.place, sink);
                Arc::clone(&before.share)
            }
            None => App::new(name, desk.add(sink)),
        };
        let format = settings.access;
        if format.has_bill() {
            self.front.own_bills.store(true, Ordering::Relaxed);
        }
        app.set_own(Some(Arc::new(Own {
            share,
            format,
            is_over: false,
        })));
    }
}

/// An owner's file; that it fails is told among the lines of its app.
struct Told {
    file: LogFile,
    shown: String,
    app: Weak<App>,
    front: Weak<Front>,
    told: Option<Instant>,
}

impl Told {
    fn tell(&self, what: fmt::Arguments<'_>) {
        let (Some(app), Some(front)) = (self.app.upgrade(), self.front.upgrade()) else {
            return;
        };
        let text = format_args!("app {}: {what}", app.name);
        Log { front }.say(&app, Severity::Warning, None, 0, |line| {
            marked(line, "warning: ", "33", text)
        });
    }
}

impl Sink for Told {
    fn write(&mut self, batch: &Batch, now: Instant) -> Result<(), Failed> {
        let written = self.file.write(batch, now);
        if let Err(Failed { error, .. }) = &written
            && self
                .told
                .is_none_or(|told| now.saturating_duration_since(told) >= TELL)
        {
            self.told = Some(now);
            self.tell(format_args!(
                "its own log {} cannot be written: {error}; its lines are lost there until it can",
                self.shown
            ));
        }
        written
    }

    fn reopen(&mut self) {
        self.file.reopen();
    }

    fn rest(&mut self, now: Instant) -> bool {
        self.file.rest(now)
    }
}
