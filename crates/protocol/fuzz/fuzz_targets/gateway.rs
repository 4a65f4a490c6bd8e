//! How uwsgi packets and SCGI requests are split makes no difference to what is found in them, and every head found makes
//! a well-formed environ block without what no peer may say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wasgi_protocol::environ;
use wasgi_protocol::gateway::{Head, Refusal};
use wasgi_protocol::http::Connection;
use wasgi_protocol::{scgi, uwsgi};

const CONNECTION: Connection<'_> =
    Connection { scheme: "http", remote: ("192.0.2.1", "40000"), server: None, own_fields: &[], forwarded: None };

type Wire = fn(&[u8], usize) -> Result<Option<(Head, usize)>, Refusal>;

fn found<'a>(wire: Wire, pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<Result<(Head, usize), Refusal>> {
    let mut input = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        if let Some(found) = wire(&input, 4096).transpose() {
            if let Ok((head, used)) = &found {
                assert!(*used <= input.len());
                if let Ok(block) = head.environ(&CONNECTION, "") {
                    for pair in environ::iter(&block) {
                        let (name, _) = pair.expect("the block is whole");
                        assert!(!name.starts_with(b"wsgi.") && !name.starts_with(b"UWSGI_") && name != b"HTTP_PROXY");
                    }
                }
            }
            return Some(found);
        }
        assert!(input.len() <= 4096 + 10 + piece.len(), "bounded");
    }
    None
}

fuzz_target!(|data: &[u8]| {
    // The first two bytes say which wire, and where to split.
    let [which, at, data @ ..] = data else { return };
    let wire: Wire = if which & 1 == 0 { uwsgi::head } else { scgi::head };
    let at = usize::from(*at) % (data.len() + 1);
    let whole = found(wire, [data]);
    assert_eq!(found(wire, [&data[..at], &data[at..]]), whole);
    assert_eq!(found(wire, data.chunks(1)), whole);
});
