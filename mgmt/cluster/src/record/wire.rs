//! The JSON form of the records: `{"version":1,"record":{...}}`.

use std::net::SocketAddr;

use api::{
    Access, AnaState, BlockSize, ByteLen, HostAccess, HostSet, Qos, Rate, Referral, ScrubPolicy,
    ScrubRate, add_referral, check_nsid,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroize;

use super::{
    ExportRecord, HostRecord, Phase, REFERRALS_KEY, RecordError, ReferralsRecord, StoreRecord,
    VolumeRecord, export_key, host_key, store_key, volume_key,
};

/// The version that is written. Raise it with every change that an older version must not ignore.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    version: u32,
    record: T,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoreWire {
    name: String,
    uuid: Uuid,
    device: String,
    #[serde(default, skip_serializing_if = "ScrubWire::is_default")]
    scrub: ScrubWire,
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScrubWire {
    /// Bytes a second; left out for the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate: Option<u64>,
    #[serde(default)]
    paused: bool,
}

impl ScrubWire {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    fn encode(ScrubPolicy { rate, paused }: ScrubPolicy) -> Self {
        let rate = (rate != ScrubRate::default()).then(|| rate.bytes());
        Self { rate, paused }
    }

    fn decode(self) -> Result<ScrubPolicy, api::ApiError> {
        let rate = self.rate.map(ScrubRate::try_from).transpose()?.unwrap_or_default();
        Ok(ScrubPolicy { rate, paused: self.paused })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VolumeWire {
    name: String,
    uuid: Uuid,
    store: String,
    size_bytes: u64,
    block_size: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<Uuid>,
    #[serde(default, skip_serializing_if = "QosWire::is_unlimited")]
    qos: QosWire,
    phase: PhaseWire,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct QosWire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iops: Option<RateWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bandwidth: Option<RateWire>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RateWire {
    per_second: u64,
    burst: u64,
}

impl QosWire {
    fn is_unlimited(&self) -> bool {
        self.iops.is_none() && self.bandwidth.is_none()
    }

    fn encode(qos: Qos) -> Self {
        let rate = |rate: Rate| RateWire { per_second: rate.per_second, burst: rate.burst };
        Self { iops: qos.iops().map(rate), bandwidth: qos.bandwidth().map(rate) }
    }

    fn decode(self) -> Result<Qos, api::ApiError> {
        let rate = |rate: RateWire| Rate { per_second: rate.per_second, burst: rate.burst };
        Qos::new(self.iops.map(rate), self.bandwidth.map(rate))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PhaseWire {
    Creating,
    Ready,
    Deleting,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportWire {
    volume: String,
    nqn: String,
    allow_any_host: bool,
    hosts: Vec<String>,
    #[serde(default = "first_nsid", skip_serializing_if = "is_first_nsid")]
    nsid: u32,
    #[serde(default, skip_serializing_if = "PathsWire::is_default")]
    paths: PathsWire,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    require_authentication: bool,
}

const fn first_nsid() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_first_nsid(nsid: &u32) -> bool {
    *nsid == first_nsid()
}

/// How good a path the node is; left out when it is optimized everywhere.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PathsWire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    listeners: Vec<ListenerWire>,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenerWire {
    address: SocketAddr,
    state: String,
}

impl PathsWire {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    fn encode(paths: &Access) -> Self {
        let state = (paths.state != AnaState::Optimized).then(|| paths.state.to_string());
        let listener = |&(address, state): &(SocketAddr, AnaState)| ListenerWire {
            address,
            state: state.to_string(),
        };
        Self { state, listeners: paths.listeners.iter().map(listener).collect() }
    }

    fn decode(self) -> Result<Access, api::ApiError> {
        let state = self.state.map(|text| text.parse()).transpose()?.unwrap_or_default();
        let mut paths = Access { state, ..Access::default() };
        for ListenerWire { address, state } in self.listeners {
            paths.set(Some(address), state.parse()?);
        }
        Ok(paths)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReferralsWire {
    referrals: Vec<ReferralWire>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReferralWire {
    address: SocketAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nqn: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostWire {
    nqn: String,
    dhchap_key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dhchap_ctrl_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dhchap_hash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dhchap_dhgroup: Option<String>,
}

impl Drop for HostWire {
    fn drop(&mut self) {
        self.dhchap_key.zeroize();
        self.dhchap_ctrl_key.zeroize();
    }
}

fn encode<T: Serialize>(record: T) -> Vec<u8> {
    serde_json::to_vec(&Envelope { version: VERSION, record })
        .expect("plain structs of strings and numbers always serialise")
}

fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, RecordError> {
    // The version first: the rest of a newer record may not even parse.
    let envelope: Envelope<serde_json::Value> =
        serde_json::from_slice(bytes).map_err(|error| damaged(key, error))?;
    if envelope.version > VERSION {
        let found = envelope.version;
        return Err(RecordError::Newer { key: key.to_owned(), found, known: VERSION });
    }
    serde_json::from_value(envelope.record).map_err(|error| damaged(key, error))
}

fn damaged(key: &str, error: impl std::fmt::Display) -> RecordError {
    RecordError::Damaged { key: key.to_owned(), reason: error.to_string() }
}

fn check_key(key: &str, expected: &str) -> Result<(), RecordError> {
    if key == expected {
        return Ok(());
    }
    Err(damaged(key, format!("it belongs under {expected:?}")))
}

impl StoreRecord {
    /// The bytes to keep.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(StoreWire {
            name: self.name.to_string(),
            uuid: self.uuid,
            device: self.device.to_string(),
            scrub: ScrubWire::encode(self.scrub),
        })
    }

    /// Reads what was kept under `key`.
    ///
    /// # Errors
    /// When the record is damaged, newer than this version, or belongs under another key.
    pub fn decode(key: &str, bytes: &[u8]) -> Result<Self, RecordError> {
        let wire: StoreWire = decode(key, bytes)?;
        let record = Self {
            name: wire.name.parse().map_err(|error| damaged(key, error))?,
            uuid: wire.uuid,
            device: wire.device.parse().map_err(|error| damaged(key, error))?,
            scrub: wire.scrub.decode().map_err(|error| damaged(key, error))?,
        };
        check_key(key, &store_key(&record.name))?;
        Ok(record)
    }
}

impl VolumeRecord {
    /// The bytes to keep.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let phase = match self.phase {
            Phase::Creating => PhaseWire::Creating,
            Phase::Ready => PhaseWire::Ready,
            Phase::Deleting => PhaseWire::Deleting,
        };
        encode(VolumeWire {
            name: self.name.to_string(),
            uuid: self.uuid,
            store: self.store.to_string(),
            size_bytes: self.size.bytes(),
            block_size: self.block_size.bytes(),
            origin: self.origin,
            qos: QosWire::encode(self.qos),
            phase,
        })
    }

    /// Reads what was kept under `key`.
    ///
    /// # Errors
    /// When the record is damaged, newer than this version, or belongs under another key.
    pub fn decode(key: &str, bytes: &[u8]) -> Result<Self, RecordError> {
        let wire: VolumeWire = decode(key, bytes)?;
        let block_size =
            BlockSize::try_from(wire.block_size).map_err(|error| damaged(key, error))?;
        let size = ByteLen::from_bytes(wire.size_bytes)
            .whole_blocks("size_bytes", block_size)
            .map_err(|error| damaged(key, error))?;
        let record = Self {
            name: wire.name.parse().map_err(|error| damaged(key, error))?,
            uuid: wire.uuid,
            store: wire.store.parse().map_err(|error| damaged(key, error))?,
            size,
            block_size,
            origin: wire.origin,
            qos: wire.qos.decode().map_err(|error| damaged(key, error))?,
            phase: match wire.phase {
                PhaseWire::Creating => Phase::Creating,
                PhaseWire::Ready => Phase::Ready,
                PhaseWire::Deleting => Phase::Deleting,
            },
        };
        check_key(key, &volume_key(&record.name))?;
        Ok(record)
    }
}

impl ExportRecord {
    /// The bytes to keep.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(ExportWire {
            volume: self.volume.to_string(),
            nqn: self.nqn.to_string(),
            allow_any_host: self.access == HostAccess::Any,
            hosts: self.access.hosts().iter().map(ToString::to_string).collect(),
            nsid: self.nsid,
            paths: PathsWire::encode(&self.paths),
            require_authentication: self.require_authentication,
        })
    }

    /// Reads what was kept under `key`.
    ///
    /// # Errors
    /// When the record is damaged, newer than this version, or belongs under another key.
    pub fn decode(key: &str, bytes: &[u8]) -> Result<Self, RecordError> {
        let wire: ExportWire = decode(key, bytes)?;
        let access = if wire.allow_any_host {
            HostAccess::Any
        } else {
            let hosts: Result<Vec<_>, _> = wire.hosts.iter().map(|host| host.parse()).collect();
            let hosts = hosts.map_err(|error| damaged(key, error))?;
            HostAccess::listed(hosts).map_err(|error| damaged(key, error))?
        };
        let record = Self {
            volume: wire.volume.parse().map_err(|error| damaged(key, error))?,
            nqn: wire.nqn.parse().map_err(|error| damaged(key, error))?,
            nsid: check_nsid(wire.nsid).map_err(|error| damaged(key, error))?,
            access,
            paths: wire.paths.decode().map_err(|error| damaged(key, error))?,
            require_authentication: wire.require_authentication,
        };
        check_key(key, &export_key(&record.volume))?;
        Ok(record)
    }
}

impl ReferralsRecord {
    /// The bytes to keep.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let referral = |referral: &Referral| ReferralWire {
            address: referral.address(),
            nqn: referral.nqn().map(ToString::to_string),
        };
        encode(ReferralsWire { referrals: self.referrals.iter().map(referral).collect() })
    }

    /// Reads what was kept under `key`.
    ///
    /// # Errors
    /// When the record is damaged, newer than this version, or belongs under another key.
    pub fn decode(key: &str, bytes: &[u8]) -> Result<Self, RecordError> {
        let wire: ReferralsWire = decode(key, bytes)?;
        let mut referrals = Vec::new();
        for ReferralWire { address, nqn } in wire.referrals {
            let nqn = nqn.map(|nqn| nqn.parse()).transpose();
            let referral = nqn.and_then(|nqn| Referral::new(address, nqn));
            let added = referral.and_then(|referral| add_referral(&mut referrals, referral));
            added.map_err(|error| damaged(key, error))?;
        }
        check_key(key, REFERRALS_KEY)?;
        Ok(Self { referrals })
    }
}

impl HostRecord {
    /// The bytes to keep. They hold the keys as they are.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Self(host) = self;
        encode(HostWire {
            nqn: host.nqn().to_string(),
            dhchap_key: host.key().expose().to_string(),
            dhchap_ctrl_key: host.controller_key().map(|key| key.expose().to_string()),
            dhchap_hash: host.hash().map(|hash| hash.to_string()),
            dhchap_dhgroup: host.group().map(|group| group.to_string()),
        })
    }

    /// Reads what was kept under `key`.
    ///
    /// # Errors
    /// When the record is damaged, newer than this version, or belongs under another key.
    pub fn decode(key: &str, bytes: &[u8]) -> Result<Self, RecordError> {
        let wire: HostWire = decode(key, bytes).map_err(|error| match error {
            // What is wrong with it is not quoted: it may be the key.
            RecordError::Damaged { key, .. } => damaged(&key, "it is no host with keys"),
            other => other,
        })?;
        let host = wire.read().map_err(|error| damaged(key, error))?;
        check_key(key, &host_key(host.nqn()))?;
        Ok(Self(host))
    }
}

impl HostWire {
    fn read(&self) -> Result<HostSet, api::ApiError> {
        HostSet::new(
            self.nqn.parse()?,
            self.dhchap_key.parse()?,
            self.dhchap_ctrl_key.as_ref().map(|key| key.parse()).transpose()?,
            self.dhchap_hash.as_ref().map(|hash| hash.parse()).transpose()?,
            self.dhchap_dhgroup.as_ref().map(|group| group.parse()).transpose()?,
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_kept_form_is_stable() {
        // Golden: state files of released versions look like this. Change it with a new version.
        let record = VolumeRecord {
            name: "db".parse().unwrap(),
            uuid: Uuid::from_u128(1),
            store: "main".parse().unwrap(),
            size: ByteLen::from_bytes(1 << 30),
            block_size: BlockSize::B4096,
            origin: None,
            qos: Qos::default(),
            phase: Phase::Ready,
        };
        let text = String::from_utf8(record.encode()).unwrap();
        assert_eq!(
            text,
            "{\"version\":1,\"record\":{\"name\":\"db\",\
             \"uuid\":\"00000000-0000-0000-0000-000000000001\",\"store\":\"main\",\
             \"size_bytes\":1073741824,\"block_size\":4096,\"phase\":\"ready\"}}"
        );
        let rate = |per_second| Some(Rate { per_second, burst: 2 * per_second });
        let qos = Qos::new(rate(100), rate(1 << 20)).unwrap();
        let clone = VolumeRecord { origin: Some(Uuid::from_u128(2)), qos, ..record };
        let text = String::from_utf8(clone.encode()).unwrap();
        let expected = "\"origin\":\"00000000-0000-0000-0000-000000000002\",\
             \"qos\":{\"iops\":{\"per_second\":100,\"burst\":200},\
             \"bandwidth\":{\"per_second\":1048576,\"burst\":2097152}},\"phase\"";
        assert!(text.contains(expected), "{text}");
        assert_eq!(VolumeRecord::decode("volumes/db", text.as_bytes()).unwrap(), clone);
    }

    #[test]
    fn a_store_without_a_word_about_its_scrub_is_scrubbed_by_default() {
        let record = StoreRecord {
            name: "a".parse().unwrap(),
            uuid: Uuid::nil(),
            device: "/dev/a".parse().unwrap(),
            scrub: ScrubPolicy::default(),
        };
        let text = String::from_utf8(record.encode()).unwrap();
        assert!(text.ends_with("\"device\":\"/dev/a\"}}"), "{text}");
        assert_eq!(StoreRecord::decode("stores/a", text.as_bytes()).unwrap(), record);
        let scrub = ScrubPolicy { rate: (1 << 30).try_into().unwrap(), paused: true };
        let record = StoreRecord { scrub, ..record };
        let text = String::from_utf8(record.encode()).unwrap();
        let expected = "\"scrub\":{\"rate\":1073741824,\"paused\":true}}}";
        assert!(text.ends_with(expected), "{text}");
        assert_eq!(StoreRecord::decode("stores/a", text.as_bytes()).unwrap(), record);
    }

    #[test]
    fn an_export_without_further_words_is_namespace_1_and_optimized() {
        let record = ExportRecord {
            volume: "v".parse().unwrap(),
            nqn: "nqn.2014-08.com.example:v".parse().unwrap(),
            nsid: 1,
            access: HostAccess::Any,
            paths: Access::default(),
            require_authentication: false,
        };
        let text = String::from_utf8(record.encode()).unwrap();
        assert!(text.ends_with("\"allow_any_host\":true,\"hosts\":[]}}"), "{text}");
        let mut paths = Access { state: AnaState::NonOptimized, ..Access::default() };
        paths.set(Some("192.0.2.1:4420".parse().unwrap()), AnaState::Inaccessible);
        let record = ExportRecord { nsid: 7, paths, ..record };
        let text = String::from_utf8(record.encode()).unwrap();
        let expected = "\"nsid\":7,\"paths\":{\"state\":\"non-optimized\",\"listeners\":\
             [{\"address\":\"192.0.2.1:4420\",\"state\":\"inaccessible\"}]}}}";
        assert!(text.ends_with(expected), "{text}");
        assert_eq!(ExportRecord::decode("exports/v", text.as_bytes()).unwrap(), record);
    }

    #[test]
    fn referrals_survive_the_disk() {
        let referral = |text: &str, nqn| Referral::new(text.parse().unwrap(), nqn).unwrap();
        let named = Some("nqn.2014-08.com.example:d".parse().unwrap());
        let referrals =
            vec![referral("192.0.2.1:8009", None), referral("[2001:db8::1]:8009", named)];
        let record = ReferralsRecord { referrals };
        let back = ReferralsRecord::decode(REFERRALS_KEY, &record.encode()).unwrap();
        assert_eq!(back, record);
        assert!(ReferralsRecord::decode("discovery/other", &record.encode()).is_err());
    }

    #[test]
    fn a_host_with_keys_survives_the_disk_and_a_damaged_one_is_not_quoted() {
        let key = |byte: u8| api::DhchapKey::new(None, &[byte; 32]).unwrap();
        let nqn: api::Nqn = "nqn.2014-08.com.example:h".parse().unwrap();
        for full in [false, true] {
            let hash = full.then_some(api::DhchapHash::Sha384);
            let group = full.then_some(api::DhchapGroup::Ffdhe3072);
            let other = full.then(|| key(2));
            let record = HostRecord(HostSet::new(nqn.clone(), key(1), other, hash, group).unwrap());
            let bytes = record.encode();
            assert_eq!(HostRecord::decode(&host_key(&nqn), &bytes).unwrap(), record);
            assert!(HostRecord::decode("hosts/nqn.2014-08.com.example:i", &bytes).is_err());
            let text = String::from_utf8(bytes).unwrap();
            assert_eq!(text.contains("dhchap_ctrl_key"), full, "{text}");
            let damaged = text.replace("\"dhchap_key\"", "\"dhchap_kez\"");
            let error = HostRecord::decode(&host_key(&nqn), damaged.as_bytes()).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("DHHC"), "{error}");
        }
    }

    #[test]
    fn a_newer_record_is_refused_by_its_version() {
        let bytes = b"{\"version\":2,\"record\":{\"anything\":[]}}";
        let error = VolumeRecord::decode("volumes/db", bytes).unwrap_err();
        assert!(matches!(error, RecordError::Newer { found: 2, known: 1, .. }), "{error}");
    }

    #[test]
    fn a_record_under_a_foreign_key_is_refused() {
        let record = StoreRecord {
            name: "a".parse().unwrap(),
            uuid: Uuid::nil(),
            device: "/dev/a".parse().unwrap(),
            scrub: ScrubPolicy::default(),
        };
        assert!(StoreRecord::decode("stores/a", &record.encode()).is_ok());
        let error = StoreRecord::decode("stores/b", &record.encode()).unwrap_err();
        assert!(matches!(error, RecordError::Damaged { .. }));
    }

    proptest! {
        #[test]
        fn exports_survive_the_disk(
            any in any::<bool>(),
            names in proptest::collection::vec("nqn\\.2014-08\\.com\\.example:[a-z]{1,9}", 0..9),
            nsid in 1u32..257, state in 0usize..5, port in 1u16..9,
        ) {
            let mut paths = Access { state: AnaState::ALL[state], ..Access::default() };
            let listener = SocketAddr::from(([192, 0, 2, 1], port));
            paths.set(Some(listener), AnaState::ALL[usize::from(port) % 5]);
            let hosts = names.iter().map(|name| name.parse().unwrap()).collect();
            let record = ExportRecord {
                volume: "v".parse().unwrap(),
                nqn: "nqn.2014-08.com.example:v".parse().unwrap(),
                nsid,
                access: if any { HostAccess::Any } else { HostAccess::listed(hosts).unwrap() },
                paths,
                require_authentication: names.len() == 3,
            };
            let back = ExportRecord::decode("exports/v", &record.encode()).unwrap();
            prop_assert_eq!(back, record);
        }

        #[test]
        fn any_bytes_are_a_record_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..99),
        ) {
            prop_assert!(StoreRecord::decode("stores/a", &bytes).is_err());
        }
    }
}
