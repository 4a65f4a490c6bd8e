//! `daemon` of `[server]`: serves in the background, and has whoever starts it wait until it does.
//!
//! The daemon is this command started anew, in the manner in which a server takes the place of another (SIGUSR2): it tells
//! when it serves, and if it ends before, the start has failed. That needs no fork, which threads would not live through.

use std::fs::OpenOptions;
use std::io;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use tokio::runtime::Builder;
use wasgi_config::Process;
use wasgi_server::{Inherited, Upgrade, UpgradeError};

use crate::failure::Failure;
use crate::service::{UPGRADE_PATIENCE, again};

/// In the process that is started by hand: starts the daemon and waits until it serves. `None` in the daemon, or if there
/// is to be none.
pub(crate) fn begin(process: &Process) -> Result<Option<ExitCode>, Failure> {
    if !process.daemon {
        return Ok(None);
    }
    if Inherited::is_expected() {
        // No terminal's signals are its any more. It leads no group of processes, so that this is granted.
        rustix::process::setsid().context("cannot leave the terminal")?;
        return Ok(None);
    }
    let runtime = Builder::new_current_thread().enable_all().build();
    let started = runtime.context("cannot wait for the daemon")?.block_on(async {
        // It replaces nobody, so that it gets no sockets.
        Upgrade::of([]).start(again(), UPGRADE_PATIENCE).await
    });
    match started {
        Ok(_) => Ok(Some(ExitCode::SUCCESS)),
        // It has said why.
        Err(UpgradeError::Ended(_)) => Ok(Some(ExitCode::FAILURE)),
        Err(error) => Err(anyhow!(error).context("the daemon does not serve").into()),
    }
}

/// Lets go of the terminal, or of who waits for the end of what is written: the daemon serves.
///
/// # Errors
/// Those of the system.
pub(crate) fn detach() -> io::Result<()> {
    let nowhere = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&nowhere)?;
    nix::unistd::dup2_stdout(&nowhere)?;
    nix::unistd::dup2_stderr(&nowhere)?;
    Ok(())
}
