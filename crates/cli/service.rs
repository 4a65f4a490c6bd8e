//! This process as whoever supervises it sees it: readiness, its pid file, and SIGUSR2, which puts a new process in its
//! place.

use std::env;
use std::fs::{self, OpenOptions};
use std::future::{self, Future};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Arg, ArgMatches, value_parser};
use tokio::signal::unix::{Signal, SignalKind, signal};
use wasgi_config::Process;
use wasgi_server::{Ending, Inherited, Listener, Log, Notify, Upgrade};

use crate::daemon;
use crate::failure::Failure;

/// How long a new process may take until it serves: its apps may have to be imported.
pub(crate) const UPGRADE_PATIENCE: Duration = Duration::from_secs(300);

/// `--pidfile`.
pub(crate) fn pidfile_option() -> Arg {
    Arg::new("pidfile")
        .long("pidfile")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("Holds the process's id while it serves; after an upgrade (SIGUSR2) the new one's")
}

/// A server that serves.
pub(crate) struct Service {
    notify: Arc<Notify>,
    upgrade: Upgrade,
    upgrades: Signal,
    pidfile: Option<PidFile>,
    /// Whether the process serves in the background.
    is_daemon: bool,
    log: Log,
}

impl Service {
    /// Gets ready for signals. To be called before apps are loaded, since without it SIGUSR2 ends the process.
    pub(crate) fn prepare<'l>(
        matches: &ArgMatches,
        process: &Process,
        listeners: impl IntoIterator<Item = &'l Listener>,
        log: &Log,
    ) -> Result<Self, Failure> {
        let pidfile = matches.try_get_one::<PathBuf>("pidfile").ok().flatten();
        let pidfile = pidfile.or(process.pidfile.as_ref()).cloned();
        Ok(Self {
            notify: Arc::new(Notify::from_env().context("NOTIFY_SOCKET does not name a socket")?),
            upgrade: Upgrade::of(listeners),
            upgrades: signal(SignalKind::user_defined2()).context("cannot wait for signals")?,
            pidfile: pidfile.map(PidFile),
            is_daemon: process.daemon,
            log: log.clone(),
        })
    }

    /// What holds the process's id while it serves.
    pub(crate) fn pidfile(&self) -> Option<&PathBuf> {
        self.pidfile.as_ref().map(|file| &file.0)
    }

    /// Whoever supervises the process.
    pub(crate) fn notify(&self) -> Arc<Notify> {
        Arc::clone(&self.notify)
    }

    /// Tells everybody that the server serves from now on.
    pub(crate) fn ready(&self, inherited: Inherited) -> Result<(), Failure> {
        if let Some(pidfile) = &self.pidfile {
            let what = || format!("cannot write the pid file {}", pidfile.0.display());
            pidfile.write().with_context(what)?;
        }
        self.notify.ready("serving");
        let notify = Arc::clone(&self.notify);
        // Where connections are served: if that is stuck, the watchdog is to know.
        tokio::spawn(async move { notify.live().await });
        inherited.ready();
        if self.is_daemon {
            daemon::detach().context("cannot let go of the terminal")?;
        }
        Ok(())
    }

    /// Ready when the server is to end: because `stop` is, or because a new process has taken its place.
    pub(crate) async fn end(mut self, stop: impl Future<Output = ()>) -> Ending {
        tokio::pin!(stop);
        loop {
            let upgraded = async {
                match self.upgrades.recv().await {
                    Some(()) => self.upgrade().await,
                    None => future::pending().await,
                }
            };
            let next = tokio::select! {
                () = &mut stop => {
                    self.notify.stopping();
                    return Ending::Stop;
                }
                next = upgraded => next,
            };
            if let Some(pid) = next {
                self.notify.main_process(pid);
                return Ending::Handover;
            }
        }
    }

    /// The process id of the new process, once it serves.
    async fn upgrade(&self) -> Option<u32> {
        self.log
            .note(format_args!("upgrade: a new process is started to take over"));
        match self.upgrade.start(again(), UPGRADE_PATIENCE).await {
            Ok(pid) => {
                self.log.note(format_args!(
                    "upgrade: process {pid} serves; running requests may finish"
                ));
                Some(pid)
            }
            Err(error) => {
                let error = anyhow::Error::from(error);
                self.log
                    .error(format_args!("upgrade: {error:#}; this process goes on"));
                None
            }
        }
    }
}

/// The command that this process was started with. Its file is looked for anew, so that a new one is run.
pub(crate) fn again() -> Command {
    let mut words = env::args_os();
    let mut command = Command::new(words.next().unwrap_or_else(|| "wasgi".into()));
    // It is told of by MAINPID, and is not the process that these were meant for.
    command.args(words).env_remove("WATCHDOG_PID");
    command
}

/// A file with this process's id; removed when dropped, if it still holds it.
struct PidFile(PathBuf);

impl PidFile {
    fn write(&self) -> io::Result<()> {
        // Put in its place whole: it may be read at any time, and an old one may lie there.
        let mut new = self.0.clone().into_os_string();
        new.push(format!(".{}", process::id()));
        let new = Path::new(&new);
        let written = fs::write(new, format!("{}\n", process::id())).and_then(|()| fs::rename(new, &self.0));
        match written {
            Err(error) => {
                let _ = fs::remove_file(new);
                // The folder may be root's, who has given the file alone to this user.
                let written = OpenOptions::new().write(true).truncate(true).open(&self.0);
                let written = written.and_then(|mut file| writeln!(file, "{}", process::id()));
                written.map_err(|_| error)
            }
            Ok(()) => Ok(()),
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let ours = fs::read_to_string(&self.0).is_ok_and(|text| text.trim() == process::id().to_string());
        // Where it cannot be removed, it is to name no process that may be another's by and by. Too late to tell anybody.
        if ours && fs::remove_file(&self.0).is_err() {
            let _ = OpenOptions::new().write(true).truncate(true).open(&self.0);
        }
    }
}
