//! A disk that loses what was not flushed, and a store beside a model of its map.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bdev::{
    Completion, Data, Fifo, Info, Op, OpSet, Pool, PoolConfig, Queue, Request, Rng, Status,
};
use store::{
    CheckOptions, CheckReport, Edit, Event, Extent, Format, FormatOptions, Formatted, LeafEntry,
    LogTail, Lookup, Machine, Mount, MountError, Mounted, Options, Store, Unmap, VolumeId,
    VolumeSpec, check, turn,
};

use crate::forest::Plan;

pub(crate) const UUID: [u8; 16] = *b"0123456789abcdef";
pub(crate) const LOG_BYTES: u64 = 1 << 20;

/// The first seed and how many, from the environment or by default.
pub(crate) fn fuzz(rounds: u64) -> (u64, u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse().ok());
    (number("FUZZ_SEED").unwrap_or(1), number("FUZZ_ROUNDS").unwrap_or(rounds))
}

/// A disk in memory with a volatile cache and a moment at which its power fails.
#[derive(Clone)]
pub(crate) struct Disk(Rc<RefCell<Inner>>);

struct Inner {
    info: Info,
    /// What survives a power failure.
    durable: Vec<u8>,
    /// What reads see.
    view: Vec<u8>,
    /// Writes since the last flush: their number, where, what.
    unflushed: Vec<(u64, usize, Vec<u8>)>,
    submitted: u64,
    writes_left: Option<u64>,
    dead: bool,
    /// So many requests from now on fail.
    failing: u32,
    /// Finished requests that were not polled yet, with the number of the write.
    done: Vec<(u64, Completion)>,
    /// How many completions one poll hands out.
    per_poll: usize,
}

impl Disk {
    pub(crate) fn new(block_size: u32, bytes: usize) -> Disk {
        Disk::from_image(block_size, vec![0; bytes])
    }

    pub(crate) fn from_image(block_size: u32, image: Vec<u8>) -> Disk {
        let mut info = Info::new(block_size, image.len() as u64 / u64::from(block_size));
        info.volatile_cache = true;
        info.ops = OpSet::of(&[Op::Read, Op::Write, Op::Flush]);
        Disk(Rc::new(RefCell::new(Inner {
            info,
            view: image.clone(),
            durable: image,
            unflushed: Vec::new(),
            submitted: 0,
            writes_left: None,
            dead: false,
            failing: 0,
            done: Vec::new(),
            per_poll: usize::MAX,
        })))
    }

    pub(crate) fn info(&self) -> Info {
        self.0.borrow().info.clone()
    }

    pub(crate) fn kill_after(&self, writes: u64) {
        self.0.borrow_mut().writes_left = Some(writes);
    }

    pub(crate) fn fail(&self, requests: u32) {
        self.0.borrow_mut().failing = requests;
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.0.borrow().dead
    }

    pub(crate) fn view(&self) -> Vec<u8> {
        self.0.borrow().view.clone()
    }

    pub(crate) fn flip(&self, byte: usize) {
        let mut inner = self.0.borrow_mut();
        inner.view[byte] ^= 0x40;
        inner.durable[byte] ^= 0x40;
    }

    /// What is left when the power fails and nothing unflushed had been written yet.
    pub(crate) fn cut(&self) -> Vec<u8> {
        self.0.borrow().durable.clone()
    }

    /// What is left after the power failed: unflushed writes in part, torn at 512 bytes.
    pub(crate) fn crashed(&self, rng: &mut Rng) -> Disk {
        let inner = self.0.borrow();
        let mut image = inner.durable.clone();
        for (_, at, bytes) in &inner.unflushed {
            let keep = match rng.below(4) {
                0 => 0,
                1 => bytes.len(),
                _ => usize::try_from(rng.between(0, bytes.len() as u64 / 512)).unwrap() * 512,
            };
            // Torn from either end.
            let (from, to) =
                if rng.chance(1, 2) { (0, keep) } else { (bytes.len() - keep, bytes.len()) };
            image[at + from..at + to].copy_from_slice(&bytes[from..to]);
            // The sector that was being written when the power failed holds neither.
            if rng.chance(1, 2) && from < to {
                let sector = if from == 0 { to - 512 } else { from };
                image[at + sector..at + sector + 512].fill(0xee);
            }
        }
        Disk::from_image(inner.info.block_size, image)
    }
}

impl Inner {
    fn run(&mut self, request: &mut Request) -> Status {
        if let Err(status) = self.info.check(request) {
            return status;
        }
        if self.failing > 0 {
            self.failing -= 1;
            return Status::Io;
        }
        let block = self.info.block_size as usize;
        let at = usize::try_from(request.lba.0).unwrap() * block;
        let len = request.blocks as usize * block;
        match &mut request.data {
            Data::Into(buf) => buf.bytes_mut()[..len].copy_from_slice(&self.view[at..at + len]),
            Data::From(buf) => {
                let bytes = buf.bytes()[..len].to_vec();
                self.view[at..at + len].copy_from_slice(&bytes);
                self.unflushed.push((self.submitted, at, bytes));
                if let Some(left) = &mut self.writes_left {
                    self.dead = *left == 0;
                    *left = left.saturating_sub(1);
                }
            }
            Data::None => {
                // A flush covers what was seen to complete before it, and nothing else.
                let open: Vec<u64> = self.done.iter().map(|(number, _)| *number).collect();
                let (later, flushed): (Vec<_>, Vec<_>) =
                    self.unflushed.drain(..).partition(|(number, ..)| open.contains(number));
                self.unflushed = later;
                for (_, at, bytes) in flushed {
                    self.durable[at..at + bytes.len()].copy_from_slice(&bytes);
                }
            }
        }
        Status::Ok
    }
}

impl Queue for Disk {
    fn submit(&mut self, requests: &mut Fifo<Request>) {
        let mut inner = self.0.borrow_mut();
        while let Some(mut request) = requests.pop() {
            inner.submitted += 1;
            let status = if inner.dead { Status::Gone } else { inner.run(&mut request) };
            let status = if inner.dead { Status::Gone } else { status };
            let number = inner.submitted;
            inner.done.push((number, request.complete(status)));
        }
    }

    fn kick(&mut self) {}

    fn poll(&mut self, completions: &mut Fifo<Completion>) {
        let mut inner = self.0.borrow_mut();
        for _ in 0..inner.per_poll {
            if completions.is_full() {
                return;
            }
            // The last first: no order is promised.
            let Some((_, completion)) = inner.done.pop() else { return };
            assert!(completions.push(completion).is_ok());
        }
    }

    fn in_flight(&self) -> u32 {
        u32::try_from(self.0.borrow().done.len()).unwrap()
    }
}

pub(crate) fn pool() -> Pool {
    Pool::new(&PoolConfig::for_bytes(8 << 20)).unwrap()
}

pub(crate) fn options(log_bytes: u64) -> FormatOptions {
    FormatOptions { uuid: UUID, log_bytes: Some(log_bytes), overwrite: false }
}

pub(crate) fn format(
    disk: &Disk,
    pool: &Pool,
    options: FormatOptions,
) -> Result<Formatted, store::FormatError> {
    let mut machine = Format::new(&disk.info(), &options)?;
    loop {
        turn(&mut machine as &mut dyn Machine, &mut disk.clone(), pool);
        if let Some(result) = machine.take_result() {
            return result;
        }
    }
}

pub(crate) fn mount(disk: &Disk, pool: &Pool, frames: u32) -> Result<Mounted, MountError> {
    let mut machine = Mount::new(&disk.info(), &Options { frames });
    loop {
        turn(&mut machine, &mut disk.clone(), pool);
        if let Some(result) = machine.take_result() {
            return result;
        }
    }
}

pub(crate) fn check_disk(disk: &Disk, pool: &Pool, data: bool) -> CheckReport {
    check(&mut disk.clone(), &disk.info(), pool, &CheckOptions { data })
}

/// What one volume should be: its size and what is mapped where.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ModelVolume {
    pub(crate) size: u64,
    /// False for snapshots.
    pub(crate) writable: bool,
    pub(crate) map: BTreeMap<u64, (Extent, u16, [u32; 16])>,
}

pub(crate) type Model = BTreeMap<u32, ModelVolume>;

/// A store, the disk below and the model beside it.
pub(crate) struct Rig {
    pub(crate) disk: Disk,
    pub(crate) store: Store,
    requests: Fifo<Request>,
    completions: Fifo<Completion>,
    pub(crate) pool: Pool,
    pub(crate) model: Model,
    pub(crate) plans: Vec<Plan>,
    /// The model at each checkpoint that was begun, by its tail's LSN.
    pub(crate) checkpoints: BTreeMap<u64, Model>,
    pub(crate) durable_lsn: u64,
    pub(crate) next_lsn: u64,
    pub(crate) frames: u32,
    /// The test damaged pages: events about them are no surprise.
    pub(crate) is_damaged: bool,
}

impl Rig {
    pub(crate) fn new(block_size: u32, bytes: usize, frames: u32) -> Rig {
        let (disk, pool) = (Disk::new(block_size, bytes), pool());
        format(&disk, &pool, options(LOG_BYTES)).unwrap();
        Rig::mounted(disk, pool, frames).unwrap()
    }

    pub(crate) fn mounted(disk: Disk, pool: Pool, frames: u32) -> Result<Rig, MountError> {
        let mounted = mount(&disk, &pool, frames)?;
        let durable_lsn = mounted.tail.lsn;
        let checkpoints = [(durable_lsn, Model::new())].into();
        let store = mounted.store;
        let next_lsn = durable_lsn + 1;
        Ok(Rig {
            disk,
            pool,
            store,
            requests: Fifo::new(32),
            completions: Fifo::new(32),
            model: Model::new(),
            plans: Vec::new(),
            checkpoints,
            durable_lsn,
            next_lsn,
            frames,
            is_damaged: false,
        })
    }

    /// One turn of store and disk, in which few requests complete; events are taken note of.
    pub(crate) fn turn(&mut self) {
        let (requests, completions) = (&mut self.requests, &mut self.completions);
        self.store.poll_requests(requests, &self.pool);
        self.disk.submit(requests);
        self.disk.0.borrow_mut().per_poll = 2;
        self.disk.poll(completions);
        self.disk.0.borrow_mut().per_poll = usize::MAX;
        while let Some(completion) = completions.pop() {
            self.store.on_completion(completion);
        }
        while let Some(event) = self.store.poll_event() {
            match event {
                Event::CheckpointDone(tail) => {
                    assert!(!self.disk.is_dead(), "nothing is durable without power");
                    self.durable_lsn = tail.lsn;
                }
                Event::CheckpointFailed(_) => assert!(self.disk.is_dead()),
                Event::Damaged(_) if self.is_damaged => {}
                other => assert!(self.disk.is_dead(), "{other:?}"),
            }
        }
    }

    pub(crate) fn begin(&mut self) {
        let tail = LogTail { position: 7, lsn: self.next_lsn, chain: 9 };
        assert!(self.store.begin_checkpoint(tail));
        self.carry_out_plans();
        self.checkpoints.insert(self.next_lsn, self.model.clone());
        self.next_lsn += 1;
    }

    pub(crate) fn checkpoint(&mut self) {
        self.begin();
        while self.store.is_checkpointing() && !self.disk.is_dead() {
            self.turn();
        }
    }

    pub(crate) fn create(&mut self, size: u64) -> VolumeId {
        let id = self.store.next_volume_id();
        let mut uuid = UUID;
        uuid[..4].copy_from_slice(&id.0.to_le_bytes());
        let name = format!("volume-{id}");
        let spec = VolumeSpec { id, uuid, name: &name, size, block_bytes: 4096 };
        self.store.create_volume(&spec).unwrap();
        self.model.insert(id.0, ModelVolume { size, writable: true, map: BTreeMap::new() });
        id
    }

    /// Writes a block of an extent, mapping it when it was not. False when there is no space.
    pub(crate) fn write(&mut self, volume: VolumeId, index: u64, block: usize, crc: u32) -> bool {
        loop {
            if self.disk.is_dead() {
                return true;
            }
            let before = match self.lookup(volume, index) {
                Lookup::Entry(entry) => entry,
                _ => LeafEntry::default(),
            };
            // What is shared is copied; what is missing is allocated.
            let owned = before.extent().filter(|_| self.store.is_owned(volume, index, &before));
            let extent = match owned.or_else(|| self.store.allocate()) {
                Some(extent) => extent,
                None => return false,
            };
            let tentative = owned.is_none();
            let birth = self.store.birth(volume);
            match self.store.edit(volume, index) {
                Edit::Entry(entry) => {
                    if tentative {
                        entry.set_extent(extent, birth);
                        self.store.commit(extent);
                    }
                    let Edit::Entry(entry) = self.store.edit(volume, index) else {
                        panic!("it was given a moment ago");
                    };
                    entry.set_block(block, crc);
                    let map = &mut self.model.get_mut(&volume.0).unwrap().map;
                    let slot = map.entry(index).or_insert((extent, 0, [0; 16]));
                    slot.0 = extent;
                    slot.1 |= 1 << block;
                    slot.2[block] = crc;
                    return true;
                }
                Edit::Pending => self.turn(),
                Edit::Busy => self.checkpoint(),
                Edit::Damaged(page) => panic!("page {page} is damaged"),
            }
            if tentative {
                self.store.abandon(extent);
            }
        }
    }

    pub(crate) fn lookup(&mut self, volume: VolumeId, index: u64) -> Lookup {
        loop {
            match self.store.lookup(volume, index) {
                Lookup::Pending if !self.disk.is_dead() => {
                    let before = self.store.loads();
                    while self.store.loads() == before && !self.disk.is_dead() {
                        self.turn();
                    }
                }
                other => return other,
            }
        }
    }

    pub(crate) fn unmap(&mut self, volume: VolumeId, from: u64, to: u64) {
        let mut range = from..to;
        while !self.disk.is_dead() {
            match self.store.unmap(volume, &mut range) {
                Unmap::Done => break,
                Unmap::More => {}
                Unmap::Pending => self.turn(),
                Unmap::Busy => {
                    // What is unmapped so far is part of that checkpoint.
                    let done = from..range.start;
                    self.forget(volume, done);
                    self.checkpoint();
                }
                Unmap::Damaged(page) => panic!("page {page} is damaged"),
            }
        }
        if !self.disk.is_dead() {
            self.forget(volume, from..to);
        }
    }

    fn forget(&mut self, volume: VolumeId, range: std::ops::Range<u64>) {
        let map = &mut self.model.get_mut(&volume.0).unwrap().map;
        map.retain(|index, _| !range.contains(index));
    }

    pub(crate) fn delete(&mut self, volume: VolumeId) {
        self.store.delete_volume(volume);
        self.model.remove(&volume.0);
    }

    pub(crate) fn reclaim(&mut self) {
        while !self.disk.is_dead() {
            match self.store.reclaim() {
                Unmap::Done => break,
                Unmap::More => {}
                Unmap::Pending => self.turn(),
                Unmap::Busy => self.checkpoint(),
                Unmap::Damaged(page) => panic!("page {page} is damaged"),
            }
        }
    }

    /// Everything in memory is gone; the buffers and what was known of the checkpoints stay.
    pub(crate) fn power_off(self) -> (Pool, BTreeMap<u64, Model>) {
        let Rig { disk, pool, store, checkpoints, requests, completions, .. } = self;
        drop((disk, store, requests, completions)); // Before the pool whose buffers they may hold.
        (pool, checkpoints)
    }

    /// Mounts again, without a checkpoint: what came after the last one is lost.
    pub(crate) fn remount(self) -> Result<Rig, MountError> {
        let (disk, durable_lsn, frames) = (self.disk.clone(), self.durable_lsn, self.frames);
        let (pool, checkpoints) = self.power_off();
        let mut rig = Rig::mounted(disk, pool, frames)?;
        assert_eq!(rig.durable_lsn, durable_lsn);
        rig.model = checkpoints[&durable_lsn].clone();
        rig.checkpoints.insert(durable_lsn, rig.model.clone());
        Ok(rig)
    }

    /// Compares the whole map with the model.
    pub(crate) fn verify(&mut self) {
        let model = self.model.clone();
        let active = self.store.nodes().filter(|v| v.is_active()).map(|v| v.id.get());
        assert_eq!(active.collect::<Vec<_>>(), sorted_like(&self.store, &model));
        for (&id, volume) in &model {
            assert_eq!(self.store.volume(VolumeId(id)).unwrap().size_bytes(), volume.size);
            for (&index, &(extent, written, crcs)) in &volume.map {
                let Lookup::Entry(entry) = self.lookup(VolumeId(id), index) else {
                    panic!("volume {id} extent {index} is lost");
                };
                assert_eq!((entry.extent(), entry.written()), (Some(extent), written));
                for block in (0..16).filter(|block| written >> block & 1 == 1) {
                    assert_eq!(entry.block_crc(block), Some(crcs[block]));
                }
                for gap in [index + 1, index + 48, index + 48 * 252] {
                    if !volume.map.contains_key(&gap) {
                        assert_eq!(self.lookup(VolumeId(id), gap), Lookup::Unmapped);
                    }
                }
            }
        }
    }
}

fn sorted_like(store: &Store, model: &Model) -> Vec<u32> {
    let active = store.nodes().filter(|v| v.is_active()).map(|v| v.id.get());
    let found: Vec<u32> = active.filter(|id| model.contains_key(id)).collect();
    assert_eq!(found.len(), model.len(), "every volume of the model is there");
    found
}
