//! `[compress]`: which of the app's replies are compressed on their way to clients that take them so.

use std::fmt;

use toml::de::DeValue;

use crate::problem::{At, Problem};
use crate::raw::{Name, Reader, Value};
use crate::resolve::Resolver;
use crate::units::Unit;

/// The keys of `[compress]`.
pub(crate) const KEYS: &[&str] = &["encodings", "types", "min-size", "level"];

/// The level that takes most time and memory, of those that keep up with a network.
pub(crate) const LEVEL_MAX: i64 = 6;

/// Where little more time makes replies little smaller.
const LEVEL: u32 = 4;

/// A reply that fits a packet is not there sooner for being smaller.
const MIN_SIZE: u64 = 1 << 10;

/// What is text, and by its type alone not yet compressed. `text/event-stream` is left to who wants it: each client of one
/// would hold a compressor for hours.
const TYPES: &[&str] = &[
    "text/html",
    "text/css",
    "text/plain",
    "text/csv",
    "text/xml",
    "text/javascript",
    "application/javascript",
    "application/json",
    "application/ld+json",
    "application/manifest+json",
    "application/problem+json",
    "application/xml",
    "application/xhtml+xml",
    "application/atom+xml",
    "application/rss+xml",
    "image/svg+xml",
];

/// What compresses replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compressor {
    /// `br`: RFC 7932.
    Brotli,
    /// `gzip`: RFC 1952.
    Gzip,
}

/// Types of content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// `*`: any.
    Any,
    /// `text/*`: any of this main type, in lower case.
    Main(String),
    /// `text/html`: in lower case.
    One(String),
}

impl MediaType {
    /// Whether a Content-Type's type, without its parameters, is one of them.
    pub fn is_it(&self, found: &str) -> bool {
        match self {
            MediaType::Any => true,
            MediaType::Main(main) => found
                .split_once('/')
                .is_some_and(|(found, _)| found.eq_ignore_ascii_case(main)),
            MediaType::One(one) => found.eq_ignore_ascii_case(one),
        }
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MediaType::Any => f.write_str("*"),
            MediaType::Main(main) => write!(f, "{main}/*"),
            MediaType::One(one) => f.write_str(one),
        }
    }
}

/// `[compress]`, if it names any encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compress {
    /// `encodings`, the best first; at least one.
    pub encodings: Vec<Compressor>,
    /// `types`: other replies go out as they are.
    pub types: Vec<MediaType>,
    /// `min-size`: shorter replies go out as they are, in bytes.
    pub min_size: u64,
    /// `level`: from 1, the fastest, to 6, the smallest.
    pub level: u32,
}

/// `[compress]` as typed.
#[derive(Clone, Default)]
pub(crate) struct RawCompress {
    pub encodings: Option<Vec<At<String>>>,
    pub types: Option<Vec<At<String>>>,
    pub min_size: Option<At<String>>,
    pub level: Option<At<i64>>,
}

impl Reader<'_> {
    pub(crate) fn compress(&mut self, key: &Name<'_>, value: &Value<'_>) {
        let name = key.get_ref().as_ref();
        let path = format!("compress.{name}");
        match name {
            "encodings" => self.raw.compress.encodings = self.some_list(&path, value),
            "types" => self.raw.compress.types = self.some_list(&path, value),
            "min-size" => self.raw.compress.min_size = self.text(&path, value),
            "level" => self.raw.compress.level = self.number(&path, value, "4"),
            _ => self.unknown("compress", key),
        }
    }

    /// A list that may be empty, which says something else than nothing.
    fn some_list(&mut self, path: &str, value: &Value<'_>) -> Option<Vec<At<String>>> {
        let list = self.list(path, value);
        matches!(value.get_ref(), DeValue::Array(_)).then_some(list)
    }
}

impl RawCompress {
    /// Puts the words of `defaults` in where this has none.
    pub(crate) fn fill_in(&mut self, defaults: &RawCompress) {
        let typed = std::mem::take(self);
        *self = RawCompress {
            encodings: typed.encodings.or_else(|| defaults.encodings.clone()),
            types: typed.types.or_else(|| defaults.types.clone()),
            min_size: typed.min_size.or_else(|| defaults.min_size.clone()),
            level: typed.level.or_else(|| defaults.level.clone()),
        };
    }

    /// What an app's own file asks for beyond the operator's cap of its level; 0: nothing is compressed.
    pub(crate) fn over_cap(&self, cap: i64) -> Option<Problem> {
        let encoding = self.encodings.iter().flatten().next();
        match (encoding, &self.level) {
            (Some(at), _) if cap == 0 => Some(at.problem(
                "the operator of the server has no replies compressed",
                "leave [compress] out",
            )),
            (_, Some(at)) if cap > 0 && at.value > cap => Some(at.problem(
                format!("{} passes the operator's cap of {cap}", at.value),
                format!("write {cap} or less, or leave it out"),
            )),
            _ => None,
        }
    }
}

impl Resolver<'_> {
    /// `[compress]`; `None` if nothing is compressed.
    pub(crate) fn compress(&mut self, raw: &RawCompress) -> Option<Compress> {
        let mut encodings = Vec::new();
        for at in raw.encodings.iter().flatten() {
            match self.encoding(at) {
                Some(encoding) if encodings.contains(&encoding) => self
                    .problems
                    .push(at.problem(format!("`{}` is given twice", at.value), "keep one of the two")),
                encoding => encodings.extend(encoding),
            }
        }
        let types = match &raw.types {
            Some(types) => types.iter().filter_map(|at| self.media_type(at)).collect(),
            None => TYPES
                .iter()
                .map(|name| MediaType::One((*name).to_owned()))
                .collect(),
        };
        let min_size = match &raw.min_size {
            Some(at) => match Unit::Size.parse(&at.value) {
                Ok(size) => size,
                Err(error) => {
                    self.problems.push(at.problem(error.what, error.hint));
                    0
                }
            },
            None => MIN_SIZE,
        };
        let level = match &raw.level {
            Some(at) if !(1..=LEVEL_MAX).contains(&at.value) => {
                self.problems.push(at.problem(
                    format!("{} is not from 1 to {LEVEL_MAX}", at.value),
                    "write 1 for the fastest, 6 for the smallest; higher levels are for files compressed beforehand",
                ));
                LEVEL
            }
            Some(at) => u32::try_from(at.value).unwrap_or(LEVEL),
            None => LEVEL,
        };
        (!encodings.is_empty()).then_some(Compress {
            encodings,
            types,
            min_size,
            level,
        })
    }

    fn encoding(&mut self, at: &At<String>) -> Option<Compressor> {
        match at.value.as_str() {
            "br" => return Some(Compressor::Brotli),
            "gzip" => return Some(Compressor::Gzip),
            _ => {}
        }
        let (what, hint) = match at.value.as_str() {
            "brotli" => ("`brotli` is not what clients call it", "write \"br\""),
            "gz" => ("`gz` is not what clients call it", "write \"gzip\""),
            "zstd" => (
                "replies are not compressed with zstd: its encoders are C, and an app chooses what they read",
                "write \"br\", which clients take that take zstd; files compressed beforehand may be .zst",
            ),
            "deflate" => (
                "`deflate` means two things to clients",
                "write \"gzip\", which each of them takes",
            ),
            other => {
                let what = format!("`{other}` is not an encoding that is known here");
                self.problems
                    .push(at.problem(what, "write \"br\" or \"gzip\", the one you like better first"));
                return None;
            }
        };
        self.problems.push(at.problem(what, hint));
        None
    }

    fn media_type(&mut self, at: &At<String>) -> Option<MediaType> {
        let text = at.value.to_ascii_lowercase();
        if text == "*" {
            return Some(MediaType::Any);
        }
        let is_token = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
        };
        match text.split_once('/') {
            Some((main, "*")) if is_token(main) => Some(MediaType::Main(main.to_owned())),
            Some((main, sub)) if is_token(main) && is_token(sub) => Some(MediaType::One(text)),
            _ => {
                self.problems.push(at.problem(
                    format!("`{}` is not a type of content", at.value.escape_debug()),
                    "write \"text/html\", \"text/*\" for all of text, or \"*\" for any; parameters such as charset do not count",
                ));
                None
            }
        }
    }
}
