//! `[server]`: the process that serves, as whom it runs and how it is steered.

use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User as Entry};

use crate::problem::{At, Problem};
use crate::raw::{Name, Reader, Value};
use crate::resolve::Resolver;

/// `[server]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// `user` and `group`: whom the server becomes once its sockets are bound; `None` for who starts it.
    pub user: Option<User>,
    /// `pidfile`: holds the process's id while it serves.
    pub pidfile: Option<PathBuf>,
    /// `daemon`: whether it serves in the background.
    pub daemon: bool,
    /// `fifo`: a named pipe whose letters steer the server.
    pub fifo: Option<PathBuf>,
    /// `touch-reload`: files that have the apps loaded anew when they change.
    pub touch_reload: Vec<PathBuf>,
}

/// A user of this machine, and the group to go with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// As the file calls it.
    pub shown: String,
    /// Its name, by which its further groups are found; `None` if it has only a number.
    pub name: Option<String>,
    /// Its number.
    pub uid: u32,
    /// The group's.
    pub gid: u32,
}

/// The keys of `[server]`.
pub(crate) const KEYS: &[&str] = &["user", "group", "pidfile", "daemon", "fifo", "touch-reload"];

/// `[server]` as typed.
#[derive(Default)]
pub(crate) struct RawProcess {
    /// Where the table begins.
    pub table: Option<At<()>>,
    user: Option<At<String>>,
    group: Option<At<String>>,
    pidfile: Option<At<String>>,
    daemon: bool,
    fifo: Option<At<String>>,
    touch_reload: Vec<At<String>>,
}

impl RawProcess {
    /// In the file of a server's app: all of it is the operator's to say.
    pub(crate) fn refused(&self) -> Option<Problem> {
        let table = self.table.as_ref()?;
        Some(table.problem(
            "how the server runs is the operator's to say",
            "leave [server] out",
        ))
    }
}

impl Reader<'_> {
    pub(crate) fn process(&mut self, key: &Name<'_>, value: &Value<'_>) {
        let name = key.get_ref().as_ref();
        let path = format!("server.{name}");
        match name {
            "user" => self.raw.process.user = self.text(&path, value),
            "group" => self.raw.process.group = self.text(&path, value),
            "pidfile" => self.raw.process.pidfile = self.text(&path, value),
            "daemon" => self.raw.process.daemon = self.flag(&path, value),
            "fifo" => self.raw.process.fifo = self.text(&path, value),
            "touch-reload" => self.raw.process.touch_reload = self.list(&path, value),
            _ => self.unknown("server", key),
        }
    }
}

impl Resolver<'_> {
    pub(crate) fn process(&mut self, raw: &RawProcess) -> Process {
        Process {
            user: self.user(raw),
            pidfile: raw.pidfile.as_ref().and_then(|at| self.file_to_be(at)),
            daemon: raw.daemon,
            fifo: raw.fifo.as_ref().and_then(|at| self.file_to_be(at)),
            touch_reload: raw
                .touch_reload
                .iter()
                .filter_map(|at| self.file_to_be(at))
                .collect(),
        }
    }

    /// A file that need not be there, in a folder that has to be.
    fn file_to_be(&mut self, at: &At<String>) -> Option<PathBuf> {
        let path = self.base(at).join(&at.value);
        let has_folder = path.parent().is_some_and(|folder| folder.is_dir());
        if !has_folder || path.file_name().is_none() {
            self.problems.push(at.problem(
                format!("`{}` is not a file in a folder that is there", at.value),
                "create the folder, or correct the path",
            ));
            return None;
        }
        Some(path)
    }

    fn user(&mut self, raw: &RawProcess) -> Option<User> {
        let Some(at) = &raw.user else {
            if let Some(group) = &raw.group {
                self.problems.push(group.problem(
                    "a group alone would leave the server the rights of the user that starts it",
                    "name the user too: user = \"www-data\"",
                ));
            }
            return None;
        };
        let group = match &raw.group {
            Some(at) => Some(self.owner_part(at, &at.value, "group", group_id)?),
            None => None,
        };
        let (uid, entry) = self.owner_part(at, &at.value, "user", user_entry)?;
        let Some(gid) = group.or(entry.as_ref().map(|entry| entry.gid.as_raw())) else {
            self.problems.push(at.problem(
                format!("`{}` is a number without a name, which has no group", at.value),
                "name the group too: group = \"www-data\"",
            ));
            return None;
        };
        Some(User {
            shown: at.value.clone(),
            name: entry.map(|entry| entry.name),
            uid,
            gid,
        })
    }

    /// Looks up a user or a group.
    pub(crate) fn owner_part<T>(
        &mut self,
        at: &At<String>,
        named: &str,
        noun: &str,
        look: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let found = look(named);
        if found.is_none() {
            let list = if noun == "user" { "passwd" } else { "group" };
            self.problems.push(at.problem(
                format!("there is no {noun} `{named}` on this machine"),
                format!("create it, or name another: getent {list} lists them"),
            ));
        }
        found
    }
}

/// A user by name or number, with what is known of it.
pub(crate) fn user_entry(named: &str) -> Option<(u32, Option<Entry>)> {
    match named.parse::<u32>() {
        Ok(number) => {
            let entry = Entry::from_uid(Uid::from_raw(number)).ok().flatten();
            Some((number, entry))
        }
        Err(_) => {
            let entry = Entry::from_name(named).ok().flatten()?;
            Some((entry.uid.as_raw(), Some(entry)))
        }
    }
}

/// A group by name or number.
pub(crate) fn group_id(named: &str) -> Option<u32> {
    match named.parse::<u32>() {
        Ok(number) => Some(number),
        Err(_) => Group::from_name(named)
            .ok()
            .flatten()
            .map(|group| group.gid.as_raw()),
    }
}

impl User {
    /// Whether this process is that user already, so that there is nothing to do.
    pub fn is_current(&self) -> bool {
        (self.uid, self.gid) == (Uid::effective().as_raw(), Gid::effective().as_raw())
    }
}

/// Whether this process may become anyone.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}
