//! SIGTERM and SIGINT: the first asks the server to stop, a second ends it at once. SIGUSR1 has log files opened anew.

use std::io;
use std::process;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use wasgi_server::Log;

/// From here on, signals do not end the process. Ready when the first has come.
///
/// They are waited for on a thread of their own: the second must work when all others are stuck.
///
/// # Errors
/// When the thread cannot be started, or the system refuses to hand over signals.
pub(crate) fn first(log: Log) -> io::Result<oneshot::Receiver<()>> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let (mut terminate, mut interrupt, mut reopen) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::user_defined1())?,
        )
    };
    let (tell, told) = oneshot::channel();
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            let mut next = async || {
                loop {
                    tokio::select! {
                        _ = terminate.recv() => return SignalKind::terminate(),
                        _ = interrupt.recv() => return SignalKind::interrupt(),
                        _ = reopen.recv() => log.reopen(),
                    }
                }
            };
            next().await;
            log.note(format_args!(
                "stopping: running requests may finish; signal again to end at once"
            ));
            let _ = tell.send(());
            let second = next().await;
            log.note(format_args!("ended"));
            log.flush(Duration::from_millis(200));
            // As a shell tells of a command that a signal ended.
            process::exit(128 + second.as_raw_value());
        });
    })?;
    Ok(told)
}
