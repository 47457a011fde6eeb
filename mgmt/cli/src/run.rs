//! The program with its surroundings as arguments.

use std::ffi::OsString;
use std::io::{BufRead, Write};

use api::{ApiError, RequestId};
use clap::Parser;
use clap::error::ErrorKind;

use crate::args::{Cli, Output};
use crate::command;
use crate::exit::{EXIT_FOUND, exit_code};
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

/// Why a command did not end with success.
pub(crate) enum Failure {
    /// It failed.
    Failed {
        /// Why.
        error: ApiError,
        /// The id under which the node logged it; `None` when the node was not involved.
        request_id: Option<RequestId>,
    },
    /// It did what it was asked for, found damage, and has printed that.
    Found,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Failed { error, request_id: None }
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        let request_id = proto::request_id_of_status(&status);
        Self::Failed { error: proto::error_from_status(&status), request_id }
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
        Err(Failure::Found) => EXIT_FOUND,
        Err(Failure::Failed { error, request_id }) => {
            // Where could a failure to report a failure be reported?
            let _ = report(&error, request_id.as_ref(), output, terminal.err);
            exit_code(error.kind())
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

fn report(
    error: &ApiError,
    request_id: Option<&RequestId>,
    output: Output,
    err: &mut dyn Write,
) -> std::io::Result<()> {
    if output == Output::Json {
        return writeln!(err, "{}", json::failure(error, request_id));
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
