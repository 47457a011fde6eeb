//! `holdfast volume snapshot`.

use api::{
    ApiError, Changed, Snapshot, SnapshotCreate, SnapshotDelete, SnapshotList, SnapshotPath,
};
use proto::v1;
use serde_json::json;

use super::{list, parse_all, print_changed, print_json};
use crate::args::{Output, SnapshotCommand};
use crate::client::Client;
use crate::run::{Failure, Terminal};
use crate::{json, table};

pub(super) async fn execute(
    client: &Client,
    command: SnapshotCommand,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let mut service = client.snapshots();
    match command {
        SnapshotCommand::Create { snapshots } => {
            let request = SnapshotCreate::new(snapshots)?;
            let request = client.request(v1::SnapshotCreateRequest::from(request));
            let outcome: Changed<Vec<Snapshot>> =
                service.create(request).await?.into_inner().try_into()?;
            let names: Vec<_> = outcome.value.iter().map(|one| one.path.to_string()).collect();
            let taken = if names.len() == 1 { "is taken" } else { "are taken" };
            let sentence = format!("{} {taken}", names.join(", "));
            let value = json!({ "snapshots": list(&outcome.value, json::snapshot) });
            print_changed(terminal, output, value, outcome.changed, &sentence)
        }
        SnapshotCommand::List { volume, space } => {
            let request = SnapshotList { volume, with_space: space };
            let request = client.request(v1::SnapshotListRequest::from(request));
            let snapshots: Vec<Snapshot> =
                parse_all(service.list(request).await?.into_inner().snapshots)?;
            match output {
                Output::Table => Ok(table::snapshots(terminal.out, &snapshots)?),
                Output::Json => print_json(terminal.out, &list(&snapshots, json::snapshot)),
            }
        }
        SnapshotCommand::Show { snapshot: path } => {
            let request = client.request(v1::SnapshotShowRequest { snapshot: path.to_string() });
            let response = service.show(request).await?.into_inner();
            let snapshot: Snapshot = response.snapshot.ok_or_else(|| missing(&path))?.try_into()?;
            match output {
                Output::Table => Ok(table::snapshot(terminal.out, &snapshot)?),
                Output::Json => print_json(terminal.out, &json::snapshot(&snapshot)),
            }
        }
        SnapshotCommand::Delete { snapshot: path, if_exists, yes: _ } => {
            let request = SnapshotDelete { snapshot: path.clone() };
            let request = client.request(v1::SnapshotDeleteRequest::from(request));
            let changed = service.delete(request).await?.into_inner().snapshot.is_some();
            if !changed && !if_exists {
                return Err(missing(&path).into());
            }
            let value = json!({ "snapshot": path.to_string() });
            let sentence = format!("snapshot {path} is deleted");
            print_changed(terminal, output, value, changed, &sentence)
        }
    }
}

fn missing(path: &SnapshotPath) -> ApiError {
    ApiError::NotFound {
        what: "snapshot".to_owned(),
        name: path.to_string(),
        hint: format!("list what there is with: holdfast volume snapshot list {}", path.volume),
    }
}
