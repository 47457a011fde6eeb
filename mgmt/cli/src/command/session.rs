//! `holdfast session`.

use api::Session;
use proto::v1;

use super::{list, parse_all, print_json};
use crate::args::{Output, SessionCommand};
use crate::client::Client;
use crate::run::{Failure, Terminal};
use crate::{json, table};

pub(super) async fn execute(
    client: &Client,
    command: SessionCommand,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let SessionCommand::List = command;
    let request = client.request(v1::ListSessionsRequest {});
    let response = client.nodes().list_sessions(request).await?.into_inner();
    let sessions: Vec<Session> = parse_all(response.sessions)?;
    match output {
        Output::Table => Ok(table::sessions(terminal.out, &sessions)?),
        Output::Json => print_json(terminal.out, &list(&sessions, json::session)),
    }
}
