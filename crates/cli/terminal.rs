//! The user's terminal: its size, its keys, and a screen of its own for as long as one is needed.

use std::io::{self, IsTerminal, Write, stdin, stdout};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Columns and lines, where the terminal does not tell.
const USUAL: (usize, usize) = (80, 24);

/// Columns and lines of the terminal.
pub(crate) fn size() -> (usize, usize) {
    match tcgetwinsize(stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => USUAL,
    }
}

/// Whether there is one that shows a screen and sends keys.
pub(crate) fn is_there() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    stdout().is_terminal() && stdin().is_terminal() && !is_dumb
}

/// A screen beside the one with the shell's lines, and keys as they are pressed. Everything is as it was once this is
/// dropped.
pub(crate) struct Screen(Termios);

impl Screen {
    /// # Errors
    /// If the terminal cannot be set.
    pub(crate) fn open() -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut keys = before.clone();
        keys.make_raw();
        tcsetattr(stdin(), OptionalActions::Flush, &keys)?;
        let screen = Self(before);
        print("\x1b[?1049h\x1b[?25l")?;
        Ok(screen)
    }

    /// Shows these lines in place of those that are there. They fit.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub(crate) fn show(&self, lines: &[String]) -> io::Result<()> {
        let lines: Vec<_> = lines.iter().map(|line| format!("{line}\x1b[K")).collect();
        print(&format!("\x1b[H{}\x1b[J", lines.join("\r\n")))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone has nothing to be put right.
        let _ = print("\x1b[?25h\x1b[?1049l");
        let _ = tcsetattr(stdin(), OptionalActions::Flush, &self.0);
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
