//! What environ holds.

use serde_json::json;

use super::server;

#[test]
fn environ_holds_what_the_pep_requires() {
    let mut connection = server().connect();
    connection.send(
        "GET /environ?a=b%20c&d HTTP/1.1\r\nHost: example.test:81\r\nX-Tag: one\r\nConnection: close\r\n\r\n",
    );
    let environ = connection.reply().expect(200).json();
    let port = server().address().port().to_string();
    assert_eq!(environ["type"], "dict", "a builtin dict, not a subclass");
    assert_eq!(environ["REQUEST_METHOD"], "GET");
    assert_eq!(environ["SCRIPT_NAME"], "");
    assert_eq!(environ["PATH_INFO"], "/environ");
    assert_eq!(environ["QUERY_STRING"], "a=b%20c&d", "not decoded");
    assert_eq!(environ["SERVER_PROTOCOL"], "HTTP/1.1");
    assert_eq!(
        environ["SERVER_PORT"],
        port.as_str(),
        "where it listens, not what the client says"
    );
    assert!(environ["SERVER_NAME"].is_string());
    assert_eq!(environ["REMOTE_ADDR"], "127.0.0.1");
    let remote: u16 = environ["REMOTE_PORT"]
        .as_str()
        .expect("a string")
        .parse()
        .expect("a port");
    assert_ne!(remote, 0);
    assert_eq!(environ["HTTP_HOST"], "example.test:81");
    assert_eq!(environ["HTTP_X_TAG"], "one");
    assert_eq!(environ["wsgi.version"], json!([1, 0]));
    assert_eq!(environ["wsgi.url_scheme"], "http");
    assert_eq!(environ["wsgi.multithread"], false);
    assert_eq!(environ["wsgi.multiprocess"], true);
    assert_eq!(environ["wsgi.run_once"], false);
    assert_eq!(environ["wsgi.input_terminated"], true);
    for key in ["wsgi.input", "wsgi.errors", "wsgi.file_wrapper"] {
        assert!(environ[key].is_string(), "{key} is missing");
    }
    assert_eq!(environ.get("HTTP_CONTENT_LENGTH"), None);
    assert_eq!(environ.get("HTTP_CONTENT_TYPE"), None);
}

#[test]
fn environ_has_the_body_s_type_and_length() {
    let reply = server().request(
        "POST",
        "/environ",
        "Content-Type: text/x-test; q=1\r\nContent-Length: 3\r\n",
        b"abc",
    );
    let environ = reply.expect(200).json();
    assert_eq!(environ["CONTENT_TYPE"], "text/x-test; q=1");
    assert_eq!(environ["CONTENT_LENGTH"], "3");
    let environ = server()
        .request("POST", "/environ", "Transfer-Encoding: chunked\r\n", b"0\r\n\r\n")
        .json();
    assert!(
        environ.get("CONTENT_LENGTH").is_none_or(|length| length == ""),
        "{environ}"
    );
}

#[test]
fn environ_strings_are_latin_1() {
    let mut connection = server().connect();
    connection
        .send(b"GET /environ?q=\xc3\xa9 HTTP/1.1\r\nHost: h\r\nX-Word: caf\xe9\r\nConnection: close\r\n\r\n");
    let reply = connection.reply();
    // A byte above 127 is not allowed in a request target, so refusing it is right as well.
    if reply.status() == 200 {
        assert_eq!(reply.json()["QUERY_STRING"], "q=\u{c3}\u{a9}");
    } else {
        assert_eq!(reply.status(), 400);
    }
    let environ = server().request("GET", "/environ", "", b"").expect(200).json();
    assert_eq!(environ.get("HTTP_X_WORD"), None);
    let mut connection = server().connect();
    connection.send(
        b"GET /environ HTTP/1.1\r\nHost: h\r\nX-Word: caf\xe9 \xe2\x82\xac\r\nConnection: close\r\n\r\n",
    );
    let environ = connection.reply().expect(200).json();
    assert_eq!(
        environ["HTTP_X_WORD"], "caf\u{e9} \u{e2}\u{82}\u{ac}",
        "one character for each byte"
    );
}

#[test]
fn path_info_is_decoded_once() {
    let body = server().get("/environ%3Fnot-a-query?x=1").expect(404).text();
    assert_eq!(body, "no such path\n");
    let environ = server().get("/%65nviron?x=%2541").expect(200).json();
    assert_eq!(environ["PATH_INFO"], "/environ");
    assert_eq!(environ["QUERY_STRING"], "x=%2541");
    // %2565 is "%65" after one decoding, which is no path of the app; decoded twice it would be /environ.
    server().get("/%2565nviron").expect(404);
}

#[test]
fn fields_of_the_same_name_are_joined() {
    let environ = server().request(
        "GET",
        "/environ",
        "X-Tag: one\r\nX-Tag: two\r\nCookie: a=1\r\nCookie: b=2\r\n",
        b"",
    );
    let environ = environ.expect(200).json();
    assert_eq!(
        environ["HTTP_X_TAG"].as_str().expect("a string").replace(' ', ""),
        "one,two"
    );
    assert_eq!(
        environ["HTTP_COOKIE"], "a=1; b=2",
        "RFC 9113 8.2.3: cookies are joined with a semicolon"
    );
}

#[test]
fn fields_that_could_pass_for_others_are_dropped() {
    let fields =
        "X_Forwarded_For: 1.2.3.4\r\nContent_Length: 99\r\nProxy: http://evil.test/\r\nScript_Name: /x\r\n";
    let environ = server()
        .request("GET", "/environ", fields, b"")
        .expect(200)
        .json();
    for key in [
        "HTTP_X_FORWARDED_FOR",
        "HTTP_CONTENT_LENGTH",
        "HTTP_PROXY",
        "HTTP_SCRIPT_NAME",
    ] {
        assert_eq!(environ.get(key), None, "{key} reached the app");
    }
    assert_eq!(environ["SCRIPT_NAME"], "");
    assert_ne!(environ["CONTENT_LENGTH"], "99");
}
