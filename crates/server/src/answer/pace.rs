//! Replies that go out no faster than `limits.reply-rate`.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::timer::Timer;

/// What goes out at once: as many bytes as are due in so long.
const STEP: Duration = Duration::from_millis(250);

/// Lets so many bytes a second of a reply go out.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: u64,
    /// When more may go out.
    next: Instant,
    timer: Timer,
    /// What is still to go out of the piece at hand.
    rest: Bytes,
}

impl Pace {
    /// `None` for no limit, which is what 0 stands for.
    pub(super) fn new(per_second: u64) -> Option<Box<Self>> {
        let pace = || Self {
            per_second,
            next: Instant::now(),
            timer: Timer::default(),
            rest: Bytes::new(),
        };
        (per_second > 0).then(|| Box::new(pace()))
    }

    /// Bytes of the piece at hand that are still to go out.
    pub(super) fn held(&self) -> u64 {
        self.rest.len() as u64
    }

    /// Ready when more may go out.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.poll(self.next, cx)
    }

    /// What is left of the piece at hand.
    pub(super) fn rest(&mut self) -> Option<Bytes> {
        (!self.rest.is_empty()).then(|| std::mem::take(&mut self.rest))
    }

    /// What may go out of a piece; the rest is kept.
    pub(super) fn part(&mut self, mut piece: Bytes) -> Bytes {
        let step = (self.per_second as f64 * STEP.as_secs_f64()) as usize;
        let part = piece.split_to(piece.len().min(step.max(1)));
        self.rest = piece;
        // Timers are late by some milliseconds, which small pieces would add up. An app that gave nothing for long has
        // no more coming for it.
        let earliest = Instant::now().checked_sub(STEP).unwrap_or(self.next);
        let time = Duration::from_secs_f64(part.len() as f64 / self.per_second as f64);
        self.next = self.next.max(earliest) + time;
        part
    }
}
