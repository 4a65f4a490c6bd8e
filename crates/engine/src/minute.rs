//! What was used within the last minute, second by second.

use std::time::{Duration, Instant};

const SECONDS: usize = 60;

/// Sums of the last sixty seconds, each counted as a whole. Knows no clock: it is told what time it is.
pub(crate) struct Minute {
    /// When second 0 began.
    start: Instant,
    /// The second that is being counted.
    now: u64,
    /// By the second they belong to, modulo 60.
    sums: [Duration; SECONDS],
    total: Duration,
}

impl Minute {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            now: 0,
            sums: [Duration::ZERO; SECONDS],
            total: Duration::ZERO,
        }
    }

    /// Counts what was used until `now`.
    pub(crate) fn add(&mut self, now: Instant, used: Duration) {
        self.turn_to(now);
        self.sums[place(self.now)] += used;
        self.total += used;
    }

    /// What was used in the minute before.
    pub(crate) fn total(&mut self, now: Instant) -> Duration {
        self.turn_to(now);
        self.total
    }

    /// When less than `most` was used in the minute before, if no more is used until then; `None` if that is so now.
    pub(crate) fn free_at(&mut self, now: Instant, most: Duration) -> Option<Instant> {
        self.turn_to(now);
        let mut left = self.total;
        // The second that is being counted is the last to go.
        for age in (0..SECONDS as u64).rev() {
            if left < most {
                break;
            }
            let Some(second) = self.now.checked_sub(age) else {
                continue;
            };
            left = left.saturating_sub(self.sums[place(second)]);
            if left < most {
                return Some(self.start + Duration::from_secs(second + SECONDS as u64));
            }
        }
        None
    }

    /// Forgets what is older than a minute by `now`.
    fn turn_to(&mut self, now: Instant) {
        let second = now.saturating_duration_since(self.start).as_secs();
        for gone in (self.now + 1..=second).take(SECONDS) {
            self.total = self
                .total
                .saturating_sub(std::mem::take(&mut self.sums[place(gone)]));
        }
        self.now = self.now.max(second);
    }
}

fn place(second: u64) -> usize {
    (second % SECONDS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_minute_later_it_is_forgotten_and_not_before() {
        let start = Instant::now();
        let at = |millis| start + ms(millis);
        let mut minute = Minute::new(start);
        assert_eq!(minute.free_at(at(0), ms(1)), None);
        minute.add(at(900), ms(900));
        minute.add(at(10_500), ms(500));
        assert_eq!(minute.free_at(at(10_500), ms(1_401)), None);
        // The first second's sum is enough to go, for the smaller limit both are.
        assert_eq!(minute.free_at(at(10_500), ms(1_400)), Some(at(60_000)));
        assert_eq!(minute.free_at(at(10_500), ms(501)), Some(at(60_000)));
        assert_eq!(minute.free_at(at(10_500), ms(500)), Some(at(70_000)));
        assert_eq!(minute.free_at(at(59_999), ms(1_400)), Some(at(60_000)));
        assert_eq!(minute.free_at(at(60_000), ms(1_400)), None);
        assert_eq!(minute.free_at(at(69_999), ms(500)), Some(at(70_000)));
        assert_eq!(minute.free_at(at(70_000), ms(1)), None);
    }

    #[test]
    fn who_goes_on_is_told_a_later_moment_and_nothing_is_lost_in_a_long_pause() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut minute = Minute::new(start);
        for second in 0..600 {
            minute.add(at(second), ms(100));
            let free = minute.free_at(at(second), ms(1_000));
            let expected = (second >= 9).then(|| at(second - 9 + 60));
            assert_eq!(free.is_some(), second >= 9, "{second}");
            if second < 60 {
                assert_eq!(free, expected, "{second}");
            }
        }
        assert_eq!(minute.total, ms(6_000));
        assert_eq!(minute.free_at(at(100_000), ms(1)), None);
        assert_eq!(minute.total, Duration::ZERO);
        // A moment that is past counts as the last one known.
        minute.add(at(5), ms(10));
        assert_eq!(minute.free_at(at(5), ms(10)), Some(at(100_060)));
    }
}
