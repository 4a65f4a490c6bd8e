//! The simple assignments of a `gunicorn.conf.py`. It is a Python program, which is not run on the host.

use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

use super::{TABLE, setting};
use crate::import::Setting;
use crate::problem::{Place, Problem};

/// Adds what the file says to the front of `settings`, so that what is typed counts over it.
pub(super) fn read(path: &str, current: &Path, settings: &mut Vec<Setting>, problems: &mut Vec<Problem>) {
    let text = match fs::read_to_string(current.join(path)) {
        Ok(text) => text,
        Err(error) => {
            problems.push(Problem {
                place: Place::Option,
                key: "--config".to_owned(),
                what: format!("file `{path}` cannot be read: {}", crate::lower(&error)),
                hint: "name a gunicorn.conf.py, relative to the current folder".to_owned(),
            });
            return;
        }
    };
    let mut found = Vec::new();
    for (statement, line) in statements(&text) {
        let Some((name, value)) = statement.split_once('=').filter(|(name, value)| {
            let is_name = name
                .trim()
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_');
            is_name && !name.trim().is_empty() && !value.starts_with('=')
        }) else {
            continue;
        };
        let key = name.trim().replace('_', "-");
        let key = match key.as_str() {
            // Its names there and on the command line.
            "accesslog" => "access-logfile",
            "errorlog" => "error-logfile",
            "loglevel" => "log-level",
            "access-log-format" => "access-logformat",
            "keepalive" => "keep-alive",
            _ => key.as_str(),
        };
        // Names of its own are a program's business.
        if !TABLE.iter().any(|row| row.is_named(key)) {
            continue;
        }
        match literal(value.trim()) {
            Some(values) => {
                found.extend(
                    values
                        .into_iter()
                        .map(|value| setting(key, value, Place::Line(line))),
                );
            }
            None => problems.push(Problem {
                place: Place::Line(line),
                key: name.trim().to_owned(),
                what: "is worked out by Python, which is not run on the host".to_owned(),
                hint: format!("write the value itself here, or --{key} VALUE on the command line"),
            }),
        }
    }
    settings.splice(0..0, found);
}

/// Statements at the file's own level, with the number of the line that each begins on; those in brackets are joined.
fn statements(text: &str) -> Vec<(String, usize)> {
    let mut found: Vec<(String, usize)> = Vec::new();
    let mut open = 0_usize;
    for (line, number) in text.lines().zip(1..) {
        let code = without_comment(line);
        if open == 0 {
            if code.starts_with([' ', '\t']) || code.trim().is_empty() {
                continue;
            }
            found.push((String::new(), number));
        }
        if let Some((statement, _)) = found.last_mut() {
            statement.push_str(code.trim());
            statement.push(' ');
        }
        let mut quote = None;
        for c in code.chars() {
            match (quote, c) {
                (None, '\'' | '"') => quote = Some(c),
                (Some(q), c) if q == c => quote = None,
                (None, '(' | '[' | '{') => open += 1,
                (None, ')' | ']' | '}') => open = open.saturating_sub(1),
                _ => {}
            }
        }
    }
    found
}

fn without_comment(line: &str) -> &str {
    let mut quote = None;
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '#') => return &line[..at],
            (None, '\'' | '"') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            _ => {}
        }
    }
    line
}

/// The values of a literal: one, or those of a list. `None` if it is none.
fn literal(text: &str) -> Option<Vec<String>> {
    if let Some(inner) = bracketed(text) {
        let items = inner.split(',').map(str::trim).filter(|item| !item.is_empty());
        return items.map(one).collect();
    }
    match text {
        "None" => Some(Vec::new()),
        _ => one(text).map(|value| vec![value]),
    }
}

fn bracketed(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    inner.or_else(|| {
        text.strip_prefix('(')
            .and_then(|text| text.strip_suffix(')'))
            .filter(|inner| inner.contains(','))
    })
}

fn one(text: &str) -> Option<String> {
    for quote in ['"', '\''] {
        let inner = text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
        if let Some(inner) = inner {
            return (!inner.contains([quote, '\\'])).then(|| inner.to_owned());
        }
    }
    match text {
        "True" => Some("true".to_owned()),
        "False" => Some("false".to_owned()),
        _ => sum(text).map(|number| number.to_string()),
    }
}

/// Whole numbers and the machine's cores, multiplied and added: `multiprocessing.cpu_count() * 2 + 1`.
fn sum(text: &str) -> Option<u64> {
    let cores = available_parallelism().map_or(1, usize::from) as u64;
    let plain = |text: &str| match text.trim() {
        "multiprocessing.cpu_count()" | "cpu_count()" | "os.cpu_count()" => Some(cores),
        digits => digits.replace('_', "").parse().ok(),
    };
    let product = |text: &str| {
        text.split('*')
            .map(plain)
            .try_fold(1_u64, |all, next| all.checked_mul(next?))
    };
    let text = text.replace(['(', ')'], "").replace("cpu_count", "cpu_count()");
    text.split('+')
        .map(product)
        .try_fold(0_u64, |all, next| all.checked_add(next?))
}
