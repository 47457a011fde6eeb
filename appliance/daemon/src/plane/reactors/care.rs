//! Check, scrub, and what stores notice.

use std::collections::BTreeMap;

use api::{
    ApiError, ByteLen, CheckCounters, CheckFinding, CheckReport, DeviceHealth, HealthState,
    ScrubProgress, StoreCheck,
};
use node::{CheckAborted, CheckStatus, Damaged, Finding, Notice, StoreStatus};
use uuid::Uuid;

use super::Shared;
use super::convert::api_error;
use crate::plane::{PlaneNotice, PlaneNotices};

const EXTENT_BYTES: u64 = store::EXTENT_BYTES;
const PAGE_BYTES: u64 = store::PAGE_BYTES as u64;

const _: () = assert!(api::SCRUB_RATE_DEFAULT == node::SCRUB_BYTES_PER_SECOND);
const _: () = assert!(api::LOG_BYTES_MIN == store::LOG_BYTES_MIN);
const _: () = assert!(api::LOG_BYTES_UNIT == store::EXTENT_BYTES);

impl Shared {
    pub(super) fn check(&self, store: Uuid) -> Result<(), ApiError> {
        let id = self.store_id(store)?;
        let ticket = self.handle.start_check(id).map_err(api_error)?;
        ticket.wait().map_err(api_error)
    }

    pub(super) fn check_status(&self, store: Uuid) -> Result<StoreCheck, ApiError> {
        let id = self.store_id(store)?;
        let ticket = self.handle.check_status(id).map_err(api_error)?;
        Ok(match ticket.wait().map_err(api_error)? {
            CheckStatus::Never => StoreCheck::Never,
            CheckStatus::Running { read_bytes, total_bytes } => {
                StoreCheck::Running { read: read_bytes, total: total_bytes }
            }
            CheckStatus::Done(report) => StoreCheck::Done(check_report(&report)),
            CheckStatus::Aborted(why) => StoreCheck::Aborted { reason: aborted(why).to_owned() },
        })
    }

    pub(super) fn scrub(&self, store: Uuid, rate: u64, start: bool) -> Result<(), ApiError> {
        let id = self.store_id(store)?;
        let ticket = match start {
            true => self.handle.start_scrub(id, rate),
            false => self.handle.set_scrub_rate(id, rate),
        };
        ticket.map_err(api_error)?.wait().map_err(api_error)
    }

    pub(super) fn notices(&self, store: Uuid) -> Result<PlaneNotices, ApiError> {
        let id = self.store_id(store)?;
        let ticket = self.handle.take_notices(id).map_err(api_error)?;
        let node::Notices { notices, missed } = ticket.wait().map_err(api_error)?;
        if notices.is_empty() {
            return Ok(PlaneNotices { notices: Vec::new(), missed });
        }
        let StoreStatus { volumes, snapshots, .. } = self.status(store)?;
        let volumes = volumes.into_iter().map(|volume| (volume.id, volume.uuid));
        let snapshots = snapshots.into_iter().map(|snapshot| (snapshot.id, snapshot.uuid));
        let uuids: BTreeMap<_, _> = volumes.chain(snapshots).collect();
        let notice = |notice| match notice {
            Notice::Block { volume, block, place, byte } => PlaneNotice::Block {
                of: uuids.get(&volume).copied().map(Uuid::from_bytes),
                block,
                place: match place {
                    Damaged::Extent => format!("byte {byte} of the device"),
                    Damaged::Log => format!("the log, byte {byte} of the device"),
                    Damaged::Map => "a damaged page of the map".to_owned(),
                },
            },
            Notice::Log { first, last, blocks } => PlaneNotice::Log {
                what: format!("{blocks} block(s) of the log, of its records {first} to {last}"),
            },
            Notice::Page(damage) => {
                PlaneNotice::Page { what: damage.to_string(), healed: damage.healed }
            }
        };
        Ok(PlaneNotices { notices: notices.into_iter().map(notice).collect(), missed })
    }

    pub(super) fn tell_time(&self, unix_seconds: u64) -> Result<(), ApiError> {
        let ticket = self.handle.set_unix_time(unix_seconds).map_err(api_error)?;
        ticket.wait().map_err(api_error)
    }
}

fn aborted(why: CheckAborted) -> &'static str {
    match why {
        CheckAborted::LogPressure => "hosts fill the log faster than the check is done",
        CheckAborted::Space => "a write waits for space that only a checkpoint gives back",
        CheckAborted::Closing => "the store is being closed, or its device failed",
        _ => "something that needs the map",
    }
}

fn check_report(report: &node::CheckReport) -> CheckReport {
    let all_freed = report.leaked > 0 && report.freed == report.leaked;
    let finding = |finding: &Finding| {
        let (kind, repaired) = kind_of(finding, all_freed);
        CheckFinding { kind: kind.to_owned(), message: finding.to_string(), repaired }
    };
    CheckReport {
        findings: report.findings.iter().map(finding).collect(),
        dropped: report.dropped,
        leaked: extents(report.leaked),
        freed: extents(report.freed),
        volumes: report.volumes,
        snapshots: report.snapshots,
        metadata: ByteLen::from_bytes(report.pages.saturating_mul(PAGE_BYTES)),
        data: extents(report.extents),
    }
}

/// The stable spelling of what was found, and whether the check mended it.
fn kind_of(finding: &Finding, all_freed: bool) -> (&'static str, bool) {
    match finding {
        Finding::Superblock { .. } => ("superblock", true),
        Finding::Unusable(_) => ("unusable", false),
        Finding::Page(_) => ("page", false),
        Finding::Copy(damage) => ("page_copy", damage.healed),
        Finding::PageTwice { .. } => ("page_twice", false),
        Finding::ExtentTwice { .. } => ("extent_twice", false),
        Finding::NotAllocated { .. } => ("not_allocated", false),
        Finding::Leaked { .. } => ("leaked", all_freed),
        Finding::NotShared { .. } => ("page_not_shared", false),
        Finding::ExtentNotShared { .. } => ("extent_not_shared", false),
        Finding::Block { .. } => ("block", false),
        _ => ("other", false),
    }
}

fn extents(count: u64) -> ByteLen {
    ByteLen::from_bytes(count.saturating_mul(EXTENT_BYTES))
}

pub(super) fn scrub_progress(scrub: &node::ScrubStatus) -> ScrubProgress {
    ScrubProgress {
        running: scrub.running,
        covered: scrub.covered_bytes,
        total: scrub.total_bytes,
        found: scrub.found,
        healed: scrub.healed,
        remaining_seconds: scrub.remaining.map(|left| left.as_secs()),
        passes: scrub.passes,
        finished_ms: scrub.finished_unix.map(|seconds| seconds.saturating_mul(1000)),
        last_found: scrub.last_found,
        last_healed: scrub.last_healed,
        next_seconds: scrub.next_pass.map(|left| left.as_secs()),
    }
}

pub(super) fn check_counters(check: node::CheckSummary) -> CheckCounters {
    let node::CheckSummary { running, done, aborted, found, found_all, freed_bytes } = check;
    CheckCounters { running, done, aborted, found, found_all, freed: freed_bytes }
}

pub(super) fn device_health(status: &StoreStatus) -> DeviceHealth {
    DeviceHealth {
        state: match status.health.health {
            node::Health::Slow => HealthState::Slow,
            node::Health::Quarantined => HealthState::Quarantined,
            _ => HealthState::Healthy,
        },
        p99_ns: status.health.p99_ns,
        oldest_ns: status.health.oldest_ns,
        errors: status.stats.device_errors,
    }
}
