//! What can be asked of a shard, and what it answers.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;

use bdev::Bdev;
use nvmf::NamespaceHandle;
use reservation::{Registrant, Type};

use crate::stats::NamespaceCounters;

/// Names a store of this node while the node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub u32);

/// Names a volume of a store, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(pub u32);

/// What to open as a store.
pub enum StoreSpec {
    /// Volumes in memory, for demonstrations and benchmarks: lost with the process.
    Ram {
        /// Bytes that its volumes may have together.
        bytes: u64,
    },
    /// Volumes that forget what is written: a benchmark learns what the path to them costs.
    Null {
        /// Bytes that its volumes may have together.
        bytes: u64,
    },
    /// A device.
    Device {
        /// The device; the shard opens its own queue to it.
        device: Arc<dyn Bdev>,
        /// Write a new, empty store first; what is on the device is lost.
        format: Option<Format>,
    },
}

impl fmt::Debug for StoreSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreSpec::Ram { bytes } => write!(f, "Ram({bytes} bytes)"),
            StoreSpec::Null { bytes } => write!(f, "Null({bytes} bytes)"),
            StoreSpec::Device { device, format } => {
                write!(f, "Device({} bytes, {format:?})", device.info().byte_len())
            }
        }
    }
}

/// How to write a new store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// The identity of the new store; random, chosen by the caller.
    pub uuid: [u8; 16],
    /// Bytes of the log; `None` lets the store choose.
    pub log_bytes: Option<u64>,
}

/// A volume to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Its name, unique in the store: 1 to 64 bytes.
    pub name: String,
    /// Its identity; random, chosen by the caller.
    pub uuid: [u8; 16],
    /// Its size: a whole number of blocks.
    pub bytes: u64,
    /// 512 or 4096.
    pub block_size: u32,
}

/// A volume to make from a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneSpec {
    /// The snapshot.
    pub snapshot: VolumeId,
    /// The name of the volume, unique in the store: 1 to 64 bytes.
    pub name: String,
    /// Its identity; random, chosen by the caller.
    pub uuid: [u8; 16],
}

/// A snapshot to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSpec {
    /// Of this volume.
    pub volume: VolumeId,
    /// Its name, unique among those of the volume: 1 to 64 bytes.
    pub name: String,
    /// Its identity; random, chosen by the caller.
    pub uuid: [u8; 16],
}

/// What a shard says of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotStatus {
    /// Its number in its store: of two, the later one has the higher number.
    pub id: VolumeId,
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uuid: [u8; 16],
    /// The volume that it was taken of; it may be gone.
    pub volume: VolumeId,
    /// The size of the volume at that moment.
    pub bytes: u64,
    /// Bytes that its map references, shared or not; zero until it is materialised.
    pub referenced_bytes: u64,
    /// It is in the map, and not only in the log.
    pub materialised: bool,
}

/// A step of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What differs: first byte and bytes, ascending.
    pub ranges: Vec<(u64, u64)>,
    /// The byte to go on from; `None` at the end.
    pub next: Option<u64>,
}

/// A step of a count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Bytes that belong to the snapshot alone.
    pub bytes: u64,
    /// The byte to go on from; `None` at the end.
    pub next: Option<u64>,
}

/// How fast a volume may be; zero is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Qos {
    /// Operations a second.
    pub iops: u64,
    /// Operations at once after a quiet time.
    pub iops_burst: u64,
    /// Bytes a second.
    pub bytes_per_second: u64,
    /// Bytes at once after a quiet time.
    pub bytes_burst: u64,
}

/// What a shard says of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeStatus {
    /// Its number in its store.
    pub id: VolumeId,
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uuid: [u8; 16],
    /// Its size in bytes.
    pub bytes: u64,
    /// Bytes in a logical block.
    pub block_size: u32,
    /// Bytes of the store that it uses.
    pub used_bytes: u64,
    /// What hosts reserve can outlive a restart of the node.
    pub persists: bool,
    /// How fast it may be.
    pub qos: Qos,
    /// Times that requests had to wait for that.
    pub throttled: u64,
    /// How long, all times together, in nanoseconds.
    pub throttled_ns: u64,
}

/// Who has reserved a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The type of the reservation, if there is one.
    pub kind: Option<Type>,
    /// It outlives a restart of the node.
    pub persists: bool,
    /// How often registrations were changed.
    pub generation: u32,
    /// Who is registered, and whether he holds the reservation.
    pub registrants: Vec<(Registrant, bool)>,
}

/// Something wrong that a store noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A block does not match its checksum. It was not given to anybody.
    Block {
        /// The volume or snapshot.
        volume: VolumeId,
        /// The 4 KiB block of it.
        block: u64,
        /// What kind of place it was read from.
        place: volume::Damaged,
        /// Where that is, in bytes from the start of the device (of the page, for the map).
        byte: u64,
    },
    /// Recovery found damaged blocks in the log. Those that are lost by it have notices of their
    /// own.
    Log {
        /// The number of the first record with such a block.
        first: u64,
        /// The number of the last.
        last: u64,
        /// How many blocks.
        blocks: u64,
    },
    /// A metadata page: what is wrong with it, and whether its other copy replaced it.
    Page(store::Damage),
}

/// What a store noticed since the last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notices {
    /// One by one, at most [`crate::NOTICES_KEPT`].
    pub notices: Vec<Notice>,
    /// How many more there were.
    pub missed: u64,
}

/// What a shard says of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStatus {
    /// The identity on the device; all zero for a RAM store.
    pub uuid: [u8; 16],
    /// Bytes that volumes can use in all.
    pub capacity_bytes: u64,
    /// Bytes that volumes use.
    pub used_bytes: u64,
    /// Bytes of the log region.
    pub log_bytes: u64,
    /// Bytes of the log that are not reusable yet.
    pub log_used_bytes: u64,
    /// Checkpoints since it was opened.
    pub checkpoints: u64,
    /// Bytes written to the device since it was opened.
    pub device_written: u64,
    /// Bytes read from the device since it was opened.
    pub device_read: u64,
    /// Blocks whose checksum did not match.
    pub integrity_errors: u64,
    /// Everything that its engine counts.
    pub stats: volume::Stats,
    /// Its log, and who waits for it.
    pub log: volume::LogStatus,
    /// How long writes waited for the log; `None` for a store without one.
    pub waits: Option<Box<volume::Latency>>,
    /// How its device is.
    pub health: volume::HealthStatus,
    /// What its scrub does.
    pub scrub: volume::ScrubStatus,
    /// The check, or the last one.
    pub check: CheckSummary,
    /// How full it is.
    pub space: volume::SpaceState,
    /// Why it does not serve writes any more; empty when it does.
    pub failure: String,
    /// Its volumes, by id.
    pub volumes: Vec<VolumeStatus>,
    /// Its snapshots, the oldest first.
    pub snapshots: Vec<SnapshotStatus>,
}

/// A check in short: [`crate::NodeHandle::check_status`] has all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckSummary {
    /// One is under way.
    pub running: bool,
    /// Checks that came to their end since the store was opened.
    pub done: u64,
    /// Checks that gave way to something.
    pub aborted: u64,
    /// What the last one that came to its end found.
    pub found: u64,
    /// What all of them found together.
    pub found_all: u64,
    /// Bytes of leaked space that all of them gave back.
    pub freed_bytes: u64,
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeError {
    /// The shard's mailbox is full: try again.
    Busy,
    /// The shard is shutting down or gone.
    Stopped,
    /// There is no such store.
    NoSuchStore,
    /// There is no such volume.
    NoSuchVolume,
    /// There is no such namespace.
    NoSuchNamespace,
    /// The store has a volume of this name.
    NameTaken,
    /// The store or volume is in use by something attached.
    InUse,
    /// A maximum is reached: what, and how many.
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        max: usize,
    },
    /// The request makes no sense: why.
    Invalid(String),
    /// There is no room in the store.
    NoSpace,
    /// The device could not be opened: why.
    Device(String),
    /// The store could not be formatted, opened or changed: why.
    Store(String),
    /// The address could not be listened on: why.
    Listen(String),
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeError::Busy => f.write_str("too many commands are waiting"),
            NodeError::Stopped => f.write_str("the node is shutting down"),
            NodeError::NoSuchStore => f.write_str("there is no such store"),
            NodeError::NoSuchVolume => f.write_str("there is no such volume"),
            NodeError::NoSuchNamespace => f.write_str("there is no such namespace"),
            NodeError::NameTaken => f.write_str("the store has a volume of this name"),
            NodeError::InUse => f.write_str("it is attached"),
            NodeError::TooMany { what, max } => write!(f, "more than {max} {what}"),
            NodeError::NoSpace => f.write_str("there is no room in the store"),
            NodeError::Invalid(why)
            | NodeError::Device(why)
            | NodeError::Store(why)
            | NodeError::Listen(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for NodeError {}

/// A command to one shard.
#[derive(Debug)]
pub(crate) enum Command {
    OpenStore {
        store: StoreId,
        spec: StoreSpec,
    },
    CloseStore {
        store: StoreId,
    },
    StoreStatus {
        store: StoreId,
    },
    CheckStatus {
        store: StoreId,
    },
    TakeNotices {
        store: StoreId,
    },
    UnixTime {
        seconds: u64,
    },
    Store {
        store: StoreId,
        task: Task,
    },
    /// Who has reserved a volume; `evict` removes everybody first.
    Reservation {
        store: StoreId,
        volume: VolumeId,
        evict: bool,
    },
    Attach {
        handle: NamespaceHandle,
        source: Source,
        counters: Arc<NamespaceCounters>,
    },
    Detach {
        handle: NamespaceHandle,
    },
    Listen {
        address: SocketAddr,
    },
    Unlisten {
        address: SocketAddr,
    },
    Drain,
    Shutdown,
}

/// A change of a store; may take many turns.
#[derive(Clone, Debug)]
pub(crate) enum Task {
    Create(VolumeSpec),
    Resize {
        volume: VolumeId,
        bytes: u64,
        shrink: bool,
    },
    /// Of a volume or a snapshot.
    Delete {
        volume: VolumeId,
    },
    Clone(CloneSpec),
    Restore {
        volume: VolumeId,
        snapshot: VolumeId,
    },
    Snapshots(Vec<SnapshotSpec>),
    Limit {
        volume: VolumeId,
        qos: Qos,
    },
    /// Starts a scrub, or sets its rate; a rate of 0 holds it.
    Scrub {
        bytes_per_second: u64,
        start: bool,
    },
    Check,
    /// A walk: other changes wait, so a step of it is short.
    Diff {
        base: Option<VolumeId>,
        of: VolumeId,
        from: u64,
        ranges_max: usize,
    },
    /// As above.
    CountUnique {
        snapshot: VolumeId,
        from: u64,
    },
}

/// Where a namespace's requests go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// To a volume of this shard.
    Volume { store: StoreId, volume: VolumeId },
    /// To the shard that owns the volume.
    Shard { owner: usize, block_size: u32 },
}

#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Done,
    Store(Box<StoreStatus>),
    Volume(VolumeStatus),
    Changes(Changes),
    Counted(Counted),
    Check(Box<volume::CheckStatus>),
    Notices(Notices),
    Reservation(Box<Reservation>),
    Listening(SocketAddr),
}

/// A command on its way to a shard; the same box comes back with the answer.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) command: Command,
    pub(crate) answer: Option<Result<Answer, NodeError>>,
    home: Option<mpsc::Sender<Box<Envelope>>>,
}

impl Envelope {
    pub(crate) fn new(command: Command, home: mpsc::Sender<Box<Envelope>>) -> Box<Envelope> {
        Box::new(Envelope { command, answer: None, home: Some(home) })
    }

    /// Sends the box back. Nobody may be waiting any more: then it ends here.
    pub(crate) fn reply(mut self: Box<Envelope>, answer: Result<Answer, NodeError>) {
        self.answer = Some(answer);
        if let Some(home) = self.home.take() {
            let _ = home.send(self);
        }
    }
}
