//! What uwsgi and SCGI make of the bytes of a connection, apart from how they came, and what holds of all of it.

use std::collections::HashSet;

use wasgi_protocol::environ;
use wasgi_protocol::gateway::{Head, Refusal};
use wasgi_protocol::http::Connection;

pub const CONNECTION: Connection<'_> = Connection {
    scheme: "http",
    remote: ("192.0.2.1", "40000"),
    server: None,
    own_fields: &[],
    forwarded: None,
};

#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A head, and what comes after it.
    Request(Box<Head>, Vec<u8>),
    Refused(Refusal),
    Incomplete,
}

pub type Wire = fn(&[u8], usize) -> Result<Option<(Head, usize)>, Refusal>;

/// What either wire has around its variables: a uwsgi header, or a netstring's length.
const AROUND: usize = 16;

/// Feeds `pieces` one after the other, as a connection would. `longest` bounds the variables.
pub fn found(wire: Wire, longest: usize, pieces: &[&[u8]]) -> Found {
    let mut input = Vec::new();
    let mut pieces = pieces.iter();
    for piece in &mut pieces {
        input.extend_from_slice(piece);
        match wire(&input, longest) {
            Ok(None) => assert!(input.len() <= longest + AROUND, "{} bytes are kept", input.len()),
            Ok(Some((head, used))) => {
                check(&head);
                let mut rest = input[used..].to_vec();
                pieces.for_each(|piece| rest.extend_from_slice(piece));
                return Found::Request(Box::new(head), rest);
            }
            Err(refusal) => return Found::Refused(refusal),
        }
    }
    Found::Incomplete
}

/// What holds of every environ, whatever came.
pub fn check(head: &Head) {
    // Fields joined may be too long for it.
    let block = head.environ(&CONNECTION, "").unwrap_or_default();
    let mut names = HashSet::new();
    for pair in environ::iter(&block) {
        let (name, _) = pair.expect("the block is whole");
        assert!(names.insert(name), "{} is there once", name.escape_ascii());
        let is_forbidden = name.starts_with(b"wsgi.") || name.starts_with(b"UWSGI_") || name == b"HTTP_PROXY";
        assert!(!is_forbidden, "{} is left out", name.escape_ascii());
    }
    for name in [
        "SCRIPT_NAME",
        "PATH_INFO",
        "QUERY_STRING",
        "SERVER_NAME",
        "SERVER_PORT",
    ] {
        assert!(
            block.is_empty() || names.contains(name.as_bytes()),
            "{name} is there"
        );
    }
}
