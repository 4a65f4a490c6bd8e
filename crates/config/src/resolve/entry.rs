//! Where the app's callable is.

use std::path::{Path, PathBuf};

use super::Resolver;
use super::paths::Kind;
use crate::config::Entry;
use crate::problem::{At, Place, Problem};
use crate::raw::Raw;

impl Resolver<'_> {
    pub(super) fn entry(&mut self, raw: &Raw, root: Option<&Path>) -> Option<Entry> {
        match (&raw.module, &raw.wsgi_file) {
            (Some(module), Some(file)) => {
                let (first, second) = if module.place <= file.place {
                    (module, file)
                } else {
                    (file, module)
                };
                self.problems.push(second.problem(
                    format!("{} is given too", first.key),
                    "keep one: module = \"hello:app\" imports, wsgi-file = \"wsgi.py\" runs a file",
                ));
                None
            }
            (Some(module), None) => {
                if let Some(callable) = &raw.callable {
                    let name = module.value.split(':').next().unwrap_or_default();
                    self.problems.push(callable.problem(
                        "goes with wsgi-file; module names its own callable",
                        format!("write module = \"{name}:{}\"", callable.value),
                    ));
                }
                self.module(module)
            }
            (None, Some(file)) => {
                let callable = match &raw.callable {
                    Some(at) => self.callable(at, &at.value)?,
                    None => "application".to_owned(),
                };
                let path = self.wsgi_file(file, root?)?;
                Some(Entry::File { path, callable })
            }
            (None, None) => {
                if raw
                    .spoilt
                    .iter()
                    .any(|key| matches!(key.as_str(), "app" | "app.module" | "app.wsgi-file"))
                {
                    return None;
                }
                let place = match self.file_folder {
                    Some(_) => Place::Line(raw.app_line.unwrap_or(1)),
                    None => Place::Option,
                };
                self.problems.push(Problem {
                    place,
                    key: if place == Place::Option {
                        "APP".to_owned()
                    } else {
                        "app".to_owned()
                    },
                    what: "does not say where the app is".to_owned(),
                    hint: "write module = \"hello:app\" (module:callable) or wsgi-file = \"wsgi.py\""
                        .to_owned(),
                });
                None
            }
        }
    }

    fn module(&mut self, at: &At<String>) -> Option<Entry> {
        let text = at.value.as_str();
        if text.ends_with(".py") || text.contains('/') {
            self.problems.push(at.problem(
                format!("`{text}` is a file, not a module"),
                match at.place {
                    Place::Option => "write the path of a file that is there, or module:callable".to_owned(),
                    _ => format!("write wsgi-file = \"{text}\", or module = \"hello:app\""),
                },
            ));
            return None;
        }
        let Some((module, callable)) = text.split_once(':') else {
            self.problems.push(at.problem(
                format!("`{text}` does not name the callable"),
                format!(
                    "write \"{}:app\" if the application object in it is called app",
                    dotted(text).unwrap_or("hello")
                ),
            ));
            return None;
        };
        if dotted(module).is_none() {
            self.problems.push(at.problem(
                format!("`{module}` is not the name of a module"),
                "write it as in an import: \"hello:app\", or \"shop.web:app\" for shop/web.py",
            ));
            return None;
        }
        let callable = self.callable(at, callable)?;
        Some(Entry::Module {
            module: module.to_owned(),
            callable,
        })
    }

    fn callable(&mut self, at: &At<String>, name: &str) -> Option<String> {
        if dotted(name).is_some() {
            return Some(name.to_owned());
        }
        let problem = match name.split_once('(') {
            Some((factory, _)) => at.problem(
                format!("`{name}` is a call; a name is wanted"),
                format!("put app = {factory}() into a file wsgi.py and name \"wsgi:app\""),
            ),
            None => at.problem(
                format!("`{name}` is not a name in Python"),
                "write the application object's name, such as app",
            ),
        };
        self.problems.push(problem);
        None
    }

    /// In the file it is relative to the root, as a module is. The app sees its root only, so it must be in there.
    fn wsgi_file(&mut self, at: &At<String>, root: &Path) -> Option<PathBuf> {
        let path = match at.place {
            Place::Option => self.find(at, Kind::File, None)?,
            _ => self.find(at, Kind::File, Some(root))?,
        };
        if path.starts_with(root) {
            return Some(path);
        }
        self.problems.push(at.problem(
            format!("`{}` is outside the app's root", at.value),
            "name a file in the root, or set root to a folder that holds both",
        ));
        None
    }
}

/// The text if it is a Python name, or several with dots between.
fn dotted(text: &str) -> Option<&str> {
    let name = |part: &str| {
        part.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    text.split('.').all(name).then_some(text)
}
