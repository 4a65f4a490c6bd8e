//! FastCGI records, for an application that is a responder.
//!
//! ```text
//! version (1) | type (u8) | request id (u16) | content length (u16) | padding length (u8) | 0 | content | padding
//! ```
//!
//! Numbers are big-endian. One request at a time per connection: a second one is told so ([`Ended::CannotMultiplex`]), as a web
//! server that asks beforehand is (FCGI_GET_VALUES).
//!
//! Source: "FastCGI Specification", 29 April 1996, sections 3 to 6 and 8.

mod pairs;
mod records;

pub use records::{Records, Step};

/// Length of a record's header.
const HEADER: usize = 8;

/// Longest content that is sent in a record.
const CONTENT_MAX: usize = 0xfff8;

const VERSION: u8 = 1;

/// Types of records: 8, "Types and Constants".
const BEGIN_REQUEST: u8 = 1;
const ABORT_REQUEST: u8 = 2;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const DATA: u8 = 8;
const GET_VALUES: u8 = 9;
const GET_VALUES_RESULT: u8 = 10;
const UNKNOWN_TYPE: u8 = 11;

/// How a request has ended: 5.5, protocolStatus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With its reply, or by an abort.
    Complete = 0,
    /// Not served: another one runs on its connection.
    CannotMultiplex = 1,
    /// Not served: its role is not that of a responder.
    UnknownRole = 3,
}

/// Appends a reply's bytes as records.
pub fn push_stdout(id: u16, bytes: &[u8], to: &mut Vec<u8>) {
    for content in bytes.chunks(CONTENT_MAX) {
        to.extend(header(STDOUT, id, content.len()));
        to.extend_from_slice(content);
    }
}

/// Appends the end of a reply and of its request.
pub fn push_end(id: u16, to: &mut Vec<u8>) {
    to.extend(header(STDOUT, id, 0));
    to.extend(end_request(id, Ended::Complete));
}

/// The end of a request alone.
pub fn end_request(id: u16, ended: Ended) -> [u8; 16] {
    let mut record = [0; 16];
    record[..HEADER].copy_from_slice(&header(END_REQUEST, id, 8));
    record[12] = ended as u8;
    record
}

/// `length` is at most 65,535.
fn header(kind: u8, id: u16, length: usize) -> [u8; HEADER] {
    let ([id_high, id_low], [high, low]) = (id.to_be_bytes(), (length as u16).to_be_bytes());
    [VERSION, kind, id_high, id_low, high, low, 0, 0]
}
