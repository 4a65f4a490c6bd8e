//! Whatever fields come, what is read of them is well-formed, what nobody vouches for does not reach the app, and a client
//! that adds values of its own before those of a proxy changes nothing.
#![no_main]

use wasgi_protocol::forwarded::{FIELDS, Forwarded, Hops};
use wasgi_protocol::http::{Connection, Guard, Limits, Step};
use wasgi_protocol::{Head, environ};

/// Values as a client may invent them, for each of [`FIELDS`].
const INVENTED: &str = "X-Forwarded-For: 192.0.2.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: invented\r\n\
    X-Forwarded-Port: 6\r\nX-Forwarded-Prefix: /invented\r\nForwarded: for=192.0.2.6;proto=https;host=invented\r\n";

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // The first byte says which fields the proxies set, or that there are two of them.
    let Some((&set, fields)) = data.split_first() else {
        return;
    };
    let hops = match set {
        0xff => Hops([0, 0, 0, 0, 0, 2]),
        // Those who set Forwarded set none of the others.
        _ if set & 0x20 != 0 => Hops([0, 0, 0, 0, 0, 1]),
        _ => Hops([0, 1, 2, 3, 4, 5].map(|at| set >> at & 1)),
    };
    let Some(head) = head("", fields) else { return };
    let Ok(told) = Forwarded::read(&head, &hops) else {
        return;
    };
    check(&head, &told);

    let invented = head_with(fields);
    let told_after = invented.and_then(|head| Forwarded::read(&head, &hops).ok());
    if let Some(after) = told_after {
        assert!(told.client.is_none() || told.client == after.client, "client");
        assert!(told.scheme.is_none() || told.scheme == after.scheme, "scheme");
        assert!(told.host.is_none() || told.host == after.host, "host");
        assert!(told.port.is_none() || told.port == after.port, "port");
        assert!(told.prefix.is_empty() || told.prefix == after.prefix, "prefix");
    }
});

fn head_with(fields: &[u8]) -> Option<Head> {
    head(INVENTED, fields)
}

/// A request with these fields, if it can be one.
fn head(before: &str, fields: &[u8]) -> Option<Head> {
    let text = [
        b"GET / HTTP/1.1\r\nHost: inner\r\n",
        before.as_bytes(),
        fields,
        b"\r\n\r\n",
    ]
    .concat();
    match Guard::new(Limits { head: 64 << 10 }).step(&text) {
        Step::Head { head, .. } => Some(head.into()),
        _ => None,
    }
}

fn check(head: &Head, told: &Forwarded) {
    assert!(told.host.as_ref().is_none_or(|host| !host.is_empty()));
    assert!(told.port != Some(0));
    let prefix = &told.prefix;
    assert!(
        prefix.is_empty() || prefix.starts_with('/') && !prefix.starts_with("//") && !prefix.ends_with('/')
    );
    let connection = Connection {
        scheme: "http",
        remote: ("192.0.2.1", "40000"),
        server: Some(("127.0.0.1", "8000")),
        own_fields: &[],
        forwarded: Some(told),
    };
    for pair in environ::iter(&head.environ(&connection, "").unwrap_or_default()) {
        let (name, _) = pair.expect("the block is whole");
        let Some(field) = name.strip_prefix(b"HTTP_") else {
            continue;
        };
        assert!(!told.withheld.has(field), "{} is withheld", field.escape_ascii());
        assert!(FIELDS.len() == 6, "INVENTED has a line for each");
    }
}
