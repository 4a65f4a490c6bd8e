//! What the operator can ask for.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::requests::{self, Killed};
use super::token::Token;
use super::{apps, prometheus, stats};
use crate::log::{Tail, ascii_json};
use crate::run::Server;
use crate::runner::Runner;
use crate::site::Site;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Lines on their way to who follows a log.
const LINES: usize = 64;

/// Who may ask.
pub(super) enum Access {
    /// Who has got as far as this.
    All,
    /// Who shows the token; others learn whether the server lives and is ready.
    Token(Option<Arc<Token>>),
}

impl Access {
    fn allows<B>(&self, request: &Request<B>) -> bool {
        let token = match self {
            Access::All => return true,
            Access::Token(None) => return false,
            Access::Token(Some(token)) => token,
        };
        let shown = request.headers().get(header::AUTHORIZATION);
        shown.is_some_and(|value| token.is_shown(value.as_bytes()))
    }
}

/// The body of an answer.
pub(super) enum Answer {
    Whole(Option<Bytes>),
    /// Until the sender is gone.
    Lines(mpsc::Receiver<Bytes>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match self.get_mut() {
            Answer::Whole(data) => Poll::Ready(data.take()),
            Answer::Lines(lines) => lines.poll_recv(cx),
        };
        data.map(|data| data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Answer::Whole(None))
    }
}

/// Answers one request.
pub(super) async fn answer<B, R: Runner>(
    request: Request<B>,
    access: &Access,
    server: &Arc<Server<R>>,
) -> Response<Answer> {
    let path = request.uri().path();
    let reloaded = path
        .strip_prefix("/apps/")
        .and_then(|rest| rest.strip_suffix("/reload"));
    match reloaded.map(str::to_owned) {
        Some(name) if request.method() == Method::POST && access.allows(&request) => {
            drop(request);
            reload(name, server).await
        }
        _ => answer_now(&request, access, server),
    }
}

/// Loads an app anew; answered once that is done.
async fn reload<R: Runner>(name: String, server: &Arc<Server<R>>) -> Response<Answer> {
    let outcome = match server.reload() {
        Some(fleet) => fleet.reload(name.clone()).await,
        None => None,
    };
    match outcome {
        Some(Ok(())) => text(StatusCode::OK, &format!("app {name} is loaded anew")),
        Some(Err(why)) => text(
            StatusCode::CONFLICT,
            &format!("app {name} is not loaded anew, what was loaded before goes on: {why}"),
        ),
        None => text(StatusCode::NOT_FOUND, &format!("there is no app {name}")),
    }
}

fn answer_now<B, R: Runner>(
    request: &Request<B>,
    access: &Access,
    server: &Arc<Server<R>>,
) -> Response<Answer> {
    let path = request.uri().path();
    let is_read = [Method::GET, Method::HEAD].contains(request.method());
    match path {
        // The runtime that looks after the apps' sockets has come here: it lives.
        "/healthz" if is_read => return text(StatusCode::OK, "ok"),
        "/readyz" if is_read => {
            return match server.is_ready() {
                true => text(StatusCode::OK, "ok"),
                false => text(StatusCode::SERVICE_UNAVAILABLE, "not serving yet, or stopping"),
            };
        }
        _ => {}
    }
    if !access.allows(request) {
        let mut refusal = text(
            StatusCode::UNAUTHORIZED,
            "show the token of [admin]: Authorization: Bearer TOKEN",
        );
        let bearer = HeaderValue::from_static("Bearer");
        refusal.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        return refusal;
    }
    match path {
        "/metrics" if is_read => {
            let metrics = prometheus::metrics(&server.glances());
            of(StatusCode::OK, prometheus::CONTENT_TYPE, metrics)
        }
        "/stats" if is_read => json(&stats::stats(&server.glances())),
        "/apps" if is_read => json(&apps::apps(&server.glances())),
        "/requests" if is_read => json(&requests::requests(server)),
        "/kill" if request.method() == Method::POST => {
            kill(request.uri().query().unwrap_or_default(), server)
        }
        _ => match path.strip_prefix("/apps/").and_then(|rest| rest.rsplit_once('/')) {
            Some((name, action)) => of_app(request, server, name, action),
            None if ["/metrics", "/stats", "/apps", "/requests"].contains(&path) => {
                text(StatusCode::METHOD_NOT_ALLOWED, "this is read with GET")
            }
            None if path == "/kill" => {
                text(StatusCode::METHOD_NOT_ALLOWED, "this changes something: use POST")
            }
            None => text(
                StatusCode::NOT_FOUND,
                "there is /healthz, /readyz, /metrics, /stats, /apps, /requests, POST to /kill?ID and, for each app, \
                 /apps/NAME/log and POST to /apps/NAME/drain, resume, reload and rollback",
            ),
        },
    }
}

/// What is asked of one app. Names need no decoding: they are letters, digits, `.`, `_` and `-`.
fn of_app<B, R: Runner>(
    request: &Request<B>,
    server: &Arc<Server<R>>,
    name: &str,
    action: &str,
) -> Response<Answer> {
    let sites = server.routes().sites();
    let Some(site) = sites.iter().find(|site| **site.name() == *name) else {
        return text(StatusCode::NOT_FOUND, &format!("there is no app {name}"));
    };
    if action == "log" && request.method() == Method::GET {
        let follows = request.uri().query() == Some("follow");
        return log(server.log.tail(name), follows);
    }
    let act: fn(&Site<R>) -> Result<&'static str, &'static str> = match action {
        "drain" => |site| {
            site.drain();
            Ok("takes no more requests")
        },
        "resume" => |site| {
            site.resume();
            Ok("takes requests")
        },
        "rollback" => |site| match site.roll_back() {
            true => Ok("is as it was before its last load"),
            false => Err("has nothing to go back to: it has been loaded once"),
        },
        _ => {
            return text(
                StatusCode::NOT_FOUND,
                "an app has log, and for POST drain, resume, reload and rollback",
            );
        }
    };
    if request.method() != Method::POST {
        return text(StatusCode::METHOD_NOT_ALLOWED, "this changes something: use POST");
    }
    match act(site) {
        Ok(done) => {
            server.log.note(format_args!("app {name}: {action}: {done}"));
            text(StatusCode::OK, &format!("app {name} {done}"))
        }
        Err(why) => text(StatusCode::CONFLICT, &format!("app {name} {why}")),
    }
}

/// Ends a request. Ids need no decoding: what they are made of may stand in a query (RFC 3986 3.4).
fn kill<R: Runner>(named: &str, server: &Arc<Server<R>>) -> Response<Answer> {
    match requests::kill(server, named) {
        Killed::Of(app) => {
            server
                .log
                .note(format_args!("app {app}: kill: request {named} is ended"));
            text(StatusCode::OK, &format!("app {app}: request {named} is ended"))
        }
        Killed::Unknown => text(
            StatusCode::NOT_FOUND,
            &format!("there is no request {named}: it may be over by now"),
        ),
        Killed::Ambiguous(apps) => text(
            StatusCode::CONFLICT,
            &format!(
                "several apps have a request {named}: say APP/ID, with one of {}",
                apps.join(", ")
            ),
        ),
    }
}

/// The last lines of an app's log, and those that come until the client goes.
fn log(Tail { recent, mut lines }: Tail, follows: bool) -> Response<Answer> {
    let mut there = recent.join("\n");
    if !there.is_empty() {
        there.push('\n');
    }
    if !follows {
        return of(StatusCode::OK, TEXT, there);
    }
    let (to, from) = mpsc::channel(LINES);
    tokio::spawn(async move {
        if !there.is_empty() && to.send(Bytes::from(there)).await.is_err() {
            return;
        }
        loop {
            let line = tokio::select! {
                line = lines.recv() => line,
                () = to.closed() => return,
            };
            let line = match line {
                Ok(line) => format!("{line}\n"),
                Err(RecvError::Lagged(missed)) => format!("({missed} lines missed)\n"),
                Err(RecvError::Closed) => return,
            };
            if to.send(Bytes::from(line)).await.is_err() {
                return;
            }
        }
    });
    with_type(Response::new(Answer::Lines(from)), TEXT)
}

fn json(value: &Value) -> Response<Answer> {
    of(StatusCode::OK, JSON, ascii_json(value))
}

fn text(status: StatusCode, what: &str) -> Response<Answer> {
    of(status, TEXT, format!("{what}\n"))
}

fn of(status: StatusCode, content_type: &'static str, body: String) -> Response<Answer> {
    let mut response = Response::new(Answer::Whole(Some(Bytes::from(body))));
    *response.status_mut() = status;
    with_type(response, content_type)
}

fn with_type(mut response: Response<Answer>, content_type: &'static str) -> Response<Answer> {
    let value = HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}
