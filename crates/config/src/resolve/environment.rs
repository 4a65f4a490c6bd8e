//! The app's environment, with the host's variables filled in.

use super::{EnvLookup, Resolver};
use crate::config::Secret;
use crate::problem::Place;
use crate::raw::{Raw, RawVariable};

/// What a secret may have in bytes: the guest gets it behind a 16-bit length.
const SECRET_MAX: usize = u16::MAX as usize;

impl Resolver<'_> {
    /// The app's environment, variables filled in: what is plain, and what is secret.
    pub(crate) fn environment(&mut self, raw: &Raw) -> (Vec<(String, String)>, Vec<Secret>) {
        let (mut plain, mut secrets) = (Vec::new(), Vec::new());
        for (name, RawVariable { value: at, secret }) in &raw.env {
            if name.is_empty() || name.contains(['=', '\0']) {
                self.problems.push(at.problem(
                    format!("`{}` is no name for a variable", name.escape_debug()),
                    "write letters, digits and underscores",
                ));
                continue;
            }
            // The shell has filled in the variables of options.
            let value = match at.place {
                Place::Option => Ok(at.value.clone()),
                _ => expand(&at.value, self.env),
            };
            match value {
                Ok(value) if value.contains('\0') => {
                    self.problems.push(at.problem(
                        "holds a NUL character",
                        "no environment can hold one: leave it out",
                    ));
                }
                Ok(value) if *secret && value.len().max(name.len()) > SECRET_MAX => {
                    self.problems.push(at.problem(
                        format!("a secret and its name have at most {SECRET_MAX} bytes each"),
                        "keep it in a file, in a folder that [files] shows the app",
                    ));
                }
                Ok(value) if *secret => secrets.push(Secret {
                    name: name.clone(),
                    value,
                }),
                Ok(value) => plain.push((name.clone(), value)),
                Err((what, hint)) => self.problems.push(at.problem(what, hint)),
            }
        }
        (plain, secrets)
    }
}

/// Fills in `${NAME}`; `$${` stands for `${`. Another `$` stands for itself.
pub(crate) fn expand(text: &str, env: EnvLookup<'_>) -> Result<String, (String, String)> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            out.push_str(&rest[..start]);
            out.push('{');
            rest = &rest[start + 2..];
            continue;
        }
        out.push_str(&rest[..start]);
        let after = &rest[start + 2..];
        let name = after.split_once('}').map(|(name, _)| name);
        let Some(name) = name
            .filter(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        else {
            return Err((
                "`${` is not followed by a variable's name and `}`".to_owned(),
                "write \"${NAME}\" for a variable of the host, \"$${\" for the two characters".to_owned(),
            ));
        };
        let value = env(name).ok_or_else(|| {
            (
                format!("the host's environment has no {name}"),
                format!("set it before starting wasgi ({name}=...), or write the value here"),
            )
        })?;
        out.push_str(&value);
        rest = &after[name.len() + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in_once() {
        let env = |name: &str| match name {
            "USER" => Some("ada".to_owned()),
            "TRICK" => Some("${USER}".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (text, expected) in [
            ("plain", "plain"),
            ("${USER}", "ada"),
            ("a ${USER} b${EMPTY}c", "a ada bc"),
            ("${TRICK}", "${USER}"),
            ("$${USER}", "${USER}"),
            ("$${${USER}}", "${ada}"),
            ("$5 and {x}", "$5 and {x}"),
            ("", ""),
        ] {
            assert_eq!(expand(text, &env).as_deref(), Ok(expected), "{text}");
        }
        for text in ["${", "${}", "${A B}", "${A", "${MISSING}"] {
            assert!(expand(text, &env).is_err(), "{text}");
        }
    }
}
