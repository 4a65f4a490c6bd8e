//! PEP 3333, clause by clause, as the client and the log see it.

use std::sync::LazyLock;

use crate::server::{Server, config};

mod body;
mod closing;
mod environ;
mod head;
mod input;
mod validator;

/// One worker, since some paths look back at what an earlier request did.
static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start(&config("pep3333", "workers = 1")));

fn server() -> &'static Server {
    &SERVER
}

/// A 500 that tells the client nothing of the app, with `said` in the log.
#[track_caller]
fn expect_refused(target: &str, said: &str) {
    let mark = server().log.mark();
    let reply = server().get(target).expect(500);
    let text = reply.text();
    assert!(
        !text.contains("Traceback") && !text.contains("Error:") && !text.contains(".py"),
        "{text}"
    );
    server().log.wait_for(mark, said);
    server().get("/ok").expect(200);
}

/// A 200 whose body stops without its end, with `said` in the log.
#[track_caller]
fn expect_cut(target: &str, start: &str, said: &str) {
    let mark = server().log.mark();
    let reply = server().get(target);
    assert_eq!(reply.status(), 200);
    assert!(!reply.complete, "the reply looks complete: {:?}", reply.text());
    assert_eq!(reply.text(), start);
    server().log.wait_for(mark, said);
    server().get("/ok").expect(200);
}
