//! `holdfast volume`.

use api::{
    ApiError, ByteLen, Changed, DiffStep, Qos, Rate, Volume, VolumeClone, VolumeCreate,
    VolumeDelete, VolumeDiff, VolumeQos, VolumeResize, VolumeRestore,
};
use proto::v1;
use serde_json::json;

use super::{list, parse_all, print_changed, print_json, snapshot};
use crate::args::{Output, QosArgs, SnapshotCommand, VolumeCommand};
use crate::client::Client;
use crate::confirm::confirm;
use crate::progress::Progress;
use crate::run::{Failure, Terminal};
use crate::{json, table};

/// Asks before what cannot be undone.
pub(super) fn confirm_first(
    command: &VolumeCommand,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    match command {
        VolumeCommand::Delete { name, snapshots, yes, .. } => {
            let what = if *snapshots { "all of its data and snapshots" } else { "all of its data" };
            let question = format!("delete volume {:?} and {what}?", name.as_str());
            confirm(&question, *yes, terminal)
        }
        VolumeCommand::Restore { snapshot, volume, yes } => {
            let volume = volume.as_ref().unwrap_or(&snapshot.volume);
            let question =
                format!("take volume {volume} back to {snapshot} and lose what came after?");
            confirm(&question, *yes, terminal)
        }
        VolumeCommand::Snapshot(SnapshotCommand::Delete { snapshot, yes, .. }) => {
            confirm(&format!("delete snapshot {snapshot}?"), *yes, terminal)
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
        VolumeCommand::Resize { name, size, shrink } => {
            let request = VolumeResize::new(name, size, shrink)?;
            let request = client.request(v1::VolumeResizeRequest::from(request));
            let outcome: Changed<Volume> =
                volumes.resize(request).await?.into_inner().try_into()?;
            let sentence = format!("volume {} has {}", outcome.value.name, outcome.value.size);
            let value = json::volume(&outcome.value);
            print_changed(terminal, output, value, outcome.changed, &sentence)
        }
        VolumeCommand::Delete { name, snapshots, if_exists, yes: _ } => {
            delete(client, VolumeDelete { name, snapshots }, if_exists, output, terminal).await
        }
        VolumeCommand::Qos(args) => qos(client, args, output, terminal).await,
        VolumeCommand::Snapshot(command) => {
            snapshot::execute(client, command, output, terminal).await
        }
        VolumeCommand::Clone { snapshot, name } => {
            let request = VolumeClone { snapshot: snapshot.clone(), name };
            let request = client.request(v1::VolumeCloneRequest::from(request));
            let outcome: Changed<Volume> =
                volumes.clone_snapshot(request).await?.into_inner().try_into()?;
            let Volume { name, size, .. } = &outcome.value;
            let sentence = format!("volume {name} of {size} is cloned from {snapshot}");
            let value = json::volume(&outcome.value);
            print_changed(terminal, output, value, outcome.changed, &sentence)
        }
        VolumeCommand::Restore { snapshot, volume, yes: _ } => {
            let volume = volume.unwrap_or_else(|| snapshot.volume.clone());
            let request = VolumeRestore { volume, snapshot: snapshot.clone() };
            let request = client.request(v1::VolumeRestoreRequest::from(request));
            let volume: Volume = volumes.restore(request).await?.into_inner().try_into()?;
            let sentence = format!("volume {} is what {snapshot} is", volume.name);
            print_changed(terminal, output, json::volume(&volume), true, &sentence)
        }
        VolumeCommand::Diff { of, base } => {
            let request = VolumeDiff::new(base, of)?;
            diff(client, request, output, terminal).await
        }
    }
}

/// Sets limits, or shows them.
async fn qos(
    client: &Client,
    args: QosArgs,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let QosArgs { name, iops, iops_burst, bandwidth, bandwidth_burst, unlimited } = args;
    if iops.is_none() && bandwidth.is_none() && !unlimited {
        let request = client.request(v1::VolumeShowRequest { name: name.to_string() });
        let response = client.volumes().show(request).await?.into_inner();
        let missing = || ApiError::not_found("volume", &name);
        let volume: Volume = response.volume.ok_or_else(missing)?.try_into()?;
        return match output {
            Output::Table => Ok(writeln!(terminal.out, "volume {name}: {}", volume.qos)?),
            Output::Json => print_json(terminal.out, &json::qos(volume.qos)),
        };
    }
    let rate = |per_second: u64, burst: Option<u64>| {
        let burst = burst.unwrap_or(per_second);
        Rate { per_second, burst }
    };
    let iops = iops.map(|iops| rate(iops, iops_burst));
    let burst = bandwidth_burst.map(ByteLen::bytes);
    let bandwidth = bandwidth.map(|bandwidth| rate(bandwidth.bytes(), burst));
    let request = VolumeQos { name, qos: Qos::new(iops, bandwidth)? };
    let request = client.request(v1::VolumeSetQosRequest::from(request));
    let outcome: Changed<Volume> =
        client.volumes().set_qos(request).await?.into_inner().try_into()?;
    let Volume { name, qos, .. } = &outcome.value;
    let sentence = format!("volume {name}: {qos}");
    let value = json::volume(&outcome.value);
    print_changed(terminal, output, value, outcome.changed, &sentence)
}

/// Prints changed ranges as they come; a table ends with their sum.
async fn diff(
    client: &Client,
    request: VolumeDiff,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let what = format!("compare {}", request.of());
    let request = client.stream_request(v1::VolumeDiffRequest::from(request));
    let mut steps = client.volumes().diff(request).await?.into_inner();
    let mut progress = Progress::new(what);
    let mut sum = table::Changes::default();
    while let Some(message) = steps.message().await? {
        let DiffStep { ranges, position, size } = message.into();
        progress.clear(terminal)?;
        for range in &ranges {
            match output {
                Output::Table => sum.add(terminal.out, range)?,
                Output::Json => writeln!(terminal.out, "{}", json::changed_range(range))?,
            }
        }
        terminal.out.flush()?;
        progress.show(terminal, position, size)?;
    }
    progress.clear(terminal)?;
    if output == Output::Table {
        sum.end(terminal.out)?;
    }
    Ok(())
}

async fn delete(
    client: &Client,
    request: VolumeDelete,
    if_exists: bool,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let name = request.name.clone();
    let request = client.request(v1::VolumeDeleteRequest::from(request));
    let deleted = client.volumes().delete(request).await?.into_inner().volume;
    let changed = deleted.is_some();
    if !changed && !if_exists {
        return Err(ApiError::not_found("volume", &name).into());
    }
    let sentence = format!("volume {name} is deleted");
    print_changed(terminal, output, json!({ "name": name.as_str() }), changed, &sentence)
}
