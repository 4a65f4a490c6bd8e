//! How long things take, counted in fixed classes.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where classes end, in microseconds, ends included: six in a decade from 0.1 ms on, the last at 100 s.
pub(crate) const ENDS: [u64; 37] = ends();

/// ... and what takes longer.
const CLASSES: usize = ENDS.len() + 1;

const fn ends() -> [u64; 37] {
    const STEPS: [u64; 6] = [100, 150, 200, 300, 500, 700];
    let mut ends = [100_000_000; 37];
    let (mut at, mut decade) = (0, 1);
    while at < 36 {
        ends[at] = STEPS[at % 6] * decade;
        at += 1;
        if at % 6 == 0 {
            decade *= 10;
        }
    }
    ends
}

/// Durations, counted without a lock.
#[derive(Debug)]
pub(crate) struct Histogram {
    counts: [AtomicU64; CLASSES],
    micros: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; CLASSES],
            micros: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    pub(crate) fn add(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let class = ENDS.partition_point(|end| *end < micros);
        self.counts[class].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Durations {
        Durations {
            counts: std::array::from_fn(|class| self.counts[class].load(Ordering::Relaxed)),
            sum: Duration::from_micros(self.micros.load(Ordering::Relaxed)),
        }
    }
}

/// What a [`Histogram`] had counted when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Durations {
    /// By class, the last for what took longer than all.
    pub(crate) counts: [u64; CLASSES],
    pub(crate) sum: Duration,
}

impl Default for Durations {
    fn default() -> Self {
        Self {
            counts: [0; CLASSES],
            sum: Duration::ZERO,
        }
    }
}

impl AddAssign for Durations {
    fn add_assign(&mut self, other: Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum += other.sum;
    }
}

impl Durations {
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(crate) fn mean(&self) -> Duration {
        let count = u32::try_from(self.count()).unwrap_or(u32::MAX);
        self.sum.checked_div(count).unwrap_or_default()
    }

    /// The time within which a `share` (0 to 1) of them was done, as near as the classes tell: spread evenly over each.
    /// `None` if there are none; 100 s if it is more.
    pub(crate) fn within(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        let wanted = (share * count as f64).max(1.0);
        let mut before = 0;
        for (class, here) in self.counts.iter().copied().enumerate() {
            if here > 0 && (before + here) as f64 >= wanted {
                let end = ENDS.get(class).copied().unwrap_or(ENDS[ENDS.len() - 1]);
                let start = class.checked_sub(1).map_or(0, |class| ENDS[class]);
                let part = (wanted - before as f64) / here as f64;
                let micros = start as f64 + (end - start) as f64 * part;
                return Some(Duration::from_micros(micros as u64));
            }
            before += here;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_rise_from_a_tenth_of_a_millisecond_to_100_seconds() {
        assert!(ENDS.is_sorted_by(|a, b| a < b));
        assert_eq!((ENDS[0], ENDS[6], ENDS[36]), (100, 1_000, 100_000_000));
    }

    #[test]
    fn a_time_at_the_end_of_a_class_is_in_it() {
        let histogram = Histogram::default();
        for micros in [0, 100, 101, 150, 100_000_000, 100_000_001] {
            histogram.add(Duration::from_micros(micros));
        }
        let read = histogram.read();
        assert_eq!((read.counts[0], read.counts[1]), (2, 2));
        assert_eq!((read.counts[36], read.counts[37]), (1, 1));
        assert_eq!(read.sum, Duration::from_micros(200_000_352));
    }

    #[test]
    fn shares_are_told_within_their_class() {
        let histogram = Histogram::default();
        assert_eq!(histogram.read().within(0.5), None);
        (0..98).for_each(|_| histogram.add(Duration::from_micros(1_200)));
        (0..2).for_each(|_| histogram.add(Duration::from_secs(1)));
        let read = histogram.read();
        let (half, most) = (read.within(0.5).unwrap(), read.within(0.99).unwrap());
        assert!(
            half > Duration::from_millis(1) && half <= Duration::from_micros(1_500),
            "{half:?}"
        );
        assert!(
            most > Duration::from_millis(700) && most <= Duration::from_secs(1),
            "{most:?}"
        );
        histogram.add(Duration::from_secs(1_000));
        assert_eq!(histogram.read().within(1.0), Some(Duration::from_secs(100)));
    }
}
