//! What a process gives up for good before it runs anything of an app: new privileges, all files but those it is for
//! (Landlock), and all system calls but those it needs (seccomp).
//!
//! All of it is the calling thread's, and passes on to the threads that it starts: to be called before there are others.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use crate::messages::Folder;
use crate::system_calls;

/// The newest Landlock whose rights are asked for; what an older kernel does not know is left out.
const NEWEST: ABI = ABI::V6;

/// Why a process cannot be confined.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfineError {
    #[error("Landlock: {0}")]
    Landlock(#[from] RulesetError),
    #[error("this kernel has no Landlock, and require-landlock is set")]
    NoLandlock,
    #[error("seccomp: {0}")]
    Seccomp(#[from] seccompiler::Error),
    #[error("seccomp: {0}")]
    Filter(#[from] seccompiler::BackendError),
}

/// Confines this thread. Tells whether the kernel has Landlock.
///
/// # Errors
/// [`ConfineError`]: then nothing may be run.
pub(crate) fn confine(folders: &[Folder], require_landlock: bool) -> Result<bool, ConfineError> {
    let landlock = files(folders)?;
    if require_landlock && !landlock {
        return Err(ConfineError::NoLandlock);
    }
    // Sets `no_new_privs` as well, without which it is refused.
    seccompiler::apply_filter(&system_calls::filter(std::process::id())?)?;
    Ok(landlock)
}

/// Leaves the files beneath `folders`, and no way to other machines or to other processes.
fn files(folders: &[Folder]) -> Result<bool, RulesetError> {
    let all = AccessFs::from_all(NEWEST);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    for folder in folders {
        // What is not there cannot be used; who loads an app that needs it finds out.
        let Ok(opened) = PathFd::new(&folder.path) else {
            continue;
        };
        rules = rules.add_rule(PathBeneath::new(opened, rights(folder)))?;
    }
    let status = rules.restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

fn rights(folder: &Folder) -> landlock::BitFlags<AccessFs> {
    let mut rights: landlock::BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    if folder.write {
        // No devices, pipes or sockets, and nothing to be executed.
        rights |= AccessFs::WriteFile
            | AccessFs::RemoveDir
            | AccessFs::RemoveFile
            | AccessFs::MakeDir
            | AccessFs::MakeReg
            | AccessFs::MakeSym
            | AccessFs::Refer
            | AccessFs::Truncate;
    }
    match is_folder(&folder.path) {
        true => rights,
        false => rights & AccessFs::from_file(NEWEST),
    }
}

fn is_folder(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|it| it.is_dir())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::PathBuf;
    use std::process::Command;
    use std::thread;

    use super::*;

    /// Where this kernel says that it has Landlock, it must be used.
    fn has_landlock() -> bool {
        fs::read_to_string("/sys/kernel/security/lsm").is_ok_and(|modules| modules.contains("landlock"))
    }

    /// Runs on a thread of its own that is confined to a folder `read`, and `write` for writing. Tells whether by Landlock.
    fn confined<T: Send + 'static>(run: impl FnOnce(PathBuf, bool) -> T + Send + 'static) -> T {
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["read", "write", "other"] {
            fs::create_dir(dir.path().join(name)).expect("a folder");
            fs::write(dir.path().join(name).join("file"), name).expect("a file");
        }
        let root = dir.path().to_owned();
        let folder = |name, write| Folder {
            path: root.join(name),
            write,
        };
        let folders = [
            folder("read", false),
            folder("write", true),
            folder("missing", true),
        ];
        let confined = thread::spawn(move || {
            let landlock = confine(&folders, false).expect("confined");
            run(root, landlock)
        });
        confined.join().expect("it ends well")
    }

    #[test]
    fn files_that_are_not_for_it_are_out_of_reach() {
        confined(|root, landlock| {
            assert!(landlock || !has_landlock());
            assert_eq!(fs::read_to_string(root.join("read/file")).expect("reads"), "read");
            fs::write(root.join("write/new"), "x").expect("writes");
            fs::rename(root.join("write/new"), root.join("write/newer")).expect("renames");
            fs::create_dir(root.join("write/folder")).expect("makes");
            fs::remove_file(root.join("write/newer")).expect("removes");
            if !landlock {
                return;
            }
            let denied = |what: &str, error: Option<std::io::Error>| {
                let kind = error.map(|error| error.kind());
                assert!(kind == Some(ErrorKind::PermissionDenied), "{what}: {kind:?}");
            };
            for path in [
                root.join("other/file"),
                "/etc/passwd".into(),
                "/proc/self/mem".into(),
                "/dev/null".into(),
            ] {
                denied(&path.display().to_string(), fs::read(&path).err());
            }
            denied("a folder", fs::read_dir("/").err());
            denied("writing", fs::write(root.join("read/new"), "x").err());
            denied(
                "cutting",
                fs::File::options()
                    .write(true)
                    .truncate(true)
                    .open(root.join("read/file"))
                    .err(),
            );
            denied("removing", fs::remove_file(root.join("read/file")).err());
            let _ = std::os::unix::fs::symlink(root.join("other/file"), root.join("write/link"));
            denied("by a link", fs::read(root.join("write/link")).err());
            let out = fs::rename(root.join("write/file"), root.join("other/moved"));
            assert!(out.is_err());
        });
    }

    #[test]
    fn calls_that_it_does_not_need_are_not_there() {
        confined(|root, _| {
            let missing = |what: &str, error: Option<std::io::Error>| {
                let code = error.and_then(|error| error.raw_os_error());
                assert_eq!(code, Some(libc::ENOSYS), "{what}");
            };
            missing("listening", TcpListener::bind("127.0.0.1:0").err());
            missing("connecting", TcpStream::connect("127.0.0.1:9").err());
            missing("datagrams", UdpSocket::bind("127.0.0.1:0").err());
            missing(
                "unix sockets",
                UnixListener::bind(root.join("write/socket")).err(),
            );
            missing("programs", Command::new("/bin/true").spawn().err());
            missing(
                "modes",
                fs::set_permissions(
                    root.join("write/file"),
                    std::os::unix::fs::PermissionsExt::from_mode(0o777),
                )
                .err(),
            );
            missing(
                "owners",
                std::os::unix::fs::chown(root.join("write/file"), None, Some(1)).err(),
            );
            let init = rustix::process::Pid::INIT;
            missing(
                "signals",
                rustix::process::kill_process(init, rustix::process::Signal::CONT)
                    .err()
                    .map(Into::into),
            );
            let none = rustix::process::Rlimit {
                current: None,
                maximum: None,
            };
            let limit = rustix::process::setrlimit(rustix::process::Resource::Core, none);
            missing("limits", limit.err().map(Into::into));
            // What it does need.
            UnixStream::pair().expect("sockets of its own");
            assert_eq!(thread::spawn(|| 1).join().expect("threads"), 1);
        });
    }

    #[test]
    fn without_landlock_it_does_not_start_if_it_must_have_it() {
        let confined = thread::spawn(|| confine(&[], true)).join().expect("it ends well");
        match confined {
            Ok(landlock) => assert!(landlock),
            Err(ConfineError::NoLandlock) => assert!(!has_landlock()),
            Err(error) => panic!("{error}"),
        }
    }
}
