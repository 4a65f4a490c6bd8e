//! Writes the cases of `tests/corpus` as bytes for the targets to begin with: `seeds FOLDER`.

#[path = "../tests/cases/corpus.rs"]
mod corpus;

use std::fs;
use std::path::Path;

/// What has no corpus there: the byte that says which fields count, and the fields.
const FORWARDED: [&str; 5] = [
    "\x1fX-Forwarded-For: 192.0.2.7, 10.0.0.2\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a.example:8443\r\n\
     X-Forwarded-Port: 443\r\nX-Forwarded-Prefix: /em/",
    "\x01X-Forwarded-For: \"[2001:db8::1]:8080\"\r\nx-forwarded-for: ::ffff:10.0.0.1,",
    "\x20Forwarded: for=\"[2001:db8::1]:8080\";proto=https;host=\"a.example:8443\";by=_hidden",
    "\x20Forwarded: For=192.0.2.7;Proto=http, for=unknown;host=\"a\\\"b\"",
    "\x0fX-Forwarded-Host: a, b\r\nX-Forwarded-Port: 65535\r\nX_Forwarded_For: 192.0.2.6",
];

fn main() {
    let folder = std::env::args_os().nth(1).expect("seeds FOLDER");
    let folder = Path::new(&folder);
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/corpus");
    let put = |target: &str, name: &str, seed: &[u8]| {
        let folder = folder.join(target);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), seed).unwrap();
    };
    for wire in ["http", "uwsgi", "scgi", "fastcgi", "proxy"] {
        for kind in ["valid", "invalid"] {
            for case in corpus::cases(&corpus, wire, kind) {
                let bytes = corpus::spelled(&fs::read_to_string(&case).unwrap());
                // A long one takes the time of hundreds.
                if bytes.len() < 4096 {
                    let name = case.file_stem().unwrap().to_string_lossy();
                    // Where it is split: see split.rs.
                    put(
                        wire,
                        &format!("{kind}-{name}"),
                        &[&[bytes.len() as u8 / 2], &bytes[..]].concat(),
                    );
                }
            }
        }
    }
    for (number, seed) in FORWARDED.iter().enumerate() {
        put("forwarded", &number.to_string(), seed.as_bytes());
    }
}
