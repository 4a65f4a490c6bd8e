//! The guests' monotonic clock. It is an app's, not a process's: an image that is taken from disk was made under the clock
//! of an earlier process, and what its app noted then must lie in the past, by as much as has passed.

use std::time::{Duration, Instant, SystemTime};

/// The clock that all instances of an app read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// What it showed...
    shown: Duration,
    /// ...at this moment of this process.
    at: Instant,
}

/// A moment that another process understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// What the app's monotonic clock showed.
    pub(crate) monotonic: Duration,
    /// What the machine's clock showed, since 1970.
    pub(crate) wall: Duration,
}

impl Clock {
    /// Counts from the start of this process: for apps that have been imported in it.
    pub(crate) fn of_process() -> Self {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        Self {
            shown: Duration::ZERO,
            at: *START.get_or_init(Instant::now),
        }
    }

    /// Goes on from a moment of an earlier process, by the time that has passed since. If the machine's clock has been
    /// set back meanwhile, that is not known and taken for none: it never runs backwards.
    pub(crate) fn since(moment: Moment) -> Self {
        Self {
            shown: moment
                .monotonic
                .saturating_add(wall().saturating_sub(moment.wall)),
            at: Instant::now(),
        }
    }

    pub(crate) fn now(self) -> Duration {
        self.shown.saturating_add(self.at.elapsed())
    }

    pub(crate) fn moment(self) -> Moment {
        Moment {
            monotonic: self.now(),
            wall: wall(),
        }
    }

    /// When it shows `time`; a moment that is over if that was before this process. `None` for later than this machine can
    /// count.
    pub(crate) fn when(self, time: Duration) -> Option<Instant> {
        self.at.checked_add(time.saturating_sub(self.shown))
    }
}

/// The machine's clock; zero if it stands before 1970.
fn wall() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn close(a: Duration, b: Duration) -> bool {
        a.abs_diff(b) < Duration::from_secs(5)
    }

    #[test]
    fn a_clock_goes_on_by_the_time_that_has_passed() {
        let moment = Clock::of_process().moment();
        let earlier = Moment {
            monotonic: 100 * HOUR,
            wall: moment.wall - 3 * HOUR,
        };
        let clock = Clock::since(earlier);
        assert!(close(clock.now(), 103 * HOUR), "{:?}", clock.now());
        let in_an_hour = clock.when(clock.now() + HOUR).expect("near");
        assert!(close(in_an_hour - Instant::now(), HOUR));
        assert!(clock.when(HOUR).expect("past") <= Instant::now());
    }

    #[test]
    fn a_clock_never_runs_backwards() {
        let ahead = Moment {
            monotonic: 7 * HOUR,
            wall: wall() + HOUR,
        };
        let clock = Clock::since(ahead);
        assert!(
            clock.now() >= 7 * HOUR && close(clock.now(), 7 * HOUR),
            "{:?}",
            clock.now()
        );
    }

    #[test]
    fn no_time_is_too_far_for_it() {
        let clock = Clock::since(Moment {
            monotonic: Duration::MAX,
            wall: Duration::ZERO,
        });
        assert_eq!(clock.now(), Duration::MAX);
        assert_eq!(Clock::of_process().when(Duration::MAX), None);
    }
}
