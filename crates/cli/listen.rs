//! Where the server listens.

use std::io::ErrorKind;

use wasgi_config::{Address, Admin, Https, Listen, Owner, Sockets};
use wasgi_server::{AdminListeners, BindError, Inherited, Listener, Tls, TlsError};

use crate::failure::Failure;

/// Binds all of it, or takes over what was inherited.
pub(crate) async fn listen(listen: &Listen, inherited: &mut Inherited) -> Result<Vec<Listener>, Failure> {
    let certificates = certificates(listen)?;
    let sockets = &listen.sockets;
    let mut listeners = Vec::new();
    for address in &listen.http {
        listeners.extend(inherited.listen(address, sockets).await.map_err(cannot_listen)?);
    }
    for (https, tls) in listen.https.iter().zip(certificates) {
        let bound = inherited
            .listen(&https.address, sockets)
            .await
            .map_err(cannot_listen)?;
        listeners.extend(bound.into_iter().map(|listener| listener.over_tls(tls.clone())));
    }
    // The port as it was bound, if the system chose it.
    let port = listeners
        .iter()
        .find_map(Listener::https_port)
        .or(listen.https_port());
    for address in &listen.redirect {
        let bound = inherited.listen(address, sockets).await.map_err(cannot_listen)?;
        let port = port.unwrap_or(443);
        listeners.extend(bound.into_iter().map(|listener| listener.redirecting(port)));
    }
    for (addresses, speaking) in [
        (&listen.h2c, Listener::speaking_h2c as fn(Listener) -> Listener),
        (&listen.uwsgi, Listener::speaking_uwsgi),
        (&listen.fastcgi, Listener::speaking_fastcgi),
        (&listen.scgi, Listener::speaking_scgi),
    ] {
        for address in addresses {
            let bound = inherited.listen(address, sockets).await.map_err(cannot_listen)?;
            listeners.extend(bound.into_iter().map(speaking));
        }
    }
    let has_headers = |listener: &Listener| {
        let of = |address: &Address| address.to_string() == listener.address();
        listen.proxy_protocol.iter().any(of)
    };
    Ok(listeners
        .into_iter()
        .map(|listener| match has_headers(&listener) {
            true => listener.with_proxy_headers(),
            false => listener,
        })
        .collect())
}

/// Reads the certificates: what is wrong with one is a mistake of the configuration.
pub(crate) fn certificates(listen: &Listen) -> Result<Vec<Tls>, Failure> {
    let read = |https: &Https| Tls::of(&https.certificates).map_err(cannot_use);
    listen.https.iter().map(read).collect()
}

fn cannot_use(error: TlsError) -> Failure {
    let hint = match &error {
        TlsError::Read { .. } => "give the user that runs wasgi the right to read it",
        TlsError::Content { .. } => {
            "cert is the PEM file of the certificate and those that vouch for it, key that of its private key, not encrypted"
        }
        TlsError::Mismatch { .. } => "give cert and key the files of one pair",
        TlsError::Setup(_) => "this is a fault of wasgi's: please report it",
    };
    Failure::Usage(format!("wasgi: {:#}\nhint: {hint}", anyhow::Error::from(error)))
}

/// Binds what the operator is to be heard on: unix sockets are for `owner` alone.
pub(crate) async fn listen_for_admin(
    admin: &Admin,
    owner: Option<Owner>,
    inherited: &mut Inherited,
) -> Result<AdminListeners, Failure> {
    let sockets = Sockets {
        mode: 0o600,
        owner,
        ..Sockets::default()
    };
    let mut listeners = AdminListeners::default();
    for (address, to) in [
        (&admin.socket, &mut listeners.private),
        (&admin.tcp, &mut listeners.tcp),
        (&admin.stats, &mut listeners.stats),
    ] {
        if let Some(address) = address {
            *to = inherited.listen(address, &sockets).await.map_err(cannot_listen)?;
        }
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
        BindError::Owner { .. } => Some(
            "only root may give it to another user, and only who is in a group may give it to that: correct socket-owner, or start wasgi as root",
        ),
        BindError::InUse { .. } => Some("stop that process, or choose another path"),
        BindError::NotPassed { .. } => Some(
            "start wasgi with systemd's socket unit, or leave the address to systemd-socket-activate; see examples/systemd",
        ),
        BindError::NotASocket { .. } => Some("move the file away, or choose another path"),
        BindError::Resolve { .. } => Some("write an address, such as 127.0.0.1:8000"),
    };
    Failure::Failed(error.into(), hint.map(str::to_owned))
}
