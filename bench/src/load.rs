//! wrk, and what it found.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::apps::{App, UPLOAD};
use crate::place::Place;
use crate::process::Running;

/// Open at a time.
pub const CONNECTIONS: usize = 8;

/// One stretch of load on one server.
#[derive(Clone, Debug)]
pub struct Load {
    /// Replies that came.
    pub requests: u64,
    /// Per second.
    pub rate: f64,
    /// Median latency, in milliseconds.
    pub p50: f64,
    /// In milliseconds.
    pub p99: f64,
    /// CPU time of the server per request, in microseconds; in steps of 10 ms over the whole stretch.
    pub cpu: f64,
    /// Broken connections, time-outs and statuses of 400 and above; empty if all was well.
    pub errors: Vec<(&'static str, u64)>,
}

impl Load {
    /// Puts load on a server for a time.
    ///
    /// # Errors
    /// If wrk does not run.
    pub fn put(
        place: &Place,
        running: &Running,
        app: &App,
        connections: usize,
        time: Duration,
    ) -> Result<Self, String> {
        Self::put_on(
            place,
            running,
            "",
            app.uploads.then_some(UPLOAD),
            connections,
            time,
        )
    }

    /// As [`put`](Self::put), on a path without its slash; `upload` is the size of a body to send.
    ///
    /// # Errors
    /// If wrk does not run.
    pub fn put_on(
        place: &Place,
        running: &Running,
        path: &str,
        upload: Option<usize>,
        connections: usize,
        time: Duration,
    ) -> Result<Self, String> {
        let mut command = Command::new("wrk");
        let seconds = time.as_secs();
        command.args(["--threads", "1", "--timeout", "10s", "--latency"]);
        command.args([
            "--connections",
            &connections.to_string(),
            "--duration",
            &format!("{seconds}s"),
        ]);
        command.arg("--script").arg(place.root.join("bench/load.lua"));
        command
            .arg(format!("http://127.0.0.1:{}/{path}", running.port))
            .arg("--");
        if let Some(size) = upload {
            command.arg(size.to_string());
        }
        let before = running.cpu();
        let output = command.output().map_err(|error| format!("wrk: {error}"))?;
        let cpu = running.cpu().saturating_sub(before);
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().rfind(|line| line.starts_with('{'));
        let said: Value = line
            .and_then(|line| serde_json::from_str(line).ok())
            .ok_or_else(|| {
                let error = String::from_utf8_lossy(&output.stderr).into_owned();
                format!("wrk: {}", error.lines().next().unwrap_or("no figures"))
            })?;
        let figure = |name: &str| said[name].as_f64().unwrap_or(0.0);
        let requests = said["requests"].as_u64().unwrap_or(0);
        let kinds = ["connect", "read", "write", "timeout", "status"];
        let errors = kinds.map(|kind| (kind, said[kind].as_u64().unwrap_or(0)));
        Ok(Self {
            requests,
            rate: requests as f64 / (figure("microseconds") / 1e6),
            p50: figure("p50") / 1e3,
            p99: figure("p99") / 1e3,
            cpu: cpu.as_secs_f64() * 1e6 / requests.max(1) as f64,
            errors: errors.into_iter().filter(|(_, count)| *count > 0).collect(),
        })
    }

    /// Why the figures do not count, if they don't.
    pub fn failure(&self) -> Option<String> {
        if self.requests == 0 {
            return Some("no reply under load".into());
        }
        let kinds: Vec<_> = self
            .errors
            .iter()
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        (!kinds.is_empty()).then(|| format!("errors in {} requests: {}", self.requests, kinds.join(", ")))
    }

    /// For the results.
    pub fn to_json(&self) -> Value {
        json!({
            "requests": self.requests,
            "requests_per_second": self.rate.round(),
            "p50_ms": self.p50,
            "p99_ms": self.p99,
            "cpu_us_per_request": self.cpu.round(),
            "errors": self.errors.iter().map(|(kind, count)| (kind.to_string(), json!(count))).collect::<serde_json::Map<_, _>>(),
        })
    }
}
