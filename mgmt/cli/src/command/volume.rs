//! `holdfast volume`.

use api::{ApiError, Changed, Volume, VolumeCreate, VolumeDelete, VolumeName, VolumeResize};
use proto::v1;
use serde_json::json;

use super::{list, parse_all, print_changed, print_json};
use crate::args::{Output, VolumeCommand};
use crate::client::Client;
use crate::confirm::confirm;
use crate::run::{Failure, Terminal};
use crate::{json, table};

/// Asks before what cannot be undone.
pub(super) fn confirm_first(
    command: &VolumeCommand,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    match command {
        VolumeCommand::Delete { name, yes, .. } => {
            let question = format!("delete volume {:?} and all of its data?", name.as_str());
            confirm(&question, *yes, terminal)
        }
        _ => Ok(()),
    }
}

pub(super) async fn execute(
    client: &Client,
    command: VolumeCommand,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let mut volumes = client.volumes();
    match command {
        VolumeCommand::Create { name, store, size, block_size } => {
            let request = VolumeCreate::new(name, store, size, block_size)?;
            let request = client.request(v1::VolumeCreateRequest::from(request));
            let outcome: Changed<Volume> =
                volumes.create(request).await?.into_inner().try_into()?;
            let Volume { name, size, store, .. } = &outcome.value;
            let sentence = format!("volume {name} of {size} is created in store {store}");
            let value = json::volume(&outcome.value);
            print_changed(terminal, output, value, outcome.changed, &sentence)
        }
        VolumeCommand::List => {
            let request = client.request(v1::VolumeListRequest {});
            let response = volumes.list(request).await?.into_inner();
            let volumes: Vec<Volume> = parse_all(response.volumes)?;
            match output {
                Output::Table => Ok(table::volumes(terminal.out, &volumes)?),
                Output::Json => print_json(terminal.out, &list(&volumes, json::volume)),
            }
        }
        VolumeCommand::Show { name } => {
            let request = client.request(v1::VolumeShowRequest { name: name.to_string() });
            let response = volumes.show(request).await?.into_inner();
            let missing = || ApiError::not_found("volume", &name);
            let volume: Volume = response.volume.ok_or_else(missing)?.try_into()?;
            match output {
                Output::Table => Ok(table::volume(terminal.out, &volume)?),
                Output::Json => print_json(terminal.out, &json::volume(&volume)),
            }
        }
        VolumeCommand::Resize { name, size } => {
            let request = VolumeResize::new(name, size)?;
            let request = client.request(v1::VolumeResizeRequest::from(request));
            let outcome: Changed<Volume> =
                volumes.resize(request).await?.into_inner().try_into()?;
            let sentence = format!("volume {} has {}", outcome.value.name, outcome.value.size);
            let value = json::volume(&outcome.value);
            print_changed(terminal, output, value, outcome.changed, &sentence)
        }
        VolumeCommand::Delete { name, if_exists, yes: _ } => {
            delete(client, name, if_exists, output, terminal).await
        }
    }
}

async fn delete(
    client: &Client,
    name: VolumeName,
    if_exists: bool,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let request = VolumeDelete { name: name.clone() };
    let request = client.request(v1::VolumeDeleteRequest::from(request));
    let deleted = client.volumes().delete(request).await?.into_inner().volume;
    let changed = deleted.is_some();
    if !changed && !if_exists {
        return Err(ApiError::not_found("volume", &name).into());
    }
    let sentence = format!("volume {name} is deleted");
    print_changed(terminal, output, json!({ "name": name.as_str() }), changed, &sentence)
}
