//! `for` and `if` blocks: which values an option within one comes to.
//!
//! Source: uWSGI, "Configuration logic"; core/config.c.

use std::fs;
use std::path::Path;

use super::Setting;
use super::ini::matching;
use crate::resolve::EnvLookup;

/// Most rounds of `for-times`.
const ROUNDS: u64 = 10_000;

/// A block that is open.
pub(super) enum Logic {
    /// `for`: words; `for-glob`: paths; `for-times`: numbers from 1; `for-readline`: lines of a file.
    For(Over, String),
    /// `if-...` and `if-not-...`.
    If {
        test: Test,
        not: bool,
        argument: String,
    },
    Else,
}

#[derive(Clone, Copy)]
pub(super) enum Over {
    Words,
    Paths,
    Numbers,
    Lines,
}

#[derive(Clone, Copy)]
pub(super) enum Test {
    Option,
    Variable,
    Reload,
    Host,
    Exists,
    Plugin,
    File,
    Folder,
    /// By a regular expression, which nothing here reads.
    HostMatches,
}

/// What conditions are asked of.
pub(super) struct Surroundings<'a> {
    pub current: &'a Path,
    pub env: EnvLookup<'a>,
    pub settings: &'a [Setting],
}

impl Logic {
    /// The block that an option opens, if it opens one.
    pub(super) fn of(key: &str, value: &str) -> Option<Self> {
        let over = match key {
            "for" => Some(Over::Words),
            "for-glob" => Some(Over::Paths),
            "for-times" => Some(Over::Numbers),
            "for-readline" => Some(Over::Lines),
            _ => None,
        };
        if let Some(over) = over {
            return Some(Logic::For(over, value.to_owned()));
        }
        let test = key.strip_prefix("if-").or(key.strip_prefix("if"))?;
        let (test, not) = match test.strip_prefix("not-") {
            Some(test) => (test, true),
            None => (test, false),
        };
        let test = match test {
            "opt" => Test::Option,
            "env" => Test::Variable,
            "reload" => Test::Reload,
            "hostname" => Test::Host,
            "hostname-match" => Test::HostMatches,
            "exists" => Test::Exists,
            "plugin" => Test::Plugin,
            "file" => Test::File,
            "dir" | "directory" => Test::Folder,
            _ => return None,
        };
        Some(Logic::If {
            test,
            not,
            argument: value.to_owned(),
        })
    }

    /// The values that one option within the block comes to; `%(_)` stands for what the block is about.
    ///
    /// # Errors
    /// What cannot be found out, and what to do.
    pub(super) fn values(
        &self,
        value: &str,
        failed: &mut bool,
        around: &Surroundings<'_>,
    ) -> Result<Vec<String>, (String, String)> {
        let with = |it: &str| value.replace("%(_)", it);
        match self {
            Logic::For(over, argument) => {
                let each = match over {
                    Over::Words => argument
                        .split(' ')
                        .filter(|word| !word.is_empty())
                        .map(str::to_owned)
                        .collect(),
                    Over::Paths => matching(argument, around.current),
                    Over::Numbers => {
                        let times: u64 = argument.trim().parse().unwrap_or(0);
                        (1..=times.min(ROUNDS)).map(|number| number.to_string()).collect()
                    }
                    Over::Lines => lines(&around.current.join(argument), argument)?,
                };
                Ok(each.iter().map(|it| with(it)).collect())
            }
            Logic::If { test, not, argument } => {
                let found = test.find(argument, around)?;
                *failed = found.is_some() == *not;
                Ok(match *failed {
                    true => Vec::new(),
                    false => vec![with(found.as_deref().unwrap_or(argument))],
                })
            }
            Logic::Else => Ok(failed.then(|| value.to_owned()).into_iter().collect()),
        }
    }
}

impl Test {
    /// What was found, if it holds.
    fn find(self, argument: &str, around: &Surroundings<'_>) -> Result<Option<String>, (String, String)> {
        let path = around.current.join(argument);
        let (name, wanted) = match argument.split_once('=') {
            Some((name, wanted)) => (name, Some(wanted)),
            None => (argument, None),
        };
        let as_wanted = |value: &String| wanted.is_none_or(|wanted| wanted == value);
        let holds = match self {
            Test::Option => {
                let first = around.settings.iter().find(|setting| setting.key == name);
                return Ok(first.map(|setting| setting.value.clone()).filter(as_wanted));
            }
            Test::Variable => return Ok((around.env)(name).filter(as_wanted)),
            // It is read in the same way each time.
            Test::Reload => false,
            Test::Host => nix::unistd::gethostname().is_ok_and(|host| host == *argument),
            Test::Exists => path.exists(),
            // What the Python plugin does is done here.
            Test::Plugin => argument.starts_with("python") || argument == "http",
            Test::File => path.is_file(),
            Test::Folder => path.is_dir(),
            Test::HostMatches => {
                return Err((
                    "regular expressions are not read here".to_owned(),
                    "write if-hostname with the whole name".to_owned(),
                ));
            }
        };
        Ok(holds.then(|| argument.to_owned()))
    }
}

fn lines(path: &Path, named: &str) -> Result<Vec<String>, (String, String)> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().map(|line| line.trim_end().to_owned()).collect()),
        Err(error) => Err((
            format!("file `{named}` cannot be read: {}", crate::lower(&error)),
            "name a text file, relative to the current folder".to_owned(),
        )),
    }
}
