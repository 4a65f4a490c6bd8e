//! `[group.NAME]`: apps that have a process of their own, and its user.

use crate::problem::{At, Problem};
use crate::process::{User, user_entry};
use crate::resolve::Resolver;

/// Longest name of a group; it is a folder's name as well.
const NAME: usize = 64;

/// Apps that have a process of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Who its process runs as; `None` for the server's own user.
    pub user: Option<User>,
    /// Whether it must not run where the kernel has no Landlock.
    pub require_landlock: bool,
}

/// As it was typed.
#[derive(Default)]
pub(crate) struct RawGroup {
    pub name: Option<At<String>>,
    pub user: Option<At<String>>,
    pub require_landlock: bool,
}

impl Resolver<'_> {
    pub(crate) fn groups(&mut self, typed: Vec<RawGroup>) -> Vec<Group> {
        let mut groups = Vec::new();
        for RawGroup {
            name,
            user,
            require_landlock,
        } in typed
        {
            let Some(name) = name else { continue };
            if !is_name(&name.value) {
                self.problems.push(name.problem(
                    "is no name for a group",
                    format!("use letters, digits, - and _, at most {NAME}"),
                ));
            }
            let user = user.and_then(|at| match find(&at) {
                Ok(user) => Some(user),
                Err(problem) => {
                    self.problems.push(problem);
                    None
                }
            });
            groups.push(Group {
                name: name.value,
                user,
                require_landlock,
            });
        }
        groups
    }

    /// Sees that a group that an app is to be in is there.
    pub(crate) fn in_group(&mut self, at: &At<String>, groups: &[Group]) {
        if !groups.iter().any(|group| group.name == at.value) {
            self.problems.push(at.problem(
                format!("there is no group `{}`", at.value),
                format!(
                    "write a table [group.{}], with the user that its process runs as",
                    at.value
                ),
            ));
        }
    }
}

fn is_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !name.is_empty() && name.len() <= NAME && name.bytes().all(is_part)
}

/// A user by name or by number. A number without a name is taken for its group's as well.
fn find(at: &At<String>) -> Result<User, Problem> {
    match user_entry(&at.value) {
        // The second is what setuid() and its kin take for "no change".
        None | Some((u32::MAX, _)) => Err(at.problem(
            format!("there is no user `{}` on this machine", at.value),
            "make one, as useradd --system does, or write a number",
        )),
        Some((0, _)) => Err(at.problem(
            "root is no user to confine apps with",
            "make one for this group, as useradd --system does",
        )),
        Some((uid, entry)) => Ok(User {
            shown: at.value.clone(),
            uid,
            gid: entry.as_ref().map_or(uid, |entry| entry.gid.as_raw()),
            name: entry.map(|entry| entry.name),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Place;

    #[test]
    fn users_are_found_by_name_or_number() {
        let find = |typed: &str| {
            let at = At {
                value: typed.to_owned(),
                place: Place::Line(1),
                key: "group.a.user".to_owned(),
            };
            find(&at).map_err(|problem| problem.what)
        };
        let ids = |user: User| (user.uid, user.gid);
        assert_eq!(find("47110").map(ids), Ok((47_110, 47_110)));
        for root in ["root", "0"] {
            assert!(find(root).is_err_and(|what| what.contains("root")), "{root}");
        }
        for nobody in ["nobody-of-this-name", "", "-1", "4294967295"] {
            assert!(
                find(nobody).is_err_and(|what| what.contains("there is no user")),
                "{nobody}"
            );
        }
    }
}
