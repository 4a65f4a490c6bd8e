//! The app's lines on their way to the terminal: tracebacks are coloured, and kept for the browser.

use std::collections::VecDeque;
use std::fmt::Write;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use wasgi_engine::AppLog;
use wasgi_server::ErrorPages;

/// Requests whose lines are remembered.
const REMEMBERED: usize = 32;

/// Lines remembered of one request.
const LINES: usize = 1000;

/// Lines of source shown on both sides of the one that failed.
const AROUND: usize = 3;

/// Where the guest sees the app's root.
const ROOT: &str = "/app/";

/// What the app has written lately.
pub(super) struct Tracebacks {
    /// The app's folder on the host.
    root: PathBuf,
    colour: bool,
    said: Mutex<VecDeque<Said>>,
}

/// The lines of one request, or of the loads.
struct Said {
    request: Option<String>,
    lines: Vec<String>,
}

impl Tracebacks {
    pub(super) fn new(root: PathBuf) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            root,
            colour: io::stderr().is_terminal() && !plain,
            said: Mutex::default(),
        }
    }

    /// Forgets what earlier loads said.
    pub(super) fn forget_loads(&self) {
        self.said().retain(|said| said.request.is_some());
    }

    fn said(&self) -> std::sync::MutexGuard<'_, VecDeque<Said>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The source around a line of the app's: number, text, whether it is the one.
    fn source(&self, frame: &Frame<'_>) -> Vec<(usize, String, bool)> {
        // The path is the guest's word: only a plain one below the root is followed.
        let Some(inside) = frame.file.strip_prefix(ROOT) else {
            return Vec::new();
        };
        let plain = inside.split('/').all(|part| !matches!(part, "" | "." | ".."));
        let Ok(text) = (if plain {
            fs::read_to_string(self.root.join(inside))
        } else {
            Ok(String::new())
        }) else {
            return Vec::new();
        };
        let first = frame.line.saturating_sub(AROUND).max(1);
        let shown = text.lines().zip(1..).skip(first - 1);
        shown
            .take_while(|(_, number)| *number <= frame.line + AROUND)
            .map(|(line, number)| (number, line.to_owned(), number == frame.line))
            .collect()
    }

    fn to_terminal(&self, text: &str) {
        let (bold, dim, red, end) = match self.colour {
            true => ("\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[0m"),
            false => ("", "", "", ""),
        };
        let line = plain(text);
        match Frame::of(text) {
            Some(frame) if frame.file.starts_with(ROOT) => eprintln!("{bold}{line}{end}"),
            Some(_) => eprintln!("{dim}{line}{end}"),
            None if is_exception(text) => eprintln!("{red}{line}{end}"),
            None => eprintln!("{line}"),
        }
    }
}

impl AppLog for Tracebacks {
    fn line(&self, request: Option<&str>, text: &str) {
        self.to_terminal(text);
        let mut said = self.said();
        let at = said.iter().position(|said| said.request.as_deref() == request);
        let at = at.unwrap_or_else(|| {
            if said.len() >= REMEMBERED {
                said.pop_front();
            }
            said.push_back(Said {
                request: request.map(str::to_owned),
                lines: Vec::new(),
            });
            said.len() - 1
        });
        if said[at].lines.len() < LINES {
            said[at].lines.push(text.to_owned());
        }
    }
}

impl ErrorPages for Tracebacks {
    fn page(&self, request: Option<&str>) -> Option<String> {
        let said = self.said();
        let lines = &said.iter().find(|said| said.request.as_deref() == request)?.lines;
        let begin = lines
            .iter()
            .position(|line| line.starts_with("Traceback ") || Frame::of(line).is_some())?;
        let lines = &lines[begin..];
        let title = lines.iter().rev().find(|line| is_exception(line));
        let title = escape(title.map_or("The app failed", String::as_str));
        let mut body = String::new();
        for line in lines {
            let Some(frame) = Frame::of(line) else {
                let _ = writeln!(body, "<pre>{}</pre>", escape(line));
                continue;
            };
            let source = self.source(&frame);
            let class = if source.is_empty() { "theirs" } else { "ours" };
            let _ = writeln!(body, "<div class=\"{class}\">{}</div>", escape(line.trim()));
            if !source.is_empty() {
                body.push_str("<pre class=\"source\">");
                for (number, text, is_it) in source {
                    let tag = if is_it { "b" } else { "span" };
                    let _ = writeln!(body, "<{tag}>{number:5} {}</{tag}>", escape(&text));
                }
                body.push_str("</pre>\n");
            }
        }
        let what = match request {
            Some(id) => format!("request {}", escape(id)),
            None => "the app cannot be loaded; it is tried again when a file changes".to_owned(),
        };
        Some(format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style>\n\
             <h1>{title}</h1><p>{what}. Shown by <code>wasgi dev</code>, and by no server in production.</p>\n{body}</html>\n"
        ))
    }
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}\
    h1{font-size:1.3em;color:#b00020;overflow-wrap:anywhere}pre{margin:0;white-space:pre-wrap;font-size:.9em}\
    .ours{font-weight:600;margin-top:1em}.theirs{color:#888;font-size:.85em}\
    .source{background:#f6f6f6;padding:.5em}.source b{display:block;background:#fde2e2}.source span{display:block}";

/// `  File "/app/hello.py", line 3, in index`, as Python writes it.
#[derive(Debug, PartialEq, Eq)]
struct Frame<'l> {
    file: &'l str,
    line: usize,
}

impl<'l> Frame<'l> {
    fn of(text: &'l str) -> Option<Self> {
        let rest = text.trim_start().strip_prefix("File \"")?;
        let (file, rest) = rest.split_once("\", line ")?;
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some(Self {
            file,
            line: digits.parse().ok()?,
        })
    }
}

/// `ValueError: no`, `werkzeug.exceptions.NotFound: ...`: at the line's start, a name that is one of an exception.
fn is_exception(text: &str) -> bool {
    let name = text.split([':', ' ']).next().unwrap_or_default();
    let last = name.rsplit('.').next().unwrap_or_default();
    let capital = last.starts_with(|c: char| c.is_ascii_uppercase());
    let named =
        last.ends_with("Error") || last.ends_with("Exception") || text[name.len()..].starts_with(": ");
    capital
        && named
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_'))
}

/// Without what would move a terminal's cursor.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => c,
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(source: &str, lines: &[&str]) -> (tempfile::TempDir, String) {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("hello.py"), source).unwrap();
        let tracebacks = Tracebacks::new(place.path().to_owned());
        for line in lines {
            tracebacks.line(Some("id"), line);
        }
        let page = tracebacks.page(Some("id")).unwrap();
        assert_eq!(tracebacks.page(Some("other")), None);
        assert_eq!(tracebacks.page(None), None);
        (place, page)
    }

    #[test]
    fn a_page_shows_the_source_of_the_apps_frames_and_no_markup_of_its_own() {
        let (_place, page) = with(
            "def index():\n    raise ValueError('<script>')\n",
            &[
                "hello",
                "Traceback (most recent call last):",
                "  File \"/python/lib/flask/app.py\", line 1, in wsgi_app",
                "  File \"/app/hello.py\", line 2, in index",
                "    raise ValueError('<script>')",
                "ValueError: <script>alert(1)</script>",
            ],
        );
        assert!(
            page.contains("<title>ValueError: &lt;script&gt;alert(1)&lt;/script&gt;</title>"),
            "{page}"
        );
        assert!(
            page.contains("<b>    2     raise ValueError('&lt;script&gt;')</b>"),
            "{page}"
        );
        assert!(page.contains("<span>    1 def index():</span>"), "{page}");
        assert!(
            page.contains("<div class=\"theirs\">File &quot;/python/lib/flask/app.py"),
            "{page}"
        );
        assert!(
            !page.contains("<script>") && !page.contains("hello</pre>"),
            "{page}"
        );
    }

    #[test]
    fn a_path_out_of_the_apps_folder_is_not_followed() {
        let (_place, page) = with("", &["  File \"/app/../hello.py\", line 1, in x", "OSError: x"]);
        assert!(page.contains("class=\"theirs\""), "{page}");
    }
}
