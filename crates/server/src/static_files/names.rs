//! Which paths may name a file at all.

/// Endings of files that are an app's source, its configuration or its data.
const WITHHELD: [&[u8]; 16] = [
    b"py", b"pyc", b"pyo", b"pyw", b"pyx", b"pyd", b"wsgi", b"toml", b"ini", b"cfg", b"conf", b"env", b"db",
    b"sqlite", b"sqlite3", b"sql",
];

/// What the name of a file that belongs to another ends in: compressed, or a database's journal.
const ADDED: [&[u8]; 8] = [
    b".br",
    b".gz",
    b".zst",
    b"~",
    b".bak",
    b"-wal",
    b"-shm",
    b"-journal",
];

/// The one folder with a dot that is meant to be seen (RFC 8615).
const WELL_KNOWN: &[u8] = b".well-known";

/// A decoded path below a mount that may name a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted<'p> {
    /// Segments with slashes between them; empty for the mount's own folder.
    pub(super) path: &'p [u8],
    /// It ended with a slash.
    pub(super) is_folder: bool,
}

impl<'p> Wanted<'p> {
    /// `rest` is empty or begins with a slash. `None` if no file is served under such a path.
    pub(super) fn new(rest: &'p [u8]) -> Option<Self> {
        let Some((_, path)) = rest.split_first() else {
            return Some(Self {
                path: b"",
                is_folder: false,
            });
        };
        let (path, is_folder) = match path {
            [] => (path, true),
            [path @ .., b'/'] => (path, true),
            _ => (path, false),
        };
        if path.is_empty() {
            // `//`: a second slash is not nothing.
            return (rest.len() == 1).then_some(Self { path, is_folder });
        }
        let clean = !path.iter().any(|b| matches!(b, 0 | b'\\'));
        (clean && is_served(path)).then_some(Self { path, is_folder })
    }
}

/// Whether a file of this relative path is given out: no part of it is empty, hidden, or an app's own business.
pub(super) fn is_served(path: &[u8]) -> bool {
    let mut parts = path.split(|&b| b == b'/').enumerate();
    parts.all(|(index, part)| (index == 0 && part == WELL_KNOWN) || is_public(part))
}

/// Whether a single name is given out. `.` and `..` are not.
pub(super) fn is_public(name: &[u8]) -> bool {
    if name.is_empty() || name[0] == b'.' || name == b"__pycache__" {
        return false;
    }
    let mut stem = name;
    while let Some(shorter) = ADDED.iter().find_map(|added| strip_end(stem, added)) {
        stem = shorter;
    }
    match stem.iter().rposition(|&b| b == b'.') {
        Some(dot) => !WITHHELD
            .iter()
            .any(|ending| stem[dot + 1..].eq_ignore_ascii_case(ending)),
        None => true,
    }
}

fn strip_end<'n>(name: &'n [u8], end: &[u8]) -> Option<&'n [u8]> {
    let at = name.len().checked_sub(end.len())?;
    name[at..].eq_ignore_ascii_case(end).then_some(&name[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_file_or_a_folder() {
        for (rest, path, is_folder) in [
            ("", "", false),
            ("/", "", true),
            ("/a.css", "a.css", false),
            ("/a/b/", "a/b", true),
            ("/...a", "", true),
            (
                "/.well-known/acme-challenge/x",
                ".well-known/acme-challenge/x",
                false,
            ),
            ("/a b\u{e9}", "a b\u{e9}", false),
            ("/%2e%2e/a", "%2e%2e/a", false),
        ] {
            let expected = (rest != "/...a").then_some(Wanted {
                path: path.as_bytes(),
                is_folder,
            });
            assert_eq!(Wanted::new(rest.as_bytes()), expected, "{rest}");
        }
    }

    #[test]
    fn whatever_leads_elsewhere_or_is_hidden_names_nothing() {
        for rest in [
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/.",
            "/..",
            "/../a",
            "/a/..",
            "/a/../b",
            "/a/./b",
            "/a\0",
            "/a\\b",
            "/..\\a",
            "/.git/config",
            "/.env",
            "/a/.htaccess",
            "/a/.well-known/x",
            "/wsgi.py",
            "/WSGI.PY",
            "/a.pyc",
            "/__pycache__/a.css",
            "/app.toml",
            "/server.toml",
            "/uwsgi.ini",
            "/a.py.gz",
            "/a.py~",
            "/a.PY.BR",
            "/notes.db",
            "/notes.db-wal",
            "/notes.sqlite3-journal",
            "/a.py/",
        ] {
            assert_eq!(Wanted::new(rest.as_bytes()), None, "{rest}");
        }
        for rest in [
            "/a.js",
            "/a.tar.gz",
            "/python",
            "/py",
            "/a.pyz",
            "/a.min.css",
            "/~",
        ] {
            assert!(Wanted::new(rest.as_bytes()).is_some(), "{rest}");
        }
    }
}
