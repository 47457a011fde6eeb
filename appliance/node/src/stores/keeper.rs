//! What hosts have reserved, on the device: a hidden volume of the store.
//!
//! Block `n` of it is the reservation table of volume `n`, as crate `reservation` lays it out. It
//! is
//! a volume like any other, so a table is durable when its write is answered, is checked when it is
//! read, and survives whatever the engine survives. It is thin, and made when the first table is
//! to be kept. Ids are never used twice, so what a crash leaves of a deleted volume is never
//! taken for another's.

use std::cell::RefCell;
use std::rc::Rc;

use bdev::{Completion, Data, Fifo, Flags, Lba, Op, Pool, Queue, Request, Slots, Status, Tag};
use reservation::{IMAGE_LEN, Table};
use volume::{ControlError, Engine, NewVolume, Token, VolumeQueue};

use crate::command::VolumeId;
use crate::limits::KEEPS_MAX;

/// The name of the hidden volume: nobody else can choose it, names have no colon.
pub(crate) const KEEPER_NAME: &str = "holdfast:reservations";

/// A block for every id there can be; nothing is taken for it.
const KEEPER_BYTES: u64 = (1 << 32) * IMAGE_LEN as u64;

/// The tables of one store.
pub(crate) struct Keeper {
    engine: Rc<RefCell<Engine>>,
    pool: Rc<Pool>,
    /// To the hidden volume, once it is there.
    queue: Option<VolumeQueue>,
    /// It is being made.
    creating: Option<Token>,
    jobs: Slots<Job>,
    requests: Fifo<Request>,
    done: Fifo<Completion>,
}

struct Job {
    volume: VolumeId,
    uuid: [u8; 16],
    stage: Stage,
}

enum Stage {
    /// Its request waits for the hidden volume.
    Waiting(Request),
    /// Its request is under way; `true` when somebody asks for the outcome.
    Asked(bool),
    Over(Result<Option<Box<Table>>, Status>),
}

impl Keeper {
    pub(crate) fn new(engine: &Rc<RefCell<Engine>>, pool: &Rc<Pool>) -> Keeper {
        Keeper {
            engine: Rc::clone(engine),
            pool: Rc::clone(pool),
            queue: None,
            creating: None,
            jobs: Slots::new(KEEPS_MAX),
            requests: Fifo::new(KEEPS_MAX),
            done: Fifo::new(KEEPS_MAX),
        }
    }

    /// The engine is ready: opens the hidden volume if there is one.
    pub(crate) fn open(&mut self) {
        let known = self.engine.borrow().volume_by_name(KEEPER_NAME);
        if let Some(known) = known {
            let depth = u32::try_from(KEEPS_MAX).expect("a few");
            self.queue = VolumeQueue::open(&self.engine, known.id, depth).ok();
        }
    }

    /// Begins to read the table of a volume. False: not now.
    pub(crate) fn begin_read(&mut self, volume: VolumeId, uuid: [u8; 16]) -> bool {
        if self.jobs.is_full() || self.job_of(volume).is_some() {
            return false;
        }
        let stage = if self.queue.is_some() {
            let Some(buf) = self.pool.take(IMAGE_LEN) else { return false };
            Stage::Waiting(Request::read(Tag(0), Lba(u64::from(volume.0)), 1, buf))
        } else {
            Stage::Over(Ok(None))
        };
        let inserted = self.jobs.insert(Job { volume, uuid, stage });
        assert!(inserted.is_ok(), "room was checked");
        true
    }

    /// Begins to write the table of a volume. False: not now.
    pub(crate) fn begin_write(&mut self, volume: VolumeId, uuid: [u8; 16], table: &Table) -> bool {
        if self.jobs.is_full() || self.job_of(volume).is_some() {
            return false;
        }
        let Some(mut buf) = self.pool.take(IMAGE_LEN) else { return false };
        table.encode(uuid, buf.bytes_mut());
        let request = Request::write(Tag(0), Lba(u64::from(volume.0)), 1, buf.freeze());
        let inserted = self.jobs.insert(Job { volume, uuid, stage: Stage::Waiting(request) });
        assert!(inserted.is_ok(), "room was checked");
        true
    }

    /// How it ended, once: a table that was read, nothing, or what went wrong.
    pub(crate) fn poll(&mut self, volume: VolumeId) -> Option<Result<Option<Box<Table>>, Status>> {
        let key = self.job_of(volume)?;
        match self.jobs.get(key) {
            Some(Job { stage: Stage::Over(_), .. }) => (),
            _ => return None,
        }
        match self.jobs.remove(key) {
            Some(Job { stage: Stage::Over(outcome), .. }) => Some(outcome),
            _ => unreachable!("it was over"),
        }
    }

    /// A volume is gone, and its table with it: gives the space back, if that is easy now.
    pub(crate) fn forget(&mut self, volume: VolumeId) {
        if self.queue.is_none() || self.jobs.is_full() || self.job_of(volume).is_some() {
            return;
        }
        let request = Request::range(Tag(0), Op::WriteZeroes, Lba(u64::from(volume.0)), 1);
        let stage = Stage::Waiting(request.with_flags(Flags::UNMAP));
        let inserted = self.jobs.insert(Job { volume, uuid: [0; 16], stage });
        assert!(inserted.is_ok(), "room was checked");
    }

    /// A control operation ended. True when it was this one's.
    pub(crate) fn on_control(&mut self, token: Token, done: Result<(), &ControlError>) -> bool {
        if self.creating != Some(token) {
            return false;
        }
        self.creating = None;
        match done {
            Ok(()) => self.open(),
            Err(error) => self.fail_waiting(status_of(error)),
        }
        true
    }

    /// Moves everything on. True when anything happened.
    pub(crate) fn drive(&mut self) -> bool {
        if self.jobs.is_empty() {
            return false;
        }
        if self.queue.is_none() {
            return self.create();
        }
        let mut moved = false;
        for (key, job) in self.jobs.iter_mut() {
            if matches!(job.stage, Stage::Waiting(_)) {
                let asked = job.uuid != [0; 16];
                let stage = std::mem::replace(&mut job.stage, Stage::Asked(asked));
                let Stage::Waiting(mut request) = stage else { unreachable!("just seen") };
                request.tag = Tag(key);
                let pushed = self.requests.push(request);
                assert!(pushed.is_ok(), "a place for each job");
                moved = true;
            }
        }
        let queue = self.queue.as_mut().expect("just seen");
        queue.submit(&mut self.requests);
        queue.poll(&mut self.done);
        while let Some(completion) = self.done.pop() {
            self.finish(completion);
            moved = true;
        }
        moved
    }

    /// Nothing is under way: the engine may close.
    pub(crate) fn close(&mut self) {
        self.fail_waiting(Status::Gone);
        self.queue = None;
    }

    fn create(&mut self) -> bool {
        let wanted = self.jobs.iter().any(|(_, job)| matches!(job.stage, Stage::Waiting(_)));
        if self.creating.is_some() || !wanted {
            return false;
        }
        let mut engine = self.engine.borrow_mut();
        let mut uuid = engine.store_uuid().unwrap_or_default();
        uuid[15] ^= 0xff; // Not the store's own, and always the same.
        let new = NewVolume { uuid, name: KEEPER_NAME, size: KEEPER_BYTES, block_bytes: 4096 };
        let begun = engine.create_volume(&new);
        drop(engine);
        match begun {
            Ok(token) => self.creating = Some(token),
            Err(ControlError::Busy) => (),
            Err(error) => self.fail_waiting(status_of(&error)),
        }
        true
    }

    fn finish(&mut self, completion: Completion) {
        let Completion { tag, data, status } = completion;
        let job = self.jobs.get_mut(tag.0).expect("a request in flight has its job");
        let Stage::Asked(asked) = job.stage else { unreachable!("one completion per request") };
        if !asked {
            self.jobs.remove(tag.0);
            return;
        }
        job.stage = Stage::Over(match (status, data) {
            (Status::Ok, Data::Into(buf)) => table_in(job.uuid, &buf.bytes()[..IMAGE_LEN]),
            (Status::Ok, _) => Ok(None),
            (status, _) => Err(status),
        });
    }

    fn fail_waiting(&mut self, status: Status) {
        for (_, job) in self.jobs.iter_mut() {
            if matches!(job.stage, Stage::Waiting(_)) {
                job.stage = Stage::Over(Err(status));
            }
        }
    }

    fn job_of(&self, volume: VolumeId) -> Option<u32> {
        self.jobs.iter().find(|(_, job)| job.volume == volume).map(|(key, _)| key)
    }
}

/// What a block of the hidden volume holds: nothing, a table, or something that is none.
fn table_in(uuid: [u8; 16], block: &[u8]) -> Result<Option<Box<Table>>, Status> {
    if block.iter().all(|&byte| byte == 0) {
        return Ok(None);
    }
    Table::decode(uuid, block).map(|table| Some(Box::new(table))).ok_or(Status::Integrity)
}

fn status_of(error: &ControlError) -> Status {
    match error {
        ControlError::Device(status) => *status,
        _ => Status::NoSpace,
    }
}
