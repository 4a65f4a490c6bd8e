//! The examples as a user has them: their own app.toml, on a port of our choice.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Barrier, LazyLock};
use std::thread;

use serde_json::json;
use tempfile::TempDir;

use crate::client::Reply;
use crate::server::{Server, project, wasgi};

/// Serves a copy of an example, so that what it writes is gone with the test.
fn serve(name: &str) -> Server {
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
    command
        .arg("serve")
        .arg(dir.path().join("app.toml"))
        .args(["--http", "127.0.0.1:0"]);
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

// hello

#[test]
fn hello_says_hello_there() {
    let server = serve("hello");
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

static BLUEPRINTS: LazyLock<Server> = LazyLock::new(|| serve("blueprints"));

#[test]
fn blueprints_renders_pages() {
    let page = BLUEPRINTS.get("/").expect(200).text();
    assert!(
        page.contains("Charlotte Bront\u{eb}") && page.contains("href=\"/books/kokoro\""),
        "{page}"
    );
    assert!(
        BLUEPRINTS
            .get("/books/kokoro")
            .expect(200)
            .text()
            .contains("\u{3053}\u{3053}\u{308d}")
    );
    let missing = BLUEPRINTS.get("/books/none").expect(404);
    assert!(
        missing.text().contains("<h1>404 Not Found</h1>"),
        "{}",
        missing.text()
    );
}

#[test]
fn blueprints_serves_static_files() {
    let reply = BLUEPRINTS.get("/static/style.css").expect(200);
    assert_eq!(reply.header("Content-Type"), Some("text/css; charset=utf-8"));
    let file = fs::read(project().join("examples/blueprints/library/static/style.css")).expect("is there");
    assert_eq!(reply.body, file);
    let etag = reply.header("ETag").expect("an ETag").to_owned();
    BLUEPRINTS
        .request(
            "GET",
            "/static/style.css",
            &format!("If-None-Match: {etag}\r\n"),
            b"",
        )
        .expect(304);
    BLUEPRINTS.get("/static/../__init__.py").expect(404);
    BLUEPRINTS.get("/static/%2e%2e/__init__.py").expect(404);
}

#[test]
fn blueprints_info_wants_its_token() {
    assert_eq!(
        BLUEPRINTS.get("/info?token=letmein").expect(200).json(),
        json!({ "app": "library", "books": 4 })
    );
    for target in [
        "/info",
        "/info?token=",
        "/info?token=LETMEIN",
        "/info?token=%C3%A9",
        "/info?Token=letmein",
    ] {
        let reply = BLUEPRINTS.get(target).expect(400);
        assert_eq!(reply.json()["error"], "Bad Request", "{target}");
    }
}

#[test]
fn blueprints_speaks_json() {
    let books = BLUEPRINTS.get("/api/books?before=1850").expect(200).json();
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
        BLUEPRINTS.request("POST", "/api/sum", &fields, body.as_bytes())
    };
    assert_eq!(sum("[1, 2, 3.5]").expect(200).json(), json!({ "sum": 6.5 }));
    assert_eq!(
        sum("{}").expect(400).json()["detail"],
        "Send a JSON list of numbers."
    );
    sum("[1,").expect(400);
    BLUEPRINTS.get("/api/books/none").expect(404).json();
}

#[test]
fn blueprints_echoes_uploads() {
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
        BLUEPRINTS.request("POST", target, &fields, &body)
    };
    assert_eq!(upload("/upload?echo=1", &content).expect(200).body, content);
    let told = upload("/upload", &content).expect(200).json();
    assert_eq!(
        (&told["name"], &told["size"]),
        (&json!("a.bin"), &json!(1_000_000))
    );
    upload("/upload", &vec![0; 5 << 20]).expect(413);
    BLUEPRINTS
        .request("POST", "/upload", "Content-Length: 0\r\n", b"")
        .expect(400);
}

// mayfly

static MAYFLY: LazyLock<Server> = LazyLock::new(|| serve("mayfly"));

/// Somebody with a browser: keeps cookies, fills in forms.
#[derive(Default)]
struct Browser {
    cookies: BTreeMap<String, String>,
}

impl Browser {
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
        let reply = MAYFLY.request(method, target, &fields, body.as_bytes());
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

#[test]
fn mayfly_shows_a_note_once() {
    let (mut sender, mut reader, mut late) = (Browser::default(), Browser::default(), Browser::default());
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

#[test]
fn mayfly_survives_link_previews() {
    let note = Browser::default().write("unseen by robots", "");
    let link = format!("/n/{note}");
    for method in ["GET", "HEAD", "OPTIONS", "GET"] {
        let reply = Browser::default().request(method, &link, "").expect(200);
        assert!(!reply.text().contains("unseen by robots"));
        assert_eq!(reply.header("X-Robots-Tag"), Some("noindex, nofollow"));
    }
    // A robot that posts without having loaded the form burns nothing either.
    Browser::default().post(&link, &[]).expect(400);
    Browser::default()
        .post(&link, &[("token", "guessed")])
        .expect(400);
    assert!(
        Browser::default()
            .open(&note, "")
            .expect(200)
            .text()
            .contains("unseen by robots")
    );
}

#[test]
fn mayfly_gives_a_note_to_one_of_many_readers() {
    for round in 0..3 {
        let note = Browser::default().write(&format!("race {round}"), "");
        let link = format!("/n/{note}");
        let start = Barrier::new(6);
        let seen: Vec<_> = thread::scope(|scope| {
            let readers: Vec<_> = (0..6)
                .map(|_| {
                    scope.spawn(|| {
                        let mut reader = Browser::default();
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

#[test]
fn mayfly_asks_for_the_password() {
    let mut sender = Browser::default();
    let note = sender.write("behind a password", "open sesame");
    let mut reader = Browser::default();
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

#[test]
fn mayfly_lets_only_the_sender_withdraw() {
    let mut sender = Browser::default();
    let note = sender.write("regretted", "");
    let withdraw = format!("/sent/{note}/withdraw");
    let mut other = Browser::default();
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

#[test]
fn mayfly_explains_what_is_wrong() {
    let mut browser = Browser::default();
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

#[test]
fn mayfly_keeps_its_notes_over_a_restart() {
    let server = serve("mayfly");
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
    command
        .arg("serve")
        .arg(kept.path().join("app.toml"))
        .args(["--http", "127.0.0.1:0"]);
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
