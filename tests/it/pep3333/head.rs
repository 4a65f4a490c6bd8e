//! start_response(), write(), and what is checked of a head.

use super::{expect_cut, expect_refused, server};

#[test]
fn write_comes_before_the_iterable() {
    let reply = server().get("/write").expect(200);
    assert_eq!(reply.text(), "written twice, then returned\n");
}

#[test]
fn write_takes_bytes_only() {
    expect_refused("/write-str", "TypeError");
}

#[test]
fn an_exception_after_write_cuts_the_reply() {
    expect_cut("/write-then-raise", "some of it\n", "after write");
}

#[test]
fn a_body_without_start_response_is_an_error() {
    expect_refused("/no-start-response", "start_response");
    expect_refused("/no-start-response-empty", "start_response");
    expect_refused("/too-late-start-response", "start_response");
}

#[test]
fn start_response_may_come_with_the_first_step() {
    let reply = server().get("/late-start-response").expect(202);
    assert_eq!(reply.head.reason, "Later");
    assert_eq!(reply.text(), "late but right\n");
}

#[test]
fn a_second_start_response_needs_exc_info() {
    expect_refused("/twice", "start_response");
}

#[test]
fn exc_info_replaces_a_head_that_has_not_gone_out() {
    let reply = server().get("/twice-with-exc-info").expect(503);
    assert_eq!(reply.head.reason, "Replaced");
    assert_eq!(
        reply.header("X-First"),
        None,
        "fields of the first head are forgotten"
    );
    assert_eq!(reply.text(), "the error page\n");
    assert_eq!(
        server().get("/exc-info-first").expect(500).text(),
        "my own error page\n"
    );
}

#[test]
fn the_head_waits_for_the_first_byte() {
    let reply = server().get("/lazy-head").expect(500);
    assert_eq!(reply.head.reason, "Replaced");
    assert_eq!(reply.text(), "replaced\n");
}

#[test]
fn exc_info_after_the_head_raises_in_the_app_and_cuts_the_reply() {
    expect_cut("/exc-info-too-late", "first chunk\n", "found out too late");
}

#[test]
fn status_lines_are_checked() {
    for (status, code, reason) in [
        ("200%20OK", 200, "OK"),
        ("299%20Very%20Odd", 299, "Very Odd"),
        ("599%20X", 599, "X"),
    ] {
        let reply = server().get(&format!("/status?s={status}")).expect(code);
        assert_eq!(reply.head.reason, reason);
    }
    for status in [
        "",
        "OK",
        "20%20OK",
        "2000%20OK",
        "abc%20OK",
        "100%20Continue",
        "600%20X",
        "200%20a%0d%0ab",
        "200%20%00",
        "-20%20OK",
    ] {
        expect_refused(&format!("/status?s={status}"), "status");
    }
    expect_refused("/status-bytes", "status");
}

#[test]
fn header_names_and_values_are_checked() {
    let reply = server()
        .get("/header?name=X-Odd!%23$&value=a%20%22b%22%09c")
        .expect(200);
    assert_eq!(reply.header("X-Odd!#$"), Some("a \"b\"\tc"));
    let reply = server().get("/header?name=X-Latin&value=caf%e9").expect(200);
    assert_eq!(
        reply.header("X-Latin"),
        Some("caf\u{e9}"),
        "latin-1 goes out byte for byte"
    );
    for bad in [
        "name=&value=x",
        "name=X%20A&value=x",
        "name=X-A:&value=x",
        "name=X%0d%0aY&value=x",
        "name=X%e9&value=x",
        "name=X-A&value=a%0d%0aX-Injected:%20yes",
        "name=X-A&value=a%0ab",
        "name=X-A&value=a%0db",
        "name=X-A&value=a%00b",
        "name=X-A&value=a%7fb",
        "name=X-A&value=%1b[31m",
    ] {
        expect_refused(&format!("/header?{bad}"), "header");
    }
}

#[test]
fn hop_by_hop_headers_are_refused() {
    for name in [
        "Connection",
        "Keep-Alive",
        "Transfer-Encoding",
        "TE",
        "Trailer",
        "Upgrade",
        "Proxy-Authenticate",
    ] {
        let mark = server().log.mark();
        let reply = server().get(&format!("/header?name={name}&value=x"));
        assert_eq!(reply.status(), 500, "{name}");
        server().log.wait_for(mark, name);
    }
}

#[test]
fn headers_of_the_wrong_type_are_refused() {
    for path in [
        "header-not-latin1",
        "header-bytes",
        "header-number",
        "headers-none",
        "headers-triple",
    ] {
        let mark = server().log.mark();
        server().get(&format!("/{path}")).expect(500);
        server().log.wait_for(mark, "Error");
    }
    server().get("/ok").expect(200);
}

#[test]
fn headers_keep_their_order_and_number() {
    let reply = server().get("/cookies").expect(200);
    assert_eq!(reply.head.all("Set-Cookie"), ["a=1", "b=2"]);
    assert_eq!(reply.header("X-Latin"), Some("caf\u{e9}"));
    assert!(
        reply.header("Date").is_some(),
        "RFC 9110 6.6.1: an origin server with a clock sends Date"
    );
    let reply = server().get("/own-server-and-date").expect(200);
    assert_eq!(reply.header("Server"), Some("mine"));
    assert_eq!(reply.header("Date"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
}
