//! The one mapping between errors and exit codes.

use api::ErrorKind;

/// All exit codes and what they mean.
pub const EXIT_CODES: [(u8, &str); 9] = [
    (0, "done, or already so"),
    (1, "failed for another reason: an internal error of the node, or output cannot be written"),
    (2, "usage: an option or a value is wrong, or a confirmation is missing"),
    (3, "not found"),
    (4, "exists already, and is not what was asked for"),
    (5, "the state of the node does not allow it"),
    (6, "unavailable: the node does not answer, or cannot answer now"),
    (7, "a limit was reached: space, or a bound"),
    (EXIT_FOUND, "a check, a scrub or a bench that verifies found damage, mended or not"),
];

/// The exit code of a command that did what it was asked for, and found damage.
pub(crate) const EXIT_FOUND: u8 = 8;

/// The exit code for a kind of error.
#[must_use]
pub const fn exit_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Internal => 1,
        ErrorKind::InvalidArgument => 2,
        ErrorKind::NotFound => 3,
        ErrorKind::AlreadyExists => 4,
        ErrorKind::FailedPrecondition => 5,
        ErrorKind::Unavailable => 6,
        ErrorKind::ResourceExhausted => 7,
    }
}

/// The list for `--help` and the manual.
pub(crate) fn help() -> String {
    let mut text = String::from("Exit codes:\n");
    for (code, meaning) in EXIT_CODES {
        text.push_str(&format!("  {code}  {meaning}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_documented_code() {
        let mut codes: Vec<u8> = ErrorKind::ALL.iter().map(|&kind| exit_code(kind)).collect();
        codes.push(EXIT_FOUND);
        codes.sort_unstable();
        let documented: Vec<u8> = EXIT_CODES.iter().map(|&(code, _)| code).skip(1).collect();
        assert_eq!(codes, documented);
    }
}
