//! Files that the server sends itself, without asking the app.
//!
//! ```text
//! path below the app's mount -> names.rs: may it name a file? -> search below: which one, try-files and index
//!                                 root.rs: opened beneath its folder -> reply.rs: conditions, ranges, headers
//! ```
//!
//! What a request names is opened relative to a folder that was opened when the app was loaded, and the kernel keeps it
//! in there; no path is ever checked first and used later.

mod cache;
mod conditions;
mod listing;
mod names;
mod ranges;
mod reply;
mod root;

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode};
use tokio::task::spawn_blocking;
use wasgi_config::{StaticMount, TryFile};
use wasgi_protocol::Head;

use self::names::{Wanted, is_served};
pub(crate) use self::reply::{Answer, AnswerBody};
use self::reply::{Chosen, Keep};
use self::root::{Entry, File, Root, Trouble, Wait};
use crate::coding::{Accepted, Coding};

/// The methods that files answer.
const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

/// How many mounts have been opened.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// The folders of one app, longest mount first.
#[derive(Debug, Default)]
pub struct StaticFiles {
    mounts: Vec<Arc<Mount>>,
}

/// A folder that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open {} to serve files from: {source}", path.display())]
pub struct StaticError {
    path: PathBuf,
    source: io::Error,
}

#[derive(Debug)]
struct Mount {
    at: String,
    /// Another for each that was ever opened.
    number: u64,
    root: Root,
    index: Vec<String>,
    try_files: Vec<TryFile>,
    keep: Keep,
    listing: bool,
    fallthrough: bool,
}

/// What a search has come to.
#[derive(Debug)]
enum Hit {
    File(Chosen),
    /// A folder that was asked for without its slash.
    Redirect,
    Page(String),
}

/// What is at a path.
enum Place {
    File(Chosen),
    Folder,
    Nothing,
}

impl StaticFiles {
    /// Opens the folders.
    ///
    /// # Errors
    /// [`StaticError`] for the first that cannot be opened.
    pub fn open(mounts: &[StaticMount]) -> Result<Self, StaticError> {
        let open = |it: &StaticMount| {
            let root = Root::open(&it.path, it.follow_symlinks).map_err(|source| StaticError {
                path: it.path.clone(),
                source,
            })?;
            let control = it
                .cache_control
                .as_deref()
                .and_then(|text| HeaderValue::from_str(text).ok());
            Ok(Arc::new(Mount {
                at: it.mount.clone(),
                number: COUNT.fetch_add(1, Ordering::Relaxed),
                root,
                index: it.index.clone(),
                try_files: it.try_files.clone(),
                keep: match (control, it.expires) {
                    (Some(control), _) => Keep::Control(control),
                    (None, Some(time)) => Keep::For(time),
                    (None, None) => Keep::Unsaid,
                },
                listing: it.listing,
                fallthrough: it.fallthrough,
            }))
        };
        let mounts = mounts.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { mounts })
    }

    /// The answer to a request, if its path names a file; `None` if the app is to be asked. `path` is decoded and below
    /// the app's mount.
    ///
    /// # Errors
    /// When the system cannot open files: that is neither a 404 nor the app's to answer.
    pub(crate) async fn answer(&self, head: &Head, path: &[u8]) -> io::Result<Option<Answer>> {
        if path.is_empty() {
            // `OPTIONS *`
            return Ok(None);
        }
        for mount in &self.mounts {
            let Some(rest) = path.strip_prefix(mount.at.as_bytes()) else {
                continue;
            };
            if !matches!(rest.first(), None | Some(b'/')) {
                continue;
            }
            if let Some(answer) = mount.answer(head, rest).await? {
                return Ok(Some(answer));
            }
            if !mount.fallthrough {
                return Ok(Some(Answer::status(StatusCode::NOT_FOUND, [])));
            }
        }
        Ok(None)
    }
}

impl Mount {
    async fn answer(self: &Arc<Self>, head: &Head, rest: &[u8]) -> io::Result<Option<Answer>> {
        let Some(wanted) = Wanted::new(rest) else {
            return Ok(None);
        };
        let accepted = Accepted::of(head.field("accept-encoding"));
        let key = (head.method() == b"GET").then(|| cache::Key {
            mount: self.number,
            path: rest.into(),
            accepted,
        });
        if let Some(chosen) = key.as_ref().and_then(cache::get) {
            return Ok(Some(chosen.reply(head, &self.keep, SystemTime::now())));
        }
        let found = match self.search(wanted, accepted, Wait::Never) {
            Err(Trouble::NotInMemory) => {
                let (mount, rest) = (Arc::clone(self), rest.to_vec());
                let search = move || match Wanted::new(&rest) {
                    Some(wanted) => mount.search(wanted, accepted, Wait::ForDisk),
                    None => Ok(None),
                };
                spawn_blocking(search).await.map_err(io::Error::other)?
            }
            found => found,
        };
        let hit = found.map_err(|trouble| match trouble {
            Trouble::System(error) => error,
            Trouble::NotInMemory => io::ErrorKind::WouldBlock.into(),
        })?;
        let Some(hit) = hit else { return Ok(None) };
        match head.method() {
            b"GET" | b"HEAD" => {}
            // A page of the folder's: what else is done there is the app's.
            _ if wanted.is_folder && self.fallthrough => return Ok(None),
            b"OPTIONS" => {
                return Ok(Some(Answer {
                    status: StatusCode::NO_CONTENT,
                    headers: HeaderMap::from_iter([(header::ALLOW, ALLOW)]),
                    body: AnswerBody::Nothing,
                }));
            }
            _ => {
                let allow = [(header::ALLOW, ALLOW)];
                return Ok(Some(Answer::status(StatusCode::METHOD_NOT_ALLOWED, allow)));
            }
        }
        Ok(Some(match hit {
            Hit::File(mut chosen) if key.is_some() && chosen.size() <= cache::LARGEST => {
                // One that fails now fails as well when it is sent.
                if let (Ok(()), Some(key)) = (chosen.read().await, key) {
                    cache::put(key, chosen.clone());
                }
                chosen.reply(head, &self.keep, SystemTime::now())
            }
            Hit::File(chosen) => chosen.reply(head, &self.keep, SystemTime::now()),
            Hit::Redirect => redirect(head),
            Hit::Page(page) => Answer {
                status: StatusCode::OK,
                headers: HeaderMap::from_iter([(
                    header::CONTENT_TYPE,
                    HeaderValue::from_static("text/html; charset=utf-8"),
                )]),
                body: AnswerBody::Text(page.into()),
            },
        }))
    }

    /// Looks at the places of `try-files` in turn.
    fn search(&self, wanted: Wanted<'_>, accepted: Accepted, wait: Wait) -> Result<Option<Hit>, Trouble> {
        // Where nothing is, there is no folder either.
        let mut may_be_folder = true;
        for place in &self.try_files {
            let path = match place {
                TryFile::Folder if may_be_folder => match self.folder(wanted, accepted, wait)? {
                    Some(hit) => return Ok(Some(hit)),
                    None => continue,
                },
                TryFile::Folder => continue,
                TryFile::Path(_) if wanted.is_folder || wanted.path.is_empty() => continue,
                TryFile::Path(suffix) => joined(wanted.path, "", suffix),
                TryFile::Fixed(path) => Cow::Borrowed(path.as_bytes()),
            };
            match self.place(&path, accepted, wait)? {
                Place::File(chosen) => return Ok(Some(Hit::File(chosen))),
                Place::Folder => {}
                Place::Nothing => {
                    may_be_folder &= !matches!(place, TryFile::Path(suffix) if suffix.is_empty());
                }
            }
        }
        Ok(None)
    }

    fn folder(&self, wanted: Wanted<'_>, accepted: Accepted, wait: Wait) -> Result<Option<Hit>, Trouble> {
        let slash = if wanted.path.is_empty() { "" } else { "/" };
        for name in &self.index {
            if let Place::File(chosen) = self.place(&joined(wanted.path, slash, name), accepted, wait)? {
                return Ok(Some(match wanted.is_folder {
                    true => Hit::File(chosen),
                    false => Hit::Redirect,
                }));
            }
        }
        if !self.listing {
            return Ok(None);
        }
        match self.root.find(wanted.path, wait)? {
            Some(Entry::Folder(_)) if !wanted.is_folder => Ok(Some(Hit::Redirect)),
            Some(Entry::Folder(_)) if wait == Wait::Never => Err(Trouble::NotInMemory),
            Some(Entry::Folder(folder)) => {
                let page = listing::page(&folder, wanted.path.is_empty()).map_err(Trouble::System)?;
                Ok(Some(Hit::Page(page)))
            }
            _ => Ok(None),
        }
    }

    /// A file, or one beside it that holds it compressed as the client likes it.
    fn place(&self, path: &[u8], accepted: Accepted, wait: Wait) -> Result<Place, Trouble> {
        if !is_served(path) {
            return Ok(Place::Nothing);
        }
        let file = match self.root.find(path, wait)? {
            Some(Entry::File(file)) => file,
            Some(Entry::Folder(_)) => return Ok(Place::Folder),
            None => return Ok(Place::Nothing),
        };
        let (content_type, is_compressible) = content_type(path);
        let mut siblings: [Option<File>; 3] = Default::default();
        if is_compressible {
            for (sibling, coding) in siblings.iter_mut().zip(Coding::ALL) {
                // One that is older than what it was made of holds something else.
                *sibling = match self.root.find(&joined(path, "", coding.suffix()), wait)? {
                    Some(Entry::File(found))
                        if conditions::whole_seconds(found.modified)
                            >= conditions::whole_seconds(file.modified) =>
                    {
                        Some(found)
                    }
                    _ => None,
                };
            }
        }
        let varies = siblings.iter().any(Option::is_some);
        let coding = accepted.best(
            Coding::ALL
                .into_iter()
                .filter(|&coding| siblings[coding as usize].is_some()),
        );
        let chosen = coding.and_then(|coding| siblings[coding as usize].take());
        Ok(Place::File(Chosen::new(
            chosen.unwrap_or(file),
            content_type,
            coding,
            varies,
            SystemTime::now(),
        )))
    }
}

fn joined<'p>(path: &'p [u8], between: &str, end: &str) -> Cow<'p, [u8]> {
    match end.is_empty() {
        true => Cow::Borrowed(path),
        false => Cow::Owned([path, between.as_bytes(), end.as_bytes()].concat()),
    }
}

/// The type that a file's name tells, and whether such content can be compressed at all.
fn content_type(path: &[u8]) -> (HeaderValue, bool) {
    const UNKNOWN: HeaderValue = HeaderValue::from_static("application/octet-stream");
    let name = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
    let ending = name.iter().rposition(|&b| b == b'.').map(|dot| &name[dot + 1..]);
    let ending = ending
        .and_then(|ending| str::from_utf8(ending).ok())
        .unwrap_or_default();
    let Some(guess) = mime_guess::from_ext(ending).first_raw() else {
        return (UNKNOWN, true);
    };
    let is_packed = match guess.split_once('/') {
        Some(("image", kind)) => !matches!(kind, "svg+xml" | "bmp" | "x-icon"),
        Some(("audio" | "video", _)) | Some(("font", "woff" | "woff2")) => true,
        _ => matches!(
            guess,
            "application/zip" | "application/gzip" | "application/x-7z-compressed"
        ),
    };
    let value = match guess.starts_with("text/") {
        true => HeaderValue::from_str(&format!("{guess}; charset=utf-8")),
        false => return (HeaderValue::from_static(guess), !is_packed),
    };
    (value.unwrap_or(UNKNOWN), !is_packed)
}

/// To the same path with a slash. It begins with one slash alone, since names have no empty segments: it cannot lead to
/// another host.
fn redirect(head: &Head) -> Answer {
    let (path, query) = head.raw_path_and_query();
    let mut location = [path, b"/"].concat();
    if let Some(query) = query {
        location.push(b'?');
        location.extend_from_slice(query);
    }
    let location = HeaderValue::from_bytes(&location).map(|location| (header::LOCATION, location));
    Answer::status(StatusCode::MOVED_PERMANENTLY, location)
}
