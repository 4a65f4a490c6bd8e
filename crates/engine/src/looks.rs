//! Folders that an app was looked at for a moment ago: others that are shown the same ones need not look again.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::folder_state::FolderState;
use crate::image_key::NoKey;

/// Looks that are remembered, the latest ones: a folder that many apps share is always among them.
const MOST: usize = 64;

/// The latest looks.
#[derive(Default)]
pub(crate) struct Looks(Mutex<VecDeque<Look>>);

struct Look {
    folder: PathBuf,
    /// What of it was passed over.
    passed_over: Vec<PathBuf>,
    begun: Instant,
    digest: u128,
}

impl Looks {
    /// The digest of a folder's state, as [`FolderState`] has it, at `since` or later: whoever asks for it knew then that it
    /// would, and a look from then on is as good as one now.
    ///
    /// # Errors
    /// Those of [`FolderState::look`].
    pub(crate) fn digest(&self, folder: &Path, passed_over: &[&Path], since: Instant) -> Result<u128, NoKey> {
        let inside = passed_over.iter().filter(|path| path.starts_with(folder));
        let passed_over: Vec<&Path> = inside.copied().collect();
        let is_it = |look: &Look| look.folder == folder && look.passed_over == passed_over;
        if let Some(look) = self.all().iter().find(|look| is_it(look))
            && look.begun >= since
        {
            return Ok(look.digest);
        }
        // Without the lock: one that must be quick does not wait for one that has time.
        let begun = Instant::now();
        let digest = FolderState::look(folder, &passed_over)?.digest();
        let mut all = self.all();
        all.retain(|look| !is_it(look));
        all.truncate(MOST - 1);
        all.push_front(Look {
            folder: folder.to_owned(),
            passed_over: passed_over.iter().map(|path| path.to_path_buf()).collect(),
            begun,
            digest,
        });
        Ok(digest)
    }

    fn all(&self) -> std::sync::MutexGuard<'_, VecDeque<Look>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_look_serves_all_who_were_there_before_it_and_nobody_who_came_later() {
        let looks = Looks::default();
        let site = tempfile::tempdir().expect("folder");
        let (data, before) = (site.path().join("data"), Instant::now());
        let digest =
            |passed_over: &[&Path], since| looks.digest(site.path(), passed_over, since).expect("looks");
        let now = || FolderState::look(site.path(), &[]).expect("looks").digest();
        let empty = digest(&[], before);
        assert_eq!(empty, now());
        fs::create_dir(&data).expect("mkdir");
        fs::write(data.join("a.py"), "").expect("write");
        assert_eq!(digest(&[], before), empty, "it is not looked at again");
        assert_eq!(digest(&[Path::new("/elsewhere")], before), empty);
        let without = digest(&[&data], before);
        assert_ne!(without, now(), "what is passed over is not in it");
        let full = digest(&[], Instant::now());
        assert_eq!(full, now(), "what was there before is looked at");
        assert_eq!((digest(&[], before), digest(&[&data], before)), (full, without));
    }

    #[test]
    fn what_many_share_is_remembered_and_what_one_has_is_forgotten() {
        let looks = Looks::default();
        let all = tempfile::tempdir().expect("folder");
        let (shared, before) = (all.path().join("shared"), Instant::now());
        fs::create_dir(&shared).expect("mkdir");
        for number in 0..2 * MOST {
            let own = all.path().join(number.to_string());
            fs::create_dir(&own).expect("mkdir");
            for folder in [&own, &shared] {
                looks.digest(folder, &[], before).expect("looks");
            }
        }
        let all = looks.all();
        assert_eq!(all.len(), MOST);
        assert!(all.iter().any(|look| look.folder == shared));
    }
}
