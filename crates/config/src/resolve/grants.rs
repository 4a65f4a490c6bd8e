//! `[files]`: the folders that the app is shown.

use std::path::Path;

use super::Resolver;
use crate::config::Grant;
use crate::raw::{Raw, RawGrant};

/// Where the app's code and the standard library are in the guest; a grant may not hide them.
const TAKEN: &[&str] = &["/lib", "/path", "/venv"];

impl Resolver<'_> {
    /// The folders granted. Nothing may take the place of those in `own`, though a grant may lie within one, as Flask's
    /// instance folder does.
    pub(crate) fn grants<'r>(&mut self, raw: &'r Raw, own: &[&str]) -> Vec<(Grant, &'r RawGrant)> {
        let mut grants: Vec<(Grant, &RawGrant)> = Vec::new();
        for typed in &raw.files {
            let guest = typed.guest.value.as_str();
            let trouble = match clean(guest) {
                _ if guest == "/" => Some((
                    "`/` would hide the app and Python".to_owned(),
                    "choose another path, such as \"/data\"".into(),
                )),
                Err(hint) => Some((format!("`{guest}` is not an absolute, plain path"), hint)),
                Ok(()) if own.contains(&guest) => Some((
                    match guest {
                        "/tmp" => "each worker has a `/tmp` of its own".to_owned(),
                        _ => format!("`{guest}` is where the app's root is seen"),
                    },
                    "choose another path, such as \"/data\"".into(),
                )),
                Ok(()) if TAKEN.iter().any(|taken| Path::new(guest).starts_with(taken)) => Some((
                    format!("`{guest}` would hide Python's own folders"),
                    "choose another path, such as \"/data\"".into(),
                )),
                Ok(()) if grants.iter().any(|(grant, _)| grant.guest == guest) => {
                    Some((format!("`{guest}` is given twice"), "keep one of the two".into()))
                }
                Ok(()) => None,
            };
            let path = self.folder(&typed.path);
            let (quota, max_files) = typed.quota.resolve(typed.write, &mut self.problems);
            if let Some((what, hint)) = trouble {
                self.problems.push(typed.guest.problem(what, hint));
            } else if let Some(path) = path {
                grants.push((
                    Grant {
                        guest: guest.to_owned(),
                        path,
                        write: typed.write,
                        quota,
                        max_files,
                    },
                    typed,
                ));
            }
        }
        grants
    }
}

/// Whether a guest path is absolute and without `.`, `..`, doubled or closing slashes; if not, what to write.
fn clean(guest: &str) -> Result<(), String> {
    let parts: Vec<&str> = guest
        .split('/')
        .filter(|part| !matches!(*part, "" | "." | ".."))
        .collect();
    let plain = format!("/{}", parts.join("/"));
    match guest == plain && !parts.is_empty() && !guest.contains(['\0', ':']) {
        true => Ok(()),
        false if parts.is_empty() || guest.contains(['\0', ':']) => {
            Err("write a path such as \"/data\"".to_owned())
        }
        false => Err(format!("write \"{plain}\"")),
    }
}
