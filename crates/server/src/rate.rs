//! How many requests an app may get: so many a second, and after a quiet time a burst of them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Seconds' worth of requests that may come at once after a quiet time.
const BURST: f64 = 2.0;

/// Requests that an app has had and has not paid for with time yet. Its limit comes with each request: that may change,
/// and what was had before counts then as well.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    /// How many, and when that was looked at.
    had: Mutex<Option<(f64, Instant)>>,
}

impl Rate {
    /// Takes one of `per_second` requests, or says when to ask again. 0 stands for no limit.
    pub(crate) fn take(&self, per_second: u32) -> Result<(), Duration> {
        if per_second == 0 {
            return Ok(());
        }
        let per_second = f64::from(per_second);
        let most = per_second * BURST;
        let mut had = self.had.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let left = had.map_or(0.0, |(had, then)| had - (now - then).as_secs_f64() * per_second);
        // Whoever had more under a higher limit is not made to wait for all of it.
        let left = left.clamp(0.0, most);
        let more = left + 1.0;
        if more > most {
            *had = Some((left, now));
            return Err(Duration::from_secs_f64((more - most) / per_second));
        }
        *had = Some((more, now));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(rate: &Rate, per_second: u32) -> usize {
        (0..1000).take_while(|_| rate.take(per_second).is_ok()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_through_and_then_so_many_a_second() {
        let rate = Rate::default();
        assert_eq!(taken(&rate, 10), 20);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(taken(&rate, 10), 10);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(taken(&rate, 10), 20);
        assert_eq!(taken(&rate, 0), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_refused_hears_when_there_is_room() {
        let rate = Rate::default();
        taken(&rate, 2);
        let wait = rate.take(2).expect_err("too many");
        assert_eq!(wait, Duration::from_millis(500));
        tokio::time::advance(wait).await;
        assert_eq!(rate.take(2), Ok(()));
        assert!(rate.take(2).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn another_limit_leaves_what_was_had() {
        let rate = Rate::default();
        assert_eq!(taken(&rate, 10), 20);
        assert_eq!(taken(&rate, 100), 180);
        let wait = rate.take(10).expect_err("too many");
        assert_eq!(wait, Duration::from_millis(100));
    }
}
