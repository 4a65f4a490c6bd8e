//! uWSGI's options, and what becomes of each.

mod apply;
mod table;

use super::Problem;
use super::ini::Reader;
use super::logic::Logic;
use super::table::nearest;
use super::words::{self, Word};
use crate::problem::Place;
pub(super) use apply::{backlog, env, file, group, reuse_port, user};
pub(super) use table::TABLE;

pub(super) fn is_option(name: &str) -> bool {
    TABLE.iter().any(|row| row.is_named(name))
}

/// Takes a command line in. A word by itself is a file, a socket or an app, as uWSGI guesses.
pub(super) fn words(words: &[String], reader: &mut Reader<'_>) {
    for word in words::read(words, TABLE) {
        let wrong = match word {
            Word::Option(name, _) if is_block(name) => {
                Some((name, "is for files", "write it into an ini file".to_owned()))
            }
            Word::Option(name, value) => {
                reader.add(name, value, Place::Option);
                None
            }
            Word::Plain(word) => match guess(word) {
                Some(name) => {
                    reader.add(name, word.to_owned(), Place::Option);
                    None
                }
                None => {
                    let hint = "write an option before it, such as --ini, --module or --http-socket";
                    Some((word, "is not understood", hint.to_owned()))
                }
            },
            Word::Unknown(word) => {
                let name = word.trim_start_matches('-').split('=').next().unwrap_or_default();
                Some((word, "unknown option", nearest(TABLE, name)))
            }
            Word::WithoutValue(word) => Some((word, "has no value", format!("write {word} VALUE"))),
        };
        if let Some((word, what, hint)) = wrong {
            reader.problems.push(Problem {
                place: Place::Option,
                key: word.to_owned(),
                what: what.to_owned(),
                hint,
            });
        }
    }
}

fn is_block(name: &str) -> bool {
    Logic::of(name, "").is_some()
        || matches!(name, "endif" | "end-if" | "endfor" | "end-for" | "end" | "else")
}

/// The option that a word by itself stands for.
fn guess(word: &str) -> Option<&'static str> {
    if word.ends_with(".ini") || word.contains(".ini:") {
        return Some("ini");
    }
    if word.ends_with(".py") || word.ends_with(".wsgi") {
        return Some("wsgi-file");
    }
    match word.rsplit_once(':')? {
        (_, port) if port.parse::<u16>().is_ok() => Some("socket"),
        _ => Some("module"),
    }
}
