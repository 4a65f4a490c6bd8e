//! The PROXY protocol: whose a connection is, as a proxy that hands on connections says.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{PATIENCE, Reply};
use crate::server::{Server, app_folder, config, project};

const TRUSTING: &str = "[proxy]\ntrust = [\"127.0.0.1\"]\n";

/// A server for connections that begin with a header.
fn start(trust: &str, limits: &str) -> Server {
    let more = format!("workers = 1\n[limits]\n{limits}\n{trust}");
    let toml = config("pep3333", &more);
    Server::start(&toml.replace("\n\n[app]", "\nproxy-protocol = \"127.0.0.1:0\"\n\n[app]"))
}

const GET: &str =
    "GET /environ HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 203.0.113.9\r\nConnection: close\r\n\r\n";

fn ask(server: &Server, header: &[u8]) -> Reply {
    let mut connection = server.connect();
    connection.send([header, GET.as_bytes()].concat());
    connection.reply()
}

/// Version 2: command, family, addresses and further fields.
fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("is short").to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest].concat()
}

/// 192.0.2.7:40000 to 192.0.2.1:443.
const ADDRESSES: &[u8] = &[192, 0, 2, 7, 192, 0, 2, 1, 0x9c, 0x40, 1, 0xbb];

fn told(environ: &Value) -> [&str; 5] {
    let keys = [
        "REMOTE_ADDR",
        "REMOTE_PORT",
        "SERVER_NAME",
        "SERVER_PORT",
        "wsgi.url_scheme",
    ];
    keys.map(|key| environ[key].as_str().expect("a text"))
}

#[test]
fn the_app_and_the_log_see_the_client_that_the_header_names() {
    let server = start(TRUSTING, "");
    let line = b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 443\r\n";
    let tls = [ADDRESSES, &[0x20, 0, 5, 1, 0, 0, 0, 0]].concat();
    let v4 = ["192.0.2.7", "40000", "192.0.2.1", "443"];
    for (header, scheme) in [
        (line.to_vec(), "http"),
        (version_2(0x21, 0x11, ADDRESSES), "http"),
        (version_2(0x21, 0x11, &tls), "https"),
    ] {
        let environ = ask(&server, &header).expect(200).json();
        let [.., seen] = told(&environ);
        assert_eq!(
            (&told(&environ)[..4], seen),
            (&v4[..], scheme),
            "{}",
            header.escape_ascii()
        );
        // It is not trusted, whoever handed its connection on.
        assert_eq!(environ.get("HTTP_X_FORWARDED_FOR"), None);
    }
    let (from, to) = (Ipv6Addr::from_bits(7), Ipv6Addr::LOCALHOST);
    let six = [&from.octets()[..], &to.octets(), &[0x9c, 0x40, 1, 0xbb]].concat();
    for header in [
        &version_2(0x21, 0x21, &six)[..],
        b"PROXY TCP6 ::7 ::1 40000 443\r\n",
    ] {
        let environ = ask(&server, header).expect(200).json();
        assert_eq!(told(&environ)[..4], ["::7", "40000", "::1", "443"]);
    }
    server.log.wait_for(0, "192.0.2.7 - - [");
    server.log.wait_for(0, "::7 - - [");
}

#[test]
fn a_connection_of_the_proxys_own_is_the_proxys() {
    let server = start(TRUSTING, "");
    for header in [&version_2(0x20, 0, b"")[..], b"PROXY UNKNOWN\r\n"] {
        let environ = ask(&server, header).expect(200).json();
        let port = server.address().port().to_string();
        // Whose word counts, as without the protocol.
        assert_eq!(environ["REMOTE_ADDR"], "203.0.113.9");
        assert_eq!(
            (&environ["SERVER_NAME"], &environ["SERVER_PORT"]),
            (&"127.0.0.1".into(), &port.into())
        );
    }
}

#[test]
fn a_client_that_is_itself_a_trusted_proxy_is_believed() {
    let server = start("[proxy]\ntrust = [\"127.0.0.1\", \"10.0.0.0/8\"]\n", "");
    let environ = ask(&server, b"PROXY TCP4 10.0.0.7 192.0.2.1 40000 443\r\n")
        .expect(200)
        .json();
    assert_eq!(environ["REMOTE_ADDR"], "203.0.113.9");
}

#[test]
fn a_header_that_comes_in_pieces_is_read_and_nothing_after_it() {
    let server = start(TRUSTING, "");
    let header = version_2(0x21, 0x11, ADDRESSES);
    let mut connection = server.connect();
    for byte in header.iter().chain(GET.as_bytes()) {
        connection.send([*byte]);
    }
    assert_eq!(connection.reply().expect(200).json()["REMOTE_ADDR"], "192.0.2.7");
}

#[test]
fn whoever_is_not_trusted_or_sends_no_header_is_closed_and_told_of() {
    let closed = |server: &Server, what: &str, line: &str| {
        let (mark, mut connection) = (server.log.mark(), server.connect());
        connection.try_send(what.as_bytes());
        assert!(connection.is_closed(), "{what}");
        server.log.wait_for(mark, line);
        assert!(!server.log.has(mark, "GET /"), "no request is taken");
    };
    let from = "PROXY protocol from 127.0.0.1: ";
    let trusting = start(TRUSTING, "head-time = \"500ms\"");
    for (what, why) in [
        (GET, "it does not begin with a PROXY header"),
        (
            "PROXY UDP4 192.0.2.7 192.0.2.1 40000 443\r\n",
            "the PROXY line names no protocol that is served",
        ),
        (
            "PROXY TCP4 192.0.2.7 192.0.2.1 40000",
            "its header took longer than 500ms",
        ),
    ] {
        closed(&trusting, what, &format!("{from}{why}; the connection is closed"));
    }
    assert_eq!(
        ask(&trusting, b"PROXY UNKNOWN\r\n").status(),
        200,
        "others are served"
    );

    let other = start("[proxy]\ntrust = [\"10.0.0.1\"]\n", "");
    let header = format!("PROXY TCP4 192.0.2.7 192.0.2.1 40000 443\r\n{GET}");
    closed(
        &other,
        &header,
        &format!("{from}it is not one of the proxies in `trust` of [proxy]; the connection is closed"),
    );
}

#[test]
fn a_port_that_is_not_behind_the_protocol_does_not_take_its_header() {
    let server = Server::start(&config("pep3333", &format!("workers = 1\n{TRUSTING}")));
    assert_eq!(
        ask(&server, b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 443\r\n").status(),
        400
    );
}

/// A program in the foreground; ends with this value.
struct HaProxy(Child);

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").expect("a socket");
    free.local_addr().expect("an address")
}

/// HAProxy in front, handing on connections as examples/haproxy/proxy-protocol.cfg has it.
fn haproxy(dir: &Path, replace: &[(&str, String)]) -> HaProxy {
    let example = project().join("examples/haproxy/proxy-protocol.cfg");
    let mut text = fs::read_to_string(example).expect("the example");
    for (written, meant) in replace {
        assert!(text.contains(written), "{written} is in the example");
        text = text.replace(written, meant);
    }
    let file = dir.join("haproxy.cfg");
    fs::write(&file, text).expect("can be written");
    let found = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy", "/usr/bin/haproxy"];
    let program = found.into_iter().find(|path| Path::new(path).exists());
    let mut command = Command::new(program.expect("HAProxy is installed: run `make test-tools` first"));
    command.arg("-db").arg("-f").arg(&file).stdin(Stdio::null());
    HaProxy(command.spawn().expect("HAProxy runs"))
}

#[test]
fn haproxy_tells_who_its_clients_are_in_either_version() {
    let (root, cert) = (app_folder("pep3333"), project().join("tests/certificates"));
    let certificate = |name: &str| cert.join(name).display().to_string();
    let server = Server::start(&format!(
        "[listen]\nhttp = [\"127.0.0.1:0\", \"unix:app.sock\"]\n\
         https = {{ address = \"unix:tls.sock\", cert = {:?}, key = {:?} }}\n\
         proxy-protocol = [\"unix:app.sock\", \"unix:tls.sock\"]\n\
         [proxy]\ntrust = [\"unix\"]\n[app]\nroot = {root:?}\nwsgi-file = \"app.py\"\nworkers = 1\n",
        certificate("one.pem"),
        certificate("one.key"),
    ));
    let pair = server.dir.path().join("pair.pem");
    let of = |name: &str| fs::read(certificate(name)).expect("is there");
    fs::write(&pair, [of("one.pem"), of("one.key")].concat()).expect("can be written");
    let [one, two, with_tls, through] = [(); 4].map(|()| free());
    let _haproxy = haproxy(
        server.dir.path(),
        &[
            ("127.0.0.1:8081", one.to_string()),
            ("127.0.0.1:8082", two.to_string()),
            ("127.0.0.1:8443", with_tls.to_string()),
            ("127.0.0.1:8444", through.to_string()),
            ("/etc/haproxy/pair.pem", pair.display().to_string()),
            ("/run/wasgi/", format!("{}/", server.dir.path().display())),
        ],
    );
    let own = |front: SocketAddr| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match TcpStream::connect(front) {
                Ok(stream) => return stream,
                Err(_) => assert!(Instant::now() < deadline, "HAProxy does not listen"),
            }
            thread::sleep(Duration::from_millis(5));
        }
    };
    for front in [one, two] {
        let mut stream = own(front);
        let port = stream.local_addr().expect("an address").port().to_string();
        stream.write_all(GET.as_bytes()).expect("is sent");
        let environ = Reply::parse(read(stream), "GET").expect(200).json();
        let server = front.port().to_string();
        assert_eq!(told(&environ), ["127.0.0.1", &port, "127.0.0.1", &server, "http"]);
    }
    // TLS ends at HAProxy, which says so, or is handed on.
    for front in [with_tls, through] {
        drop(own(front));
        let environ = curl(front, &certificate("ca.pem"));
        assert_eq!(
            (&environ["REMOTE_ADDR"], &environ["wsgi.url_scheme"]),
            (&"127.0.0.1".into(), &"https".into())
        );
        assert_eq!(environ["SERVER_PORT"], front.port().to_string());
    }
}

fn read(mut stream: TcpStream) -> Vec<u8> {
    let mut reply = Vec::new();
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    std::io::Read::read_to_end(&mut stream, &mut reply).expect("a reply");
    reply
}

/// What the app sees of curl, which trusts the test's authority.
fn curl(front: SocketAddr, authority: &str) -> Value {
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--show-error",
        "--max-time",
        "30",
        "--cacert",
        authority,
    ]);
    command
        .arg("--resolve")
        .arg(format!("one.test:{}:127.0.0.1", front.port()));
    command.arg(format!("https://one.test:{}/environ", front.port()));
    let done = command.output().expect("curl is installed");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).expect("JSON")
}
