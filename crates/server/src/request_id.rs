//! What ties a reply to its lines in the log.

use std::fmt;

/// Twelve characters, drawn at random (60 bits): an operator may search all logs for one, and nobody can guess the
/// next.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId([u8; 12]);

impl RequestId {
    /// A new id.
    pub fn random() -> Self {
        // Crockford's base 32: no letters that look like digits.
        const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let mut bits: u64 = rand::random();
        Self(std::array::from_fn(|_| {
            let digit = DIGITS[(bits & 31) as usize];
            bits >>= 5;
            digit
        }))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
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
}
