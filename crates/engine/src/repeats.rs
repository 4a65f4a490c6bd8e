//! Failures of one app that come again and again: told whole once, then counted.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long what comes again is counted before that is told, and how long a failure has to stay away to be news.
pub const COUNTED: Duration = Duration::from_secs(60);

/// After so long it is told whole even if it never stayed away: by then nobody finds where it was.
const TOLD_ANEW: Duration = Duration::from_secs(3600);

/// Failures that are known at a time. An app that has more of them is told whole: it has its log-rate.
const KNOWN: usize = 64;

/// Bytes of what tells a failure from others.
const WHAT_MAX: usize = 400;

/// An app's failures, by what tells one from others.
#[derive(Debug, Default)]
pub struct Repeats(HashMap<Box<str>, Known>);

#[derive(Debug)]
struct Known {
    told_whole: Instant,
    /// When it was told last, whole or counted.
    told: Instant,
    more: u64,
    /// The request that had it last.
    last: Option<Box<str>>,
}

/// What becomes of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It is to be told.
    Whole,
    /// It is counted; the first since the last report asks for the next one.
    Counted {
        /// Whether nothing was counted before.
        first: bool,
    },
}

impl Repeats {
    /// Takes note of a failure; what is to be done about it.
    pub fn take(&mut self, what: &str, request: Option<&str>, now: Instant) -> News {
        let what = &what[..what.floor_char_boundary(WHAT_MAX)];
        if let Some(known) = self.0.get_mut(what) {
            let since = |then: Instant| now.saturating_duration_since(then);
            if since(known.told_whole) < TOLD_ANEW && (known.more > 0 || since(known.told) < COUNTED) {
                known.more += 1;
                known.last = request.map(Into::into);
                return News::Counted {
                    first: known.more == 1,
                };
            }
            (known.told_whole, known.told) = (now, now);
            return News::Whole;
        }
        if self.0.len() >= KNOWN {
            self.0
                .retain(|_, known| known.more > 0 || now.saturating_duration_since(known.told) < COUNTED);
        }
        if self.0.len() < KNOWN {
            let known = Known {
                told_whole: now,
                told: now,
                more: 0,
                last: None,
            };
            self.0.insert(what.into(), known);
        }
        News::Whole
    }

    /// A line for each failure that has come again since the last time this was asked. Not escaped.
    pub fn report(&mut self, now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        for (what, known) in &mut self.0 {
            let more = std::mem::take(&mut known.more);
            if more == 0 {
                continue;
            }
            known.told = now;
            let last = known.last.take();
            let last = last
                .map(|id| format!(", the last as request {id}"))
                .unwrap_or_default();
            lines.push(format!("{what}: {more} more in the last minute{last}"));
        }
        lines.sort();
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: News = News::Counted { first: true };
    const MORE: News = News::Counted { first: false };

    #[test]
    fn what_comes_again_is_counted_and_nothing_is_lost() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut repeats = Repeats::default();
        assert_eq!(repeats.take("a", Some("r1"), start), News::Whole);
        assert_eq!(repeats.take("b", Some("r2"), start), News::Whole);
        assert!(repeats.report(at(1)).is_empty());
        assert_eq!(repeats.take("a", Some("r3"), at(1)), FIRST);
        assert_eq!(repeats.take("a", None, at(2)), MORE);
        assert_eq!(repeats.take("b", Some("r4"), at(2)), FIRST);
        assert_eq!(
            repeats.report(at(61)),
            [
                "a: 2 more in the last minute",
                "b: 1 more in the last minute, the last as request r4"
            ]
        );
        // It goes on, and is counted from nothing.
        assert_eq!(repeats.take("a", Some("r5"), at(62)), FIRST);
        assert_eq!(
            repeats.report(at(122)),
            ["a: 1 more in the last minute, the last as request r5"]
        );
        assert!(repeats.report(at(123)).is_empty());
    }

    #[test]
    fn it_is_news_after_a_quiet_minute_and_after_an_hour() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut repeats = Repeats::default();
        assert_eq!(repeats.take("a", None, start), News::Whole);
        assert_eq!(repeats.take("a", None, at(60)), News::Whole);
        let mut whole = 0;
        for second in 61..=3_660 {
            whole += u32::from(repeats.take("a", None, at(second)) == News::Whole);
            if second % 30 == 0 {
                repeats.report(at(second));
            }
        }
        assert_eq!(whole, 1);
    }

    #[test]
    fn who_fails_in_many_ways_is_told_of_each() {
        let start = Instant::now();
        let mut repeats = Repeats::default();
        for number in 0..1_000 {
            assert_eq!(repeats.take(&format!("{number}"), None, start), News::Whole);
        }
        assert_eq!(repeats.0.len(), KNOWN);
        assert_eq!(repeats.take("999", None, start), News::Whole);
        let long = "\u{e9}".repeat(1_000);
        let later = start + COUNTED;
        assert_eq!(repeats.take(&long, None, later), News::Whole);
        assert_eq!(repeats.take(&long, None, later), FIRST);
        assert_eq!(repeats.0.len(), 1);
    }
}
