//! The names `app.toml` knows, and which of them a wrong one was meant to be.

use crate::admin;
use crate::limits::LIMITS;

/// A table and its keys; `app.env`, `files` and `static` take any.
const TABLES: &[(&str, &[&str])] = &[
    (
        "app",
        &[
            "name",
            "root",
            "module",
            "wsgi-file",
            "callable",
            "venv",
            "python-path",
            "workers",
            "max-requests",
            "max-lifetime",
            "max-memory",
            "isolation",
            "warmup",
            "verify-rewind",
            "snapshot-cache",
            "hosts",
            "mount",
            "weight",
            "watch",
            "probe",
            "env",
        ],
    ),
    (
        "listen",
        &[
            "http",
            "https",
            "h2c",
            "redirect",
            "uwsgi",
            "fastcgi",
            "scgi",
            "proxy-protocol",
            "socket-mode",
            "socket-owner",
            "backlog",
            "reuse-port",
        ],
    ),
    ("server", crate::process::KEYS),
    ("log", crate::log::KEYS),
    ("trace", crate::trace::KEYS),
    ("compress", crate::compress::KEYS),
    ("admin", admin::KEYS),
    ("proxy", crate::proxy::KEYS),
];

/// What other servers call the same thing.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("accesslog", "log", "access"),
    ("address", "listen", "http"),
    ("application", "app", "module"),
    ("bind", "listen", "http"),
    ("chdir", "app", "root"),
    ("chmodsocket", "listen", "socket-mode"),
    ("chownsocket", "listen", "socket-owner"),
    ("checkstatic", "static", "\"/\" = \"folder\""),
    ("environment", "app", "env"),
    ("fastcgisocket", "listen", "fastcgi"),
    ("fcgi", "listen", "fastcgi"),
    ("forwardedallowips", "proxy", "trust"),
    ("forwarderheaders", "proxy", "headers"),
    ("gid", "server", "group"),
    ("gzip", "compress", "encodings"),
    ("gzipcomplevel", "compress", "level"),
    ("gzipminlength", "compress", "min-size"),
    ("gziptypes", "compress", "types"),
    ("harakiri", "limits", "time"),
    ("home", "app", "venv"),
    ("host", "listen", "http"),
    ("httpsocket", "listen", "http"),
    ("limitas", "limits", "memory"),
    ("logformat", "log", "access"),
    ("logmaxsize", "log", "rotate-size"),
    ("logto", "log", "file"),
    ("port", "listen", "http"),
    ("processes", "app", "workers"),
    ("maxworkerlifetime", "app", "max-lifetime"),
    ("proxyallowips", "proxy", "trust"),
    ("pythonhome", "app", "venv"),
    ("reloadonrss", "app", "max-memory"),
    ("scgisocket", "listen", "scgi"),
    ("socket", "listen", "uwsgi"),
    ("staticmap", "static", "\"/static\" = \"static\""),
    ("stats", "admin", "stats"),
    ("statsserver", "admin", "stats"),
    ("target", "app", "module"),
    ("timeout", "limits", "time"),
    ("uid", "server", "user"),
    ("uwsgisocket", "listen", "uwsgi"),
    ("virtualenv", "app", "venv"),
    ("wsgi", "app", "module"),
    ("wsgiapp", "app", "module"),
];

/// The keys of a table, in the order of the documentation.
fn keys(table: &str) -> Vec<&'static str> {
    match table {
        "limits" => LIMITS.iter().map(|key| key.name).collect(),
        _ => TABLES
            .iter()
            .find(|(name, _)| *name == table)
            .map(|(_, keys)| keys.to_vec())
            .unwrap_or_default(),
    }
}

/// What to write instead of the unknown `key` in `[table]`, or at the top when `table` is empty.
pub(crate) fn hint(table: &str, key: &str) -> String {
    const NAMES: &[&str] = &[
        "app", "listen", "server", "limits", "log", "trace", "files", "static", "compress", "admin", "proxy",
    ];
    let typed = plain(key);
    if table.is_empty()
        && let Some(name) = NAMES.iter().find(|name| near(&typed, name))
    {
        return format!("did you mean [{name}]?");
    }
    let elsewhere = ELSEWHERE.iter().find(|(name, ..)| *name == typed);
    if let Some((_, _, known)) = elsewhere.filter(|(_, other, _)| *other == table) {
        return format!("here it is called {known}");
    }
    if let Some(known) = keys(table).into_iter().find(|known| near(&typed, &plain(known))) {
        return format!("did you mean {known}?");
    }
    // Not those of [admin]: uWSGI calls `socket` what is `http` here.
    for other in NAMES.iter().filter(|name| **name != table && **name != "admin") {
        if let Some(known) = keys(other).into_iter().find(|known| near(&typed, &plain(known))) {
            return format!("{known} is a key of [{other}]");
        }
    }
    if let Some((_, other, known)) = elsewhere {
        return format!("here it is called {known}, in [{other}]");
    }
    match table {
        "" => "the tables are [app], [app.env], [listen], [server], [limits], [log], [trace], [files], [static], [compress], [admin] and [proxy]"
            .to_owned(),
        _ => format!("the keys of [{table}] are {}", keys(table).join(", ")),
    }
}

/// What to write instead of the unknown `key` at the top of `server.toml`.
pub(crate) fn server_hint(key: &str) -> String {
    const NAMES: &[&str] = &[
        "apps",
        "grant",
        "hosts",
        "tenant-hosts",
        "pass-env",
        "memory",
        "idle-timeout",
        "builders",
        "listen",
        "server",
        "admin",
        "proxy",
        "limits",
        "log",
        "trace",
        "defaults",
        "caps",
        "app",
        "group",
    ];
    let typed = plain(key);
    match NAMES.iter().find(|name| near(&typed, &plain(name))) {
        Some(name) => format!("did you mean {name}?"),
        None => format!("the names here are {}", NAMES.join(", ")),
    }
}

/// Without the differences in which people write the same name.
fn plain(key: &str) -> String {
    key.chars()
        .filter(|c| !matches!(c, '-' | '_' | ' '))
        .flat_map(char::to_lowercase)
        .collect()
}

/// At most one slip in a short name, two in a longer one.
pub(crate) fn near(typed: &str, known: &str) -> bool {
    distance(typed, known) <= if known.len() < 6 { 1 } else { 2 }
}

/// Letters to add, drop, change or swap with their neighbour to get from one to the other (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_name_leads_to_the_right_one() {
        for (table, key, expected) in [
            ("app", "wrokers", "did you mean workers?"),
            ("app", "max_requests", "did you mean max-requests?"),
            ("app", "pythonpath", "did you mean python-path?"),
            ("app", "http", "http is a key of [listen]"),
            ("app", "processes", "here it is called workers"),
            ("app", "harakiri", "here it is called time, in [limits]"),
            ("listen", "bind", "here it is called http"),
            ("listen", "fcgi", "here it is called fastcgi"),
            ("limits", "memroy", "did you mean memory?"),
            ("", "limit", "did you mean [limits]?"),
            ("", "workers", "workers is a key of [app]"),
            (
                "",
                "quux",
                "the tables are [app], [app.env], [listen], [server], [limits], [log], [trace], [files], [static], [compress], [admin] and [proxy]",
            ),
            (
                "listen",
                "quux",
                "the keys of [listen] are http, https, h2c, redirect, uwsgi, fastcgi, scgi, proxy-protocol, socket-mode, socket-owner, backlog, reuse-port",
            ),
        ] {
            assert_eq!(hint(table, key), expected);
        }
    }

    #[test]
    fn distance_counts_a_swap_as_one() {
        for (a, b, slips) in [
            ("time", "time", 0),
            ("time", "tiem", 1),
            ("time", "tim", 1),
            ("time", "dome", 2),
            ("", "ab", 2),
        ] {
            assert_eq!(distance(a, b), slips, "{a} {b}");
        }
    }
}
