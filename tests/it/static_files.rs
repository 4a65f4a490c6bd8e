//! Files that the server sends without asking the app: `[static]`.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};
use tempfile::TempDir;

use crate::client::{PATIENCE, Reply};
use crate::server::{Server, config};

/// A file that is sent in several pieces.
const LARGE: usize = 1 << 20;

fn large() -> Vec<u8> {
    (0..LARGE as u32).map(|n| (n % 251) as u8).collect()
}

/// One server for the tests that change nothing.
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start_in(folder(), |_| {}))
}

/// ```text
/// public/   at /, before the app        secret       outside all of them
/// static/   at /static, expires = "1h"
/// strict/   at /strict, no app behind it, links inside followed
/// listed/   at /listed, with a listing
/// site/     at /site, with try-files
/// ```
fn folder() -> TempDir {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let at = |path: &str| dir.path().join(path);
    let write = |path: &str, text: &[u8]| {
        let path = at(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder for the test");
        fs::write(path, text).expect("a file for the test");
    };
    write("secret", b"secret");
    write("public/robots.txt", b"robots");
    write("public/docs/index.html", b"<h1>docs</h1>");
    write("public/.env", b"secret");
    write("public/.git/config", b"secret");
    write("public/wsgi.py", b"secret");
    write("public/app.toml", b"secret");
    write("public/__pycache__/x.js", b"secret");
    write("public/notes.db", b"secret");
    write("public/.well-known/security.txt", b"contact");
    write("public/a b\u{e9}.txt", b"spaced");
    write("static/large.bin", &large());
    write("static/style.css", b"body { color: red }");
    write("static/style.css.br", b"brotli");
    write("static/style.css.gz", b"gzip");
    write("static/plain.js", b"let a = 1;");
    write("static/empty.txt", b"");
    write("static/old.txt", b"new");
    write("static/old.txt.gz", b"stale");
    let hour_ago = fs::File::options()
        .write(true)
        .open(at("static/old.txt.gz"))
        .expect("a file");
    hour_ago
        .set_modified(std::time::SystemTime::now() - Duration::from_secs(3600))
        .expect("a time");
    write("strict/in/a.txt", b"inside");
    symlink("in/a.txt", at("strict/link.txt")).expect("a link");
    symlink("../secret", at("strict/out.txt")).expect("a link");
    symlink("..", at("strict/up")).expect("a link");
    symlink("/", at("strict/root")).expect("a link");
    symlink("in/a.txt", at("static/link.txt")).expect("a link");
    symlink("../secret", at("static/out.txt")).expect("a link");
    mknodat(
        CWD,
        at("strict/fifo.txt"),
        FileType::Fifo,
        Mode::RUSR | Mode::WUSR,
        0,
    )
    .expect("a FIFO");
    write("listed/b<i>.txt", b"");
    write("listed/sub/c.txt", b"");
    write("site/about.html", b"about");
    write("site/404.html", b"nothing here");
    let more = r#"workers = 1

[static]
"/" = "public"
"/static" = { path = "static", expires = "1h" }
"/strict" = { path = "strict", follow-symlinks = true, fallthrough = false, cache-control = "no-cache" }
"/listed" = { path = "listed", listing = true }
"/site" = { path = "site", try-files = ["$uri", "$uri.html", "/404.html"] }
"#;
    write("app.toml", config("files", more).as_bytes());
    dir
}

fn get(target: &str, fields: &str) -> Reply {
    server().request("GET", target, fields, b"")
}

#[test]
fn a_path_that_names_a_file_gets_it_and_any_other_the_app() {
    let mark = server().log.mark();
    let reply = get("/robots.txt", "").expect(200);
    assert_eq!(reply.text(), "robots");
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(reply.header("content-length"), Some("6"));
    assert_eq!(reply.header("accept-ranges"), Some("bytes"));
    assert_eq!(reply.header("cache-control"), None);
    server().log.wait_for(mark, "\"GET /robots.txt HTTP/1.1\" 200 6 ");
    let line = server().log.wait_for(mark, "/robots.txt");
    assert!(line.contains(" worker=- "), "{line}");
    assert_eq!(get("/a%20b%C3%A9.txt", "").expect(200).text(), "spaced");
    assert_eq!(get("/robots.txt?v=2", "").expect(200).text(), "robots");
    assert_eq!(get("/.well-known/security.txt", "").expect(200).text(), "contact");
    for path in [
        "/",
        "/other",
        "/docs/none",
        "/static/none.css",
        "/static",
        "/robots.txt/",
        "/robots.txt/x",
    ] {
        assert_eq!(get(path, "").expect(200).text(), format!("app: GET {path}"));
    }
    assert_eq!(
        get("/strict/none", "").expect(404).header("content-type"),
        Some("text/plain; charset=utf-8")
    );
}

#[test]
fn files_that_were_not_meant_to_be_seen_are_not() {
    for path in [
        "/.env",
        "/.git/config",
        "/%2egit/config",
        "/wsgi.py",
        "/wsgi.p%79",
        "/app.toml",
        "/__pycache__/x.js",
        "/notes.db",
    ] {
        let text = get(path, "").expect(200).text();
        assert!(text.starts_with("app: GET /"), "{path}: {text}");
    }
}

#[test]
fn no_path_leads_out_of_a_folder() {
    for path in [
        "/../secret",
        "/%2e%2e/secret",
        "/%2E%2E%2Fsecret",
        "/..%2fsecret",
        "/..%5csecret",
        "/..\\secret",
        "/%252e%252e/secret",
        "/static/../../secret",
        "/static/..%2f..%2fsecret",
        "/static/%2e%2e/%2e%2e/secret",
        "/static//../secret",
        "/docs/../../secret",
        "//secret",
        "/%00secret",
        "/secret%00.txt",
        "/robots.txt%00",
        "/static/out.txt",
        "/strict/out.txt",
        "/strict/up/secret",
        "/strict/root/etc/passwd",
        "/strict/../secret",
        "/strict/fifo.txt",
        "/static/link.txt",
    ] {
        let reply = get(path, "");
        let text = reply.text();
        assert!(
            text.starts_with("app: ") || (path.starts_with("/strict") && reply.status() == 404),
            "{path}: {} {text}",
            reply.status()
        );
    }
    assert_eq!(get("/strict/link.txt", "").expect(200).text(), "inside");
    assert_eq!(get("/strict/in/a.txt", "").expect(200).text(), "inside");
}

#[test]
fn a_folder_that_is_swapped_for_a_link_meanwhile_leads_nowhere() {
    let dir = folder();
    let (real, link) = (dir.path().join("strict/in"), dir.path().join("strict/swap"));
    fs::create_dir(dir.path().join("outside")).expect("a folder");
    fs::write(dir.path().join("outside/a.txt"), "a longer secret").expect("a file");
    symlink("../outside", &link).expect("a link");
    let server = Server::start_in(dir, |_| {});
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, &real, CWD, &link, RenameFlags::EXCHANGE).expect("both are there");
                thread::yield_now();
            }
        });
        let mut connection = server.connect();
        let mut seen = 0;
        for _ in 0..2_000 {
            // Looked up each time: what GET is sent is kept for a moment.
            connection.send("HEAD /strict/in/a.txt HTTP/1.1\r\nHost: a\r\n\r\n");
            let reply = connection.reply_to("HEAD");
            match reply.status() {
                200 => assert_eq!(reply.header("content-length"), Some("6")),
                status => assert_eq!(status, 404),
            }
            seen += usize::from(reply.status() == 200);
        }
        done.store(true, Ordering::Relaxed);
        assert!(seen > 0);
    });
}

#[test]
fn a_client_with_a_copy_is_told_that_it_is_still_good() {
    let reply = get("/static/plain.js", "").expect(200);
    let (tag, modified) = (
        reply.header("etag").expect("a tag"),
        reply.header("last-modified").expect("a date"),
    );
    assert_eq!(reply.header("cache-control"), Some("max-age=3600"));
    assert!(reply.header("expires").is_some());
    for fields in [
        format!("If-None-Match: {tag}\r\n"),
        format!("If-None-Match: \"x\", W/{tag}\r\n"),
        format!("If-Modified-Since: {modified}\r\n"),
    ] {
        let reply = get("/static/plain.js", &fields).expect(304);
        assert_eq!(reply.header("etag"), Some(tag));
        assert_eq!(reply.header("cache-control"), Some("max-age=3600"));
        assert_eq!(reply.header("content-length"), None);
    }
    let old = "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    get(
        "/static/plain.js",
        &format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {modified}\r\n"),
    )
    .expect(200);
    get("/static/plain.js", old).expect(200);
    get("/static/plain.js", "If-Match: \"x\"\r\n").expect(412);
    get("/static/plain.js", &format!("If-Match: {tag}\r\n")).expect(200);
    get(
        "/static/plain.js",
        "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
    )
    .expect(412);
    assert_eq!(
        get("/strict/link.txt", "").header("cache-control"),
        Some("no-cache")
    );
}

#[test]
fn a_change_of_a_file_is_seen_within_moments() {
    let dir = folder();
    let path = dir.path().join("static/plain.js");
    let server = Server::start_in(dir, |_| {});
    let tag = server
        .get("/static/plain.js")
        .header("etag")
        .expect("a tag")
        .to_owned();
    let fields = format!("If-None-Match: {tag}\r\n");
    let until = |is: &dyn Fn(&Reply) -> bool| {
        let end = Instant::now() + PATIENCE;
        loop {
            let reply = server.request("GET", "/static/plain.js", &fields, b"");
            if is(&reply) {
                return reply;
            }
            assert!(Instant::now() < end, "{} {}", reply.status(), reply.text());
            thread::sleep(Duration::from_millis(50));
        }
    };
    until(&|reply| reply.status() == 304);
    fs::write(&path, "let b = 2;").expect("a file");
    let after = until(&|reply| reply.status() == 200);
    assert_eq!(after.text(), "let b = 2;");
    assert_ne!(after.header("etag"), Some(tag.as_str()));
    fs::remove_file(&path).expect("a file");
    until(&|reply| reply.text() == "app: GET /static/plain.js");
}

#[test]
fn parts_of_a_file_are_sent_as_asked_for() {
    let all = large();
    let path = "/static/large.bin";
    assert!(get(path, "").expect(200).body == all);
    for (range, told, expected) in [
        ("0-0", "bytes 0-0/1048576", &all[..1]),
        ("1000-300999", "bytes 1000-300999/1048576", &all[1000..301_000]),
        ("1048575-", "bytes 1048575-1048575/1048576", &all[LARGE - 1..]),
        ("-5", "bytes 1048571-1048575/1048576", &all[LARGE - 5..]),
        ("5-9,0-6", "bytes 0-9/1048576", &all[..10]),
    ] {
        let reply = get(path, &format!("Range: bytes={range}\r\n")).expect(206);
        assert_eq!(reply.header("content-range"), Some(told));
        assert!(reply.body == expected, "{range}");
    }
    let reply = get(path, "Range: bytes=1048576-\r\n").expect(416);
    assert_eq!(reply.header("content-range"), Some("bytes */1048576"));
    // Not understood, or too many: the whole file.
    get(path, "Range: lines=1-2\r\n").expect(200);
    let many: Vec<_> = (0..40).map(|at| format!("{0}-{0}", at * 10)).collect();
    get(path, &format!("Range: bytes={}\r\n", many.join(","))).expect(200);
    get("/static/empty.txt", "Range: bytes=0-\r\n").expect(200);
    let tag = get(path, "").header("etag").expect("a tag").to_owned();
    get(path, &format!("Range: bytes=0-0\r\nIf-Range: {tag}\r\n")).expect(206);
    get(path, "Range: bytes=0-0\r\nIf-Range: \"x\"\r\n").expect(200);
}

#[test]
fn several_parts_come_as_a_multipart() {
    let all = large();
    let reply = get("/static/large.bin", "Range: bytes=0-1,500000-500004,-3\r\n").expect(206);
    let content_type = reply.header("content-type").expect("a type");
    let boundary = content_type
        .strip_prefix("multipart/byteranges; boundary=")
        .expect("a boundary");
    let mut expected = Vec::new();
    for (told, part) in [
        ("0-1", &all[..2]),
        ("500000-500004", &all[500_000..500_005]),
        ("1048573-1048575", &all[LARGE - 3..]),
    ] {
        if !expected.is_empty() {
            expected.extend(b"\r\n");
        }
        let head = format!(
            "--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {told}/{LARGE}\r\n\r\n"
        );
        expected.extend(head.as_bytes());
        expected.extend(part);
    }
    expected.extend(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert_eq!(reply.text(), String::from_utf8_lossy(&expected));
    assert!(reply.body == expected);
}

#[test]
fn head_and_other_methods() {
    let ask = |method, target, fields| server().request(method, target, fields, b"");
    let (got, head) = (get("/static/large.bin", ""), ask("HEAD", "/static/large.bin", ""));
    for name in [
        "content-length",
        "content-type",
        "etag",
        "last-modified",
        "accept-ranges",
    ] {
        assert!(
            head.header(name).is_some() && head.header(name) == got.header(name),
            "{name}"
        );
    }
    assert!(head.expect(200).body.is_empty());
    // RFC 9110 14.2: Range is for GET.
    ask("HEAD", "/static/plain.js", "Range: bytes=0-0\r\n").expect(200);
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let reply = ask(method, "/static/plain.js", "").expect(405);
        assert_eq!(reply.header("allow"), Some("GET, HEAD, OPTIONS"));
    }
    let reply = ask("OPTIONS", "/static/plain.js", "").expect(204);
    assert_eq!(reply.header("allow"), Some("GET, HEAD, OPTIONS"));
    assert_eq!(ask("POST", "/docs/", "").expect(200).text(), "app: POST /docs/");
    assert_eq!(ask("POST", "/other", "").expect(200).text(), "app: POST /other");
}

#[test]
fn folders_have_an_index_a_slash_and_no_listing_unless_asked() {
    let reply = get("/docs/", "").expect(200);
    assert_eq!(reply.text(), "<h1>docs</h1>");
    assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
    let reply = get("/docs?a=b", "").expect(301);
    assert_eq!(reply.header("location"), Some("/docs/?a=b"));
    assert_eq!(get("/static/", "").expect(200).text(), "app: GET /static/");
    assert_eq!(
        get("/listed", "").expect(301).header("location"),
        Some("/listed/")
    );
    let page = get("/listed/", "").expect(200).text();
    assert!(
        page.contains("<a href=\"./b%3Ci%3E.txt\">b&lt;i&gt;.txt</a>"),
        "{page}"
    );
    assert!(page.contains("<a href=\"./sub/\">sub/</a>"), "{page}");
    assert_eq!(get("/site/about", "").expect(200).text(), "about");
    assert_eq!(get("/site/about.html", "").expect(200).text(), "about");
    assert_eq!(get("/site/none", "").expect(200).text(), "nothing here");
}

#[test]
fn a_client_gets_a_file_compressed_as_it_likes_it() {
    for (accepts, text, coding) in [
        ("gzip, br", "brotli", Some("br")),
        ("gzip", "gzip", Some("gzip")),
        ("gzip;q=1, br;q=0.5", "gzip", Some("gzip")),
        ("br;q=0, gzip;q=0", "body { color: red }", None),
        ("zstd", "body { color: red }", None),
    ] {
        let reply = get("/static/style.css", &format!("Accept-Encoding: {accepts}\r\n")).expect(200);
        assert_eq!(
            (reply.text().as_str(), reply.header("content-encoding")),
            (text, coding),
            "{accepts}"
        );
        assert_eq!(reply.header("vary"), Some("accept-encoding"));
        assert_eq!(reply.header("content-type"), Some("text/css; charset=utf-8"));
    }
    let tag = |accepts: &str| {
        let reply = get("/static/style.css", &format!("Accept-Encoding: {accepts}\r\n"));
        reply.header("etag").expect("a tag").to_owned()
    };
    assert!(tag("br") != tag("gzip") && tag("gzip") != tag("x"));
    let plain = get("/static/plain.js", "Accept-Encoding: br\r\n").expect(200);
    assert_eq!(
        (plain.header("vary"), plain.header("content-encoding")),
        (None, None)
    );
    // One that is older than what it was made of holds something else.
    assert_eq!(
        get("/static/old.txt", "Accept-Encoding: gzip\r\n")
            .expect(200)
            .text(),
        "new"
    );
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_cuts_the_connection() {
    let dir = folder();
    let path = dir.path().join("static/huge.bin");
    fs::write(&path, vec![b'x'; 48 << 20]).expect("a file");
    let server = Server::start_in(dir, |_| {});
    let mut connection = server.connect();
    connection.send("GET /static/huge.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = connection.head_to("GET");
    assert_eq!(head.status, 200);
    let file = fs::File::options().write(true).open(&path).expect("a file");
    file.set_len(1000).expect("shorter");
    let mut rest = connection.rest();
    assert!(rest.len() < 48 << 20);
    rest.retain(|&b| b != b'x');
    assert!(rest.is_empty(), "nothing but the file's bytes");
    server.log.wait_for(0, "the connection is cut");
}

#[test]
fn a_folder_that_is_not_there_is_told_at_the_start() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let toml = config("files", "[static]\n\"/static\" = \"nowhere\"");
    fs::write(dir.path().join("app.toml"), toml).expect("a file for the test");
    let mut command = crate::server::wasgi();
    command.arg("serve").arg(dir.path().join("app.toml"));
    let run = crate::server::run(&mut command, crate::client::PATIENCE);
    assert_eq!(run.code(), 2, "{}", run.stderr);
    assert!(
        run.stderr
            .contains("static.\"/static\": folder `nowhere` is not there"),
        "{}",
        run.stderr
    );
}
