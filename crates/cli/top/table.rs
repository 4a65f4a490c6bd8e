//! The table of `wasgi top`.

use std::cmp::Ordering;

use super::figures::Figures;
use crate::columns::{self, Column};

/// What apps are sorted by. The key that chooses it is the letter in its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    App,
    Requests,
    Latency,
    InFlight,
    Queue,
    Cpu,
    Memory,
    Starts,
    Kills,
}

impl Sort {
    /// Each with its key and its name.
    pub(crate) const ALL: [(Sort, char, &str); 9] = [
        (Sort::App, 'a', "app"),
        (Sort::Requests, 'r', "requests"),
        (Sort::Latency, 'l', "latency"),
        (Sort::InFlight, 'f', "in-flight"),
        (Sort::Queue, 'u', "queue"),
        (Sort::Cpu, 'c', "cpu"),
        (Sort::Memory, 'm', "memory"),
        (Sort::Starts, 's', "starts"),
        (Sort::Kills, 'k', "kills"),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::ALL
            .into_iter()
            .find(|(sort, ..)| *sort == self)
            .map_or("", |(_, _, name)| name)
    }

    pub(crate) fn of_key(key: char) -> Option<Self> {
        let found = Self::ALL.into_iter().find(|(_, other, _)| *other == key);
        found.map(|(sort, ..)| sort)
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        let found = Self::ALL.into_iter().find(|(_, _, other)| *other == name);
        found.map(|(sort, ..)| sort)
    }

    /// The most first; names from A.
    fn compare(self, a: &Figures, b: &Figures) -> Ordering {
        let most = match self {
            Sort::App => Ordering::Equal,
            Sort::Requests => b.rate.total_cmp(&a.rate),
            Sort::Latency => b.most.unwrap_or_default().total_cmp(&a.most.unwrap_or_default()),
            Sort::InFlight => b.in_flight.cmp(&a.in_flight),
            Sort::Queue => b.queue.cmp(&a.queue),
            Sort::Cpu => b.cpu.total_cmp(&a.cpu),
            Sort::Memory => b.memory.cmp(&a.memory),
            Sort::Starts => b.cold_starts.cmp(&a.cold_starts),
            Sort::Kills => b.kills.cmp(&a.kills),
        };
        most.then_with(|| a.app.cmp(&b.app))
    }
}

/// Puts apps in their order.
pub(crate) fn sort(apps: &mut [Figures], by: Sort) {
    apps.sort_by(|a, b| by.compare(a, b));
}

const COLUMNS: [Column; 12] = [
    Column::text("APP"),
    Column::number("REQ/S"),
    Column::number("5XX/S"),
    Column::number("P50"),
    Column::number("P99"),
    Column::number("RUN"),
    Column::number("QUEUE"),
    Column::number("CPU%"),
    Column::number("MEMORY"),
    Column::number("INST"),
    Column::number("COLD"),
    Column::number("KILLS"),
];

/// Widest an app's name is shown.
const NAME: usize = 24;

/// Titles and a line for each app, none longer than `width`.
pub(crate) fn table(apps: &[Figures], width: usize) -> Vec<String> {
    let rows: Vec<Vec<String>> = apps.iter().map(row).collect();
    columns::lines(&COLUMNS, &rows, width)
}

fn row(app: &Figures) -> Vec<String> {
    let millis = |time: Option<f64>| time.map_or("-".to_owned(), columns::millis);
    let name = match app.state.as_str() {
        "serving" | "" => columns::cut(&app.app, NAME),
        state => format!("{} ({state})", columns::cut(&app.app, NAME)),
    };
    vec![
        name,
        format!("{:.1}", app.rate),
        format!("{:.1}", app.errors),
        millis(app.half),
        millis(app.most),
        app.in_flight.to_string(),
        app.queue.to_string(),
        format!("{:.1}", app.cpu),
        columns::bytes(app.memory),
        app.instances.to_string(),
        app.cold_starts.to_string(),
        app.kills.to_string(),
    ]
}

/// All that a screen of `width` and `height` has room for.
pub(crate) fn screen(
    apps: &[Figures],
    by: Sort,
    problem: Option<&str>,
    (width, height): (usize, usize),
) -> Vec<String> {
    let sum = |value: fn(&Figures) -> f64| apps.iter().map(value).sum::<f64>();
    let memory: u64 = apps.iter().map(|app| app.memory).sum();
    let head = format!(
        "{} apps, {:.1} requests/s, {} running, {} waiting, CPU {:.0}%, {}",
        apps.len(),
        sum(|app| app.rate),
        sum(|app| app.in_flight as f64),
        sum(|app| app.queue as f64),
        sum(|app| app.cpu),
        columns::bytes(memory),
    );
    let keys: Vec<_> = Sort::ALL
        .into_iter()
        .map(|(_, key, name)| format!("{key} {name}"))
        .collect();
    let mut lines = vec![
        columns::cut(&head, width),
        columns::cut(
            &format!("by {}; keys: q quit, {}", by.name(), keys.join(", ")),
            width,
        ),
        columns::cut(problem.unwrap_or_default(), width),
    ];
    let mut table = table(apps, width);
    let room = height.saturating_sub(lines.len());
    if table.len() > room && room > 0 {
        let hidden = table.len() - (room - 1);
        table.truncate(room - 1);
        table.push(columns::cut(&format!("{hidden} more"), width));
    }
    lines.append(&mut table);
    lines.truncate(height);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(name: &str, rate: f64, memory: u64) -> Figures {
        Figures {
            app: name.to_owned(),
            state: "serving".to_owned(),
            rate,
            memory,
            most: Some(rate),
            ..Figures::default()
        }
    }

    #[test]
    fn keys_and_names_are_each_ones_own() {
        for (sort, key, name) in Sort::ALL {
            assert_eq!((Sort::of_key(key), Sort::named(name)), (Some(sort), Some(sort)));
            assert_ne!(key, 'q');
        }
    }

    #[test]
    fn the_most_comes_first_and_names_break_ties() {
        let mut apps = [app("b", 1.0, 9), app("a", 1.0, 5), app("c", 2.0, 1)];
        let mut order = |by| {
            sort(&mut apps, by);
            apps.iter().map(|app| app.app.as_str()).collect::<String>()
        };
        assert_eq!(order(Sort::App), "abc");
        assert_eq!(order(Sort::Requests), "cab");
        assert_eq!(order(Sort::Memory), "bac");
        assert_eq!(order(Sort::Kills), "abc");
    }

    #[test]
    fn a_screen_is_never_overrun() {
        let apps: Vec<_> = (0..50)
            .map(|n| app(&format!("app{n}{}", "x".repeat(n)), n as f64, 1 << n))
            .collect();
        for width in [1, 20, 80, 200] {
            for height in [1, 2, 3, 4, 5, 24, 60] {
                let lines = screen(&apps, Sort::Cpu, Some("no server"), (width, height));
                assert!(lines.len() <= height, "{} of {height}", lines.len());
                assert!(lines.iter().all(|line| line.chars().count() <= width));
            }
        }
        let lines = screen(&apps, Sort::Cpu, None, (80, 24));
        assert_eq!(lines[23], "31 more");
    }
}
