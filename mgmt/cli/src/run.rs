//! The program with its surroundings as arguments.

use std::ffi::OsString;
use std::io::{BufRead, Write};

use api::{ApiError, RequestId};
use clap::Parser;
use clap::error::ErrorKind;

use crate::args::{Cli, Output};
use crate::command;
use crate::exit::exit_code;
use crate::json;

/// What the program talks to.
pub struct Terminal<'a> {
    /// Results.
    pub out: &'a mut dyn Write,
    /// Errors and questions.
    pub err: &'a mut dyn Write,
    /// Answers to questions.
    pub input: &'a mut dyn BufRead,
    /// Whether somebody is there to answer.
    pub interactive: bool,
}

/// Why a command failed.
pub(crate) struct Failure {
    pub(crate) error: ApiError,
    /// The id under which the node logged it; `None` when the node was not involved.
    pub(crate) request_id: Option<RequestId>,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self { error, request_id: None }
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        let request_id = proto::request_id_of_status(&status);
        Self { error: proto::error_from_status(&status), request_id }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        ApiError::internal(format!("output cannot be written: {error}")).into()
    }
}

/// Runs the command line `args` (the first is the program's name); returns the exit code.
pub fn run<A>(args: A, terminal: &mut Terminal<'_>) -> u8
where
    A: IntoIterator,
    A::Item: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return print_usage(&error, terminal),
    };
    let output = cli.global.output;
    match command::execute(cli, terminal) {
        Ok(()) => 0,
        Err(failure) => {
            // Where could a failure to report a failure be reported?
            let _ = report(&failure, output, terminal.err);
            exit_code(failure.error.kind())
        }
    }
}

/// What clap has to say: help and version on `out` with success, errors on `err` with 2.
fn print_usage(error: &clap::Error, terminal: &mut Terminal<'_>) -> u8 {
    let text = error.render();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = write!(terminal.out, "{text}");
            0
        }
        _ => {
            let _ = write!(terminal.err, "{text}");
            exit_code(api::ErrorKind::InvalidArgument)
        }
    }
}

fn report(failure: &Failure, output: Output, err: &mut dyn Write) -> std::io::Result<()> {
    let Failure { error, request_id } = failure;
    if output == Output::Json {
        return writeln!(err, "{}", json::failure(error, request_id.as_ref()));
    }
    writeln!(err, "error: {error}")?;
    if !error.hint().is_empty() {
        writeln!(err, "hint: {}", error.hint())?;
    }
    if let Some(id) = request_id {
        writeln!(err, "request: {id}")?;
    }
    Ok(())
}
