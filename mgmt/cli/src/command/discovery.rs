//! `holdfast discovery`.

use api::{ApiError, Changed, Referral};
use proto::v1;
use serde_json::json;

use super::{list, parse_all, print_changed, print_json};
use crate::args::{Output, ReferralCommand};
use crate::client::Client;
use crate::run::{Failure, Terminal};
use crate::{json, table};

pub(super) async fn execute(
    client: &Client,
    command: ReferralCommand,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    match command {
        ReferralCommand::Add { address, nqn } => {
            let referral = Referral::new(address, nqn)?;
            let request = client.request(v1::ReferralAddRequest::from(referral));
            let outcome = client.discovery().add_referral(request).await?.into_inner();
            let outcome: Changed<Referral> = outcome.try_into()?;
            let sentence = format!("hosts are told of {}", outcome.value);
            let value = json::referral(&outcome.value);
            print_changed(terminal, output, value, outcome.changed, &sentence)
        }
        ReferralCommand::Remove { address, if_exists } => {
            let request = v1::ReferralRemoveRequest { address: address.to_string() };
            let response = client.discovery().remove_referral(client.request(request)).await?;
            let changed = response.into_inner().referral.is_some();
            if !changed && !if_exists {
                let what = "referral".to_owned();
                let hint = "list what there is with: holdfast discovery referral list".to_owned();
                return Err(ApiError::NotFound { what, name: address.to_string(), hint }.into());
            }
            let sentence = format!("hosts are told no more of {address}");
            let value = json!({ "address": address.to_string() });
            print_changed(terminal, output, value, changed, &sentence)
        }
        ReferralCommand::List => {
            let request = client.request(v1::ReferralListRequest {});
            let response = client.discovery().list_referrals(request).await?.into_inner();
            let referrals: Vec<Referral> = parse_all(response.referrals)?;
            match output {
                Output::Table => Ok(table::referrals(terminal.out, &referrals)?),
                Output::Json => print_json(terminal.out, &list(&referrals, json::referral)),
            }
        }
    }
}
