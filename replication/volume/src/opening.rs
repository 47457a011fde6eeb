//! From a device to a running engine: format, mount, scan the log, claim what it names.

use std::rc::Rc;

use bdev::{Info, Pool};
use store::{ExtentState, Format, FormatOptions, LogTail, Mount, Store, VolumeId};
use wal::{Config, Lsn, Point, Record, Replay, Scan, ScanStep, Wal};

use crate::control::Control;
use crate::core::{Core, Parts};
use crate::destage::Destage;
use crate::device::{BLOCK, Device};
use crate::error::OpenError;
use crate::journal::{Entry, Journal, Kind, Marks};
use crate::limits::{IDLE_NS, OVERLAY_BLOCKS_MIN, RANGES_MAX, ZERO_BLOCKS_MAX};
use crate::overlay::{Overlay, Place, Version, ZeroRange};
use crate::write::EXTENT_BLOCKS;

/// How to open an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Page cache of the store, in frames of 4 KiB.
    pub frames: u32,
    /// Largest group of the log in bytes. By default what the ring allows, up to 1 MiB. Four
    /// segments of that size are taken from the pool, and one of 1 MiB for destaging.
    pub group_bytes: Option<usize>,
    /// Nanoseconds without a write after which everything is destaged and checkpointed.
    pub idle_ns: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { frames: store::FRAMES_DEFAULT, group_bytes: None, idle_ns: IDLE_NS }
    }
}

/// An engine on its way to running.
pub(crate) struct Opening {
    pub(crate) device: Device,
    info: Info,
    options: Options,
    stage: Stage,
    /// Last, so that it is dropped after everything that holds its segments.
    pool: Rc<Pool>,
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
    replay: State,
}

/// What a replay builds.
struct State {
    overlay: Overlay,
    journal: Journal,
    marks: Marks,
    replayed: u64,
    reserved: u64,
    error: Option<OpenError>,
}

impl Opening {
    pub(crate) fn create(
        device: Device,
        info: Info,
        pool: Rc<Pool>,
        format: &FormatOptions,
        options: Options,
    ) -> Result<Opening, OpenError> {
        let format = Format::new(&info, format).map_err(OpenError::Format)?;
        let stage = Stage::Format(Box::new(format));
        Ok(Opening { device, pool, info, options, stage })
    }

    pub(crate) fn open(device: Device, info: Info, pool: Rc<Pool>, options: Options) -> Opening {
        let stage = Stage::Mount(Box::new(new_mount(&info, &options)));
        Opening { device, pool, info, options, stage }
    }

    /// Log blocks that were scanned, of how many; `None` before the scan.
    pub(crate) fn progress(&self) -> Option<(u64, u64)> {
        match &self.stage {
            Stage::Scan(scanning) => Some(scanning.scan.progress()),
            _ => None,
        }
    }

    /// One turn. True when something moved.
    pub(crate) fn drive(&mut self) -> bool {
        let before = self.device.machines.len();
        match &mut self.stage {
            Stage::Format(format) => format.poll_requests(&mut self.device.machines, &self.pool),
            Stage::Mount(mount) => mount.poll_requests(&mut self.device.machines, &self.pool),
            Stage::Scan(scanning) => scanning.scan.poll_requests(&mut self.device.machines),
            Stage::Moving => {}
        }
        self.device.count_machines(before);
        let progress = self.device.turn();
        while let Some(completion) = self.device.done.pop() {
            match &mut self.stage {
                Stage::Format(format) => format.on_completion(completion),
                Stage::Mount(mount) => mount.on_completion(completion),
                Stage::Scan(scanning) => scanning.scan.on_completion(completion),
                Stage::Moving => {}
            }
        }
        progress
    }

    /// Moves on when a stage is over. The engine's insides when all are.
    pub(crate) fn advance(mut self) -> Result<Result<Opening, Box<Core>>, OpenError> {
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
        let segment = self.pool.take(Scan::SEGMENT_BYTES).ok_or(OpenError::NoBuffers)?;
        // The same for every mount of a store: what was logged once can always be replayed.
        let ring = usize::try_from(blocks).unwrap_or(usize::MAX);
        let slots = ring.max(OVERLAY_BLOCKS_MIN.min(ring.saturating_mul(16)));
        let replay = State {
            overlay: Overlay::new(slots, RANGES_MAX),
            // Half as much again: the log's watermarks are met before the journal is crowded.
            journal: Journal::new(slots + slots / 2),
            marks: Marks::new(tail, blocks),
            replayed: 0,
            reserved: 0,
            error: None,
        };
        let scan = Scan::new(config, tail, segment);
        Ok(Scanning { store, config, tail, scan, replay })
    }

    fn finish(self, scanning: Scanning, head: Point) -> Result<Box<Core>, OpenError> {
        let Scanning { mut store, config, tail, scan, mut replay } = scanning;
        if let Some(error) = replay.error {
            return Err(error);
        }
        claim(&mut store, &replay.overlay, &mut replay.journal);
        replay.marks.push(head);
        let segment = scan.into_segment().ok_or(OpenError::NoBuffers)?;
        let wal = Wal::new(config, tail, head, &self.pool).map_err(OpenError::LogConfig)?;
        let payload = config.group_bytes / BLOCK - wal::HEADER_BLOCKS_MAX;
        Ok(Box::new(Core::new(Parts {
            pool: self.pool,
            device: self.device,
            store,
            wal,
            overlay: replay.overlay,
            journal: replay.journal,
            marks: replay.marks,
            destage: Destage::new(segment),
            reserved: replay.reserved,
            piece_blocks: payload.min(wal::RECORD_BLOCKS_MAX) as u64,
            idle_ns: self.options.idle_ns,
            replayed: replay.replayed,
        })))
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
            Replay::Record { lsn, record, payload } => replay.record(store, lsn.0, record, payload),
            Replay::Boundary(point) => replay.marks.push(point),
        })
    }
}

impl State {
    /// Enters a record of the log as if it had just become durable.
    fn record(&mut self, store: &mut Store, lsn: u64, record: Record<'_>, payload: u64) {
        self.replayed += 1;
        if let Err(what) = self.apply(store, lsn, record, payload) {
            self.error.get_or_insert(OpenError::Record { lsn, what });
        }
    }

    fn apply(
        &mut self,
        store: &mut Store,
        lsn: u64,
        record: Record<'_>,
        payload: u64,
    ) -> Result<(), &'static str> {
        match record {
            Record::Create { volume, body } => {
                let control = Control::from_body(VolumeId(volume), body).ok_or("a strange body")?;
                // Changes nothing when the catalog has, or had, the volume already.
                store.create_volume(&control.spec()).map_err(|_| "a volume that cannot be")
            }
            Record::Delete { volume } => {
                store.delete_volume(VolumeId(volume));
                Ok(())
            }
            Record::Resize { volume, bytes } => {
                if self.is_known(store, volume) {
                    store.resize_volume(VolumeId(volume), bytes).map_err(|_| "a strange size")?;
                }
                Ok(())
            }
            Record::Write { volume, block, crcs } => {
                self.check(store, volume, block, crcs.len() as u64)?;
                for (index, &crc) in (0u64..).zip(crcs) {
                    let place = Place::Log(payload + index);
                    self.enter(volume, block + index, Version { lsn, place, crc, reserved: true });
                }
                self.log(lsn, volume, block, crcs.len() as u64, Kind::Write { position: payload });
                Ok(())
            }
            Record::Direct { volume, block, extent, crcs } => {
                let blocks = crcs.len() as u64;
                self.check(store, volume, block, blocks)?;
                store.extent(extent).ok_or("an extent outside the pool")?;
                if blocks != EXTENT_BLOCKS || !block.is_multiple_of(EXTENT_BLOCKS) {
                    return Err("a direct write of less than an extent");
                }
                for (index, &crc) in (0u64..).zip(crcs) {
                    let place = Place::Device(extent * EXTENT_BLOCKS + index);
                    self.enter(volume, block + index, Version { lsn, place, crc, reserved: false });
                }
                self.log(lsn, volume, block, blocks, Kind::Direct { extent, owned: false });
                Ok(())
            }
            Record::Zero { volume, block, blocks } => self.zero(store, lsn, volume, block, blocks),
        }
    }

    fn zero(
        &mut self,
        store: &Store,
        lsn: u64,
        volume: u32,
        block: u64,
        blocks: u64,
    ) -> Result<(), &'static str> {
        if blocks > ZERO_BLOCKS_MAX {
            self.check(store, volume, block, 0)?;
            if self.overlay.range_room() == 0 {
                return Err("more zeroed ranges than fit");
            }
            self.overlay.push_range(ZeroRange { lsn, volume, start: block, end: block + blocks });
            self.log(lsn, volume, block, blocks, Kind::ZeroRange);
            return Ok(());
        }
        self.check(store, volume, block, blocks)?;
        for index in 0..blocks {
            let version = Version { lsn, place: Place::Zero, crc: 0, reserved: false };
            self.enter(volume, block + index, version);
        }
        self.log(lsn, volume, block, blocks, Kind::Zero);
        Ok(())
    }

    fn is_known(&self, store: &Store, volume: u32) -> bool {
        store.volume(VolumeId(volume)).is_some_and(|volume| volume.is_active())
    }

    /// A record must fit the tables and, if its volume lives, the volume.
    fn check(
        &self,
        store: &Store,
        volume: u32,
        block: u64,
        blocks: u64,
    ) -> Result<(), &'static str> {
        let slots = usize::try_from(blocks).unwrap_or(usize::MAX);
        if self.overlay.room() < slots || self.journal.room() == 0 {
            return Err("more records than the overlay holds");
        }
        let volume = store.volume(VolumeId(volume)).filter(|volume| volume.is_active());
        let size = volume.map_or(u64::MAX, |volume| volume.size_bytes() / BLOCK as u64);
        if block.checked_add(blocks).is_none_or(|end| end > size) {
            return Err("blocks outside the volume");
        }
        Ok(())
    }

    fn enter(&mut self, volume: u32, block: u64, version: Version) {
        let old = self.overlay.insert(volume, block, &version);
        self.reserved -= u64::from(old.is_some_and(|old| old.reserved));
        self.reserved += u64::from(version.reserved);
    }

    fn log(&mut self, lsn: u64, volume: u32, block: u64, blocks: u64, kind: Kind) {
        self.journal.push(Entry { lsn, volume, block, blocks, kind });
    }
}

/// Takes the extents of direct writes that are still the newest version of some block, so that
/// nothing else is put there. One that the map has already (a checkpoint was under way) stays the
/// map's; one that was overwritten may belong to somebody else by now.
fn claim(store: &mut Store, overlay: &Overlay, journal: &mut Journal) {
    journal.for_each_mut(|entry| {
        let Kind::Direct { extent, .. } = entry.kind else { return };
        let newest = |block| overlay.find(entry.volume, block).map(|version| version.lsn);
        let live = (entry.block..entry.block + entry.blocks).any(|b| newest(b) == Some(entry.lsn));
        let known = store.volume(VolumeId(entry.volume)).is_some_and(|v| v.is_active());
        let Some(place) = store.extent(extent) else { return };
        let owned = live && known && store.claim(place) == ExtentState::Free;
        entry.kind = Kind::Direct { extent, owned };
    });
}
