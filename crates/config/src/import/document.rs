//! The text of an `app.toml`, line by line, with the option that each line comes from.

use std::fmt::Write;

use super::Setting;
use crate::problem::Place;

/// A document that is being written.
#[derive(Default)]
pub(super) struct Document {
    lines: Vec<(String, Option<(Place, String)>)>,
}

impl Document {
    /// Begins a table, if any of its lines follow.
    pub(super) fn table(&mut self, name: &str) {
        if !self.lines.is_empty() {
            self.lines.push((String::new(), None));
        }
        self.lines.push((format!("[{name}]"), None));
    }

    /// Takes the table begun last away if it has no lines.
    pub(super) fn end_table(&mut self) {
        if self.lines.last().is_some_and(|(line, _)| line.starts_with('[')) {
            self.lines.pop();
            if self.lines.last().is_some_and(|(line, _)| line.is_empty()) {
                self.lines.pop();
            }
        }
    }

    /// `key = value`, the value as TOML has it.
    pub(super) fn line(&mut self, key: &str, value: &str, from: &Setting) {
        self.from(format!("{key} = {value}"), from);
    }

    /// `key = "text"`
    pub(super) fn text(&mut self, key: &str, text: &str, from: &Setting) {
        self.line(key, &quoted(text), from);
    }

    /// A list of values as TOML has them, each on a line of its own if there are several.
    pub(super) fn list(&mut self, key: &str, values: &[(String, &Setting)]) {
        match values {
            [] => {}
            [(value, from)] => self.line(key, &format!("[{value}]"), from),
            [(_, first), ..] => {
                self.from(format!("{key} = ["), first);
                for (value, from) in values {
                    self.from(format!("  {value},"), from);
                }
                self.lines.push(("]".to_owned(), None));
            }
        }
    }

    /// `key = value` that no option says.
    pub(super) fn own(&mut self, key: &str, value: &str) {
        self.lines.push((format!("{key} = {value}"), None));
    }

    fn from(&mut self, line: String, from: &Setting) {
        self.lines.push((line, Some((from.place, from.shown()))));
    }

    pub(super) fn finish(self) -> (String, Vec<Option<(Place, String)>>) {
        let mut text = String::new();
        let mut origins = Vec::new();
        for (line, origin) in self.lines {
            text.push_str(&line);
            text.push('\n');
            origins.push(origin);
        }
        (text, origins)
    }
}

/// A text as TOML has it, on one line.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                // Writing to a String does not fail.
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
