//! `wasgi uwsgi` and `wasgi gunicorn`: the command lines of guides, as they are typed.

use clap::{Arg, Command};

/// Ids of the arguments that hold what is typed.
pub(crate) const UWSGI: &str = "UWSGI";
pub(crate) const GUNICORN: &str = "GUNICORN";

const UWSGI_EXAMPLES: &str = "\
Examples, as guides have them:
  wasgi uwsgi --http :8000 --wsgi-file hello.py --callable app
  wasgi uwsgi --socket 0.0.0.0:8000 --protocol=http -w wsgi
  wasgi uwsgi -s hello.sock -w hello:app --chmod-socket=660
  wasgi uwsgi --ini uwsgi.ini
  wasgi uwsgi --http :8000 -w hello:app -H venv -p 4 --stats 127.0.0.1:9191

Each option counts, or is told with the reason why not. docs/uwsgi-options.md lists them. To write it down:
  wasgi import uwsgi --http :8000 -w hello:app > app.toml";

const GUNICORN_EXAMPLES: &str = "\
Examples, as guides have them:
  wasgi gunicorn -w 4 -b 127.0.0.1:4000 myproject:app
  wasgi gunicorn --bind unix:hello.sock --timeout 60 --access-logfile - wsgi
  wasgi gunicorn -c gunicorn.conf.py hello:app

Each option counts, or is told with the reason why not. docs/uwsgi-options.md lists them. A gunicorn.conf.py is not
run: its simple assignments count. To write it down:
  wasgi import gunicorn -w 4 myproject:app > app.toml";

/// Both.
pub(crate) fn commands() -> [Command; 2] {
    [
        ("uwsgi", UWSGI, "Serve what uWSGI's options say", UWSGI_EXAMPLES),
        (
            "gunicorn",
            GUNICORN,
            "Serve what Gunicorn's options say",
            GUNICORN_EXAMPLES,
        ),
    ]
    .map(|(name, id, about, examples)| {
        Command::new(name)
            .about(about)
            .disable_help_flag(true)
            .arg_required_else_help(true)
            .arg(words(id))
            .arg(
                Arg::new("help")
                    .long("help")
                    .action(clap::ArgAction::Help)
                    .help("Print help"),
            )
            .after_help(examples)
    })
}

/// All that follows, as it is typed.
pub(crate) fn words(id: &'static str) -> Arg {
    Arg::new(id)
        .value_name("OPTIONS")
        .num_args(1..)
        .required(true)
        .trailing_var_arg(true)
        .allow_hyphen_values(true)
        .help("As the other server's guides have them")
}
