//! The keys of `[limits]`: one list for the file, the command line and their help.

use std::time::Duration;

use crate::config::Limits;
use crate::problem::{At, Problem};
use crate::units::Unit;

/// One key of `[limits]`, also an option of `wasgi serve`.
#[derive(Debug)]
pub struct LimitKey {
    /// `request-body`.
    pub name: &'static str,
    /// Its default as one would write it.
    pub default: &'static str,
    /// One line for the help.
    pub help: &'static str,
    unit: Unit,
    /// Smallest and largest value, in milliseconds, bytes or a count.
    range: (u64, u64),
    set: fn(&mut Limits, u64),
}

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

/// All keys of `[limits]`.
pub const LIMITS: &[LimitKey] = &[
    LimitKey {
        name: "time",
        default: "30s",
        help: "Wall clock per request; then Python gets an exception and the client a 504",
        unit: Unit::Time,
        range: (10, DAY),
        set: |limits, value| limits.time = ms(value),
    },
    LimitKey {
        name: "cpu",
        default: "0s",
        help: "Time that Python may run per request, waits left out; then it gets an exception and the client a 504; 0s for no limit",
        unit: Unit::Time,
        range: (0, DAY),
        set: |limits, value| limits.cpu = ms(value),
    },
    LimitKey {
        name: "cpu-per-minute",
        default: "0s",
        help: "Time that Python may run within a minute, of all workers; then requests get a 429; 0s for no limit",
        unit: Unit::Time,
        // A minute on each of many cores.
        range: (0, 24 * HOUR),
        set: |limits, value| limits.cpu_per_minute = ms(value),
    },
    LimitKey {
        name: "slow",
        default: "0s",
        help: "Wall clock of a request until the log has its Python stack, once; it goes on; 0s is never",
        unit: Unit::Time,
        range: (0, DAY),
        set: |limits, value| limits.slow = ms(value),
    },
    LimitKey {
        name: "start-time",
        default: "60s",
        help: "Wall clock for starting Python and importing the app",
        unit: Unit::Time,
        range: (100, HOUR),
        set: |limits, value| limits.start_time = ms(value),
    },
    LimitKey {
        name: "memory",
        default: "256MiB",
        help: "Memory of each worker; at the limit Python gets a MemoryError",
        unit: Unit::Size,
        // Below, CPython cannot start; above, 32-bit WebAssembly cannot address it.
        range: (32 << 20, 4 << 30),
        set: |limits, value| limits.memory = value,
    },
    LimitKey {
        name: "memory-total",
        default: "0B",
        help: "Memory of all workers together; beyond it requests wait for a worker that has some; 0B for no limit",
        unit: Unit::Size,
        range: (0, 1 << 50),
        set: |limits, value| limits.memory_total = value,
    },
    LimitKey {
        name: "disk",
        default: "0B",
        help: "What each writable folder of [files] may hold, if its quota is not less; 0B for no limit",
        unit: Unit::Size,
        range: (0, 1 << 50),
        set: |limits, value| limits.disk = value,
    },
    LimitKey {
        name: "disk-files",
        default: "0",
        help: "Files and folders that each writable folder of [files] may hold, if its max-files is not less; 0 for no limit",
        unit: Unit::Count,
        range: (0, 1 << 40),
        set: |limits, value| limits.disk_files = value,
    },
    LimitKey {
        name: "temp",
        default: "256MiB",
        help: "What all workers together may have in /tmp; at the limit Python gets an OSError (ENOSPC)",
        unit: Unit::Size,
        range: (0, 1 << 40),
        set: |limits, value| limits.temp = value,
    },
    LimitKey {
        name: "temp-files",
        default: "10000",
        help: "Files and folders that all workers together may have in /tmp",
        unit: Unit::Count,
        range: (0, 10_000_000),
        set: |limits, value| limits.temp_files = value,
    },
    LimitKey {
        name: "open-files",
        default: "1000",
        help: "Files that each worker may have open; at the limit Python gets an OSError (EMFILE)",
        unit: Unit::Count,
        // Below, an import fails; above, the guest gives out no descriptors.
        range: (16, 1000),
        set: |limits, value| limits.open_files = value as usize,
    },
    LimitKey {
        name: "request-body",
        default: "16MiB",
        help: "Longest request body; a longer one gets a 413",
        unit: Unit::Size,
        range: (0, 1 << 40),
        set: |limits, value| limits.request_body = value,
    },
    LimitKey {
        name: "reply-size",
        default: "1GiB",
        help: "Longest body of a reply; a longer one is cut off, and Python gets an OSError (EPIPE)",
        unit: Unit::Size,
        range: (0, 1 << 40),
        set: |limits, value| limits.reply_size = value,
    },
    LimitKey {
        name: "reply-rate",
        default: "0B",
        help: "How much of each reply goes out per second, as nginx's limit_rate; 0B for any",
        unit: Unit::Size,
        range: (0, 1 << 40),
        set: |limits, value| limits.reply_rate = value,
    },
    LimitKey {
        name: "request-head",
        default: "64KiB",
        help: "Longest request line and headers together; longer ones get a 431",
        unit: Unit::Size,
        // The environ block holds values of at most 65,535 bytes, and hyper wants a buffer of 8 KiB.
        range: (8 << 10, 64 << 10),
        set: |limits, value| limits.request_head = value as usize,
    },
    LimitKey {
        name: "concurrency",
        default: "64",
        help: "Requests that run at a time with isolation = \"request\", waiting ones included",
        unit: Unit::Count,
        range: (1, 4096),
        set: |limits, value| limits.concurrency = value as u32,
    },
    LimitKey {
        name: "rate",
        default: "0",
        help: "Requests a second, twice as many at once after a pause; further ones get a 429; 0 for no limit",
        unit: Unit::Count,
        range: (0, 1_000_000),
        set: |limits, value| limits.rate = value as u32,
    },
    LimitKey {
        name: "queue",
        default: "64",
        help: "Requests that may wait for a worker; further ones get a 503",
        unit: Unit::Count,
        range: (0, 65_536),
        set: |limits, value| limits.queue = value as usize,
    },
    LimitKey {
        name: "queue-time",
        default: "10s",
        help: "Longest wait for a worker; then the client gets a 503",
        unit: Unit::Time,
        range: (10, HOUR),
        set: |limits, value| limits.queue_time = ms(value),
    },
    LimitKey {
        name: "connections",
        default: "1024",
        help: "Connections open at a time; further ones wait until one closes",
        unit: Unit::Count,
        range: (1, 65_536),
        set: |limits, value| limits.connections = value as usize,
    },
    LimitKey {
        name: "head-time",
        default: "10s",
        help: "Longest time a client may take to send a request's head",
        unit: Unit::Time,
        range: (10, HOUR),
        set: |limits, value| limits.head_time = ms(value),
    },
    LimitKey {
        name: "body-time",
        default: "30s",
        help: "Longest pause of a client within a request's body",
        unit: Unit::Time,
        range: (10, HOUR),
        set: |limits, value| limits.body_time = ms(value),
    },
    LimitKey {
        name: "idle-time",
        default: "60s",
        help: "How long a connection may stay open between two requests",
        unit: Unit::Time,
        range: (10, DAY),
        set: |limits, value| limits.idle_time = ms(value),
    },
    LimitKey {
        name: "write-time",
        default: "30s",
        help: "Longest pause of a client in taking a reply",
        unit: Unit::Time,
        range: (10, HOUR),
        set: |limits, value| limits.write_time = ms(value),
    },
    LimitKey {
        name: "stop-time",
        default: "30s",
        help: "How long running requests may go on after SIGTERM or SIGINT",
        unit: Unit::Time,
        range: (0, HOUR),
        set: |limits, value| limits.stop_time = ms(value),
    },
    LimitKey {
        name: "log-rate",
        default: "64KiB",
        help: "What the app may write to the log per second, and four times that at once; the rest is counted",
        unit: Unit::Size,
        // Below, a burst has no room for the longest line.
        range: (4 << 10, 1 << 30),
        set: |limits, value| limits.log_rate = value,
    },
];

/// A limit as typed: in the file a count is a number and the others are texts; an option is always a text.
#[derive(Clone, Debug)]
pub(crate) enum Typed {
    Text(String),
    Number(i64),
}

impl LimitKey {
    /// Whether the value is a bare number, as for `queue`.
    pub fn is_count(&self) -> bool {
        self.unit == Unit::Count
    }

    pub(crate) fn apply(&self, limits: &mut Limits, typed: &At<Typed>) -> Result<(), Problem> {
        self.set(limits, self.value(typed)?);
        Ok(())
    }

    /// Sets a value that [`value`](Self::value) gave.
    pub(crate) fn set(&self, limits: &mut Limits, value: u64) {
        (self.set)(limits, value);
    }

    /// What is used where nothing is typed.
    pub(crate) fn default_value(&self) -> u64 {
        self.unit.parse(self.default).unwrap_or_default()
    }

    /// Whether a value lets more through than `cap` does. Where 0 is the default, it stands for no limit.
    pub(crate) fn passes(&self, value: u64, cap: u64) -> bool {
        value > cap || (value == 0 && cap > 0 && self.default_value() == 0)
    }

    /// A value as one would write it.
    pub(crate) fn show(&self, value: u64) -> String {
        self.unit.show(value)
    }

    /// The value typed, in milliseconds, bytes or a count.
    pub(crate) fn value(&self, typed: &At<Typed>) -> Result<u64, Problem> {
        let value = match &typed.value {
            Typed::Number(number) if self.is_count() => match u64::try_from(*number) {
                Ok(value) => value,
                Err(_) => return Err(self.out_of_range(typed, number.to_string())),
            },
            // Refused for want of a unit, with a hint that has one.
            Typed::Number(number) => self.parse(typed, &number.to_string())?,
            Typed::Text(text) => self.parse(typed, text)?,
        };
        let (low, high) = self.range;
        if value < low || value > high {
            return Err(self.out_of_range(
                typed,
                match &typed.value {
                    Typed::Text(text) => text.clone(),
                    Typed::Number(number) => number.to_string(),
                },
            ));
        }
        Ok(value)
    }

    fn parse(&self, typed: &At<Typed>, text: &str) -> Result<u64, Problem> {
        self.unit
            .parse(text)
            .map_err(|error| typed.problem(error.what, error.hint))
    }

    fn out_of_range(&self, typed: &At<Typed>, shown: String) -> Problem {
        let (low, high) = (self.unit.show(self.range.0), self.unit.show(self.range.1));
        typed.problem(
            format!("{shown} is not from {low} to {high}"),
            format!("the default is {}", self.default),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Place;

    #[test]
    fn the_defaults_told_are_the_defaults_used() {
        let mut limits = Limits {
            time: ms(1),
            cpu: ms(1),
            cpu_per_minute: ms(1),
            slow: ms(1),
            start_time: ms(1),
            memory: 1,
            memory_total: 1,
            disk: 1,
            disk_files: 1,
            temp: 1,
            temp_files: 1,
            open_files: 1,
            request_body: 1,
            reply_size: 1,
            reply_rate: 1,
            request_head: 1,
            concurrency: 1,
            rate: 1,
            queue: 1,
            queue_time: ms(1),
            connections: 1,
            head_time: ms(1),
            body_time: ms(1),
            idle_time: ms(1),
            write_time: ms(1),
            stop_time: ms(1),
            log_rate: 1,
        };
        for key in LIMITS {
            let typed = Typed::Text(key.default.to_owned());
            key.apply(
                &mut limits,
                &At {
                    value: typed,
                    place: Place::Option,
                    key: String::new(),
                },
            )
            .unwrap();
        }
        assert_eq!(limits, Limits::default());
    }
}
