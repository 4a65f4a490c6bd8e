use super::*;
use crate::environ::{EnvironBlock, iter};
use crate::gateway::{self, Paths, Rules};
use crate::http::{Connection, Guard, Limits, Step};

const X: Hops = Hops([1, 1, 1, 1, 1, 0]);
const FORWARDED: Hops = Hops([0, 0, 0, 0, 0, 1]);

fn head(fields: &str) -> Head {
    let text = format!("GET / HTTP/1.1\r\nHost: inner\r\n{fields}\r\n");
    match Guard::new(Limits { head: 1 << 20 }).step(text.as_bytes()) {
        Step::Head { head, .. } => head.into(),
        other => panic!("{text}: {other:?}"),
    }
}

fn read(fields: &str, hops: Hops) -> Result<Forwarded, Unclear> {
    Forwarded::read(&head(fields), &hops)
}

fn client(value: &str, hops: u8) -> Option<(String, String)> {
    let fields = format!("X-Forwarded-For: {value}\r\n");
    let found = read(&fields, Hops([hops, 0, 0, 0, 0, 0])).unwrap();
    found.client.map(Client::texts)
}

fn texts(address: &str, port: &str) -> Option<(String, String)> {
    Some((address.to_owned(), port.to_owned()))
}

#[test]
fn values_are_counted_from_the_right_whatever_a_client_puts_before_them() {
    for before in [
        "",
        "6.6.6.6, ",
        ",,, ,",
        "\"open, ",
        "\"open\\, ",
        "unknown, for=\", ",
        "\x09\x09,",
        "\u{e9},",
        &"6.6.6.6,".repeat(5000),
    ] {
        assert_eq!(
            client(&format!("{before}192.0.2.7"), 1),
            texts("192.0.2.7", ""),
            "{before:?}"
        );
        let two = format!("{before}192.0.2.7, 10.0.0.2");
        assert_eq!(client(&two, 2), texts("192.0.2.7", ""), "{before:?}");
    }
    let lines = "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 192.0.2.7\r\nX-Forwarded-For: 10.0.0.2\r\n";
    let found = read(lines, Hops([2, 0, 0, 0, 0, 0])).unwrap();
    assert_eq!(found.client.unwrap().texts().0, "192.0.2.7", "lines are one list");
}

#[test]
fn fewer_values_than_hops_are_none() {
    assert_eq!(client("192.0.2.7", 2), None);
    assert_eq!(client("", 1), None);
    assert_eq!(
        client("192.0.2.7,", 2),
        None,
        "a comma at the end is followed by no value"
    );
    assert_eq!(
        read("", X).unwrap(),
        Forwarded {
            withheld: Withheld(1 << 5),
            ..Forwarded::default()
        }
    );
}

#[test]
fn clients_are_addresses_with_or_without_ports_or_unknown() {
    for (value, expected) in [
        ("192.0.2.7:4711", texts("192.0.2.7", "4711")),
        ("2001:DB8:0::7", texts("2001:db8::7", "")),
        ("[2001:db8::7]", texts("2001:db8::7", "")),
        ("[2001:db8::7]:4711", texts("2001:db8::7", "4711")),
        ("\"[2001:db8::7]:4711\"", texts("2001:db8::7", "4711")),
        ("::ffff:192.0.2.7", texts("192.0.2.7", "")),
        ("192.0.2.7:_port", texts("192.0.2.7", "")),
        ("192.0.2.7:+80", texts("192.0.2.7", "")),
        ("192.0.2.7:65536", texts("192.0.2.7", "")),
        ("unknown", texts("", "")),
        ("_gazonk", texts("", "")),
        ("unix:", texts("", "")),
        ("192.0.2.256", texts("", "")),
        ("192.0.2.07", texts("", "")),
        ("[192.0.2.7]", texts("", "")),
        ("[::1", texts("", "")),
        ("[::1]80", texts("", "")),
        ("fe80::1%eth0", texts("", "")),
        ("localhost", texts("", "")),
        ("127.0.0.1\u{e9}", texts("", "")),
    ] {
        assert_eq!(client(value, 1), expected, "{value}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (field, unclear) in [
        ("X-Forwarded-Proto: ftp", Unclear::Scheme),
        ("X-Forwarded-Proto: https://", Unclear::Scheme),
        ("X-Forwarded-Host: a/b", Unclear::Host),
        ("X-Forwarded-Host: u@a", Unclear::Host),
        ("X-Forwarded-Host: :80", Unclear::Host),
        ("X-Forwarded-Host: a:65536", Unclear::Host),
        ("X-Forwarded-Port: 0", Unclear::Port),
        ("X-Forwarded-Port: +443", Unclear::Port),
        ("X-Forwarded-Port: 65536", Unclear::Port),
        ("X-Forwarded-Prefix: em", Unclear::Prefix),
        ("X-Forwarded-Prefix: //evil.example", Unclear::Prefix),
        ("X-Forwarded-Prefix: /\\evil.example", Unclear::Prefix),
        ("X-Forwarded-Prefix: /a?b", Unclear::Prefix),
        ("X-Forwarded-Prefix: /a b", Unclear::Prefix),
        ("X-Forwarded-Prefix: http://a/", Unclear::Prefix),
    ] {
        assert_eq!(read(&format!("{field}\r\n"), X), Err(unclear), "{field}");
        assert!(
            read(&format!("{field}\r\n"), Hops::default()).is_ok(),
            "{field}: not looked at"
        );
    }
    for (value, prefix) in [
        ("/em", "/em"),
        ("/em/", "/em"),
        ("/", ""),
        ("//", ""),
        ("/a/b%20c//", "/a/b%20c"),
    ] {
        let found = read(&format!("X-Forwarded-Prefix: {value}\r\n"), X).unwrap();
        assert_eq!(found.prefix, prefix, "{value}");
    }
}

#[test]
fn forwarded_is_read_as_rfc_7239_has_it() {
    // Sections 4 and 6.
    for (value, client, proto, host) in [
        ("for=192.0.2.43", texts("192.0.2.43", ""), None, None),
        (
            "For=\"[2001:db8:cafe::17]:4711\"",
            texts("2001:db8:cafe::17", "4711"),
            None,
            None,
        ),
        (
            "for=192.0.2.60;proto=http;by=203.0.113.43",
            texts("192.0.2.60", ""),
            Some("http"),
            None,
        ),
        (
            "for=192.0.2.43, for=198.51.100.17",
            texts("198.51.100.17", ""),
            None,
            None,
        ),
        ("for=\"_gazonk\"", texts("", ""), None, None),
        ("for=unknown", texts("", ""), None, None),
        (
            "for=\"192.0.2.43:47011\"",
            texts("192.0.2.43", "47011"),
            None,
            None,
        ),
        (
            "for=_SEVKISEK; host=\"a.example:8443\" ;PROTO=HTTPS",
            texts("", ""),
            Some("https"),
            Some("a.example:8443"),
        ),
        ("for=\"19\\2.0.2.\\43\"", texts("192.0.2.43", ""), None, None),
        (";;for=192.0.2.43;, ,", texts("192.0.2.43", ""), None, None),
        ("secret=\"a, for=6.6.6.6\"", None, None, None),
        ("", None, None, None),
    ] {
        let found = read(&format!("Forwarded: {value}\r\n"), FORWARDED).unwrap();
        assert_eq!(found.client.map(Client::texts), client, "{value}");
        assert_eq!((found.scheme, found.host.as_deref()), (proto, host), "{value}");
    }
    let lines = "Forwarded: for=6.6.6.6, for=192.0.2.7\r\nForwarded: for=10.0.0.2\r\n";
    let found = read(lines, Hops([0, 0, 0, 0, 0, 2])).unwrap();
    assert_eq!(found.client.map(Client::texts), texts("192.0.2.7", ""));
    let found = read(lines, Hops([0, 0, 0, 0, 0, 4])).unwrap();
    assert_eq!(found.client, None);
}

#[test]
fn a_forwarded_field_that_is_none_hides_nobody() {
    for value in [
        "for=\"open, for=192.0.2.7",
        "for=\"open\\, for=192.0.2.7",
        "for=\"a\"b, for=192.0.2.7",
        "for, for=192.0.2.7",
        "for=, for=192.0.2.7",
        "=a, for=192.0.2.7",
        "for=a b, for=192.0.2.7",
        "for=[::1], for=192.0.2.7",
        "for=1.1.1.1;for=2.2.2.2, for=192.0.2.7",
        "for = a, for=192.0.2.7",
        "\u{e9}, for=192.0.2.7",
    ] {
        assert_eq!(
            read(&format!("Forwarded: {value}\r\n"), FORWARDED),
            Err(Unclear::Syntax),
            "{value}"
        );
    }
    // A quote does not go on in the next line.
    let lines = "Forwarded: for=\"\r\nForwarded: \", for=192.0.2.7\r\n";
    assert_eq!(read(lines, FORWARDED), Err(Unclear::Syntax));
}

#[test]
fn whatever_stands_left_of_ours_changes_nothing_or_is_refused() {
    // xorshift: the same texts each time.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut draw = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    const PIECES: [&str; 17] = [
        ",",
        ";",
        "=",
        "\"",
        "\\",
        " ",
        "for",
        "proto",
        "host",
        "1.1.1.1",
        "[::1]:80",
        "unknown",
        "_x",
        "https",
        "\t",
        "\r\nNAME: ",
        "by=",
    ];
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let noise: String = (0..draw(12)).map(|_| PIECES[draw(PIECES.len())]).collect();
        let ours = "for=192.0.2.7;proto=https;host=a.example";
        // Once on a line of our own, once behind theirs.
        let joint = ["\r\nNAME: ", ", "][draw(2)];
        let fields = format!("NAME: {noise}{joint}{ours}\r\n").replace("NAME", "Forwarded");
        match read(&fields, FORWARDED) {
            Ok(found) => {
                assert_eq!(
                    found.client.map(Client::texts),
                    texts("192.0.2.7", ""),
                    "{fields:?}"
                );
                assert_eq!(
                    (found.scheme, found.host.as_deref()),
                    (Some("https"), Some("a.example"))
                );
                taken += 1;
            }
            Err(unclear) => {
                assert_eq!(unclear, Unclear::Syntax, "{fields:?}");
                refused += 1;
            }
        }
        let fields = format!("NAME: {noise}\r\nNAME: 192.0.2.7\r\n").replace("NAME", FIELDS[0]);
        let found = read(&fields, Hops([1, 0, 0, 0, 0, 0])).unwrap();
        assert_eq!(
            found.client.map(Client::texts),
            texts("192.0.2.7", ""),
            "{fields:?}"
        );
    }
    assert!(taken > 1000 && refused > 1000, "{taken} taken, {refused} refused");
}

#[test]
fn fields_without_hops_are_withheld() {
    let found = read("", Hops([1, 0, 0, 0, 2, 0])).unwrap();
    let withheld: Vec<_> = FIELDS
        .iter()
        .filter(|field| found.withheld.has(field.as_bytes()))
        .collect();
    assert_eq!(
        withheld,
        [
            &"x-forwarded-proto",
            &"x-forwarded-host",
            &"x-forwarded-port",
            &"forwarded"
        ]
    );
    assert!(FIELDS.iter().all(|field| {
        Forwarded::by_a_stranger()
            .withheld
            .has(field.to_uppercase().as_bytes())
    }));
    assert!(Withheld::ALL.has(b"X_FORWARDED_FOR"), "as environ keys have it");
    assert!(!Withheld::ALL.has(b"x-forwarded") && !Withheld::default().has(b"forwarded"));
}

#[test]
fn a_proxy_before_a_web_server_that_sends_variables_counts_alike() {
    let mut block = EnvironBlock::default();
    for (name, value) in [
        ("REQUEST_METHOD", "GET"),
        ("SCRIPT_NAME", "/em"),
        ("PATH_INFO", "/a"),
        ("REMOTE_ADDR", "10.0.0.2"),
        ("REMOTE_PORT", "4000"),
        ("REQUEST_SCHEME", "http"),
        ("SERVER_NAME", "inner"),
        ("SERVER_PORT", "80"),
        ("HTTP_HOST", "inner"),
        ("HTTP_X_FORWARDED_FOR", "6.6.6.6, 192.0.2.7"),
        ("HTTP_X_FORWARDED_PROTO", "https"),
        ("HTTP_X_FORWARDED_HOST", "shop.example"),
        ("HTTP_X_FORWARDED_PORT", "8443"),
        ("HTTP_X_FORWARDED_PREFIX", "/shop"),
        ("HTTP_FORWARDED", "for=6.6.6.6"),
    ] {
        block.push(name.as_bytes(), value.as_bytes()).unwrap();
    }
    let head: Head = gateway::Head::new(block.into_bytes(), Rules::of(Paths::Split))
        .unwrap()
        .into();
    let environ = |told: &Forwarded| {
        let connection = Connection {
            scheme: "http",
            remote: ("", ""),
            server: None,
            own_fields: &[],
            forwarded: Some(told),
        };
        let block = head.environ(&connection, "").unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let pairs = iter(&block).map(Result::unwrap);
        let mut pairs: Vec<_> = pairs
            .map(|(name, value)| text(name) + "=" + &text(value))
            .collect();
        pairs.sort();
        pairs.join("\n")
    };
    let told = Forwarded::read(&head, &X).unwrap();
    assert_eq!(
        environ(&told),
        "HTTP_HOST=shop.example:8443\nHTTP_X_FORWARDED_FOR=6.6.6.6, 192.0.2.7\nHTTP_X_FORWARDED_HOST=shop.example\n\
         HTTP_X_FORWARDED_PORT=8443\nHTTP_X_FORWARDED_PREFIX=/shop\nHTTP_X_FORWARDED_PROTO=https\nPATH_INFO=/a\n\
         QUERY_STRING=\nREMOTE_ADDR=192.0.2.7\nREMOTE_PORT=\nREQUEST_METHOD=GET\nREQUEST_SCHEME=https\n\
         REQUEST_URI=/em/a\nSCRIPT_NAME=/shop/em\nSERVER_NAME=shop.example\nSERVER_PORT=8443\nSERVER_PROTOCOL=HTTP/1.0"
    );
    assert_eq!(
        environ(&Forwarded::by_a_stranger()),
        "HTTP_HOST=inner\nPATH_INFO=/a\nQUERY_STRING=\nREMOTE_ADDR=10.0.0.2\nREMOTE_PORT=4000\nREQUEST_METHOD=GET\n\
         REQUEST_SCHEME=http\nREQUEST_URI=/em/a\nSCRIPT_NAME=/em\nSERVER_NAME=inner\nSERVER_PORT=80\n\
         SERVER_PROTOCOL=HTTP/1.0"
    );
}
