//! What requests cost, as the log tells it; and instances that cannot go back to their snapshot.

use rustix::process::Signal;

use crate::client::PATIENCE;
use crate::server::{Server, config, folder};

fn serve(more: &str, format: &str) -> Server {
    let dir = folder(&config("canary", more));
    Server::start_in(dir, |command| {
        command.args(["--access-log", format]);
    })
}

/// Asks for a path; the value of each `name=` on its access line.
#[track_caller]
fn bill(server: &Server, path: &str, names: [&str; 5]) -> [String; 5] {
    let mark = server.log.mark();
    server.get(path).expect(200);
    let line = server.log.wait_for(mark, &format!("\"GET {path} HTTP/1.1\""));
    names.map(|name| {
        let words = line.split(' ').filter_map(|word| word.split_once('='));
        let found = words
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
            .next();
        found.unwrap_or_else(|| match name {
            "time" => line
                .split(' ')
                .find(|word| word.ends_with("ms"))
                .expect("a time")
                .to_owned(),
            _ => panic!("no {name} in {line:?}"),
        })
    })
}

fn number(text: &str, unit: &str) -> f64 {
    let number = text.strip_suffix(unit).and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("{text:?} is no number of {unit:?}"))
}

const NAMES: [&str; 5] = ["time", "cpu", "memory", "pages", "rewind"];

#[test]
fn a_worker_s_request_has_cpu_time_and_memory_on_its_bill() {
    let server = serve("workers = 1", "combined+bill");
    let [_, _, memory, pages, rewind] = bill(&server, "/", NAMES);
    // The least of some: a busy machine makes a request longer, never shorter.
    let times = (0..5).map(|_| number(&bill(&server, "/", NAMES)[1], "ms"));
    let cpu = times.fold(f64::MAX, f64::min);
    assert!(cpu > 0.0);
    assert_eq!((pages.as_str(), rewind.as_str()), ("-", "-"));
    let [_, more, grown, ..] = bill(&server, "/grow", NAMES);
    let (memory, grown) = (number(&memory, "KiB"), number(&grown, "KiB"));
    // 40 MiB, of which some was free.
    assert!(
        memory > 4096.0 && (24.0..48.0).contains(&((grown - memory) / 1024.0)),
        "{memory} to {grown}"
    );
    assert!(
        number(&more, "ms") > cpu,
        "filling 40 MiB took {more}, nothing {cpu} ms"
    );
}

#[test]
fn the_client_does_not_pay_for_the_rewind() {
    let server = serve(
        "workers = 1\nisolation = \"request\"\nverify-rewind = true",
        "combined+bill",
    );
    let bills: Vec<_> = (0..20).map(|_| bill(&server, "/", NAMES)).collect();
    let least = |of: &dyn Fn(&[String; 5]) -> f64| bills.iter().map(of).fold(f64::MAX, f64::min);
    // The comparison makes rewinds long enough to be seen in the time to the reply's end.
    let rewind = least(&|bill| number(&bill[4], "ms"));
    let waited = least(&|bill| number(&bill[0], "ms") - number(&bill[1], "ms"));
    assert!(rewind > 0.5, "all of memory was compared in {rewind} ms");
    assert!(
        waited < rewind / 2.0,
        "a rewind takes {rewind} ms, a reply {waited} ms longer than its app"
    );
    // A kernel that does not tell has none.
    let pages = bills
        .iter()
        .map(|bill| bill[3].as_str())
        .find(|pages| *pages != "-");
    assert!(
        pages.is_none_or(|pages| (10.0..2000.0).contains(&number(pages, ""))),
        "{pages:?}"
    );
}

#[test]
fn bills_can_be_json() {
    let server = serve("workers = 1\nisolation = \"request\"", "json+bill");
    server.get("/?bill").expect(200);
    let line = server.log.wait_for(0, "/?bill");
    let line: serde_json::Value =
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    for key in ["cpu_ms", "rewind_ms", "memory"] {
        assert!(
            line[key].as_f64().is_some_and(|value| value > 0.0),
            "{key}: {line}"
        );
    }
    assert!(
        line["memory"].as_u64().is_some_and(|bytes| bytes % 65536 == 0),
        "whole pages: {line}"
    );
}

#[test]
fn the_last_line_has_the_sums_and_a_growing_app_is_told_once() {
    let server = serve("workers = 1\nisolation = \"request\"\nmax-requests = 0", "off");
    for path in ["/", "/grow", "/", "/grow", "/"] {
        server.get(path).expect(200);
    }
    server.get("/fail").expect(500);
    server.signal(Signal::TERM);
    assert!(server.wait(PATIENCE).success());
    let last = server.log.wait_for(0, "app canary: requests: ");
    assert!(last.starts_with("app canary: requests: 6 (0."), "{last}");
    assert!(last.contains("; rewinds: 4 ("), "{last}");
    assert!(
        last.ends_with(" of them from the snapshot; dropped: 2 grown past the snapshot"),
        "{last}"
    );
    let told = server.log.all().matches("beyond its snapshot; worker ").count();
    assert_eq!(told, 1, "{}", server.log.all());
}
