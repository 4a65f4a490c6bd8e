//! An app under wsgiref.validate has no complaint of the server.

use crate::client::Framing;
use crate::server::{Server, config};

#[test]
fn wsgiref_validate_has_no_complaint() {
    let server = Server::start(&config("validated", "workers = 1"));
    for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
        let reply = server
            .request(method, "/path?query=1", "X-Field: value\r\n", b"")
            .expect(200);
        assert_eq!(reply.text(), if method == "HEAD" { "" } else { "valid\n" });
    }
    for method in ["POST", "PUT", "PATCH"] {
        let fields = "Content-Type: text/plain\r\nContent-Length: 5000\r\n";
        assert_eq!(
            server
                .request(method, "/echo", fields, &[b'v'; 5000])
                .expect(200)
                .body,
            [b'v'; 5000]
        );
        let fields = "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n";
        let reply = server
            .request(method, "/echo", fields, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            .expect(200);
        assert_eq!(reply.text(), "abcde");
    }
    assert_eq!(server.post("/lines", "a\nb\nc").expect(200).text(), "a\n|b\n|c");
    for _ in 0..2 {
        let reply = server.get("/stream").expect(200);
        assert_eq!(reply.head.framing, Framing::Chunked);
        assert_eq!(reply.text(), "chunk 0\nchunk 1\nchunk 2\n");
        server.request("HEAD", "/stream", "", b"").expect(200);
    }
    assert_eq!(server.get("/write").expect(200).text(), "written\nreturned\n");
    server.get("/none").expect(204);
    server.get("/errors").expect(200);
    server.log.wait_for(0, "another line");
    let log = server.log.all();
    for complaint in [
        "AssertionError",
        "WSGIWarning",
        "Traceback",
        "without being closed",
    ] {
        assert!(!log.contains(complaint), "{log}");
    }
}
