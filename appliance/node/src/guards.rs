//! Who may use the volumes of this shard: their reservations, in front of their queues.
//!
//! A volume has one owner, so its table has one, too: requests are checked where they are placed,
//! in
//! the order in which they are, and no lock is taken. A namespace whose volume nobody has reserved
//! costs one branch. Reservation commands of a volume run one after the other:
//!
//! ```text
//!   waiting --applied to a copy--> kept on the device --> in force --> answered
//!              `--refused--> answered   (if it persists)     `--preempt and abort: when what was
//!                                                               placed before has ended
//! ```

use std::sync::Arc;

use bdev::{Completion, Data, Fifo, Op, Request, Status};
use nvmf::{HostId, Target};
use reservation::{Access, Action, Command, Host, Notices, Refusal, Table};

use crate::command::{NodeError, Reservation, StoreId, VolumeId};
use crate::flights::Parked;
use crate::limits::RESERVES_FINISHED_MAX;
use crate::namespaces::Namespaces;
use crate::stores::Stores;

/// Names a guard while somebody may need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GuardId(usize);

/// The reservations of this shard's volumes.
pub(crate) struct Guards {
    table: Vec<Option<Box<Guard>>>,
    target: Arc<Target>,
    /// Commands that were placed and are not finished.
    pending: u32,
    /// Finished commands on their way to who waits for them.
    pub(crate) finished: Fifo<Completion>,
}

struct Guard {
    store: StoreId,
    volume: VolumeId,
    uuid: [u8; 16],
    /// The store can keep the table.
    keeps: bool,
    table: Table,
    /// What it will be when the current command is durable.
    next: Table,
    notices: Notices,
    /// The namespaces of the volume.
    handles: Vec<u32>,
    waiting: Parked,
    current: Option<Current>,
    eviction: Eviction,
}

struct Current {
    /// `None` for what the node does by itself.
    request: Option<Request>,
    command: Command,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The table is to be written.
    ToKeep,
    /// It is being written.
    Keeping,
    /// It is in force; what victims have under way ends.
    Draining,
}

/// An administrator's wish to remove everybody.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Eviction {
    None,
    Wanted,
    Running,
    Done(Status),
}

impl Guards {
    pub(crate) fn new(target: Arc<Target>) -> Guards {
        let finished = Fifo::new(RESERVES_FINISHED_MAX);
        Guards { table: Vec::new(), target, pending: 0, finished }
    }

    /// The guard of a volume, if it has one.
    pub(crate) fn find(&self, store: StoreId, volume: VolumeId) -> Option<GuardId> {
        let is = |guard: &Guard| guard.store == store && guard.volume == volume;
        self.table.iter().position(|entry| entry.as_deref().is_some_and(is)).map(GuardId)
    }

    /// A volume has a guard from here on.
    pub(crate) fn insert(
        &mut self,
        store: StoreId,
        volume: VolumeId,
        uuid: [u8; 16],
        keeps: bool,
        table: Table,
    ) -> GuardId {
        let guard = Box::new(Guard {
            store,
            volume,
            uuid,
            keeps,
            next: table.clone(),
            table,
            notices: Notices::new(),
            handles: Vec::new(),
            waiting: Parked::new(),
            current: None,
            eviction: Eviction::None,
        });
        let free = self.table.iter().position(Option::is_none).unwrap_or(self.table.len());
        if free == self.table.len() {
            self.table.push(None);
        }
        self.table[free] = Some(guard);
        GuardId(free)
    }

    /// A namespace of the volume is there. True when somebody has reserved it.
    pub(crate) fn join(&mut self, id: GuardId, handle: u32) -> bool {
        let guard = self.get_mut(id);
        guard.handles.push(handle);
        guard.table.kind().is_some()
    }

    /// A namespace of the volume is gone. What is registered stays.
    pub(crate) fn leave(&mut self, id: GuardId, handle: u32) {
        let guard = self.get_mut(id);
        guard.handles.retain(|&known| known != handle);
        if guard.handles.is_empty() && guard.table.is_blank() && guard.current.is_none() {
            self.table[id.0] = None;
        }
    }

    /// The volume is gone, or all volumes of the store.
    pub(crate) fn forget(&mut self, store: StoreId, volume: Option<VolumeId>) {
        for entry in &mut self.table {
            let gone = entry.as_ref().is_some_and(|guard| {
                guard.store == store && volume.is_none_or(|volume| guard.volume == volume)
            });
            if gone {
                *entry = None;
            }
        }
    }

    /// What the volume's table says.
    pub(crate) fn status(&self, id: GuardId) -> Reservation {
        let table = &self.get(id).table;
        Reservation {
            kind: table.kind(),
            persists: table.persists(),
            generation: table.generation(),
            registrants: (table.registrants().iter())
                .map(|registrant| (*registrant, table.holds(registrant.host)))
                .collect(),
        }
    }

    /// Begins to remove everybody, or says how that ended.
    pub(crate) fn evict(&mut self, id: GuardId, first: bool) -> Option<Result<(), NodeError>> {
        let guard = self.get_mut(id);
        match guard.eviction {
            Eviction::Done(status) if !first => {
                guard.eviction = Eviction::None;
                let failed = |status| NodeError::Store(format!("it could not be kept: {status:?}"));
                Some(if status.is_ok() { Ok(()) } else { Err(failed(status)) })
            }
            Eviction::None | Eviction::Done(_) => {
                guard.eviction = Eviction::Wanted;
                self.pending += 1;
                None
            }
            Eviction::Wanted | Eviction::Running if first => Some(Err(NodeError::Busy)),
            Eviction::Wanted | Eviction::Running => None,
        }
    }

    /// Whether this request may go on to the volume.
    pub(crate) fn admits(&self, id: GuardId, request: &Request) -> bool {
        let access = match request.op {
            //= NVMe-Base 2.1 §8.1.22
            //# Compare, Read and Verify read; Write, Write Zeroes, Dataset Management and Flush
            //# write; a fused pair does both
            Op::Read | Op::Compare => Access::Read,
            Op::Write | Op::WriteZeroes | Op::Deallocate | Op::Flush | Op::CompareAndWrite => {
                Access::Write
            }
            Op::Reserve => return true,
        };
        let Some(HostId(host)) = self.target.host_of(request.client) else { return true };
        self.get(id).table.allows(Host(host), access)
    }

    /// A command was placed.
    pub(crate) fn wait(&mut self, id: GuardId) -> &mut Parked {
        self.pending += 1;
        &mut self.get_mut(id).waiting
    }

    /// The next finished command.
    pub(crate) fn pop_finished(&mut self) -> Option<Completion> {
        self.finished.pop()
    }

    fn get(&self, id: GuardId) -> &Guard {
        self.table[id.0].as_ref().expect("guards outlive their namespaces")
    }

    fn get_mut(&mut self, id: GuardId) -> &mut Guard {
        self.table[id.0].as_mut().expect("guards outlive their namespaces")
    }
}

impl Namespaces {
    /// Goes on with reservation commands. True when anything moved.
    pub(crate) fn tend(&mut self, stores: &mut Stores) -> bool {
        if self.guards.pending == 0 {
            return false;
        }
        let mut moved = false;
        for index in 0..self.guards.table.len() {
            let Some(mut guard) = self.guards.table[index].take() else { continue };
            while !self.guards.finished.is_full() && self.step(&mut guard, stores) {
                moved = true;
            }
            self.guards.table[index] = Some(guard);
        }
        moved
    }

    /// One step of a volume's commands; false when there is none to take now.
    fn step(&mut self, guard: &mut Guard, stores: &mut Stores) -> bool {
        let Some(current) = &mut guard.current else { return self.begin(guard) };
        let keeper = stores.store(guard.store).ok().and_then(|store| store.keeper());
        match (current.stage, keeper) {
            (Stage::Draining, _) => {
                let done = guard.handles.iter().all(|&handle| self.is_drained(handle));
                if done {
                    self.finish(guard, Status::Ok);
                }
                done
            }
            (Stage::ToKeep, Some(keeper)) => {
                // What does not persist leaves nothing behind, either.
                let blank = Table::new();
                let table = if guard.next.persists() { &guard.next } else { &blank };
                let begun = keeper.begin_write(guard.volume, guard.uuid, table);
                if begun {
                    current.stage = Stage::Keeping;
                }
                begun
            }
            (Stage::Keeping, Some(keeper)) => match keeper.poll(guard.volume) {
                None => false,
                Some(Ok(_)) => {
                    self.put_in_force(guard);
                    true
                }
                Some(Err(status)) => {
                    self.finish(guard, status);
                    true
                }
            },
            (Stage::ToKeep | Stage::Keeping, None) => {
                self.finish(guard, Status::Gone);
                true
            }
        }
    }

    /// Takes up the next command.
    fn begin(&mut self, guard: &mut Guard) -> bool {
        let (request, command) = if guard.eviction == Eviction::Wanted {
            guard.eviction = Eviction::Running;
            let (host, persist) = (Host::default(), None);
            (None, Some(Command { host, action: Action::Evict, persist }))
        } else {
            let Some(request) = guard.waiting.pop(&mut self.flights) else { return false };
            let command = match &request.data {
                Data::Into(buf) => Command::decode(buf.bytes()),
                _ => None,
            };
            // What the node alone may do no host can ask for.
            let command = command.filter(|command| command.action != Action::Evict);
            (Some(request), command)
        };
        let stage = Stage::ToKeep;
        let Some(command) = command else {
            let command = Command { host: Host::default(), action: Action::Report, persist: None };
            guard.current = Some(Current { request, command, stage });
            self.finish(guard, Status::Invalid);
            return true;
        };
        guard.current = Some(Current { request, command, stage });
        guard.next.clone_from(&guard.table);
        guard.notices.clear();
        //= NVMe-Base 2.1 §7.6
        //# a namespace that cannot persist refuses to
        let impossible = command.persist == Some(true) && !guard.keeps;
        let applied = match impossible {
            true => Err(Refusal::Invalid),
            false => guard.next.apply(&command, &mut guard.notices),
        };
        match applied {
            Err(Refusal::Conflict) => self.finish(guard, Status::ReservationConflict),
            Err(Refusal::Invalid) => self.finish(guard, Status::Invalid),
            Err(Refusal::Full) => self.finish(guard, Status::NoSpace),
            Ok(()) if guard.next == guard.table => self.finish(guard, Status::Ok),
            // To be durable before it is acknowledged, also that nothing is to be durable.
            Ok(()) if guard.next.persists() || guard.table.persists() => (),
            Ok(()) => self.put_in_force(guard),
        }
        true
    }

    /// The new table counts from here on.
    fn put_in_force(&mut self, guard: &mut Guard) {
        std::mem::swap(&mut guard.table, &mut guard.next);
        let reserved = guard.table.kind().is_some();
        let current = guard.current.as_mut().expect("it is being executed");
        let waits = current.command.waits_for_victims() && guard.notices.has_victims();
        for &handle in &guard.handles {
            self.set_reserved(handle, reserved, waits);
        }
        for (Host(host), notice) in guard.notices.iter() {
            self.guards.target.notify_reservation(guard.uuid, HostId(host), notice);
        }
        //= NVMe-Base 2.1 §8.1.22
        //# commands of a preempted host that were under way have ended when Preempt and Abort is
        //# answered
        if waits {
            current.stage = Stage::Draining;
        } else {
            self.finish(guard, Status::Ok);
        }
    }

    /// Answers the current command.
    fn finish(&mut self, guard: &mut Guard, status: Status) {
        let Current { request, command, .. } = guard.current.take().expect("it was executed");
        self.guards.pending -= 1;
        let Some(mut request) = request else {
            guard.eviction = Eviction::Done(status);
            return;
        };
        if let (Action::Report, true, Data::Into(buf)) =
            (command.action, status.is_ok(), &mut request.data)
        {
            guard.table.encode(guard.uuid, buf.bytes_mut());
        }
        let pushed = self.guards.finished.push(request.complete(status));
        assert!(pushed.is_ok(), "room was checked before the step");
    }
}
