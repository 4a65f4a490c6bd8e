//! Lines that are written together.

use std::sync::Arc;

use crate::request_id::RequestId;

/// How grave a line is, in syslog's numbers (RFC 5424 6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    Error = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
}

/// One line, harmless and without its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    pub(super) text: &'a str,
    /// So many bytes at its start are in this colour, on a terminal.
    pub(super) mark: (usize, &'static str),
    pub(super) severity: Severity,
    pub(super) app: Option<&'a Arc<str>>,
    pub(super) id: Option<RequestId>,
}

/// Lines for one destination.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Each with its end.
    pub(super) text: String,
    pub(super) lines: u64,
    /// One for each line, if the destination wants them.
    pub(super) marks: Vec<Mark>,
}

/// What a line is.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    /// Where the line's text ends, before its line end.
    pub(super) end: usize,
    pub(super) severity: Severity,
    pub(super) app: Option<Arc<str>>,
    pub(super) id: Option<RequestId>,
}

impl Batch {
    pub(super) fn push(&mut self, line: &Line<'_>, colour: bool, marked: bool) {
        let (mark, rest) = line.text.split_at(line.mark.0);
        if colour && !mark.is_empty() {
            self.text.push_str("\x1b[");
            self.text.push_str(line.mark.1);
            self.text.push('m');
            self.text.push_str(mark);
            self.text.push_str("\x1b[0m");
        } else {
            self.text.push_str(mark);
        }
        self.text.push_str(rest);
        if marked {
            self.marks.push(Mark {
                end: self.text.len(),
                severity: line.severity,
                app: line.app.cloned(),
                id: line.id,
            });
        }
        self.text.push('\n');
        self.lines += 1;
    }

    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.marks.clear();
        self.lines = 0;
    }

    /// Each line with what it is.
    pub(super) fn marked(&self) -> impl Iterator<Item = (&str, &Mark)> {
        let mut start = 0;
        self.marks.iter().map(move |mark| {
            let line = &self.text[start..mark.end];
            start = mark.end + 1;
            (line, mark)
        })
    }
}
