//! Gunicorn's options, and what becomes of each.
//!
//! Source: Gunicorn, "Settings".

mod file;
mod table;

use std::path::Path;

use super::document::quoted;
use super::plan::Plan;
use super::table::nearest;
use super::words::{self, Word};
use super::{Problem, Setting};
use crate::problem::Place;
use crate::resolve::EnvLookup;
pub(super) use table::TABLE;

/// The command line over the variable GUNICORN_CMD_ARGS over the file.
pub(super) fn read(
    words: &[String],
    current: &Path,
    env: EnvLookup<'_>,
) -> (Vec<Setting>, Vec<String>, Vec<Problem>) {
    let (mut settings, mut problems) = (Vec::new(), Vec::new());
    let mut file = None;
    let of_env: Vec<String> = env("GUNICORN_CMD_ARGS")
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    for words in [&of_env[..], words] {
        for word in words::read(words, TABLE) {
            let wrong = match word {
                Word::Option("config", value) => {
                    file = Some(value);
                    None
                }
                Word::Option(key, value) => {
                    settings.push(setting(key, value, Place::Option));
                    None
                }
                Word::Plain(word) => {
                    settings.push(setting("APP", word.to_owned(), Place::Option));
                    None
                }
                Word::Unknown(word) => {
                    let name = word.trim_start_matches('-').split('=').next().unwrap_or_default();
                    Some((word, "unknown option", nearest(TABLE, name)))
                }
                Word::WithoutValue(word) => Some((word, "has no value", format!("write {word} VALUE"))),
            };
            if let Some((word, what, hint)) = wrong {
                problems.push(Problem {
                    place: Place::Option,
                    key: word.to_owned(),
                    what: what.to_owned(),
                    hint,
                });
            }
        }
    }
    // Gunicorn reads it if it is there.
    const USUAL: &str = "gunicorn.conf.py";
    let named = file.is_some();
    let file = file.unwrap_or_else(|| USUAL.to_owned());
    let path = file.strip_prefix("file:").unwrap_or(&file).to_owned();
    if named || current.join(USUAL).is_file() {
        file::read(&path, current, &mut settings, &mut problems);
    }
    (settings, vec![path], problems)
}

pub(super) fn setting(key: &str, value: String, place: Place) -> Setting {
    Setting {
        key: key.to_owned(),
        value,
        place,
        is_placeholder: false,
    }
}

/// What Gunicorn does if nothing is said.
pub(super) fn defaults(plan: &mut Plan, env: EnvLookup<'_>) {
    // Of a umask of 0: everyone on the machine may connect to a unix socket, which guides count on.
    plan.umask = Some((0, None));
    let off = setting("access-logfile", String::new(), Place::Option);
    Plan::set(&mut plan.log, "access", quoted("off"), &off);
    if let Some(workers) = env("WEB_CONCURRENCY").and_then(|text| text.parse().ok()) {
        plan.processes = Some((workers, setting("workers", String::new(), Place::Option)));
    }
    if let Some(port) = env("PORT").filter(|port| port.parse::<u16>().is_ok()) {
        plan.default_address = Some(format!("0.0.0.0:{port}"));
    }
}
