//! uwsgi packets: a WSGI request of a web server's.
//!
//! ```text
//! modifier1 (u8) | size (u16, little-endian) | modifier2 (u8) | vars: size bytes | body: CONTENT_LENGTH bytes
//! ```
//!
//! The vars are an environ block as they come. A reply is an HTTP/1 reply whose end is the connection's.
//!
//! Source: uwsgi protocol, "uwsgi packet header", "The uwsgi vars"; modifiers 0 (WSGI) and 30 (WSGI, SCRIPT_NAME taken
//! off PATH_INFO).

use crate::gateway::{Head, Paths, Refusal, Rules};

/// Length of the packet header.
const HEADER: usize = 4;

/// Takes one request's head off the front of `input`, which holds what has arrived.
///
/// `None` until the vars are complete; then what they say, and the bytes used. The body follows. `longest` bounds the
/// vars; their size is a u16.
///
/// # Errors
/// [`Refusal`]: of the header as soon as it is there, of the vars when they are complete.
pub fn head(input: &[u8], longest: usize) -> Result<Option<(Head, usize)>, Refusal> {
    let paths = match input.first() {
        None => return Ok(None),
        Some(0) => Paths::Unsplit,
        Some(30) => Paths::Joined,
        // No modifier that anybody uses is a capital letter.
        Some(b'A'..=b'Z') => return Err(Refusal::Http("uwsgi")),
        Some(&modifier) => return Err(Refusal::Modifier(modifier)),
    };
    let Some((&[_, low, high, _], rest)) = input.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let size = usize::from(u16::from_le_bytes([low, high]));
    if size > longest {
        return Err(Refusal::TooLong);
    }
    match rest.get(..size) {
        None => Ok(None),
        Some(vars) => {
            let head = Head::new(vars.to_vec(), Rules::of(paths))?;
            Ok(Some((head, HEADER + size)))
        }
    }
}
