//! What ties a reply to its lines in the log.

use std::fmt;

/// Most characters of an id that a peer gives.
const GIVEN_MAX: usize = 64;

/// Twelve characters, drawn at random (60 bits): an operator may search all logs for one, and nobody can guess the
/// next. Or what a trusted peer calls the request.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId {
    length: u8,
    bytes: [u8; GIVEN_MAX],
}

impl RequestId {
    /// A new id.
    pub fn random() -> Self {
        // Crockford's base 32: no letters that look like digits.
        const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let mut bits: u64 = rand::random();
        let mut id = Self {
            length: 12,
            bytes: [0; GIVEN_MAX],
        };
        for byte in &mut id.bytes[..12] {
            *byte = DIGITS[(bits & 31) as usize];
            bits >>= 5;
        }
        id
    }

    /// A peer's id, if it has at most 64 characters, none of which means anything in a line of the log: letters, digits
    /// and `_.:+/=@-`.
    pub(crate) fn given(text: &[u8]) -> Option<Self> {
        let is_fit = |b: &u8| b.is_ascii_alphanumeric() || b"_.:+/=@-".contains(b);
        if text.is_empty() || text.len() > GIVEN_MAX || !text.iter().all(is_fit) {
            return None;
        }
        let mut bytes = [0; GIVEN_MAX];
        bytes[..text.len()].copy_from_slice(text);
        Some(Self {
            length: text.len() as u8,
            bytes,
        })
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short_and_differ() {
        let ids: std::collections::HashSet<RequestId> = (0..10_000).map(|_| RequestId::random()).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(
            ids.iter()
                .all(|id| id.as_str().len() == 12 && id.as_str().is_ascii())
        );
    }

    #[test]
    fn an_id_is_taken_over_if_it_is_sane() {
        for id in [
            "a",
            "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
            &"x".repeat(64),
            "a_b.c:d+e/f=@",
        ] {
            assert_eq!(RequestId::given(id.as_bytes()).unwrap().as_str(), id);
        }
        for id in [
            "",
            " ",
            "a b",
            "a]",
            "a\"b",
            "a\nb",
            "caf\u{e9}",
            "a%20",
            "a,b",
            &"x".repeat(65),
        ] {
            assert_eq!(RequestId::given(id.as_bytes()), None, "{id:?}");
        }
    }
}
