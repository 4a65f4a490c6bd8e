//! From the bytes of a request to its environ block.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wasgi_protocol::http::{Connection, Guard, Head, Limits, Step};

/// What a load generator sends.
const SMALL: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n";

/// What a browser sends: long fields, cookies, a query, escapes in the path.
const BROWSER: &[u8] = b"GET /notes/caf%C3%A9%20list?page=2&sort=title HTTP/1.1\r\n\
    Host: notes.example.org\r\n\
    Connection: keep-alive\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://notes.example.org/notes/\r\n\
    Cookie: session=eyJjc3JmX3Rva2VuIjoiNTY3ZGU0In0.Zx1v2Q.kq1Jt0l0u6o8bq4J5pYk1tJm2cQ; theme=dark\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-User: ?1\r\n\
    Priority: u=0, i\r\n\r\n";

const CONNECTION: Connection<'static> = Connection {
    scheme: "http",
    remote: ("127.0.0.1", "54321"),
    server: Some(("127.0.0.1", "8000")),
    own_fields: &[],
    forwarded: None,
};

fn head(bytes: &[u8]) -> Head {
    let Step::Head { head, .. } = Guard::new(Limits { head: 64 << 10 }).step(bytes) else {
        panic!("not a whole head");
    };
    head
}

fn benches(criterion: &mut Criterion) {
    for (name, bytes) in [("small", SMALL), ("browser", BROWSER)] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function("read and check the head", |bencher| {
            bencher.iter(|| head(black_box(bytes)))
        });
        let head = head(bytes);
        group.bench_function("make the environ block", |bencher| {
            bencher.iter(|| black_box(&head).environ(&CONNECTION, "").expect("fits"));
        });
    }
}

criterion_group!(all, benches);
criterion_main!(all);
