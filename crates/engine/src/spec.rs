//! What one app is and may see, in the engine's own terms.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One app: which code to load, what of the host's files it sees, and its limits.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct AppSpec {
    /// Marks the app's lines in the log.
    pub name: String,
    /// Where the WSGI callable is.
    pub entry: Entry,
    /// Guest folders put on `sys.path` ahead of the standard library, in order.
    pub sys_path: Vec<String>,
    /// Guest folders added to `sys.path` behind those, whose `.pth` files count: a virtual environment's site-packages.
    pub site_dirs: Vec<String>,
    /// Folders of the host that the guest sees, the app's own first.
    pub mounts: Vec<Mount>,
    /// The whole of `os.environ`, but for the secrets.
    pub env: Vec<(String, String)>,
    /// Variables that each instance gets when nothing of it can come into an image any more.
    pub secrets: Vec<Secret>,
    /// Guest folder the app starts in.
    pub working_dir: String,
    /// How much of one request the next may see.
    pub isolation: Isolation,
    /// Paths asked for by GET before the snapshot is taken, so that what a first request imports and caches is in it.
    pub warmup: Vec<String>,
    /// Whether the snapshot is kept on disk, and taken from there by the next start.
    pub snapshot_cache: bool,
    /// Its share of the CPU while others are busy as well, in proportion to theirs; 100 is usual.
    pub weight: u32,
    /// What each instance and request may use.
    pub limits: Limits,
}

/// A variable whose value neither images nor debug output hold.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Secret {
    /// Name in `os.environ`.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.name)
    }
}

/// How much of one request the next may see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum Isolation {
    /// Memory lives on from request to request, as with any server.
    #[default]
    Worker,
    /// Each request finds the app as it was after its import; see [`Instance::rewind`](crate::Instance::rewind).
    Request,
}

/// Where the WSGI callable of an app is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Entry {
    /// `module:callable`, imported from `sys.path`; `callable` may be dotted.
    Module {
        /// Dotted module name.
        module: String,
        /// Name of the callable in the module.
        callable: String,
    },
    /// A file run as a module, as mod_wsgi and uWSGI's `wsgi-file` do.
    File {
        /// Path as the guest sees it.
        path: String,
        /// Name of the callable in the file; `application` is usual.
        callable: String,
    },
}

/// A folder of the host shown to the guest. `..` and symbolic links lead nowhere outside it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Mount {
    /// Folder on the host; no part of its path is a symbolic link.
    pub host: PathBuf,
    /// Absolute path in the guest.
    pub guest: String,
    /// Whether the app may change what is in it.
    pub write: bool,
    /// How much it may hold, if the app may write to it.
    pub quota: Quota,
}

/// How much a folder may hold. What goes beyond fails with ENOSPC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Quota {
    /// Sizes of files together.
    pub bytes: Option<u64>,
    /// Files, folders and links.
    pub files: Option<u64>,
}

impl Quota {
    /// Whether it bounds nothing.
    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// What an instance may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Limits {
    /// Wall clock per request; at its end Python gets an exception and the client a 504.
    pub time: Duration,
    /// For how long the guest may run per request, waits left out; beyond, the same exception and answer.
    pub cpu: Option<Duration>,
    /// How long after that Python may unwind before the instance is stopped.
    pub grace: Duration,
    /// For how long all instances together may run within a minute. Beyond, they run when no other app would, and
    /// [`App::cpu_wait`](crate::App::cpu_wait) tells when that is over.
    pub cpu_per_minute: Option<Duration>,
    /// Wall clock for starting Python and importing the app.
    pub start: Duration,
    /// How long a request takes until the log is told where it is; it goes on.
    pub slow: Option<Duration>,
    /// Linear memory and tables per instance, in bytes.
    pub memory: u64,
    /// What the `/tmp` of all the app's instances may hold together.
    pub temp: Quota,
    /// Files and folders that an instance may have open; beyond, the app gets EMFILE. At most [`Limits::OPEN_FILES`].
    pub open_files: usize,
}

impl Limits {
    /// Most files that any instance may have open: the guest gives out no descriptor beyond it (entry/files.c).
    pub const OPEN_FILES: usize = 1000;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(30),
            cpu: None,
            grace: Duration::from_secs(1),
            cpu_per_minute: None,
            start: Duration::from_secs(60),
            slow: None,
            memory: 256 << 20,
            temp: Quota {
                bytes: Some(256 << 20),
                files: Some(10_000),
            },
            open_files: Self::OPEN_FILES,
        }
    }
}
