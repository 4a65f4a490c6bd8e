//! The images of many apps, made side by side. One that fails is no reason to stop.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use wasgi_engine::{App, StoredImage};

use crate::progress::Progress;

/// An app whose image is wanted.
pub(crate) struct Wanted {
    /// What the table calls it.
    pub label: String,
    /// The app, or why it cannot be had: one line.
    pub app: Result<App, String>,
}

/// What became of it.
pub(crate) struct Built {
    pub label: String,
    pub image: Result<StoredImage, String>,
    pub time: Duration,
}

/// Sees to it that the images of all `wanted` are on disk, `jobs` at a time; what comes of each is in the order of `wanted`.
pub(crate) async fn build_all(
    wanted: Vec<Wanted>,
    jobs: usize,
    guests: &Handle,
    progress: &Progress,
) -> Vec<Built> {
    let places = Arc::new(Semaphore::new(jobs.max(1)));
    let mut running = JoinSet::new();
    for (index, Wanted { label, app }) in wanted.into_iter().enumerate() {
        let (places, progress) = (Arc::clone(&places), progress.clone());
        let build = async move {
            let _place = places.acquire().await;
            let begun = Instant::now();
            let image = match app {
                Ok(app) => app.build_image().await.map_err(|error| error.to_string()),
                Err(why) => Err(why),
            };
            let time = begun.elapsed();
            let built = Built { label, image, time };
            progress.step(&format!("{}: {}", built.label, built.state()));
            (index, built)
        };
        running.spawn_on(build, guests);
    }
    let mut built = running.join_all().await;
    built.sort_by_key(|(index, _)| *index);
    progress.end();
    built.into_iter().map(|(_, built)| built).collect()
}

impl Built {
    fn state(&self) -> &'static str {
        match &self.image {
            Ok(image) if image.new => "made",
            Ok(_) => "up to date",
            Err(_) => "failed",
        }
    }
}

/// A line for each app, and one for all.
pub(crate) fn table(all: &[Built], time: Duration) -> String {
    let width = all.iter().map(|built| built.label.chars().count()).max();
    let width = width.unwrap_or(0).clamp(3, 48);
    let mut text = format!(
        "{:<width$}  {:<10}  {:>8}  {:>9}\n",
        "app", "image", "time", "on disk"
    );
    let (mut size, mut counts) = (0, [0usize; 3]);
    for built in all {
        let _ = write!(
            text,
            "{:<width$}  {:<10}  {:>6.2} s  ",
            built.label,
            built.state(),
            built.time.as_secs_f64()
        );
        let _ = match &built.image {
            Ok(image) => writeln!(text, "{:>9}", mib(image.size)),
            Err(why) => writeln!(text, "{why}"),
        };
        let kind = match &built.image {
            Ok(image) if image.new => 0,
            Ok(_) => 1,
            Err(_) => 2,
        };
        counts[kind] += 1;
        size += built.image.as_ref().map_or(0, |image| image.size);
    }
    let [made, kept, failed] = counts;
    let _ = write!(
        text,
        "{} apps: {made} made, {kept} up to date, {failed} failed; {} on disk; {:.1} s",
        all.len(),
        mib(size),
        time.as_secs_f64()
    );
    text
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_each_app_and_the_sums() {
        let image = |size: u64, new| {
            Ok(StoredImage {
                path: "/images/a.image".into(),
                size: size << 20,
                new,
            })
        };
        let built = |label: &str, image, millis| Built {
            label: label.into(),
            image,
            time: Duration::from_millis(millis),
        };
        let all = [
            built("tenants/a/app.toml", image(12, true), 410),
            built("b", image(3, false), 10),
            built("c", Err("the app cannot be loaded: SyntaxError: x".into()), 200),
        ];
        assert_eq!(
            table(&all, Duration::from_millis(650)),
            "app                 image           time    on disk\n\
             tenants/a/app.toml  made          0.41 s   12.0 MiB\n\
             b                   up to date    0.01 s    3.0 MiB\n\
             c                   failed        0.20 s  the app cannot be loaded: SyntaxError: x\n\
             3 apps: 1 made, 1 up to date, 1 failed; 15.0 MiB on disk; 0.7 s"
        );
    }
}
