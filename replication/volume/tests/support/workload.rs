//! A seeded workload of everything that hosts do, checked against the model as it goes.

use bdev::{Completion, Data, Fifo, Lba, Op, Queue, Request, Rng, Status, Tag};
use volume::{Event, NewVolume, Token, VolumeId, VolumeQueue};

use super::Rig;
use super::marks::Marks;
use super::model::{Life, SECTOR, VolumeModel};

/// Volumes under test: size in bytes and bytes in a logical block.
pub(crate) const VOLUMES: [(u64, u32); 3] = [(1 << 20, 4096), (512 << 10, 512), (768 << 10, 4096)];

/// Requests in flight on each volume.
const DEPTH: u32 = 8;

/// A volume with its model and what is in flight.
pub(crate) struct Target {
    /// None while it is created or deleted.
    pub(crate) open: Option<(VolumeId, VolumeQueue)>,
    pub(crate) model: VolumeModel,
    /// Nothing is submitted: it is restored, or about to go.
    pub(crate) rests: bool,
    flights: Vec<Option<Flight>>,
}

/// A volume that is created, written once, grown and deleted.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    name: String,
    stage: Stage,
    token: Option<Token>,
    life: Life,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Creating,
    Living(VolumeId, u32),
    Deleting,
    Gone,
}

#[derive(Clone, Debug)]
enum Flight {
    Write(usize),
    /// First sector, and for each the index of the oldest version that may be seen.
    Read(usize, Vec<usize>),
    Other,
}

pub(crate) struct Workload {
    pub(crate) targets: Vec<Target>,
    /// Volumes that come and go beside the others.
    guests: Vec<Guest>,
    /// Snapshots, and what is made of them.
    pub(crate) marks: Marks,
    pub(crate) rng: Rng,
    next_stamp: u64,
    label: String,
    /// The disk is hostile: requests may fail in any way, and volumes do not come and go.
    pub(crate) tolerant: bool,
}

impl Workload {
    /// Creates the volumes.
    pub(crate) fn create(rig: &mut Rig, seed: u64, label: &str) -> Workload {
        let mut targets = Vec::new();
        for (number, (bytes, block_bytes)) in (1u64..).zip(VOLUMES) {
            let model = VolumeModel::new(number, bytes, block_bytes);
            rig.create_volume(&model.name, bytes, block_bytes);
            targets.push(Target::new(rig, model));
        }
        let (rng, label) = (Rng::new(seed).fork("workload"), label.to_owned());
        let (guests, marks) = (Vec::new(), Marks::default());
        Workload { targets, guests, marks, rng, next_stamp: 1, label, tolerant: false }
    }

    /// The same volumes on another rig, with models that were reset to what is there.
    pub(crate) fn reopen(
        rig: &Rig,
        models: Vec<VolumeModel>,
        marks: Marks,
        seed: u64,
        label: &str,
    ) -> Workload {
        let targets = models.into_iter().map(|model| Target::new(rig, model)).collect();
        let (rng, label) = (Rng::new(seed).fork("workload"), label.to_owned());
        // Stamps of this life differ from those of every earlier one.
        let volumes = rig.engine.borrow().volumes();
        let guests = volumes.iter().filter(|volume| volume.name.starts_with("guest")).map(|left| {
            let (name, stage) = (left.name.clone(), Stage::Living(left.id, 0));
            Guest { name, stage, token: None, life: Life::lasting() }
        });
        let guests = guests.collect();
        let next_stamp = 1 + (seed << 20);
        Workload { targets, guests, marks, rng, next_stamp, label, tolerant: false }
    }

    /// Submits `count` requests and waits for all of them, or until the power fails.
    pub(crate) fn run(&mut self, rig: &mut Rig, count: u32) {
        let mut left = count;
        let mut requests = Fifo::new(1);
        let since = rig.disk.now();
        loop {
            let took = rig.disk.now().saturating_since(since);
            assert!(took.as_secs() < 60, "{}: somebody waits for ever", self.label);
            let quiet = self.targets.iter().all(Target::is_quiet);
            if rig.disk.is_off() || (left == 0 && quiet) {
                return;
            }
            if left > 0 && self.rng.chance(2, 3) {
                let at = self.rng.index(self.targets.len()).unwrap();
                if let Some(request) = self.next_request(rig, at) {
                    requests.push(request).unwrap();
                    let (_, queue) = self.targets[at].open.as_mut().expect("it gave a request");
                    queue.submit(&mut requests);
                    assert!(requests.is_empty(), "{}: the queue has room", self.label);
                    left -= 1;
                }
            }
            if left == 0 || self.rng.chance(1, 2) {
                rig.turn();
            }
            if left > 0 && !self.tolerant && self.rng.chance(1, 12) {
                self.step_guests(rig);
            }
            if left > 0 && !self.tolerant && self.rng.chance(1, 6) {
                let Workload { targets, marks, rng, .. } = self;
                marks.step(rig, targets, rng);
            }
            self.collect(rig);
        }
    }

    /// Moves the volumes that come and go on.
    fn step_guests(&mut self, rig: &mut Rig) {
        let now = rig.disk.boundaries();
        if self.guests.iter().all(|guest| guest.stage == Stage::Gone) && self.rng.chance(1, 2) {
            let stamp = self.next_stamp;
            self.next_stamp += 1;
            let name = format!("guest-{stamp}");
            let uuid = [9; 16]; // The same for each: the one before must be forgotten.
            let new = NewVolume { uuid, name: &name, size: 256 << 10, block_bytes: 4096 };
            let token = Some(rig.engine.borrow_mut().create_volume(&new).unwrap());
            self.guests.push(Guest { name, stage: Stage::Creating, token, life: Life::begin(now) });
        }
        for guest in self.guests.iter_mut().filter(|guest| guest.stage != Stage::Gone) {
            let answer = rig.events.iter().find_map(|event| match event {
                Event::Control { token, result } if Some(*token) == guest.token => Some(*result),
                _ => None,
            });
            match (guest.stage, answer) {
                (Stage::Creating, Some(result)) => {
                    guest.stage = Stage::Living(result.unwrap(), 0);
                    guest.life.created = Some(now);
                }
                (Stage::Deleting, Some(result)) => {
                    result.unwrap();
                    (guest.stage, guest.life.deleted) = (Stage::Gone, Some(now));
                }
                (Stage::Living(id, age), _) if age < 6 => {
                    // Writes that nobody waits for: the queue closes over them.
                    let mut queue = rig.queue(id, 4);
                    let mut requests = Fifo::new(1);
                    let blocks = [1, 16, 32][age as usize % 3];
                    let Some(buf) = rig.pool.take(blocks as usize * 4096) else { continue };
                    let write = Request::write(Tag(0), Lba(16), blocks, buf.freeze());
                    requests.push(write).unwrap();
                    queue.submit(&mut requests);
                    guest.stage = Stage::Living(id, age + 1);
                }
                (Stage::Living(id, _), _) => {
                    let mut engine = rig.engine.borrow_mut();
                    guest.token = Some(engine.delete_volume(id).unwrap());
                    (guest.stage, guest.life.delete_begun) = (Stage::Deleting, Some(now));
                }
                (Stage::Creating | Stage::Deleting | Stage::Gone, _) => {}
            }
        }
    }

    pub(crate) fn guests(&self) -> Vec<Guest> {
        self.guests.clone()
    }

    /// After a power cut before disk write `cut`, guests are there or not as they must be.
    pub(crate) fn verify_guests(rig: &Rig, guests: &[Guest], cut: u64) -> Result<(), String> {
        for guest in guests {
            let there = rig.engine.borrow().volume_by_name(&guest.name).is_some();
            guest.life.judge(there, cut).map_err(|what| format!("{}: {what}", guest.name))?;
        }
        Ok(())
    }

    fn next_request(&mut self, rig: &Rig, at: usize) -> Option<Request> {
        let target = &mut self.targets[at];
        if target.open.is_none() || target.rests {
            return None;
        }
        let slot = target.flights.iter().position(Option::is_none)?;
        let tag = Tag(u32::try_from(slot).unwrap());
        let rng = &mut self.rng;
        let unit = target.model.block_bytes as usize / SECTOR;
        let (start, end) = pick_range(rng, target.model.sectors.len(), unit);
        let lba = Lba((start / unit) as u64);
        let blocks = u32::try_from((end - start) / unit).unwrap();
        let now = rig.disk.boundaries();
        let kind = rng.below(100);
        if kind < 3 {
            target.flights[slot] = Some(Flight::Other);
            return Some(Request::flush(tag));
        }
        if kind < 20 {
            let buf = rig.pool.take((end - start) * SECTOR)?;
            let base = (start..end).map(|s| target.model.base(s, now)).collect();
            target.flights[slot] = Some(Flight::Read(start, base));
            return Some(Request::read(tag, lba, blocks, buf));
        }
        if target.model.busy(start, end) {
            return None; // Writes in flight to the same sector have no order.
        }
        if kind < 32 {
            let op = if kind < 26 { Op::WriteZeroes } else { Op::Deallocate };
            let (start, end) = match op {
                Op::Deallocate => (start.next_multiple_of(8), end / 8 * 8),
                _ => (start, end),
            };
            let write = target.model.begin(start, end.max(start), 0, now);
            target.flights[slot] = Some(Flight::Write(write));
            return Some(Request::range(tag, op, lba, blocks));
        }
        let mut buf = rig.pool.take((end - start) * SECTOR)?;
        let stamp = self.next_stamp;
        self.next_stamp += 1;
        for (sector, bytes) in (start..end).zip(buf.bytes_mut().chunks_exact_mut(SECTOR)) {
            bytes.copy_from_slice(&target.model.content(sector, stamp));
        }
        let write = target.model.begin(start, end, stamp, now);
        target.flights[slot] = Some(Flight::Write(write));
        Some(Request::write(tag, lba, blocks, buf.freeze()))
    }

    fn collect(&mut self, rig: &Rig) {
        let mut completions = Fifo::new(16);
        for target in &mut self.targets {
            let Some((_, queue)) = &mut target.open else { continue };
            queue.poll(&mut completions);
            while let Some(done) = completions.pop() {
                let now = rig.disk.boundaries();
                target.on_completion(done, now, &self.label, self.tolerant);
            }
        }
    }

    /// Reads everything and checks it against what a power cut before disk write `cut` allows.
    /// The models then know what is there.
    pub(crate) fn verify(
        rig: &mut Rig,
        models: &mut Vec<VolumeModel>,
        cut: u64,
    ) -> Result<(), String> {
        let known =
            |name: &str| name.starts_with("guest") || models.iter().any(|model| model.name == name);
        if let Some(stranger) = rig.engine.borrow().volumes().iter().find(|v| !known(&v.name)) {
            return Err(format!("volume {} was never made", stranger.name));
        }
        let mut gone = Vec::new();
        for model in models.iter_mut() {
            let name = model.name.clone();
            let volume = rig.engine.borrow().volume_by_name(&name);
            let there = volume.is_some();
            model
                .life
                .judge(there, cut)
                .map_err(|what| format!("{name} is gone, or not: {what}"))?;
            let Some(volume) = volume else {
                gone.push(name);
                continue;
            };
            let read = read_all(rig, volume.id, model).map_err(|what| format!("{name} {what}"))?;
            let seen = model.check_after_cut(&read, cut)?;
            model.reset(&seen);
        }
        models.retain(|model| !gone.contains(&model.name));
        Ok(())
    }

    pub(crate) fn models(&self) -> Vec<VolumeModel> {
        self.targets.iter().map(|target| target.model.clone()).collect()
    }
}

/// All of a volume, or of a snapshot of it.
pub(crate) fn read_all(
    rig: &mut Rig,
    id: VolumeId,
    model: &VolumeModel,
) -> Result<Vec<u8>, String> {
    let mut queue = rig.queue(id, 4);
    let mut read = Vec::new();
    let step = (128 << 10) / model.block_bytes;
    let blocks = u32::try_from(model.sectors.len() * SECTOR).unwrap() / model.block_bytes;
    for lba in (0..blocks).step_by(step as usize) {
        let part = rig.read(&mut queue, u64::from(lba), step.min(blocks - lba));
        read.extend(part.map_err(|status| format!("lba {lba}: {status:?}"))?);
    }
    Ok(read)
}

impl Target {
    /// A volume that is there.
    fn new(rig: &Rig, model: VolumeModel) -> Target {
        let mut target = Target::absent(model);
        let id = rig.engine.borrow().volume_by_name(&target.model.name).expect("it is there").id;
        target.open(rig, id);
        target
    }

    /// A volume that is about to be created.
    pub(crate) fn absent(model: VolumeModel) -> Target {
        Target { open: None, model, rests: false, flights: vec![None; DEPTH as usize] }
    }

    pub(crate) fn open(&mut self, rig: &Rig, id: VolumeId) {
        self.open = Some((id, rig.queue(id, DEPTH)));
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.flights.iter().all(Option::is_none)
    }

    fn on_completion(&mut self, done: Completion, now: u64, label: &str, tolerant: bool) {
        let flight = self.flights[done.tag.0 as usize].take().expect("in flight");
        let refused = done.status == Status::NoSpace || (tolerant && !done.status.is_ok());
        let fine = done.status.is_ok() || refused;
        assert!(fine, "{label}: {flight:?} ended with {:?}", done.status);
        match flight {
            Flight::Write(write) if refused => self.model.refuse(write),
            Flight::Write(write) => self.model.acknowledge(write, now),
            Flight::Other => {}
            Flight::Read(..) if refused => {}
            Flight::Read(start, base) => {
                let Data::Into(buf) = done.data else { panic!("a read gives its buffer back") };
                for (index, base) in base.into_iter().enumerate() {
                    let bytes = &buf.bytes()[index * SECTOR..(index + 1) * SECTOR];
                    let sector = start + index;
                    let stamp = self.model.stamp_of(sector, bytes);
                    let allowed = &self.model.sectors[sector][base..];
                    assert!(
                        allowed.iter().any(|version| Some(version.stamp) == stamp),
                        "{label}: volume {} sector {sector}: read {stamp:?}, allowed {allowed:?}",
                        self.model.name,
                    );
                }
            }
        }
    }
}

/// A range of sectors in whole logical blocks: mostly small, some large, some whole extents.
fn pick_range(rng: &mut Rng, sectors: usize, unit: usize) -> (usize, usize) {
    let units = sectors / unit;
    let extent = 128 / unit;
    let (start, len) = match rng.below(10) {
        0..6 => (rng.index(units).unwrap(), 1 + rng.index(4).unwrap()),
        6..8 => (rng.index(units).unwrap(), 1 + rng.index(extent + 3).unwrap()),
        8 => (rng.index(units).unwrap(), 1 + rng.index(3 * extent).unwrap()),
        _ => {
            let start = rng.index(units / extent).unwrap() * extent;
            (start, extent * (1 + rng.index(3).unwrap()))
        }
    };
    let end = (start + len).min(units);
    (start * unit, end * unit)
}
