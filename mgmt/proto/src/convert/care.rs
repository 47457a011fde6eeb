//! Check, scrub and advice.

use api::{
    ApiError, Changed, CheckFinding, CheckReport, LogAdvice, LogDemand, Scrub, ScrubChange,
    ScrubPolicy, ScrubProgress, ScrubRate, ScrubVerb, StoreAdvise, StoreCheck, StoreName,
};

use super::{bytes, field, present, rename};
use crate::v1;
use crate::v1::store_check_response::State;

/// A store that may be left out when there is only one.
fn store(name: &str) -> Result<Option<StoreName>, ApiError> {
    if name.is_empty() { Ok(None) } else { field("store", name).map(Some) }
}

/// A rate that may be left out.
fn rate(bytes: u64) -> Result<Option<ScrubRate>, ApiError> {
    let rate = (bytes != 0).then(|| ScrubRate::try_from(bytes));
    rate.transpose().map_err(|error| rename("rate_bytes", error))
}

fn text(store: Option<StoreName>) -> String {
    store.map(|name| name.to_string()).unwrap_or_default()
}

/// Which store a request is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OneStore(pub Option<StoreName>);

macro_rules! one_store {
    ($($message:ident),*) => {
        $(impl TryFrom<v1::$message> for OneStore {
            type Error = ApiError;

            fn try_from(message: v1::$message) -> Result<Self, ApiError> {
                store(&message.store).map(Self)
            }
        }

        impl From<OneStore> for v1::$message {
            fn from(OneStore(store): OneStore) -> Self {
                Self { store: text(store) }
            }
        })*
    };
}

one_store!(StoreCheckRequest, StoreScrubStatusRequest);

impl TryFrom<v1::StoreStartScrubRequest> for ScrubChange {
    type Error = ApiError;

    fn try_from(message: v1::StoreStartScrubRequest) -> Result<Self, ApiError> {
        let verb = ScrubVerb::Start(rate(message.rate_bytes)?);
        Ok(Self { store: store(&message.store)?, verb })
    }
}

impl TryFrom<v1::StorePauseScrubRequest> for ScrubChange {
    type Error = ApiError;

    fn try_from(message: v1::StorePauseScrubRequest) -> Result<Self, ApiError> {
        Ok(Self { store: store(&message.store)?, verb: ScrubVerb::Pause })
    }
}

impl TryFrom<v1::StoreResumeScrubRequest> for ScrubChange {
    type Error = ApiError;

    fn try_from(message: v1::StoreResumeScrubRequest) -> Result<Self, ApiError> {
        let verb = ScrubVerb::Resume(rate(message.rate_bytes)?);
        Ok(Self { store: store(&message.store)?, verb })
    }
}

macro_rules! scrub_changed {
    ($($message:ident),*) => {
        $(impl From<Changed<Scrub>> for v1::$message {
            fn from(outcome: Changed<Scrub>) -> Self {
                Self { scrub: Some(outcome.value.into()), changed: outcome.changed }
            }
        }

        impl TryFrom<v1::$message> for Changed<Scrub> {
            type Error = ApiError;

            fn try_from(message: v1::$message) -> Result<Self, ApiError> {
                let value = present("scrub", message.scrub)?.try_into()?;
                Ok(Self { value, changed: message.changed })
            }
        })*
    };
}

scrub_changed!(StoreStartScrubResponse, StorePauseScrubResponse, StoreResumeScrubResponse);

impl From<Scrub> for v1::StoreScrub {
    fn from(scrub: Scrub) -> Self {
        let Scrub { store, policy, progress } = scrub;
        Self {
            store: store.to_string(),
            rate_bytes: policy.rate.bytes(),
            paused: policy.paused,
            running: progress.running,
            covered_bytes: progress.covered,
            total_bytes: progress.total,
            found: progress.found,
            healed: progress.healed,
            remaining_seconds: progress.remaining_seconds,
            passes: progress.passes,
            finished_ms: progress.finished_ms,
            last_found: progress.last_found,
            last_healed: progress.last_healed,
            next_seconds: progress.next_seconds,
        }
    }
}

impl TryFrom<v1::StoreScrub> for Scrub {
    type Error = ApiError;

    fn try_from(message: v1::StoreScrub) -> Result<Self, ApiError> {
        Ok(Self {
            store: field("store", &message.store)?,
            policy: ScrubPolicy {
                rate: ScrubRate::try_from(message.rate_bytes)?,
                paused: message.paused,
            },
            progress: ScrubProgress {
                running: message.running,
                covered: message.covered_bytes,
                total: message.total_bytes,
                found: message.found,
                healed: message.healed,
                remaining_seconds: message.remaining_seconds,
                passes: message.passes,
                finished_ms: message.finished_ms,
                last_found: message.last_found,
                last_healed: message.last_healed,
                next_seconds: message.next_seconds,
            },
        })
    }
}

impl From<StoreCheck> for v1::StoreCheckResponse {
    fn from(check: StoreCheck) -> Self {
        let state = match check {
            StoreCheck::Never => None,
            StoreCheck::Running { read, total } => Some(State::Running(v1::StoreCheckProgress {
                read_bytes: read,
                total_bytes: total,
            })),
            StoreCheck::Done(report) => Some(State::Done(report.into())),
            StoreCheck::Aborted { reason } => Some(State::Aborted(reason)),
        };
        Self { state }
    }
}

impl From<v1::StoreCheckResponse> for StoreCheck {
    fn from(message: v1::StoreCheckResponse) -> Self {
        match message.state {
            None => Self::Never,
            Some(State::Running(v1::StoreCheckProgress { read_bytes, total_bytes })) => {
                Self::Running { read: read_bytes, total: total_bytes }
            }
            Some(State::Done(report)) => Self::Done(report.into()),
            Some(State::Aborted(reason)) => Self::Aborted { reason },
        }
    }
}

impl From<CheckReport> for v1::StoreCheckReport {
    fn from(report: CheckReport) -> Self {
        let finding = |finding: CheckFinding| {
            let CheckFinding { kind, message, repaired } = finding;
            v1::StoreCheckFinding { kind, message, repaired }
        };
        Self {
            findings: report.findings.into_iter().map(finding).collect(),
            dropped: report.dropped,
            leaked_bytes: report.leaked.bytes(),
            freed_bytes: report.freed.bytes(),
            volumes: report.volumes,
            snapshots: report.snapshots,
            metadata_bytes: report.metadata.bytes(),
            data_bytes: report.data.bytes(),
        }
    }
}

impl From<v1::StoreCheckReport> for CheckReport {
    fn from(message: v1::StoreCheckReport) -> Self {
        let finding = |finding: v1::StoreCheckFinding| {
            let v1::StoreCheckFinding { kind, message, repaired } = finding;
            CheckFinding { kind, message, repaired }
        };
        Self {
            findings: message.findings.into_iter().map(finding).collect(),
            dropped: message.dropped,
            leaked: bytes(message.leaked_bytes),
            freed: bytes(message.freed_bytes),
            volumes: message.volumes,
            snapshots: message.snapshots,
            metadata: bytes(message.metadata_bytes),
            data: bytes(message.data_bytes),
        }
    }
}

impl TryFrom<v1::StoreAdviseRequest> for StoreAdvise {
    type Error = ApiError;

    fn try_from(message: v1::StoreAdviseRequest) -> Result<Self, ApiError> {
        let demand = LogDemand {
            write_rate: bytes(message.write_rate_bytes),
            destage_rate: bytes(message.destage_rate_bytes),
            burst_seconds: message.burst_seconds,
        };
        Ok(Self { demand, store: store(&message.store)? })
    }
}

impl From<StoreAdvise> for v1::StoreAdviseRequest {
    fn from(request: StoreAdvise) -> Self {
        let StoreAdvise { demand, store } = request;
        Self {
            write_rate_bytes: demand.write_rate.bytes(),
            destage_rate_bytes: demand.destage_rate.bytes(),
            burst_seconds: demand.burst_seconds,
            store: text(store),
        }
    }
}

impl From<LogAdvice> for v1::StoreAdviseResponse {
    fn from(advice: LogAdvice) -> Self {
        let LogAdvice { log, seconds_until_slow, is_enough } = advice;
        Self { log_size_bytes: log.bytes(), seconds_until_slow, enough: is_enough }
    }
}

impl From<v1::StoreAdviseResponse> for LogAdvice {
    fn from(message: v1::StoreAdviseResponse) -> Self {
        let v1::StoreAdviseResponse { log_size_bytes, seconds_until_slow, enough } = message;
        Self { log: bytes(log_size_bytes), seconds_until_slow, is_enough: enough }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn scrubs_survive_the_wire(
            rate in 65536u64.., paused in any::<bool>(), running in any::<bool>(),
            numbers in any::<[u64; 7]>(), times in any::<[Option<u64>; 3]>(),
        ) {
            let [covered, total, found, healed, passes, last_found, last_healed] = numbers;
            let [remaining_seconds, finished_ms, next_seconds] = times;
            let scrub = Scrub {
                store: "main".parse().unwrap(),
                policy: ScrubPolicy { rate: rate.try_into().unwrap(), paused },
                progress: ScrubProgress {
                    running, covered, total, found, healed, remaining_seconds, passes,
                    finished_ms, last_found, last_healed, next_seconds,
                },
            };
            let message = v1::StoreScrub::from(scrub.clone());
            prop_assert_eq!(Scrub::try_from(message).unwrap(), scrub);
        }

        #[test]
        fn checks_survive_the_wire(
            numbers in any::<[u32; 7]>(), state in 0usize..4, message in ".{0,40}",
        ) {
            let [dropped, leaked, freed, volumes, snapshots, metadata, data] =
                numbers.map(u64::from);
            let kind = "leaked".to_owned();
            let finding = CheckFinding { kind, message: message.clone(), repaired: true };
            let report = CheckReport {
                findings: vec![finding],
                dropped,
                leaked: bytes(leaked),
                freed: bytes(freed),
                volumes,
                snapshots,
                metadata: bytes(metadata),
                data: bytes(data),
            };
            let all = [
                StoreCheck::Never,
                StoreCheck::Running { read: dropped, total: leaked },
                StoreCheck::Done(report),
                StoreCheck::Aborted { reason: message },
            ];
            let sent = v1::StoreCheckResponse::from(all[state].clone());
            prop_assert_eq!(StoreCheck::from(sent), all[state].clone());
        }

        #[test]
        fn demands_and_advice_survive_the_wire(
            numbers in any::<[u64; 4]>(), slow in any::<Option<u64>>(), enough in any::<bool>(),
            named in any::<bool>(),
        ) {
            let [write, destage, burst_seconds, log] = numbers;
            let demand = LogDemand {
                write_rate: bytes(write), destage_rate: bytes(destage), burst_seconds,
            };
            let store = named.then(|| "main".parse().unwrap());
            let request = StoreAdvise { demand, store };
            let message = v1::StoreAdviseRequest::from(request.clone());
            prop_assert_eq!(StoreAdvise::try_from(message).unwrap(), request);
            let advice =
                LogAdvice { log: bytes(log), seconds_until_slow: slow, is_enough: enough };
            prop_assert_eq!(LogAdvice::from(v1::StoreAdviseResponse::from(advice)), advice);
        }
    }

    #[test]
    fn an_error_names_the_field_of_the_schema() {
        let message = v1::StoreStartScrubRequest { store: String::new(), rate_bytes: 1 };
        let error = ScrubChange::try_from(message).unwrap_err();
        assert!(error.to_string().starts_with("rate_bytes: 1 bytes a second"), "{error}");
        let message = v1::StorePauseScrubRequest { store: "a_b".to_owned() };
        let error = ScrubChange::try_from(message).unwrap_err();
        assert!(error.to_string().starts_with("store: '_'"), "{error}");
    }
}
