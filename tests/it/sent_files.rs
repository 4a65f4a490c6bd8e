//! Files that an app replies with and the server sends: `wsgi.file_wrapper`, and what Flask makes of it.

use std::fs;

use crate::server::{Server, app_folder, config, folder, packages};

const LARGE: usize = 24 << 20;

fn large() -> Vec<u8> {
    (0..LARGE as u32).map(|n| (n % 251) as u8).collect()
}

fn start(more: &str) -> Server {
    let packages = packages();
    let dir = folder(&config(
        "sent",
        &format!(
            "python-path = [{packages:?}]\nworkers = 1\n{more}\n[files]\n\"/data\" = {{ path = \"data\", write = true }}"
        ),
    ));
    fs::write(dir.path().join("data/large.bin"), large()).expect("a file for the test");
    fs::write(dir.path().join("data/ten.txt"), "0123456789").expect("a file for the test");
    Server::start_in(dir, |_| {})
}

#[test]
fn flask_sends_files_of_its_code_its_data_and_memory() {
    for isolation in ["", "isolation = \"request\""] {
        let server = start(isolation);
        let code = fs::read_to_string(app_folder("sent").join("app.py")).expect("the app");
        assert_eq!(server.get("/code").expect(200).text(), code);
        let reply = server.get("/data/large.bin").expect(200);
        assert!(reply.body == large());
        assert_eq!(reply.header("content-length"), Some(LARGE.to_string().as_str()));
        let tag = reply.header("etag").expect("Flask's own").to_owned();
        let fields = format!("If-None-Match: {tag}\r\n");
        server.request("GET", "/data/large.bin", &fields, b"").expect(304);
        let head = server.request("HEAD", "/data/large.bin", "", b"").expect(200);
        assert_eq!(head.header("content-length"), Some(LARGE.to_string().as_str()));
        let part = server
            .request(
                "GET",
                "/data/large.bin",
                "Range: bytes=20000000-20000009\r\n",
                b"",
            )
            .expect(206);
        assert!(part.body == large()[20_000_000..20_000_010]);
        assert_eq!(server.get("/memory").expect(200).text(), "from memory");
        assert_eq!(server.get("/temporary").expect(200).text(), "temporary");
        let log = server.log.all();
        assert!(!log.contains("Traceback"), "{log}");
    }
}

#[test]
fn a_worker_is_free_while_its_file_is_sent() {
    let server = start("");
    let mut slow = server.connect();
    slow.send("GET /data/large.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(slow.head_to("GET").status, 200);
    // The only worker.
    assert_eq!(server.get("/memory").expect(200).text(), "from memory");
    // The file goes on after its name, and the worker's own descriptor, are gone.
    fs::remove_file(server.dir.path().join("data/large.bin")).expect("a file");
    let mut body = Vec::new();
    while body.len() < LARGE {
        body.extend(slow.some());
    }
    assert!(body == large());
}

#[test]
fn what_is_left_of_a_file_is_sent_as_far_as_its_length_was_told() {
    let server = start("");
    for (query, expected) in [
        ("name=ten.txt", "0123456789"),
        ("name=ten.txt&skip=4", "456789"),
        ("name=ten.txt&skip=10", ""),
        ("name=ten.txt&length=10", "0123456789"),
        ("name=ten.txt&skip=1&length=3", "123"),
        ("name=ten.txt&written=1&skip=8", "<89"),
        ("name=ten.txt&mode=r%2bb", "0123456789"),
    ] {
        let query = query.replace("%2b", "+");
        let reply = server.get(&format!("/raw?{query}")).expect(200);
        assert_eq!(reply.text(), expected, "{query}");
        assert_eq!(server.get("/closed").expect(200).text(), "True", "{query}");
    }
    // Shorter than was told: as with any reply, the connection is cut.
    let reply = server.get("/raw?name=ten.txt&length=11");
    assert_eq!(
        (reply.status(), reply.complete, reply.text().as_str()),
        (200, false, "0123456789")
    );
    server.log.wait_for(0, "the reply ended after 10 of the 11 bytes");
    server
        .log
        .wait_for(0, "the reply is longer than its Content-Length of 3");
}
