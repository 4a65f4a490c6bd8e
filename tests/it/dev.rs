//! `wasgi dev`: reloads, and pages for the developer.

use std::fs;
use std::time::{Duration, Instant};

use crate::client::{PATIENCE, Reply};
use crate::server::{Server, folder, wasgi};

/// Asks until the reply is the one that is waited for.
#[track_caller]
fn ask_until(server: &Server, what: &str, is: impl Fn(&Reply) -> bool) -> Reply {
    let deadline = Instant::now() + PATIENCE * 2;
    loop {
        let reply = server.get("/");
        if is(&reply) {
            return reply;
        }
        assert!(
            Instant::now() < deadline,
            "no reply that {what}: {}",
            String::from_utf8_lossy(&reply.body)
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(&reply.body).into_owned()
}

const GOOD: &str =
    "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'NUMBER']\n";

#[test]
fn a_change_is_served_and_a_mistake_is_shown_until_it_is_mended() {
    let dir = folder("");
    let file = dir.path().join("hello.py");
    let write = |text: &str| fs::write(&file, text).expect("can be written");
    write(&GOOD.replace("NUMBER", "one"));
    let mut command = wasgi();
    command
        .args(["dev", "hello:app", "--http", "127.0.0.1:0", "--root"])
        .arg(dir.path());
    let server = Server::spawn(dir, &mut command);
    ask_until(&server, "says one", |reply| {
        reply.head.status == 200 && reply.body == b"one"
    });

    write(&GOOD.replace("NUMBER", "two!"));
    ask_until(&server, "says two", |reply| reply.body == b"two!");

    write("def app(environ, start_response):\n    return '<b>' +\n");
    let page = ask_until(&server, "shows the mistake", |reply| reply.head.status == 503);
    assert_eq!(page.head.header("content-type"), Some("text/html; charset=utf-8"));
    let shown = text(&page);
    assert!(shown.contains("<h1>SyntaxError: invalid syntax"), "{shown}");
    assert!(
        shown.contains("return &#x27;&lt;b&gt;") || shown.contains("return '&lt;b&gt;' +"),
        "{shown}"
    );

    write("def app(environ, start_response):\n    raise ValueError(environ['QUERY_STRING'])\n");
    ask_until(&server, "is the app's failure", |reply| reply.head.status == 500);
    let shown = text(&server.get("/?<i>"));
    assert!(!shown.contains("<i>"), "{shown}");
    assert!(shown.contains("<b>    2     raise ValueError"), "{shown}");
    assert!(server.log.has(0, "ValueError"), "the terminal has it too");

    write(&GOOD.replace("NUMBER", "three"));
    ask_until(&server, "says three", |reply| {
        reply.head.status == 200 && reply.body == b"three"
    });
}
