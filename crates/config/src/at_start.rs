//! What of a file counts as it was when the server started: a reload reads it, and goes on with what was there before.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::raw::Lines;

/// Tables of which that holds in any file: sockets and destinations are opened once.
const TABLES: &[&str] = &["listen", "server", "proxy", "admin", "log", "trace"];

/// Further names of a `server.toml`: its limits are those of all connections.
const OF_SERVER: &[&str] = &["limits", "memory", "builders"];

/// What a file says of them, at one time.
#[derive(Debug, Default)]
pub struct AtStart {
    /// By the name, `listen.http`: its line, and its value as typed but for space and comments.
    values: BTreeMap<String, (usize, String)>,
}

impl AtStart {
    /// Reads an `app.toml` that is named on the command line. Of a file that cannot be read nothing is known.
    pub fn of_app(file: &Path) -> Self {
        Self::read(file, TABLES)
    }

    /// Reads a `server.toml`.
    pub fn of_server(file: &Path) -> Self {
        Self::read(file, &[TABLES, OF_SERVER].concat())
    }

    fn read(file: &Path, names: &[&str]) -> Self {
        fs::read_to_string(file).map_or_else(|_| Self::default(), |text| Self::of(&text, names))
    }

    fn of(text: &str, names: &[&str]) -> Self {
        let (parsed, _) = DeTable::parse_recoverable(text);
        let lines = Lines::of(text);
        let mut values = BTreeMap::new();
        let mut note = |name: String, at: usize, value: &Spanned<DeValue<'_>>| {
            let typed = text.get(value.span()).unwrap_or_default();
            values.insert(name, (lines.at(at), plain(typed)));
        };
        for (name, value) in parsed.get_ref() {
            let table = name.get_ref().as_ref();
            if !names.contains(&table) {
                continue;
            }
            match value.get_ref() {
                DeValue::Table(entries) => {
                    for (key, value) in entries {
                        note(format!("{table}.{}", key.get_ref()), key.span().start, value);
                    }
                }
                _ => note(table.to_owned(), name.span().start, value),
            }
        }
        Self { values }
    }

    /// What the file says otherwise now, a line for each: it waits for another start.
    pub fn changes(&self, now: &Self, file: &Path) -> Vec<String> {
        const WAITS: &str =
            "a reload does not take that over: restart the server, or have it upgrade itself (kill -USR2)";
        let file = file.display();
        let changed = now.values.iter().filter_map(|(name, (line, value))| {
            let what = match self.values.get(name) {
                None => "is new",
                Some((_, before)) if before != value => "has changed",
                Some(_) => return None,
            };
            Some((*line, format!("{file}:{line}: {name}: {what}; {WAITS}")))
        });
        let mut changed: Vec<_> = changed.collect();
        changed.sort();
        let gone = self
            .values
            .iter()
            .filter(|(name, _)| !now.values.contains_key(*name));
        let gone =
            gone.map(|(name, (line, _))| format!("{file}: {name}: is gone, it was in line {line}; {WAITS}"));
        changed.into_iter().map(|(_, text)| text).chain(gone).collect()
    }
}

/// A value without the space and the comments in it.
fn plain(typed: &str) -> String {
    let lines = typed
        .lines()
        .map(|line| match line.trim_start().starts_with('#') {
            true => "",
            false => line.trim(),
        });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(before: &str, now: &str) -> Vec<String> {
        let names = [TABLES, OF_SERVER].concat();
        let told = AtStart::of(before, &names).changes(&AtStart::of(now, &names), Path::new("server.toml"));
        let short = |line: &String| line.split(';').next().unwrap_or_default().to_owned();
        told.iter().map(short).collect()
    }

    #[test]
    fn what_waits_for_a_start_is_told_with_its_line() {
        let before = "apps = []\nmemory = \"1GiB\"\n[listen]\nhttp = [\"a\",\n  \"b\"]\nredirect = \"c\"\n[defaults]\nworkers = 1\n";
        assert_eq!(changes(before, before), Vec::<String>::new());
        let same = "memory = \"1GiB\"   # ours\n\n[listen]\nredirect = \"c\"\nhttp = [\n\"a\",\n# and\n\"b\"]\n[defaults]\nworkers = 2\n";
        assert_eq!(changes(before, same), Vec::<String>::new());
        let other = "apps = []\nmemory = \"2GiB\"\n[listen]\nhttp = [\"a\"]\n[proxy]\ntrust = [\"unix\"]\n[caps]\nworkers = 3\n";
        assert_eq!(
            changes(before, other),
            [
                "server.toml:2: memory: has changed",
                "server.toml:4: listen.http: has changed",
                "server.toml:6: proxy.trust: is new",
                "server.toml: listen.redirect: is gone, it was in line 6",
            ]
        );
    }
}
