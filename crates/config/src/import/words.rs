//! A command line, word by word, as getopt has it.

use super::table::{Row, Takes};

/// A word that is understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Word<'a> {
    /// An option by its name, and its value, empty without one.
    Option(&'static str, String),
    /// What is no option.
    Plain(&'a str),
    /// An option that is not known.
    Unknown(&'a str),
    /// An option whose value is missing.
    WithoutValue(&'a str),
}

/// Takes a command line apart: `--name value`, `--name=value`, `-n value`, `-nvalue`, `-abc`; after `--` all is plain.
pub(super) fn read<'a>(words: &'a [String], table: &'static [Row]) -> Vec<Word<'a>> {
    let mut found = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        if word == "--" {
            found.extend(rest.by_ref().map(|word| Word::Plain(word)));
        } else if let Some(long) = word.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let Some((row, name)) = table.iter().find_map(|row| {
                let name = row.names.iter().find(|other| **other == name)?;
                Some((row, *name))
            }) else {
                found.push(Word::Unknown(word));
                continue;
            };
            let value = match (row.takes, value) {
                (Takes::Value, None) => rest.next().cloned(),
                (_, value) => Some(value.unwrap_or_default()),
            };
            found.push(match value {
                Some(value) => Word::Option(name, value),
                None => Word::WithoutValue(word),
            });
        } else if word.len() > 1 && word.starts_with('-') {
            shorts(word, &mut rest, table, &mut found);
        } else {
            found.push(Word::Plain(word));
        }
    }
    found
}

fn shorts<'a>(
    word: &'a str,
    rest: &mut std::slice::Iter<'a, String>,
    table: &'static [Row],
    found: &mut Vec<Word<'a>>,
) {
    for (at, letter) in word[1..].char_indices() {
        let Some(row) = table.iter().find(|row| row.short == Some(letter)) else {
            return found.push(Word::Unknown(word));
        };
        let tail = &word[1 + at + letter.len_utf8()..];
        let value = match row.takes {
            Takes::Nothing => Some(String::new()),
            Takes::Value if tail.is_empty() => rest.next().cloned(),
            Takes::Value | Takes::Maybe => Some(tail.to_owned()),
        };
        found.push(match value {
            Some(value) => Word::Option(row.names[0], value),
            None => Word::WithoutValue(word),
        });
        if row.takes != Takes::Nothing {
            return;
        }
    }
}
