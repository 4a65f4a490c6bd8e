//! uWSGI's language for access lines: `%(method) %(uri) => %(status)`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The format of an access line, parsed.
#[derive(Clone, PartialEq, Eq)]
pub struct LogFormat {
    pieces: Arc<[Piece]>,
    /// Whether lines are meant as JSON, by their first character; then values are escaped as JSON has it.
    pub is_json: bool,
}

/// One part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it is.
    Text(String),
    /// A value, and the character after it. What comes from others must not hold that one, or it could pass for more than
    /// one value.
    Value(Field, Option<u8>),
}

/// What a value tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// `method`
    Method,
    /// `uri`: the request's target as it came.
    Uri,
    /// `proto`
    Protocol,
    /// `addr`: the peer's address.
    Address,
    /// `host`, `uagent`, `referer` and `var.HTTP_*`: a field of the request, by its name in lower case.
    Header(String),
    /// `var.QUERY_STRING`
    Query,
    /// `user`: who the web server says it is; always `-` here.
    User,
    /// `status`
    Status,
    /// `rsize`: bytes of the reply's body.
    Size,
    /// `secs`, `msecs`, `micros`: how long it took, in whole units.
    Took(Scale),
    /// `time`, `tmsecs`, `tmicros`: when it began, since 1970.
    Began(Scale),
    /// `epoch`: when it was logged, in seconds since 1970.
    Epoch,
    /// `ltime`, `ftime`: when it began, as in the common log format.
    CommonDate,
    /// `ctime`: when it began, as C's `ctime` has it.
    CTime,
    /// `pid`
    Process,
    /// `wid`: the worker.
    Worker,
    /// `vsz`, `rss`: the instance's memory in bytes.
    Memory,
    /// `vszM`, `rssM`: the same in MiB.
    MemoryMiB,
    /// `app`
    App,
    /// `id`: the request's.
    Id,
    /// `trace`: the trace's id.
    Trace,
    /// `cpu`: microseconds that the guest ran.
    Cpu,
    /// `pages`: written pages that the rewind took back.
    Pages,
    /// `rewind`: microseconds of the rewind.
    Rewind,
}

/// What a time is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// 1 s
    Seconds,
    /// 1 ms
    Millis,
    /// 1 us
    Micros,
}

/// Why a text is no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct FormatError {
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub hint: String,
}

const NAMES: &[(&str, Field)] = &[
    ("addr", Field::Address),
    ("app", Field::App),
    ("cpu", Field::Cpu),
    ("ctime", Field::CTime),
    ("epoch", Field::Epoch),
    ("ftime", Field::CommonDate),
    ("id", Field::Id),
    ("ltime", Field::CommonDate),
    ("method", Field::Method),
    ("micros", Field::Took(Scale::Micros)),
    ("msecs", Field::Took(Scale::Millis)),
    ("pages", Field::Pages),
    ("pid", Field::Process),
    ("proto", Field::Protocol),
    ("rewind", Field::Rewind),
    ("rsize", Field::Size),
    ("rss", Field::Memory),
    ("rssM", Field::MemoryMiB),
    ("secs", Field::Took(Scale::Seconds)),
    ("status", Field::Status),
    ("time", Field::Began(Scale::Seconds)),
    ("tmicros", Field::Began(Scale::Micros)),
    ("tmsecs", Field::Began(Scale::Millis)),
    ("trace", Field::Trace),
    ("uri", Field::Uri),
    ("user", Field::User),
    ("vsz", Field::Memory),
    ("vszM", Field::MemoryMiB),
    ("wid", Field::Worker),
];

/// uWSGI's names for what is counted otherwise here, or not at all.
const ELSEWHERE: &[(&str, &str)] = &[
    ("core", "requests of a worker do not overlap here: write %(wid)"),
    ("size", "the reply's head is not counted here: write %(rsize)"),
    ("hsize", "the reply's head is not counted here: leave it out"),
    ("headers", "the reply's head is not counted here: leave it out"),
];

/// Environment variables that are no `HTTP_*`.
fn variable(name: &str) -> Option<Field> {
    Some(match name {
        "REQUEST_METHOD" => Field::Method,
        "REQUEST_URI" => Field::Uri,
        "QUERY_STRING" => Field::Query,
        "SERVER_PROTOCOL" => Field::Protocol,
        "REMOTE_ADDR" => Field::Address,
        "REMOTE_USER" => Field::User,
        "CONTENT_TYPE" => Field::Header("content-type".to_owned()),
        "CONTENT_LENGTH" => Field::Header("content-length".to_owned()),
        _ => {
            let name = name.strip_prefix("HTTP_").filter(|name| !name.is_empty())?;
            let good = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            name.chars()
                .all(good)
                .then(|| Field::Header(name.replace('_', "-").to_ascii_lowercase()))?
        }
    })
}

impl Field {
    fn named(name: &str) -> Result<Self, FormatError> {
        let header = |name: &str| Field::Header(name.to_owned());
        let hint = match name {
            "host" => return Ok(header("host")),
            "uagent" => return Ok(header("user-agent")),
            "referer" => return Ok(header("referer")),
            "cl" => return Ok(header("content-length")),
            _ => match (
                NAMES.iter().find(|(known, _)| *known == name),
                name.strip_prefix("var."),
            ) {
                (Some((_, field)), _) => return Ok(field.clone()),
                (None, Some(name)) => match variable(name) {
                    Some(field) => return Ok(field),
                    None => {
                        "%(var.X) takes HTTP_*, CONTENT_TYPE, CONTENT_LENGTH, QUERY_STRING, REMOTE_ADDR, \
                             REQUEST_METHOD, REQUEST_URI and SERVER_PROTOCOL"
                            .to_owned()
                    }
                },
                (None, None) => match ELSEWHERE.iter().find(|(known, _)| *known == name) {
                    Some((_, hint)) => (*hint).to_owned(),
                    None => {
                        let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
                        format!(
                            "the names are cl, host, referer, uagent, var.X, {}",
                            names.join(", ")
                        )
                    }
                },
            },
        };
        Err(FormatError {
            what: format!("`%({})` is not known", name.escape_debug()),
            hint,
        })
    }

    /// Whether others choose its text.
    fn is_foreign(&self) -> bool {
        matches!(
            self,
            Field::Method | Field::Uri | Field::Header(_) | Field::Query | Field::Id
        )
    }

    /// Whether it is known only once the worker is done with the request.
    fn is_of_bill(&self) -> bool {
        matches!(
            self,
            Field::Memory | Field::MemoryMiB | Field::Cpu | Field::Pages | Field::Rewind
        )
    }
}

impl LogFormat {
    /// The parts of a line, in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Whether a line tells what its request cost.
    pub fn has_bill(&self) -> bool {
        let is_of_bill = |piece: &Piece| matches!(piece, Piece::Value(field, _) if field.is_of_bill());
        self.pieces.iter().any(is_of_bill)
    }
}

impl FromStr for LogFormat {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        if text.trim().is_empty() {
            return Err(FormatError {
                what: "the format is empty".to_owned(),
                hint: "write access = \"off\" for no access lines".to_owned(),
            });
        }
        if let Some(bad) = text.chars().find(|c| c.is_control() && *c != '\t') {
            return Err(FormatError {
                what: format!("the format holds {}", bad.escape_debug()),
                hint: "a request has one line: leave it out, the line's end is added".to_owned(),
            });
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find("%(") {
            if start > 0 {
                pieces.push(Piece::Text(rest[..start].to_owned()));
            }
            let Some((name, after)) = rest[start + 2..].split_once(')') else {
                return Err(FormatError {
                    what: format!("`{}` is not closed", &rest[start..]),
                    hint: "write %(name)".to_owned(),
                });
            };
            let field = Field::named(name)?;
            let end = after.bytes().next();
            let is_value = after.starts_with("%(");
            if field.is_foreign()
                && (is_value || end.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'\\' || b >= 0x80))
            {
                return Err(FormatError {
                    what: format!("where `%({name})` ends would not show"),
                    hint: format!("put a space after it, or quotes around it: \"%({name})\""),
                });
            }
            pieces.push(Piece::Value(field, end));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self {
            pieces: pieces.into(),
            is_json: text.starts_with('{'),
        })
    }
}

impl fmt::Debug for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pieces.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_texts_and_values_and_where_they_end() {
        let format: LogFormat = "[%(ltime)] \"%(method) %(uri)\" 100% %(var.HTTP_X_Y)|%(status)"
            .parse()
            .unwrap();
        let text = |text: &str| Piece::Text(text.to_owned());
        assert_eq!(
            format.pieces(),
            [
                text("["),
                Piece::Value(Field::CommonDate, Some(b']')),
                text("] \""),
                Piece::Value(Field::Method, Some(b' ')),
                text(" "),
                Piece::Value(Field::Uri, Some(b'"')),
                text("\" 100% "),
                Piece::Value(Field::Header("x-y".to_owned()), Some(b'|')),
                text("|"),
                Piece::Value(Field::Status, None),
            ]
        );
        assert!(!format.has_bill() && !format.is_json);
        assert!("{\"m\":%(vszM)}".parse::<LogFormat>().unwrap().has_bill());
    }

    #[test]
    fn what_is_not_known_or_not_clear_is_refused() {
        for (text, what, hint) in [
            ("%(nope)", "`%(nope)` is not known", "the names are cl, host"),
            ("%(size)", "`%(size)` is not known", "write %(rsize)"),
            ("%(var.PATH)", "`%(var.PATH)` is not known", "HTTP_*"),
            ("a %(uri", "`%(uri` is not closed", "write %(name)"),
            ("%(uri)%(status)", "where `%(uri)` ends would not show", "a space"),
            ("%(uagent)x", "where `%(uagent)` ends would not show", "a space"),
            ("a\nb", "the format holds \\n", "one line"),
            (" ", "the format is empty", "off"),
        ] {
            let error = text.parse::<LogFormat>().unwrap_err();
            assert_eq!(error.what, what);
            assert!(error.hint.contains(hint), "{error:?}");
        }
    }
}
