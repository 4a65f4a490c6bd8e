//! SCGI requests.
//!
//! ```text
//! "70:" | headers: name NUL value NUL ... | "," | body: CONTENT_LENGTH bytes
//! ```
//!
//! A reply is one of CGI, whose end is the connection's.
//!
//! Source: "SCGI: A Simple Common Gateway Interface alternative", 2008-06-23.

use crate::environ::EnvironBlock;
use crate::gateway::{Head, Paths, Refusal, Rules};

/// Takes one request's head off the front of `input`, which holds what has arrived.
///
/// `None` until the headers are complete; then what they say, and the bytes used. The body follows. `longest` bounds the
/// headers.
///
/// # Errors
/// [`Refusal`]: of the length as soon as it is there, of the headers when they are complete.
pub fn head(input: &[u8], longest: usize) -> Result<Option<(Head, usize)>, Refusal> {
    if matches!(input.first(), Some(b'A'..=b'Z')) {
        return Err(Refusal::Http("scgi"));
    }
    let Some((length, start)) = length(input, longest)? else {
        return Ok(None);
    };
    let end = start + length;
    let Some(&comma) = input.get(end) else {
        return Ok(None);
    };
    if comma != b',' {
        return Err(Refusal::Netstring);
    }
    let head = Head::new(block(&input[start..end])?, Rules::of(Paths::Unsplit))?;
    Ok(Some((head, end + 1)))
}

/// The length that a netstring tells, and where it begins. Without leading zeros, so that it has one spelling.
fn length(input: &[u8], longest: usize) -> Result<Option<(usize, usize)>, Refusal> {
    let mut length = 0;
    for (at, &b) in input.iter().enumerate() {
        match b {
            b':' if at > 0 => return Ok(Some((length, at + 1))),
            b'0'..=b'9' if at == 0 || length > 0 => length = length * 10 + usize::from(b - b'0'),
            _ => return Err(Refusal::Netstring),
        }
        if length > longest {
            return Err(Refusal::TooLong);
        }
    }
    Ok(None)
}

/// The headers as an environ block.
fn block(headers: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut block = EnvironBlock::with_capacity(headers.len() + 256);
    let Some(headers) = headers.strip_suffix(b"\0") else {
        return Err(Refusal::Headers("the last header has no end"));
    };
    let mut parts = headers.split(|&b| b == 0);
    let mut is_scgi = false;
    while let Some(name) = parts.next() {
        let value = parts.next().ok_or(Refusal::Headers("a header has no value"))?;
        // "The first header must have the name CONTENT_LENGTH and a value that is a nonempty sequence of ASCII digits."
        if block.as_bytes().is_empty() && (name != b"CONTENT_LENGTH" || value.is_empty()) {
            return Err(Refusal::Headers("CONTENT_LENGTH is not the first header"));
        }
        is_scgi |= name == b"SCGI" && value == b"1";
        block.push(name, value).map_err(|_| Refusal::TooLong)?;
    }
    match is_scgi {
        true => Ok(block.into_bytes()),
        false => Err(Refusal::Headers("the header SCGI is not 1")),
    }
}
