//! What is wrong with a configuration, all of it at once.

use std::fmt;

/// Everything that is wrong, in the order in which it was typed: options first, then the file's lines.
#[derive(Debug)]
pub struct Errors {
    /// The file as it was named to [`crate::load`], empty without one; then those that it includes.
    files: Vec<String>,
    problems: Vec<Problem>,
}

impl Errors {
    pub(crate) fn new(file: String, problems: Vec<Problem>) -> Self {
        Self::of_files(vec![file], problems)
    }

    /// As [`new`](Self::new), with the files that [`Place::Included`] counts, the first being the file itself.
    pub(crate) fn of_files(files: Vec<String>, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.place);
        Self { files, problems }
    }

    /// How many there are; at least one.
    pub fn count(&self) -> usize {
        self.problems.len()
    }
}

/// Two lines for each: `file:line: key: what is wrong`, then `hint: what to write instead`.
impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (
            index,
            Problem {
                place,
                key,
                what,
                hint,
            },
        ) in self.problems.iter().enumerate()
        {
            if index > 0 {
                writeln!(f)?;
            }
            f.write_str(&place.shown(&self.files, key))?;
            write!(f, "{what}\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// Where something was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// On the command line.
    Option,
    /// The file as a whole.
    File,
    /// A line of the file, counted from 1.
    Line(usize),
    /// A file that the file includes, counted from 1, and a line of it.
    Included(usize, usize),
}

impl Place {
    /// Where it is, before what is said of it: `app.toml:7: limits.time: `.
    pub(crate) fn shown(self, files: &[String], key: &str) -> String {
        let (file, line) = match self {
            // An option is its own place: `--time: ...`.
            Place::Option => return format!("{key}: "),
            Place::File => return format!("{}: ", files[0]),
            Place::Line(line) => (0, line),
            Place::Included(file, line) => (file, line),
        };
        match key {
            "" => format!("{}:{line}: ", files[file]),
            _ => format!("{}:{line}: {key}: ", files[file]),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub place: Place,
    /// `limits.time`, or `--time`; empty where no key is to blame.
    pub key: String,
    pub what: String,
    pub hint: String,
}

/// A value, and where it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct At<T> {
    pub value: T,
    pub place: Place,
    /// `limits.time`, or `--time`.
    pub key: String,
}

impl<T> At<T> {
    pub(crate) fn problem(&self, what: impl Into<String>, hint: impl Into<String>) -> Problem {
        Problem {
            place: self.place,
            key: self.key.clone(),
            what: what.into(),
            hint: hint.into(),
        }
    }
}
