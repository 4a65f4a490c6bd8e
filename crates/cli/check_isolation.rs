//! `wasgi check --isolation`: would the app answer differently if each request started afresh?

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, anyhow};
use clap::ArgMatches;
use wasgi_engine::{App, AppLog, Isolation, Kept, Request, RewindError};
use wasgi_server::{AccessFormat, Log, Threads};

use crate::app_options::Chosen;
use crate::difference::{Replies, Verdict, judge};
use crate::failure::Failure;
use crate::serve::LAST_LINES;
use crate::{hosted, interpreter, spec};

/// Requests for each path in a run. There are four runs: two of fresh starts, two of a worker.
const ROUNDS: usize = 5;

/// Bytes of a body that are compared in words; the rest is compared as a whole.
const KEPT: usize = 1 << 20;

/// Longest path, as the environ has it.
const LONGEST: usize = 8 << 10;

pub(crate) fn run(matches: &ArgMatches, Chosen { label, config, .. }: &Chosen) -> Result<ExitCode, Failure> {
    let paths = paths(matches, &config.app.warmup)?;
    let log = Log::to_stderr(AccessFormat::Off).context("cannot start the log")?;
    let engine = interpreter::engine(matches, None)?;
    // Both kinds of run from one import: what the app draws at random there is then the same.
    let mut spec = spec::spec(config);
    spec.isolation = Isolation::Request;
    let said = Arc::new(Once {
        log: log.app(&config.app.name),
        over: AtomicBool::new(false),
    });
    let app = engine.app(spec, Arc::clone(&said) as Arc<dyn AppLog>);
    let threads = Threads::start().context("cannot start")?;
    let findings = threads.block_on(find(&app, &paths, &said));
    log.flush(LAST_LINES);
    let findings = findings.map_err(|stopped| match stopped {
        Stopped::Start(error) => hosted::not_started(label, error),
        Stopped::Differs(error) => anyhow!(error).context(label.clone()).into(),
    })?;
    let mut differing = 0;
    for (path, finding) in paths.iter().zip(&findings) {
        let verdict = judge(&finding.replies);
        differing += usize::from(verdict.difference.is_some());
        println!("{path}: {}", finding.words(&verdict));
    }
    let count = paths.len();
    if differing > 0 {
        return Err(Failure::Failed(
            anyhow!("{label}: isolation makes a difference to {differing} of {count} paths"),
            Some(
                "with isolation = \"request\" a request finds nothing of what others left in globals, caches and /tmp: \
                 keep it in a folder of [files], a database or a cookie, or serve with isolation = \"worker\""
                    .to_owned(),
            ),
        ));
    }
    println!("{label}: ok (isolation makes no difference; paths: {count}, rounds: {ROUNDS})");
    Ok(ExitCode::SUCCESS)
}

/// Those of `--path`, else the warm-up paths, else `/`.
fn paths(matches: &ArgMatches, warmup: &[String]) -> Result<Vec<String>, Failure> {
    let named: Vec<_> = matches
        .get_many::<String>("path")
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    if let Some(bad) = named.iter().find(|path| {
        !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) || path.len() > LONGEST
    }) {
        return Err(Failure::Usage(format!(
            "--path: `{}` is not a path of the app\nhint: write it as a client asks for it, such as / or /list?page=1",
            bad.escape_debug()
        )));
    }
    Ok(match (named.is_empty(), warmup.is_empty()) {
        (false, _) => named,
        (true, false) => warmup.to_vec(),
        (true, true) => vec!["/".to_owned()],
    })
}

/// What was found of one path.
#[derive(Default)]
struct Finding {
    replies: Replies,
    /// Why an instance could not go back to the snapshot after it, the first time.
    replaced: Option<RewindError>,
}

impl Finding {
    fn words(&self, verdict: &Verdict) -> String {
        let mut words = match &verdict.difference {
            Some(difference) => format!("depends on memory between requests: {difference}"),
            None => "same".to_owned(),
        };
        let reply = self.replies.fresh.first();
        let status = reply
            .and_then(|reply| reply.head.as_ref())
            .map(|head| head.status);
        match (reply.and_then(|reply| reply.failure.as_ref()), status) {
            (Some(failure), _) => words += &format!(" (fails: {failure})"),
            (None, Some(status)) if status >= 400 => words += &format!(" (answers {status})"),
            (None, _) => {}
        }
        if !verdict.varying.is_empty() {
            let parts = verdict.varying.join(", ");
            words += &format!("; differs in any case, as with a clock or chance: {parts}");
        }
        if let Some(error) = &self.replaced {
            words += &format!("; costs a new instance with isolation: {error}");
        }
        words
    }
}

enum Stopped {
    Start(wasgi_engine::StartError),
    /// Memory was not restored: nothing else that was found can be trusted.
    Differs(RewindError),
}

impl From<wasgi_engine::StartError> for Stopped {
    fn from(error: wasgi_engine::StartError) -> Self {
        Stopped::Start(error)
    }
}

async fn find(app: &App, paths: &[String], said: &Once) -> Result<Vec<Finding>, Stopped> {
    let mut findings: Vec<_> = paths.iter().map(|_| Finding::default()).collect();
    fresh_run(app, paths, &mut findings, said).await?;
    for run in 0..2 {
        let mut instance = app.start().await?;
        for _ in 0..ROUNDS {
            for (path, finding) in paths.iter().zip(&mut findings) {
                let (kept, reusable) = ask(&mut instance, path).await;
                finding.replies.worker[run].push(kept);
                if !reusable {
                    instance = app.start().await?;
                }
            }
        }
    }
    fresh_run(app, paths, &mut findings, said).await?;
    Ok(findings)
}

async fn fresh_run(
    app: &App,
    paths: &[String],
    findings: &mut [Finding],
    said: &Once,
) -> Result<(), Stopped> {
    let mut instance = app.start().await?;
    for _ in 0..ROUNDS {
        for (path, finding) in paths.iter().zip(&mut *findings) {
            let (kept, reusable) = ask(&mut instance, path).await;
            finding.replies.fresh.push(kept);
            if reusable {
                match instance.rewind(true).await {
                    Ok(_) => continue,
                    Err(error @ RewindError::Differs(_)) => return Err(Stopped::Differs(error)),
                    Err(error) => _ = finding.replaced.get_or_insert(error),
                }
            }
            instance = app.start().await?;
        }
        said.over.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// The reply, and whether the instance may take another request.
async fn ask(instance: &mut wasgi_engine::Instance, path: &str) -> (Kept, bool) {
    let (request, keeper) = Request::local(path, "check", KEPT);
    let report = instance.handle(request).await;
    (keeper.take(), report.reusable)
}

/// Lets the app's lines through until each path has been asked for once: twenty times the same would be no news.
struct Once {
    log: Arc<dyn AppLog>,
    over: AtomicBool,
}

impl AppLog for Once {
    fn line(&self, request: Option<&str>, text: &str) {
        if !self.over.load(Ordering::Relaxed) {
            self.log.line(request, text);
        }
    }
}
