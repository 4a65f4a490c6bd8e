//! Access lines in the operator's own format.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wasgi_config::{Field, LogFormat, Piece, Scale};

use super::access::Access;
use super::date;

/// How the bytes of strangers are written.
#[derive(Clone, Copy)]
struct Escapes {
    is_json: bool,
    /// What ends the value.
    end: Option<u8>,
}

impl Access<'_> {
    pub(super) fn custom(&self, format: &LogFormat, line: &mut String) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for piece in format.pieces() {
            match piece {
                Piece::Text(text) => line.push_str(text),
                Piece::Value(field, end) => {
                    let start = line.len();
                    let escapes = Escapes {
                        is_json: format.is_json,
                        end: *end,
                    };
                    self.value(field, escapes, now, line);
                    if line.len() == start {
                        line.push('-');
                    }
                }
            }
        }
    }

    /// Appends nothing if the value is not known.
    fn value(&self, field: &Field, escapes: Escapes, now: Duration, line: &mut String) {
        let began = now.saturating_sub(self.time);
        let ran = self.cost.and_then(|cost| cost.ran);
        let rewound = self.cost.and_then(|cost| cost.rewound);
        let mut foreign = |bytes: Option<&[u8]>| escapes.write(line, bytes.unwrap_or_default());
        let number = match field {
            Field::Method => return foreign(self.head.map(|head| head.method())),
            Field::Uri => return foreign(self.head.map(|head| head.target())),
            Field::Query => return foreign(self.head.and_then(|head| query(head.target()))),
            Field::Header(name) => return foreign(self.field(name)),
            Field::Address => return foreign(Some(self.remote.as_bytes())),
            Field::App => return foreign(self.app.map(str::as_bytes)),
            Field::Id => return foreign(Some(self.id.as_str().as_bytes())),
            Field::Protocol => return foreign(self.head.map(|head| head.protocol())),
            Field::CommonDate => return line.push_str(&date::common(began.as_secs())),
            Field::CTime => return line.push_str(&date::ctime(began.as_secs())),
            Field::Trace => {
                if let Some(trace) = self.trace {
                    let _ = write!(line, "{trace}");
                }
                return;
            }
            Field::User => None,
            Field::Status => Some(u128::from(self.status)),
            Field::Size => Some(u128::from(self.bytes)),
            Field::Took(scale) => Some(count(self.time, *scale)),
            Field::Began(scale) => Some(count(began, *scale)),
            Field::Epoch => Some(count(now, Scale::Seconds)),
            Field::Process => Some(u128::from(std::process::id())),
            Field::Worker => self.worker.map(u128::from),
            Field::Memory => ran.map(|(_, memory)| u128::from(memory)),
            Field::MemoryMiB => ran.map(|(_, memory)| u128::from(memory >> 20)),
            Field::Cpu => ran.map(|(cpu, _)| cpu.as_micros()),
            Field::Pages => rewound
                .and_then(|rewound| rewound.pages)
                .map(|pages| pages as u128),
            Field::Rewind => rewound.map(|rewound| rewound.time.as_micros()),
        };
        if let Some(number) = number {
            let _ = write!(line, "{number}");
        }
    }
}

impl Escapes {
    /// Appends `bytes` so that they can neither end the line nor the value, nor be taken for an escape.
    fn write(self, line: &mut String, bytes: &[u8]) {
        for &byte in bytes {
            let is_plain =
                matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\') && Some(byte) != self.end;
            let _ = match (is_plain, self.is_json) {
                (true, _) => line.write_char(char::from(byte)),
                (false, true) => write!(line, "\\u{byte:04x}"),
                (false, false) => write!(line, "\\x{byte:02x}"),
            };
        }
    }
}

fn count(time: Duration, scale: Scale) -> u128 {
    match scale {
        Scale::Seconds => u128::from(time.as_secs()),
        Scale::Millis => time.as_millis(),
        Scale::Micros => time.as_micros(),
    }
}

fn query(target: &[u8]) -> Option<&[u8]> {
    let at = target.iter().position(|&byte| byte == b'?')?;
    Some(&target[at + 1..])
}
