//! `wasgi python`: the guest's Python as a command.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command};
use wasgi_config::{LIMITS, Overrides, load_without_app};
use wasgi_engine::{AppSpec, Entry, Isolation};
use wasgi_server::{AccessFormat, Log};

use crate::failure::Failure;
use crate::{interpreter, spec};

const EXAMPLES: &str = "\
Examples:
  wasgi python -c 'import sys; print(sys.version)'
  wasgi python --dir .::/work script.py              the folder is seen as /work, and is where Python starts
  wasgi python --dir ./data::/data:rw -- -m sqlite3 /data/notes.db

It sees the folders given with --dir and its own /tmp, no environment but --env, and no network.
Its exit code is passed on.";

pub(crate) fn command() -> Command {
    let option = |name, value, help| Arg::new(name).long(name).value_name(value).help(help);
    Command::new("python")
        .about("Run the guest's Python as a command, inside the sandbox")
        .arg(
            option("dir", "HOST::GUEST[:rw]", "Show Python a folder of the host, to read or (:rw) to write; may be repeated")
                .action(ArgAction::Append),
        )
        .arg(option("env", "NAME=VALUE", "Variable of its environment; may be repeated").action(ArgAction::Append))
        .arg(option("memory", "SIZE", "Most memory it may use").default_value("1GiB"))
        .arg(interpreter::option().help_heading(None))
        .arg(
            Arg::new("ARGS")
                .help("What follows `python3` on a command line: -c CODE, -m MODULE or a file, then its arguments")
                .action(ArgAction::Append)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .required(true),
        )
        .after_help(EXAMPLES)
}

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let many =
        |name: &str| -> Vec<String> { matches.get_many(name).into_iter().flatten().cloned().collect() };
    let memory = matches.get_one::<String>("memory").cloned();
    let overrides = Overrides {
        dirs: many("dir"),
        env: many("env"),
        limits: LIMITS
            .iter()
            .filter(|key| key.name == "memory")
            .zip(memory)
            .collect(),
        ..Overrides::default()
    };
    let options = load_without_app(&overrides)?;
    let log = Log::to_stderr(AccessFormat::Off).context("cannot start the log")?;
    let engine = interpreter::engine(matches, None)?;
    let spec = AppSpec {
        name: "python".to_owned(),
        entry: Entry::Module {
            module: String::new(),
            callable: String::new(),
        },
        sys_path: Vec::new(),
        site_dirs: Vec::new(),
        working_dir: options
            .files
            .first()
            .map_or("/tmp".to_owned(), |grant| grant.guest.clone()),
        mounts: spec::grants(&options.files, &options.limits).collect(),
        env: options.env,
        secrets: Vec::new(),
        isolation: Isolation::default(),
        warmup: Vec::new(),
        snapshot_cache: false,
        weight: 100,
        limits: spec::limits(&options.limits),
    };
    let app = engine.app(spec, log.app("python"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    let code = runtime
        .block_on(app.run_python(&many("ARGS")))
        .context("python")?;
    // As a shell would see it: the lowest eight bits (waitpid(2)).
    Ok(ExitCode::from((code & 0xff) as u8))
}
