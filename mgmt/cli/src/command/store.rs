//! `holdfast store`.

use api::{Changed, Store, StoreAdd, StoreInit};
use proto::v1;

use super::{care, list, parse_all, print_changed, print_json};
use crate::args::{Output, StoreCommand};
use crate::client::Client;
use crate::confirm::confirm;
use crate::run::{Failure, Terminal};
use crate::{json, table};

/// Asks before what cannot be undone.
pub(super) fn confirm_first(
    command: &StoreCommand,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    match command {
        StoreCommand::Init { device, force_overwrite: true, yes, .. } => {
            confirm(&format!("destroy everything on {device}?"), *yes, terminal)
        }
        _ => Ok(()),
    }
}

pub(super) async fn execute(
    client: &Client,
    command: StoreCommand,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let mut stores = client.stores();
    match command {
        StoreCommand::Init { name, device, size, log_size, force_overwrite, yes: _ } => {
            let request = StoreInit { name, device, file_size: size, log_size, force_overwrite };
            let request = client.request(v1::StoreInitRequest::from(request));
            let outcome = stores.init(request).await?.into_inner().try_into()?;
            print_outcome(terminal, output, &outcome, "is initialised")
        }
        StoreCommand::Add { name, device } => {
            let request = client.request(v1::StoreAddRequest::from(StoreAdd { name, device }));
            let outcome = stores.add(request).await?.into_inner().try_into()?;
            print_outcome(terminal, output, &outcome, "is added")
        }
        StoreCommand::List => {
            let request = client.request(v1::StoreListRequest {});
            let stores: Vec<Store> = parse_all(stores.list(request).await?.into_inner().stores)?;
            match output {
                Output::Table => Ok(table::stores(terminal.out, &stores)?),
                Output::Json => print_json(terminal.out, &list(&stores, json::store)),
            }
        }
        StoreCommand::Check { name } => care::check(client, name, output, terminal).await,
        StoreCommand::Scrub(command) => care::scrub(client, command, output, terminal).await,
        StoreCommand::Advise(args) => care::judge(client, args, output, terminal).await,
    }
}

/// What can be answered without a node. `None`: a node must be asked.
pub(super) fn offline(
    command: &StoreCommand,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Option<Result<(), Failure>> {
    match command {
        StoreCommand::Advise(args) => care::advise(args, output, terminal),
        _ => None,
    }
}

fn print_outcome(
    terminal: &mut Terminal<'_>,
    output: Output,
    outcome: &Changed<Store>,
    done: &str,
) -> Result<(), Failure> {
    let store = &outcome.value;
    let sentence = format!("store {} {done} on {}", store.name, store.device);
    print_changed(terminal, output, json::store(store), outcome.changed, &sentence)
}
