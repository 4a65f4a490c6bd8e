//! Who may steer the server over TCP.

use std::fmt;
use std::hint::black_box;

/// A secret that requests show as `Authorization: Bearer` (RFC 6750 2.1).
pub struct Token(Vec<u8>);

impl Token {
    /// Its bytes.
    pub fn new(token: &str) -> Self {
        Self(token.as_bytes().to_owned())
    }

    /// Whether a field's value shows it. Takes as long whichever bytes are wrong, so that they cannot be found one by one.
    pub(super) fn is_shown(&self, value: &[u8]) -> bool {
        const SCHEME: &[u8] = b"bearer ";
        let Some((scheme, shown)) = value.split_at_checked(SCHEME.len()) else {
            return false;
        };
        let mut wrong = u8::from(shown.len() != self.0.len());
        for (own, shown) in self.0.iter().zip(shown) {
            wrong = black_box(wrong | (own ^ shown));
        }
        scheme.eq_ignore_ascii_case(SCHEME) && wrong == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_taken() {
        let token = Token::new("0123456789abcdef");
        for right in ["Bearer 0123456789abcdef", "bearer 0123456789abcdef"] {
            assert!(token.is_shown(right.as_bytes()), "{right}");
        }
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "0123456789abcdef",
            "Basic 0123456789abcdef",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdeg",
            "Bearer 0123456789abcdef0",
            "Bearer 1123456789abcdef",
        ] {
            assert!(!token.is_shown(wrong.as_bytes()), "{wrong}");
        }
        assert_eq!(format!("{token:?}"), "Token");
    }
}
