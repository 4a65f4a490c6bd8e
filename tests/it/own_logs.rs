//! `[log]` of an app's owner: a file of the app's own, in a folder that the app may write to, and nowhere else.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::PATIENCE;
use crate::server::Server;
use crate::tenants::{Ask, Host};

const CODE: &str = r#"
import os, sys

def app(environ, start_response):
    path, _, argument = environ["PATH_INFO"][1:].partition("/")
    status, body = "200 OK", b""
    if path == "say":
        print("it says", argument, file=sys.stderr)
    elif path == "fill":
        with open("/logs/ballast", "wb") as file:
            file.write(b"x" * int(argument))
    elif path == "free":
        os.remove("/logs/ballast")
    elif path == "fail":
        1 / 0
    elif path == "read":
        body = open("/logs/app.log", "rb").read()
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"#;

/// A server with the app `shop`, whose `[files]` and `[log]` are these, and the app `wiki`.
fn host(files: &str, log: &str) -> Host {
    let host = Host::new("");
    for (name, more) in [
        (
            "shop",
            format!("[files]\n\"/logs\" = {{ path = \"logs\", write = true{files} }}\n[log]\n{log}"),
        ),
        ("wiki", String::new()),
    ] {
        host.write(&format!("tenants/{name}/code/app.py"), CODE);
        host.write(&format!("tenants/{name}/logs/note"), "");
        host.write(
            &format!("tenants/{name}/app.toml"),
            &format!("[app]\nmodule = \"app:app\"\nroot = \"code\"\nmount = \"/{name}\"\n{more}"),
        );
    }
    host
}

fn ask(server: &Server, path: &str) {
    server.ask("a.test", path).expect(200);
}

/// What is in the file once it holds `text`.
#[track_caller]
fn read_with(server: &Server, path: &Path, text: &str) -> String {
    read_all_with(server, &[path], text)
}

/// Of several files, one after the other.
fn read_all_with(server: &Server, paths: &[&Path], text: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let read: String = paths
            .iter()
            .map(|path| fs::read_to_string(path).unwrap_or_default())
            .collect();
        if read.contains(text) {
            return read;
        }
        assert!(
            Instant::now() < deadline,
            "{text:?} does not come to {paths:?}: {read}\n{}",
            server.log.all()
        );
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_owner_has_the_lines_of_the_app_and_of_no_other() {
    let server = host("", "file = \"logs/app.log\"\naccess = \"json+bill\"\n").start();
    let own = server.dir.path().join("tenants/shop/logs/app.log");
    ask(&server, "/shop/say/hello");
    ask(&server, "/wiki/say/secret");
    server.ask("a.test", "/shop/fail").expect(500);
    ask(&server, "/shop/last");
    let read = read_with(&server, &own, "/shop/last");
    assert!(read.contains("it says hello\n"), "{read}");
    assert!(read.contains("ZeroDivisionError"), "{read}");
    assert!(!read.contains("secret") && !read.contains("wiki"), "{read}");
    let lines = read.lines().filter(|line| line.starts_with('{'));
    let told: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(told.len(), 3, "{read}");
    assert!(told.iter().all(|line| line["cpu_ms"].is_number()), "{read}");
    // The app reads its own.
    let seen = server.ask("a.test", "/shop/read").expect(200).text();
    assert!(seen.starts_with(&read), "{seen}");
    // The operator's log has it all, and in its own format.
    for line in [
        "app shop [",
        "app wiki [",
        "\"GET /shop/last HTTP/1.1\" 200 0 ",
        "\"GET /wiki/say/secret ",
    ] {
        server.log.wait_for(0, line);
    }
    // It ends, and comes back, with its app.toml.
    let toml = fs::read_to_string(server.dir.path().join("tenants/shop/app.toml")).expect("is there");
    let without = toml.split("[log]").next().expect("a part");
    let mark = server.log.mark();
    server.rewrite("tenants/shop/app.toml", without);
    server.log.wait_for(mark, "app shop: loaded anew");
    ask(&server, "/shop/unheard");
    let mark = server.log.mark();
    server.rewrite("tenants/shop/app.toml", &toml);
    server.log.wait_for(mark, "app shop: loaded anew");
    ask(&server, "/shop/heard");
    let read = read_with(&server, &own, "/shop/heard");
    assert!(!read.contains("unheard"), "{read}");
}

#[test]
fn an_owners_file_is_rotated_and_counts_against_the_quota() {
    let log = "file = \"logs/app.log\"\nrotate-size = \"64KiB\"\nrotate-keep = 1\n";
    let server = host(", quota = \"200KiB\", max-files = 4", log).start();
    let folder = server.dir.path().join("tenants/shop/logs");
    let long = "x".repeat(4000);
    let size = || -> u64 {
        let entries = fs::read_dir(&folder).expect("is there").flatten();
        entries
            .map(|entry| entry.metadata().map_or(0, |it| it.len()))
            .sum()
    };
    // Far more than the quota: what was put aside gives its room back.
    for number in 0..150 {
        ask(&server, &format!("/shop/{number}/{long}"));
    }
    // The last line may be the one that the file was put aside for.
    let (log, put_aside) = (folder.join("app.log"), folder.join("app.log.1"));
    let read_with = |text| read_all_with(&server, &[&put_aside, &log], text);
    read_with("/shop/149/");
    assert!(put_aside.exists() && !folder.join("app.log.2").exists());
    assert!(size() <= 200 << 10, "{}", size());
    assert!(!server.log.has(0, "its own log"), "{}", server.log.all());
    // The app has what the log leaves.
    server.ask("a.test", "/shop/fill/200000").expect(500);
    server.log.wait_for(0, "No space left on device");
    let left = (200 << 10) - size();
    ask(&server, &format!("/shop/fill/{}", left.saturating_sub(3000)));
    let mark = server.log.mark();
    for number in 0..4 {
        ask(&server, &format!("/shop/lost/{number}/{long}"));
    }
    let told = server.log.wait_for(
        mark,
        "app shop: its own log app.log cannot be written: the folder's quota is used up",
    );
    assert!(told.starts_with("warning: "), "{told}");
    assert!(size() <= 200 << 10, "{}", size());
    // Once there is room it goes on, and tells what is missing.
    ask(&server, "/shop/free");
    ask(&server, "/shop/again");
    let read = read_with("/shop/again");
    read_with("log lines lost before the last ones: they could not be written");
    // Later ones may have been written with those for which there was room.
    assert!(!read.contains("/shop/lost/0/"), "what found no room");
    let told = server.log.since(mark);
    assert_eq!(told.iter().filter(|line| line.contains("its own log")).count(), 1);
}

#[test]
fn an_owners_file_leads_nowhere_else() {
    let host = host("", "file = \"logs/deep/app.log\"\n");
    host.write("tenants/shop/logs/deep/note", "");
    host.write("elsewhere/app.log", "before\n");
    host.write("elsewhere/other.log", "before\n");
    let server = host.start();
    let at = |name: &str| server.dir.path().join(name);
    let (deep, own) = (at("tenants/shop/logs/deep"), at("tenants/shop/logs/deep/app.log"));
    ask(&server, "/shop/first");
    read_with(&server, &own, "/shop/first");
    // A link in the file's place, another name of somebody's file, and a link in its folder's place.
    let tricks: [&dyn Fn(); 3] = [
        &|| {
            fs::remove_file(&own).expect("is there");
            symlink(at("elsewhere/app.log"), &own).expect("a link");
        },
        &|| {
            fs::remove_file(&own).expect("is there");
            fs::hard_link(at("elsewhere/other.log"), &own).expect("a name");
        },
        &|| {
            fs::rename(&deep, at("tenants/shop/logs/old")).expect("is there");
            symlink(at("elsewhere"), &deep).expect("a link");
        },
    ];
    for (number, trick) in tricks.iter().enumerate() {
        trick();
        ask(&server, &format!("/shop/trick{number}"));
        // By then the line has been tried.
        thread::sleep(Duration::from_millis(200));
    }
    server
        .log
        .wait_for(0, "app shop: its own log deep/app.log cannot be written: ");
    for name in ["elsewhere/app.log", "elsewhere/other.log"] {
        assert_eq!(
            fs::read_to_string(at(name)).expect("is there"),
            "before\n",
            "{name}"
        );
    }
    fs::remove_file(&deep).expect("the link");
    fs::create_dir(&deep).expect("a folder");
    ask(&server, "/shop/last");
    read_with(&server, &own, "/shop/last");
    server.ask("a.test", "/wiki/").expect(200);
}
