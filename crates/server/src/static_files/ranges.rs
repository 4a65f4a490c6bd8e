//! The `Range` field (RFC 9110 14.2): which bytes of a file are asked for.

use std::ops::Range;

/// Most ranges of one request: with more, the field is ignored and the whole file sent, as RFC 9110 14.2 allows and 17.15
/// advises.
const MOST: usize = 16;

/// What a `Range` field asks of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ranges {
    /// The field does not count: it has another unit, is malformed or asks for too much.
    All,
    /// None of it is in the file.
    Unsatisfiable,
    /// These bytes; no two overlap or touch.
    Some(Vec<Range<u64>>),
}

/// Reads the field for a file of `size` bytes.
pub(super) fn ranges(field: &[u8], size: u64) -> Ranges {
    let Some(list) = str::from_utf8(field).ok().and_then(|text| {
        let (unit, list) = text.split_once('=')?;
        unit.trim().eq_ignore_ascii_case("bytes").then_some(list)
    }) else {
        return Ranges::All;
    };
    if size == 0 {
        // No 206 can tell which bytes of nothing these are.
        return Ranges::All;
    }
    let (mut found, mut count) = (Vec::new(), 0);
    for spec in list.split(',').map(|spec| spec.trim_matches([' ', '\t'])) {
        if spec.is_empty() {
            continue;
        }
        count += 1;
        match range(spec, size) {
            _ if count > MOST => return Ranges::All,
            None => return Ranges::All,
            Some(None) => {}
            Some(Some(range)) => found.push(range),
        }
    }
    match (count, found.is_empty()) {
        (0, _) => Ranges::All,
        (_, true) => Ranges::Unsatisfiable,
        (_, false) => Ranges::Some(coalesced(found)),
    }
}

/// One range. `None` if it is malformed, `Some(None)` if it lies behind the end.
fn range(spec: &str, size: u64) -> Option<Option<Range<u64>>> {
    let (first, last) = spec.split_once('-')?;
    if first.is_empty() {
        let length = number(last)?;
        return Some((length > 0).then(|| size.saturating_sub(length)..size));
    }
    let first = number(first)?;
    let end = match last {
        "" => size,
        last => {
            let last = number(last)?;
            if last < first {
                return None;
            }
            last.saturating_add(1).min(size)
        }
    };
    Some((first < size).then_some(first..end))
}

/// Digits alone; one that is too large is as good as the largest.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

/// Joins those that overlap or touch; if there are any, the rest is put in order as well.
fn coalesced(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut sorted = ranges.clone();
    sorted.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    if joined.len() == ranges.len() {
        ranges
    } else {
        joined
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_has_them() {
        let some =
            |ranges: &[(u64, u64)]| Ranges::Some(ranges.iter().map(|&(start, end)| start..end).collect());
        for (field, expected) in [
            ("bytes=0-0", some(&[(0, 1)])),
            ("bytes=0-499", some(&[(0, 500)])),
            ("bytes=500-", some(&[(500, 1000)])),
            ("bytes=-300", some(&[(700, 1000)])),
            ("bytes=-3000", some(&[(0, 1000)])),
            ("bytes=900-5000", some(&[(900, 1000)])),
            ("bytes=999-99999999999999999999999", some(&[(999, 1000)])),
            ("Bytes = 0-1, 4-5", some(&[(0, 2), (4, 6)])),
            ("bytes=,0-1,, 4-5 ,", some(&[(0, 2), (4, 6)])),
            // In the order asked for.
            ("bytes=500-600,0-99", some(&[(500, 601), (0, 100)])),
            ("bytes=0-1,1000-,5-6", some(&[(0, 2), (5, 7)])),
            // Overlapping or touching ones are joined.
            ("bytes=0-100,50-200", some(&[(0, 201)])),
            ("bytes=0-99,100-199", some(&[(0, 200)])),
            ("bytes=500-600,0-99,90-110", some(&[(0, 111), (500, 601)])),
            ("bytes=0-,0-,0-,0-", some(&[(0, 1000)])),
            ("bytes=1000-", Ranges::Unsatisfiable),
            ("bytes=1000-1001,2000-", Ranges::Unsatisfiable),
            ("bytes=-0", Ranges::Unsatisfiable),
            // Not ranges.
            ("bytes=", Ranges::All),
            ("bytes=5-4", Ranges::All),
            ("bytes=0-1,5-4", Ranges::All),
            ("bytes=a-", Ranges::All),
            ("bytes=-", Ranges::All),
            ("bytes=--1", Ranges::All),
            ("bytes=+1-2", Ranges::All),
            ("bytes 0-1", Ranges::All),
            ("lines=0-1", Ranges::All),
            ("", Ranges::All),
        ] {
            assert_eq!(ranges(field.as_bytes(), 1000), expected, "{field}");
        }
        assert_eq!(ranges(b"bytes=0-", 0), Ranges::All);
        assert_eq!(ranges(b"bytes=\xff", 10), Ranges::All);
    }

    #[test]
    fn too_many_ranges_get_the_whole_file() {
        let field = |count: usize| {
            let specs: Vec<_> = (0..count).map(|at| format!("{}-{}", at * 10, at * 10)).collect();
            format!("bytes={}", specs.join(","))
        };
        assert!(matches!(ranges(field(MOST).as_bytes(), 1000), Ranges::Some(found) if found.len() == MOST));
        assert_eq!(ranges(field(MOST + 1).as_bytes(), 1000), Ranges::All);
    }
}
