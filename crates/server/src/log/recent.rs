//! The last lines of an app, for who wants to see them without a file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::broadcast;

/// At least so many bytes of lines are kept, if there were so many; at most twice that.
const KEPT: usize = 32 << 10;

/// Most lines that are told.
const LINES: usize = 200;

/// How long an app's lines are kept when no more come.
const REST: Duration = Duration::from_secs(600);

/// How many lines a follower may be behind; then it is told how many it missed.
const BEHIND: usize = 1024;

/// An app's last lines, and those that come.
#[derive(Debug)]
pub struct Tail {
    /// At most 200, oldest first, without their ends.
    pub recent: Vec<String>,
    /// Each line from here on. One that is taken too slowly tells how many it has missed.
    pub lines: broadcast::Receiver<Arc<str>>,
}

#[derive(Debug)]
pub(super) struct Recent {
    /// Whole lines, each with its end.
    text: String,
    last: Instant,
    followers: Option<broadcast::Sender<Arc<str>>>,
}

impl Recent {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            text: String::new(),
            last: now,
            followers: None,
        }
    }

    pub(super) fn push(&mut self, line: &str, now: Instant) {
        self.last = now;
        if self.text.len() + line.len() >= 2 * KEPT {
            // Once in many lines, so that what is kept is seldom moved.
            let from = self.text.len().saturating_sub(KEPT);
            let start = self.text.as_bytes()[from..]
                .iter()
                .position(|&byte| byte == b'\n')
                .map_or(self.text.len(), |at| from + at + 1);
            self.text.drain(..start);
        }
        self.text.push_str(line);
        self.text.push('\n');
        if let Some(followers) = &self.followers
            && followers.send(line.into()).is_err()
        {
            self.followers = None;
        }
    }

    pub(super) fn tail(&mut self) -> Tail {
        let followers = self
            .followers
            .get_or_insert_with(|| broadcast::Sender::new(BEHIND));
        let lines = followers.subscribe();
        let mut recent: Vec<String> = self.text.lines().rev().take(LINES).map(str::to_owned).collect();
        recent.reverse();
        Tail { recent, lines }
    }

    /// Gives up the lines of an app that has been quiet; true if there are lines still.
    pub(super) fn rest(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.last) >= REST {
            self.text = String::new();
        }
        !self.text.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_whole_and_bounded() {
        let now = Instant::now();
        let mut recent = Recent::new(now);
        for number in 0..10_000 {
            recent.push(&format!("{number} {}", "\u{e9}".repeat(number % 300)), now);
            assert!(recent.text.len() <= 2 * KEPT);
        }
        let lines = recent.tail().recent;
        assert!(!lines.is_empty() && lines.len() <= LINES);
        for (line, number) in lines.iter().rev().zip((0..10_000).rev()) {
            assert_eq!(*line, format!("{number} {}", "\u{e9}".repeat(number % 300)));
        }
        recent.push(&"x".repeat(3 * KEPT), now);
        recent.push("after", now);
        assert_eq!(recent.tail().recent.last().unwrap(), "after");
        assert!(recent.rest(now));
        assert!(!recent.rest(now + REST));
        assert_eq!(recent.text.capacity(), 0);
    }

    #[test]
    fn followers_get_each_line_and_are_forgotten_when_they_go() {
        let now = Instant::now();
        let mut recent = Recent::new(now);
        recent.push("before", now);
        let mut tail = recent.tail();
        recent.push("after", now);
        assert_eq!(tail.recent, ["before"]);
        assert_eq!(&*tail.lines.try_recv().unwrap(), "after");
        drop(tail);
        recent.push("nobody", now);
        assert!(recent.followers.is_none());
    }
}
