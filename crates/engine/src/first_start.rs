//! An app's first start: its snapshot is taken from the image cache, or the app is imported and warmed up for one.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use crate::app::{App, Raw, StartError};
use crate::early_pages::EarlyPages;
use crate::exchange::Failure;
use crate::guest::begin;
use crate::image_cache::{ImageCache, StoredImage};
use crate::image_file::Unusable;
use crate::image_key::{Ingredients, Key, NoKey};
use crate::instance::End;
use crate::rewind::{Rewind, remap};
use crate::snapshot::Snapshot;
use crate::spec::Isolation;
use crate::ticker::TICK;
use crate::time_limit::TimeLimit;
use crate::warmup::Outcome;
use crate::{abi, warmup};

/// Why an app's image is not on disk.
#[derive(Debug, thiserror::Error)]
pub enum NotStored {
    /// The app holds files open after its import; the text is its log's, and names them.
    #[error("the app cannot have an image: {0}")]
    FilesOpen(String),
    /// The folder for images cannot be used.
    #[error("images cannot be kept in {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What the app is made of cannot be told.
    #[error("{0}")]
    Ingredients(String),
    /// A file was changed while the app was being imported.
    #[error("{} changed while the app was being imported", .0.display())]
    Changed(PathBuf),
    /// It could not be written.
    #[error("{} cannot be written: {source}", path.display())]
    Write {
        /// The image's file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl From<NoKey> for NotStored {
    fn from(error: NoKey) -> Self {
        Self::Ingredients(error.to_string())
    }
}

/// Why [`App::build_image`] did not leave an image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The app did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It did, but there is no image of it.
    #[error(transparent)]
    NotStored(#[from] NotStored),
}

/// The snapshot that was looked for.
type Found = Result<Option<Snapshot>, Unusable>;

/// How an app came by its snapshot.
pub(crate) struct FirstStart {
    /// `None` if the app cannot be copied.
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    /// What became of its image.
    stored: Result<StoredImage, NotStored>,
}

impl App {
    /// Sees to it that the app's image is on disk, for the next start: leaves it if it is up to date, and makes it
    /// otherwise.
    ///
    /// # Errors
    /// [`BuildError`]; what the app said is in its log.
    pub async fn build_image(&self) -> Result<StoredImage, BuildError> {
        Ok(self.find_or_make().await?.stored?)
    }

    /// What all of the app's instances are copies of; `None` if it cannot be copied.
    pub(crate) async fn first_snapshot(&self) -> Result<Option<Arc<Snapshot>>, StartError> {
        if !self.spec().snapshot_cache {
            return self.import().await.map(|imported| imported.ok());
        }
        let first = self.find_or_make().await?;
        if let Err(why) = first.stored {
            self.say(&format!("its image is not kept: {why}"));
        }
        Ok(first.snapshot)
    }

    async fn find_or_make(&self) -> Result<FirstStart, StartError> {
        let (cache, key, found) = match self.apart(|app| app.look_for_image(&|| ())).await {
            Ok(looked) => looked,
            Err(why) => return Ok(FirstStart::of(self.import().await?, why)),
        };
        match found {
            Ok(Some(snapshot)) => {
                let stored = cache.stored(key, false).map_err(|source| NotStored::Write {
                    path: cache.file(key),
                    source,
                });
                return Ok(FirstStart {
                    snapshot: Some(Arc::new(snapshot)),
                    stored,
                });
            }
            Ok(None) => {}
            Err(error) => self.say(&format!("{}: {error}; making it anew", cache.file(key).display())),
        }
        self.say("importing the app to make its image, for this start and the next ones");
        let before = match self.settled_ingredients().await {
            Ok(before) => before,
            Err(why) => return Ok(FirstStart::of(self.import().await?, why.into())),
        };
        let snapshot = match self.import().await? {
            Ok(snapshot) => snapshot,
            Err(files) => return Ok(FirstStart::without_image(files)),
        };
        let taken = snapshot.clone();
        let stored = self.apart({
            let cache = cache.clone();
            move |app| app.store(&cache, &before, &taken)
        });
        let (stored, key) = match stored.await {
            Ok(stored) => stored,
            Err(why) => return Ok(FirstStart::of(Ok(snapshot), why)),
        };
        // What is on disk is the same memory, but the system's cache of a file and not this process's own. Found a little
        // later it is noted as whole, and nobody else need read it.
        tokio::time::sleep(Ingredients::SETTLE).await;
        let on_disk = self.apart(move |_| cache.find(key, &|| ()).ok().flatten()).await;
        Ok(FirstStart {
            snapshot: Some(on_disk.map_or(snapshot, Arc::new)),
            stored: Ok(stored),
        })
    }

    /// All that goes into the app's image now, not what was seen a moment ago. A change from then on will show.
    async fn settled_ingredients(&self) -> Result<Ingredients, NoKey> {
        let look = || self.apart(|app| Ingredients::look(app.engine(), app.spec()));
        let before = look().await?;
        if before.is_settled() {
            return Ok(before);
        }
        tokio::time::sleep(Ingredients::SETTLE).await;
        look().await
    }

    /// The app's image, looked for at the lowest priority; `None` if it is not there.
    pub(crate) async fn find_at_leisure(&self) -> Option<Arc<Snapshot>> {
        if !self.spec().snapshot_cache {
            return None;
        }
        let app = self.clone();
        let looked = self.engine().background.run(move || {
            // A guest's page faults take many times as long while another thread of the process runs: both have to agree on
            // what is mapped.
            app.look_for_image(&|| {
                if app.engine().ticker.is_running() {
                    thread::sleep(TICK);
                }
            })
        });
        let (_, _, found) = looked.await.ok()?;
        found.ok()?.map(Arc::new)
    }

    /// The key of all that goes into the app's image, and the image if it is there.
    fn look_for_image(&self, pause: &dyn Fn()) -> Result<(ImageCache, Key, Found), NotStored> {
        let cache = ImageCache::open(self.engine(), self.spec()).map_err(|source| NotStored::Folder {
            path: ImageCache::path(self.engine()),
            source,
        })?;
        let key = Key::since(self.engine(), self.spec(), self.since())?;
        let found = cache.find(key, pause);
        Ok((cache, key, found))
    }

    /// Keeps a snapshot of an app that was imported when it was made of `before`.
    fn store(
        &self,
        cache: &ImageCache,
        before: &Ingredients,
        snapshot: &Snapshot,
    ) -> Result<(StoredImage, Key), NotStored> {
        let after = Ingredients::look(self.engine(), self.spec())?;
        if let Some(changed) = after.difference(before) {
            return Err(NotStored::Changed(changed));
        }
        let key = after.key();
        let stored = cache.store(key, snapshot).map_err(|source| NotStored::Write {
            path: cache.file(key),
            source,
        })?;
        Ok((stored, key))
    }

    /// Runs what reads or writes many files on a thread for such: instances of others do not wait for it.
    async fn apart<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> T + Send + 'static) -> T {
        let app = self.clone();
        match tokio::task::spawn_blocking(move || work(&app)).await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and this task with it.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Imports the app and takes its snapshot. Of one that cannot be copied, the line that says why.
    async fn import(&self) -> Result<Result<Arc<Snapshot>, String>, StartError> {
        let mut raw = self.load().await?;
        self.warm_up(&mut raw).await?;
        // A warm-up request has left its own, shorter limit.
        raw.store.data_mut().limit = self.start_limit();
        let rewinds = i32::from(self.spec().isolation == Isolation::Request);
        let sealed = self.call(&mut raw, abi::SEAL, rewinds).await?;
        raw.log.mark(None);
        match self.judge(&mut raw, sealed)? {
            abi::FILES_OPEN => return Ok(Err(raw.log.last_line())),
            abi::OK => {}
            _ => return Err(StartError::Import(raw.log.last_line())),
        }
        let mut snapshot =
            Snapshot::take(&mut raw.store, &raw.instance, &self.bare()?).map_err(StartError::Snapshot)?;
        if let Some(early) = self.rehearse(&mut raw, &snapshot).await {
            snapshot.manifest.early = early;
        }
        Ok(Ok(Arc::new(snapshot)))
    }

    /// Gives the app one warm-up request: how the call ended, and what came of it.
    async fn ask(&self, raw: &mut Raw, path: &str) -> Result<(Result<i32, End>, Outcome), StartError> {
        let limits = self.spec().limits;
        let (request, outcome) = warmup::request(path);
        let limit = TimeLimit::new(limits.time, limits.grace);
        let length = begin(raw.store.data_mut(), request, limit) as i32;
        let handled = self.call(raw, abi::HANDLE, length).await?;
        let exchange = raw.store.data_mut().exchange.take();
        if let (Ok(code), Some(mut exchange)) = (&handled, exchange)
            && *code != abi::OK
        {
            exchange.fail(Failure::App);
        }
        raw.log.mark(None);
        Ok((handled, outcome))
    }

    /// Gives the instance that a snapshot was taken of one more warm-up request, and notes what that writes. The instance
    /// is of no use afterwards.
    async fn rehearse(&self, raw: &mut Raw, snapshot: &Snapshot) -> Option<EarlyPages> {
        let path = self.spec().warmup.first()?;
        let memory = raw.store.data().memory?;
        // All of it is its own. As a copy's is, it can be told what is written from here on.
        remap(memory.data_mut(&mut raw.store), &snapshot.image).ok()?;
        self.ask(raw, path).await.ok()?.0.ok()?;
        let now = memory.data(&raw.store).get(..snapshot.image.len())?;
        let mut rewind = Rewind::default();
        let written = rewind.own_parts(now).ok()??;
        Some(EarlyPages::of(written))
    }

    /// Gives the app its warm-up requests. One that the app answers with an error is told to the log; one that kills the
    /// instance is the end of the start.
    async fn warm_up(&self, raw: &mut Raw) -> Result<(), StartError> {
        let spec = self.spec();
        for path in &spec.warmup {
            for _ in 0..warmup::ROUNDS {
                let (handled, outcome) = self.ask(raw, path).await?;
                self.judge(raw, handled)?;
                if let Some(problem) = outcome.problem() {
                    self.say(&format!("warmup {path}: {problem}"));
                    break;
                }
            }
        }
        Ok(())
    }
}

impl FirstStart {
    /// Of an app that was imported, and whose image, if it can have one, is not kept.
    fn of(imported: Result<Arc<Snapshot>, String>, why: NotStored) -> Self {
        match imported {
            Ok(snapshot) => Self {
                snapshot: Some(snapshot),
                stored: Err(why),
            },
            Err(files) => Self::without_image(files),
        }
    }

    fn without_image(files: String) -> Self {
        Self {
            snapshot: None,
            stored: Err(NotStored::FilesOpen(files)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::path::Path;
    use std::pin::pin;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::image_file::{self, Whole};
    use crate::spec::{AppSpec, Entry, Limits, Mount, Quota};
    use crate::{AppLog, Engine, PythonFiles};

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl AppLog for Lines {
        fn line(&self, _: Option<&str>, text: &str) {
            self.0.lock().expect("log").push(text.to_owned());
        }
    }

    impl Lines {
        fn take(&self) -> Vec<String> {
            std::mem::take(&mut self.0.lock().expect("log"))
        }
    }

    fn app(engine: &Engine, root: &Path, lines: &Arc<Lines>) -> App {
        let spec = AppSpec {
            name: "clocks".into(),
            entry: Entry::Module {
                module: "app".into(),
                callable: "app".into(),
            },
            sys_path: vec!["/app".into()],
            site_dirs: vec![],
            mounts: vec![Mount {
                host: root.to_owned(),
                guest: "/app".into(),
                write: false,
                quota: Quota::default(),
            }],
            env: vec![],
            secrets: vec![],
            working_dir: "/app".into(),
            isolation: Isolation::Request,
            warmup: vec![],
            snapshot_cache: true,
            weight: 100,
            limits: Limits::default(),
        };
        engine.app(spec, lines.clone())
    }

    /// Tells, in each copy, what has passed since the import, and how long a sleep of 50 ms is.
    const CODE: &str = r#"
import time, wasgi
born = time.monotonic()
print("imported")

@wasgi.after_restore
def tell():
    now = time.monotonic()
    time.sleep(0.05)
    print(now - born, time.monotonic() - now)

def app(environ, start_response):
    pass
"#;

    fn engine() -> Engine {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        let python = PythonFiles::open(&target.join("python")).expect("`make python` has built the guest");
        Engine::new(&python, &target.join("test-cache"), &mut |_| ()).expect("engine")
    }

    #[tokio::test]
    async fn a_start_does_not_wait_for_what_is_being_prepared() {
        let engine = engine();
        let (root, lines) = (tempfile::tempdir().expect("folder"), Arc::default());
        let code = "def app(environ, start_response):\n    pass\n";
        std::fs::write(root.path().join("app.py"), code).expect("app.py");
        let image = app(&engine, root.path(), &lines).build_image().await;
        let path = image.expect("builds").path;

        // Another's preparation, which takes long, is before this app's.
        let (go_on, told) = std::sync::mpsc::channel::<()>();
        let mut long = pin!(engine.background.run(move || told.recv().is_err()));
        let again = app(&engine, root.path(), &lines);
        let mut preparing = pin!(again.prepare());
        tokio::select! {
            biased;
            _ = &mut long => unreachable!("nobody has told it"),
            _ = &mut preparing => panic!("it was prepared before its turn"),
            () = std::future::ready(()) => {}
        }
        let started = tokio::time::timeout(Duration::from_secs(60), again.start()).await;
        started.expect("does not wait").expect("starts");
        drop(go_on);
        assert!(long.await);
        preparing.await.expect("is there already");
        let file = std::fs::metadata(&path).expect("is there");
        let mark = engine.checked.mark(&file).expect("it is old enough");
        assert!(engine.checked.has(mark), "nobody need read it again");
        std::fs::remove_file(&path).expect("rm");
        let imports = lines.take().iter().filter(|it| it.contains("importing")).count();
        assert_eq!(imports, 1);
    }

    #[tokio::test]
    async fn a_guests_clock_goes_on_after_hours_on_disk() {
        let engine = engine();
        let root = tempfile::tempdir().expect("folder");
        std::fs::write(root.path().join("app.py"), CODE).expect("app.py");
        let lines = Arc::new(Lines::default());

        let image = app(&engine, root.path(), &lines)
            .build_image()
            .await
            .expect("builds");
        assert!(image.new && lines.take().contains(&"imported".to_owned()));

        // As if it had been made five hours ago, by a process that was a day old then.
        let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(86_400));
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&image.path)
            .expect("image");
        let mut key = [0; 16];
        file.read_exact_at(&mut key, 12).expect("key");
        let key = Key(u128::from_le_bytes(key));
        // SAFETY: the file is written again below, with the same memory.
        let mut snapshot = unsafe {
            image_file::read(file.try_clone().expect("dup"), key, Whole::Known, || {
                engine.bare()
            })
        }
        .expect("reads");
        snapshot.manifest.taken.wall -= 5 * hour;
        snapshot.manifest.taken.monotonic += day;
        image_file::write(&file, key, &snapshot).expect("writes");
        drop(snapshot);

        let again = app(&engine, root.path(), &lines);
        for _ in 0..2 {
            let mut instance = again.start().await.expect("starts");
            instance.rewind(true).await.expect("rewinds");
        }
        std::fs::remove_file(&image.path).expect("rm");
        let told = lines.take();
        assert_eq!(told.len(), 4, "{told:?}");
        for line in told {
            let (passed, slept) = line.split_once(' ').expect("two numbers");
            let number = |text: &str| text.parse::<f64>().expect("a number");
            let expected = (day + 5 * hour).as_secs_f64();
            assert!((expected..expected + 60.0).contains(&number(passed)), "{line}");
            assert!((0.05..30.0).contains(&number(slept)), "{line}");
        }
    }
}
