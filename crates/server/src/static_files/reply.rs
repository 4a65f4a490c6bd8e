//! The reply that sends a file, or a part of it.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use httpdate::fmt_http_date;
use wasgi_protocol::Head;

use super::conditions::{Outcome, Validators, whole_seconds};
use super::ranges::{Ranges, ranges};
use super::root::File;
use crate::coding::Coding;
use crate::content::{Content, Open, Part};

/// A file that was chosen for a request.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    source: Source,
    size: u64,
    validators: Validators,
    /// `text/html; charset=utf-8`: that of the file without its compression.
    content_type: HeaderValue,
    /// The compression that the file has been given beforehand.
    coding: Option<Coding>,
    /// Whether another client may be sent another file for the same path.
    varies: bool,
}

/// Where a file's bytes are.
#[derive(Clone)]
enum Source {
    Disk(Open),
    Memory(Bytes),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Source::Disk(_) => "Disk",
            Source::Memory(_) => "Memory",
        })
    }
}

/// How long clients may keep a file.
#[derive(Clone, Debug)]
pub(super) enum Keep {
    /// Nothing is said.
    Unsaid,
    /// `Cache-Control: max-age`, and `Expires`.
    For(Duration),
    /// `Cache-Control`, word for word.
    Control(HeaderValue),
}

/// A reply without what every reply gets.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: AnswerBody,
}

/// What an [`Answer`] sends. The answer to HEAD says of its body what GET's would be.
#[derive(Debug)]
pub(crate) enum AnswerBody {
    /// Nothing, as for 304.
    Nothing,
    /// A text of the server's own that tells the status.
    Status,
    Text(Bytes),
    Content(Content),
}

impl Answer {
    /// A reply that is told in the server's own words.
    pub(super) fn status(
        status: StatusCode,
        headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    ) -> Self {
        Self {
            status,
            headers: headers.into_iter().collect(),
            body: AnswerBody::Status,
        }
    }
}

impl Chosen {
    pub(super) fn new(
        file: File,
        content_type: HeaderValue,
        coding: Option<Coding>,
        varies: bool,
        now: SystemTime,
    ) -> Self {
        Self {
            validators: validators(&file, coding, now),
            size: file.size,
            source: Source::Disk(Arc::new(file.fd)),
            content_type,
            coding,
            varies,
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Reads all of it, and lets go of the file.
    ///
    /// # Errors
    /// As [`Content::poll_piece`].
    pub(super) async fn read(&mut self) -> std::io::Result<()> {
        let part = self.part(&(0..self.size));
        self.source = Source::Memory(Content::new([part]).whole().await?);
        Ok(())
    }

    fn part(&self, range: &Range<u64>) -> Part {
        match &self.source {
            Source::Disk(file) => Part::Span {
                file: Arc::clone(file),
                at: range.start,
                end: range.end,
            },
            // No longer than what is in memory.
            Source::Memory(bytes) => Part::Text(bytes.slice(range.start as usize..range.end as usize)),
        }
    }

    /// The reply to a GET or HEAD.
    pub(super) fn reply(self, head: &Head, keep: &Keep, now: SystemTime) -> Answer {
        let validators = &self.validators;
        let mut headers = HeaderMap::with_capacity(12);
        if let Ok(tag) = HeaderValue::from_str(&validators.tag) {
            headers.insert(header::ETAG, tag);
        }
        headers.insert(header::LAST_MODIFIED, date(validators.modified));
        if self.varies {
            headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
        keep.tell(&mut headers, now);
        match validators.check(head) {
            Outcome::Send => {}
            Outcome::NotModified => {
                return Answer {
                    status: StatusCode::NOT_MODIFIED,
                    headers,
                    body: AnswerBody::Nothing,
                };
            }
            Outcome::Failed => return Answer::status(StatusCode::PRECONDITION_FAILED, []),
        }

        let size = self.size;
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if let Some(coding) = self.coding {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        }
        let asked = match head.field("range") {
            // RFC 9110 14.2: Range is for GET.
            Some(field) if head.method() == b"GET" && validators.takes_range(head) => ranges(field, size),
            _ => Ranges::All,
        };
        let span = |range: &Range<u64>| self.part(range);
        let (status, content) = match asked {
            Ranges::All => {
                headers.insert(header::CONTENT_TYPE, self.content_type.clone());
                (StatusCode::OK, Content::new([span(&(0..size))]))
            }
            Ranges::Some(asked) => match &asked[..] {
                [range] => {
                    headers.insert(header::CONTENT_TYPE, self.content_type.clone());
                    headers.insert(header::CONTENT_RANGE, value(&content_range(range, size)));
                    (StatusCode::PARTIAL_CONTENT, Content::new([span(range)]))
                }
                several => {
                    let boundary = format!("{:032x}", rand::random::<u128>());
                    headers.insert(
                        header::CONTENT_TYPE,
                        value(&format!("multipart/byteranges; boundary={boundary}")),
                    );
                    let parts = parts(several, size, &boundary, &self.content_type, span);
                    (StatusCode::PARTIAL_CONTENT, Content::new(parts))
                }
            },
            Ranges::Unsatisfiable => {
                let range = value(&format!("bytes */{size}"));
                return Answer::status(
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    [(header::CONTENT_RANGE, range)],
                );
            }
        };
        Answer {
            status,
            headers,
            body: AnswerBody::Content(content),
        }
    }
}

/// The tag is made of what changes with the file: its time, size and inode.
fn validators(file: &File, coding: Option<Coding>, now: SystemTime) -> Validators {
    let since = file.modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut tag = format!("\"{:x}-{:x}-{:x}", since.as_nanos(), file.size, file.inode);
    if let Some(coding) = coding {
        tag.push('-');
        tag.push_str(coding.name());
    }
    tag.push('"');
    Validators {
        tag,
        // RFC 9110 8.8.2.1: never later than the reply.
        modified: whole_seconds(file.modified.min(now)),
    }
}

impl Keep {
    fn tell(&self, headers: &mut HeaderMap, now: SystemTime) {
        match self {
            Keep::Unsaid => {}
            Keep::For(time) => {
                let seconds = time.as_secs();
                headers.insert(header::CACHE_CONTROL, value(&format!("max-age={seconds}")));
                headers.insert(header::EXPIRES, date(now + Duration::from_secs(seconds)));
            }
            Keep::Control(control) => {
                headers.insert(header::CACHE_CONTROL, control.clone());
            }
        }
    }
}

/// The body of a `multipart/byteranges` (RFC 9110 14.6).
fn parts(
    ranges: &[Range<u64>],
    size: u64,
    boundary: &str,
    content_type: &HeaderValue,
    span: impl Fn(&Range<u64>) -> Part,
) -> Vec<Part> {
    let mut parts = Vec::with_capacity(ranges.len() * 2 + 1);
    for range in ranges {
        let line_end = if parts.is_empty() { "" } else { "\r\n" };
        let content_type = content_type.to_str().unwrap_or("application/octet-stream");
        let told = content_range(range, size);
        parts.push(Part::Text(
            format!(
                "{line_end}--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: {told}\r\n\r\n"
            )
            .into(),
        ));
        parts.push(span(range));
    }
    parts.push(Part::Text(format!("\r\n--{boundary}--\r\n").into()));
    parts
}

fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end - 1)
}

fn date(time: SystemTime) -> HeaderValue {
    value(&fmt_http_date(time))
}

/// A value that is made of digits and letters.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A file of so many bytes, in memory.
    pub(in crate::static_files) fn short(size: usize) -> Chosen {
        Chosen {
            source: Source::Memory(Bytes::from(vec![b'x'; size])),
            size: size as u64,
            validators: Validators {
                tag: "\"a\"".to_owned(),
                modified: UNIX_EPOCH,
            },
            content_type: HeaderValue::from_static("text/plain"),
            coding: None,
            varies: false,
        }
    }
}
