//! How far a long job is: a bar below the log on a terminal, a line for each step elsewhere.

use std::io::{self, IsTerminal, Write, stderr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Columns of the bar itself.
const WIDTH: usize = 24;

/// Columns of a line that fits any terminal in use.
const COLUMNS: usize = 79;

/// Counts the steps of a job, on standard error.
#[derive(Clone)]
pub(crate) struct Progress(Arc<Mutex<State>>);

struct State {
    out: Box<dyn Write + Send>,
    is_terminal: bool,
    done: usize,
    all: usize,
    /// What the bar says; empty when there is none.
    bar: String,
}

impl Progress {
    pub(crate) fn to_stderr(all: usize) -> Self {
        Self::to(Box::new(stderr()), stderr().is_terminal(), all)
    }

    fn to(out: Box<dyn Write + Send>, is_terminal: bool, all: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            out,
            is_terminal,
            done: 0,
            all,
            bar: String::new(),
        })))
    }

    /// Where lines are written that are not to be mixed up with the bar.
    pub(crate) fn writer(&self) -> Box<dyn Write + Send> {
        Box::new(self.clone())
    }

    /// One more step is done. `what` is one line.
    pub(crate) fn step(&self, what: &str) {
        let state = &mut *self.state();
        state.done += 1;
        let (done, all) = (state.done, state.all);
        if state.is_terminal {
            let full = WIDTH * done / all.max(1);
            let bar = format!(
                "[{}{}] {done}/{all} {what}",
                "#".repeat(full),
                ".".repeat(WIDTH - full)
            );
            state.bar = bar.chars().filter(|c| !c.is_control()).take(COLUMNS).collect();
            state.draw("");
        } else {
            let _ = writeln!(state.out, "[{done}/{all}] {what}");
        }
    }

    /// Takes the bar away.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        if !state.bar.is_empty() {
            state.bar.clear();
            state.draw("");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Writes whole lines where the bar was, and the bar below them. That it does not get there is no reason to stop.
    fn draw(&mut self, lines: &str) {
        let _ = write!(self.out, "\r\x1b[K{lines}{}", self.bar);
        let _ = self.out.flush();
    }
}

/// Whole lines, as the log writes them.
impl Write for Progress {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        match state.bar.is_empty() {
            true => state.out.write_all(bytes)?,
            false => state.draw(&String::from_utf8_lossy(bytes)),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.state().out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shown(is_terminal: bool) -> String {
        let kept = Kept::default();
        let progress = Progress::to(Box::new(kept.clone()), is_terminal, 2);
        let mut log = progress.writer();
        progress.step("shop\x1b[2J: made");
        log.write_all(b"app blog Traceback\n").unwrap();
        progress.step("blog: failed");
        progress.end();
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn lines_of_the_log_come_above_the_bar() {
        let bar = |full: usize| format!("[{}{}]", "#".repeat(full), ".".repeat(WIDTH - full));
        let (half, all) = (bar(WIDTH / 2), bar(WIDTH));
        let expected = format!(
            "\r\x1b[K{half} 1/2 shop[2J: made\r\x1b[Kapp blog Traceback\n{half} 1/2 shop[2J: made\
             \r\x1b[K{all} 2/2 blog: failed\r\x1b[K"
        );
        assert_eq!(shown(true), expected);
    }

    #[test]
    fn without_a_terminal_each_step_is_a_line() {
        let shown = shown(false);
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines[1..], ["app blog Traceback", "[2/2] blog: failed"]);
    }
}
