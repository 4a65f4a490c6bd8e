//! The elements of `Forwarded` (RFC 7239 4), read strictly.

use std::borrow::Cow;

use super::Unclear;
use crate::http::is_token;

/// What one proxy says. Parameters of other names are checked and passed over.
#[derive(Debug, Default)]
pub(super) struct Element<'a> {
    pub(super) client: Option<Cow<'a, [u8]>>,
    pub(super) proto: Option<Cow<'a, [u8]>>,
    pub(super) host: Option<Cow<'a, [u8]>>,
}

/// Walks the elements of all lines in order; after an error nothing more comes.
pub(super) struct Elements<'a, L> {
    lines: L,
    /// What has not been read of a line.
    rest: &'a [u8],
}

impl<'a, L: Iterator<Item = &'a [u8]>> Elements<'a, L> {
    pub(super) fn of(lines: L) -> Self {
        Self { lines, rest: b"" }
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    /// Takes this byte, if it comes next.
    fn take(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn token(&mut self) -> Result<&'a [u8], Unclear> {
        let end = self.rest.iter().position(|b| !is_token(&[*b]));
        let (token, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        match token {
            [] => Err(Unclear::Syntax),
            _ => Ok(token),
        }
    }

    /// RFC 9110 5.6.4; the opening quote has been taken.
    fn quoted(&mut self) -> Result<Cow<'a, [u8]>, Unclear> {
        let special = |rest: &[u8]| rest.iter().position(|b| matches!(b, b'"' | b'\\'));
        let mut value: Cow<'a, [u8]> = Cow::Borrowed(b"");
        loop {
            let at = special(self.rest).ok_or(Unclear::Syntax)?;
            let (plain, rest) = self.rest.split_at(at);
            match &mut value {
                Cow::Borrowed(b"") => value = Cow::Borrowed(plain),
                value => value.to_mut().extend_from_slice(plain),
            }
            match rest {
                [b'"', rest @ ..] => {
                    self.rest = rest;
                    return Ok(value);
                }
                [_, escaped, rest @ ..] => {
                    value.to_mut().push(*escaped);
                    self.rest = rest;
                }
                _ => return Err(Unclear::Syntax),
            }
        }
    }

    /// One element, up to its comma or the end of the line.
    fn element(&mut self) -> Result<Element<'a>, Unclear> {
        let mut element = Element::default();
        loop {
            self.skip_blanks();
            // RFC 7239 4: a pair may be missing between semicolons.
            if !self.rest.is_empty() && !matches!(self.rest[0], b';' | b',') {
                let name = self.token()?;
                if !self.take(b'=') {
                    return Err(Unclear::Syntax);
                }
                let value = match self.take(b'"') {
                    true => self.quoted()?,
                    false => Cow::Borrowed(self.token()?),
                };
                let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
                let slot = if is(b"for") {
                    Some(&mut element.client)
                } else if is(b"proto") {
                    Some(&mut element.proto)
                } else if is(b"host") {
                    Some(&mut element.host)
                } else {
                    None
                };
                // Each parameter once (RFC 7239 4).
                if slot.is_some_and(|slot| slot.replace(value).is_some()) {
                    return Err(Unclear::Syntax);
                }
                self.skip_blanks();
            }
            if self.take(b';') {
                continue;
            }
            if self.rest.is_empty() || self.take(b',') {
                return Ok(element);
            }
            return Err(Unclear::Syntax);
        }
    }
}

impl<'a, L: Iterator<Item = &'a [u8]>> Iterator for Elements<'a, L> {
    type Item = Result<Element<'a>, Unclear>;

    fn next(&mut self) -> Option<Self::Item> {
        // RFC 9110 5.6.1: empty elements do not count.
        loop {
            self.skip_blanks();
            if self.rest.is_empty() {
                self.rest = self.lines.next()?;
            } else if !self.take(b',') {
                break;
            }
        }
        let element = self.element();
        if element.is_err() {
            self.rest = b"";
            self.lines.by_ref().for_each(drop);
        }
        Some(element)
    }
}
