//! How many requests an app may get: so many a second, and after a quiet time a burst of them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Seconds' worth of requests that may come at once after a quiet time.
const BURST: f64 = 2.0;

/// Requests that an app may still get. Refilled as time goes.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: f64,
    /// What there was, and when that was looked at.
    left: Mutex<(f64, Instant)>,
}

impl Rate {
    /// `None` for no limit, which is what 0 stands for.
    pub(crate) fn new(per_second: u32) -> Option<Self> {
        let per_second = f64::from(per_second);
        (per_second > 0.0).then(|| Self {
            per_second,
            left: Mutex::new((per_second * BURST, Instant::now())),
        })
    }

    /// Takes a request, or says when to ask again.
    pub(crate) fn take(&self) -> Result<(), Duration> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let gained = (now - left.1).as_secs_f64() * self.per_second;
        *left = ((left.0 + gained).min(self.per_second * BURST), now);
        if left.0 < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - left.0) / self.per_second));
        }
        left.0 -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(rate: &Rate) -> usize {
        (0..1000).take_while(|_| rate.take().is_ok()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_through_and_then_so_many_a_second() {
        let rate = Rate::new(10).expect("a limit");
        assert_eq!(taken(&rate), 20);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(taken(&rate), 10);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(taken(&rate), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_refused_hears_when_there_is_room() {
        let rate = Rate::new(2).expect("a limit");
        taken(&rate);
        let wait = rate.take().expect_err("too many");
        assert_eq!(wait, Duration::from_millis(500));
        tokio::time::advance(wait).await;
        assert_eq!(rate.take(), Ok(()));
        assert!(rate.take().is_err());
    }
}
