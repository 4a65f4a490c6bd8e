//! `wasgi build`: makes the images of apps ahead of time.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Instant;

use anyhow::{Context, anyhow};
use clap::{Arg, ArgMatches, Command, value_parser};
use wasgi_config::{Config, load_server};
use wasgi_engine::{BuildError, Engine, NotStored};
use wasgi_server::{AccessFormat, Log, Threads};

use crate::app_options::Chosen;
use crate::builds::{Wanted, build_all, table};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::serve::LAST_LINES;
use crate::{app_options, hosted, interpreter, spec};

const EXAMPLES: &str = "\
Examples:
  wasgi build                     app.toml of this folder
  wasgi build shop/app.toml
  wasgi build hello:app --root src --snapshot-cache
  wasgi build tenants/*/app.toml  side by side, with a table at the end
  wasgi build server.toml         those of a server, as it would serve them

For apps with snapshot-cache = true: imports the app and keeps its memory on disk, so that the next
`wasgi serve` by this user starts from there. An image that is up to date is left as it is.

Of several apps, one that fails does not stop the others: its traceback is on standard error, its line of the
table says why, and the exit code is 1.";

pub(crate) fn command() -> Command {
    let command =
        Command::new("build").about("Make images of apps ahead of time, for servers that start from them");
    app_options::add(command)
        .mut_arg("APP", |app| app.num_args(0..))
        .arg(
            Arg::new("jobs")
                .long("jobs")
                .short('j')
                .value_name("N")
                .value_parser(value_parser!(u16).range(1..))
                .help("Of several apps, import so many at a time [default: one for each core]")
                .help_heading("Host"),
        )
        .arg(interpreter::option())
        .after_help(EXAMPLES)
}

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let apps: Vec<&String> = matches.get_many("APP").into_iter().flatten().collect();
    match apps[..] {
        [file] if Path::new(file).file_name() == Some(OsStr::new("server.toml")) => {
            let env = |name: &str| std::env::var(name).ok();
            let server = load_server(Path::new(file), &env)?;
            let files = server.files().into_iter().map(|file| {
                let config = server.load_app(&file, &env).map(|tenant| tenant.config);
                (file.display().to_string(), config.map_err(Failure::from))
            });
            many(matches, files.collect(), server.builders)
        }
        [] | [_] => one(matches, app_options::choose(matches)?),
        _ => {
            let chosen = apps.into_iter().map(|app| {
                let chosen = app_options::choose_app(matches, Some(app));
                (app.clone(), chosen.map(|chosen| chosen.config))
            });
            many(matches, chosen.collect(), None)
        }
    }
}

fn one(matches: &ArgMatches, Chosen { label, config, .. }: Chosen) -> Result<ExitCode, Failure> {
    if !config.app.snapshot_cache {
        return Err(Failure::Usage(format!("{label}: {WITHOUT_CACHE}\n{CACHE_HINT}")));
    }
    let log = Log::to_stderr(AccessFormat::Off).context("cannot start the log")?;
    let engine = interpreter::engine(matches, None)?;
    let app = engine.app(spec::spec(&config), log.app(&config.app.name));
    let threads = Threads::start().context("cannot start")?;
    let begun = Instant::now();
    let built = threads.block_on(app.build_image());
    // What the app said comes before what is said of it.
    log.flush(LAST_LINES);
    match built {
        Ok(image) => {
            let what = if image.new { "made" } else { "is up to date" };
            let (path, size) = (image.path.display(), image.size as f64 / f64::from(1 << 20));
            let seconds = begun.elapsed().as_secs_f64();
            println!("{label}: image {what}: {path} ({size:.1} MiB on disk, {seconds:.2} s)");
            Ok(ExitCode::SUCCESS)
        }
        Err(BuildError::Start(error)) => Err(hosted::not_started(&label, error)),
        Err(BuildError::NotStored(why)) => {
            let hint = hint(&why).to_owned();
            Err(Failure::Failed(anyhow!(why).context(label), Some(hint)))
        }
    }
}

/// `builders` is how many the operator wants to be imported at a time.
fn many(
    matches: &ArgMatches,
    apps: Vec<(String, Result<Config, Failure>)>,
    builders: Option<usize>,
) -> Result<ExitCode, Failure> {
    let progress = Progress::to_stderr(apps.len());
    let log = Log::to(progress.writer(), AccessFormat::Off, false).context("cannot start the log")?;
    let engine = interpreter::engine(matches, None)?;
    let wanted: Vec<_> = apps
        .into_iter()
        .map(|(label, config)| wanted(label, config, &engine, &log))
        .collect();
    let jobs = matches.get_one::<u16>("jobs").map(|jobs| usize::from(*jobs));
    let jobs = jobs
        .or(builders)
        .unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
    let threads = Threads::start().context("cannot start")?;
    let begun = Instant::now();
    let built = threads.block_on(build_all(wanted, jobs, &threads.guests(), &progress));
    log.flush(LAST_LINES);
    println!("{}", table(&built, begun.elapsed()));
    Ok(match built.iter().all(|built| built.image.is_ok()) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// One of several apps. What is wrong with its file goes to the log, as what is wrong with its code does.
fn wanted(label: String, config: Result<Config, Failure>, engine: &Engine, log: &Log) -> Wanted {
    let app = match config {
        Ok(config) if config.app.snapshot_cache => {
            Ok(engine.app(spec::spec(&config), log.app(&config.app.name)))
        }
        Ok(_) => Err(WITHOUT_CACHE.to_owned()),
        Err(failure) => {
            for line in failure.to_string().lines() {
                log.note(format_args!("{line}"));
            }
            Err("its configuration is wrong, see above".to_owned())
        }
    };
    Wanted { label, app }
}

const WITHOUT_CACHE: &str = "without snapshot-cache no server would take the image";

const CACHE_HINT: &str =
    "hint: write snapshot-cache = true below [app], or give --snapshot-cache here and to wasgi serve";

fn hint(why: &NotStored) -> &'static str {
    match why {
        NotStored::FilesOpen(_) => {
            "close them when the import is done, and open them in the view or in a function given to \
             wasgi.after_restore; or do without snapshot-cache"
        }
        NotStored::Folder { .. } => {
            "it must belong to the user that runs wasgi, and nobody else may write to it; XDG_CACHE_HOME names another"
        }
        NotStored::Ingredients(_) => "show the app folders that hold what it needs, and little else",
        NotStored::Changed(_) => {
            "try again when nothing writes to the app's folders; its data belongs into [files], with write = true"
        }
        NotStored::Write { .. } => "make room there, or name another folder with XDG_CACHE_HOME",
    }
}
