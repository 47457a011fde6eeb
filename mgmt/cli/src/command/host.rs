//! `holdfast host`.

use api::{ApiError, Changed, DhchapHash, DhchapKey, Host, HostRemove, HostSet, Nqn};
use proto::v1;
use serde_json::json;
use zeroize::Zeroizing;

use super::{list, parse_all, print_changed, print_json};
use crate::args::{HostCommand, HostSetArgs, KeyText, Output};
use crate::client::Client;
use crate::confirm::confirm;
use crate::run::{Failure, Terminal};
use crate::{json, table};

/// Asks before a host is let in without proof.
pub(super) fn confirm_first(
    command: &HostCommand,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    match command {
        HostCommand::Remove { nqn, yes, .. } => {
            let question = format!("let anybody connect who says that it is {nqn}?");
            confirm(&question, *yes, terminal)
        }
        _ => Ok(()),
    }
}

/// Does what needs no node; gives back what does.
pub(super) fn offline(
    command: HostCommand,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<Result<(), Failure>, HostCommand> {
    match command {
        HostCommand::GenDhchapKey { hmac, key_length } => {
            Ok(generate(hmac, key_length, output, terminal))
        }
        other => Err(other),
    }
}

fn generate(
    hmac: u8,
    key_length: Option<usize>,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let hash = DhchapHash::ALL.into_iter().find(|hash| hash.number() == hmac);
    let natural = match hash {
        None | Some(DhchapHash::Sha256) => 32,
        Some(DhchapHash::Sha384) => 48,
        Some(DhchapHash::Sha512) => 64,
    };
    let mut secret = Zeroizing::new(vec![0; key_length.unwrap_or(natural).min(65)]);
    getrandom::fill(&mut secret)
        .map_err(|error| ApiError::internal(format!("no randomness: {error}")))?;
    let key = DhchapKey::new(hash, &secret)?;
    match output {
        Output::Table => Ok(writeln!(terminal.out, "{}", *key.expose())?),
        Output::Json => print_json(terminal.out, &json!({ "dhchap_key": *key.expose() })),
    }
}

pub(super) async fn execute(
    client: &Client,
    command: HostCommand,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    match command {
        HostCommand::Set(args) => set(client, args, output, terminal).await,
        HostCommand::Remove { nqn, if_exists, yes: _ } => {
            remove(client, nqn, if_exists, output, terminal).await
        }
        HostCommand::List => {
            let request = client.request(v1::HostListRequest {});
            let response = client.hosts().list(request).await?.into_inner();
            let hosts: Vec<Host> = parse_all(response.hosts)?;
            match output {
                Output::Table => Ok(table::keyed_hosts(terminal.out, &hosts)?),
                Output::Json => print_json(terminal.out, &list(&hosts, json::host)),
            }
        }
        HostCommand::GenDhchapKey { .. } => unreachable!("done without a node"),
    }
}

async fn set(
    client: &Client,
    args: HostSetArgs,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let HostSetArgs { nqn, dhchap_key, dhchap_ctrl_key, dhchap_hash, dhchap_dhgroup } = args;
    let key = read_key("dhchap-key", &dhchap_key)?;
    let other = dhchap_ctrl_key.map(|key| read_key("dhchap-ctrl-key", &key)).transpose()?;
    let request = HostSet::new(nqn, key, other, dhchap_hash, dhchap_dhgroup)?;
    let request = client.request(v1::HostSetRequest::from(request));
    let outcome: Changed<Host> = client.hosts().set(request).await?.into_inner().try_into()?;
    let sentence = format!("host {} must prove who it is", outcome.value.nqn);
    let value = json::host(&outcome.value);
    print_changed(terminal, output, value, outcome.changed, &sentence)
}

/// A key as it was given, or the one in a file.
fn read_key(option: &str, KeyText(text): &KeyText) -> Result<DhchapKey, ApiError> {
    let parsed = match text.strip_prefix('@') {
        None => text.parse::<DhchapKey>(),
        Some(path) => {
            let read = std::fs::read_to_string(path).map(Zeroizing::new);
            let text = read.map_err(|error| {
                ApiError::invalid(option, format!("{path}: {error}"), "name a file with a key")
            })?;
            text.parse()
        }
    };
    parsed.map_err(|error| match error {
        ApiError::InvalidArgument { reason, hint, .. } => ApiError::invalid(option, reason, hint),
        other => other,
    })
}

async fn remove(
    client: &Client,
    nqn: Nqn,
    if_exists: bool,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let request = client.request(v1::HostRemoveRequest::from(HostRemove { nqn: nqn.clone() }));
    let changed = client.hosts().remove(request).await?.into_inner().host.is_some();
    if !changed && !if_exists {
        return Err(ApiError::not_found("host", &nqn).into());
    }
    let sentence = format!("the keys of host {nqn} are forgotten");
    print_changed(terminal, output, json!({ "nqn": nqn.as_str() }), changed, &sentence)
}
