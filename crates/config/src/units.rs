//! Durations (`500ms`, `30s`, `5m`, `1h`) and sizes (`64KiB`, `256MiB`): a number and its unit, never a bare number.

/// Why a text is no duration or size, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnitError {
    pub what: String,
    pub hint: String,
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Milliseconds.
    Time,
    /// Bytes.
    Size,
    /// Things, without a unit.
    Count,
}

/// Unit as written, its factor, and other spellings that are refused but understood.
type Scale = &'static [(&'static str, u64, &'static [&'static str])];

const TIME: Scale = &[
    ("ms", 1, &["msec", "msecs", "millis", "milliseconds"]),
    ("s", 1000, &["sec", "secs", "second", "seconds"]),
    ("m", 60_000, &["min", "mins", "minute", "minutes"]),
    ("h", 3_600_000, &["hr", "hrs", "hour", "hours"]),
];

const SIZE: Scale = &[
    ("B", 1, &["b", "byte", "bytes"]),
    ("KiB", 1 << 10, &["k", "kb", "kib", "ki"]),
    ("MiB", 1 << 20, &["m", "mb", "mib", "mi"]),
    ("GiB", 1 << 30, &["g", "gb", "gib", "gi"]),
];

impl Unit {
    fn scale(self) -> Scale {
        match self {
            Unit::Time => TIME,
            Unit::Size => SIZE,
            Unit::Count => &[("", 1, &[])],
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Unit::Time => "a duration",
            Unit::Size => "a size",
            Unit::Count => "a number",
        }
    }

    /// What to write when nothing better can be guessed.
    fn examples(self) -> &'static str {
        match self {
            Unit::Time => "write \"500ms\", \"30s\", \"5m\" or \"1h\"",
            Unit::Size => "write \"512B\", \"64KiB\", \"256MiB\" or \"1GiB\"",
            Unit::Count => "write a whole number",
        }
    }

    /// Reads a whole number and its unit: milliseconds, bytes or a count.
    ///
    /// # Errors
    /// With the nearest text that would be taken, where there is one.
    pub(crate) fn parse(self, text: &str) -> Result<u64, UnitError> {
        let trimmed = text.trim();
        let end = trimmed
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(end);
        let exact = self.scale().iter().find(|(name, ..)| *name == unit);
        if trimmed == text
            && !number.is_empty()
            && !number.contains('.')
            && let Some((_, factor, _)) = exact
        {
            let value = number
                .parse::<u64>()
                .ok()
                .and_then(|number| number.checked_mul(*factor));
            return value.ok_or_else(|| UnitError {
                what: format!("`{text}` is too large"),
                hint: self.examples().to_owned(),
            });
        }
        let bare = unit.is_empty() && !number.is_empty() && self != Unit::Count;
        Err(UnitError {
            what: match bare {
                true => format!("`{text}` has no unit"),
                false => format!("`{text}` is not {}", self.noun()),
            },
            hint: self
                .guess(number, unit.trim())
                .unwrap_or_else(|| self.examples().to_owned()),
        })
    }

    fn guess(self, number: &str, unit: &str) -> Option<String> {
        let unit = match (unit, self) {
            ("", Unit::Time) => "s",
            // A number this large was meant in bytes.
            ("", Unit::Size) if number.len() > 4 => "B",
            ("", Unit::Size) => "MiB",
            _ => unit,
        };
        let lower = unit.to_ascii_lowercase();
        let (_, factor, _) = self
            .scale()
            .iter()
            .find(|(name, _, others)| *name == unit || others.contains(&lower.as_str()) || *name == lower)?;
        // In thousandths, so that "1.5s" becomes "1500ms".
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if part.len() > 3 {
            return None;
        }
        let thousandths = format!("{whole}{part:0<3}")
            .parse::<u64>()
            .ok()?
            .checked_mul(*factor)?;
        match thousandths % 1000 {
            0 if thousandths > 0 => Some(match self {
                Unit::Count => format!("write {}", thousandths / 1000),
                _ => format!("write \"{}\"", self.show(thousandths / 1000)),
            }),
            _ => None,
        }
    }

    /// The shortest text that [`Unit::parse`] reads as this value.
    pub(crate) fn show(self, value: u64) -> String {
        let fits = |(_, factor, _): &&(&str, u64, &[&str])| value.is_multiple_of(*factor) && value >= *factor;
        match self.scale().iter().rev().find(fits) {
            Some((name, factor, _)) => format!("{}{name}", value / factor),
            None => format!("0{}", self.scale()[0].0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_with_its_unit_reads_and_prints_alike() {
        for (unit, text, value) in [
            (Unit::Time, "500ms", 500),
            (Unit::Time, "30s", 30_000),
            (Unit::Time, "5m", 300_000),
            (Unit::Time, "2h", 7_200_000),
            (Unit::Size, "512B", 512),
            (Unit::Size, "64KiB", 65_536),
            (Unit::Size, "256MiB", 256 << 20),
            (Unit::Size, "4GiB", 4 << 30),
            (Unit::Count, "64", 64),
        ] {
            assert_eq!(unit.parse(text), Ok(value), "{text}");
            assert_eq!(unit.show(value), text);
        }
    }

    #[test]
    fn a_near_miss_is_corrected() {
        for (unit, text, hint) in [
            (Unit::Time, "30", "\"30s\""),
            (Unit::Time, "30 s", "\"30s\""),
            (Unit::Time, "30S", "\"30s\""),
            (Unit::Time, "90seconds", "\"90s\""),
            (Unit::Time, "2min", "\"2m\""),
            (Unit::Time, "1.5s", "\"1500ms\""),
            (Unit::Size, "256", "\"256MiB\""),
            (Unit::Size, "65536", "\"64KiB\""),
            (Unit::Size, "256MB", "\"256MiB\""),
            (Unit::Size, "64k", "\"64KiB\""),
            (Unit::Size, "1.5GiB", "\"1536MiB\""),
            (Unit::Count, "1.0", "write 1"),
        ] {
            let error = unit.parse(text).expect_err(text);
            assert!(error.hint.contains(hint), "{text}: {error:?}");
        }
    }

    #[test]
    fn what_cannot_be_guessed_gets_examples() {
        for (unit, text) in [
            (Unit::Time, ""),
            (Unit::Time, "soon"),
            (Unit::Time, "-1s"),
            (Unit::Time, "1m30s"),
            (Unit::Time, "0.0001s"),
            (Unit::Time, "1.2.3s"),
            (Unit::Time, "99999999999999999999s"),
            (Unit::Size, "10TB"),
            (Unit::Size, "18446744073709551615GiB"),
            (Unit::Count, "many"),
        ] {
            let error = unit.parse(text).expect_err(text);
            assert_eq!(error.hint, unit.examples(), "{text}");
        }
    }
}
