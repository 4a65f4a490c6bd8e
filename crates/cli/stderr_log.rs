//! The app's lines on standard error, for commands that serve nothing.

use wasgi_engine::AppLog;

/// Prints each line as it comes.
pub(crate) struct StderrLog;

impl AppLog for StderrLog {
    fn line(&self, _request: Option<&str>, text: &str) {
        eprintln!("{}", plain(text));
    }
}

/// Without what could command a terminal: control characters other than tabs become escapes.
fn plain(text: &str) -> String {
    text.chars()
        .fold(String::with_capacity(text.len()), |mut out, c| {
            match c.is_control() && c != '\t' {
                true => out.extend(c.escape_default()),
                false => out.push(c),
            }
            out
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_cannot_command_the_terminal() {
        assert_eq!(
            plain("a\tb \u{1b}[2Jc\r\u{9b}1m é"),
            "a\tb \\u{1b}[2Jc\\r\\u{9b}1m é"
        );
    }
}
