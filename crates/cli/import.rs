//! `wasgi import`: another server's configuration as an app.toml.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use wasgi_config::{Foreign, import};

use crate::elsewhere;
use crate::failure::Failure;
use crate::loaders::variable;

const EXAMPLES: &str = "\
Examples:
  wasgi import uwsgi.ini > app.toml
  wasgi import uwsgi.ini:blue > app.toml      section [blue] of it
  wasgi import uwsgi --http :8000 -w hello:app -p 4 > app.toml
  wasgi import gunicorn -w 4 -b 127.0.0.1:4000 hello:app > app.toml

Options that have no counterpart are in comments, with their lines and the reason. Paths become absolute.";

pub(crate) fn command() -> Command {
    Command::new("import")
        .about("Write another server's configuration as an app.toml")
        .arg(
            elsewhere::words("WHAT")
                .value_name("WHAT")
                .help("uwsgi.ini, or a command line that begins with uwsgi or gunicorn"),
        )
        .after_help(EXAMPLES)
}

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let words: Vec<String> = matches.get_many("WHAT").into_iter().flatten().cloned().collect();
    let foreign = match words.split_first() {
        Some((server, rest)) if server == "uwsgi" => Foreign::UwsgiWords(rest),
        Some((server, rest)) if server == "gunicorn" => Foreign::GunicornWords(rest),
        Some((file, [])) => Foreign::UwsgiFile(file),
        _ => {
            return Err(Failure::Usage(
                "wasgi import takes one file, or a command line that begins with uwsgi or gunicorn"
                    .to_owned(),
            ));
        }
    };
    let imported = import(foreign, &variable)?;
    println!(
        "# Made by: wasgi import {}",
        words.join(" ").replace(['\n', '\r'], " ")
    );
    print!("{}", imported.text());
    Ok(ExitCode::SUCCESS)
}
