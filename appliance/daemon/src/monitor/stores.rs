//! What is told of stores: what changed since the last look, and what they noticed.

use std::collections::BTreeMap;

use api::{
    CheckCounters, DeviceHealth, EventKind, HealthState, ScrubProgress, Severity, SpaceState,
    StoreNumbers,
};
use cluster::Desired;
use uuid::Uuid;

use crate::limits::NOTICES_TOLD_MAX;
use crate::plane::{PlaneNotice, PlaneNotices, PlaneStore};

/// Something to tell of one store.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Told {
    pub(super) kind: EventKind,
    pub(super) severity: Severity,
    pub(super) message: String,
}

/// What was seen of one store last.
pub(super) struct Seen {
    failure: String,
    space: SpaceState,
    health: HealthState,
    pressed: bool,
    scrub: ScrubProgress,
    check: CheckCounters,
}

impl Seen {
    /// A store is seen for the first time: what it did before is no news, how it is may be.
    pub(super) fn new(store: &PlaneStore) -> Self {
        Self {
            failure: String::new(),
            space: SpaceState::default(),
            health: HealthState::default(),
            pressed: false,
            scrub: ScrubProgress { running: false, ..store.numbers.scrub },
            check: CheckCounters::default(),
        }
    }

    /// What is new.
    pub(super) fn look(&mut self, store: &PlaneStore) -> Vec<Told> {
        let mut told = Vec::new();
        told.extend(self.look_at_space(store));
        told.extend(self.look_at_health(store));
        told.extend(self.look_at_pressure(store));
        self.look_at_scrub(&store.numbers.scrub, &mut told);
        self.look_at_check(store.numbers.check, &mut told);
        told
    }

    fn look_at_space(&mut self, store: &PlaneStore) -> Option<Told> {
        let state = store.numbers.flow.space;
        if std::mem::replace(&mut self.space, state) == state {
            return None;
        }
        let (kind, severity, what) = match state {
            SpaceState::Ample => (EventKind::StoreSpaceOk, Severity::Info, "has room again"),
            SpaceState::Low => (EventKind::StoreSpaceLow, Severity::Warning, "has little room"),
            SpaceState::Full => {
                let what = "is full: writes that need room fail until some is freed";
                (EventKind::StoreSpaceFull, Severity::Error, what)
            }
        };
        let StoreNumbers { used, capacity, .. } = store.numbers;
        Some(Told { kind, severity, message: format!("it {what} ({used} of {capacity} used)") })
    }

    fn look_at_health(&mut self, store: &PlaneStore) -> Option<Told> {
        let DeviceHealth { state, p99_ns, .. } = store.numbers.health;
        let changed = std::mem::replace(&mut self.health, state) != state;
        let failure = std::mem::replace(&mut self.failure, store.failure.clone());
        let latency = format!("99 % of its requests take less than {} ms", p99_ns / 1_000_000);
        let (kind, severity, message) = match state {
            HealthState::Quarantined if changed => {
                (EventKind::StoreQuarantined, Severity::Error, store.failure.clone())
            }
            _ if failure != store.failure && !store.failure.is_empty() => {
                (EventKind::StoreFailed, Severity::Error, store.failure.clone())
            }
            HealthState::Slow if changed => {
                let message = format!("its device has become slow: {latency}");
                (EventKind::StoreSlow, Severity::Warning, message)
            }
            HealthState::Healthy if changed => {
                let message = format!("its device is as it should be again: {latency}");
                (EventKind::StoreHealthy, Severity::Info, message)
            }
            _ => return None,
        };
        Some(Told { kind, severity, message })
    }

    fn look_at_pressure(&mut self, store: &PlaneStore) -> Option<Told> {
        let pressed = store.numbers.flow.pressure == 2;
        if std::mem::replace(&mut self.pressed, pressed) == pressed {
            return None;
        }
        let (kind, severity, message) = if pressed {
            let message =
                format!("hosts fill its log: {} write(s) wait", store.numbers.flow.waiting);
            (EventKind::StorePressureHigh, Severity::Warning, message)
        } else {
            (EventKind::StorePressureOk, Severity::Info, "its log has room again".to_owned())
        };
        Some(Told { kind, severity, message })
    }

    fn look_at_scrub(&mut self, scrub: &ScrubProgress, told: &mut Vec<Told>) {
        let before = std::mem::replace(&mut self.scrub, *scrub);
        if scrub.passes > before.passes {
            let clean = scrub.last_found == 0;
            let severity = if clean { Severity::Info } else { Severity::Error };
            let message = format!(
                "pass {}: everything was read, {} damaged, {} of that healed",
                scrub.passes, scrub.last_found, scrub.last_healed
            );
            told.push(Told { kind: EventKind::StoreScrubFinished, severity, message });
        }
        if scrub.running && !before.running {
            let message = match scrub.covered {
                0 => format!("pass {} begins", scrub.passes + 1),
                covered => {
                    let covered = api::ByteLen::from_bytes(covered);
                    format!("pass {} goes on, {covered} are read", scrub.passes + 1)
                }
            };
            let severity = Severity::Info;
            told.push(Told { kind: EventKind::StoreScrubStarted, severity, message });
        }
    }

    fn look_at_check(&mut self, check: CheckCounters, told: &mut Vec<Told>) {
        let before = std::mem::replace(&mut self.check, check);
        if check.done > before.done {
            // Two may have ended since the last look.
            let found = check.found_all.saturating_sub(before.found_all);
            let severity = if found == 0 { Severity::Info } else { Severity::Error };
            let freed = api::ByteLen::from_bytes(check.freed.saturating_sub(before.freed));
            let message = match found {
                0 => "maps, owners and space agree".to_owned(),
                found => format!("{found} finding(s), {freed} given back"),
            };
            told.push(Told { kind: EventKind::StoreCheckFinished, severity, message });
        }
        if check.aborted > before.aborted {
            let message = "it gave way: start it again".to_owned();
            let severity = Severity::Warning;
            told.push(Told { kind: EventKind::StoreCheckAborted, severity, message });
        }
    }
}

/// Damage, at most [`NOTICES_TOLD_MAX`] one by one.
pub(super) fn tell_notices(found: PlaneNotices, names: &BTreeMap<Uuid, String>) -> Vec<Told> {
    let PlaneNotices { notices, missed } = found;
    let (count, mut told) = (notices.len(), Vec::new());
    for notice in notices.into_iter().take(NOTICES_TOLD_MAX) {
        told.push(match notice {
            PlaneNotice::Block { of, block, place } => {
                let name = of.and_then(|uuid| names.get(&uuid)).map(String::as_str);
                let name = name.unwrap_or("a volume or snapshot that is gone");
                let byte = block.saturating_mul(BLOCK_BYTES);
                let message = format!(
                    "block {block} of {name} (byte {byte} of it; {place}) does not match its \
                     checksum; reads of it fail, no wrong data was given out"
                );
                Told { kind: EventKind::IntegrityError, severity: Severity::Error, message }
            }
            PlaneNotice::Log { what } => {
                let message = format!(
                    "{what} were damaged when the store was opened; what nothing was written over \
                     is lost, and named"
                );
                Told { kind: EventKind::IntegrityError, severity: Severity::Warning, message }
            }
            PlaneNotice::Page { what, healed } => {
                let severity = if healed { Severity::Warning } else { Severity::Error };
                Told { kind: EventKind::MetadataDamaged, severity, message: what }
            }
        });
    }
    let more = u64::try_from(count.saturating_sub(NOTICES_TOLD_MAX)).unwrap_or(u64::MAX);
    let more = more.saturating_add(missed);
    if more > 0 {
        let message = format!("{more} more block(s) or page(s) are damaged");
        told.push(Told { kind: EventKind::IntegrityError, severity: Severity::Error, message });
    }
    told
}

/// Names of volumes and snapshots by identity.
pub(super) fn names(desired: &Desired, store: &PlaneStore) -> BTreeMap<Uuid, String> {
    let mut names = BTreeMap::new();
    for kept in desired.volumes.values() {
        names.insert(kept.record.uuid, format!("volume {}", kept.record.name));
    }
    for snapshot in &store.snapshots {
        let of = desired.volumes.values().find(|kept| kept.record.uuid == snapshot.volume);
        let of = of.map_or_else(|| "(deleted)".to_owned(), |kept| kept.record.name.to_string());
        names.insert(snapshot.uuid, format!("snapshot {of}@{}", snapshot.name));
    }
    names
}

/// The unit of checksums.
const BLOCK_BYTES: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(told: &[Told]) -> Vec<EventKind> {
        told.iter().map(|told| told.kind).collect()
    }

    #[test]
    fn each_change_is_told_once() {
        let mut store = PlaneStore::default();
        store.numbers.scrub.passes = 7;
        let mut seen = Seen::new(&store);
        assert_eq!(seen.look(&store), [], "what was before is no news");
        store.numbers.scrub.running = true;
        store.numbers.check.aborted = 1;
        store.numbers.flow.pressure = 2;
        let expected = [
            EventKind::StorePressureHigh,
            EventKind::StoreScrubStarted,
            EventKind::StoreCheckAborted,
        ];
        assert_eq!(kinds(&seen.look(&store)), expected);
        assert_eq!(seen.look(&store), []);
        store.numbers.flow.pressure = 1;
        store.numbers.scrub =
            ScrubProgress { passes: 8, last_found: 2, ..ScrubProgress::default() };
        store.numbers.check.done = 1;
        let told = seen.look(&store);
        let expected = [
            EventKind::StorePressureOk,
            EventKind::StoreScrubFinished,
            EventKind::StoreCheckFinished,
        ];
        assert_eq!(kinds(&told), expected);
        assert_eq!(told[1].severity, Severity::Error);
        assert_eq!(told[2].message, "maps, owners and space agree");
    }

    #[test]
    fn a_device_that_is_quarantined_is_one_event_and_another_failure_is_another() {
        let mut store = PlaneStore::default();
        let mut seen = Seen::new(&store);
        store.numbers.health.state = HealthState::Slow;
        assert_eq!(kinds(&seen.look(&store)), [EventKind::StoreSlow]);
        store.numbers.health.state = HealthState::Quarantined;
        store.failure = "the device is quarantined for one error after the other".to_owned();
        assert_eq!(kinds(&seen.look(&store)), [EventKind::StoreQuarantined]);
        assert_eq!(seen.look(&store), []);
        let mut other = PlaneStore::default();
        let mut seen = Seen::new(&other);
        other.failure = "the device failed a log write: Io".to_owned();
        assert_eq!(kinds(&seen.look(&other)), [EventKind::StoreFailed]);
    }

    #[test]
    fn damage_is_named_and_a_flood_is_counted() {
        let uuid = Uuid::from_u128(7);
        let names = [(uuid, "volume db".to_owned())].into();
        let block = |block| PlaneNotice::Block {
            of: Some(uuid),
            block,
            place: "byte 4096 of the device".to_owned(),
        };
        let what = "page 9 (volume 1 level 0 index 0): checksum mismatch".to_owned();
        let log = PlaneNotice::Log { what: "2 block(s) of the log".to_owned() };
        let found = PlaneNotices {
            notices: vec![block(3), PlaneNotice::Page { what, healed: true }, log],
            missed: 0,
        };
        let told = tell_notices(found, &names);
        assert!(told[0].message.starts_with("block 3 of volume db (byte 12288 of it; byte 4096"));
        assert_eq!(
            (told[1].kind, told[1].severity),
            (EventKind::MetadataDamaged, Severity::Warning,)
        );
        assert_eq!(
            (told[2].kind, told[2].severity),
            (EventKind::IntegrityError, Severity::Warning)
        );
        assert!(told[2].message.starts_with("2 block(s) of the log were damaged"));
        let flood = PlaneNotices { notices: (0..20).map(block).collect(), missed: 5 };
        let told = tell_notices(flood, &names);
        assert_eq!(told.len(), NOTICES_TOLD_MAX + 1);
        assert!(told[NOTICES_TOLD_MAX].message.starts_with("17 more"));
    }
}
