//! HTTP over TLS: certificates by name, their renewal, the redirect, and what is wrong with a file.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, Error, RootCertStore, StreamOwned, crypto::ring};

use crate::client::PATIENCE;
use crate::server::{Server, config, folder, project, run, wasgi};

const ONE: &str = "{ address = \"127.0.0.1:0\", cert = \"one.pem\", key = \"one.key\" }";

/// A folder with the test's certificates and an app.toml that listens so.
fn place(listen: &str) -> TempDir {
    let toml = config("pep3333", "workers = 1").replace("http = \"127.0.0.1:0\"", listen);
    let dir = folder(&toml);
    for name in ["one.pem", "one.key", "two.pem", "two.key"] {
        fs::copy(certificates().join(name), dir.path().join(name)).expect("a certificate");
    }
    dir
}

fn certificates() -> std::path::PathBuf {
    project().join("tests/certificates")
}

fn https(server: &Server) -> SocketAddr {
    let line = server.log.wait_for(0, "listening on https://");
    let (_, address) = line.split_once("https://").expect("was waited for");
    address.parse().expect("an address")
}

/// Connects as a client that trusts the test's authority and asks for `name`.
fn connect(address: SocketAddr, name: &str) -> Result<StreamOwned<ClientConnection, TcpStream>, Error> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(certificates().join("ca.pem")).expect("a certificate");
    roots.add(authority)?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = name.to_owned().try_into().expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name)?;
    let mut stream = TcpStream::connect(address).expect("the server accepts connections");
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    while client.is_handshaking() {
        if let Err(error) = client.complete_io(&mut stream) {
            return Err(match error.downcast::<Error>() {
                Ok(error) => error,
                Err(error) => panic!("the handshake fails: {error}"),
            });
        }
    }
    Ok(StreamOwned::new(client, stream))
}

/// The reply to a GET, head and body.
fn get(stream: &mut (impl Read + Write), target: &str, host: &str) -> String {
    write!(
        stream,
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .expect("is sent");
    let mut reply = Vec::new();
    stream
        .read_to_end(&mut reply)
        .expect("an end that TLS tells, not a cut connection");
    String::from_utf8_lossy(&reply).into_owned()
}

#[test]
fn each_name_gets_its_certificate_and_the_app_sees_https() {
    // Both for one address; on ports that the system chooses these would be two.
    let port = free_port();
    let one = ONE.replace(":0", &format!(":{port}"));
    let dir = place(&format!("https = [{one}, {}]", one.replace("one", "two")));
    let server = Server::start_in(dir, |_| {});
    let address = https(&server);
    for name in ["one.test", "two.test"] {
        let mut stream = connect(address, name).expect("its certificate");
        let reply = get(&mut stream, "/environ", name);
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
        assert!(reply.contains("\"wsgi.url_scheme\": \"https\""), "{reply}");
    }
    let refused = connect(address, "three.test").expect_err("no certificate has this name");
    assert!(matches!(refused, Error::InvalidCertificate(_)), "{refused}");
}

fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").expect("a socket");
    free.local_addr().expect("an address").port()
}

#[test]
fn a_renewed_certificate_is_used_without_a_restart() {
    let server = Server::start_in(place(&format!("https = {ONE}")), |_| {});
    let address = https(&server);
    let mut before = connect(address, "one.test").expect("its certificate");
    let copy = |from: &str, to: &str| {
        fs::copy(certificates().join(from), server.dir.path().join(to)).expect("can be written");
    };
    copy("two.pem", "one.pem");
    server.signal(Signal::HUP);
    // The key is still the old one's.
    let line = server.log.wait_for(0, "those before stay: ");
    assert!(line.contains("one.key is not the key of "), "{line}");
    connect(address, "one.test").expect("the certificate before");
    copy("two.key", "one.key");
    server.signal(Signal::HUP);
    let deadline = Instant::now() + PATIENCE;
    while connect(address, "two.test").is_err() {
        assert!(Instant::now() < deadline, "the new certificate is not used");
    }
    // A connection from before goes on.
    assert!(get(&mut before, "/ok", "one.test").starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn plain_http_is_sent_to_https() {
    let listen = format!("https = {ONE}");
    let server = Server::start_in(place(&format!("{listen}\nredirect = \"127.0.0.1:0\"")), |_| {});
    let port = https(&server).port();
    let line = server.log.wait_for(0, ", sending to https at port ");
    let (_, address) = line.split_once("http://").expect("an address");
    let (address, _) = address.split_once(',').expect("was waited for");
    for host in ["one.test", "one.test:8000"] {
        let mut stream = TcpStream::connect(address).expect("the server accepts connections");
        let reply = get(&mut stream, "/a?b=c", host);
        assert!(
            reply.starts_with("HTTP/1.1 308 Permanent Redirect\r\n"),
            "{reply}"
        );
        let location = format!("location: https://one.test:{port}/a?b=c\r\n");
        assert!(reply.to_lowercase().contains(&location), "{reply}");
    }
}

#[test]
fn clients_that_are_slow_to_agree_on_keys_do_not_hold_up_a_stop() {
    let server = Server::start_in(place(&format!("https = {ONE}")), |_| {});
    let address = https(&server);
    let _silent = TcpStream::connect(address).expect("the server accepts connections");
    let mut plain = TcpStream::connect(address).expect("the server accepts connections");
    plain
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("is sent");
    connect(address, "one.test").expect("others are served meanwhile");
    let begun = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait(PATIENCE).code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[test]
fn a_file_that_is_no_certificate_or_key_is_named_with_the_reason() {
    let dir = place(&format!("https = {ONE}"));
    let write = |name: &str, text: &[u8]| fs::write(dir.path().join(name), text).expect("can be written");
    let original = |name: &str| fs::read(certificates().join(name)).expect("is there");
    let expect = |what: &str| {
        let run = run(
            wasgi().arg("serve").arg(dir.path().join("app.toml")),
            Duration::from_secs(60),
        );
        assert_eq!(run.code(), 2, "{}", run.stderr);
        assert!(run.stderr.contains(what), "{what}: {}", run.stderr);
        assert!(!run.stderr.contains("listening on"), "{}", run.stderr);
    };
    let named = |name: &str| Path::new(dir.path()).join(name).display().to_string();
    write("one.pem", b"hello");
    expect(&format!("{} holds no certificate", named("one.pem")));
    write("one.pem", &original("one.key"));
    expect(&format!("{} holds no certificate", named("one.pem")));
    write("one.pem", &original("one.pem"));
    write("one.key", &original("one.pem"));
    expect(&format!("{} holds no private key", named("one.key")));
    write("one.key", &original("two.key"));
    expect(&format!(
        "{} is not the key of {}",
        named("one.key"),
        named("one.pem")
    ));
}
