//! uwsgi, FastCGI and SCGI, as web servers in front speak them.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::LazyLock;

use rustix::process::Signal;

use crate::client::{Connection, Framing, PATIENCE};
use crate::gateway_client::{Asked, DOORS, Door};
use crate::server::{Server, app_folder, config, folder};

/// Every door of one app, on ports that the system chooses.
fn doors(app: &str, more: &str) -> String {
    let all =
        "http = \"127.0.0.1:0\"\nuwsgi = \"127.0.0.1:0\"\nfastcgi = \"127.0.0.1:0\"\nscgi = \"127.0.0.1:0\"";
    config(app, more).replace("http = \"127.0.0.1:0\"", all)
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let more = "workers = 2\n[static]\n\"/files\" = \"data\"\n[limits]\nrequest-body = \"8MiB\"";
    let dir = folder(&doors("pep3333", more));
    fs::write(dir.path().join("data/a b.txt"), "a file\n").expect("a file for the test");
    Server::start_in(dir, |_| {})
});

#[test]
fn the_environ_is_what_the_web_server_says() {
    for door in DOORS {
        let asked = Asked::get("/environ?a=b%20c")
            .with("HTTPS", "on")
            .with("REQUEST_SCHEME", "https")
            .with("REMOTE_USER", "ada")
            .and("HTTP_X_TAG", "one")
            .and("HTTP_COOKIE", "a=1")
            .and("HTTP_X_TAG", "two")
            .and("HTTP_COOKIE", "b=2")
            .and("HTTP_PROXY", "http://evil.test/")
            .and("wsgi.input", "evil")
            .and("UWSGI_FILE", "/tmp/evil.py");
        let environ = door.ask(&SERVER, &asked).expect(200).json();
        for (name, value) in [
            ("REQUEST_METHOD", "GET"),
            ("SCRIPT_NAME", ""),
            ("PATH_INFO", "/environ"),
            ("QUERY_STRING", "a=b%20c"),
            ("REQUEST_URI", "/environ?a=b%20c"),
            ("wsgi.url_scheme", "https"),
            ("REMOTE_ADDR", "192.0.2.7"),
            ("REMOTE_USER", "ada"),
            ("SERVER_NAME", "shop.example"),
            ("SERVER_PORT", "80"),
            ("DOCUMENT_ROOT", "/usr/share/nginx/html"),
            ("HTTP_X_TAG", "one,two"),
            ("HTTP_COOKIE", "a=1; b=2"),
        ] {
            assert_eq!(environ[name], value, "{door:?}: {name} of {environ}");
        }
        assert_ne!(environ["wsgi.input"], "evil", "{door:?}");
        for name in ["HTTP_PROXY", "UWSGI_FILE"] {
            assert_eq!(environ.get(name), None, "{door:?}: {name} reached the app");
        }
    }
}

#[test]
fn wsgiref_validate_has_no_complaint_of_what_nginx_sends() {
    let server = Server::start(&doors("validated", "workers = 1"));
    for door in DOORS {
        let asked = |method: &str| Asked::new(method, "/path?query=1");
        for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
            let reply = door.ask(&server, &asked(method)).expect(200);
            assert_eq!(
                reply.text(),
                if method == "HEAD" { "" } else { "valid\n" },
                "{door:?}"
            );
        }
        for least in [
            "SCRIPT_NAME",
            "SERVER_NAME",
            "SERVER_PORT",
            "QUERY_STRING",
            "SERVER_PROTOCOL",
        ] {
            door.ask(&server, &asked("GET").without(least)).expect(200);
        }
        let echo = door
            .ask(&server, &Asked::post("/echo", vec![b'v'; 5000]))
            .expect(200);
        assert_eq!(echo.body, [b'v'; 5000], "{door:?}");
        let lines = door.ask(&server, &Asked::post("/lines", "a\nb")).expect(200);
        assert_eq!(lines.text(), "a\n|b", "{door:?}");
        let stream = door.ask(&server, &Asked::get("/stream")).expect(200);
        assert_eq!(stream.text(), "chunk 0\nchunk 1\nchunk 2\n", "{door:?}");
        door.ask(&server, &Asked::get("/none")).expect(204);
    }
    let log = server.log.all();
    for complaint in ["AssertionError", "WSGIWarning", "Traceback"] {
        assert!(!log.contains(complaint), "{log}");
    }
}

#[test]
fn bodies_of_any_size_go_both_ways() {
    for door in DOORS {
        let body: Vec<u8> = (0..5_000_000u32).map(|n| (n % 251) as u8).collect();
        let reply = door.ask(&SERVER, &Asked::post("/echo", body.clone())).expect(200);
        assert!(
            reply.body == body,
            "{door:?}: {} bytes came back",
            reply.body.len()
        );
        let reply = door.ask(&SERVER, &Asked::get("/big?mib=20")).expect(200);
        assert_eq!(reply.body.len(), 20 << 20, "{door:?}");
        // The app has not read it; whoever sends it is told all the same.
        let reply = door.ask(&SERVER, &Asked::post("/ok", body)).expect(200);
        assert_eq!(reply.text(), "fine\n", "{door:?}");
    }
}

#[test]
fn a_reply_is_sent_as_it_is_made() {
    for door in DOORS {
        let mut connection = door.connect(&SERVER);
        connection.send(Asked::get("/stream?n=2&pause=1").head(door));
        let mut came = Vec::new();
        while !door.taken(came.clone()).0.ends_with(b"chunk 0\n") {
            came.extend(connection.some());
        }
        came.extend(connection.rest());
        assert!(door.taken(came).0.ends_with(b"chunk 0\nchunk 1\n"), "{door:?}");
    }
}

#[test]
fn a_body_is_read_as_it_comes() {
    for door in DOORS {
        let mut connection = door.connect(&SERVER);
        connection.send(Asked::post("/dialogue", "one\ntwo\n").head(door));
        let mut came = Vec::new();
        for (line, answer) in [("one\n", "got one\n"), ("two\n", "got two\n")] {
            connection.send(door.body(line.as_bytes()));
            while !door.taken(came.clone()).0.ends_with(answer.as_bytes()) {
                came.extend(connection.some());
            }
        }
        // Byte by byte, head and all.
        let mut connection = door.connect(&SERVER);
        let asked = Asked::post("/echo", "body");
        for byte in [asked.head(door), door.body(b"body"), door.end()].concat() {
            connection.send([byte]);
        }
        assert_eq!(
            door.reply(&mut connection, "POST").expect(200).text(),
            "body",
            "{door:?}"
        );
    }
}

#[test]
fn replies_without_a_body_have_none() {
    for door in DOORS {
        let head = door
            .ask(&SERVER, &Asked::new("HEAD", "/length?claim=10&send=10"))
            .expect(200);
        assert_eq!(head.header("Content-Length"), Some("10"), "{door:?}");
        let head = door.ask(&SERVER, &Asked::new("HEAD", "/two-chunks")).expect(200);
        assert_eq!(head.header("Content-Length"), None, "{door:?}");
        let reply = door.ask(&SERVER, &Asked::get("/two-chunks")).expect(200);
        assert_eq!(
            reply.head.framing,
            Framing::Close,
            "{door:?}: its end is the connection's"
        );
    }
}

#[test]
fn they_take_the_road_of_every_request() {
    for door in DOORS {
        let mark = SERVER.log.mark();
        let reply = door
            .ask(&SERVER, &Asked::get("/ok").with("HTTP_USER_AGENT", "test/1"))
            .expect(200);
        let id = reply.header("X-Request-Id").expect("an id");
        let line = SERVER.log.wait_for(mark, &format!("id={id}"));
        assert!(line.starts_with("192.0.2.7 - - ["), "{line}");
        assert!(
            line.contains("\"GET /ok HTTP/1.1\" 200 5 \"-\" \"test/1\""),
            "{line}"
        );

        let file = Asked::get("/files/a%20b.txt").with("PATH_INFO", "/files/a b.txt");
        let reply = door.ask(&SERVER, &file).expect(200);
        assert_eq!(reply.text(), "a file\n", "{door:?}");
        let tag = reply.header("ETag").expect("a tag").to_owned();
        door.ask(&SERVER, &file.with("HTTP_IF_NONE_MATCH", tag))
            .expect(304);

        let reply = door.ask(&SERVER, &Asked::post("/ok", "").with("CONTENT_LENGTH", "9000000"));
        assert_eq!(reply.expect(413).header("Connection"), None, "{door:?}");
        door.ask(&SERVER, &Asked::get("/raise-at-once")).expect(500);
    }
}

#[test]
fn a_request_that_is_not_right_is_refused_and_told() {
    for (asked, what) in [
        (
            Asked::get("/ok").with("CONTENT_LENGTH", "5, 5"),
            "CONTENT_LENGTH is malformed",
        ),
        (
            Asked::get("/ok").and("HTTP_HOST", "other.example"),
            "HTTP_HOST is repeated",
        ),
        (
            Asked::get("/ok").with("HTTP_X", "a\nb"),
            "a control character in HTTP_X",
        ),
        (
            Asked::get("/ok").without("REQUEST_METHOD"),
            "REQUEST_METHOD is missing",
        ),
    ] {
        for door in DOORS {
            let mark = SERVER.log.mark();
            let reply = door.ask(&SERVER, &asked).expect(400);
            assert!(reply.text().contains(what), "{door:?}: {}", reply.text());
            let name = door.name();
            let line = SERVER
                .log
                .wait_for(mark, &format!("warning: {name} from 127.0.0.1: "));
            assert!(line.contains(what), "{line}");
        }
    }
    let mut connection = Door::Uwsgi.connect(&SERVER);
    connection.send(Asked::get("/ok").packet(5));
    let text = Door::Uwsgi.reply(&mut connection, "GET").expect(400).text();
    assert!(text.contains("the uwsgi modifier 5 is not served"), "{text}");
}

#[test]
fn who_speaks_another_protocol_is_told_so() {
    for door in DOORS {
        let mark = SERVER.log.mark();
        let mut connection = door.connect(&SERVER);
        connection.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let reply = connection.reply().expect(400);
        let said = format!("this is an HTTP request, and the port speaks {}", door.name());
        assert!(reply.text().contains(&said), "{}", reply.text());
        assert!(connection.is_closed());
        SERVER.log.wait_for(mark, &said);
    }
    for (bytes, looks) in [
        (Asked::get("/ok").packet(0), "uwsgi"),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(), "TLS"),
    ] {
        let mark = SERVER.log.mark();
        let mut connection = SERVER.connect();
        connection.send(bytes);
        connection.reply().expect(400);
        let said = format!("HTTP from 127.0.0.1: this looks like {looks}, and the port speaks HTTP");
        SERVER.log.wait_for(mark, &said);
    }
}

#[test]
fn modifier_30_takes_script_name_off_path_info() {
    let mut connection = Door::Uwsgi.connect(&SERVER);
    let asked = Asked::get("/em/environ").with("SCRIPT_NAME", "/em");
    connection.send(asked.packet(30));
    let environ = Door::Uwsgi.reply(&mut connection, "GET").expect(200).json();
    assert_eq!(
        (environ["SCRIPT_NAME"].as_str(), environ["PATH_INFO"].as_str()),
        (Some("/em"), Some("/environ"))
    );
    let mut connection = Door::Uwsgi.connect(&SERVER);
    connection.send(asked.with("PATH_INFO", "/files/a b.txt").packet(0));
    assert_eq!(
        Door::Uwsgi.reply(&mut connection, "GET").expect(200).text(),
        "a file\n"
    );
}

#[test]
fn a_mount_is_found_whoever_splits_it_off() {
    let server = Server::start(&doors("pep3333", "mount = \"/em\""));
    for door in DOORS {
        let whole = Asked::get("/em/environ");
        let split = Asked::get("/em/environ")
            .with("SCRIPT_NAME", "/em")
            .with("PATH_INFO", "/environ");
        for asked in [whole, split] {
            let environ = door.ask(&server, &asked).expect(200).json();
            assert_eq!(environ["SCRIPT_NAME"], "/em", "{door:?}");
            assert_eq!(environ["PATH_INFO"], "/environ", "{door:?}");
        }
        let reply = door.ask(&server, &Asked::get("/em?x=%20")).expect(301);
        assert_eq!(reply.header("Location"), Some("/em/?x=%20"), "{door:?}");
        door.ask(&server, &Asked::get("/emma")).expect(404);
    }
}

#[test]
fn who_goes_away_ends_the_request() {
    for door in DOORS {
        let mark = SERVER.log.mark();
        let mut connection = door.connect(&SERVER);
        connection.send(Asked::get("/stream?n=1000&pause=0.05").head(door));
        connection.some();
        drop(connection);
        SERVER.log.wait_for(mark, "/stream?n=1000&pause=0.05");
        let mark = SERVER.log.mark();
        let mut connection = door.connect(&SERVER);
        connection
            .send(Asked::post("/echo", "whole").head(door))
            .send(door.body(b"hal"));
        drop(connection);
        let line = SERVER.log.wait_for(mark, "POST /echo");
        assert!(line.contains("\" 499 "), "{line}");
    }
}

#[test]
fn a_reply_that_fails_midway_does_not_look_whole() {
    for door in [Door::Uwsgi, Door::Scgi] {
        let mut stream = TcpStream::connect(door.address(&SERVER)).expect("the server accepts connections");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        let asked = Asked::get("/raise-midway").head(door);
        stream.write_all(&asked).expect("the server reads");
        let end = stream.read_to_end(&mut Vec::new());
        let kind = end.map_err(|error| error.kind());
        assert_eq!(kind, Err(ErrorKind::ConnectionReset), "{door:?}");
    }
}

#[test]
fn slow_peers_are_waited_for_no_longer_than_allowed() {
    let more = "workers = 1\n[limits]\nhead-time = \"1s\"\nbody-time = \"1s\"\nwrite-time = \"1s\"";
    let server = Server::start(&doors("pep3333", more));
    for door in DOORS {
        let mark = server.log.mark();
        let mut silent = door.connect(&server);
        let mut slow = door.connect(&server);
        slow.send(&Asked::get("/ok").head(door)[..20]);
        let reply = door.reply(&mut slow, "GET").expect(408);
        assert!(
            reply.text().contains("the request's head took too long"),
            "{}",
            reply.text()
        );
        let name = door.name();
        server.log.wait_for(
            mark,
            &format!("{name} from 127.0.0.1: the request's head took too long"),
        );
        assert!(silent.is_closed(), "nothing is told to who says nothing");
        let mut half = door.connect(&server);
        half.send(Asked::post("/echo", "whole").head(door))
            .send(door.body(b"hal"));
        door.reply(&mut half, "POST").expect(408);
        let mut stuck = door.connect(&server);
        stuck.send(Asked::get("/closing?name=unread&what=long").head(door));
        stuck.some();
        // The only worker is free again after write-time.
        door.ask(&server, &Asked::get("/ok")).expect(200);
        drop(stuck);
    }
}

#[test]
fn a_stop_lets_what_runs_finish() {
    let server = Server::start(&doors("pep3333", "workers = 2"));
    let mut idle: Vec<_> = DOORS.iter().map(|door| door.connect(&server)).collect();
    let mut running: Vec<_> = DOORS
        .iter()
        .map(|&door| {
            let mut connection = door.connect(&server);
            connection.send(Asked::get("/stream?n=3&pause=0.3").head(door));
            connection.some();
            (door, connection)
        })
        .collect();
    server.signal(Signal::TERM);
    for connection in &mut idle {
        assert!(connection.is_closed());
    }
    for (door, connection) in &mut running {
        let rest = door.taken(connection.rest()).0;
        assert!(rest.ends_with(b"chunk 2\n"), "{door:?}");
    }
    assert_eq!(server.wait(PATIENCE).code(), Some(0), "{}", server.log.all());
}

#[test]
fn unix_sockets_are_served_and_no_http_is_opened_beside_them() {
    let root = app_folder("pep3333");
    let dir = folder(&format!(
        "[listen]\nuwsgi = \"unix:data/u.sock\"\nfastcgi = \"unix:data/f.sock\"\nscgi = [\"unix:data/s.sock\"]\n[app]\nroot = {root:?}\nwsgi-file = \"app.py\"\n"
    ));
    let server = Server::start_in(dir, |_| {});
    for (door, file) in [
        (Door::Uwsgi, "u.sock"),
        (Door::FastCgi, "f.sock"),
        (Door::Scgi, "s.sock"),
    ] {
        let path = server.dir.path().join("data").join(file);
        let line = server.log.wait_for(0, file);
        assert!(line.ends_with(&format!(", speaking {}", door.name())), "{line}");
        let reply = door.ask_on(Connection::unix(&path), &Asked::post("/echo", "over a file"));
        assert_eq!(reply.expect(200).text(), "over a file");
    }
    assert!(!server.log.has(0, "http://"), "{}", server.log.all());
}
