//! The cases of `tests/corpus`, and the bytes that they spell.

use std::fs;
use std::path::{Path, PathBuf};

/// The cases of a wire, below the corpus: `http/valid/*.http`.
pub fn cases(corpus: &Path, wire: &str, kind: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(corpus.join(wire).join(kind)).unwrap();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == wire));
    found.sort();
    assert!(found.len() > 5, "{kind}: the corpus is there");
    found
}

/// The bytes that a case's text spells. Its line ends are only there to be read; see http_corpus.rs.
pub fn spelled(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'\n' => {}
            b'\\' => {
                let (&which, after) = rest.split_first().expect("an escape is complete");
                rest = after;
                bytes.push(match which {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'0' => 0,
                    b'x' => {
                        let digits = str::from_utf8(&rest[..2]).unwrap();
                        rest = &rest[2..];
                        u8::from_str_radix(digits, 16).unwrap()
                    }
                    other => other,
                });
            }
            b'{' => {
                let end = rest
                    .iter()
                    .position(|&b| b == b'}')
                    .expect("a repetition is closed");
                let (text, count) = str::from_utf8(&rest[..end]).unwrap().rsplit_once('*').unwrap();
                bytes.extend(spelled(text).repeat(count.parse().unwrap()));
                rest = &rest[end + 1..];
            }
            _ => bytes.push(first),
        }
    }
    bytes
}
