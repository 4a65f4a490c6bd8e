//! What is wrong with a configuration, all of it at once.

use std::fmt;

/// Everything that is wrong, in the order in which it was typed: options first, then the file's lines.
#[derive(Debug)]
pub struct Errors {
    /// The file as it was named to [`crate::load`]; empty without one.
    file: String,
    problems: Vec<Problem>,
}

impl Errors {
    pub(crate) fn new(file: String, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.place);
        Self { file, problems }
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
            match place {
                // An option is its own place: `--time: ...`.
                Place::Option => write!(f, "{key}: {what}")?,
                Place::File => write!(f, "{}: {what}", self.file)?,
                Place::Line(line) if key.is_empty() => write!(f, "{}:{line}: {what}", self.file)?,
                Place::Line(line) => write!(f, "{}:{line}: {key}: {what}", self.file)?,
            }
            write!(f, "\nhint: {hint}")?;
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
