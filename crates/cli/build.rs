//! `wasgi build`: makes an app's image ahead of time.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, anyhow};
use clap::{ArgMatches, Command};
use wasgi_engine::{BuildError, NotStored};
use wasgi_server::{AccessFormat, Log, Threads};

use crate::app_options::Chosen;
use crate::failure::Failure;
use crate::serve::LAST_LINES;
use crate::{app_options, hosted, interpreter, spec};

const EXAMPLES: &str = "\
Examples:
  wasgi build                     app.toml of this folder
  wasgi build shop/app.toml
  wasgi build hello:app --root src --snapshot-cache

For apps with snapshot-cache = true: imports the app and keeps its memory on disk, so that the next
`wasgi serve` by this user starts from there. An image that is up to date is left as it is.";

pub(crate) fn command() -> Command {
    let command =
        Command::new("build").about("Make the app's image ahead of time, for servers that start from it");
    app_options::add(command)
        .arg(interpreter::option())
        .after_help(EXAMPLES)
}

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let Chosen { label, config } = app_options::choose(matches)?;
    if !config.app.snapshot_cache {
        return Err(Failure::Usage(format!(
            "{label}: without snapshot-cache no server would take the image\n\
             hint: write snapshot-cache = true below [app], or give --snapshot-cache here and to wasgi serve"
        )));
    }
    let log = Log::to_stderr(AccessFormat::Off).context("cannot start the log")?;
    let engine = interpreter::engine(matches)?;
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
