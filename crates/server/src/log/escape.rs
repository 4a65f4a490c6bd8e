//! Text of strangers made fit for a log line.

use std::fmt::{self, Write};

use serde_json::Value;

/// Appends `text` without what could end the line or move a terminal's cursor: control characters (C0, DEL, C1), line
/// and paragraph separators, and the marks that reorder text become `\r`, `\x1b`, `\u{202e}`. Tabs stay.
pub(super) fn escape(line: &mut String, text: fmt::Arguments<'_>) {
    struct Escaped<'a>(&'a mut String);

    impl Write for Escaped<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let mut plain = 0;
            for (at, character) in text.char_indices() {
                if is_unfit(character) {
                    self.0.push_str(&text[plain..at]);
                    plain = at + character.len_utf8();
                    one(self.0, character);
                }
            }
            self.0.push_str(&text[plain..]);
            Ok(())
        }
    }

    // Writing to a `String` does not fail.
    let _ = Escaped(line).write_fmt(text);
}

/// What a stranger has said, for a terminal: as a line of the log has it.
pub fn harmless(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    escape(&mut line, format_args!("{text}"));
    line
}

fn is_unfit(character: char) -> bool {
    match character {
        '\t' => false,
        '\0'..='\x1f' | '\x7f'..='\u{9f}' => true,
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        _ => false,
    }
}

fn one(line: &mut String, character: char) {
    let _ = match character {
        '\n' => write!(line, "\\n"),
        '\r' => write!(line, "\\r"),
        _ if u32::from(character) < 0x100 => write!(line, "\\x{:02x}", u32::from(character)),
        _ => write!(line, "\\u{{{:x}}}", u32::from(character)),
    };
}

/// Appends `bytes` for use between quotes: all but printable ASCII becomes `\xNN`, and `"` and `\` get a backslash, as
/// nginx has it, so that the field cannot be left.
pub(super) fn quoted(line: &mut String, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut rest = bytes;
    while !rest.is_empty() {
        let plain = rest
            .iter()
            .position(|&b| !matches!(b, b' '..=b'~') || matches!(b, b'"' | b'\\'));
        let (text, after) = rest.split_at(plain.unwrap_or(rest.len()));
        line.push_str(str::from_utf8(text).unwrap_or_default());
        let Some((&byte, after)) = after.split_first() else {
            return;
        };
        match byte {
            b'"' => line.push_str("\\\""),
            b'\\' => line.push_str("\\\\"),
            _ => {
                line.push_str("\\x");
                line.push(char::from(HEX[usize::from(byte >> 4)]));
                line.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
        rest = after;
    }
}

/// Appends `bytes`, read as latin-1, as a JSON string with its quotes (RFC 8259 7).
pub(crate) fn json(line: &mut String, bytes: &[u8]) {
    line.push('"');
    for &byte in bytes {
        match byte {
            b'"' => line.push_str("\\\""),
            b'\\' => line.push_str("\\\\"),
            b' '..=b'~' => line.push(char::from(byte)),
            _ => {
                let _ = write!(line, "\\u{byte:04x}");
            }
        }
    }
    line.push('"');
}
/// JSON in ASCII: what it holds of strangers moves no terminal's cursor, whoever shows it.
pub fn ascii_json(value: &Value) -> String {
    let mut ascii = String::new();
    for character in value.to_string().chars() {
        match character {
            // JSON has escaped the other control characters.
            ' '..='~' => ascii.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    // Writing to a `String` does not fail.
                    let _ = write!(ascii, "\\u{unit:04x}");
                }
            }
        }
    }
    ascii
}
