//! Runs `tests/corpus/http`: requests as bytes, and beside each what is made of them.
//!
//! In a `.http` file the line ends are only there to be read: the bytes of a request are spelled out, with `\r`, `\n`,
//! `\t`, `\0`, `\\` and `\xNN`, and `{text*count}` for repetition. The `.out` file beside it tells the requests found,
//! with their environ and body, and the refusal that ended them, if one did.
//!
//! With `BLESS=1` in the environment the `.out` files are written instead of compared.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use wasgi_protocol::environ;
use wasgi_protocol::http::{Connection, Guard, Head, Limits, Phase, Step};

const CONNECTION: Connection<'_> = Connection {
    scheme: "http",
    remote: ("192.0.2.1", "40000"),
    server: Some(("127.0.0.1", "8000")),
    own_fields: &[],
};

fn guard() -> Guard {
    Guard::new(Limits { head: 64 << 10 })
}

fn cases(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/corpus/http")
        .join(kind);
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "http"));
    found.sort();
    assert!(found.len() > 10, "{kind}: the corpus is there");
    found
}

/// The bytes that the text of a `.http` file spells.
fn spelled(text: &str) -> Vec<u8> {
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

/// What a guard makes of bytes, apart from how they came.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Request(Head),
    Body(Vec<u8>),
    Chunk(u64),
    End,
    Refused(wasgi_protocol::http::Refusal),
    /// The bytes ended here.
    Waiting(Phase),
}

/// Feeds `pieces` one after the other, as a connection would.
fn found<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Found> {
    let (mut guard, mut input, mut found) = (guard(), Vec::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let used = match guard.step(&input) {
                Step::More => break,
                Step::Refused(refusal) => {
                    found.push(Found::Refused(refusal));
                    return found;
                }
                Step::Head { used, head } => {
                    found.push(Found::Request(head));
                    used
                }
                Step::Data { used } => {
                    assert!(used > 0);
                    match found.last_mut() {
                        Some(Found::Body(body)) => body.extend_from_slice(&input[..used]),
                        _ => found.push(Found::Body(input[..used].to_vec())),
                    }
                    used
                }
                Step::Chunk { used, size } => {
                    found.push(Found::Chunk(size));
                    used
                }
                Step::ChunkEnd { used } | Step::Skip { used } => {
                    assert!(used > 0);
                    used
                }
                Step::End { used } => {
                    found.push(Found::End);
                    used
                }
            };
            input.drain(..used);
        }
    }
    found.push(Found::Waiting(guard.phase()));
    found
}

fn told(found: &[Found]) -> String {
    let mut text = String::new();
    let shown = |bytes: &[u8]| {
        let shown = bytes.escape_ascii().to_string();
        if shown.len() > 200 {
            format!("{}... ({} bytes)", &shown[..100], bytes.len())
        } else {
            shown
        }
    };
    for one in found {
        let _ = match one {
            Found::Request(head) => {
                let _ = writeln!(
                    text,
                    "request: {:?}{}{}",
                    head.body(),
                    if head.keep_alive() { "" } else { ", close" },
                    if head.expects_continue() {
                        ", expects 100"
                    } else {
                        ""
                    }
                );
                let block = head.environ(&CONNECTION, "").unwrap();
                for pair in environ::iter(&block) {
                    let (key, value) = pair.unwrap();
                    // What depends on the connection alone is the same for all.
                    if !key.starts_with(b"REMOTE_") && !key.starts_with(b"SERVER_N") && key != b"SERVER_PORT"
                    {
                        let _ = writeln!(text, "  {}={}", shown(key), shown(value));
                    }
                }
                Ok(())
            }
            Found::Body(body) => writeln!(text, "body: {}", shown(body)),
            Found::Chunk(_) => Ok(()),
            Found::End => writeln!(text, "end of chunks"),
            Found::Refused(refusal) => writeln!(text, "refused: {} {refusal:?}", refusal.status()),
            Found::Waiting(Phase::Idle) => Ok(()),
            Found::Waiting(phase) => writeln!(text, "incomplete: {phase:?}"),
        };
    }
    text
}

fn compare(kind: &str) {
    let mut wrong = Vec::new();
    for path in cases(kind) {
        let bytes = spelled(&fs::read_to_string(&path).unwrap());
        let told = told(&found([&bytes[..]]));
        assert_eq!(
            told.contains("refused: "),
            kind == "invalid",
            "{}: {told}",
            path.display()
        );
        let beside = path.with_extension("out");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&beside, &told).unwrap();
        } else if fs::read_to_string(&beside).ok().as_deref() != Some(&told) {
            wrong.push(format!("{}:\n{told}", path.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "not what the .out files say:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn valid_requests_become_what_is_written_beside_them() {
    compare("valid");
}

#[test]
fn invalid_requests_are_refused_as_is_written_beside_them() {
    compare("invalid");
}

#[test]
fn it_makes_no_difference_where_the_input_is_split() {
    for path in ["valid", "invalid"].into_iter().flat_map(cases) {
        let bytes = spelled(&fs::read_to_string(&path).unwrap());
        let whole = found([&bytes[..]]);
        // Every split of the long ones would take minutes, and shows nothing new.
        let step = 1 + bytes.len() / 2000;
        for at in (0..bytes.len()).step_by(step) {
            assert_eq!(
                found([&bytes[..at], &bytes[at..]]),
                whole,
                "{} split at {at}",
                path.display()
            );
        }
        assert_eq!(
            found(bytes.chunks(1 + bytes.len() / 20_000)),
            whole,
            "{} byte by byte",
            path.display()
        );
        assert_eq!(found(bytes.chunks(7)), whole, "{} by sevens", path.display());
    }
}
