//! `holdfast export`.

use api::{
    ApiError, Changed, Export, ExportAdd, ExportRemove, HostAccess, HostsAdd, HostsRemove,
    SetAnaState, VolumeName,
};
use proto::v1;
use serde_json::json;

use super::{list, parse_all, print_changed, print_json};
use crate::args::{ExportCommand, HostsCommand, Output};
use crate::client::Client;
use crate::confirm::confirm;
use crate::run::{Failure, Terminal};
use crate::{json, table};

/// Asks before sessions end.
pub(super) fn confirm_first(
    command: &ExportCommand,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    match command {
        ExportCommand::Remove { volume, yes, .. } => {
            let question =
                format!("remove the export of {:?} and disconnect its hosts?", volume.as_str());
            confirm(&question, *yes, terminal)
        }
        ExportCommand::Hosts(HostsCommand::Remove { volume, hosts, yes }) => {
            let count = hosts.len();
            let question = format!("disconnect {count} host(s) from {:?}?", volume.as_str());
            confirm(&question, *yes, terminal)
        }
        _ => Ok(()),
    }
}

pub(super) async fn execute(
    client: &Client,
    command: ExportCommand,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    match command {
        ExportCommand::Add { volume, nqn, nsid, hosts, allow_any_host, require_authentication } => {
            let access = if allow_any_host { HostAccess::Any } else { HostAccess::listed(hosts)? };
            let request = ExportAdd { volume, nqn, nsid, access, require_authentication };
            let request = client.request(v1::ExportAddRequest::from(request));
            let outcome: Changed<Export> =
                client.exports().add(request).await?.into_inner().try_into()?;
            let Export { volume, nqn, nsid, .. } = &outcome.value;
            let number = if *nsid == 1 { String::new() } else { format!(" (namespace {nsid})") };
            let sentence = format!("volume {volume} is exported as {nqn}{number}");
            let value = json::export(&outcome.value);
            print_changed(terminal, output, value, outcome.changed, &sentence)?;
            let nobody = HostAccess::Listed(Vec::new());
            if output == Output::Table && outcome.value.access == nobody {
                let hint = "no host may connect yet: holdfast export hosts add";
                writeln!(terminal.out, "{hint} {volume} NQN")?;
            }
            Ok(())
        }
        ExportCommand::Remove { volume, if_exists, yes: _ } => {
            remove(client, volume, if_exists, output, terminal).await
        }
        ExportCommand::List => {
            let exports = exports(client).await?;
            match output {
                Output::Table => Ok(table::exports(terminal.out, &exports)?),
                Output::Json => print_json(terminal.out, &list(&exports, json::export)),
            }
        }
        ExportCommand::Hosts(command) => hosts(client, command, output, terminal).await,
        ExportCommand::SetAnaState { volume, state, listener } => {
            let request = SetAnaState { volume, state, listener };
            let request = client.request(v1::ExportSetAnaStateRequest::from(request));
            let outcome: Changed<Export> =
                client.exports().set_ana_state(request).await?.into_inner().try_into()?;
            let place = listener.map(|listener| format!(" through {listener}"));
            let Export { volume, .. } = &outcome.value;
            let sentence = format!("volume {volume} is {state}{}", place.unwrap_or_default());
            let value = json::export(&outcome.value);
            print_changed(terminal, output, value, outcome.changed, &sentence)
        }
    }
}

async fn exports(client: &Client) -> Result<Vec<Export>, Failure> {
    let request = client.request(v1::ExportListRequest {});
    let response = client.exports().list(request).await?.into_inner();
    Ok(parse_all(response.exports)?)
}

async fn remove(
    client: &Client,
    volume: VolumeName,
    if_exists: bool,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let request = ExportRemove { volume: volume.clone() };
    let request = client.request(v1::ExportRemoveRequest::from(request));
    let removed = client.exports().remove(request).await?.into_inner().export;
    let changed = removed.is_some();
    if !changed && !if_exists {
        return Err(ApiError::not_found("export", &volume).into());
    }
    let sentence = format!("the export of volume {volume} is removed");
    print_changed(terminal, output, json!({ "volume": volume.as_str() }), changed, &sentence)
}

async fn hosts(
    client: &Client,
    command: HostsCommand,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let outcome: Changed<Export> = match command {
        HostsCommand::Add { volume, hosts } => {
            let request = HostsAdd { volume, hosts };
            let request = client.request(v1::ExportAddHostsRequest::from(request));
            client.exports().add_hosts(request).await?.into_inner().try_into()?
        }
        HostsCommand::Remove { volume, hosts, yes: _ } => {
            let request = HostsRemove { volume, hosts };
            let request = client.request(v1::ExportRemoveHostsRequest::from(request));
            client.exports().remove_hosts(request).await?.into_inner().try_into()?
        }
        HostsCommand::List { volume } => {
            let found = exports(client).await?.into_iter().find(|export| export.volume == volume);
            let export = found.ok_or_else(|| ApiError::not_found("export", &volume))?;
            return match output {
                Output::Table => Ok(table::hosts(terminal.out, &export)?),
                Output::Json => print_json(
                    terminal.out,
                    &list(export.access.hosts(), |host| json!(host.as_str())),
                ),
            };
        }
    };
    let Export { volume, access, .. } = &outcome.value;
    let sentence = format!("{} host(s) may connect to {volume}", access.hosts().len());
    print_changed(terminal, output, json::export(&outcome.value), outcome.changed, &sentence)
}
