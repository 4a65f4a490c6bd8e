//! The examples as a user has them: their own app.toml, on a port of our choice; each promise in both kinds of isolation.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Barrier, LazyLock};
use std::thread;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::client::Reply;
use crate::server::{Server, project, run, wasgi};

/// Runs each test with `isolation = "worker"` and with `"request"`.
macro_rules! in_both {
    ($($test:ident,)+) => {
        mod worker {
            $(#[test] fn $test() { super::$test("worker") })+
        }
        mod request {
            $(#[test] fn $test() { super::$test("request") })+
        }
    };
}

in_both! {
    hello_says_hello_there,
    blueprints_renders_pages,
    blueprints_serves_static_files,
    blueprints_info_wants_its_token,
    blueprints_speaks_json,
    blueprints_echoes_uploads,
    mayfly_shows_a_note_once,
    mayfly_survives_link_previews,
    mayfly_gives_a_note_to_one_of_many_readers,
    mayfly_asks_for_the_password,
    mayfly_lets_only_the_sender_withdraw,
    mayfly_explains_what_is_wrong,
    mayfly_keeps_its_notes_over_a_restart,
}

/// One server for all tests of an example, for each kind of isolation.
struct Served {
    worker: LazyLock<Server>,
    request: LazyLock<Server>,
}

impl Served {
    fn with(&self, isolation: &str) -> &Server {
        match isolation {
            "worker" => &self.worker,
            _ => &self.request,
        }
    }
}

/// Serves a copy of an example, so that what it writes is gone with the test.
fn serve(name: &str, isolation: &str) -> Server {
    let source = project().join("examples").join(name);
    let packages = source.join("packages");
    assert!(
        packages.join("flask").is_dir(),
        "{} is empty: run `make packages` first",
        packages.display()
    );
    let dir = tempfile::tempdir().expect("a folder for the test");
    copy(&source, dir.path());
    let mut command = wasgi();
    command.arg("serve").arg(dir.path().join("app.toml")).args([
        "--http",
        "127.0.0.1:0",
        "--isolation",
        isolation,
    ]);
    Server::spawn(dir, &mut command)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder for the test");
    for entry in fs::read_dir(from).expect("the example is there") {
        let entry = entry.expect("the example is readable");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            if entry.file_name() != "__pycache__"
                && (entry.file_name() != "data" || from.ends_with("packages"))
            {
                copy(&entry.path(), &target);
            } else if entry.file_name() == "data" {
                fs::create_dir(target).expect("a folder for the test");
            }
        } else {
            fs::copy(entry.path(), target).expect("a file for the test");
        }
    }
}

#[test]
fn no_example_depends_on_memory_between_requests() {
    for (name, paths) in [
        ("hello", &["/", "/nothing-here"][..]),
        (
            "blueprints",
            &["/", "/books/kokoro", "/static/style.css", "/api/books"],
        ),
        // Sessions and their tokens differ by chance.
        ("mayfly", &["/", "/sent", "/static/mayfly.css"]),
    ] {
        let dir = tempfile::tempdir().expect("a folder for the test");
        copy(&project().join("examples").join(name), dir.path());
        let mut command = wasgi();
        command
            .arg("check")
            .arg(dir.path().join("app.toml"))
            .arg("--isolation");
        for path in paths {
            command.args(["--path", path]);
        }
        let run = run(&mut command, Duration::from_secs(90));
        assert_eq!(run.code(), 0, "{name}: {}{}", run.stdout, run.stderr);
    }
}

// hello

fn hello_says_hello_there(isolation: &str) {
    let server = serve("hello", isolation);
    let reply = server.get("/").expect(200);
    assert!(reply.text().contains("Hello There!"), "{}", reply.text());
    assert_eq!(reply.header("Content-Type"), Some("text/html; charset=utf-8"));
    server.get("/nothing-here").expect(404);
    server
        .request("POST", "/", "Content-Length: 0\r\n", b"")
        .expect(405);
    let head = server.request("HEAD", "/", "", b"").expect(200);
    assert_eq!(
        head.header("Content-Length"),
        Some(reply.body.len().to_string().as_str())
    );
}

// blueprints

static BLUEPRINTS: Served = Served {
    worker: LazyLock::new(|| serve("blueprints", "worker")),
    request: LazyLock::new(|| serve("blueprints", "request")),
};

fn blueprints_renders_pages(isolation: &str) {
    let server = BLUEPRINTS.with(isolation);
    let page = server.get("/").expect(200).text();
    assert!(
        page.contains("Charlotte Bront\u{eb}") && page.contains("href=\"/books/kokoro\""),
        "{page}"
    );
    assert!(
        server
            .get("/books/kokoro")
            .expect(200)
            .text()
            .contains("\u{3053}\u{3053}\u{308d}")
    );
    let missing = server.get("/books/none").expect(404);
    assert!(
        missing.text().contains("<h1>404 Not Found</h1>"),
        "{}",
        missing.text()
    );
}

fn blueprints_serves_static_files(isolation: &str) {
    let server = BLUEPRINTS.with(isolation);
    let reply = server.get("/static/style.css").expect(200);
    assert_eq!(reply.header("Content-Type"), Some("text/css; charset=utf-8"));
    let file = fs::read(project().join("examples/blueprints/library/static/style.css")).expect("is there");
    assert_eq!(reply.body, file);
    let etag = reply.header("ETag").expect("an ETag").to_owned();
    server
        .request(
            "GET",
            "/static/style.css",
            &format!("If-None-Match: {etag}\r\n"),
            b"",
        )
        .expect(304);
    server.get("/static/../__init__.py").expect(404);
    server.get("/static/%2e%2e/__init__.py").expect(404);
}

fn blueprints_info_wants_its_token(isolation: &str) {
    let server = BLUEPRINTS.with(isolation);
    assert_eq!(
        server.get("/info?token=letmein").expect(200).json(),
        json!({ "app": "library", "books": 4 })
    );
    for target in [
        "/info",
        "/info?token=",
        "/info?token=LETMEIN",
        "/info?token=%C3%A9",
        "/info?Token=letmein",
    ] {
        let reply = server.get(target).expect(400);
        assert_eq!(reply.json()["error"], "Bad Request", "{target}");
    }
}

fn blueprints_speaks_json(isolation: &str) {
    let server = BLUEPRINTS.with(isolation);
    let books = server.get("/api/books?before=1850").expect(200).json();
    let slugs: Vec<_> = books
        .as_array()
        .expect("a list")
        .iter()
        .map(|book| book["slug"].clone())
        .collect();
    assert_eq!(slugs, ["frankenstein", "jane-eyre"]);
    let sum = |body: &str| {
        let fields = format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
        server.request("POST", "/api/sum", &fields, body.as_bytes())
    };
    assert_eq!(sum("[1, 2, 3.5]").expect(200).json(), json!({ "sum": 6.5 }));
    assert_eq!(
        sum("{}").expect(400).json()["detail"],
        "Send a JSON list of numbers."
    );
    sum("[1,").expect(400);
    server.get("/api/books/none").expect(404).json();
}

fn blueprints_echoes_uploads(isolation: &str) {
    let server = BLUEPRINTS.with(isolation);
    let content: Vec<u8> = (0..=255).cycle().take(1_000_000).collect();
    let upload = |target: &str, content: &[u8]| {
        let mut body =
            b"--xx\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\n\r\n".to_vec();
        body.extend(content);
        body.extend(b"\r\n--xx--\r\n");
        let fields = format!(
            "Content-Type: multipart/form-data; boundary=xx\r\nContent-Length: {}\r\n",
            body.len()
        );
        server.request("POST", target, &fields, &body)
    };
    assert_eq!(upload("/upload?echo=1", &content).expect(200).body, content);
    let told = upload("/upload", &content).expect(200).json();
    assert_eq!(
        (&told["name"], &told["size"]),
        (&json!("a.bin"), &json!(1_000_000))
    );
    upload("/upload", &vec![0; 5 << 20]).expect(413);
    server
        .request("POST", "/upload", "Content-Length: 0\r\n", b"")
        .expect(400);
}

// mayfly

static MAYFLY: Served = Served {
    worker: LazyLock::new(|| serve("mayfly", "worker")),
    request: LazyLock::new(|| serve("mayfly", "request")),
};

/// Somebody with a browser: keeps cookies, fills in forms.
struct Browser<'a> {
    server: &'a Server,
    cookies: BTreeMap<String, String>,
}

impl<'a> Browser<'a> {
    fn new(server: &'a Server) -> Self {
        let cookies = BTreeMap::new();
        Self { server, cookies }
    }

    fn get(&mut self, target: &str) -> Reply {
        self.request("GET", target, "")
    }

    fn post(&mut self, target: &str, fields: &[(&str, &str)]) -> Reply {
        let form: Vec<_> = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", encode(value)))
            .collect();
        self.request("POST", target, &form.join("&"))
    }

    /// Opens the page at `target` and posts the form on it, token and all, to `action`.
    fn submit(&mut self, target: &str, action: &str, fields: &[(&str, &str)]) -> Reply {
        let token = token(&self.get(target).expect(200));
        let mut fields = fields.to_vec();
        fields.push(("token", &token));
        self.post(action, &fields)
    }

    fn request(&mut self, method: &str, target: &str, body: &str) -> Reply {
        let mut fields = String::new();
        if !self.cookies.is_empty() {
            let pairs: Vec<_> = self
                .cookies
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            fields += &format!("Cookie: {}\r\n", pairs.join("; "));
        }
        if method == "POST" {
            fields += &format!(
                "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n",
                body.len()
            );
        }
        let reply = self.server.request(method, target, &fields, body.as_bytes());
        for cookie in reply.head.all("Set-Cookie") {
            assert!(
                cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"),
                "{cookie}"
            );
            let (name, value) = cookie
                .split(';')
                .next()
                .expect("a pair")
                .split_once('=')
                .expect("a pair");
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        reply
    }

    /// Writes a note; returns its id.
    fn write(&mut self, text: &str, password: &str) -> String {
        let fields = [
            ("text", text),
            ("lifetime", "hour"),
            ("password", password),
            ("label", "for a test"),
        ];
        let reply = self.submit("/", "/", &fields).expect(303);
        reply
            .header("Location")
            .and_then(|to| to.strip_prefix("/sent/"))
            .expect("a receipt")
            .to_owned()
    }

    /// Opens a note as its reader does: looks at the question, presses the button.
    fn open(&mut self, note: &str, password: &str) -> Reply {
        let link = format!("/n/{note}");
        self.submit(&link, &link, &[("password", password)])
    }
}

fn token(page: &Reply) -> String {
    let text = page.text();
    let (_, rest) = text
        .split_once("name=\"token\" value=\"")
        .expect("a form with a token");
    rest.split('"').next().expect("a value").to_owned()
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

fn mayfly_shows_a_note_once(isolation: &str) {
    let server = MAYFLY.with(isolation);
    let (mut sender, mut reader, mut late) =
        (Browser::new(server), Browser::new(server), Browser::new(server));
    let note = sender.write("door code <4711>\r\nand caf\u{e9}", "");
    let receipt = sender.get(&format!("/sent/{note}")).expect(200).text();
    assert!(
        receipt.contains("Your note is waiting for its reader."),
        "flashed: {receipt}"
    );
    assert!(
        receipt.contains(&format!("value=\"http://test/n/{note}\"")),
        "the link to send: {receipt}"
    );
    assert!(!receipt.contains("4711"));
    let again = sender.get(&format!("/sent/{note}")).expect(200).text();
    assert!(
        !again.contains("Your note is waiting for its reader."),
        "flashed once"
    );

    let page = reader.open(&note, "").expect(200);
    assert!(
        page.text().contains("door code &lt;4711&gt;\nand caf\u{e9}"),
        "{}",
        page.text()
    );
    assert_eq!(page.header("Cache-Control"), Some("no-store"));
    assert_eq!(page.header("Referrer-Policy"), Some("no-referrer"));

    let gone = late.get(&format!("/n/{note}")).expect(410).text();
    assert!(
        gone.contains("This note is gone") && !gone.contains("4711"),
        "{gone}"
    );
    assert!(
        sender
            .get(&format!("/sent/{note}"))
            .text()
            .contains("Read less than a minute ago.")
    );
    let list = sender.get("/sent").expect(200).text();
    assert!(list.contains("for a test"), "{list}");
    assert!(
        !reader.get("/sent").expect(200).text().contains("for a test"),
        "others' lists stay theirs"
    );
    reader.get(&format!("/sent/{note}")).expect(404);
}

fn mayfly_survives_link_previews(isolation: &str) {
    let server = MAYFLY.with(isolation);
    let note = Browser::new(server).write("unseen by robots", "");
    let link = format!("/n/{note}");
    for method in ["GET", "HEAD", "OPTIONS", "GET"] {
        let reply = Browser::new(server).request(method, &link, "").expect(200);
        assert!(!reply.text().contains("unseen by robots"));
        assert_eq!(reply.header("X-Robots-Tag"), Some("noindex, nofollow"));
    }
    // A robot that posts without having loaded the form burns nothing either.
    Browser::new(server).post(&link, &[]).expect(400);
    Browser::new(server)
        .post(&link, &[("token", "guessed")])
        .expect(400);
    assert!(
        Browser::new(server)
            .open(&note, "")
            .expect(200)
            .text()
            .contains("unseen by robots")
    );
}

fn mayfly_gives_a_note_to_one_of_many_readers(isolation: &str) {
    let server = MAYFLY.with(isolation);
    for round in 0..3 {
        let note = Browser::new(server).write(&format!("race {round}"), "");
        let link = format!("/n/{note}");
        let start = Barrier::new(6);
        let seen: Vec<_> = thread::scope(|scope| {
            let readers: Vec<_> = (0..6)
                .map(|_| {
                    scope.spawn(|| {
                        let mut reader = Browser::new(server);
                        let token = token(&reader.get(&link).expect(200));
                        start.wait();
                        let reply = reader.post(&link, &[("token", &token)]);
                        (reply.status(), reply.text().contains("race"))
                    })
                })
                .collect();
            readers
                .into_iter()
                .map(|reader| reader.join().expect("a reader"))
                .collect()
        });
        assert_eq!(
            seen.iter().filter(|one| **one == (200, true)).count(),
            1,
            "{seen:?}"
        );
        assert_eq!(
            seen.iter().filter(|one| **one == (410, false)).count(),
            5,
            "{seen:?}"
        );
    }
}

fn mayfly_asks_for_the_password(isolation: &str) {
    let server = MAYFLY.with(isolation);
    let mut sender = Browser::new(server);
    let note = sender.write("behind a password", "open sesame");
    let mut reader = Browser::new(server);
    let reply = reader.open(&note, "open barley").expect(303);
    assert_eq!(reply.header("Location"), Some(format!("/n/{note}").as_str()));
    let page = reader.get(&format!("/n/{note}")).expect(200).text();
    assert!(page.contains("That is not the password. 4 tries left"), "{page}");
    assert!(
        reader
            .open(&note, "open sesame")
            .expect(200)
            .text()
            .contains("behind a password")
    );

    let note = sender.write("guarded", "open sesame");
    for _ in 0..4 {
        reader.open(&note, "wrong").expect(303);
    }
    reader.open(&note, "wrong").expect(410);
    reader.get(&format!("/n/{note}")).expect(410);
    assert!(
        sender
            .get(&format!("/sent/{note}"))
            .text()
            .contains("too many wrong passwords")
    );
}

fn mayfly_lets_only_the_sender_withdraw(isolation: &str) {
    let server = MAYFLY.with(isolation);
    let mut sender = Browser::new(server);
    let note = sender.write("regretted", "");
    let withdraw = format!("/sent/{note}/withdraw");
    let mut other = Browser::new(server);
    other.submit("/", &withdraw, &[]).expect(303);
    sender.get(&format!("/n/{note}")).expect(200);
    // Another site can make the browser send the cookie, but does not know the token.
    sender
        .post(&withdraw, &[("token", &token(&other.get("/")))])
        .expect(400);
    sender
        .submit(&format!("/sent/{note}"), &withdraw, &[])
        .expect(303);
    assert!(sender.get("/sent").text().contains("destroyed unread"));
    sender.get(&format!("/n/{note}")).expect(410);
}

fn mayfly_explains_what_is_wrong(isolation: &str) {
    let server = MAYFLY.with(isolation);
    let mut browser = Browser::new(server);
    let page = browser.submit("/", "/", &[("text", "  ")]).expect(400).text();
    assert!(page.contains("The note is empty."), "{page}");
    let page = browser
        .submit("/", "/", &[("text", &"x".repeat(20_001))])
        .expect(400)
        .text();
    assert!(page.contains("20,001 characters"), "{page}");
    browser
        .submit("/", "/", &[("text", "x"), ("lifetime", "year")])
        .expect(400);
    browser.get("/n/nothing").expect(404);
    browser.get("/nowhere").expect(404);
    assert_eq!(browser.post("/sent", &[]).status(), 400);
}

fn mayfly_keeps_its_notes_over_a_restart(isolation: &str) {
    let server = serve("mayfly", isolation);
    let page = server.get("/").expect(200);
    let cookie = page
        .header("Set-Cookie")
        .expect("a session")
        .split(';')
        .next()
        .expect("a pair")
        .to_owned();
    let form = format!("text=still+here&lifetime=day&token={}", encode(&token(&page)));
    let fields = format!(
        "Cookie: {cookie}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n",
        form.len()
    );
    let reply = server.request("POST", "/", &fields, form.as_bytes()).expect(303);
    let receipt = reply.header("Location").expect("a receipt").to_owned();
    let cookie = reply
        .header("Set-Cookie")
        .expect("a session")
        .split(';')
        .next()
        .expect("a pair")
        .to_owned();

    server.signal(rustix::process::Signal::TERM);
    server.wait(crate::client::PATIENCE);
    let kept = tempfile::tempdir().expect("a folder for the test");
    move_into(&server.dir, &kept);
    let mut command = wasgi();
    command.arg("serve").arg(kept.path().join("app.toml")).args([
        "--http",
        "127.0.0.1:0",
        "--isolation",
        isolation,
    ]);
    let server = Server::spawn(kept, &mut command);
    // The note and the key that signs the cookies are both still there.
    let page = server
        .request("GET", &receipt, &format!("Cookie: {cookie}\r\n"), b"")
        .expect(200)
        .text();
    assert!(page.contains("Waiting;"), "{page}");
}

fn move_into(from: &TempDir, to: &TempDir) {
    for entry in fs::read_dir(from.path()).expect("the folder is there") {
        let entry = entry.expect("the folder is readable");
        fs::rename(entry.path(), to.path().join(entry.file_name())).expect("the same file system");
    }
}
