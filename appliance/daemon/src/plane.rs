//! The narrow seam between the daemon and the data plane.
//!
//! The daemon decides what shall be; a [`DataPlane`] does it: it opens devices, owns the reactors
//! and the NVMe/TCP listeners, and knows stores and volumes by their identities only. Names,
//! desired state and idempotency stay on this side.

mod reactors;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use api::{
    Access, BlockSize, ByteLen, DevicePath, DiffStep, HostAccess, HostSet, LogSize, Nqn, Qos,
    Referral, Reply, Session, ShardStats, StoreCheck, StoreNumbers, TransportStats, VolumeIo,
};
use uuid::Uuid;

pub(crate) use reactors::ReactorPlane;

/// What the daemon asks of the data plane. Answers come in any order; the daemon sends one change
/// at a time.
pub trait DataPlane: Send + Sync + 'static {
    /// What was chosen at start-up; the addresses are empty until [`DataPlane::listen`].
    fn info(&self) -> PlaneInfo;

    /// Begins to accept hosts. Called once, when all exports are in place: a host that reconnects
    /// too early would be told that its subsystem is gone, and give up.
    fn listen(&self) -> Reply<'_, ()>;

    /// Writes a new, empty store with this identity and such a log onto a device and opens it.
    /// Whatever is on the device is lost; the caller has checked.
    fn store_format(
        &self,
        device: DevicePath,
        uuid: Uuid,
        log: Option<LogSize>,
    ) -> Reply<'_, PlaneStore>;

    /// Opens the store on a device.
    fn store_open(&self, device: DevicePath) -> Reply<'_, PlaneStore>;

    /// Closes a store without exports.
    fn store_close(&self, store: Uuid) -> Reply<'_, ()>;

    /// Starts to check an open store; one that is under way goes on.
    fn store_check(&self, store: Uuid) -> Reply<'_, ()>;

    /// How the check of an open store is, or how the last one ended.
    fn store_check_status(&self, store: Uuid) -> Reply<'_, StoreCheck>;

    /// Sets how fast a store is scrubbed, in bytes a second, 0 for not at all; with `start` a pass
    /// begins (or goes on) now. Until the store is closed.
    fn store_scrub(&self, store: Uuid, rate: u64, start: bool) -> Reply<'_, ()>;

    /// Takes what an open store noticed since the last call; a flood of it is cut short.
    fn store_notices(&self, store: Uuid) -> Reply<'_, PlaneNotices>;

    /// Tells all stores what time it is, in seconds since 1970.
    fn tell_time(&self, unix_seconds: u64) -> Reply<'_, ()>;

    /// All open stores.
    fn stores(&self) -> Reply<'_, Vec<PlaneStore>>;

    /// Creates a volume; durable when answered.
    fn volume_create(&self, store: Uuid, volume: PlaneVolume) -> Reply<'_, PlaneVolume>;

    /// Changes the size of a volume, with `shrink` to a smaller one as well; durable when
    /// answered. Connected hosts are told.
    fn volume_resize(
        &self,
        store: Uuid,
        volume: Uuid,
        size: ByteLen,
        shrink: bool,
    ) -> Reply<'_, ()>;

    /// Limits a volume, until its store is closed.
    fn volume_qos(&self, store: Uuid, volume: Uuid, qos: Qos) -> Reply<'_, ()>;

    /// Creates a volume (identity and name are looked at) from a snapshot; durable when answered.
    fn volume_clone(
        &self,
        store: Uuid,
        snapshot: Uuid,
        volume: PlaneVolume,
    ) -> Reply<'_, PlaneVolume>;

    /// Takes a volume back to a snapshot; durable when answered.
    fn volume_restore(&self, store: Uuid, volume: Uuid, snapshot: Uuid) -> Reply<'_, PlaneVolume>;

    /// Takes snapshots, all at the same moment, all or none; durable when answered.
    fn snapshots_create(&self, store: Uuid, group: Vec<PlaneNewSnapshot>) -> Reply<'_, ()>;

    /// Destroys a snapshot; durable when answered.
    fn snapshot_destroy(&self, store: Uuid, snapshot: Uuid) -> Reply<'_, ()>;

    /// Bytes that would be free without a snapshot: a walk of its map.
    fn snapshot_space(&self, store: Uuid, snapshot: Uuid) -> Reply<'_, ByteLen>;

    /// A bounded step of the comparison of a snapshot (or nothing) with another one.
    fn diff(&self, store: Uuid, base: Option<Uuid>, of: Uuid, from: u64) -> Reply<'_, DiffStep>;

    /// Destroys a volume without an export; durable when answered.
    fn volume_destroy(&self, store: Uuid, volume: Uuid) -> Reply<'_, ()>;

    /// All exports.
    fn exports(&self) -> Reply<'_, Vec<PlaneExport>>;

    /// Exports a volume as a namespace of a subsystem, which is there as long as it has any.
    fn export_add(&self, export: PlaneExport) -> Reply<'_, ()>;

    /// Replaces the allow list of an export and the states of its paths. Hosts that are not on it
    /// lose the namespace, and their sessions when that was the only one they saw.
    fn export_change(&self, export: PlaneExport) -> Reply<'_, ()>;

    /// Removes a namespace, and its subsystem with the last one. Answered when no request for it is
    /// in flight.
    fn export_remove(&self, volume: Uuid) -> Reply<'_, ()>;

    /// Other discovery services that hosts are told of.
    fn referrals(&self) -> Reply<'_, Vec<Referral>>;

    /// Replaces them.
    fn set_referrals(&self, referrals: Vec<Referral>) -> Reply<'_, ()>;

    /// Gives discovery its unique name. Called once, before [`DataPlane::listen`].
    fn set_discovery_nqn(&self, nqn: Nqn) -> Reply<'_, ()>;

    /// Hosts with keys, by name.
    fn hosts(&self) -> Reply<'_, Vec<HostSet>>;

    /// Replaces the keys of all hosts. Sessions that lack a proof that they need now end.
    fn hosts_replace(&self, hosts: Vec<HostSet>) -> Reply<'_, ()>;

    /// Connected hosts. `volume` is left out: the daemon knows it by the subsystem.
    fn sessions(&self) -> Reply<'_, Vec<Session>>;

    /// Connects that were refused since the last call; a flood of them is cut short.
    fn refusals(&self) -> Reply<'_, Vec<PlaneRefusal>>;

    /// Numbers of reactors, transport and volumes.
    fn stats(&self) -> Reply<'_, PlaneStats>;

    /// Stops accepting connections, finishes what is in flight, checkpoints and closes all stores.
    fn drain(&self) -> Reply<'_, ()>;
}

/// What a data plane chose at start-up.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PlaneInfo {
    /// Cores that run a reactor; empty when the reactor is not pinned.
    pub reactor_cores: Vec<u32>,
    /// `spin` or `adaptive`.
    pub idle: String,
    /// `io_uring` or `standard`.
    pub io_backend: String,
    /// Where I/O connections are accepted; ports are real ones.
    pub nvme_tcp: Vec<SocketAddr>,
    /// Where discovery connections are accepted.
    pub discovery: Vec<SocketAddr>,
}

/// An open store.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PlaneStore {
    /// The identity on the device.
    pub uuid: Uuid,
    /// What it counts.
    pub numbers: StoreNumbers,
    /// How fast it is scrubbed, in bytes a second; 0 for not at all.
    pub scrub_rate: u64,
    /// Why it does not serve writes any more; empty when it does.
    pub failure: String,
    /// `io_uring` or `standard`.
    pub backend: String,
    /// Its volumes.
    pub volumes: Vec<PlaneVolume>,
    /// Its snapshots, the oldest first.
    pub snapshots: Vec<PlaneSnapshot>,
}

/// What a store noticed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PlaneNotices {
    /// One by one.
    pub notices: Vec<PlaneNotice>,
    /// How many more there were.
    pub missed: u64,
}

/// Damage that a store noticed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PlaneNotice {
    /// A block of 4 KiB of a volume or a snapshot does not match its checksum.
    Block {
        /// The volume or the snapshot, unless it is gone meanwhile.
        of: Option<Uuid>,
        /// Which block of it.
        block: u64,
        /// Where it was read.
        place: String,
    },
    /// The log, when the store was opened.
    Log {
        /// Which records of it, and how much of them.
        what: String,
    },
    /// A metadata page.
    Page {
        /// Which one, and what is wrong with it.
        what: String,
        /// Its other copy replaced it.
        healed: bool,
    },
}

/// A snapshot to be taken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PlaneNewSnapshot {
    /// Of this volume.
    pub volume: Uuid,
    /// Its identity.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
}

/// A snapshot in an open store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PlaneSnapshot {
    /// Its identity.
    pub uuid: Uuid,
    /// Its name, unique among those of its volume.
    pub name: String,
    /// The volume that it was taken of.
    pub volume: Uuid,
    /// Grows with each snapshot of the store.
    pub number: u32,
    /// The size of the volume at that moment.
    pub size: ByteLen,
    /// Bytes that its map references; zero until it is materialised.
    pub referenced: ByteLen,
    /// It is in the map, and not only in the log.
    pub materialised: bool,
}

/// A volume in an open store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PlaneVolume {
    /// Its identity.
    pub uuid: Uuid,
    /// Its name, as the store has it.
    pub name: String,
    /// Its size.
    pub size: ByteLen,
    /// Its logical block size.
    pub block_size: BlockSize,
    /// Bytes of the store that it uses; ignored at creation.
    pub used: ByteLen,
    /// How fast its hosts are served; ignored at creation.
    pub qos: Qos,
    /// Times that requests had to wait for that; ignored at creation.
    pub throttled: u64,
    /// How long, all times together, in nanoseconds; ignored at creation.
    pub throttled_ns: u64,
}

/// An export.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PlaneExport {
    /// The subsystem.
    pub nqn: Nqn,
    /// The namespace in it.
    pub nsid: u32,
    /// The store of the volume.
    pub store: Uuid,
    /// The volume.
    pub volume: Uuid,
    /// Who may connect.
    pub access: HostAccess,
    /// How good a path this node is.
    pub paths: Access,
    /// Whether hosts without keys are refused.
    pub require_authentication: bool,
}

/// A host that was refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PlaneRefusal {
    /// The name that the host gave itself, printable; empty if it was none.
    pub host: String,
    /// What it asked for, printable; empty if it was no name.
    pub subsystem: String,
    /// Where it came from.
    pub peer: String,
    /// Why.
    pub cause: RefusalCause,
}

/// Why a host was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RefusalCause {
    /// The subsystem is there, and the host is not on its list.
    NotListed,
    /// The subsystem takes hosts with keys only, and the host has none.
    NoKey,
    /// The host did not prove who it is: how.
    NotProven(&'static str),
    /// It asked for something that is not there, or in a way that makes no sense.
    Other,
}

/// Numbers of the data plane.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlaneStats {
    /// One per reactor.
    pub shards: Vec<ShardStats>,
    /// The NVMe/TCP listeners.
    pub transport: TransportStats,
    /// I/O by volume, since it was exported.
    pub volumes: BTreeMap<Uuid, VolumeIo>,
}
