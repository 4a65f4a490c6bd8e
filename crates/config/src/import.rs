//! What other servers are configured with, as an `app.toml`: uWSGI's ini files and command line, Gunicorn's command line.
//!
//! Each option has a row in a table ([`uwsgi`], [`gunicorn`]) that says what becomes of it, in words and in code. The
//! outcome is the text of an `app.toml`, with the place that each of its lines comes from: that text is what is served,
//! and what `wasgi import` writes.

mod document;
mod expand;
mod gunicorn;
mod ini;
mod logic;
mod magic;
mod plan;
mod table;
mod uwsgi;
mod words;

use std::path::Path;

use crate::config::Config;
use crate::overrides::Overrides;
use crate::problem::{Errors, Place, Problem};
use crate::raw;
use crate::resolve::EnvLookup;
use document::Document;
use ini::Reader;
use plan::Plan;

/// Where a configuration is written.
#[derive(Clone, Copy, Debug)]
pub enum Foreign<'a> {
    /// uWSGI's `file.ini`, or `file.ini:section`.
    UwsgiFile(&'a str),
    /// What is typed after `uwsgi`.
    UwsgiWords(&'a [String]),
    /// What is typed after `gunicorn`.
    GunicornWords(&'a [String]),
}

/// Another server's configuration, understood.
#[derive(Debug)]
pub struct Imported {
    /// The `app.toml` that says the same.
    pub toml: String,
    /// What is to be said of options that nothing comes of.
    pub remarks: Vec<Remark>,
    /// Where each line of `toml` comes from, and the option's name.
    origins: Vec<Option<(Place, String)>>,
    files: Vec<String>,
}

/// Something to know about an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// Whether something is missing here; else it is only not needed.
    pub is_warning: bool,
    /// `uwsgi.ini:3: thunder-lock: not needed here: ...`
    pub text: String,
}

/// One option as it was written.
#[derive(Clone, Debug)]
struct Setting {
    key: String,
    value: String,
    place: Place,
    /// Whether it only stands for something in other values.
    is_placeholder: bool,
}

impl Setting {
    /// As it is typed.
    fn shown(&self) -> String {
        match self.place {
            Place::Option if self.key != "APP" => format!("--{}", self.key),
            _ => self.key.clone(),
        }
    }

    fn problem(&self, what: impl Into<String>, hint: impl Into<String>) -> Problem {
        Problem {
            place: self.place,
            key: self.shown(),
            what: what.into(),
            hint: hint.into(),
        }
    }
}

/// Reads another server's configuration. `env` looks up the host's variables.
///
/// # Errors
/// Everything that is wrong with it.
pub fn import(what: Foreign<'_>, env: EnvLookup<'_>) -> Result<Imported, Errors> {
    let current = crate::current()?;
    let (settings, files, problems, strict, table) = match what {
        Foreign::UwsgiFile(named) => {
            let mut reader = Reader::new(&current, env, uwsgi::is_option);
            if let Err((what, hint)) = reader.file(named, None) {
                reader.problems.push(Problem {
                    place: Place::Option,
                    key: named.to_owned(),
                    what,
                    hint,
                });
            }
            reader.placeholders();
            (
                reader.settings,
                reader.files,
                reader.problems,
                reader.strict,
                uwsgi::TABLE,
            )
        }
        Foreign::UwsgiWords(words) => {
            let mut reader = Reader::new(&current, env, uwsgi::is_option);
            // No file is the one asked for.
            reader.files.push(String::new());
            uwsgi::words(words, &mut reader);
            reader.placeholders();
            // A word that is no option is a slip.
            (reader.settings, reader.files, reader.problems, true, uwsgi::TABLE)
        }
        Foreign::GunicornWords(words) => {
            let (settings, files, problems) = gunicorn::read(words, &current, env);
            (settings, files, problems, true, gunicorn::TABLE)
        }
    };
    let mut plan = Plan::new(current, problems);
    plan.of_file = matches!(what, Foreign::UwsgiFile(_));
    if matches!(what, Foreign::GunicornWords(_)) {
        gunicorn::defaults(&mut plan, env);
    }
    let mut remarks = Vec::new();
    for setting in settings.iter().filter(|setting| !setting.is_placeholder) {
        let said = match table.iter().find(|row| row.is_named(&setting.key)) {
            Some(row) => row.apply(&mut plan, setting),
            None if strict => {
                let hint = table::nearest(table, &setting.key);
                plan.problems.push(setting.problem("unknown option", hint));
                None
            }
            None => Some((
                true,
                format!("unknown option; {}", table::nearest(table, &setting.key)),
            )),
        };
        remarks.extend(said.map(|said| (setting, said)));
    }
    let mut document = Document::default();
    plan.write(&mut document);
    let remarks = remarks
        .into_iter()
        .chain(plan.remarks.iter().map(|(setting, said)| (setting, said.clone())));
    let remarks: Vec<Remark> = remarks
        .map(|(setting, (is_warning, said))| Remark {
            is_warning,
            text: format!("{}{said}", setting.place.shown(&files, &setting.shown())),
        })
        .collect();
    match plan.problems.is_empty() {
        true => {
            let (toml, origins) = document.finish();
            Ok(Imported {
                toml,
                remarks,
                origins,
                files,
            })
        }
        false => Err(Errors::of_files(files, plan.problems)),
    }
}

impl Imported {
    /// Puts options over it, and resolves the whole.
    ///
    /// # Errors
    /// Everything that is wrong, at the places where it was written.
    pub fn load(&self, overrides: &Overrides, env: EnvLookup<'_>) -> Result<Config, Errors> {
        let (mut raw, mut problems, _) = raw::read(&self.toml);
        problems.extend(overrides.apply(&mut raw));
        let mut resolver = crate::resolver(Some(Path::new("app.toml")), env)?;
        let config = resolver.config(&raw);
        problems.append(&mut resolver.problems);
        for problem in &mut problems {
            if let Place::Line(line) = problem.place {
                match self.origins.get(line - 1) {
                    Some(Some((place, key))) => {
                        (problem.place, problem.key) = (*place, key.clone());
                    }
                    _ => problem.place = Place::File,
                }
            }
        }
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(Errors::of_files(self.files.clone(), problems)),
        }
    }

    /// The `app.toml`, with what is to be known about it as comments above.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for remark in &self.remarks {
            // A comment ends with its line.
            text.push_str(&format!("# {}\n", remark.text.replace(['\n', '\r'], " ")));
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text + &self.toml
    }
}

/// The tables of options as they are documented: heading and rows.
pub fn documentation() -> [(&'static str, Vec<Documented>); 2] {
    [
        ("uWSGI", table::documented(uwsgi::TABLE)),
        ("Gunicorn", table::documented(gunicorn::TABLE)),
    ]
}

/// A row of the documentation.
#[derive(Debug)]
pub struct Documented {
    /// The option's names, the usual one first.
    pub names: Vec<&'static str>,
    /// `honoured`, `not needed` or `not supported`.
    pub outcome: &'static str,
    /// As what, or why.
    pub text: &'static str,
}

#[cfg(test)]
mod tests;
