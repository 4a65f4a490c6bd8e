//! What proxies say of clients: believed if they are trusted, as Werkzeug's `ProxyFix` believes it, and else not seen.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::client::Reply;
use crate::server::{Server, config, packages};

type Environ = BTreeMap<String, Value>;

/// The five fields of `ProxyFix`.
const ALL: &str = "headers = { x-forwarded-for = 2, x-forwarded-proto = 1, x-forwarded-host = 1, x-forwarded-port = 1, x-forwarded-prefix = 1 }";

fn start(app: &str, proxy: &str) -> Server {
    let packages = packages();
    let more = format!("python-path = [{packages:?}]\nworkers = 1\n{app}\n{proxy}");
    Server::start(&config("proxied", &more))
}

fn get(server: &Server, target: &str, fields: &str) -> Reply {
    let mut connection = server.connect();
    connection.send(format!(
        "GET {target} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n"
    ));
    connection.reply()
}

fn environ(server: &Server, target: &str, fields: &str) -> Environ {
    let reply = get(server, target, fields).expect(200);
    let mut environ: Environ = serde_json::from_slice(&reply.body).expect("JSON");
    // Of each request, and of each connection.
    for key in ["HTTP_X_REQUEST_ID", "REMOTE_PORT", "wsgi.request_id"] {
        environ.remove(key);
    }
    environ
}

#[test]
fn the_environ_is_that_of_proxy_fix() {
    let ours = start("", &format!("[proxy]\ntrust = [\"127.0.0.1\"]\n{ALL}"));
    let fixed = start("[app.env]\nPROXY_FIX = \"2 1 1 1 1\"", "");
    let both = |fields: &str| {
        let fields = format!("Host: inner:81\r\n{fields}");
        let (ours_, mut theirs) = (
            environ(&ours, "/a%20b?q=1", &fields),
            environ(&fixed, "/a%20b?q=1", &fields),
        );
        theirs.remove("PROXY_FIX");
        // The listener's port, where no proxy tells one.
        let port = |server: &Server| Value::from(server.address().port().to_string());
        if theirs["SERVER_PORT"] == port(&fixed) {
            assert_eq!(ours_["SERVER_PORT"], port(&ours));
            theirs.insert("SERVER_PORT".to_owned(), ours_["SERVER_PORT"].clone());
        }
        // Made of the scheme, before ProxyFix.
        theirs.insert("REQUEST_SCHEME".to_owned(), theirs["wsgi.url_scheme"].clone());
        (ours_, theirs)
    };
    for fields in [
        "",
        "X-Forwarded-For: 192.0.2.7\r\n",
        "X-Forwarded-For: 192.0.2.7, 10.0.0.2\r\n",
        "X-Forwarded-For: 6.6.6.6, 192.0.2.7 ,10.0.0.2\r\n",
        "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-For: 10.0.0.2\r\n",
        "X-Forwarded-For: 2001:db8::7, 10.0.0.2\r\n",
        "X-Forwarded-For: \"192.0.2.7\", 10.0.0.2\r\n",
        "X-Forwarded-For: 192.0.2.7,\r\n",
        "X-Forwarded-For:\r\nX-Forwarded-Proto:\r\n",
        "X-Forwarded-Proto: https\r\n",
        "X-Forwarded-Proto: http, https\r\n",
        "X-Forwarded-Host: shop.example\r\n",
        "X-Forwarded-Host: evil.example, shop.example:8443\r\n",
        "X-Forwarded-Host: [2001:db8::1]\r\n",
        "X-Forwarded-Host: [2001:db8::1]:8443\r\n",
        "X-Forwarded-Port: 8443\r\n",
        "X-Forwarded-Host: shop.example:1\r\nX-Forwarded-Port: 8443\r\n",
        "X-Forwarded-Host: [2001:db8::1]\r\nX-Forwarded-Port: 8443\r\n",
        "X-Forwarded-Prefix: /em\r\n",
        "X-Forwarded-Prefix: /a, /b/c\r\n",
        "X-Forwarded-For: 192.0.2.7, 10.0.0.2\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\n\
         X-Forwarded-Port: 443\r\nX-Forwarded-Prefix: /em\r\nX-Real-IP: 192.0.2.9\r\n",
    ] {
        let (ours, theirs) = both(fields);
        assert_eq!(ours, theirs, "{fields:?}");
    }

    // What ProxyFix would hand on as it came, and an app could not use: these are the only differences meant.
    for (fields, key, ours_says, theirs_says) in [
        (
            "X-Forwarded-For: 192.0.2.7:4711, 10.0.0.2\r\n",
            "REMOTE_ADDR",
            "192.0.2.7",
            "192.0.2.7:4711",
        ),
        (
            "X-Forwarded-For: \"[2001:DB8::7]:80\", 10.0.0.2\r\n",
            "REMOTE_ADDR",
            "2001:db8::7",
            "[2001:DB8::7]:80",
        ),
        (
            "X-Forwarded-For: unknown, 10.0.0.2\r\n",
            "REMOTE_ADDR",
            "",
            "unknown",
        ),
        // A quote that a client has left open.
        (
            "X-Forwarded-For: \"6.6.6.6, 192.0.2.7, 10.0.0.2\r\n",
            "REMOTE_ADDR",
            "192.0.2.7",
            "127.0.0.1",
        ),
        (
            "X-Forwarded-Proto: HTTPS\r\n",
            "wsgi.url_scheme",
            "https",
            "HTTPS",
        ),
        ("X-Forwarded-Prefix: /em/\r\n", "SCRIPT_NAME", "/em", "/em/"),
        ("X-Forwarded-Prefix: /\r\n", "SCRIPT_NAME", "", "/"),
    ] {
        let (ours, theirs) = both(fields);
        assert_eq!(
            (&ours[key], &theirs[key]),
            (&ours_says.into(), &theirs_says.into()),
            "{fields:?}"
        );
    }
    for field in [
        "X-Forwarded-Proto: gopher",
        "X-Forwarded-Host: a/b",
        "X-Forwarded-Port: x",
        "X-Forwarded-Prefix: //a",
    ] {
        let mark = ours.log.mark();
        get(&ours, "/", &format!("Host: a\r\n{field}\r\n")).expect(400);
        ours.log
            .wait_for(mark, &format!("127.0.0.1: {} ", field.split(':').next().unwrap()));
    }
}

const CLAIMS: &str = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\n\
     X-Forwarded-Port: 443\r\nX-Forwarded-Prefix: /em\r\nForwarded: for=192.0.2.7;proto=https\r\nx_forwarded_for: 1.1.1.1\r\n";

#[test]
fn a_strangers_claims_change_nothing_and_are_not_seen() {
    let server = start("", &format!("[proxy]\ntrust = [\"10.0.0.0/8\", \"unix\"]\n{ALL}"));
    let mark = server.log.mark();
    let plain = environ(&server, "/", "Host: inner\r\n");
    assert_eq!(environ(&server, "/", &format!("Host: inner\r\n{CLAIMS}")), plain);
    assert!(plain.keys().all(|key| !key.contains("FORWARDED")));
    get(&server, "/", "Host: inner\r\nX-Forwarded-Proto: gopher\r\n").expect(200);
    server.log.wait_for(mark, "127.0.0.1 - - ");
    assert!(!server.log.has(mark, "192.0.2.7"));
}

#[test]
fn only_the_fields_that_a_proxy_sets_count() {
    let server = start("", "[proxy]\ntrust = [\"127.0.0.1\"]");
    let mark = server.log.mark();
    let seen = environ(&server, "/", &format!("Host: inner\r\n{CLAIMS}"));
    assert_eq!(
        (&seen["REMOTE_ADDR"], &seen["wsgi.url_scheme"]),
        (&"192.0.2.7".into(), &"https".into())
    );
    assert_eq!(
        (&seen["HTTP_HOST"], &seen["SCRIPT_NAME"]),
        (&"inner".into(), &"".into())
    );
    let left: Vec<_> = seen.keys().filter(|key| key.contains("FORWARDED")).collect();
    assert_eq!(left, ["HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO"]);
    server.log.wait_for(mark, "192.0.2.7 - - ");
}

#[test]
fn forwarded_of_rfc_7239_counts_where_it_is_chosen() {
    let server = start(
        "",
        "[proxy]\ntrust = [\"127.0.0.0/8\"]\nheaders = [\"forwarded\"]\nhops = 2",
    );
    let value = "for=6.6.6.6, for=\"[2001:db8::7]:4711\";proto=https;host=shop.example, for=10.0.0.2";
    let seen = environ(
        &server,
        "/",
        &format!("Host: inner\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: {value}\r\n"),
    );
    assert_eq!(
        (&seen["REMOTE_ADDR"], &seen["wsgi.url_scheme"]),
        (&"2001:db8::7".into(), &"https".into())
    );
    assert_eq!(seen["HTTP_HOST"], "shop.example");
    assert!(!seen.contains_key("HTTP_X_FORWARDED_FOR"));
    get(&server, "/", "Host: inner\r\nForwarded: for=\", for=10.0.0.2\r\n").expect(400);
}

#[test]
fn without_proxy_in_the_file_nothing_is_touched() {
    let server = start("", "");
    let seen = environ(&server, "/", &format!("Host: inner\r\n{CLAIMS}"));
    assert_eq!(
        (&seen["REMOTE_ADDR"], &seen["HTTP_X_FORWARDED_FOR"]),
        (&"127.0.0.1".into(), &"192.0.2.7".into())
    );
}

#[test]
fn a_mount_redirects_to_where_the_client_asked() {
    let server = start(
        "mount = \"/em\"\nhosts = [\"shop.example\"]",
        &format!("[proxy]\ntrust = [\"127.0.0.1\"]\n{ALL}"),
    );
    // Routed by the host that the proxy tells.
    get(&server, "/em/", "Host: inner\r\n").expect(404);
    let told = "Host: inner\r\nX-Forwarded-Host: shop.example:8443\r\nX-Forwarded-Proto: https\r\n";
    let reply = get(&server, "/em?q=%20", told).expect(301);
    // A path alone: the client completes it with the scheme and the host that it has used, which no header can spoil.
    assert_eq!(reply.header("location"), Some("/em/?q=%20"));
    let reply = get(&server, "/em?q", &format!("{told}X-Forwarded-Prefix: /shop/\r\n")).expect(301);
    assert_eq!(reply.header("location"), Some("/shop/em/?q"));
    let seen = environ(&server, "/em/a", &format!("{told}X-Forwarded-Prefix: /shop\r\n"));
    assert_eq!(
        (&seen["SCRIPT_NAME"], &seen["PATH_INFO"]),
        (&"/shop/em".into(), &"/a".into())
    );
}
