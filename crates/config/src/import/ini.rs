//! Reads a `uwsgi.ini` by uWSGI's own rules, into the options that it comes to, in their order.
//!
//! Sources: uWSGI, core/ini.c, core/config.c; "Configuring uWSGI" and "Configuration logic". Beyond uWSGI, what follows a `#` or
//! a `;` and a blank is a comment within a line too, as people write it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::Setting;
use super::expand::{expand, placeholder};
use super::logic::{Logic, Surroundings};
use super::magic::Magic;
use crate::problem::{Place, Problem};
use crate::resolve::EnvLookup;

/// How deep files may include one another.
const DEPTH: usize = 16;

/// Most options that a file may come to, its loops unrolled.
const MOST: usize = 10_000;

/// Largest file that is read.
const LARGEST: u64 = 1 << 20;

/// Options whose value is text to the end of its line.
const WHOLE: [&str; 2] = ["log-format", "logformat"];

/// Files in languages that are not read here.
const LANGUAGES: [&str; 7] = ["xml", "xmlconfig", "yaml", "yml", "json", "js", "ini-paste"];

/// What the options are gathered with.
pub(super) struct Reader<'a> {
    env: EnvLookup<'a>,
    current: PathBuf,
    /// As they are named, the first being the one asked for.
    pub files: Vec<String>,
    pub settings: Vec<Setting>,
    pub problems: Vec<Problem>,
    /// `strict`, where it was said.
    pub strict: bool,
    /// Whether a name is one of uWSGI's options.
    is_option: fn(&str) -> bool,
    logic: Option<Logic>,
    /// Whether the condition before did not hold, for `else`.
    failed: bool,
    first: Option<Magic>,
    depth: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(current: &Path, env: EnvLookup<'a>, is_option: fn(&str) -> bool) -> Self {
        Self {
            env,
            current: current.to_owned(),
            files: Vec::new(),
            settings: Vec::new(),
            problems: Vec::new(),
            strict: false,
            is_option,
            logic: None,
            failed: false,
            first: None,
            depth: 0,
        }
    }

    /// Reads `file.ini`, or `file.ini:section`; `from` is where it is named.
    ///
    /// # Errors
    /// Why it cannot be read, and what to do.
    pub(super) fn file(&mut self, named: &str, from: Option<usize>) -> Result<(), (String, String)> {
        let (path, section) = named.rsplit_once(':').unwrap_or((named, ""));
        let path = match (path, from) {
            // `:section` is another one of the same file.
            ("", Some(from)) => self.files[from].clone(),
            _ => path.to_owned(),
        };
        if self.depth == DEPTH {
            return Err((
                format!("files include one another more than {DEPTH} deep"),
                "see whether one includes itself".to_owned(),
            ));
        }
        let text = self
            .read(Path::new(&path), LARGEST)
            .map_err(|error| unreadable(&path, &error))?;
        let magic = Magic::of(&path, section, &self.current, self.first.as_ref());
        self.first.get_or_insert_with(|| magic.clone());
        let number = self.files.len();
        self.files.push(path);
        self.depth += 1;
        self.lines(
            &text,
            number,
            if section.is_empty() { "uwsgi" } else { section },
            &magic,
        );
        self.depth -= 1;
        Ok(())
    }

    fn read(&self, path: &Path, largest: u64) -> io::Result<String> {
        let mut text = String::new();
        File::open(self.current.join(path))?
            .take(largest + 1)
            .read_to_string(&mut text)?;
        match text.len() as u64 > largest {
            true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "file too large")),
            false => Ok(text),
        }
    }

    fn lines(&mut self, text: &str, file: usize, asked: &str, magic: &Magic) {
        let blank = [' ', '\t', '\r'];
        let (mut section, mut found) = (String::new(), false);
        for (line, number) in text.lines().zip(1..) {
            let line = line.trim_matches(blank);
            if line.is_empty() || line.starts_with([';', '#']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[') {
                let name = magic.fill_in(name);
                section = name.split(']').next().unwrap_or_default().trim().to_owned();
                found |= section == asked;
                continue;
            }
            if section != asked {
                continue;
            }
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            let key = magic.fill_in(without_comment(key).trim_matches(blank));
            let value = match WHOLE.contains(&key.as_str()) {
                true => value,
                false => without_comment(value),
            };
            let value = magic.fill_in(value.trim_matches(blank));
            let place = match file {
                0 => Place::Line(number),
                _ => Place::Included(file, number),
            };
            self.add(&key, value, place);
        }
        if !found {
            let known = text
                .lines()
                .filter_map(|line| line.trim_matches(blank).strip_prefix('['));
            let known: Vec<String> = known.map(|name| format!("[{name}")).collect();
            self.problems.push(Problem {
                place: match file {
                    0 => Place::File,
                    _ => Place::Included(file, 1),
                },
                key: String::new(),
                what: format!("has no section [{asked}]"),
                hint: match known.first() {
                    Some(other) => format!(
                        "it has {}: name one as file.ini:NAME, or rename it {other} -> [{asked}]",
                        known.join(" ")
                    ),
                    None => format!("write [{asked}] above the options"),
                },
            });
        }
    }

    /// Takes in one option as it is written, whether it is in a block or not.
    pub(super) fn add(&mut self, key: &str, value: String, place: Place) {
        match key {
            "end" | "endfor" | "endif" | "end-if" | "end-for" => {
                (self.logic, self.failed) = (None, false);
            }
            "else" => self.logic = Some(Logic::Else),
            _ => match self.logic.take() {
                None => self.push(key, value, place),
                Some(logic) if Logic::of(key, &value).is_some() => {
                    let hint = "write the inner one as a file of its own, and include it with ini = file.ini";
                    self.problem(place, key, "blocks cannot be within blocks", hint);
                    self.logic = Some(logic);
                }
                Some(logic) => {
                    let values = {
                        let around = Surroundings {
                            current: &self.current,
                            env: self.env,
                            settings: &self.settings,
                        };
                        logic.values(&value, &mut self.failed, &around)
                    };
                    match values {
                        Ok(values) => values.into_iter().for_each(|value| self.push(key, value, place)),
                        Err((what, hint)) => self.problem(place, key, what, hint),
                    }
                    self.logic = Some(logic);
                }
            },
        }
    }

    /// Takes in one option that counts.
    fn push(&mut self, key: &str, value: String, place: Place) {
        if self.settings.len() == MOST {
            return;
        }
        let value = match self.filled_in(&value) {
            Ok(value) => value,
            Err((what, hint)) => return self.problem(place, key, what, hint),
        };
        if let Some(logic) = Logic::of(key, &value) {
            self.logic = Some(logic);
            return;
        }
        match key {
            "ini" | "include" | "inherit" | "config" => {
                let from = match place {
                    Place::Line(_) => Some(0),
                    Place::Included(file, _) => Some(file),
                    Place::Option | Place::File => None,
                };
                if let Err((what, hint)) = self.file(&value, from) {
                    self.problem(place, key, what, hint);
                }
            }
            _ if LANGUAGES.contains(&key) => self.problem(
                place,
                key,
                "only ini files are read",
                "write it as an ini file, or as app.toml",
            ),
            "set" | "set-placeholder" | "set-ph" => match value.split_once('=') {
                Some((name, value)) if key == "set" && (self.is_option)(name) => {
                    self.push(name, value.to_owned(), place);
                }
                Some((name, value)) => self.settings.push(Setting {
                    key: name.to_owned(),
                    value: value.to_owned(),
                    place,
                    is_placeholder: true,
                }),
                None => self.problem(place, key, "sets nothing", "write set-placeholder = name=value"),
            },
            "strict" => self.strict = is_true(&value),
            _ => {
                self.settings.push(Setting {
                    key: key.to_owned(),
                    value,
                    place,
                    is_placeholder: false,
                });
                if self.settings.len() == MOST {
                    let what = format!("there are more than {MOST} options");
                    self.problem(
                        place,
                        key,
                        what,
                        "see whether a loop or an include repeats too much",
                    );
                }
            }
        }
    }

    /// `$(NAME)`, a variable of the environment, and `@(file)`, what a file holds.
    fn filled_in(&self, value: &str) -> Result<String, (String, String)> {
        let too_much = |what| (what, "write what is meant".to_owned());
        let value = expand(value, '$', false, |name| Ok((self.env)(name))).map_err(too_much)?;
        expand(&value, '@', false, |file| {
            if file.contains("://") {
                return Err(format!("`@({file})` is not the path of a file"));
            }
            let text = self.read(Path::new(file), 64 << 10);
            let text =
                text.map_err(|error| format!("file `{file}` cannot be read: {}", crate::lower(&error)))?;
            let end = text.strip_suffix(['\n', '\r']).unwrap_or(&text).len();
            Ok(Some(text[..end].to_owned()))
        })
        .map_err(|what| {
            let hint =
                "@(path) stands for what a file of at most 64 KiB holds, relative to the current folder";
            (what, hint.to_owned())
        })
    }

    /// Fills in `%(name)`, now that all options are there. Those named are then known, whatever they are.
    pub(super) fn placeholders(&mut self) {
        let settings = self.settings.clone();
        let value_of = |name: &str| {
            let first = settings.iter().find(|setting| setting.key == name);
            first.map(|setting| setting.value.clone())
        };
        for (index, setting) in settings.iter().enumerate() {
            let mut named = Vec::new();
            let filled = expand(&setting.value, '%', true, |name| {
                named.extend(name.split(' ').map(str::to_owned));
                Ok(placeholder(name, value_of))
            });
            match filled {
                Ok(value) => self.settings[index].value = value,
                Err(what) => self.problem(setting.place, &setting.key, what, "see what it is made of"),
            }
            for other in &mut self.settings {
                other.is_placeholder |= named.contains(&other.key) && !(self.is_option)(&other.key);
            }
        }
    }

    fn problem(&mut self, place: Place, key: &str, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem {
            place,
            key: key.to_owned(),
            what: what.into(),
            hint: hint.into(),
        });
    }
}

/// Whether an option without a further value is on.
pub(super) fn is_true(value: &str) -> bool {
    let off = ["false", "off", "no"];
    value != "0" && !off.iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// What comes before a `#` or `;` that stands at the start or after a blank.
fn without_comment(value: &str) -> &str {
    let mut before = ' ';
    for (at, c) in value.char_indices() {
        if matches!(c, '#' | ';') && matches!(before, ' ' | '\t') {
            return &value[..at];
        }
        before = c;
    }
    value
}

fn unreadable(path: &str, error: &io::Error) -> (String, String) {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "paths are relative to the current folder; %d stands for that of the file",
        io::ErrorKind::InvalidData => "save it in UTF-8",
        io::ErrorKind::FileTooLarge => "a configuration has at most 1 MiB",
        io::ErrorKind::IsADirectory => "name the file in it",
        _ => "give the user that runs wasgi the right to read it",
    };
    let why = match error.kind() {
        io::ErrorKind::NotFound => "is not there".to_owned(),
        io::ErrorKind::InvalidData => "is not UTF-8 text".to_owned(),
        _ => format!("cannot be read: {}", crate::lower(error)),
    };
    (format!("file `{path}` {why}"), hint.to_owned())
}

/// The names that match a pattern of the shell's; the pattern itself if none does.
pub(super) fn matching(pattern: &str, current: &Path) -> Vec<String> {
    let found = glob::glob(&current.join(pattern).to_string_lossy())
        .into_iter()
        .flatten()
        .flatten();
    let shown = |path: PathBuf| {
        let is_folder = fs::metadata(&path).is_ok_and(|found| found.is_dir());
        let path = path.to_string_lossy().into_owned();
        if is_folder { path + "/" } else { path }
    };
    let found: Vec<String> = found.map(shown).collect();
    match found.is_empty() {
        true => vec![pattern.to_owned()],
        false => found,
    }
}
