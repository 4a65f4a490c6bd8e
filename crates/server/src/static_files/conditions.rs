//! Conditional requests (RFC 9110 13): whether a client that has a copy needs another.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use httpdate::parse_http_date;
use wasgi_protocol::Head;

/// What identifies the present state of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Validators {
    /// The entity tag with its quotes; strong.
    pub(super) tag: String,
    /// `Last-Modified`, in whole seconds.
    pub(super) modified: SystemTime,
}

/// What the conditions of a request come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Send it.
    Send,
    /// 304: the client's copy is as good.
    NotModified,
    /// 412: it is not in the state that the client wants.
    Failed,
}

impl Validators {
    /// Evaluates a GET's or HEAD's conditions in the order of RFC 9110 13.2.2. A date that cannot be read does not count.
    pub(super) fn check(&self, head: &Head) -> Outcome {
        if let Some(field) = head.field("if-match") {
            if !self.matches(field, Comparison::Strong) {
                return Outcome::Failed;
            }
        } else if let Some(date) = head.field("if-unmodified-since").and_then(date)
            && self.modified > date
        {
            return Outcome::Failed;
        }
        if let Some(field) = head.field("if-none-match") {
            if self.matches(field, Comparison::Weak) {
                return Outcome::NotModified;
            }
        } else if let Some(date) = head.field("if-modified-since").and_then(date)
            && self.modified <= date
        {
            return Outcome::NotModified;
        }
        Outcome::Send
    }

    /// Whether `Range` counts: without `If-Range`, or if that names the present state (RFC 9110 13.1.5).
    pub(super) fn takes_range(&self, head: &Head) -> bool {
        let Some(field) = head.field("if-range") else {
            return true;
        };
        match field.first() {
            Some(b'"') => field == self.tag.as_bytes(),
            // A weak tag never matches strongly; it is no date either.
            _ => date(field).is_some_and(|date| date == self.modified),
        }
    }

    fn matches(&self, field: &[u8], comparison: Comparison) -> bool {
        if field == b"*" {
            return true;
        }
        Tags(field)
            .any(|(tag, is_weak)| tag == self.tag.as_bytes() && (comparison == Comparison::Weak || !is_weak))
    }
}

/// RFC 9110 8.8.3.2.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// The entity tags of a list with their quotes, and whether each is weak; ends at the first that is none.
struct Tags<'f>(&'f [u8]);

impl<'f> Iterator for Tags<'f> {
    type Item = (&'f [u8], bool);

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.0.iter().position(|b| !matches!(b, b' ' | b'\t' | b','))?;
        let rest = &self.0[at..];
        let (rest, is_weak) = match rest.strip_prefix(b"W/") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        // A tag may hold commas, but no quotes.
        let end = rest.strip_prefix(b"\"")?.iter().position(|&b| b == b'"')? + 2;
        self.0 = &rest[end..];
        Some((&rest[..end], is_weak))
    }
}

fn date(field: &[u8]) -> Option<SystemTime> {
    parse_http_date(str::from_utf8(field).ok()?).ok()
}

/// Without what HTTP dates cannot tell.
pub(super) fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

#[cfg(test)]
mod tests {
    use wasgi_protocol::http::{Guard, Limits, Step};

    use super::*;

    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn head(fields: &[(&str, &str)]) -> Head {
        let mut text = "GET / HTTP/1.1\r\nHost: a\r\n".to_owned();
        for (name, value) in fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        match (Guard::new(Limits { head: 10_000 })).step(text.as_bytes()) {
            Step::Head { head, .. } => head.into(),
            other => panic!("{other:?}"),
        }
    }

    fn file() -> Validators {
        Validators {
            tag: "\"a,1\"".to_owned(),
            modified: parse_http_date(THEN).unwrap(),
        }
    }

    #[test]
    fn conditions_count_in_their_order() {
        use Outcome::{Failed, NotModified, Send};
        const CASES: &[(&[(&str, &str)], Outcome)] = &[
            (&[], Send),
            (&[("If-None-Match", "\"a,1\"")], NotModified),
            (&[("If-None-Match", "W/\"a,1\"")], NotModified),
            (&[("If-None-Match", "\"b\", W/\"c\" ,\"a,1\"")], NotModified),
            (&[("If-None-Match", "*")], NotModified),
            (&[("If-None-Match", "\"b\"")], Send),
            (&[("If-None-Match", "a,1")], Send),
            (&[("If-None-Match", "\"a,1")], Send),
            (&[("If-None-Match", "")], Send),
            (&[("If-Modified-Since", THEN)], NotModified),
            (&[("If-Modified-Since", AFTER)], NotModified),
            (&[("If-Modified-Since", BEFORE)], Send),
            (&[("If-Modified-Since", "yesterday")], Send),
            // RFC 9110 13.1.3: If-Modified-Since does not count beside If-None-Match.
            (&[("If-None-Match", "\"b\""), ("If-Modified-Since", THEN)], Send),
            (&[("If-Match", "\"a,1\"")], Send),
            (&[("If-Match", "*")], Send),
            (&[("If-Match", "W/\"a,1\"")], Failed),
            (&[("If-Match", "\"b\"")], Failed),
            (&[("If-Unmodified-Since", THEN)], Send),
            (&[("If-Unmodified-Since", BEFORE)], Failed),
            (&[("If-Unmodified-Since", "never")], Send),
            (&[("If-Match", "\"a,1\""), ("If-Unmodified-Since", BEFORE)], Send),
            (&[("If-Match", "\"b\""), ("If-None-Match", "\"a,1\"")], Failed),
            (
                &[("If-Match", "\"a,1\""), ("If-None-Match", "\"a,1\"")],
                NotModified,
            ),
        ];
        for (fields, expected) in CASES {
            assert_eq!(file().check(&head(fields)), *expected, "{fields:?}");
        }
    }

    #[test]
    fn a_range_counts_only_for_the_state_it_is_meant_for() {
        for (field, counts) in [
            ("\"a,1\"", true),
            (THEN, true),
            ("W/\"a,1\"", false),
            ("\"b\"", false),
            (BEFORE, false),
            (AFTER, false),
            ("", false),
        ] {
            let head = head(&[("If-Range", field)]);
            assert_eq!(file().takes_range(&head), counts, "{field}");
        }
        assert!(file().takes_range(&head(&[])));
    }
}
