//! What steers a server beside signals: the letters of a named pipe, as uWSGI's master FIFO takes them, and files that are
//! touched. Each stands for a signal, so that there is one way in which each thing is done.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, lchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::stat::Mode;
use rustix::fs::OFlags;
use rustix::process::{Signal, getpid, kill_process};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::time::{MissedTickBehavior, interval};
use wasgi_config::User;
use wasgi_server::Log;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Makes the pipe, for `user` if root is to become it, or takes the one that a server before has left.
///
/// # Errors
/// Those of the system; and when there is something else, or another user could write to it.
pub(crate) fn open(path: &Path, user: Option<&User>) -> io::Result<File> {
    match nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
        Err(nix::Error::EEXIST) => {}
        made => {
            made?;
            if let Some(user) = user {
                lchown(path, Some(user.uid), Some(user.gid))?;
            }
        }
    }
    // To write as well: there is no end of file then when a writer goes.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)?;
    let found = file.metadata()?;
    let is_ours =
        |uid| uid == rustix::process::geteuid().as_raw() || user.is_some_and(|user| uid == user.uid);
    match found.file_type().is_fifo() && is_ours(found.uid()) && found.mode() & 0o022 == 0 {
        true => Ok(file),
        false => Err(io::Error::new(
            ErrorKind::AlreadyExists,
            "there is something that is no pipe of this user's alone",
        )),
    }
}

/// Does what letters say, one after the other.
pub(crate) async fn obey(pipe: File, log: Log) {
    let Ok(mut pipe) = Receiver::from_file(pipe) else {
        return log.error(format_args!("fifo: it cannot be read"));
    };
    let mut letters = [0; 64];
    while let Ok(length @ 1..) = pipe.read(&mut letters).await {
        for letter in &letters[..length] {
            match signals(*letter) {
                [] if letter.is_ascii_whitespace() => {}
                [] => log.note(format_args!(
                    "fifo: {:?} means nothing here: r loads the apps anew, q ends the server, Q at once, l opens log files anew",
                    char::from(*letter)
                )),
                signals => signals.iter().for_each(|signal| tell(*signal)),
            }
        }
    }
}

/// What a letter stands for. Workers are replaced as the app is loaded anew.
fn signals(letter: u8) -> &'static [Signal] {
    match letter {
        b'r' | b'R' | b'c' | b'C' | b'w' | b'W' | b'f' => &[Signal::HUP],
        b'q' => &[Signal::TERM],
        // The second ends at once; two of a kind could become one.
        b'Q' => &[Signal::TERM, Signal::INT],
        b'l' | b'L' => &[Signal::USR1],
        _ => &[],
    }
}

/// Has the apps loaded anew when one of the files changes, comes or goes.
pub(crate) async fn watch(files: Vec<PathBuf>, log: Log) {
    let mut stamps: Vec<_> = files.iter().map(|file| stamp(file)).collect();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        for (file, before) in files.iter().zip(&mut stamps) {
            let now = stamp(file);
            if std::mem::replace(before, now) != now {
                log.note(format_args!("{} has changed", file.display()));
                tell(Signal::HUP);
            }
        }
    }
}

fn stamp(file: &Path) -> Option<(u64, i64, i64)> {
    let of = |found: Metadata| (found.ino(), found.mtime(), found.mtime_nsec());
    fs::metadata(file).ok().map(of)
}

fn tell(signal: Signal) {
    // This process: it is there.
    let _ = kill_process(getpid(), signal);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_pipe_of_somebody_else_is_not_obeyed() {
        let folder = tempfile::tempdir().unwrap();
        let [own, file, link, open_to_all] =
            ["own", "file", "link", "open"].map(|name| folder.path().join(name));
        open(&own, None).unwrap();
        assert_eq!(fs::metadata(&own).unwrap().mode() & 0o777, 0o600);
        open(&own, None).unwrap();
        fs::write(&file, "precious").unwrap();
        symlink(&own, &link).unwrap();
        open(&open_to_all, None).unwrap();
        fs::set_permissions(&open_to_all, fs::Permissions::from_mode(0o622)).unwrap();
        for path in [&file, &link, &open_to_all] {
            assert!(open(path, None).is_err(), "{}", path.display());
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }
}
