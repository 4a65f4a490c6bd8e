//! One row for each option of another server: what it is called, and what becomes of it.

use super::plan::Plan;
use super::{Documented, Setting};
use crate::keys::near;

/// An option.
pub(super) struct Row {
    /// The usual one first.
    pub names: &'static [&'static str],
    /// For the command line: `-s`.
    pub short: Option<char>,
    pub takes: Takes,
    pub outcome: Outcome,
}

/// What comes after an option on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    Value,
    /// `--name` or `--name=value`.
    Maybe,
}

/// What becomes of an option.
pub(super) enum Outcome {
    /// It counts here, as these words say.
    Honoured(&'static str, fn(&mut Plan, &Setting)),
    /// What it is for is so without it, because of this.
    NotNeeded(&'static str),
    /// It cannot be had, because of this.
    NotSupported(&'static str),
    /// The reader of files has dealt with it.
    Read(&'static str),
}

/// An option with a value.
pub(super) const fn value(names: &'static [&'static str], outcome: Outcome) -> Row {
    Row {
        names,
        short: None,
        takes: Takes::Value,
        outcome,
    }
}

/// An option without one.
pub(super) const fn flag(names: &'static [&'static str], outcome: Outcome) -> Row {
    Row {
        takes: Takes::Nothing,
        ..value(names, outcome)
    }
}

/// An option that may have one.
pub(super) const fn maybe(names: &'static [&'static str], outcome: Outcome) -> Row {
    Row {
        takes: Takes::Maybe,
        ..value(names, outcome)
    }
}

impl Row {
    pub(super) const fn short(self, letter: char) -> Row {
        Row {
            short: Some(letter),
            ..self
        }
    }

    pub(super) fn is_named(&self, key: &str) -> bool {
        self.names.contains(&key)
    }

    /// Has it count; what is to be said of it otherwise, and whether that is a warning.
    pub(super) fn apply(&self, plan: &mut Plan, setting: &Setting) -> Option<(bool, String)> {
        match self.outcome {
            Outcome::Honoured(_, apply) => {
                apply(plan, setting);
                None
            }
            // What is turned off is no loss.
            Outcome::NotNeeded(_) | Outcome::NotSupported(_)
                if self.takes == Takes::Nothing && !super::ini::is_true(&setting.value) =>
            {
                None
            }
            Outcome::NotNeeded(why) => Some((false, format!("not needed here: {why}"))),
            Outcome::NotSupported(why) => Some((true, format!("not supported: {why}"))),
            Outcome::Read(_) => None,
        }
    }
}

/// The option that an unknown one may be meant for.
pub(super) fn nearest(table: &[Row], key: &str) -> String {
    let names = || table.iter().flat_map(|row| row.names);
    let plain = key.replace('_', "-");
    match names()
        .find(|name| **name == plain)
        .or_else(|| names().find(|name| near(key, name)))
    {
        Some(name) => format!("did you mean {name}?"),
        None => "docs/uwsgi-options.md has those that are known".to_owned(),
    }
}

pub(super) fn documented(table: &'static [Row]) -> Vec<Documented> {
    let one = |row: &'static Row| {
        let (outcome, text) = match row.outcome {
            Outcome::Honoured(text, _) | Outcome::Read(text) => ("honoured", text),
            Outcome::NotNeeded(text) => ("not needed", text),
            Outcome::NotSupported(text) => ("not supported", text),
        };
        Documented {
            names: row.names.to_vec(),
            outcome,
            text,
        }
    };
    table.iter().map(one).collect()
}
