//! `holdfast store check`, `scrub` and `advise`.

use std::time::Duration;

use api::{
    ApiError, Changed, LogAdvice, LogDemand, Scrub, ScrubRate, StoreAdvise, StoreCheck, StoreName,
    advise_log, judge_log,
};
use proto::{OneStore, v1};

use super::{print_changed, print_json};
use crate::args::{AdviseArgs, Output, ScrubCommand};
use crate::client::Client;
use crate::progress::Progress;
use crate::run::{Failure, Terminal};
use crate::{json, table};

/// Checks a store, and shows how far that is.
pub(super) async fn check(
    client: &Client,
    name: Option<StoreName>,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let what = name.as_ref().map_or_else(|| "check".to_owned(), |name| format!("check {name}"));
    let request = client.stream_request(v1::StoreCheckRequest::from(OneStore(name)));
    let mut steps = client.stores().check(request).await?.into_inner();
    let mut progress = Progress::new(what);
    let mut last = StoreCheck::Never;
    while let Some(message) = steps.message().await? {
        last = message.into();
        if let StoreCheck::Running { read, total } = last {
            progress.show(terminal, read, total)?;
        }
    }
    progress.clear(terminal)?;
    match last {
        StoreCheck::Done(report) => {
            match output {
                Output::Table => table::check(terminal.out, &report)?,
                Output::Json => print_json(terminal.out, &json::check(&report))?,
            }
            if report.is_clean() { Ok(()) } else { Err(Failure::Found) }
        }
        StoreCheck::Aborted { reason } => {
            let reason = format!("the check gave way: {reason}; start it again");
            Err(ApiError::unavailable(reason).into())
        }
        StoreCheck::Never | StoreCheck::Running { .. } => {
            Err(ApiError::unavailable("the node ended before the check did").into())
        }
    }
}

pub(super) async fn scrub(
    client: &Client,
    command: ScrubCommand,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let mut stores = client.stores();
    let text = |name: Option<StoreName>| name.map(|name| name.to_string()).unwrap_or_default();
    let rate = |rate: Option<ScrubRate>| rate.map_or(0, ScrubRate::bytes);
    let outcome: Changed<Scrub> = match command {
        ScrubCommand::Start { name, rate: wanted, wait } => {
            let before = if wait { Some(status(client, name.clone()).await?) } else { None };
            let (store, rate_bytes) = (text(name), rate(wanted));
            let request = client.request(v1::StoreStartScrubRequest { store, rate_bytes });
            let outcome: Changed<Scrub> =
                stores.start_scrub(request).await?.into_inner().try_into()?;
            if let Some(before) = before {
                // A short pass may be over by now; one that ended before this began does not count.
                let now = &outcome.value;
                let since = if now.progress.running { now } else { &before };
                return wait_for(client, since, output, terminal).await;
            }
            outcome
        }
        ScrubCommand::Pause { name } => {
            let request = client.request(v1::StorePauseScrubRequest { store: text(name) });
            stores.pause_scrub(request).await?.into_inner().try_into()?
        }
        ScrubCommand::Resume { name, rate: wanted } => {
            let (store, rate_bytes) = (text(name), rate(wanted));
            let request = client.request(v1::StoreResumeScrubRequest { store, rate_bytes });
            stores.resume_scrub(request).await?.into_inner().try_into()?
        }
        ScrubCommand::Status { name } => {
            return print_scrub(&status(client, name).await?, output, terminal);
        }
    };
    let Scrub { store, policy, progress } = &outcome.value;
    let rate = api::ByteLen::from_bytes(policy.rate.bytes());
    let sentence = match (policy.paused, progress.running) {
        (true, _) => format!("the scrub of store {store} is paused"),
        (false, true) => format!("the scrub of store {store} is running at {rate}/s"),
        (false, false) => {
            format!("the scrub of store {store} goes on when it is time, at {rate}/s")
        }
    };
    print_changed(terminal, output, json::scrub(&outcome.value), outcome.changed, &sentence)
}

fn print_scrub(scrub: &Scrub, output: Output, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    match output {
        Output::Table => Ok(table::scrub(terminal.out, scrub)?),
        Output::Json => print_json(terminal.out, &json::scrub(scrub)),
    }
}

async fn status(client: &Client, store: Option<StoreName>) -> Result<Scrub, Failure> {
    let request = client.request(v1::StoreScrubStatusRequest::from(OneStore(store)));
    let response = client.stores().scrub_status(request).await?.into_inner();
    let missing = || ApiError::internal("the node says nothing of the scrub");
    Ok(response.scrub.ok_or_else(missing)?.try_into()?)
}

/// Waits until a pass is over that was not when `before` was asked for.
async fn wait_for(
    client: &Client,
    before: &Scrub,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let mut progress = Progress::new(format!("scrub {}", before.store));
    loop {
        let scrub = status(client, Some(before.store.clone())).await?;
        if scrub.progress.passes > before.progress.passes {
            progress.clear(terminal)?;
            print_scrub(&scrub, output, terminal)?;
            let found = scrub.progress.last_found > 0;
            return if found { Err(Failure::Found) } else { Ok(()) };
        }
        if scrub.policy.paused {
            progress.clear(terminal)?;
            let hint = "holdfast store scrub start --wait goes on with it";
            return Err(ApiError::precondition("the scrub was paused", hint).into());
        }
        progress.show(terminal, scrub.progress.covered, scrub.progress.total)?;
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
    }
}

/// How often a scrub is looked at while somebody waits, in milliseconds.
const LOOK_MS: u64 = 200;

fn demand(args: &AdviseArgs) -> LogDemand {
    LogDemand {
        write_rate: args.write_rate,
        destage_rate: args.destage_rate,
        burst_seconds: args.burst,
    }
}

/// Advice for which no node is needed. `None`: it is about the log of a store.
pub(super) fn advise(
    args: &AdviseArgs,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Option<Result<(), Failure>> {
    if args.name.is_some() {
        return None;
    }
    let advice = match args.log_size {
        None => advise_log(demand(args)),
        Some(size) => judge_log(demand(args), size.len()),
    };
    let print = |advice| print_advice(&advice, args, output, terminal);
    Some(advice.map_err(Failure::from).and_then(print))
}

/// What the log of a store bears.
pub(super) async fn judge(
    client: &Client,
    args: AdviseArgs,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let request = StoreAdvise { demand: demand(&args), store: args.name.clone() };
    let request = client.request(v1::StoreAdviseRequest::from(request));
    let advice = client.stores().advise(request).await?.into_inner().into();
    print_advice(&advice, &args, output, terminal)
}

fn print_advice(
    advice: &LogAdvice,
    args: &AdviseArgs,
    output: Output,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let asked = args.name.is_none() && args.log_size.is_none();
    match output {
        Output::Table => Ok(table::advice(terminal.out, advice, asked)?),
        Output::Json => print_json(terminal.out, &json::advice(advice)),
    }
}
