//! Tables for a terminal, and text made fit for one.

use wasgi_server::harmless;

/// Characters between two columns.
const GAP: &str = "  ";

/// A column of a table.
pub(crate) struct Column {
    pub(crate) title: &'static str,
    /// Numbers stand at the right.
    pub(crate) is_number: bool,
}

impl Column {
    pub(crate) const fn text(title: &'static str) -> Self {
        Self {
            title,
            is_number: false,
        }
    }

    pub(crate) const fn number(title: &'static str) -> Self {
        Self {
            title,
            is_number: true,
        }
    }
}

/// Lines of the table, its titles first, none longer than `width`. What an app or a client may have said is made
/// harmless. Widths are in characters.
pub(crate) fn lines(columns: &[Column], rows: &[Vec<String>], width: usize) -> Vec<String> {
    let titles = columns.iter().map(|column| column.title.to_owned()).collect();
    let rows: Vec<Vec<String>> = [titles]
        .into_iter()
        .chain(
            rows.iter()
                .map(|row| row.iter().map(|cell| one_line(cell)).collect()),
        )
        .collect();
    let widths: Vec<usize> = (0..columns.len())
        .map(|at| {
            rows.iter()
                .filter_map(|row| row.get(at))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for ((cell, column), width) in row.iter().zip(columns).zip(&widths) {
            if !line.is_empty() {
                line.push_str(GAP);
            }
            match column.is_number {
                true => line.push_str(&format!("{cell:>width$}")),
                false => line.push_str(&format!("{cell:<width$}")),
            }
        }
        cut(line.trim_end(), width)
    };
    rows.iter().map(line).collect()
}

/// The first `width` characters; the last of them tells if there were more.
pub(crate) fn cut(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        None => text.to_owned(),
        Some(_) => {
            let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
            if width > 0 {
                short.push('\u{2026}');
            }
            short
        }
    }
}

/// Without what would move the cursor, tabs included.
fn one_line(text: &str) -> String {
    harmless(text).replace('\t', " ")
}

/// Bytes as `12.3M`, at most four characters and the unit.
pub(crate) fn bytes(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64 / 1024.0, "K");
    for larger in ["M", "G", "T"] {
        if value >= 1000.0 {
            (value, unit) = (value / 1024.0, larger);
        }
    }
    match value {
        _ if value >= 100.0 || value == 0.0 => format!("{value:.0}{unit}"),
        _ => format!("{value:.1}{unit}"),
    }
}

/// Milliseconds as `12ms`, `1.2s` or `3m05s`.
pub(crate) fn millis(millis: f64) -> String {
    match millis {
        _ if millis < 10.0 => format!("{millis:.1}ms"),
        _ if millis < 1_000.0 => format!("{millis:.0}ms"),
        _ if millis < 60_000.0 => format!("{:.1}s", millis / 1_000.0),
        _ => {
            let seconds = (millis / 1_000.0) as u64;
            format!("{}m{:02}s", seconds / 60, seconds % 60)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_fit() {
        let columns = [
            Column::text("APP"),
            Column::number("REQ/S"),
            Column::text("STATE"),
        ];
        let rows = [
            vec!["a".to_owned(), "1.0".to_owned(), "serving".to_owned()],
            vec!["longer".to_owned(), "1234.5".to_owned(), "failed".to_owned()],
        ];
        assert_eq!(
            lines(&columns, &rows, 80),
            [
                "APP      REQ/S  STATE",
                "a          1.0  serving",
                "longer  1234.5  failed"
            ]
        );
        for width in 0..30 {
            for line in lines(&columns, &rows, width) {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
        assert_eq!(lines(&columns, &rows, 10)[2], "longer  1\u{2026}");
    }

    #[test]
    fn what_strangers_say_moves_no_cursor() {
        let rows = [vec!["/\x1b[2J\x1b]0;x\x07\u{9b}1m\r\n\t\u{202e}é".to_owned()]];
        let told = lines(&[Column::text("REQUEST")], &rows, 200);
        assert_eq!(told[1], "/\\x1b[2J\\x1b]0;x\\x07\\x9b1m\\r\\n \\u{202e}é");
    }

    #[test]
    fn figures_are_short() {
        for (value, text) in [
            (0, "0K"),
            (1 << 19, "512K"),
            (1 << 20, "1.0M"),
            (123 << 20, "123M"),
            (5 << 30, "5.0G"),
        ] {
            assert_eq!(bytes(value), text);
        }
        for (value, text) in [
            (0.0, "0.0ms"),
            (9.94, "9.9ms"),
            (250.0, "250ms"),
            (1_500.0, "1.5s"),
            (185_000.0, "3m05s"),
        ] {
            assert_eq!(millis(value), text);
        }
    }
}
