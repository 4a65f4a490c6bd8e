//! What each way through a web server is asked for.

use std::cell::Cell;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Connection, PATIENCE, Reply, latin1};

/// Where a web server is asked, and the folder that the app shares with the test.
pub struct Place {
    pub name: &'static str,
    address: SocketAddr,
    data: PathBuf,
}

/// The list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    Get,
    Form,
    Upload,
    ChunkedUpload,
    Download,
    Stream,
    Head,
    NotModified,
    Redirect,
    NonAscii,
    Cookies,
    LargeCookies,
    ClientGone,
    Cut,
    Many,
}

const LARGE: usize = 20 << 20;

impl Item {
    pub const ALL: [Self; 15] = [
        Self::Get,
        Self::Form,
        Self::Upload,
        Self::ChunkedUpload,
        Self::Download,
        Self::Stream,
        Self::Head,
        Self::NotModified,
        Self::Redirect,
        Self::NonAscii,
        Self::Cookies,
        Self::LargeCookies,
        Self::ClientGone,
        Self::Cut,
        Self::Many,
    ];

    pub fn go(self, place: &Place) {
        match self {
            Item::Get => get(place),
            Item::Form => form(place),
            Item::Upload => upload(place),
            Item::ChunkedUpload => chunked_upload(place),
            Item::Download => download(place),
            Item::Stream => stream(place),
            Item::Head => head(place),
            Item::NotModified => not_modified(place),
            Item::Redirect => redirect(place),
            Item::NonAscii => non_ascii(place),
            Item::Cookies => cookies(place),
            Item::LargeCookies => large_cookies(place),
            Item::ClientGone => client_gone(place),
            Item::Cut => cut(place),
            Item::Many => many(place, 250),
        }
    }
}

impl Place {
    pub fn new(name: &'static str, port: u16, data: PathBuf) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Self { name, address, data }
    }

    pub fn wait_until_it_listens(&self) {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            assert!(Instant::now() < deadline, "{} does not listen", self.name);
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn connect(&self) -> Connection {
        Connection::tcp(self.address)
    }

    fn ask(&self, method: &str, target: &str, fields: &str, body: &[u8]) -> Reply {
        let mut connection = self.connect();
        connection.send(request(method, target, fields));
        let sending = connection.send_meanwhile(body.to_vec());
        let reply = connection.reply_to(method);
        sending.join().expect("sends the body");
        reply
    }

    #[track_caller]
    fn get(&self, target: &str) -> Reply {
        self.ask("GET", target, "", b"").expect(200)
    }

    /// A name that no other row has.
    fn token(&self) -> String {
        thread_local!(static COUNT: Cell<u32> = const { Cell::new(0) });
        COUNT.set(COUNT.get() + 1);
        format!("{}-{}", self.address.port(), COUNT.get())
    }
}

fn request(method: &str, target: &str, fields: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: front.example\r\n{fields}\r\n")
}

fn get(place: &Place) {
    let told = place.get("/em/?q=%C3%A9").json();
    let environ = &told["environ"];
    for (name, value) in [
        ("SCRIPT_NAME", "/em"),
        ("PATH_INFO", "/"),
        ("QUERY_STRING", "q=%C3%A9"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("HTTP_HOST", "front.example"),
        ("wsgi.url_scheme", "http"),
    ] {
        assert_eq!(environ[name], value, "{}: {name} of {told}", place.name);
    }
    assert_eq!(told["url"], "http://front.example/em/?q=\u{e9}", "{}", place.name);
    // Whoever asks has no word in what servers say.
    let claims = "X-Forwarded-For: 203.0.113.9\r\nProxy: http://evil.example/\r\n";
    let told = place.ask("GET", "/em/", claims, b"").expect(200).json();
    assert_eq!(told["environ"].get("HTTP_PROXY"), None, "{}", place.name);
    // Over the other protocols it is the client itself that is trusted, at 127.0.0.1.
    if place.name.contains("HTTP") {
        assert_eq!(
            told["environ"]["REMOTE_ADDR"], "127.0.0.1",
            "{}: {told}",
            place.name
        );
    }
}

fn form(place: &Place) {
    let body = b"a=1&b=%C3%BC";
    let fields = format!(
        "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n",
        body.len()
    );
    let told = place.ask("POST", "/em/form", &fields, body).expect(200).json();
    assert_eq!(
        (&told["form"]["a"], &told["form"]["b"]),
        (&"1".into(), &"\u{fc}".into())
    );
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|n| (n % 251) as u8).collect()
}

/// The app tells of a body how long it is and the sum of each byte times its place.
fn assert_whole(place: &Place, told: &serde_json::Value, body: &[u8]) {
    assert_eq!(told["length"], body.len(), "{}", place.name);
    let half = &body[body.len() / 2..body.len() / 2 + 1000];
    assert_eq!(told["middle"], latin1(half), "{}", place.name);
}

fn upload(place: &Place) {
    let body = pattern(LARGE);
    let length = format!("Content-Length: {LARGE}\r\n");
    let told = place.ask("POST", "/em/upload", &length, &body).expect(200).json();
    assert_whole(place, &told, &body);
}

fn in_chunks(body: &[u8]) -> Vec<u8> {
    let mut chunked = Vec::with_capacity(body.len() + 4096);
    for piece in body.chunks(50_000) {
        chunked.extend(format!("{:x}\r\n", piece.len()).bytes());
        chunked.extend_from_slice(piece);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");
    chunked
}

fn chunked_upload(place: &Place) {
    let body = pattern(3 << 20);
    let coding = "Transfer-Encoding: chunked\r\n";
    let reply = place.ask("POST", "/em/upload", coding, &in_chunks(&body));
    assert_whole(place, &reply.expect(200).json(), &body);
}

/// The server wants to know how long a body is.
pub fn length_required(place: &Place) {
    let coding = "Transfer-Encoding: chunked\r\n";
    let reply = place.ask("POST", "/em/upload", coding, &in_chunks(b"body"));
    assert_eq!(reply.status(), 411, "{}: {}", place.name, reply.text());
}

/// The same with a status of its own.
pub fn bad_request(place: &Place) {
    let coding = "Transfer-Encoding: chunked\r\n";
    let reply = place.ask("POST", "/em/upload", coding, &in_chunks(&pattern(3 << 20)));
    assert_eq!(reply.status(), 400, "{}: {}", place.name, reply.text());
}

fn download(place: &Place) {
    let reply = place.get(&format!("/em/download?size={LARGE}"));
    assert!(reply.body.len() == LARGE, "{}: {}", place.name, reply.body.len());
    let line = &b"0123456789abcdef"[..];
    assert!(reply.body.chunks(16).all(|piece| piece == line), "{}", place.name);
}

fn read_until(connection: &mut Connection, text: &str) -> String {
    let mut came = String::new();
    while !came.contains(text) {
        came.push_str(&latin1(&connection.some()));
    }
    came
}

fn stream(place: &Place) {
    let token = place.token();
    let mut connection = place.connect();
    connection.send(request("GET", &format!("/em/stream/{token}"), ""));
    // The app waits for the file, and says so if it has waited too long.
    read_until(&mut connection, "first");
    fs::write(place.data.join(format!("read-{token}")), "").expect("can be written");
    read_until(&mut connection, "in time");
}

fn head(place: &Place) {
    let reply = place.ask("HEAD", "/em/page", "", b"").expect(200);
    assert!(reply.header("ETag").is_some(), "{}", place.name);
    // The connection has nothing more of it.
    let mut connection = place.connect();
    connection.send(request("HEAD", "/em/page", ""));
    connection.reply_to("HEAD").expect(200);
    connection.send(request("GET", "/em/page", ""));
    assert_eq!(
        connection.reply().expect(200).text(),
        "a page\n",
        "{}",
        place.name
    );
}

fn not_modified(place: &Place) {
    let mut connection = place.connect();
    connection.send(request("GET", "/em/page", ""));
    let tag = connection
        .reply()
        .expect(200)
        .header("ETag")
        .expect("a tag")
        .to_owned();
    connection.send(request("GET", "/em/page", &format!("If-None-Match: {tag}\r\n")));
    connection.reply().expect(304);
    connection.send(request("GET", "/em/page", ""));
    assert_eq!(
        connection.reply().expect(200).text(),
        "a page\n",
        "{}",
        place.name
    );
}

fn redirect(place: &Place) {
    let assert_redirects = |target: &str, statuses: &[u16], path: &str| {
        let reply = place.ask("GET", target, "", b"");
        let location = reply.header("Location").unwrap_or_default();
        assert!(
            statuses.contains(&reply.status()),
            "{}: {target}: {:?}",
            place.name,
            reply.head
        );
        // Servers that make it absolute may name the port they listen on.
        let rest = location.strip_prefix("http://front.example").unwrap_or(location);
        let own = format!(":{}", place.address.port());
        assert_eq!(rest.strip_prefix(&own).unwrap_or(rest), path, "{}", place.name);
    };
    assert_redirects("/em/away", &[302], "/em/page?next=/%C3%BC");
    assert_redirects("/em/moved", &[308], "/em/page");
    // By the web server, wasgi, or the app, whoever knows the path.
    assert_redirects("/em?q", &[301, 308], "/em/?q");
}

fn non_ascii(place: &Place) {
    let told = place.get("/em/named/caf%C3%A9/a%20b?q=%C3%A9%26").json();
    assert_eq!(told["name"], "caf\u{e9}/a b", "{}", place.name);
    assert_eq!(told["args"]["q"], "\u{e9}&", "{}", place.name);
    assert_eq!(
        told["url"], "/em/named/caf%C3%A9/a%20b?q=%C3%BC",
        "{}",
        place.name
    );
}

fn cookies(place: &Place) {
    let reply = place
        .ask("GET", "/em/cookies", "Cookie: a=1; b=\"x y\"\r\n", b"")
        .expect(200);
    assert_eq!(reply.json()["b"], "x y", "{}", place.name);
    assert_eq!(reply.head.all("Set-Cookie").len(), 3, "{}", place.name);
}

/// Longer than the 4 KiB that uWSGI takes by default, and most servers for a reply's head.
fn large_cookies(place: &Place) {
    let (sent, more) = ("y".repeat(7_000), "z".repeat(5_000));
    let fields = format!("Cookie: long={sent}\r\nX-More: {more}\r\n");
    let reply = place
        .ask("GET", "/em/cookies?long=6000", &fields, b"")
        .expect(200);
    assert_eq!(reply.json()["long"], sent, "{}", place.name);
    let longest = reply
        .head
        .all("Set-Cookie")
        .iter()
        .map(|cookie| cookie.len())
        .max();
    assert!(longest > Some(6_000), "{}: {longest:?}", place.name);
}

fn client_gone(place: &Place) {
    let token = place.token();
    let mut connection = place.connect();
    connection.send(request("GET", &format!("/em/endless/{token}"), ""));
    let mut came = 0;
    while came < 1 << 20 {
        came += connection.some().len();
    }
    drop(connection);
    // The app is told.
    let deadline = Instant::now() + PATIENCE;
    while !place.data.join(format!("left-{token}")).exists() {
        assert!(
            Instant::now() < deadline,
            "{}: the app goes on for nobody",
            place.name
        );
        thread::sleep(Duration::from_millis(20));
    }
    // Within a body.
    let mut connection = place.connect();
    connection.send(request("POST", "/em/upload", "Content-Length: 1000000\r\n"));
    connection.send(pattern(500_000));
    drop(connection);
    place.get("/em/page");
}

/// A reply that fails midway is not taken for a whole one.
fn cut(place: &Place) {
    let reply = place.ask("GET", "/em/cut", "", b"");
    assert!(
        !reply.complete || reply.status() >= 500,
        "{}: {:?}",
        place.name,
        reply.head
    );
}

/// The server has no way to see it.
pub fn cut_unseen(place: &Place) {
    let reply = place.ask("GET", "/em/cut", "", b"").expect(200);
    assert_eq!(reply.body.len(), 1 << 16, "{}", place.name);
}

/// It depends on when the server looks.
pub fn cut_perhaps_unseen(place: &Place) {
    let reply = place.ask("GET", "/em/cut", "", b"");
    let is_short = reply.body.len() <= 1 << 16;
    assert!(
        is_short || reply.status() >= 500,
        "{}: {:?}",
        place.name,
        reply.head
    );
}

/// So many requests on each of four connections; none fails.
fn many(place: &Place, each: usize) {
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut connection = place.connect();
                for number in 0..each {
                    connection.send(request("GET", "/em/page", ""));
                    let reply = connection.reply();
                    assert!(
                        reply.status() == 200 && reply.text() == "a page\n",
                        "{}: request {number}: {} {:?}",
                        place.name,
                        reply.status(),
                        reply.text()
                    );
                    let ends = |value: &&str| value.eq_ignore_ascii_case("close");
                    if reply.head.all("Connection").iter().any(ends) {
                        connection = place.connect();
                    }
                }
            });
        }
    });
}

/// Each is a program of its own.
pub fn some(place: &Place) {
    many(place, 5);
}

/// While wasgi is away.
pub fn fails_meanwhile(place: &Place) {
    let status = place.ask("GET", "/em/page", "", b"").status();
    assert!(matches!(status, 502..=504), "{}: {status}", place.name);
}

/// After it has come back.
pub fn goes_on(place: &Place) {
    let deadline = Instant::now() + PATIENCE;
    while place.ask("GET", "/em/page", "", b"").status() != 200 {
        assert!(Instant::now() < deadline, "{} does not go on", place.name);
        thread::sleep(Duration::from_millis(50));
    }
    many(place, 5);
}
