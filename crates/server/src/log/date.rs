//! Dates of log lines, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

/// The date of the last line, since most lines have the date of the one before.
#[derive(Debug, Default)]
pub(crate) struct DateCache {
    second: u64,
    common: String,
    rfc3339: String,
}

impl DateCache {
    /// The present, as in the common log format: `31/Jul/2026:09:05:00 +0000`.
    pub(super) fn common(&mut self) -> &str {
        self.refresh();
        &self.common
    }

    /// The present, as in RFC 3339: `2026-07-31T09:05:00Z`.
    pub(super) fn rfc3339(&mut self) -> &str {
        self.refresh();
        &self.rfc3339
    }

    fn refresh(&mut self) {
        let second = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        if second != self.second || self.common.is_empty() {
            self.second = second;
            (self.common, self.rfc3339) = formats(second);
        }
    }
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A moment, as in the common log format.
pub(super) fn common(second: u64) -> String {
    formats(second).0
}

/// A moment as C's `ctime` has it: `Fri Jul 31 09:05:00 2026`.
pub(super) fn ctime(second: u64) -> String {
    // 1970-01-01 was a Thursday.
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let (year, month, day) = civil(second / 86_400);
    let (name, month) = (DAYS[(second / 86_400 % 7) as usize], MONTHS[month as usize - 1]);
    let (hour, minute, second) = (second / 3600 % 24, second / 60 % 60, second % 60);
    format!("{name} {month} {day:2} {hour:02}:{minute:02}:{second:02} {year}")
}

fn formats(second: u64) -> (String, String) {
    let (year, month, day) = civil(second / 86_400);
    let (hour, minute, second) = (second / 3600 % 24, second / 60 % 60, second % 60);
    let name = MONTHS[month as usize - 1];
    (
        format!("{day:02}/{name}/{year}:{hour:02}:{minute:02}:{second:02} +0000"),
        format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"),
    )
}

/// The date that is `days` after 1970-01-01, in the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years counted from 1 March, so that a leap day is the last of its year; eras of 400 years are all alike.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (second, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(formats(second).1, expected);
        }
        assert_eq!(common(971_186_136), "10/Oct/2000:13:55:36 +0000");
        assert_eq!(ctime(971_186_136), "Tue Oct 10 13:55:36 2000");
        assert_eq!(ctime(951_782_400), "Tue Feb 29 00:00:00 2000");
    }
}
