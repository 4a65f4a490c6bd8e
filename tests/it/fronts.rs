//! Real web servers in front, with the configuration files of examples: the same list for each server, protocol and kind of
//! socket.

mod list;
mod servers;

use std::thread;

use list::{Item, Place};
use rustix::process::Signal;
use servers::{Ports, Program};

use crate::client::PATIENCE;
use crate::server::{Server, app_folder, packages};

/// An item that does not go as on the list, the reason, and what is to be seen instead.
type Instead = (Item, &'static str, fn(&Place));

/// One way through a web server.
struct Row {
    name: &'static str,
    /// Its port in the example.
    port: u16,
    instead: &'static [Instead],
}

const fn row(name: &'static str, port: u16) -> Row {
    Row {
        name,
        port,
        instead: &[],
    }
}

/// wasgi with a socket for each protocol, TCP and unix, below `dir`.
fn backend(program: &Program, ports: &Ports) -> String {
    let (root, packages, dir) = (app_folder("fronts"), packages(), program.dir());
    let both = |written, name: &str| {
        let dir = dir.display();
        format!(
            "[\"127.0.0.1:{}\", \"unix:{dir}/{name}.sock\"]",
            ports.of(written)
        )
    };
    format!(
        "[listen]\nhttp = {}\nuwsgi = {}\nfastcgi = {}\nscgi = {}\n\
         [app]\nname = \"fronts\"\nroot = {root:?}\nmodule = \"app:app\"\npython-path = [{packages:?}]\nmount = \"/em\"\n\
         workers = 4\nsnapshot-cache = true\n[files]\n\"/data\" = {{ path = {:?}, write = true }}\n\
         [limits]\nrequest-body = \"32MiB\"\n[proxy]\ntrust = [\"unix\", \"127.0.0.1\"]\n",
        both(8000, "http"),
        both(3031, "uwsgi"),
        both(9000, "fastcgi"),
        both(4000, "scgi"),
        dir.join("data"),
    )
}

/// Takes all rows of a server through the list side by side, and then through an end and a new start of wasgi.
fn all_go_through(start: fn(&Ports) -> Program, rows: &[Row]) {
    let ports = Ports::new(rows.iter().map(|row| row.port));
    let program = start(&ports);
    let toml = backend(&program, &ports);
    let server = Server::start(&toml);
    let places: Vec<_> = rows
        .iter()
        .map(|row| Place::new(row.name, ports.of(row.port), program.dir().join("data")))
        .collect();
    let side_by_side = |go: &(dyn Fn(&Row, &Place) + Sync)| {
        thread::scope(|scope| {
            for (row, place) in rows.iter().zip(&places) {
                scope.spawn(move || {
                    program_told(place, || go(row, place));
                });
            }
        });
    };
    side_by_side(&|row, place| {
        place.wait_until_it_listens();
        for item in Item::ALL {
            match row.instead.iter().find(|(other, ..)| *other == item) {
                None => item.go(place),
                Some((_, _, instead)) => instead(place),
            }
        }
    });
    let log = server.log.all();
    for complaint in ["AssertionError", "WSGIWarning"] {
        assert!(!log.contains(complaint), "wsgiref.validate complains: {log}");
    }
    server.signal(Signal::TERM);
    server.wait(PATIENCE);
    // Those that start it themselves do not miss it.
    let misses_it = |row: &Row| !row.name.ends_with("CGI program");
    side_by_side(&|row, place| {
        if misses_it(row) {
            list::fails_meanwhile(place);
        }
    });
    let _server = Server::start(&toml);
    side_by_side(&|_, place| list::goes_on(place));
}

/// Says which row it was that failed.
fn program_told(place: &Place, go: impl FnOnce()) {
    let told = Told(place.name);
    go();
    std::mem::forget(told);
}

struct Told(&'static str);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("this was: {}", self.0);
    }
}

const UNIX_HAS_NO_RESET: &str =
    "a reply over uwsgi and SCGI ends with its connection, and unix sockets have no reset";

#[test]
fn nginx() {
    let rows = [
        row("nginx, HTTP, unix", 8081),
        Row {
            name: "nginx, uwsgi, unix",
            port: 8082,
            instead: &[(Item::Cut, UNIX_HAS_NO_RESET, list::cut_unseen)],
        },
        Row {
            name: "nginx, SCGI, unix",
            port: 8083,
            instead: &[(Item::Cut, UNIX_HAS_NO_RESET, list::cut_unseen)],
        },
        row("nginx, FastCGI, unix", 8084),
        row("nginx, uwsgi with modifier1 30, TCP", 8085),
    ];
    all_go_through(servers::nginx, &rows);
}

const APACHE_WANTS_LENGTH: &str = "mod_proxy_uwsgi and mod_proxy_scgi read a body by its length alone (REQUEST_CHUNKED_ERROR in their source)";

const CGI_HAS_NO_END: &str = "mod_cgi looks at no exit code: what a program has written is the reply";

#[test]
fn apache() {
    let rows = [
        row("Apache, HTTP, TCP", 8091),
        Row {
            name: "Apache, uwsgi, TCP",
            port: 8092,
            instead: &[(Item::ChunkedUpload, APACHE_WANTS_LENGTH, list::length_required)],
        },
        row("Apache, FastCGI, TCP", 8093),
        Row {
            name: "Apache, SCGI, TCP",
            port: 8094,
            instead: &[(Item::ChunkedUpload, APACHE_WANTS_LENGTH, list::length_required)],
        },
        Row {
            name: "Apache, CGI program",
            port: 8095,
            instead: &[
                (Item::Cut, CGI_HAS_NO_END, list::cut_unseen),
                (Item::Many, "there is no connection to keep", list::some),
            ],
        },
    ];
    all_go_through(servers::apache, &rows);
}

const LIGHTTPD_MAY_END_WELL: &str =
    "lighttpd takes what has come for a whole reply if wasgi's end ends before it has sent anything on";

#[test]
fn lighttpd() {
    const INSTEAD: &[Instead] = &[(Item::Cut, LIGHTTPD_MAY_END_WELL, list::cut_perhaps_unseen)];
    let row = |name, port| Row {
        name,
        port,
        instead: INSTEAD,
    };
    let rows = [
        row("lighttpd, FastCGI, unix", 8101),
        row("lighttpd, SCGI, unix", 8102),
        row("lighttpd, uwsgi, TCP", 8103),
    ];
    all_go_through(servers::lighttpd, &rows);
}

const HAPROXY_WANTS_LENGTH: &str =
    "HAProxy has a body without a length go over FastCGI only if it is there as a whole, within a buffer";

#[test]
fn haproxy() {
    let rows = [
        row("HAProxy, HTTP, unix", 8111),
        Row {
            name: "HAProxy, FastCGI, unix",
            port: 8112,
            instead: &[(Item::ChunkedUpload, HAPROXY_WANTS_LENGTH, list::bad_request)],
        },
    ];
    all_go_through(servers::haproxy, &rows);
}

const CADDY_ENDS_WELL: &str = "Caddy 2.6 logs a reply that fails midway, and ends it as if it were whole";

#[test]
fn caddy() {
    let rows = [
        Row {
            name: "Caddy, HTTP, unix",
            port: 8121,
            instead: &[(Item::Cut, CADDY_ENDS_WELL, list::cut_unseen)],
        },
        Row {
            name: "Caddy, FastCGI, unix",
            port: 8122,
            instead: &[(Item::Cut, CADDY_ENDS_WELL, list::cut_unseen)],
        },
    ];
    all_go_through(servers::caddy, &rows);
}
