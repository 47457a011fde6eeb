//! How far something has come: a line that is drawn again and again where somebody looks, a few
//! plain lines where nobody does.

use std::io::Result;

use crate::run::Terminal;

/// The progress of one command, on standard error.
pub(crate) struct Progress {
    what: String,
    /// Characters on the line that is drawn now.
    drawn: usize,
    /// The last plain line said so many percent.
    said: u64,
}

/// Characters of the bar.
const WIDTH: usize = 30;

/// Plain lines are this many percent apart.
const STEP: u64 = 10;

impl Progress {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), drawn: 0, said: 0 }
    }

    /// Shows that `done` of `all` are done.
    pub(crate) fn show(&mut self, terminal: &mut Terminal<'_>, done: u64, all: u64) -> Result<()> {
        let percent = percent(done, all);
        if terminal.interactive {
            self.clear(terminal)?;
            let filled = WIDTH * usize::try_from(percent).unwrap_or(100) / 100;
            let bar = format!("{}{}", "#".repeat(filled), "-".repeat(WIDTH - filled));
            let line = format!("{} [{bar}] {percent:>3}%", self.what);
            self.drawn = line.len();
            write!(terminal.err, "{line}")?;
        } else if percent >= self.said + STEP {
            self.said = percent / STEP * STEP;
            writeln!(terminal.err, "{} {percent}%", self.what)?;
        }
        terminal.err.flush()
    }

    /// Removes the line, so that something else can be printed.
    pub(crate) fn clear(&mut self, terminal: &mut Terminal<'_>) -> Result<()> {
        if self.drawn > 0 {
            write!(terminal.err, "\r{}\r", " ".repeat(self.drawn))?;
            self.drawn = 0;
        }
        Ok(())
    }
}

/// How much of all is done; all of nothing is.
pub(crate) fn percent(done: u64, all: u64) -> u64 {
    let done = u128::from(done.min(all));
    (done * 100)
        .checked_div(u128::from(all))
        .map_or(100, |percent| u64::try_from(percent).unwrap_or(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(interactive: bool, steps: &[(u64, u64)]) -> String {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut terminal =
            Terminal { out: &mut out, err: &mut err, input: &mut &b""[..], interactive };
        let mut progress = Progress::new("check main");
        for &(done, all) in steps {
            progress.show(&mut terminal, done, all).unwrap();
        }
        progress.clear(&mut terminal).unwrap();
        String::from_utf8(err).unwrap()
    }

    #[test]
    fn a_terminal_sees_one_line_that_is_gone_in_the_end() {
        let text = shown(true, &[(0, 10), (5, 10)]);
        assert!(text.contains(&format!("check main [{}]   0%", "-".repeat(30))), "{text:?}");
        let half = format!("check main [{}{}]  50%", "#".repeat(15), "-".repeat(15));
        assert!(text.contains(&half), "{text:?}");
        assert!(!text.contains('\n') && text.ends_with('\r'), "{text:?}");
    }

    #[test]
    fn a_file_gets_a_few_plain_lines() {
        let steps: Vec<_> = (0..=1000).map(|done| (done, 1000)).collect();
        let text = shown(false, &steps);
        assert_eq!(text.lines().count(), 10, "{text}");
        assert!(text.starts_with("check main 10%\n") && text.ends_with("check main 100%\n"));
    }

    #[test]
    fn nothing_to_do_is_done_and_large_numbers_fit() {
        assert_eq!(percent(0, 0), 100);
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
        assert_eq!(percent(9, 3), 100);
        assert_eq!(percent(u64::MAX / 2, u64::MAX), 49);
    }
}
