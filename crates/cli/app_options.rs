//! The options that say what is run: shared by `serve`, `check` and `build`.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use wasgi_config::{Config, Foreign, LIMITS, Overrides, Remark, import, load};

use crate::elsewhere::{GUNICORN, UWSGI};
use crate::failure::Failure;

/// Adds the positional APP and the options over `app.toml`.
pub(crate) fn add(command: Command) -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name(value)
            .help(help)
            .help_heading("App")
    };
    let many = |name, value, help| text(name, value, help).action(ArgAction::Append);
    let number = |name, help| {
        text(name, "N", help)
            .value_parser(value_parser!(i64))
            .allow_negative_numbers(true)
    };
    command
        .arg(
            Arg::new("APP").help(
                "app.toml, module:callable, a file such as wsgi.py, or uWSGI's uwsgi.ini [default: app.toml of this folder]",
            ),
        )
        .args([
            text(
                "root",
                "DIR",
                "The app's folder, which it sees read-only as /app [default: this folder]",
            ),
            text(
                "callable",
                "NAME",
                "Name of the application object in a file such as wsgi.py [default: application]",
            ),
            text(
                "name",
                "NAME",
                "Marks the app's lines in the log [default: the folder's name]",
            ),
            text(
                "venv",
                "DIR",
                "Virtual environment whose packages the app may import",
            ),
            many(
                "python-path",
                "DIR",
                "Further folder to import from; may be repeated",
            ),
            many(
                "env",
                "NAME=VALUE",
                "Variable of the app's environment, which holds nothing else; may be repeated",
            ),
            many(
                "dir",
                "HOST::GUEST[:rw]",
                "Show the app a folder of the host, to read or (:rw) to write; may be repeated",
            ),
            text(
                "isolation",
                "KIND",
                "worker: memory lives on between requests; request: each request starts afresh [default: worker]",
            ),
            Arg::new("snapshot-cache")
                .long("snapshot-cache")
                .action(ArgAction::SetTrue)
                .help("Keep the app's memory after its import on disk, and take it from there at the next start")
                .help_heading("App"),
            number("workers", "How many requests are answered at a time [default: 2]"),
            number(
                "max-requests",
                "Replace a worker after about so many requests; 0 for never [default: 0]",
            ),
        ])
        .arg(
            Arg::new("verify-rewind")
                .long("verify-rewind")
                .action(ArgAction::SetTrue)
                .help("For debugging, with isolation request: compare all of an instance's memory with the snapshot after each rewind")
                .help_heading("App"),
        )
        .args(LIMITS.iter().map(|key| {
            Arg::new(key.name)
                .long(key.name)
                .value_name(if key.is_count() {
                    "N"
                } else if key.default.ends_with('B') {
                    "SIZE"
                } else {
                    "TIME"
                })
                .help(format!("{} [default: {}]", key.help, key.default))
                .help_heading("Limits")
                .allow_hyphen_values(true)
        }))
}

/// What is to be run, as the file and the options say.
pub(crate) struct Chosen {
    /// What messages call it: the file's name, or `hello:app`.
    pub label: String,
    /// The whole, checked.
    pub config: Config,
    /// What is to be said of another server's options.
    pub remarks: Vec<Remark>,
}

/// What is typed after `wasgi uwsgi` or `wasgi gunicorn`: another server's command line.
pub(crate) fn words(matches: &ArgMatches) -> Option<(&'static str, Vec<String>)> {
    [("uwsgi", UWSGI), ("gunicorn", GUNICORN)]
        .into_iter()
        .find_map(|(server, id)| {
            // Other commands have no such argument.
            let words = matches.try_get_many::<String>(id).ok()??;
            Some((server, words.cloned().collect()))
        })
}

/// As [`choose`], of another server's configuration.
fn choose_foreign(label: &str, foreign: Foreign<'_>, overrides: &Overrides) -> Result<Chosen, Failure> {
    let env = |name: &str| std::env::var(name).ok();
    let imported = import(foreign, &env)?;
    Ok(Chosen {
        label: label.to_owned(),
        config: imported.load(overrides, &env)?,
        remarks: imported.remarks,
    })
}

/// Reads the file, if one is meant, and the options over it.
pub(crate) fn choose(matches: &ArgMatches) -> Result<Chosen, Failure> {
    choose_app(matches, matches.get_one("APP"))
}

/// As [`choose`], for one of several APPs.
pub(crate) fn choose_app(matches: &ArgMatches, app: Option<&String>) -> Result<Chosen, Failure> {
    if let Some((server, words)) = words(matches) {
        let foreign = match server {
            "uwsgi" => Foreign::UwsgiWords(&words),
            _ => Foreign::GunicornWords(&words),
        };
        return choose_foreign(server, foreign, &Overrides::default());
    }
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let many =
        |name: &str| -> Vec<String> { matches.get_many(name).into_iter().flatten().cloned().collect() };
    // `check` and `build` have no such options.
    let addresses = |name: &str| -> Vec<String> {
        let typed = matches.try_get_many(name).ok().flatten();
        typed.into_iter().flatten().cloned().collect()
    };
    let mut overrides = Overrides {
        callable: text("callable"),
        name: text("name"),
        root: text("root"),
        venv: text("venv"),
        python_path: many("python-path"),
        // A flag of another meaning for `check`.
        isolation: matches.try_get_one("isolation").ok().flatten().cloned(),
        verify_rewind: matches.get_flag("verify-rewind"),
        snapshot_cache: matches.get_flag("snapshot-cache"),
        workers: matches.get_one("workers").copied(),
        max_requests: matches.get_one("max-requests").copied(),
        env: many("env"),
        http: addresses("http"),
        h2c: addresses("h2c"),
        uwsgi: addresses("uwsgi"),
        fastcgi: addresses("fastcgi"),
        scgi: addresses("scgi"),
        access_log: matches.try_get_one("access-log").ok().flatten().cloned(),
        log_file: matches.try_get_one("log-file").ok().flatten().cloned(),
        limits: LIMITS
            .iter()
            .filter_map(|key| Some((key, text(key.name)?)))
            .collect(),
        dirs: many("dir"),
        ..Overrides::default()
    };
    let (file, label) = match app.map(|app| (app, what(app))) {
        Some((app, What::Ini)) => {
            return choose_foreign(app, Foreign::UwsgiFile(app), &overrides);
        }
        Some((app, What::Toml)) => (Some(PathBuf::from(app)), app.clone()),
        Some((app, What::Python)) => {
            overrides.wsgi_file = Some(app.clone());
            (None, app.clone())
        }
        Some((app, What::Module)) => {
            overrides.module = Some(app.clone());
            (None, app.clone())
        }
        None if Path::new("app.toml").is_file() => (Some(PathBuf::from("app.toml")), "app.toml".to_owned()),
        None => {
            return Err(Failure::Usage(
                "nothing to run: no app is named, and this folder has no app.toml\n\
                 hint: name one: wasgi serve hello:app, for the object `app` in hello.py; or wasgi serve path/app.toml"
                    .to_owned(),
            ));
        }
    };
    let env = |name: &str| std::env::var(name).ok();
    Ok(Chosen {
        label,
        config: load(file.as_deref(), &overrides, &env)?,
        remarks: Vec::new(),
    })
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Toml,
    /// `uwsgi.ini`, or `uwsgi.ini:section`.
    Ini,
    Python,
    Module,
}

/// What APP is: `x.toml` is a file even if it is not there, so that the message can say so.
fn what(app: &str) -> What {
    let path = Path::new(app);
    if app.ends_with(".ini") || app.contains(".ini:") {
        return What::Ini;
    }
    match path.extension().is_some_and(|extension| extension == "toml") || path.is_dir() {
        true => What::Toml,
        false if path.is_file() => What::Python,
        false => What::Module,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_run_shows_in_its_name() {
        let folder = env!("CARGO_MANIFEST_DIR");
        assert_eq!(what("app.toml"), What::Toml);
        assert_eq!(what("nowhere/app.toml"), What::Toml);
        assert_eq!(
            what(folder),
            What::Toml,
            "so that the message can name the file in it"
        );
        assert_eq!(what(&format!("{folder}/Makefile")), What::Python);
        assert_eq!(what("deploy/uwsgi.ini"), What::Ini);
        assert_eq!(what("uwsgi.ini:blue"), What::Ini);
        assert_eq!(what("hello:app"), What::Module);
        assert_eq!(what("nowhere/wsgi.py"), What::Module);
    }
}
