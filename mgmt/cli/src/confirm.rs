//! Asking before destroying.

use api::ApiError;

use crate::run::{Failure, Terminal};

/// Asks `question` unless `yes`; an error unless the answer is yes.
///
/// Without a terminal nobody can answer, so that `--yes` is required.
pub(crate) fn confirm(
    question: &str,
    yes: bool,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !terminal.interactive {
        let reason = format!("not asked, not done: {question}");
        return Err(ApiError::invalid("confirmation", reason, "add --yes to answer it").into());
    }
    write!(terminal.err, "{question} [y/N] ")?;
    terminal.err.flush()?;
    let mut answer = String::new();
    terminal.input.read_line(&mut answer)?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(ApiError::invalid("confirmation", "answered with no, nothing was done", "").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(yes: bool, interactive: bool, answer: &str) -> (bool, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut terminal =
            Terminal { out: &mut out, err: &mut err, input: &mut answer.as_bytes(), interactive };
        let done = confirm("delete it?", yes, &mut terminal).is_ok();
        (done, String::from_utf8(err).unwrap())
    }

    #[test]
    fn only_a_yes_is_a_yes() {
        for answer in ["y\n", "Yes\n", "YES"] {
            assert_eq!(ask(false, true, answer), (true, "delete it? [y/N] ".to_owned()));
        }
        for answer in ["", "\n", "n\n", "yess\n"] {
            assert!(!ask(false, true, answer).0, "{answer:?}");
        }
    }

    #[test]
    fn without_a_terminal_only_the_option_counts() {
        assert_eq!(ask(true, false, ""), (true, String::new()));
        assert_eq!(ask(false, false, "y\n"), (false, String::new()));
    }
}
