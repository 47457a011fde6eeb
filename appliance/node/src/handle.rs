//! The control plane's side of a node: thread-safe, without futures.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use bdev::ring::{Consumer, Producer};
use nvmf::{Computation, NamespaceHandle, Session, Target};

use crate::command::{
    Answer, Changes, CloneSpec, Command, Counted, Envelope, NodeError, Notices, Qos, Reservation,
    SnapshotSpec, Source, StoreId, StoreSpec, StoreStatus, Task, VolumeId, VolumeSpec,
    VolumeStatus,
};
use crate::limits::{NAMESPACES_MAX, STORES_MAX};
use crate::link::Wake;
use crate::refusal::Refusal;
use crate::stats::{NamespaceCounters, ShardCounters};
use crate::ticket::Ticket;

/// What the control plane holds of a node. Clones are the same node.
///
/// Every call hands one command to one or all shards and returns a [`Ticket`] at once. Commands to
/// one store are worked on in order; nothing else is ordered: wait for the ticket where it matters.
///
/// Exports are not commands: [`NodeHandle::target`] takes a whole new configuration at any time
/// ([`Target::replace`]), whose namespaces name what [`NodeHandle::attach`] returned. Attach before
/// publishing, and detach after.
#[derive(Clone)]
pub struct NodeHandle {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) shards: Vec<ShardPort>,
    pub(crate) target: Arc<Target>,
    pub(crate) book: Mutex<Book>,
    pub(crate) listen_next: AtomicUsize,
}

/// How to reach one shard.
pub(crate) struct ShardPort {
    pub(crate) mailbox: Mutex<Producer<Box<Envelope>>>,
    pub(crate) wake: Wake,
    pub(crate) counters: Arc<ShardCounters>,
    pub(crate) refusals: Mutex<Consumer<Refusal>>,
    pub(crate) wanted: Mutex<Consumer<Box<Computation>>>,
    pub(crate) done: Mutex<Producer<Box<Computation>>>,
}

/// What is where.
#[derive(Default)]
pub(crate) struct Book {
    /// The shard that owns each store.
    stores: Vec<Option<usize>>,
    namespaces: Vec<Option<Namespace>>,
    /// Where the search for a free handle starts, so that one is not reused at once.
    cursor: usize,
    placed: usize,
}

struct Namespace {
    store: StoreId,
    volume: VolumeId,
    counters: Vec<Arc<NamespaceCounters>>,
}

impl NodeHandle {
    pub(crate) fn new(inner: Inner) -> NodeHandle {
        NodeHandle { inner: Arc::new(inner) }
    }

    /// How many shards the node has.
    pub fn shards(&self) -> usize {
        self.inner.shards.len()
    }

    /// The NVMe-oF target that all shards serve.
    pub fn target(&self) -> &Arc<Target> {
        &self.inner.target
    }

    /// Controllers that are connected now.
    pub fn sessions(&self) -> Vec<Session> {
        self.inner.target.sessions()
    }

    /// Opens a store, and formats it first when the specification says so. Stores are spread over
    /// the shards. A store that fails to open is forgotten by [`NodeHandle::close_store`].
    ///
    /// # Errors
    /// [`NodeError::TooMany`] and [`NodeError::Busy`].
    pub fn open_store(&self, spec: StoreSpec) -> Result<(StoreId, Ticket<StoreStatus>), NodeError> {
        let (store, owner) = {
            let mut book = self.book();
            let free = book.stores.iter().position(Option::is_none).unwrap_or(book.stores.len());
            if free == STORES_MAX {
                return Err(NodeError::TooMany { what: "stores", max: STORES_MAX });
            }
            if free == book.stores.len() {
                book.stores.push(None);
            }
            let owner = book.placed % self.shards();
            book.placed += 1;
            book.stores[free] = Some(owner);
            (StoreId(u32::try_from(free).expect("limited")), owner)
        };
        match self.ask(owner, Command::OpenStore { store, spec }, as_store) {
            Ok(ticket) => Ok((store, ticket)),
            Err(error) => {
                self.book().stores[store.0 as usize] = None;
                Err(error)
            }
        }
    }

    /// Closes a store: everything is made durable. Detach its volumes first.
    ///
    /// # Errors
    /// [`NodeError::NoSuchStore`], [`NodeError::InUse`], [`NodeError::Busy`].
    pub fn close_store(&self, store: StoreId) -> Result<Ticket<()>, NodeError> {
        let owner = self.owner(store)?;
        let mut book = self.book();
        if book.namespaces.iter().flatten().any(|known| known.store == store) {
            return Err(NodeError::InUse);
        }
        let ticket = self.ask(owner, Command::CloseStore { store }, as_done)?;
        book.stores[store.0 as usize] = None;
        Ok(ticket)
    }

    /// Numbers and volumes of a store.
    ///
    /// # Errors
    /// [`NodeError::NoSuchStore`] and [`NodeError::Busy`].
    pub fn store_status(&self, store: StoreId) -> Result<Ticket<StoreStatus>, NodeError> {
        self.ask(self.owner(store)?, Command::StoreStatus { store }, as_store)
    }

    /// Creates a volume. Durable once answered.
    ///
    /// # Errors
    /// [`NodeError::NoSuchStore`] and [`NodeError::Busy`].
    pub fn create_volume(
        &self,
        store: StoreId,
        spec: VolumeSpec,
    ) -> Result<Ticket<VolumeStatus>, NodeError> {
        let command = Command::Store { store, task: Task::Create(spec) };
        self.ask(self.owner(store)?, command, as_volume)
    }

    /// Changes the size of a volume, to a smaller one only with `shrink` and where nothing is
    /// written beyond. Durable once answered; publish the new size afterwards.
    ///
    /// # Errors
    /// [`NodeError::NoSuchStore`] and [`NodeError::Busy`].
    pub fn resize_volume(
        &self,
        store: StoreId,
        volume: VolumeId,
        bytes: u64,
        shrink: bool,
    ) -> Result<Ticket<VolumeStatus>, NodeError> {
        self.ask_store(store, Task::Resize { volume, bytes, shrink }, as_volume)
    }

    /// Limits a volume until its store is closed.
    ///
    /// # Errors
    /// [`NodeError::NoSuchStore`] and [`NodeError::Busy`].
    pub fn limit_volume(
        &self,
        store: StoreId,
        volume: VolumeId,
        qos: Qos,
    ) -> Result<Ticket<()>, NodeError> {
        self.ask_store(store, Task::Limit { volume, qos }, as_done)
    }

    /// Starts a scrub of a store, or goes on with one, at this rate; 0 holds it.
    ///
    /// # Errors
    /// [`NodeError::NoSuchStore`] and [`NodeError::Busy`].
    pub fn start_scrub(
        &self,
        store: StoreId,
        bytes_per_second: u64,
    ) -> Result<Ticket<()>, NodeError> {
        self.ask_store(store, Task::Scrub { bytes_per_second, start: true }, as_done)
    }

    /// Sets the rate of a store's scrub without starting one; 0 holds it.
    ///
    /// # Errors
    /// [`NodeError::NoSuchStore`] and [`NodeError::Busy`].
    pub fn set_scrub_rate(
        &self,
        store: StoreId,
        bytes_per_second: u64,
    ) -> Result<Ticket<()>, NodeError> {
        self.ask_store(store, Task::Scrub { bytes_per_second, start: false }, as_done)
    }

    /// Starts a check of a store; nothing changes when one is under way.
    ///
    /// # Errors
    /// [`NodeError::NoSuchStore`] and [`NodeError::Busy`].
    pub fn start_check(&self, store: StoreId) -> Result<Ticket<()>, NodeError> {
        self.ask_store(store, Task::Check, as_done)
    }

    /// How the check is, or how the last one ended.
    ///
    /// # Errors
    /// [`NodeError::NoSuchStore`] and [`NodeError::Busy`].
    pub fn check_status(&self, store: StoreId) -> Result<Ticket<volume::CheckStatus>, NodeError> {
        self.ask(self.owner(store)?, Command::CheckStatus { store }, |answer| match answer {
            Answer::Check(status) => Some(*status),
            _ => None,
        })
    }

    /// Takes what a store noticed since the last time.
    ///
    /// # Errors
    /// [`NodeError::NoSuchStore`] and [`NodeError::Busy`].
    pub fn take_notices(&self, store: StoreId) -> Result<Ticket<Notices>, NodeError> {
        self.ask(self.owner(store)?, Command::TakeNotices { store }, |answer| match answer {
            Answer::Notices(notices) => Some(notices),
            _ => None,
        })
    }

    /// Who has reserved a volume, by registration and reservation commands of hosts. With `evict`
    /// everybody is removed before, as a host that is gone for good cannot; hosts are told.
    ///
    /// # Errors
    /// [`NodeError::NoSuchStore`] and [`NodeError::Busy`].
    pub fn reservation(
        &self,
        store: StoreId,
        volume: VolumeId,
        evict: bool,
    ) -> Result<Ticket<Reservation>, NodeError> {
        let command = Command::Reservation { store, volume, evict };
        self.ask(self.owner(store)?, command, |answer| match answer {
            Answer::Reservation(status) => Some(*status),
            _ => None,
        })
    }

    /// Tells all stores what time it is, in seconds since 1970: shards read no clock. Tell them
    /// after a store was opened, and from time to time: clocks are set.
    ///
    /// # Errors
    /// [`NodeError::Busy`].
    pub fn set_unix_time(&self, seconds: u64) -> Result<Ticket<()>, NodeError> {
        self.ask_all(|_| Command::UnixTime { seconds })
    }

    /// Takes snapshots of several volumes at the same moment. Durable once answered.
    ///
    /// # Errors
    /// [`NodeError::NoSuchStore`] and [`NodeError::Busy`].
    pub fn create_snapshots(
        &self,
        store: StoreId,
        group: Vec<SnapshotSpec>,
    ) -> Result<Ticket<()>, NodeError> {
        self.ask_store(store, Task::Snapshots(group), as_done)
    }

    /// Makes a volume from a snapshot. Durable once answered.
    ///
    /// # Errors
    /// [`NodeError::NoSuchStore`] and [`NodeError::Busy`].
    pub fn clone_volume(
        &self,
        store: StoreId,
        spec: CloneSpec,
    ) -> Result<Ticket<VolumeStatus>, NodeError> {
        self.ask_store(store, Task::Clone(spec), as_volume)
    }

    /// Takes a volume back to a snapshot; its I/O waits meanwhile. Durable once answered; publish
    /// the size afterwards, it may have grown.
    ///
    /// # Errors
    /// [`NodeError::NoSuchStore`] and [`NodeError::Busy`].
    pub fn restore_volume(
        &self,
        store: StoreId,
        volume: VolumeId,
        snapshot: VolumeId,
    ) -> Result<Ticket<VolumeStatus>, NodeError> {
        self.ask_store(store, Task::Restore { volume, snapshot }, as_volume)
    }

    /// What differs between a snapshot (or nothing) and another one, from a byte on: one bounded
    /// step.
    ///
    /// # Errors
    /// [`NodeError::NoSuchStore`] and [`NodeError::Busy`].
    pub fn diff(
        &self,
        store: StoreId,
        base: Option<VolumeId>,
        of: VolumeId,
        from: u64,
        ranges_max: usize,
    ) -> Result<Ticket<Changes>, NodeError> {
        self.ask_store(store, Task::Diff { base, of, from, ranges_max }, |answer| match answer {
            Answer::Changes(changes) => Some(changes),
            _ => None,
        })
    }

    /// Bytes that belong to a snapshot alone, from a byte on: one bounded step.
    ///
    /// # Errors
    /// [`NodeError::NoSuchStore`] and [`NodeError::Busy`].
    pub fn count_unique(
        &self,
        store: StoreId,
        snapshot: VolumeId,
        from: u64,
    ) -> Result<Ticket<Counted>, NodeError> {
        self.ask_store(store, Task::CountUnique { snapshot, from }, |answer| match answer {
            Answer::Counted(counted) => Some(counted),
            _ => None,
        })
    }

    /// Deletes a volume and its data, or a snapshot. Detach it first.
    ///
    /// # Errors
    /// [`NodeError::NoSuchStore`], [`NodeError::InUse`] and [`NodeError::Busy`].
    pub fn delete_volume(&self, store: StoreId, volume: VolumeId) -> Result<Ticket<()>, NodeError> {
        let owner = self.owner(store)?;
        let attached = |known: &Namespace| known.store == store && known.volume == volume;
        if self.book().namespaces.iter().flatten().any(attached) {
            return Err(NodeError::InUse);
        }
        self.ask(owner, Command::Store { store, task: Task::Delete { volume } }, as_done)
    }

    /// Makes a volume reachable from the connections of every shard. Wait for the ticket before
    /// publishing the handle.
    ///
    /// # Errors
    /// [`NodeError::NoSuchStore`], [`NodeError::TooMany`] and [`NodeError::Busy`].
    pub fn attach(
        &self,
        store: StoreId,
        volume: &VolumeStatus,
    ) -> Result<(NamespaceHandle, Ticket<()>), NodeError> {
        let owner = self.owner(store)?;
        let block_size = volume.block_size;
        let counters: Vec<_> = self.inner.shards.iter().map(|_| Arc::default()).collect();
        let handle = {
            let mut book = self.book();
            let handle = book.free_handle()?;
            let counters = counters.clone();
            book.namespaces[handle.0 as usize] =
                Some(Namespace { store, volume: volume.id, counters });
            handle
        };
        let volume = volume.id;
        let ticket = self.ask_all(|shard| Command::Attach {
            handle,
            source: match shard == owner {
                true => Source::Volume { store, volume },
                false => Source::Shard { owner, block_size },
            },
            counters: Arc::clone(&counters[shard]),
        })?;
        Ok((handle, ticket))
    }

    /// Takes a namespace away from every shard, after its last request. Take it out of the target's
    /// configuration first, or hosts see errors.
    ///
    /// # Errors
    /// [`NodeError::NoSuchNamespace`] and [`NodeError::Busy`].
    pub fn detach(&self, handle: NamespaceHandle) -> Result<Ticket<()>, NodeError> {
        let known = self.book().namespaces.get_mut(handle.0 as usize).and_then(Option::take);
        if known.is_none() {
            return Err(NodeError::NoSuchNamespace);
        }
        self.ask_all(|_| Command::Detach { handle })
    }

    /// Listens for hosts and answers with the address, in which port 0 was replaced by a free one.
    /// Listeners are spread over the shards, and so are the connections that they accept.
    ///
    /// # Errors
    /// [`NodeError::Busy`].
    pub fn listen(&self, address: SocketAddr) -> Result<Ticket<SocketAddr>, NodeError> {
        let shard = self.inner.listen_next.fetch_add(1, Ordering::Relaxed) % self.shards();
        self.ask(shard, Command::Listen { address }, |answer| match answer {
            Answer::Listening(address) => Some(address),
            _ => None,
        })
    }

    /// Stops listening on `address`, wherever that was. Connections live on.
    ///
    /// # Errors
    /// [`NodeError::Busy`].
    pub fn unlisten(&self, address: SocketAddr) -> Result<Ticket<()>, NodeError> {
        self.ask_all(|_| Command::Unlisten { address })
    }

    /// Stops listening, ends all connections and waits for what is in flight.
    ///
    /// # Errors
    /// [`NodeError::Busy`].
    pub fn drain(&self) -> Result<Ticket<()>, NodeError> {
        self.ask_all(|_| Command::Drain)
    }

    /// Closes all stores and ends the shards: their turns then report that they have stopped. Drain
    /// first.
    ///
    /// # Errors
    /// [`NodeError::Busy`].
    pub fn shutdown(&self) -> Result<Ticket<()>, NodeError> {
        self.ask_all(|_| Command::Shutdown)
    }

    /// What the shards have done, by shard.
    pub fn shard_counters(&self) -> impl Iterator<Item = &ShardCounters> {
        self.inner.shards.iter().map(|shard| shard.counters.as_ref())
    }

    /// Takes the refused Connects that the shards remember: at most [`crate::REFUSALS_KEPT`] each.
    pub fn refusals(&self) -> Vec<Refusal> {
        let mut taken = Vec::new();
        for shard in &self.inner.shards {
            let mut refusals = shard.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            // A flood of them must not keep the caller.
            taken.extend((0..crate::REFUSALS_KEPT).map_while(|_| refusals.pop()));
        }
        taken
    }

    /// The next computation that a shard wants; shards in turn are fair to the hosts of each. Give
    /// it back with [`NodeHandle::computed`].
    pub fn take_computation(&self, shard: usize) -> Option<Box<Computation>> {
        let wanted = &self.inner.shards[shard].wanted;
        wanted.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Gives a computation back to its shard.
    pub fn computed(&self, shard: usize, computation: Box<Computation>) {
        let port = &self.inner.shards[shard];
        let mut done = port.done.lock().unwrap_or_else(PoisonError::into_inner);
        // A shard that has ended wants nothing back; a living one has a place for each.
        if !done.is_abandoned() {
            done.push(computation).expect("as many places as there can be computations");
        }
        drop(done);
        (port.wake)();
    }

    /// The I/O of one namespace, by shard: add them up.
    pub fn namespace_counters(&self, handle: NamespaceHandle) -> Vec<Arc<NamespaceCounters>> {
        let book = self.book();
        let known = book.namespaces.get(handle.0 as usize).and_then(Option::as_ref);
        known.map(|known| known.counters.clone()).unwrap_or_default()
    }

    fn ask_store<T>(
        &self,
        store: StoreId,
        task: Task,
        pick: fn(Answer) -> Option<T>,
    ) -> Result<Ticket<T>, NodeError> {
        self.ask(self.owner(store)?, Command::Store { store, task }, pick)
    }

    fn ask<T>(
        &self,
        shard: usize,
        command: Command,
        pick: fn(Answer) -> Option<T>,
    ) -> Result<Ticket<T>, NodeError> {
        let (tx, rx) = mpsc::channel();
        self.post(shard, Envelope::new(command, tx))?;
        Ok(Ticket::new(rx, 1, pick))
    }

    /// Asks every shard; the ticket is answered when all are.
    fn ask_all(&self, command: impl Fn(usize) -> Command) -> Result<Ticket<()>, NodeError> {
        let (tx, rx) = mpsc::channel();
        let mut posted = 0;
        for shard in 0..self.shards() {
            match self.post(shard, Envelope::new(command(shard), tx.clone())) {
                Ok(()) => posted += 1,
                // All or nothing cannot be had; the error comes out of the ticket then.
                Err(error) if posted == 0 => return Err(error),
                Err(error) => Envelope::new(command(shard), tx.clone()).reply(Err(error)),
            }
        }
        Ok(Ticket::new(rx, self.shards(), as_done))
    }

    fn post(&self, shard: usize, envelope: Box<Envelope>) -> Result<(), NodeError> {
        let port = &self.inner.shards[shard];
        let mut mailbox = port.mailbox.lock().unwrap_or_else(PoisonError::into_inner);
        if mailbox.is_abandoned() {
            return Err(NodeError::Stopped);
        }
        mailbox.push(envelope).map_err(|_| NodeError::Busy)?;
        drop(mailbox);
        (port.wake)();
        Ok(())
    }

    fn owner(&self, store: StoreId) -> Result<usize, NodeError> {
        self.book().stores.get(store.0 as usize).copied().flatten().ok_or(NodeError::NoSuchStore)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.inner.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn free_handle(&mut self) -> Result<NamespaceHandle, NodeError> {
        self.namespaces.resize_with(NAMESPACES_MAX, || None);
        let free = (0..NAMESPACES_MAX)
            .map(|step| (self.cursor + step) % NAMESPACES_MAX)
            .find(|&at| self.namespaces[at].is_none());
        let free = free.ok_or(NodeError::TooMany { what: "namespaces", max: NAMESPACES_MAX })?;
        self.cursor = free + 1;
        Ok(NamespaceHandle(u32::try_from(free).expect("limited")))
    }
}

impl fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeHandle").field("shards", &self.shards()).finish_non_exhaustive()
    }
}

fn as_store(answer: Answer) -> Option<StoreStatus> {
    match answer {
        Answer::Store(status) => Some(*status),
        _ => None,
    }
}

fn as_volume(answer: Answer) -> Option<VolumeStatus> {
    match answer {
        Answer::Volume(status) => Some(status),
        _ => None,
    }
}

fn as_done(answer: Answer) -> Option<()> {
    matches!(answer, Answer::Done).then_some(())
}
