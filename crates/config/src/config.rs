//! The configuration as it is meant: paths resolved, units converted, defaults filled in.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::address::Address;
use crate::admin::Admin;
use crate::compress::Compress;
use crate::log::Logging;
use crate::process::Process;
use crate::proxy::Proxy;
use crate::route::Route;
use crate::sockets::Sockets;
use crate::static_files::StaticMount;
use crate::trace::Tracing;

/// One `app.toml`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[app]`: what is run.
    pub app: App,
    /// `[listen]`: where it is served.
    pub listen: Listen,
    /// `[server]`: as whom the server runs.
    pub process: Process,
    /// `[limits]`: what a request, an instance and a connection may use.
    pub limits: Limits,
    /// `[files]`: what of the host the app may touch beside its own code.
    pub files: Vec<Grant>,
    /// `[log]`: where lines go, and what is told of requests.
    pub log: Logging,
    /// `[trace]`: where spans go; `None` without it.
    pub trace: Option<Tracing>,
    /// `[static]`: folders that the server answers from itself, longest mount first.
    pub statics: Vec<StaticMount>,
    /// `[compress]`: which replies are compressed; `None` for none.
    pub compress: Option<Compress>,
    /// `[admin]`: where the server is looked at and steered.
    pub admin: Admin,
    /// `[proxy]`: what is in front, and what its word counts for; `None` if nothing is said.
    pub proxy: Option<Proxy>,
}

/// `[app]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Marks the app's lines in the log: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// The app's folder, absolute; it sees it read-only.
    pub root: PathBuf,
    /// Where the WSGI callable is.
    pub entry: Entry,
    /// The `site-packages` folders of `venv`, absolute; empty without one.
    pub venv: Vec<PathBuf>,
    /// Further folders for `sys.path`, absolute, in order.
    pub python_path: Vec<PathBuf>,
    /// How many instances answer requests at a time, at least 1.
    pub workers: u32,
    /// A worker is replaced after about this many requests; `None` for never.
    pub max_requests: Option<u64>,
    /// ... or about this long after its start.
    pub max_lifetime: Option<Duration>,
    /// ... or when its memory has come to so many bytes.
    pub max_memory: Option<u64>,
    /// How much of one request the next may see.
    pub isolation: Isolation,
    /// Paths asked for before the app's snapshot is taken; each begins with a slash.
    pub warmup: Vec<String>,
    /// Whether each rewind is compared with the snapshot, as a debugging aid.
    pub verify_rewind: bool,
    /// Whether the app's snapshot is kept on disk for the next start.
    pub snapshot_cache: bool,
    /// Where the app is served: at each host the same mount. At least one.
    pub routes: Vec<Route>,
    /// Its share of the CPU beside that of other busy apps, from 1; 100 is usual.
    pub weight: u32,
    /// Whether it is loaded anew when one of its files changes.
    pub watch: bool,
    /// Asked for before requests are given to a new load of the app; begins with a slash.
    pub probe: String,
    /// The app's environment, but for the secrets.
    pub env: Vec<(String, String)>,
    /// Its variables that are `secret = true`.
    pub secrets: Vec<Secret>,
}

/// A variable whose value does not show in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// As the app sees it.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// A worker's memory lives on from request to request.
    #[default]
    Worker,
    /// Each request finds the app as it was after its import.
    Request,
}

/// Where the WSGI callable is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `module = "hello:app"`.
    Module {
        /// Dotted module name.
        module: String,
        /// Name in the module; may be dotted.
        callable: String,
    },
    /// `wsgi-file = "wsgi.py"`.
    File {
        /// The file, absolute and inside the app's root.
        path: PathBuf,
        /// Name in the file; may be dotted.
        callable: String,
    },
}

/// `[listen]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where HTTP is served; at least one, unless there is something else.
    pub http: Vec<Address>,
    /// Where HTTP over TLS is served; each address once.
    pub https: Vec<Https>,
    /// Where HTTP/2 is served without TLS.
    pub h2c: Vec<Address>,
    /// Where clients are sent to `https`.
    pub redirect: Vec<Address>,
    /// Where web servers in front speak uwsgi.
    pub uwsgi: Vec<Address>,
    /// Where web servers in front speak FastCGI.
    pub fastcgi: Vec<Address>,
    /// Where web servers in front speak SCGI.
    pub scgi: Vec<Address>,
    /// Those of `http`, `https`, `h2c` and `redirect` where a proxy's PROXY header comes before each connection's first byte.
    pub proxy_protocol: Vec<Address>,
    /// How all of them are set up.
    pub sockets: Sockets,
}

/// One address of `https` in `[listen]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Https {
    /// Where it listens.
    pub address: Address,
    /// Files of certificates and of their keys, as they were named; at least one pair. The first is for clients that
    /// ask for none of the names.
    pub certificates: Vec<(PathBuf, PathBuf)>,
}

impl Listen {
    /// The port that `redirect` sends to: that of the first `https`.
    pub fn https_port(&self) -> Option<u16> {
        self.https.iter().find_map(|https| match https.address {
            Address::Tcp { port, .. } => Some(port),
            // A socket of systemd's is usually at the usual port.
            Address::Passed(_) => Some(443),
            Address::Unix(_) | Address::Abstract(_) => None,
        })
    }
}

impl Listen {
    /// Adds where another app is to be served. How sockets are set up is the first one's to say.
    pub fn add(&mut self, other: &Listen) {
        let add = |to: &mut Vec<Address>, from: &[Address]| {
            let new = from.iter().filter(|address| !to.contains(address));
            let new: Vec<_> = new.cloned().collect();
            to.extend(new);
        };
        add(&mut self.http, &other.http);
        add(&mut self.h2c, &other.h2c);
        add(&mut self.redirect, &other.redirect);
        add(&mut self.uwsgi, &other.uwsgi);
        add(&mut self.fastcgi, &other.fastcgi);
        add(&mut self.scgi, &other.scgi);
        add(&mut self.proxy_protocol, &other.proxy_protocol);
        let new = other.https.iter().filter(|https| !self.https.contains(https));
        let new: Vec<_> = new.cloned().collect();
        self.https.extend(new);
    }
}

/// `[limits]`. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `time`: wall clock per request.
    pub time: Duration,
    /// `cpu`: time that Python may run per request; zero for no limit.
    pub cpu: Duration,
    /// `cpu-per-minute`: time that the Python of all instances may run within a minute; zero for no limit.
    pub cpu_per_minute: Duration,
    /// `slow`: wall clock of a request until the log has its Python stack; zero for never.
    pub slow: Duration,
    /// `start-time`: wall clock for starting Python and importing the app.
    pub start_time: Duration,
    /// `memory`: per instance.
    pub memory: u64,
    /// `memory-total`: for all instances together, in bytes; 0 for no limit.
    pub memory_total: u64,
    /// `disk`: bytes in each folder that the app may write to; 0 for no limit.
    pub disk: u64,
    /// `disk-files`: files, folders and links there; 0 for no limit.
    pub disk_files: u64,
    /// `temp`: bytes in the `/tmp` of all instances together.
    pub temp: u64,
    /// `temp-files`: files, folders and links there.
    pub temp_files: u64,
    /// `open-files`: per instance.
    pub open_files: usize,
    /// `request-body`: longest body.
    pub request_body: u64,
    /// `reply-size`: longest body of a reply.
    pub reply_size: u64,
    /// `reply-rate`: bytes of each reply that go out per second; 0 for any.
    pub reply_rate: u64,
    /// `request-head`: longest request line and header fields together.
    pub request_head: usize,
    /// `concurrency`: with isolation by request, how many requests run at a time.
    pub concurrency: u32,
    /// `rate`: requests a second, and twice as many at once after a pause; 0 for no limit.
    pub rate: u32,
    /// `queue`: how many requests may wait for a worker; 0 for none.
    pub queue: usize,
    /// `queue-time`: how long each of them may wait.
    pub queue_time: Duration,
    /// `connections`: how many may be open at a time, over all listeners.
    pub connections: usize,
    /// `head-time`: how long a client may take over a request's head.
    pub head_time: Duration,
    /// `body-time`: how long a client may pause in a request's body.
    pub body_time: Duration,
    /// `idle-time`: how long a connection may stay open between requests.
    pub idle_time: Duration,
    /// `write-time`: how long a client may pause in taking a reply.
    pub write_time: Duration,
    /// `stop-time`: how long running requests may go on once the server is told to stop.
    pub stop_time: Duration,
    /// `log-rate`: bytes per second of the app's own lines in the log.
    pub log_rate: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(30),
            cpu: Duration::ZERO,
            cpu_per_minute: Duration::ZERO,
            slow: Duration::ZERO,
            start_time: Duration::from_secs(60),
            memory: 256 << 20,
            memory_total: 0,
            disk: 0,
            disk_files: 0,
            temp: 256 << 20,
            temp_files: 10_000,
            open_files: 1000,
            request_body: 16 << 20,
            reply_size: 1 << 30,
            reply_rate: 0,
            request_head: 64 << 10,
            concurrency: 64,
            rate: 0,
            queue: 64,
            queue_time: Duration::from_secs(10),
            connections: 1024,
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(30),
            idle_time: Duration::from_secs(60),
            write_time: Duration::from_secs(30),
            stop_time: Duration::from_secs(30),
            log_rate: 64 << 10,
        }
    }
}

/// One line of `[files]`: a folder of the host that the app sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Absolute path in the guest, without `.`, `..` or a slash at its end.
    pub guest: String,
    /// The folder on the host, absolute.
    pub path: PathBuf,
    /// Whether the app may change what is in it.
    pub write: bool,
    /// `quota`: bytes that it may hold; `None` for no limit.
    pub quota: Option<u64>,
    /// `max-files`: files, folders and links that it may hold; `None` for no limit.
    pub max_files: Option<u64>,
}
