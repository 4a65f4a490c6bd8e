//! What Flask apps do beside saying hello: forms, files, sessions, passwords, time zones, downloads.

use std::collections::HashSet;
use std::sync::LazyLock;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::client::Framing;
use crate::server::{Server, config, packages};

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let more = format!(
        "callable = \"app\"\npython-path = [{:?}]\nworkers = 2",
        packages()
    );
    Server::start(&config("forms", &more))
});

fn server() -> &'static Server {
    &SERVER
}

fn form(parts: &[(&str, Option<&str>, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, file, content) in parts {
        let file = file
            .map(|file| format!("; filename=\"{file}\""))
            .unwrap_or_default();
        body.extend(
            format!("--b0undary\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n").bytes(),
        );
        body.extend(*content);
        body.extend(b"\r\n");
    }
    body.extend(b"--b0undary--\r\n");
    body
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn uploads_of_every_size_arrive() {
    // Above 500 kB werkzeug spools to a temporary file, so the sandbox must have a place for one.
    for size in [0, 1, 70_000, 12_000_000] {
        let content: Vec<u8> = (0..size as u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let body = form(&[
            ("word", None, "caf\u{e9}".as_bytes()),
            ("file", Some("data.bin"), &content),
        ]);
        let fields = format!(
            "Content-Type: multipart/form-data; boundary=b0undary\r\nContent-Length: {}\r\n",
            body.len()
        );
        let reply = server()
            .request("POST", "/upload", &fields, &body)
            .expect(200)
            .json();
        let digest = hex(Sha256::digest(&content));
        let file = json!({ "field": "file", "name": "data.bin", "size": size, "sha256": digest });
        assert_eq!(
            reply,
            json!({ "files": [file], "fields": { "word": "caf\u{e9}" } })
        );
    }
}

#[test]
fn a_chunked_upload_arrives() {
    let body = form(&[("file", Some("a.txt"), b"chunked into Flask")]);
    let mut chunked = Vec::new();
    for piece in body.chunks(17) {
        chunked.extend(format!("{:x}\r\n", piece.len()).bytes());
        chunked.extend(piece);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");
    let fields = "Content-Type: multipart/form-data; boundary=b0undary\r\nTransfer-Encoding: chunked\r\n";
    let reply = server()
        .request("POST", "/upload", fields, &chunked)
        .expect(200)
        .json();
    assert_eq!(reply["files"][0]["size"], 18);
    let reply = server().request(
        "POST",
        "/chunked",
        "Transfer-Encoding: chunked\r\n",
        b"3\r\nabc\r\n0\r\n\r\n",
    );
    assert_eq!(reply.expect(200).json(), json!({ "length": null, "data": 3 }));
}

#[test]
fn json_goes_both_ways() {
    let text = "{\"a\": [1, 2.5, null, true], \"word\": \"\u{3053}\u{3053}\u{308d}\"}";
    let fields = format!(
        "Content-Type: application/json\r\nContent-Length: {}\r\n",
        text.len()
    );
    let reply = server()
        .request("POST", "/json", &fields, text.as_bytes())
        .expect(200);
    assert_eq!(reply.header("Content-Type"), Some("application/json"));
    assert_eq!(
        reply.json(),
        serde_json::from_str::<serde_json::Value>(text).expect("JSON")
    );
    server()
        .request(
            "POST",
            "/json",
            "Content-Type: application/json\r\nContent-Length: 1\r\n",
            b"{",
        )
        .expect(400);
}

#[test]
fn sessions_travel_in_a_signed_cookie() {
    let mut cookie = String::new();
    for visit in 1..=4 {
        // Several workers answer: what they share is the key.
        let reply = server()
            .request("GET", "/visits", &format!("Cookie: {cookie}\r\n"), b"")
            .expect(200);
        assert_eq!(reply.text(), format!("{visit}\n"));
        cookie = reply
            .header("Set-Cookie")
            .expect("a cookie")
            .split(';')
            .next()
            .expect("a value")
            .to_owned();
    }
    let forged = cookie.replace("session=", "session=x");
    let reply = server()
        .request("GET", "/visits", &format!("Cookie: {forged}\r\n"), b"")
        .expect(200);
    assert_eq!(reply.text(), "1\n");
}

#[test]
fn passwords_are_hashed_and_checked() {
    for method in ["scrypt", "pbkdf2", "scrypt:16384:8:2", "pbkdf2:sha512:1000"] {
        let reply = server().get(&format!("/password/{method}")).expect(200).json();
        assert_eq!(
            (&reply["right"], &reply["wrong"]),
            (&json!(true), &json!(false)),
            "{reply}"
        );
    }
    let hashes = server().get("/known-hashes").expect(200).json();
    assert_eq!(
        hashes["scrypt"],
        "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b3731622eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640",
        "RFC 7914 section 12"
    );
    assert_eq!(
        hashes["pbkdf2"],
        "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783",
        "RFC 7914 section 11"
    );
    assert_eq!(
        hashes["sha3"],
        "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"
    );
    assert_eq!(hashes["blake2"], "cf4ab791c62b8d2b2109c90275287816");
}

#[test]
fn text_is_escaped_by_compiled_code() {
    let reply = server().get("/escape").expect(200).json();
    assert_eq!(
        (&reply["compiled"], &reply["kind"]),
        (&json!(true), &json!("builtin_function_or_method"))
    );
    assert_eq!(
        reply["escaped"],
        json!([
            "plain",
            "",
            "&lt;a href=&#39;x&#39;&gt;&#34;&amp;&#34;&lt;/a&gt;",
            "caf\u{e9} &lt;",
            "\u{20ac} &lt;",
            "\u{1f40d} &gt; &amp;",
            "1.5",
            "None",
            "<h1>",
            "<b>",
        ])
    );
    assert_eq!(reply["formatted"], "<i>&lt;</i>");
    assert_eq!(
        reply["page"],
        "<p title='&lt;\u{20ac} &amp; &#39;x&#39;&gt;'>&lt;\u{20ac} &amp; &#39;X&#39;&gt; <\u{20ac} & 'x'></p>"
    );
}

#[test]
fn time_zones_and_clocks_are_right() {
    assert_eq!(
        server().get("/time/Europe/Berlin").expect(200).text(),
        "2024-07-01T14:00:00+02:00\n"
    );
    assert_eq!(
        server().get("/time/Asia/Kathmandu").expect(200).text(),
        "2024-07-01T17:45:00+05:45\n"
    );
    let now: f64 = server()
        .get("/now")
        .expect(200)
        .text()
        .trim()
        .parse()
        .expect("a number");
    let here = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs_f64();
    assert!(
        (now - here).abs() < 10.0,
        "the guest's clock says {now}, ours {here}"
    );
}

#[test]
fn random_values_differ() {
    let mut seen = HashSet::new();
    for _ in 0..8 {
        let values = server().get("/random").expect(200).json();
        for key in ["secrets", "uuid", "random"] {
            assert!(seen.insert(values[key].to_string()), "{key} came twice: {values}");
        }
    }
}

#[test]
fn temporary_files_work() {
    assert_eq!(server().get("/temporary").expect(200).text(), "3000000\n");
}

#[test]
fn downloads_are_whole_and_know_ranges() {
    let reply = server().get("/download").expect(200);
    assert_eq!(reply.head.framing, Framing::Length(20_000_000));
    assert!(reply.body.chunks(10).all(|piece| piece == b"0123456789"));
    let reply = server()
        .request("GET", "/download", "Range: bytes=13-17\r\n", b"")
        .expect(206);
    assert_eq!(reply.text(), "34567");
    assert_eq!(reply.header("Content-Range"), Some("bytes 13-17/20000000"));
    let reply = server().get("/static-file").expect(200);
    assert!(reply.text().contains("A Flask app with what real ones do"));
    let etag = reply.header("ETag").expect("an ETag").to_owned();
    server()
        .request("GET", "/static-file", &format!("If-None-Match: {etag}\r\n"), b"")
        .expect(304);
}

#[test]
fn streamed_views_keep_their_context() {
    let reply = server().get("/stream?word=w").expect(200);
    assert_eq!(reply.head.framing, Framing::Chunked);
    assert_eq!(reply.text(), "w0\nw1\nw2\nw3\nw4\n");
}

#[test]
fn error_pages_have_their_status() {
    for code in [401, 404, 418, 503] {
        server().get(&format!("/abort/{code}")).expect(code);
    }
    assert_eq!(
        server()
            .request("PUT", "/visits", "Content-Length: 0\r\n", b"")
            .expect(405)
            .header("Allow")
            .map(|_| ()),
        Some(())
    );
    let mark = server().log.mark();
    let reply = server().get("/boom").expect(500);
    assert!(!reply.text().contains("the view failed"));
    server().log.wait_for(mark, "RuntimeError: the view failed");
}

#[test]
fn routes_match_words_in_any_script() {
    assert_eq!(
        server().get("/caf%C3%A9/%E2%82%AC").expect(200).text(),
        "\u{20ac}\n"
    );
}

#[test]
fn sqlite_has_full_text_search_and_json() {
    assert_eq!(
        server().get("/sqlite").expect(200).json(),
        json!({ "text": "the quick brown fox" })
    );
}
