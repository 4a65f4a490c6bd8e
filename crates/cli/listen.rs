//! Where the server listens.

use std::io::ErrorKind;

use wasgi_config::Listen;
use wasgi_server::{BindError, Inherited, Listener};

use crate::failure::Failure;

/// Binds all of it, or takes over what was inherited.
pub(crate) async fn listen(listen: &Listen, inherited: &mut Inherited) -> Result<Vec<Listener>, Failure> {
    let mut listeners = Vec::new();
    for address in &listen.http {
        listeners.extend(inherited.listen(address).await.map_err(cannot_listen)?);
    }
    Ok(listeners)
}

fn cannot_listen(error: BindError) -> Failure {
    let hint = match &error {
        BindError::Bind { source, .. } => match source.kind() {
            ErrorKind::AddrInUse => Some("stop what listens there, or choose another port with --http"),
            ErrorKind::AddrNotAvailable => {
                Some("it is not an address of this machine: 0.0.0.0 stands for all of them")
            }
            ErrorKind::PermissionDenied => {
                Some("choose a port above 1023, or a folder that this user may write to")
            }
            _ => None,
        },
        BindError::InUse { .. } => Some("stop that process, or choose another path"),
        BindError::NotPassed { .. } => Some(
            "start wasgi with systemd's socket unit, or leave the address to systemd-socket-activate; see examples/systemd",
        ),
        BindError::NotASocket { .. } => Some("move the file away, or choose another path"),
        BindError::Resolve { .. } => Some("write an address, such as 127.0.0.1:8000"),
    };
    Failure::Failed(error.into(), hint.map(str::to_owned))
}
