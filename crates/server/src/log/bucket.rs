//! How much an app may say.

use std::time::{Duration, Instant};

/// A rate is kept over so many seconds: who was quiet may say that much at once, as a traceback or a start does.
const BURST: u64 = 4;

/// How long what was held back is counted before it is told.
pub(super) const REPORT: Duration = Duration::from_secs(1);

/// Bytes that an app may have written, and what it was held back.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Bytes per second; `None` for no limit.
    rate: Option<u64>,
    /// In billionths of a byte, so that short waits at low rates count.
    filled: u128,
    at: Instant,
    held_back: HeldBack,
}

/// What did not get into the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HeldBack {
    pub(super) lines: u64,
    pub(super) bytes: u64,
}

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passes,
    /// It is counted; the first since the last report asks for the next one.
    HeldBack {
        first: bool,
    },
}

const NANOS: u128 = 1_000_000_000;

impl Bucket {
    pub(super) fn new(rate: Option<u64>, now: Instant) -> Self {
        Self {
            rate,
            filled: full(rate),
            at: now,
            held_back: HeldBack::default(),
        }
    }

    /// Another rate from now on; what has been used stays used.
    pub(super) fn set_rate(&mut self, rate: Option<u64>) {
        if self.rate.is_none() {
            self.filled = full(rate);
        }
        self.rate = rate;
        self.filled = self.filled.min(full(rate));
    }

    pub(super) fn take(&mut self, bytes: usize, now: Instant) -> Verdict {
        let Some(rate) = self.rate else {
            return Verdict::Passes;
        };
        let since = now.saturating_duration_since(self.at);
        self.at = now;
        let more = since.as_nanos().saturating_mul(u128::from(rate));
        self.filled = self.filled.saturating_add(more).min(full(self.rate));
        match self.filled.checked_sub(bytes as u128 * NANOS) {
            Some(left) => {
                self.filled = left;
                Verdict::Passes
            }
            None => {
                let first = self.held_back.lines == 0;
                self.held_back.lines += 1;
                self.held_back.bytes += bytes as u64;
                Verdict::HeldBack { first }
            }
        }
    }

    /// What was held back since the last time this was asked.
    pub(super) fn report(&mut self) -> Option<HeldBack> {
        let held_back = std::mem::take(&mut self.held_back);
        (held_back.lines > 0).then_some(held_back)
    }
}

fn full(rate: Option<u64>) -> u128 {
    u128::from(rate.unwrap_or_default() * BURST) * NANOS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Some(1000), start);
        for _ in 0..40 {
            assert_eq!(bucket.take(100, start), Verdict::Passes);
        }
        assert_eq!(bucket.take(100, start), Verdict::HeldBack { first: true });
        assert_eq!(bucket.take(50, start), Verdict::HeldBack { first: false });
        assert_eq!(bucket.report(), Some(HeldBack { lines: 2, bytes: 150 }));
        assert_eq!(bucket.report(), None);
        // Ten lines a second, whatever the steps in which the time goes by.
        let mut passed = 0;
        for millis in 1..=5000 {
            let now = start + Duration::from_millis(millis);
            passed += u32::from(bucket.take(100, now) == Verdict::Passes);
        }
        assert_eq!(passed, 50);
        let later = start + Duration::from_secs(3600);
        assert_eq!(bucket.take(4001, later), Verdict::HeldBack { first: false });
        assert_eq!(bucket.take(4000, later), Verdict::Passes);
    }

    #[test]
    fn another_rate_is_no_new_burst() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Some(1000), start);
        assert_eq!(bucket.take(4000, start), Verdict::Passes);
        bucket.set_rate(Some(2000));
        assert_eq!(bucket.take(1, start), Verdict::HeldBack { first: true });
        bucket.set_rate(None);
        assert_eq!(bucket.take(1 << 20, start), Verdict::Passes);
    }
}
