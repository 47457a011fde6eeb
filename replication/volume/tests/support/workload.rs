//! A seeded workload of everything that hosts do, checked against the model as it goes.

use bdev::{Completion, Data, Fifo, Lba, Op, Queue, Request, Rng, Status, Tag};
use volume::{Event, NewVolume, Token, VolumeId, VolumeQueue};

use super::Rig;
use super::model::{SECTOR, VolumeModel};

/// Volumes under test: size in bytes and bytes in a logical block.
pub(crate) const VOLUMES: [(u64, u32); 3] = [(1 << 20, 4096), (512 << 10, 512), (768 << 10, 4096)];

/// Requests in flight on each volume.
const DEPTH: u32 = 8;

/// A volume with its model and what is in flight.
pub(crate) struct Target {
    pub(crate) id: VolumeId,
    pub(crate) queue: VolumeQueue,
    pub(crate) model: VolumeModel,
    block_bytes: usize,
    flights: Vec<Option<Flight>>,
}

/// A volume that is created, written once, grown and deleted.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    name: String,
    stage: Stage,
    token: Option<Token>,
    /// Disk writes that had begun when the stage was reached for sure.
    created: Option<u64>,
    delete_begun: Option<u64>,
    deleted: Option<u64>,
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
            let id = rig.create_volume(&format!("v{number}"), bytes, block_bytes);
            let model = VolumeModel::new(number, bytes);
            targets.push(Target::new(rig, id, model, block_bytes));
        }
        let (rng, label) = (Rng::new(seed).fork("workload"), label.to_owned());
        Workload { targets, guests: Vec::new(), rng, next_stamp: 1, label, tolerant: false }
    }

    /// The same volumes on another rig, with models that were reset to what is there.
    pub(crate) fn reopen(rig: &Rig, models: Vec<VolumeModel>, seed: u64, label: &str) -> Workload {
        let mut targets = Vec::new();
        for (model, (_, block_bytes)) in models.into_iter().zip(VOLUMES) {
            let name = format!("v{}", model.number);
            let id = rig.engine.borrow().volume_by_name(&name).expect("it was created").id;
            targets.push(Target::new(rig, id, model, block_bytes));
        }
        let (rng, label) = (Rng::new(seed).fork("workload"), label.to_owned());
        // Stamps of this life differ from those of every earlier one.
        let volumes = rig.engine.borrow().volumes();
        let guests = volumes.iter().filter(|volume| volume.name.starts_with("guest")).map(|left| {
            let (name, stage) = (left.name.clone(), Stage::Living(left.id, 0));
            let (token, created, delete_begun, deleted) = (None, Some(0), None, None);
            Guest { name, stage, token, created, delete_begun, deleted }
        });
        let guests = guests.collect();
        let next_stamp = 1 + (seed << 20);
        Workload { targets, guests, rng, next_stamp, label, tolerant: false }
    }

    /// Submits `count` requests and waits for all of them, or until the power fails.
    pub(crate) fn run(&mut self, rig: &mut Rig, count: u32) {
        let mut left = count;
        let mut requests = Fifo::new(1);
        loop {
            let quiet = self.targets.iter().all(|t| t.flights.iter().all(Option::is_none));
            if rig.disk.is_off() || (left == 0 && quiet) {
                return;
            }
            if left > 0 && self.rng.chance(2, 3) {
                let at = self.rng.index(self.targets.len()).unwrap();
                if let Some(request) = self.next_request(rig, at) {
                    requests.push(request).unwrap();
                    self.targets[at].queue.submit(&mut requests);
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
            let (stage, created, delete_begun, deleted) = (Stage::Creating, None, None, None);
            self.guests.push(Guest { name, stage, token, created, delete_begun, deleted });
        }
        for guest in self.guests.iter_mut().filter(|guest| guest.stage != Stage::Gone) {
            let answer = rig.events.iter().find_map(|event| match event {
                Event::Control { token, result } if Some(*token) == guest.token => Some(*result),
                _ => None,
            });
            match (guest.stage, answer) {
                (Stage::Creating, Some(result)) => {
                    (guest.stage, guest.created) = (Stage::Living(result.unwrap(), 0), Some(now));
                }
                (Stage::Deleting, Some(result)) => {
                    result.unwrap();
                    (guest.stage, guest.deleted) = (Stage::Gone, Some(now));
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
                    (guest.stage, guest.delete_begun) = (Stage::Deleting, Some(now));
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
        let by = |at: Option<u64>| at.is_some_and(|at| at <= cut);
        for guest in guests {
            let there = rig.engine.borrow().volume_by_name(&guest.name).is_some();
            let must = by(guest.created) && !by(guest.delete_begun);
            if (must && !there) || (by(guest.deleted) && there) {
                return Err(format!("there: {there}, cut {cut}, {guest:?}"));
            }
        }
        Ok(())
    }

    fn next_request(&mut self, rig: &Rig, at: usize) -> Option<Request> {
        let target = &mut self.targets[at];
        let slot = target.flights.iter().position(Option::is_none)?;
        let tag = Tag(u32::try_from(slot).unwrap());
        let rng = &mut self.rng;
        let unit = target.block_bytes / SECTOR;
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
            target.queue.poll(&mut completions);
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
        models: &mut [VolumeModel],
        cut: u64,
    ) -> Result<(), String> {
        for (model, (bytes, block_bytes)) in models.iter_mut().zip(VOLUMES) {
            let name = format!("v{}", model.number);
            let id = rig.engine.borrow().volume_by_name(&name).ok_or(format!("{name} is gone"))?.id;
            let mut queue = rig.queue(id, 4);
            let mut read = Vec::new();
            let step = (128 << 10) / block_bytes;
            let blocks = u32::try_from(bytes).unwrap() / block_bytes;
            for lba in (0..blocks).step_by(step as usize) {
                let part = rig.read(&mut queue, u64::from(lba), step.min(blocks - lba));
                read.extend(part.map_err(|status| format!("{name} lba {lba}: {status:?}"))?);
            }
            let seen = model.check_after_cut(&read, cut)?;
            model.reset(&seen);
        }
        Ok(())
    }

    pub(crate) fn models(&self) -> Vec<VolumeModel> {
        self.targets.iter().map(|target| target.model.clone()).collect()
    }
}

impl Target {
    fn new(rig: &Rig, id: VolumeId, model: VolumeModel, block_bytes: u32) -> Target {
        let queue = rig.queue(id, DEPTH);
        let flights = vec![None; DEPTH as usize];
        Target { id, queue, model, block_bytes: block_bytes as usize, flights }
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
                        self.model.number,
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
