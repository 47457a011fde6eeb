//! Completion scripts and manual pages.

use std::path::Path;

use api::ApiError;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::run::{Failure, Terminal};

pub(super) fn completions(shell: Shell, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "holdfast", &mut script);
    Ok(terminal.out.write_all(&script)?)
}

pub(super) fn man(directory: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        let reason = format!("{}: {error}", directory.display());
        ApiError::invalid("directory", reason, "name a directory that can be written")
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), directory).map_err(failed)?;
    Ok(())
}
