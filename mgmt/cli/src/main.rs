//! The `holdfast` command.
#![forbid(unsafe_code)]

use std::io::{IsTerminal, stderr, stdin, stdout};
use std::process::ExitCode;

fn main() -> ExitCode {
    let interactive = stdin().is_terminal() && stderr().is_terminal();
    let mut terminal = cli::Terminal {
        out: &mut stdout().lock(),
        err: &mut stderr().lock(),
        input: &mut stdin().lock(),
        interactive,
    };
    ExitCode::from(cli::run(std::env::args_os(), &mut terminal))
}
