//! What frames hold, as JSON, where it is more than bytes.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wasgi_engine::{AppSpec, At, PythonFiles, Report, RewindError, Rewound};

/// A folder, or a file, that the process may use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it may be written to.
    pub write: bool,
}

/// Who a process runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct User {
    /// User's number.
    pub uid: u32,
    /// Its group's number; it is in no other.
    pub gid: u32,
}

/// What a process is to be.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Setup {
    pub name: String,
    pub python: PythonFiles,
    /// For images; belongs to the process's user.
    pub cache: PathBuf,
    /// The process's own folder for temporary files.
    pub temp: PathBuf,
    /// All that apps see.
    pub folders: Vec<Folder>,
    pub require_landlock: bool,
    /// Who it is to run as, if that is another user than the server's.
    pub user: Option<User>,
}

/// What confines a process that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Confined {
    pub landlock: bool,
}

/// An app that the process is to know.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Known {
    pub spec: AppSpec,
    pub verify_rewind: bool,
}

/// An instance that has been started.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Started {
    pub is_copy: bool,
    pub cpu_wait: Option<Duration>,
}

/// How often the process tells where a request is. One that is over sooner is not told.
pub(crate) const PLACE_TOLD_EVERY: Duration = Duration::from_millis(250);

/// Where a request is, and what it has cost so far.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Place {
    pub at: At,
    pub cpu: Duration,
    /// Linear memory of its instance, in bytes.
    pub memory: u64,
    pub cpu_wait: Option<Duration>,
}

/// What became of a request.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Handled {
    pub report: Report,
    /// How long until the app may run again, if it has used up its minute.
    pub cpu_wait: Option<Duration>,
}

/// What became of an instance after a request.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Renewed {
    pub rewound: Result<Option<Rewound>, NotRewound>,
    /// Its own memory, in bytes.
    pub memory: u64,
}

/// A [`RewindError`] that can be sent.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum NotRewound {
    NoSnapshot,
    Grown(usize),
    Hook,
    Differs(usize),
    Other(String),
}

impl From<&RewindError> for NotRewound {
    fn from(error: &RewindError) -> Self {
        match error {
            RewindError::NoSnapshot => Self::NoSnapshot,
            RewindError::Grown(by) => Self::Grown(*by),
            RewindError::Hook => Self::Hook,
            RewindError::Differs(at) => Self::Differs(*at),
            RewindError::System(source) => Self::Other(source.to_string()),
            RewindError::Mount(error) => Self::Other(error.to_string()),
        }
    }
}

impl From<NotRewound> for RewindError {
    fn from(error: NotRewound) -> Self {
        match error {
            NotRewound::NoSnapshot => Self::NoSnapshot,
            NotRewound::Grown(by) => Self::Grown(by),
            NotRewound::Hook => Self::Hook,
            NotRewound::Differs(at) => Self::Differs(at),
            NotRewound::Other(what) => Self::System(std::io::Error::other(what)),
        }
    }
}
