//! Finds the Python guest and the folder for its compiled code.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, lchown};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::{Arg, ArgMatches};
use wasgi_config::User;
use wasgi_engine::{Engine, EngineError, PythonFiles, WASMTIME_VERSION};

use crate::failure::Failure;

/// `--python-dir`.
pub(crate) fn option() -> Arg {
    Arg::new("python-dir")
        .long("python-dir")
        .value_name("DIR")
        .help("Folder of the Python guest, as `make python` builds it [default: $WASGI_PYTHON, else beside wasgi]")
        .help_heading("Host")
}

/// The compiled interpreter; compiles it, with a line to say so, if this machine has not done so before. `user` is whom
/// root has become.
pub(crate) fn engine(matches: &ArgMatches, user: Option<&User>) -> Result<Engine, Failure> {
    // Other servers' command lines have no such option.
    let named = matches.try_get_one::<String>("python-dir").ok().flatten();
    let named = named.map(PathBuf::from);
    let files = find(named).map_err(Failure::Usage)?;
    let of_user = user.map(users_cache).filter(|folder| folder.is_dir());
    let cache = of_user
        .or_else(|| cache_folder(env::var_os("XDG_CACHE_HOME").map(PathBuf::from), env::home_dir()))
        .ok_or_else(|| {
            Failure::Usage(
                "no folder to keep the compiled Python in: neither XDG_CACHE_HOME nor HOME is set\n\
                 hint: set XDG_CACHE_HOME to a folder that this user may write to"
                    .to_owned(),
            )
        })?;
    Engine::new(&files, &cache, &mut |line| eprintln!("wasgi: {line}")).map_err(|error| {
        let hint = matches!(error, EngineError::Wasmtime(_)).then(|| {
            "the Python guest may be older or newer than wasgi: run `make build`, which builds both"
                .to_owned()
        });
        Failure::Failed(anyhow!(error).context("cannot start Python"), hint)
    })
}

/// One line for `--version`.
pub(crate) fn versions() -> String {
    let python = match find(None) {
        Ok(files) => format!("CPython {}", files.version),
        Err(_) => "CPython not found".to_owned(),
    };
    format!(
        "wasgi {}, {python}, wasmtime {WASMTIME_VERSION}",
        env!("CARGO_PKG_VERSION")
    )
}

fn find(named: Option<PathBuf>) -> Result<PythonFiles, String> {
    let variable = env::var_os("WASGI_PYTHON")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from);
    if let Some(folder) = named.or(variable) {
        return PythonFiles::open(&folder).map_err(|error| {
            format!(
                "{:#}\nhint: name the folder that `make python` built, which holds python.wasm, lib and VERSION",
                anyhow!(error)
            )
        });
    }
    let executable = env::current_exe()
        .and_then(|path| path.canonicalize())
        .unwrap_or_default();
    let beside = executable
        .parent()
        .and_then(Path::parent)
        .unwrap_or(Path::new("."));
    let places = [beside.join("lib/wasgi/python"), beside.join("python")];
    let there: Vec<&PathBuf> = places.iter().filter(|place| place.is_dir()).collect();
    match there.first() {
        Some(folder) => PythonFiles::open(folder)
            .map_err(|error| format!("{:#}\nhint: build it again: make python", anyhow!(error))),
        None => Err(format!(
            "the Python guest is neither in {} nor in {}\nhint: build it with `make python`, or name its folder with --python-dir or WASGI_PYTHON",
            places[0].display(),
            places[1].display()
        )),
    }
}

/// `wasgi-NAME` in XDG_CACHE_HOME or /var/cache, for a user whom root becomes: root's own folder is closed to it, and its home
/// may be nobody's to write to.
fn users_cache(user: &User) -> PathBuf {
    let xdg = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = xdg
        .filter(|path| path.is_absolute())
        .unwrap_or_else(|| "/var/cache".into());
    let name = user.name.clone().unwrap_or_else(|| user.uid.to_string());
    base.join(format!("wasgi-{name}"))
}

/// Makes that folder, which only root may.
///
/// # Errors
/// Those of the system. One that is there already is left as it is: whether it may be trusted is looked at when it is used.
pub(crate) fn make_cache(user: &User) -> io::Result<()> {
    let folder = users_cache(user);
    fs::create_dir_all(folder.parent().unwrap_or(Path::new("/")))?;
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| lchown(&folder, Some(user.uid), Some(user.gid))),
    }
}

/// `$XDG_CACHE_HOME/wasgi` or `~/.cache/wasgi`; a relative XDG_CACHE_HOME is passed over, as its specification demands.
fn cache_folder(xdg: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let usable = |path: &PathBuf| path.is_absolute();
    let cache = xdg
        .filter(usable)
        .or_else(|| home.filter(usable).map(|home| home.join(".cache")))?;
    Some(cache.join("wasgi"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_the_users() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(
            cache_folder(path("/cache"), path("/home/ada")),
            path("/cache/wasgi")
        );
        assert_eq!(
            cache_folder(path("cache"), path("/home/ada")),
            path("/home/ada/.cache/wasgi")
        );
        assert_eq!(
            cache_folder(None, path("/home/ada")),
            path("/home/ada/.cache/wasgi")
        );
        assert_eq!(cache_folder(path(""), path("")), None);
    }
}
