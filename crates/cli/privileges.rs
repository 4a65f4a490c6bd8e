//! From root to the `user` of `[server]`, once what only root may do is done.

use anyhow::Context;
use wasgi_config::{APP, Logging, Process, User, is_root};
use wasgi_server::{Log, become_user, give_file, no_new_privileges};

use crate::failure::Failure;
use crate::interpreter;
use crate::service::Service;

/// Whether it can be done, before anything else is; to be called before there are threads. `file` is what messages call
/// the configuration.
pub(crate) fn prepare(process: &Process, file: &str) -> Result<(), Failure> {
    let Some(user) = to_become(process) else {
        return Ok(());
    };
    if !is_root() {
        return Err(Failure::Usage(format!(
            "{file}: server.user: only root can become {}\n\
             hint: start it as root or as that user, or leave user out",
            user.shown
        )));
    }
    let prepared = no_new_privileges().context("cannot give up new privileges");
    prepared.map_err(Failure::from)
}

/// Becomes the user, if there is one and this process is not it already; what it goes on to write is the user's before.
pub(crate) fn give_up_root(
    process: &Process,
    service: &Service,
    logging: &Logging,
    log: &Log,
) -> Result<(), Failure> {
    let Some(user) = to_become(process) else {
        return Ok(());
    };
    let file = logging.file.as_ref();
    for path in file
        .filter(|path| !path.to_string_lossy().contains(APP))
        .into_iter()
        .chain(service.pidfile())
    {
        give_file(path, user).with_context(|| format!("cannot give {} to {}", path.display(), user.shown))?;
    }
    if let Err(error) = interpreter::make_cache(user) {
        log.note(format_args!(
            "no folder for machine code can be made for {}: {error}",
            user.shown
        ));
    }
    wasgi_engine::open_pagemap();
    become_user(user).with_context(|| format!("cannot become {}", user.shown))?;
    log.note(format_args!(
        "running as {}, user {} and group {}",
        user.shown, user.uid, user.gid
    ));
    Ok(())
}

fn to_become(process: &Process) -> Option<&User> {
    process.user.as_ref().filter(|user| !user.is_current())
}
