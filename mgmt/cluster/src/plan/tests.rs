//! The plan, executed against a model of the data plane.

use api::ScrubPolicy;
use proptest::prelude::*;

use super::*;
use crate::record::{HostRecord, Kept, ReferralsRecord};
use crate::state::Revision;

fn store(name: &str, id: u128) -> StoreRecord {
    StoreRecord {
        name: name.parse().unwrap(),
        uuid: Uuid::from_u128(id),
        device: format!("/dev/{name}").parse().unwrap(),
        scrub: ScrubPolicy::default(),
    }
}

fn volume(name: &str, id: u128, store: &str, phase: Phase) -> VolumeRecord {
    VolumeRecord {
        name: name.parse().unwrap(),
        uuid: Uuid::from_u128(id),
        store: store.parse().unwrap(),
        size: ByteLen::from_bytes(1 << 20),
        block_size: BlockSize::B4096,
        origin: None,
        qos: Qos::default(),
        phase,
    }
}

fn export(name: &str) -> ExportRecord {
    ExportRecord {
        volume: name.parse().unwrap(),
        nqn: format!("nqn.2014-08.com.example:{name}").parse().unwrap(),
        nsid: 1,
        access: HostAccess::Any,
        paths: Access::default(),
        require_authentication: false,
    }
}

fn keep<T>(record: T) -> Kept<T> {
    Kept { record, revision: Revision(1) }
}

fn desired(
    stores: Vec<StoreRecord>,
    volumes: Vec<VolumeRecord>,
    exports: Vec<ExportRecord>,
) -> Desired {
    Desired {
        stores: stores.into_iter().map(|r| (r.name.clone(), keep(r))).collect(),
        volumes: volumes.into_iter().map(|r| (r.name.clone(), keep(r))).collect(),
        exports: exports.into_iter().map(|r| (r.volume.clone(), keep(r))).collect(),
        referrals: None,
        hosts: BTreeMap::new(),
    }
}

fn open(name: &str, id: u128, volumes: &[(u128, &str, u64)]) -> Observed {
    let volumes = volumes.iter().map(|&(id, name, size)| {
        let size = ByteLen::from_bytes(size);
        let block_size = BlockSize::B4096;
        let (name, qos) = (name.to_owned(), Qos::default());
        (Uuid::from_u128(id), ObservedVolume { name, size, block_size, qos })
    });
    let (uuid, scrub_rate) = (Uuid::from_u128(id), ScrubPolicy::default().effective());
    let store = ObservedStore { uuid, volumes: volumes.collect(), scrub_rate };
    Observed { stores: [(name.parse().unwrap(), store)].into(), ..Observed::default() }
}

#[test]
fn a_closed_store_is_opened_first_and_nothing_else_is_done() {
    let wish =
        desired(vec![store("s", 1)], vec![volume("v", 2, "s", Phase::Ready)], vec![export("v")]);
    assert_eq!(plan(&wish, &Observed::default()), [Step::OpenStore(store("s", 1))]);
}

#[test]
fn an_interrupted_creation_is_finished() {
    let wish = desired(vec![store("s", 1)], vec![volume("v", 2, "s", Phase::Creating)], vec![]);
    assert_eq!(
        plan(&wish, &open("s", 1, &[])),
        [Step::CreateVolume(volume("v", 2, "s", Phase::Creating))]
    );
    assert_eq!(
        plan(&wish, &open("s", 1, &[(2, "v", 1 << 20)])),
        [Step::ConfirmVolume(volume("v", 2, "s", Phase::Creating))]
    );
}

#[test]
fn an_interrupted_deletion_is_finished() {
    let wish = desired(vec![store("s", 1)], vec![volume("v", 2, "s", Phase::Deleting)], vec![]);
    assert_eq!(
        plan(&wish, &open("s", 1, &[(2, "v", 1 << 20)])),
        [Step::DestroyVolume(volume("v", 2, "s", Phase::Deleting))]
    );
    assert_eq!(
        plan(&wish, &open("s", 1, &[])),
        [Step::ForgetVolume(volume("v", 2, "s", Phase::Deleting))]
    );
}

#[test]
fn a_lost_volume_is_reported_and_never_created_empty() {
    let wish =
        desired(vec![store("s", 1)], vec![volume("v", 2, "s", Phase::Ready)], vec![export("v")]);
    let steps = plan(&wish, &open("s", 1, &[]));
    assert!(matches!(steps.as_slice(), [Step::Complain { subject, .. }] if subject == "v"));
}

#[test]
fn another_store_on_the_device_is_reported() {
    let wish = desired(vec![store("s", 1)], vec![], vec![]);
    let steps = plan(&wish, &open("s", 9, &[]));
    assert!(matches!(steps.as_slice(), [Step::Complain { subject, .. }] if subject == "s"));
}

#[test]
fn a_store_that_failed_is_not_tried_again_and_its_volumes_say_so() {
    let wish = desired(vec![store("s", 1)], vec![volume("v", 2, "s", Phase::Ready)], vec![]);
    let failed = [("s".parse().unwrap(), "no such device".to_owned())].into();
    let steps = plan(&wish, &Observed { failed, ..Observed::default() });
    assert_eq!(steps.len(), 2);
    assert!(steps.iter().all(|step| matches!(step, Step::Complain { .. })));
}

#[test]
fn volumes_that_a_store_brought_are_adopted_unless_the_name_is_taken() {
    let wish = desired(vec![store("s", 1)], vec![volume("v", 2, "s", Phase::Ready)], vec![]);
    let seen = open("s", 1, &[(2, "v", 1 << 20), (3, "w", 1 << 20), (4, "v", 1 << 20)]);
    let steps = plan(&wish, &seen);
    assert_eq!(steps.len(), 2, "{steps:?}");
    assert_eq!(steps[0], Step::AdoptVolume(volume("w", 3, "s", Phase::Ready)));
    assert!(matches!(&steps[1], Step::Complain { reason, .. } if reason.contains("also called")));
}

#[test]
fn a_size_only_grows() {
    let wish = desired(vec![store("s", 1)], vec![volume("v", 2, "s", Phase::Ready)], vec![]);
    let record = volume("v", 2, "s", Phase::Ready);
    let smaller = plan(&wish, &open("s", 1, &[(2, "v", 4096)]));
    assert_eq!(smaller, [Step::GrowVolume(record.clone())]);
    let larger = plan(&wish, &open("s", 1, &[(2, "v", 2 << 20)]));
    assert_eq!(larger, [Step::AdoptSize { record, size: ByteLen::from_bytes(2 << 20) }]);
}

#[test]
fn limits_are_brought_to_a_store_that_does_not_remember_them() {
    let rate = api::Rate { per_second: 100, burst: 100 };
    let qos = Qos::new(Some(rate), None).unwrap();
    let record = VolumeRecord { qos, ..volume("v", 2, "s", Phase::Ready) };
    let wish = desired(vec![store("s", 1)], vec![record.clone()], vec![]);
    let seen = open("s", 1, &[(2, "v", 1 << 20)]);
    assert_eq!(plan(&wish, &seen), [Step::SetQos(record.clone())]);
    let smaller = open("s", 1, &[(2, "v", 4096)]);
    assert_eq!(plan(&wish, &smaller), [Step::GrowVolume(record)]);
}

#[test]
fn a_scrub_is_held_again_after_each_start() {
    let mut record = store("s", 1);
    record.scrub.paused = true;
    let wish = desired(vec![record.clone()], vec![], vec![]);
    let mut seen = open("s", 1, &[]);
    assert_eq!(plan(&wish, &seen), [Step::SetScrub(record)]);
    seen.stores.values_mut().next().unwrap().scrub_rate = 0;
    assert_eq!(plan(&wish, &seen), []);
}

#[test]
fn exports_follow_their_records() {
    let wish =
        desired(vec![store("s", 1)], vec![volume("v", 2, "s", Phase::Ready)], vec![export("v")]);
    let mut seen = open("s", 1, &[(2, "v", 1 << 20)]);
    let add = Step::AddExport { record: export("v"), volume: volume("v", 2, "s", Phase::Ready) };
    assert_eq!(plan(&wish, &seen), [add]);

    let (record, volume) = (export("v"), volume("v", 2, "s", Phase::Ready));
    let change = Step::ChangeExport { record: record.clone(), volume };
    let uuid = Uuid::from_u128(2);
    let mut served = observe(&record);
    seen.exports.insert(uuid, served.clone());
    assert_eq!(plan(&wish, &seen), []);
    served.access = HostAccess::listed(vec![]).unwrap();
    seen.exports.insert(uuid, served.clone());
    assert_eq!(plan(&wish, &seen), std::slice::from_ref(&change));
    let paths = Access { state: api::AnaState::Inaccessible, ..Access::default() };
    seen.exports.insert(uuid, ObservedExport { paths, ..observe(&record) });
    assert_eq!(plan(&wish, &seen), [change]);

    let nqn = export("w").nqn;
    seen.exports = [(uuid, ObservedExport { nqn: nqn.clone(), ..served })].into();
    assert!(plan(&wish, &seen).contains(&Step::RemoveExport { volume: uuid, nqn }));
    seen.exports = [(uuid, ObservedExport { nsid: 2, ..observe(&record) })].into();
    assert!(matches!(plan(&wish, &seen)[..], [Step::RemoveExport { .. }, Step::AddExport { .. }]));
}

#[test]
fn of_two_volumes_with_one_uuid_one_is_exported() {
    let volumes = ["a", "b"].map(|name| volume(name, 2, "s", Phase::Ready));
    let wish = desired(vec![store("s", 1)], volumes.clone().into(), vec![export("a"), export("b")]);
    let mut seen = open("s", 1, &[(2, "a", 1 << 20)]);
    let (uuid, nqn) = (Uuid::from_u128(2), export("b").nqn);
    seen.exports = [(uuid, observe(&export("b")))].into();
    let [first, _] = volumes;
    let steps = plan(&wish, &seen);
    assert!(steps.contains(&Step::RemoveExport { volume: uuid, nqn }));
    assert!(steps.contains(&Step::AddExport { record: export("a"), volume: first }));
    seen.exports = [(uuid, observe(&export("a")))].into();
    assert!(matches!(plan(&wish, &seen)[..], [Step::Complain { .. }]), "{:?}", plan(&wish, &seen));
}

#[test]
fn referrals_follow_their_record() {
    let mut wish = desired(vec![], vec![], vec![]);
    let mut seen = Observed::default();
    let referrals = vec![Referral::new("192.0.2.1:8009".parse().unwrap(), None).unwrap()];
    wish.referrals = Some(keep(ReferralsRecord { referrals: referrals.clone() }));
    assert_eq!(plan(&wish, &seen), [Step::SetReferrals(referrals.clone())]);
    seen.referrals = referrals;
    assert_eq!(plan(&wish, &seen), []);
    wish.referrals = None;
    assert_eq!(plan(&wish, &seen), [Step::SetReferrals(vec![])]);
}

/// An export as the data plane has it.
fn observe(record: &ExportRecord) -> ObservedExport {
    let ExportRecord { nqn, nsid, access, paths, .. } = record.clone();
    ObservedExport { nqn, nsid, access, paths }
}

#[test]
fn keys_are_there_before_anything_is_exported() {
    let mut wish =
        desired(vec![store("s", 1)], vec![volume("v", 2, "s", Phase::Ready)], vec![export("v")]);
    let key = api::DhchapKey::new(None, &[7; 32]).unwrap();
    let nqn: api::Nqn = "nqn.2014-08.com.example:h".parse().unwrap();
    let host = api::HostSet::new(nqn.clone(), key, None, None, None).unwrap();
    wish.hosts.insert(nqn, keep(HostRecord(host.clone())));
    let mut seen = open("s", 1, &[(2, "v", 1 << 20)]);
    let steps = plan(&wish, &seen);
    assert_eq!(steps[0], Step::SetKeys(vec![host.clone()]));
    assert!(matches!(steps[1], Step::AddExport { .. }));
    seen.hosts = vec![host];
    assert!(!plan(&wish, &seen).iter().any(|step| matches!(step, Step::SetKeys(_))));
}

/// Executes a step on the model, as the daemon does on the data plane.
fn execute(step: &Step, desired: &mut Desired, observed: &mut Observed, broken: &[StoreName]) {
    match step {
        Step::OpenStore(record) if broken.contains(&record.name) => {
            observed.failed.insert(record.name.clone(), "broken".to_owned());
        }
        Step::OpenStore(record) => {
            let (uuid, scrub_rate) = (record.uuid, ScrubPolicy::default().effective());
            let store = ObservedStore { uuid, volumes: BTreeMap::new(), scrub_rate };
            observed.stores.insert(record.name.clone(), store);
        }
        Step::CreateVolume(record) | Step::GrowVolume(record) => {
            let store = observed.stores.get_mut(&record.store).unwrap();
            let seen = ObservedVolume {
                name: record.name.to_string(),
                size: record.size,
                block_size: record.block_size,
                qos: Qos::default(),
            };
            store.volumes.insert(record.uuid, seen);
        }
        Step::ConfirmVolume(record) => {
            desired.volumes.get_mut(&record.name).unwrap().record.phase = Phase::Ready;
        }
        Step::SetQos(record) => {
            let store = observed.stores.get_mut(&record.store).unwrap();
            store.volumes.get_mut(&record.uuid).unwrap().qos = record.qos;
        }
        Step::SetScrub(record) => {
            observed.stores.get_mut(&record.name).unwrap().scrub_rate = record.scrub.effective();
        }
        Step::AdoptSize { record, size } => {
            desired.volumes.get_mut(&record.name).unwrap().record.size = *size;
        }
        Step::AdoptVolume(record) => {
            desired.volumes.insert(record.name.clone(), keep(record.clone()));
        }
        Step::DestroyVolume(record) => {
            observed.stores.get_mut(&record.store).unwrap().volumes.remove(&record.uuid);
        }
        Step::ForgetVolume(record) => {
            desired.volumes.remove(&record.name);
        }
        Step::AddExport { record, volume } | Step::ChangeExport { record, volume } => {
            observed.exports.insert(volume.uuid, observe(record));
        }
        Step::RemoveExport { volume, .. } => {
            observed.exports.remove(volume);
        }
        Step::SetReferrals(referrals) => observed.referrals.clone_from(referrals),
        Step::SetKeys(hosts) => observed.hosts.clone_from(hosts),
        Step::Complain { .. } => {}
    }
}

proptest! {
    #[test]
    fn executing_plans_ends_with_nothing_but_complaints(
        volumes in proptest::collection::btree_map("[ab]", (1u128..9, 0usize..3, "[st]"), 0..3),
        exports in proptest::collection::btree_set("[ab]", 0..3),
        found in proptest::collection::btree_map(1u128..9, ("[abc]", 1u64..4), 0..4),
        broken in any::<bool>(), paused in any::<bool>(),
    ) {
        let phases = [Phase::Creating, Phase::Ready, Phase::Deleting];
        let rate = Some(api::Rate { per_second: 100, burst: 100 });
        let limits = [Qos::default(), Qos::new(rate, None).unwrap()];
        let volumes = volumes
            .iter()
            .map(|(name, (id, phase, store))| VolumeRecord {
                qos: limits[usize::from(id % 2 == 0)],
                ..volume(name, *id, store, phases[*phase])
            })
            .collect();
        let exports = exports.iter().map(|name| export(name)).collect();
        let mut wish = desired(vec![store("s", 1), store("t", 2)], volumes, exports);
        let t = wish.stores.values_mut().last().unwrap();
        t.record.scrub.paused = paused;
        let found: Vec<_> =
            found.iter().map(|(&id, (name, mib))| (id, name.as_str(), mib << 20)).collect();
        let mut seen = open("s", 1, &found);
        let broken: Vec<StoreName> =
            if broken { vec!["t".parse().unwrap()] } else { vec![] };
        for _round in 0..8 {
            let steps = plan(&wish, &seen);
            if steps.iter().all(|step| matches!(step, Step::Complain { .. })) {
                return Ok(());
            }
            for step in &steps {
                execute(step, &mut wish, &mut seen, &broken);
            }
        }
        prop_assert!(false, "no end: {:?}", plan(&wish, &seen));
    }
}
