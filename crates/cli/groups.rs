//! The processes of a `server.toml`'s groups: which app goes to which, and when one has to be replaced.
//!
//! What a process may see is settled when it starts, and cannot become more. An app whose folders are not among that (it is new,
//! or its folder was put in the place of another) gets a new process, which later loads go to as well; the old one ends with
//! the last load in it.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::runtime::Handle;
use wasgi_config::{Group, ServerConfig, User, is_root};
use wasgi_engine::AppSpec;
use wasgi_group::{Folder, GroupLog, Process, Program};
use wasgi_server::Log;

use crate::failure::Failure;
use crate::loaders::Workshop;

/// The processes that run, by their groups' names.
pub(crate) struct Groups {
    workshop: Workshop,
    sockets: Handle,
    running: Mutex<HashMap<String, Running>>,
}

struct Running {
    process: Weak<Process>,
    /// What it was started as.
    group: Group,
    folders: Vec<Seen>,
}

/// A folder, and which it was when a process was started.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    folder: Folder,
    /// Device and inode, if it is there.
    identity: Option<(u64, u64)>,
}

impl Seen {
    fn all_of(spec: &AppSpec) -> impl Iterator<Item = Self> {
        spec.mounts.iter().map(|mount| Seen {
            identity: fs::metadata(&mount.host).ok().map(|it| (it.dev(), it.ino())),
            folder: Folder {
                path: mount.host.clone(),
                write: mount.write,
            },
        })
    }
}

impl Groups {
    /// To be called where tokio's sockets are at hand.
    pub(crate) fn new(workshop: Workshop) -> Self {
        Self {
            workshop,
            sockets: Handle::current(),
            running: Mutex::default(),
        }
    }

    /// The process that an app goes to; `others` are all apps of the group, for one that has to be started.
    pub(crate) fn process(
        &self,
        group: &Group,
        app: &AppSpec,
        others: impl FnOnce() -> Vec<AppSpec>,
    ) -> std::io::Result<Arc<Process>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = running.get(&group.name)
            && there.group == *group
            && Seen::all_of(app).all(|seen| there.folders.contains(&seen))
            && let Some(process) = there.process.upgrade()
        {
            return Ok(process);
        }
        let mut folders: Vec<Seen> = others().iter().chain([app]).flat_map(Seen::all_of).collect();
        folders.sort();
        folders.dedup();
        let engine = self.workshop.engine.clone();
        let mut python = engine.python().clone();
        python.wasm = fs::canonicalize(&python.wasm)?;
        let program = Program {
            name: group.name.clone(),
            user: other_user(group).map(|user| wasgi_group::User {
                uid: user.uid,
                gid: user.gid,
            }),
            require_landlock: group.require_landlock,
            folders: folders.iter().map(|seen| seen.folder.clone()).collect(),
            python,
            home: home(engine.cache(), group),
            code: Box::new(move || engine.machine_code()),
        };
        let log = Arc::new(Lines(self.workshop.log.clone()));
        let process = Process::start(program, log, self.sockets.clone())?;
        let started = Running {
            process: Arc::downgrade(&process),
            group: group.clone(),
            folders,
        };
        running.insert(group.name.clone(), started);
        Ok(process)
    }
}

/// A group's folder: in the server's own, in which nobody else may look, or beside it for another user.
fn home(cache: &Path, group: &Group) -> PathBuf {
    let all = match other_user(group) {
        Some(_) => cache.with_file_name("wasgi-groups"),
        None => cache.join("groups"),
    };
    all.join(&group.name)
}

/// The user of a group's process, if it is not this process's.
fn other_user(group: &Group) -> Option<&User> {
    let own = rustix::process::geteuid().as_raw();
    group.user.as_ref().filter(|user| user.uid != own)
}

/// Sees that this process can run groups as their users.
pub(crate) fn check_users(file: &Path, config: &ServerConfig) -> Result<(), Failure> {
    let Some((group, user)) = config
        .groups
        .iter()
        .find_map(|group| Some((group, other_user(group)?)))
    else {
        return Ok(());
    };
    let (what, hint) = match &config.process.user {
        _ if !is_root() => (
            "only root can start a process as another user".to_owned(),
            "start wasgi as root, or leave user out: its process is confined all the same, but as this user",
        ),
        Some(server) if server.uid != user.uid => (
            format!(
                "a server that becomes {} cannot start a process as another user",
                server.shown
            ),
            "leave user out of [server], or of all groups",
        ),
        _ => return Ok(()),
    };
    Err(Failure::Usage(format!(
        "{}: group.{}.user: {what}\nhint: {hint}",
        file.display(),
        group.name
    )))
}

struct Lines(Log);

impl GroupLog for Lines {
    fn note(&self, text: &str) {
        self.0.note(format_args!("{text}"));
    }

    fn error(&self, text: &str) {
        self.0.error(format_args!("{text}"));
    }
}
