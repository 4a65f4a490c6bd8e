//! What changes on disk, seen by looking: apps that come and go, files that change.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

use super::{Fleet, Loader};

/// How often the files of apps are looked at: a second of two is what an owner waits who has mended something.
const LOOK: Duration = Duration::from_millis(500);

impl<L: Loader> Fleet<L> {
    /// Looks again and again: an app's file that is dropped in is served, one taken out drains and goes, one that changes is
    /// loaded anew, and so are apps with `watch` and those that failed when one of their files changes.
    pub async fn watch(self: Arc<Self>) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.look_for_files().await;
            let members = self.members();
            let changed = spawn_blocking(move || {
                let mut changed = members;
                changed.retain(|member| member.has_changed());
                changed
            });
            let mut reloading = JoinSet::new();
            for member in changed.await.unwrap_or_default() {
                let fleet = Arc::clone(&self);
                reloading.spawn_on(async move { fleet.renew(&member).await }, &self.guests);
            }
            while reloading.join_next().await.is_some() {}
        }
    }

    /// Takes in files that are new, and lets apps go whose files are gone.
    pub(super) async fn look_for_files(self: &Arc<Self>) {
        let fleet = Arc::clone(self);
        let Ok(files) = spawn_blocking(move || fleet.loader.files()).await else {
            return;
        };
        let gone: Vec<_> = {
            let mut members = self.lock();
            let gone = members.extract_if(.., |file, _| files.binary_search(file).is_err());
            gone.map(|(_, member)| member).collect()
        };
        let new: Vec<_> = {
            let members = self.lock();
            files
                .into_iter()
                .filter(|file| !members.contains_key(file))
                .collect()
        };
        for member in &gone {
            let name = member.site.name();
            self.log
                .note(format_args!("app {name}: gone, requests that run may finish"));
        }
        if new.is_empty() {
            if !gone.is_empty() {
                self.publish();
            }
            return;
        }
        self.admit_all(new.clone()).await;
        for file in new {
            let member = self.lock().get(&file).cloned();
            if let Some(member) = member {
                self.prepare(&member, self.builder().await).await;
                if !member.has_failed() {
                    let name = member.site.name();
                    self.log.note(format_args!("app {name}: served"));
                }
            }
        }
    }
}
