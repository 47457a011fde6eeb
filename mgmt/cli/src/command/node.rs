//! `holdfast node`.

use api::{Event, NodeInfo};
use proto::v1;

use super::print_json;
use crate::args::{NodeCommand, Output};
use crate::client::Client;
use crate::run::{Failure, Terminal};
use crate::{json, table};

pub(super) async fn execute(
    client: &Client,
    command: NodeCommand,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    match command {
        NodeCommand::Info => {
            let request = client.request(v1::NodeInfoRequest {});
            let info: NodeInfo = client.nodes().info(request).await?.into_inner().try_into()?;
            match output {
                Output::Table => Ok(table::node(terminal.out, &info)?),
                Output::Json => print_json(terminal.out, &json::node(&info)),
            }
        }
        NodeCommand::Events { from, follow } => {
            let request = client.stream_request(v1::WatchEventsRequest { from, follow });
            let mut events = client.nodes().watch_events(request).await?.into_inner();
            while let Some(message) = events.message().await? {
                let event: Event = message.try_into()?;
                match output {
                    Output::Table => table::event(terminal.out, &event)?,
                    Output::Json => writeln!(terminal.out, "{}", json::event(&event))?,
                }
                terminal.out.flush()?;
            }
            Ok(())
        }
    }
}
