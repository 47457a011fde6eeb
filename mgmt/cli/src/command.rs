//! The commands, one file for each noun.

mod bench;
mod care;
mod discovery;
mod export;
mod generate;
mod host;
mod node;
mod session;
mod snapshot;
mod store;
mod volume;

use std::io::Write;

use api::ApiError;
use serde_json::Value;

use crate::args::{Cli, Command, DiscoveryCommand, Output};
use crate::client::Client;
use crate::run::{Failure, Terminal};

pub(crate) fn execute(cli: Cli, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let Cli { global, command } = cli;
    let output = global.output;
    let connect = || Client::connect(&global);
    runtime.block_on(async {
        match command {
            Command::Node(command) => {
                node::execute(&connect().await?, command, output, terminal).await
            }
            Command::Store(command) => {
                store::confirm_first(&command, terminal)?;
                if let Some(answered) = store::offline(&command, output, terminal) {
                    return answered;
                }
                store::execute(&connect().await?, command, output, terminal).await
            }
            Command::Volume(command) => {
                volume::confirm_first(&command, terminal)?;
                volume::execute(&connect().await?, command, output, terminal).await
            }
            Command::Export(command) => {
                export::confirm_first(&command, terminal)?;
                export::execute(&connect().await?, command, output, terminal).await
            }
            Command::Discovery(DiscoveryCommand::Referral(command)) => {
                discovery::execute(&connect().await?, command, output, terminal).await
            }
            Command::Host(command) => {
                host::confirm_first(&command, terminal)?;
                match host::offline(command, output, terminal) {
                    Ok(answered) => answered,
                    Err(command) => {
                        host::execute(&connect().await?, command, output, terminal).await
                    }
                }
            }
            Command::Session(command) => {
                session::execute(&connect().await?, command, output, terminal).await
            }
            Command::Bench(args) => bench::execute(&args, output, terminal),
            Command::Completions { shell } => generate::completions(shell, terminal),
            Command::Man { directory } => generate::man(&directory),
        }
    })
}

/// Prints a value as JSON, indented.
fn print_json(out: &mut dyn Write, value: &Value) -> Result<(), Failure> {
    Ok(writeln!(out, "{value:#}")?)
}

/// Prints the result of a mutation: JSON with `changed`, or a sentence.
fn print_changed(
    terminal: &mut Terminal<'_>,
    output: Output,
    mut value: Value,
    changed: bool,
    sentence: &str,
) -> Result<(), Failure> {
    if output == Output::Json {
        value["changed"] = changed.into();
        return print_json(terminal.out, &value);
    }
    let already = if changed { "" } else { " already, nothing to do" };
    Ok(writeln!(terminal.out, "{sentence}{already}")?)
}

/// A list as JSON.
fn list<T>(values: &[T], one: impl Fn(&T) -> Value) -> Value {
    Value::Array(values.iter().map(one).collect())
}

/// Parses every message of a list.
fn parse_all<M, T: TryFrom<M, Error = ApiError>>(messages: Vec<M>) -> Result<Vec<T>, ApiError> {
    messages.into_iter().map(T::try_from).collect()
}
