//! The comparison as a picture: a panel per app, a bar per server. Readable in light and in dark.

use std::fmt::Write;

use serde_json::{Map, Value};

use crate::compare::{Compared, Row};
use crate::process::Trouble;
use crate::servers::Server;

const WIDTH: usize = 960;
const MARGIN: usize = 28;
const GAP: usize = 40;
const BAR: usize = 16;
const STEP: usize = 25;
/// Names of servers, left of the bars.
const NAMES: usize = 118;
/// Figures, right of the longest bar.
const FIGURES: usize = 104;
const HEAD: usize = 92;
const PANEL_HEAD: usize = 34;

const STYLE: &str = "
  .paper { fill: #ffffff } .ink { fill: #1f2328 } .soft { fill: #656d76 } .axis { stroke: #d0d7de }
  .worker { fill: #1f6feb } .request { fill: #54aeff } .peer { fill: #afb8c1 } .spread { stroke: #1f2328 }
  text { font: 13px system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif }
  .title { font-size: 18px; font-weight: 600 } .name { font-weight: 600 } .small { font-size: 11.5px }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117 } .ink { fill: #e6edf3 } .soft { fill: #8d96a0 } .axis { stroke: #30363d }
    .worker { fill: #388bfd } .request { fill: #79c0ff } .peer { fill: #545d68 } .spread { stroke: #e6edf3 }
  }
";

/// The picture.
pub fn svg(apps: &[Compared], machine: &Map<String, Value>) -> String {
    // A server that is not there for any app says nothing here; the table tells why.
    let is_shown = |row: &Row| {
        apps.iter()
            .filter_map(|app| app.row(row.server))
            .any(|row| !matches!(row.trouble, Some(Trouble::Unavailable(_))))
    };
    let apps: Vec<Compared> = apps
        .iter()
        .map(|app| Compared {
            rows: app.rows.iter().filter(|row| is_shown(row)).cloned().collect(),
            ..app.clone()
        })
        .collect();
    let columns = if apps.len() > 1 { 2 } else { 1 };
    let panel_width = (WIDTH - 2 * MARGIN - (columns - 1) * GAP) / columns;
    let most_rows = apps.iter().map(|app| app.rows.len()).max().unwrap_or(0);
    let panel_height = PANEL_HEAD + most_rows * STEP + 22;
    let height = HEAD + apps.len().div_ceil(columns) * panel_height + 14;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\">\n<title>Requests per second of wasgi and native WSGI servers</title>\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\"/>\n"
    );
    text(
        &mut out,
        MARGIN,
        32,
        "title ink",
        "Requests per second, one worker, 8 connections",
    );
    let about =
        "Median of the rounds; the thin line goes from least to most. 0.50 x: half as many as wasgi, worker.";
    text(&mut out, MARGIN, 54, "soft small", about);
    text(&mut out, MARGIN, 71, "soft small", &caption(machine));
    for (index, app) in apps.iter().enumerate() {
        let left = MARGIN + index % columns * (panel_width + GAP);
        let top = HEAD + index / columns * panel_height;
        panel(&mut out, app, left, top, panel_width);
    }
    out.push_str("</svg>\n");
    out
}

fn caption(machine: &Map<String, Value>) -> String {
    let said = |name: &str| machine[name].as_str().unwrap_or("?").to_owned();
    format!(
        "{}, {} cores, Linux {}. Peers on {}: uWSGI {}, Granian {}, Gunicorn {}.",
        said("cpu"),
        machine["cores"],
        said("kernel"),
        said("python"),
        said("uwsgi"),
        said("granian"),
        said("gunicorn"),
    )
}

fn panel(out: &mut String, app: &Compared, left: usize, top: usize, width: usize) {
    let title = format!(
        "<tspan class=\"name\">{}</tspan><tspan class=\"soft\" dx=\"8\">{}</tspan>",
        app.name,
        escape(app.about)
    );
    let _ = writeln!(
        out,
        "<text class=\"ink\" x=\"{left}\" y=\"{}\">{title}</text>",
        top + 18
    );
    let start = left + NAMES;
    let length = (width - NAMES - FIGURES) as f64;
    let most = app
        .rows
        .iter()
        .filter_map(|row| row.spread(|turn| turn.load.rate))
        .map(|rate| rate.max);
    let scale = length / most.fold(1.0, f64::max);
    let bottom = top + PANEL_HEAD + app.rows.len() * STEP;
    let _ = writeln!(
        out,
        "<line class=\"axis\" x1=\"{start}\" x2=\"{start}\" y1=\"{}\" y2=\"{bottom}\"/>",
        top + PANEL_HEAD - 6
    );
    for (index, row) in app.rows.iter().enumerate() {
        bar(
            out,
            app,
            row,
            (left, start),
            top + PANEL_HEAD + index * STEP,
            scale,
        );
    }
}

fn bar(out: &mut String, app: &Compared, row: &Row, (left, start): (usize, usize), top: usize, scale: f64) {
    let base = top + BAR - 3;
    text(out, left, base, "ink", row.server.title());
    let Some(rate) = row.spread(|turn| turn.load.rate) else {
        let why = match row.trouble {
            Some(Trouble::Failed(_)) => "failed",
            _ => "not available",
        };
        text(out, start + 8, base, "soft small", why);
        return;
    };
    let class = match row.server {
        Server::WasgiWorker => "worker",
        Server::WasgiRequest => "request",
        _ => "peer",
    };
    let [end, low, high] = [rate.median, rate.min, rate.max].map(|rate| start as f64 + rate * scale);
    let middle = top + BAR / 2;
    let _ = writeln!(
        out,
        "<rect class=\"{class}\" x=\"{start}\" y=\"{top}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>\n\
         <path class=\"spread\" d=\"M{low:.1} {middle}H{high:.1}M{low:.1} {}v6M{high:.1} {}v6\" opacity=\"0.6\"/>",
        end - start as f64,
        middle - 3,
        middle - 3,
    );
    let ratio = match (row.server, app.ratio(row.server, Server::WasgiWorker)) {
        (Server::WasgiWorker, _) | (_, None) => String::new(),
        (_, Some(ratio)) => format!("<tspan class=\"soft small\">  {:.2} x</tspan>", ratio.median),
    };
    let _ = writeln!(
        out,
        "<text class=\"ink\" x=\"{:.1}\" y=\"{base}\" xml:space=\"preserve\">{}{ratio}</text>",
        high + 8.0,
        grouped(rate.median)
    );
}

fn text(out: &mut String, x: usize, y: usize, class: &str, text: &str) {
    let _ = writeln!(
        out,
        "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>",
        escape(text)
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// `12,345`.
fn grouped(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        let all = [7.0, 999.6, 12345.2, 1e6].map(grouped);
        assert_eq!(all, ["7", "1,000", "12,345", "1,000,000"]);
    }
}
