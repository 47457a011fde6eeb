//! From a device to a running engine: format, mount, scan the log, claim what it names.

use bdev::{Info, Instant};
use store::{Format, FormatOptions, LogTail, Mount, Store};
use wal::{Config, Lsn, Point, Replay, Scan, ScanStep, Wal};

use crate::core::{Core, Parts};
use crate::cow::Cow;
use crate::destage::Destage;
use crate::device::{BLOCK, Device};
use crate::error::{Event, OpenError};
use crate::health::Health;
use crate::journal::{Journal, Marks};
use crate::layers::Layers;
use crate::limits::{
    ADMISSION_DEADLINE_NS, COPIES_MAX, DEVICE_DEADLINE_NS, IDLE_NS, OVERLAY_BLOCKS_MIN, RANGES_MAX,
    SCRUB_BYTES_PER_SECOND, SPACE_LOW_PERCENT,
};
use crate::logdamage::LogDamage;
use crate::overlay::Overlay;
use crate::replay::{Replayed, claim};
use crate::reserve::Reserve;

/// How to open an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Page cache of the store, in frames of 4 KiB.
    pub frames: u32,
    /// Largest group of the log in bytes. By default what the ring allows, up to 1 MiB. Four
    /// segments of that size are taken from the pool, one of 1 MiB for destaging, and up to eight
    /// of 64 KiB for copying what snapshots share.
    pub group_bytes: Option<usize>,
    /// Nanoseconds without a write after which everything is destaged and checkpointed.
    pub idle_ns: u64,
    /// How long a write may wait before it is given back with a status that says "again".
    pub admission_deadline_ns: u64,
    /// How long the device may take for a request before it is quarantined.
    pub device_deadline_ns: u64,
    /// Percent of the store from which space is low.
    pub space_low_percent: u64,
    /// How fast the scrub reads, in bytes a second; 0 for no scrub.
    pub scrub_bytes_per_second: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            frames: store::FRAMES_DEFAULT,
            group_bytes: None,
            idle_ns: IDLE_NS,
            admission_deadline_ns: ADMISSION_DEADLINE_NS,
            device_deadline_ns: DEVICE_DEADLINE_NS,
            space_low_percent: SPACE_LOW_PERCENT,
            scrub_bytes_per_second: SCRUB_BYTES_PER_SECOND,
        }
    }
}

/// An engine on its way to running.
pub(crate) struct Opening {
    pub(crate) device: Device,
    info: Info,
    options: Options,
    stage: Stage,
    /// The copy of the superblock that the mount has rewritten.
    healed: Option<store::Damage>,
    /// Why the device is not asked any more.
    quarantined: Option<&'static str>,
    /// Last, so that it is dropped after everything that holds its segments.
    reserve: Reserve,
}

enum Stage {
    Format(Box<Format>),
    Mount(Box<Mount>),
    Scan(Box<Scanning>),
    /// Between two stages.
    Moving,
}

struct Scanning {
    store: Store,
    config: Config,
    tail: Point,
    scan: Scan,
    replay: Replayed,
}

impl Opening {
    pub(crate) fn create(
        device: Device,
        info: Info,
        reserve: Reserve,
        format: &FormatOptions,
        options: Options,
    ) -> Result<Opening, OpenError> {
        let format = Format::new(&info, format).map_err(OpenError::Format)?;
        let stage = Stage::Format(Box::new(format));
        Ok(Opening { device, reserve, info, options, stage, healed: None, quarantined: None })
    }

    pub(crate) fn open(device: Device, info: Info, reserve: Reserve, options: Options) -> Opening {
        let stage = Stage::Mount(Box::new(new_mount(&info, &options)));
        Opening { device, reserve, info, options, stage, healed: None, quarantined: None }
    }

    /// Log blocks that were scanned, of how many; `None` before the scan.
    pub(crate) fn progress(&self) -> Option<(u64, u64)> {
        match &self.stage {
            Stage::Scan(scanning) => Some(scanning.scan.progress()),
            _ => None,
        }
    }

    /// One turn. True when something moved.
    pub(crate) fn drive(&mut self, now: Instant) -> bool {
        let before = self.device.machines.len();
        match &mut self.stage {
            Stage::Format(format) => format.poll_requests(&mut self.device.machines, &self.reserve),
            Stage::Mount(mount) => mount.poll_requests(&mut self.device.machines, &self.reserve),
            Stage::Scan(scanning) => scanning.scan.poll_requests(&mut self.device.machines),
            Stage::Moving => {}
        }
        self.device.count_machines(before);
        let progress = self.device.turn();
        while let Some(completion) = self.device.done.pop() {
            self.device.end(&completion);
            match &mut self.stage {
                Stage::Format(format) => format.on_completion(completion),
                Stage::Mount(mount) => mount.on_completion(completion),
                Stage::Scan(scanning) => scanning.scan.on_completion(completion),
                Stage::Moving => {}
            }
        }
        self.quarantined = match self.device.look(now) {
            Some((Health::Quarantined, why)) => Some(why),
            _ => self.quarantined,
        };
        progress
    }

    /// Moves on when a stage is over. The engine's insides when all are.
    pub(crate) fn advance(mut self) -> Result<Result<Opening, Box<Core>>, OpenError> {
        if let Some(why) = self.quarantined {
            return Err(OpenError::Device(why));
        }
        self.stage = match std::mem::replace(&mut self.stage, Stage::Moving) {
            Stage::Format(mut format) => match format.take_result() {
                None => Stage::Format(format),
                Some(Err(error)) => return Err(OpenError::Format(error)),
                Some(Ok(_)) => Stage::Mount(Box::new(new_mount(&self.info, &self.options))),
            },
            Stage::Mount(mut mount) => match mount.take_result() {
                None => Stage::Mount(mount),
                Some(Err(error)) => return Err(OpenError::Mount(error)),
                Some(Ok(mounted)) => {
                    self.healed = mounted.healed_superblock;
                    Stage::Scan(Box::new(self.begin_scan(mounted.store, mounted.tail)?))
                }
            },
            Stage::Scan(mut scanning) => match scanning.step() {
                ScanStep::Pending => Stage::Scan(scanning),
                ScanStep::Failed(error) => return Err(OpenError::Log(error)),
                ScanStep::Done(head) => return self.finish(*scanning, head).map(Err),
            },
            Stage::Moving => panic!("a stage is put back"),
        };
        Ok(Ok(self))
    }

    fn begin_scan(&self, store: Store, tail: LogTail) -> Result<Scanning, OpenError> {
        let region = store.log_region();
        let blocks = region.bytes / BLOCK as u64;
        let mut config = Config::new(store.uuid(), store.epoch(), region.start, blocks);
        config.device_block = self.info.block_size;
        config.group_bytes = self.options.group_bytes.unwrap_or_else(|| group_bytes(blocks));
        let tail = Point { position: tail.position, lsn: Lsn(tail.lsn), chain: tail.chain };
        let segment =
            self.reserve.shared().take(Scan::SEGMENT_BYTES).ok_or(OpenError::NoBuffers)?;
        // The same for every mount of a store: what was logged once can always be replayed.
        let ring = usize::try_from(blocks).unwrap_or(usize::MAX);
        let slots = ring.max(OVERLAY_BLOCKS_MIN.min(ring.saturating_mul(16)));
        let replay = Replayed {
            overlay: Overlay::new(slots, RANGES_MAX),
            layers: Layers::new(),
            // Half as much again: the log's watermarks are met before the journal is crowded.
            journal: Journal::new(slots + slots / 2),
            marks: Marks::new(tail, blocks),
            replayed: 0,
            reserved: 0,
            damage: LogDamage::default(),
            error: None,
        };
        let scan = Scan::new(config, tail, segment);
        Ok(Scanning { store, config, tail, scan, replay })
    }

    fn finish(self, scanning: Scanning, head: Point) -> Result<Box<Core>, OpenError> {
        let Scanning { mut store, mut config, tail, scan, mut replay } = scanning;
        if let Some(error) = replay.error {
            return Err(error);
        }
        claim(&mut store, &replay.overlay, &mut replay.journal);
        replay.marks.push(head);
        config.epoch = scan.next_epoch();
        let segment = scan.into_segment().ok_or(OpenError::NoBuffers)?;
        let pool = self.reserve.shared();
        // First what there must be, then as many of the others as there are.
        let wal = Wal::new(config, tail, head, pool).map_err(OpenError::LogConfig)?;
        let extent = usize::try_from(store::EXTENT_BYTES).expect("64 KiB");
        let mut copies = (0..COPIES_MAX).map_while(|_| pool.take(extent)).peekable();
        copies.peek().ok_or(OpenError::NoBuffers)?;
        let cow = Cow::new(copies);
        let payload = config.group_bytes / BLOCK - wal::HEADER_BLOCKS_MAX;
        let mut core = Box::new(Core::new(Parts {
            reserve: self.reserve,
            device: self.device,
            store,
            wal,
            overlay: replay.overlay,
            layers: replay.layers,
            journal: replay.journal,
            marks: replay.marks,
            destage: Destage::new(segment, cow),
            reserved: replay.reserved,
            piece_blocks: payload.min(wal::RECORD_BLOCKS_MAX) as u64,
            options: self.options.clone(),
            replayed: replay.replayed,
        }));
        if let Some(damage) = self.healed {
            core.report(Event::Metadata(damage));
        }
        replay.damage.report(&mut core);
        Ok(core)
    }
}

fn new_mount(info: &Info, options: &Options) -> Mount {
    Mount::new(info, &store::Options { frames: options.frames })
}

/// The largest group that a ring allows, in whole blocks of 16 KiB.
fn group_bytes(ring_blocks: u64) -> usize {
    let most = ring_blocks / wal::RING_GROUPS_MIN * BLOCK as u64;
    let whole = most / (16 << 10) * (16 << 10);
    usize::try_from(whole).unwrap_or(usize::MAX).clamp(wal::GROUP_BYTES_MIN, 1 << 20)
}

impl Scanning {
    fn step(&mut self) -> ScanStep {
        let Scanning { store, scan, replay, .. } = self;
        scan.step(|item| match item {
            Replay::Record { lsn, record, payload, damaged } => {
                replay.record(store, lsn.0, record, (payload, damaged));
            }
            Replay::Boundary(point) => replay.marks.push(point),
        })
    }
}
