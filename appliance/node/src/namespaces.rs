//! From a namespace's handle to its device queue, and back from a completion to who waits.

use std::os::fd::RawFd;
use std::sync::Arc;

use bdev::{Completion, Fifo, Instant, Op, Queue, Request, Status};
use nvmf::{NamespaceHandle, Target};

use crate::flights::{Flights, Origin, Parked};
use crate::guards::{GuardId, Guards};
use crate::limits::{NAMESPACES_MAX, STAGING_DEPTH};
use crate::stats::{Kind, NamespaceCounters};

/// The namespaces that this shard can reach.
pub(crate) struct Namespaces {
    table: Vec<Option<Box<Namespace>>>,
    /// Handles of namespaces with requests, each once.
    active: Fifo<u32>,
    pub(crate) flights: Flights,
    in_flight: u32,
    pub(crate) guards: Guards,
}

struct Namespace {
    queue: Box<dyn Queue>,
    block_size: u32,
    staging: Fifo<Request>,
    parked: Parked,
    /// Requests placed and not completed.
    in_flight: u32,
    active: bool,
    /// No new requests: the namespace goes once the last one has completed.
    closing: bool,
    counters: Arc<NamespaceCounters>,
    /// Of a volume of this shard.
    guard: Option<GuardId>,
    /// Somebody has reserved the volume: every request is checked.
    is_reserved: bool,
    /// Counts, in one bit, the times that somebody waited for what was placed before.
    era: u8,
    /// Requests placed in each of the last two eras and not completed.
    in_era: [u32; 2],
}

/// The era of what is not waited for: reservation commands themselves.
const NO_ERA: u8 = 2;

impl Namespaces {
    pub(crate) fn new(flights: Flights, target: Arc<Target>) -> Namespaces {
        let mut table = Vec::with_capacity(NAMESPACES_MAX);
        table.resize_with(NAMESPACES_MAX, || None);
        let (active, guards) = (Fifo::new(NAMESPACES_MAX), Guards::new(target));
        Namespaces { table, active, flights, in_flight: 0, guards }
    }

    /// Adds a namespace. False when the handle is taken or out of range.
    pub(crate) fn attach(
        &mut self,
        handle: NamespaceHandle,
        queue: Box<dyn Queue>,
        block_size: u32,
        counters: Arc<NamespaceCounters>,
        guard: Option<GuardId>,
    ) -> bool {
        let Some(entry) = self.table.get_mut(handle.0 as usize) else { return false };
        if entry.is_some() {
            return false;
        }
        let is_reserved = guard.is_some_and(|guard| self.guards.join(guard, handle.0));
        *entry = Some(Box::new(Namespace {
            queue,
            block_size,
            staging: Fifo::new(STAGING_DEPTH),
            parked: Parked::new(),
            in_flight: 0,
            active: false,
            closing: false,
            counters,
            guard,
            is_reserved,
            era: 0,
            in_era: [0; 2],
        }));
        true
    }

    /// Takes no new requests for `handle`. True once it is gone; ask again until then.
    pub(crate) fn detach(&mut self, handle: NamespaceHandle) -> bool {
        let Some(entry) = self.table.get_mut(handle.0 as usize) else { return true };
        let Some(namespace) = entry else { return true };
        namespace.closing = true;
        if namespace.in_flight == 0 && !namespace.active {
            if let Some(guard) = namespace.guard {
                self.guards.leave(guard, handle.0);
            }
            *entry = None;
            return true;
        }
        false
    }

    /// Requests that were placed and have not completed.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Whether something is in flight at a device that cannot wake a sleeper.
    pub(crate) fn must_poll(&self) -> bool {
        self.active.iter().any(|&handle| {
            let namespace = self.table[handle as usize].as_ref();
            namespace.is_some_and(|namespace| namespace.queue.wait_fd().is_none())
        })
    }

    /// What to sleep on for those that can.
    pub(crate) fn wait_fds(&self, fds: &mut Vec<RawFd>) {
        for &handle in self.active.iter() {
            let namespace = self.table[handle as usize].as_ref();
            fds.extend(namespace.and_then(|namespace| namespace.queue.wait_fd()));
        }
    }

    /// The tag of a request from another shard.
    pub(crate) fn link_tag(&self, link: usize, slot: u32) -> bdev::Tag {
        self.flights.link_tag(link, slot)
    }

    pub(crate) fn origin(&self, tag: bdev::Tag) -> Origin {
        self.flights.origin(tag)
    }

    /// Takes a request, or answers at once for a namespace that is not there.
    pub(crate) fn place(
        &mut self,
        handle: NamespaceHandle,
        request: Request,
        now: Instant,
    ) -> Result<(), Completion> {
        let entry = self.table.get_mut(handle.0 as usize).and_then(Option::as_mut);
        let Some(namespace) = entry.filter(|namespace| !namespace.closing) else {
            return Err(request.complete(Status::Gone));
        };
        let mut era = namespace.era;
        if let Some(guard) = namespace.guard
            && (namespace.is_reserved || request.op == Op::Reserve)
        {
            if !self.guards.admits(guard, &request) {
                namespace.counters.conflicts.add(1);
                return Err(request.complete(Status::ReservationConflict));
            }
            if request.op == Op::Reserve {
                era = NO_ERA;
            }
        }
        let bytes = request.blocks.saturating_mul(namespace.block_size);
        self.flights.start(handle.0, era, &request, bytes, now);
        if let Some(count) = namespace.in_era.get_mut(usize::from(era)) {
            *count += 1;
        }
        namespace.in_flight += 1;
        self.in_flight += 1;
        if !namespace.active {
            namespace.active = true;
            self.active.push(handle.0).expect("room for every handle once");
        }
        if let (NO_ERA, Some(guard)) = (era, namespace.guard) {
            self.guards.wait(guard).push(&mut self.flights, request);
            return Ok(());
        }
        let request = match namespace.parked.is_empty() {
            true => namespace.staging.push(request).err(),
            false => Some(request),
        };
        if let Some(request) = request {
            namespace.parked.push(&mut self.flights, request);
        }
        Ok(())
    }

    /// Whether somebody has reserved the volume changed; with `waits`, what is placed from here on
    /// is told apart from what was placed before.
    pub(crate) fn set_reserved(&mut self, handle: u32, reserved: bool, waits: bool) {
        let namespace = self.table[handle as usize].as_mut();
        let namespace = namespace.expect("a guard knows the namespaces there are");
        namespace.is_reserved = reserved;
        if waits {
            namespace.era ^= 1;
            assert_eq!(namespace.in_era[usize::from(namespace.era)], 0, "one waits at a time");
        }
    }

    /// Whether nothing is left of what was placed before the last change of era.
    pub(crate) fn is_drained(&self, handle: u32) -> bool {
        let namespace = self.table[handle as usize].as_ref();
        namespace.is_none_or(|namespace| namespace.in_era[usize::from(namespace.era ^ 1)] == 0)
    }

    /// Hands requests to the device queues and kicks them, each once.
    pub(crate) fn submit(&mut self) {
        for &handle in self.active.iter() {
            let entry = self.table[handle as usize].as_mut();
            let namespace = entry.expect("active namespaces are not removed");
            loop {
                namespace.queue.submit(&mut namespace.staging);
                if namespace.staging.is_full() || namespace.parked.is_empty() {
                    break;
                }
                while !namespace.staging.is_full() {
                    let Some(request) = namespace.parked.pop(&mut self.flights) else { break };
                    namespace.staging.push(request).expect("room was checked");
                }
            }
            namespace.queue.kick();
        }
    }

    /// Collects completions with their origins while there is room, from every active namespace in
    /// turn, and lets idle ones rest.
    pub(crate) fn poll(&mut self, now: Instant, done: &mut Fifo<Completion>) {
        while !done.is_full()
            && let Some(completion) = self.guards.pop_finished()
        {
            let handle = self.flights.end(completion.tag).handle;
            let entry = self.table[handle as usize].as_mut();
            entry.expect("active namespaces are not removed").in_flight -= 1;
            self.in_flight -= 1;
            done.push(completion).expect("room was checked");
        }
        for _ in 0..self.active.len() {
            if done.is_full() {
                return;
            }
            let handle = self.active.pop().expect("counted");
            let entry = self.table[handle as usize].as_mut();
            let namespace = entry.expect("active namespaces are not removed");
            let before = done.len();
            namespace.queue.poll(done);
            for completion in done.iter().skip(before) {
                let flight = self.flights.end(completion.tag);
                namespace.in_flight -= 1;
                self.in_flight -= 1;
                if let Some(count) = namespace.in_era.get_mut(usize::from(flight.era)) {
                    *count -= 1;
                }
                let Some(kind) = Kind::of(flight.op) else { continue };
                let counter = namespace.counters.of(kind);
                counter.operations.add(1);
                match completion.status.is_ok() {
                    true => counter.bytes.add(u64::from(flight.bytes)),
                    false => counter.errors.add(1),
                }
                counter.latency.add(now.saturating_since(flight.started));
            }
            namespace.active = namespace.in_flight > 0;
            if namespace.active {
                self.active.push(handle).expect("it was just taken out");
            }
        }
    }
}
