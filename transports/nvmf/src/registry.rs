//! Live controllers: a fixed table that admin and I/O connections of all shards share.
//!
//! Per-command reads are relaxed atomics of one slot. The mutexes of a slot are taken on connect,
//! disconnect, configuration changes, log pages and failed commands: never for an I/O that
//! succeeds.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use ::reservation::Notice;
use bdev::{Client, Instant};

use crate::abort::{Wish, WishError};
use crate::cross_reset::Instance;
use crate::limits::{ABORTS_MAX, CONTROLLERS_MAX, IO_QUEUES_MAX, NS_PER_MS};
use crate::notices::EVENT_RESERVATION;
use crate::nsids::NsidSet;
use crate::reservation::Inbox;
use crate::tally::{ErrorLog, Failure, Traffic};
use crate::{HostId, Nqn};

/// How sure it is that a host is who it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It was not asked.
    #[default]
    Open,
    /// It has to prove it, and has not.
    Pending,
    /// It has proven it.
    Proven,
}

/// Who is connected to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// `None` for the discovery subsystem.
    pub(crate) subsystem: Option<Nqn>,
    pub(crate) hostnqn: Nqn,
    pub(crate) hostid: HostId,
    pub(crate) peer: Option<SocketAddr>,
    /// The address that it came to: which port that is can change.
    pub(crate) local: SocketAddr,
    pub(crate) standing: Standing,
}

/// How exactly it is known when a host was heard: more often the other cores are spared the line.
const SEEN_GRANULARITY_NS: u64 = 10 * NS_PER_MS;

/// What a controller is told of a new configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Kinds of events that came up.
    pub(crate) events: u32,
    /// Namespaces that came, went or changed.
    pub(crate) changed: NsidSet,
}

/// One live controller, for management.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// CNTLID.
    pub cntlid: u16,
    /// The subsystem; `None` for discovery.
    pub subsystem: Option<Nqn>,
    /// The host's NQN.
    pub hostnqn: Nqn,
    /// The host's identifier.
    pub hostid: HostId,
    /// Where the admin connection comes from.
    pub peer: Option<SocketAddr>,
    /// I/O queues that are connected.
    pub io_queues: u32,
    /// KATO, milliseconds; 0 is none.
    pub kato_ms: u32,
}

/// The table of live controllers.
#[derive(Debug)]
pub(crate) struct Registry {
    slots: Box<[Slot]>,
    cursor: AtomicUsize,
    /// What the random numbers of instances are made of.
    seed: AtomicU64,
}

#[derive(Debug, Default)]
struct Slot {
    /// Changes when the controller dies or is reset: I/O queues of an older epoch close.
    epoch: AtomicU32,
    /// Changes when the controller dies, so that its admin connection closes.
    life: AtomicU32,
    events: AtomicU32,
    /// Wishes to abort that an I/O queue has not decided.
    wishes: AtomicU32,
    enabled: AtomicU32,
    kato_ms: AtomicU32,
    /// Formats of Copy's descriptors that the host enabled.
    copy_formats: AtomicU32,
    last_seen_ns: AtomicU64,
    created_ns: AtomicU64,
    /// The host's identifier, in halves, as long as anybody names the slot.
    hostid: [AtomicU64; 2],
    cold: Mutex<Cold>,
    /// Taken when a command fails, and when somebody asks.
    errors: Mutex<ErrorLog>,
    /// Taken when a connection hands over what it counted, and when somebody asks.
    traffic: Mutex<Traffic>,
}

#[derive(Debug, Default)]
struct Cold {
    /// Connections that name this slot. It is free again when there are none.
    users: u32,
    identity: Option<Identity>,
    /// Whose it is, or was: also after its end, until the slot is another's.
    owner: Option<Identity>,
    instance: Instance,
    /// The admin connection works on commands.
    admin_open: bool,
    /// Connected QIDs, one bit each.
    queues: u128,
    queues_granted: u16,
    changed: NsidSet,
    wishes: [Option<Wish>; ABORTS_MAX],
    inbox: Inbox,
}

const _: () = assert!(IO_QUEUES_MAX < 128);

impl Cold {
    /// Whether the controller has ended and nothing of it is under way any more.
    fn is_over(&self) -> bool {
        self.identity.is_none() && !self.admin_open && self.queues == 0
    }
}

/// How far the end of a controller is that another one asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It is gone.
    Already,
    /// It was told to end.
    Soon,
}

/// Why an I/O queue may not join a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JoinError {
    NoController,
    OtherSubsystem,
    OtherHost,
    NotEnabled,
    QidRange,
    QidTaken,
}

/// A connection's hold on a controller: the admin queue (QID 0) or one I/O queue.
///
/// It must be given back with [`Registry::leave`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    index: usize,
    epoch: u32,
    life: u32,
    pub(crate) qid: u16,
    /// Nobody else can have this QID. Not so before the host has proven who it is.
    owns_qid: bool,
}

impl Hold {
    pub(crate) fn cntlid(self) -> u16 {
        u16::try_from(self.index + 1).expect("CONTROLLERS_MAX is below CNTLID_MAX")
    }
}

impl Registry {
    pub(crate) fn new() -> Registry {
        let slots = (0..CONTROLLERS_MAX).map(|_| Slot::default()).collect();
        Registry { slots, cursor: AtomicUsize::new(0), seed: AtomicU64::new(0) }
    }

    /// Makes a controller, or `None` when all slots are in use.
    pub(crate) fn create(&self, identity: Identity, kato_ms: u32, now: Instant) -> Option<Hold> {
        let start = self.cursor.fetch_add(1, Ordering::Relaxed);
        (0..self.slots.len()).find_map(|i| {
            let index = (start.wrapping_add(i)) % self.slots.len();
            let slot = &self.slots[index];
            let mut cold = slot.cold();
            if cold.users > 0 {
                return None;
            }
            *cold = Cold {
                users: 1,
                identity: Some(identity),
                owner: Some(identity),
                instance: cold.instance.next(self.random(start)),
                admin_open: true,
                ..Cold::default()
            };
            cold.queues_granted = IO_QUEUES_MAX;
            *lock(&slot.errors) = ErrorLog::default();
            *lock(&slot.traffic) = Traffic::default();
            slot.created_ns.store(now.as_ns(), Ordering::Relaxed);
            for (half, bytes) in slot.hostid.iter().zip(identity.hostid.0.as_chunks::<8>().0) {
                half.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
            }
            slot.events.store(0, Ordering::Relaxed);
            slot.wishes.store(0, Ordering::Relaxed);
            slot.enabled.store(0, Ordering::Relaxed);
            slot.copy_formats.store(0, Ordering::Relaxed);
            slot.kato_ms.store(kato_ms, Ordering::Relaxed);
            slot.last_seen_ns.store(now.as_ns(), Ordering::Relaxed);
            Some(slot.hold(index, 0))
        })
    }

    /// Adds an I/O queue to a controller.
    pub(crate) fn join(
        &self,
        cntlid: u16,
        qid: u16,
        identity: &Identity,
    ) -> Result<Hold, JoinError> {
        let index = usize::from(cntlid).checked_sub(1).ok_or(JoinError::NoController)?;
        let slot = self.slots.get(index).ok_or(JoinError::NoController)?;
        let mut cold = slot.cold();
        let live = cold.identity.ok_or(JoinError::NoController)?;
        //= NVMe-Base 2.1 §6.3
        //# an I/O queue belongs to the controller's subsystem and host, by NQN and identifier
        if live.subsystem != identity.subsystem || live.subsystem.is_none() {
            return Err(JoinError::OtherSubsystem);
        }
        if live.hostnqn != identity.hostnqn || live.hostid != identity.hostid {
            return Err(JoinError::OtherHost);
        }
        if slot.enabled.load(Ordering::Acquire) == 0 {
            return Err(JoinError::NotEnabled);
        }
        if qid == 0 || qid > cold.queues_granted {
            return Err(JoinError::QidRange);
        }
        let bit = 1u128 << qid;
        if cold.queues & bit != 0 {
            return Err(JoinError::QidTaken);
        }
        // Who only says that it is this host takes no queue away from it.
        let owns_qid = identity.standing != Standing::Pending;
        if owns_qid {
            cold.queues |= bit;
        }
        cold.users += 1;
        Ok(Hold { owns_qid, ..slot.hold(index, qid) })
    }

    /// The queue is deleted: its connection ends, and nothing of it is at a device any more. Its
    /// QID is free, the hold is still to be given back.
    pub(crate) fn release(&self, hold: Hold) {
        let slot = self.slot(hold);
        let mut cold = slot.cold();
        if hold.qid == 0 {
            cold.admin_open = false;
        }
        if !hold.owns_qid {
            return;
        }
        assert!(cold.queues & 1u128 << hold.qid != 0, "a queue is deleted once");
        cold.queues &= !(1u128 << hold.qid);
        // Nobody knows how the commands of a deleted queue ended: they are not aborted.
        for wish in cold.wishes.iter_mut().flatten() {
            if wish.sqid == hold.qid && wish.aborted.is_none() {
                wish.aborted = Some(false);
                slot.wishes.fetch_sub(1, Ordering::Release);
            }
        }
    }

    /// Gives a hold back. The controller dies with its admin queue.
    pub(crate) fn leave(&self, hold: Hold) {
        let slot = self.slot(hold);
        let mut cold = slot.cold();
        assert!(cold.users > 0, "every hold is given back once");
        cold.users -= 1;
        if hold.qid == 0 {
            slot.kill(&mut cold, hold.life);
        }
    }

    /// Whether no I/O queue of the controller is left, and so no command.
    pub(crate) fn is_quiet(&self, hold: Hold) -> bool {
        self.slot(hold).cold().queues == 0
    }

    /// Whether the controller, as this hold knew it, still lives.
    pub(crate) fn is_live(&self, hold: Hold) -> bool {
        let slot = self.slot(hold);
        match hold.qid {
            0 => slot.life.load(Ordering::Relaxed) == hold.life,
            _ => slot.epoch.load(Ordering::Relaxed) == hold.epoch,
        }
    }

    /// Ends the controller: all its connections close at their next poll.
    pub(crate) fn kill(&self, hold: Hold) {
        let slot = self.slot(hold);
        slot.kill(&mut slot.cold(), hold.life);
    }

    /// Ends the controller with this CNTLID, if it is live.
    pub(crate) fn kill_cntlid(&self, cntlid: u16) -> bool {
        let slot = usize::from(cntlid).checked_sub(1).and_then(|index| self.slots.get(index));
        slot.is_some_and(|slot| {
            let mut cold = slot.cold();
            let life = slot.life.load(Ordering::Acquire);
            let live = cold.identity.is_some();
            slot.kill(&mut cold, life);
            live
        })
    }

    /// Ends the controller `icid` of the same host and subsystem as `hold`'s; `None` when that
    /// instance is another host's.
    pub(crate) fn end_instance(&self, hold: Hold, icid: u16, instance: Instance) -> Option<Ended> {
        let by = self.slot(hold).cold().owner?;
        let slot = usize::from(icid).checked_sub(1).and_then(|index| self.slots.get(index));
        let Some(slot) = slot else { return Some(Ended::Already) };
        let mut cold = slot.cold();
        if cold.users == 0 || cold.instance != instance {
            return Some(Ended::Already);
        }
        let owner = cold.owner?;
        let same = (owner.subsystem, owner.hostnqn, owner.hostid);
        if same != (by.subsystem, by.hostnqn, by.hostid) {
            return None;
        }
        slot.kill(&mut cold, slot.life.load(Ordering::Acquire));
        Some(if cold.is_over() { Ended::Already } else { Ended::Soon })
    }

    /// Whether nothing of this instance is under way any more.
    pub(crate) fn is_ended(&self, icid: u16, instance: Instance) -> bool {
        let slot = usize::from(icid).checked_sub(1).and_then(|index| self.slots.get(index));
        slot.is_none_or(|slot| {
            let cold = slot.cold();
            cold.users == 0 || cold.instance != instance || cold.is_over()
        })
    }

    /// What tells this controller from others of its CNTLID.
    pub(crate) fn instance(&self, hold: Hold) -> Instance {
        self.slot(hold).cold().instance
    }

    /// Sets what the random numbers of instances are made of.
    pub(crate) fn seed(&self, seed: u64) {
        self.seed.store(seed, Ordering::Relaxed);
    }

    /// A number for the instance that is made as number `count`: splitmix64 of the seed.
    fn random(&self, count: usize) -> u64 {
        let count = (count as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.seed.load(Ordering::Relaxed).wrapping_add(count);
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Enables the controller: I/O queues may join.
    pub(crate) fn enable(&self, hold: Hold) {
        self.slot(hold).enabled.store(1, Ordering::Release);
    }

    /// Disables the controller: its I/O queues close, none may join.
    pub(crate) fn disable(&self, hold: Hold) {
        let slot = self.slot(hold);
        let mut cold = slot.cold();
        cold.wishes = Default::default();
        slot.wishes.store(0, Ordering::Relaxed);
        slot.enabled.store(0, Ordering::Release);
        slot.copy_formats.store(0, Ordering::Relaxed);
        slot.epoch.fetch_add(1, Ordering::Release);
    }

    /// Leaves a wish with an I/O queue: to abort its command `cid`. The place that it has.
    pub(crate) fn wish_abort(&self, hold: Hold, sqid: u16, cid: u16) -> Result<usize, WishError> {
        let slot = self.slot(hold);
        let mut cold = slot.cold();
        if sqid >= 128 || cold.queues & 1u128 << sqid == 0 {
            return Err(WishError::NoQueue);
        }
        let place = cold.wishes.iter().position(Option::is_none).ok_or(WishError::TooMany)?;
        cold.wishes[place] = Some(Wish { sqid, cid, aborted: None });
        slot.wishes.fetch_add(1, Ordering::Release);
        Ok(place)
    }

    /// The next wish for this I/O queue: its place, and the command. Cheap when there is none.
    pub(crate) fn next_wish(&self, hold: Hold) -> Option<(usize, u16)> {
        let slot = self.slot(hold);
        if slot.wishes.load(Ordering::Relaxed) == 0 || !hold.owns_qid {
            return None;
        }
        let cold = slot.cold();
        if slot.epoch.load(Ordering::Acquire) != hold.epoch {
            return None; // It was reset: the wishes are of its queues to come.
        }
        let mine = |wish: &Wish| wish.sqid == hold.qid && wish.aborted.is_none();
        let mut wishes = cold.wishes.iter().enumerate();
        wishes.find_map(|(place, wish)| wish.filter(mine).map(|wish| (place, wish.cid)))
    }

    /// Says what came of a wish. A reset meanwhile has taken it away, and a later one may be there.
    pub(crate) fn grant_wish(&self, hold: Hold, place: usize, aborted: bool) {
        let slot = self.slot(hold);
        let mut cold = slot.cold();
        let live = slot.epoch.load(Ordering::Acquire) == hold.epoch;
        if let Some(wish) = cold.wishes[place].as_mut().filter(|_| live) {
            assert!(wish.sqid == hold.qid && wish.aborted.is_none(), "a wish is granted once");
            wish.aborted = Some(aborted);
            slot.wishes.fetch_sub(1, Ordering::Release);
        }
    }

    /// What came of a wish, once that is known.
    pub(crate) fn take_abort(&self, hold: Hold, place: usize) -> Option<bool> {
        let mut cold = self.slot(hold).cold();
        let aborted = cold.wishes[place].expect("the admin queue knows its wishes").aborted;
        if aborted.is_some() {
            cold.wishes[place] = None;
        }
        aborted
    }

    /// Sets how many I/O queues may join; `None` when some already have.
    pub(crate) fn grant_queues(&self, hold: Hold, count: u16) -> Option<u16> {
        let mut cold = self.slot(hold).cold();
        if cold.queues != 0 {
            return None;
        }
        cold.queues_granted = count.clamp(1, IO_QUEUES_MAX);
        Some(cold.queues_granted)
    }

    /// The host has proven who it is: the hold it has from now on, or `None` when another queue of
    /// it has the QID by now.
    pub(crate) fn proven(&self, hold: Hold) -> Option<Hold> {
        let slot = self.slot(hold);
        let mut cold = slot.cold();
        if hold.qid == 0 {
            if slot.life.load(Ordering::Acquire) == hold.life
                && let Some(identity) = &mut cold.identity
            {
                identity.standing = Standing::Proven;
            }
            return Some(hold);
        }
        let bit = 1u128 << hold.qid;
        let taken = cold.queues & bit != 0;
        cold.queues |= bit;
        (!taken).then_some(Hold { owns_qid: true, ..hold })
    }

    /// How many I/O queues may join.
    pub(crate) fn queues_granted(&self, hold: Hold) -> u16 {
        self.slot(hold).cold().queues_granted
    }

    /// The host was heard on one of its queues.
    pub(crate) fn seen(&self, hold: Hold, now: Instant) {
        let last = &self.slot(hold).last_seen_ns;
        if now.as_ns() > last.load(Ordering::Relaxed) + SEEN_GRANULARITY_NS {
            last.store(now.as_ns(), Ordering::Relaxed);
        }
    }

    pub(crate) fn kato_ms(&self, hold: Hold) -> u32 {
        self.slot(hold).kato_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn set_kato_ms(&self, hold: Hold, kato_ms: u32) {
        self.slot(hold).kato_ms.store(kato_ms, Ordering::Relaxed);
    }

    /// Formats of Copy's descriptors that the host enabled, a bit each.
    pub(crate) fn copy_formats(&self, hold: Hold) -> u32 {
        self.slot(hold).copy_formats.load(Ordering::Relaxed)
    }

    pub(crate) fn set_copy_formats(&self, hold: Hold, formats: u32) {
        self.slot(hold).copy_formats.store(formats, Ordering::Relaxed);
    }

    /// Notes a command that failed.
    pub(crate) fn note_failure(&self, hold: Hold, failure: Failure) {
        lock(&self.slot(hold).errors).note(failure);
    }

    /// The commands of the controller that failed.
    pub(crate) fn errors(&self, hold: Hold) -> MutexGuard<'_, ErrorLog> {
        lock(&self.slot(hold).errors)
    }

    /// Adds what a connection counted.
    pub(crate) fn add_traffic(&self, hold: Hold, traffic: &Traffic) {
        lock(&self.slot(hold).traffic).add(traffic);
    }

    /// What went through the controller.
    pub(crate) fn traffic(&self, hold: Hold) -> Traffic {
        *lock(&self.slot(hold).traffic)
    }

    /// When the controller was made.
    pub(crate) fn created(&self, hold: Hold) -> Instant {
        Instant::from_ns(self.slot(hold).created_ns.load(Ordering::Relaxed))
    }

    /// Whether the host was heard on any of its queues since `start`.
    pub(crate) fn heard_since(&self, hold: Hold, start: Instant) -> bool {
        let last = self.slot(hold).last_seen_ns.load(Ordering::Relaxed);
        last.saturating_add(SEEN_GRANULARITY_NS) > start.as_ns()
    }

    /// Events that came up since the last call.
    pub(crate) fn take_events(&self, hold: Hold) -> u32 {
        let events = &self.slot(hold).events;
        if events.load(Ordering::Relaxed) == 0 { 0 } else { events.swap(0, Ordering::Acquire) }
    }

    /// The namespaces that changed; forgotten when `clear`.
    pub(crate) fn changed_namespaces(&self, hold: Hold, clear: bool) -> NsidSet {
        let mut cold = self.slot(hold).cold();
        let changed = cold.changed;
        if clear {
            cold.changed = NsidSet::default();
        }
        changed
    }

    /// Tells each live controller its news.
    pub(crate) fn notify(&self, news: impl Fn(&Identity) -> News) {
        for slot in &self.slots {
            let mut cold = slot.cold();
            if let Some(identity) = &cold.identity {
                let News { events, changed } = news(identity);
                cold.changed.extend(&changed);
                slot.events.fetch_or(events, Ordering::Release);
            }
        }
    }

    /// Which host a request comes from. A request that is under way keeps its controller's slot, so
    /// the answer is about who sent it.
    pub(crate) fn host_of(&self, client: Client) -> Option<HostId> {
        let slot = self.slots.get(usize::from(client.0).checked_sub(1)?)?;
        let mut host = HostId([0; 16]);
        for (bytes, half) in host.0.as_chunks_mut::<8>().0.iter_mut().zip(&slot.hostid) {
            *bytes = half.load(Ordering::Relaxed).to_le_bytes();
        }
        Some(host)
    }

    /// Tells the controllers of a host that something was reserved or released. `nsid` says what
    /// their subsystem calls it.
    pub(crate) fn notify_reservation(
        &self,
        host: HostId,
        notice: Notice,
        nsid: impl Fn(&Identity) -> Option<u32>,
    ) {
        for slot in &self.slots {
            let mut cold = slot.cold();
            let Some(identity) = cold.identity.filter(|identity| identity.hostid == host) else {
                continue;
            };
            if nsid(&identity).is_some_and(|nsid| cold.inbox.push(nsid, notice)) {
                slot.events.fetch_or(EVENT_RESERVATION, Ordering::Release);
            }
        }
    }

    /// What a controller is told of reservations.
    pub(crate) fn with_inbox<T>(&self, hold: Hold, act: impl FnOnce(&mut Inbox) -> T) -> T {
        let slot = self.slot(hold);
        let mut cold = slot.cold();
        let result = act(&mut cold.inbox);
        // What still waits is announced again, as soon as the page was read.
        if !cold.inbox.is_empty() {
            slot.events.fetch_or(EVENT_RESERVATION, Ordering::Release);
        }
        result
    }

    /// Ends every controller whose host or subsystem `allowed` refuses.
    pub(crate) fn expel(&self, allowed: impl Fn(&Identity) -> bool) {
        for slot in &self.slots {
            let mut cold = slot.cold();
            if cold.identity.is_some_and(|identity| !allowed(&identity)) {
                let life = slot.life.load(Ordering::Acquire);
                slot.kill(&mut cold, life);
            }
        }
    }

    /// Every live controller, but for those whose host has not proven yet who it is.
    pub(crate) fn sessions(&self) -> Vec<Session> {
        let live = self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let cold = slot.cold();
            let identity = cold.identity.filter(|who| who.standing != Standing::Pending)?;
            Some(Session {
                cntlid: u16::try_from(index + 1).ok()?,
                subsystem: identity.subsystem,
                hostnqn: identity.hostnqn,
                hostid: identity.hostid,
                peer: identity.peer,
                io_queues: cold.queues.count_ones(),
                kato_ms: slot.kato_ms.load(Ordering::Relaxed),
            })
        });
        live.collect()
    }

    fn slot(&self, hold: Hold) -> &Slot {
        &self.slots[hold.index]
    }
}

impl Slot {
    fn cold(&self) -> MutexGuard<'_, Cold> {
        lock(&self.cold)
    }

    /// What a connection that joins now remembers. The caller holds the mutex.
    fn hold(&self, index: usize, qid: u16) -> Hold {
        let epoch = self.epoch.load(Ordering::Acquire);
        let life = self.life.load(Ordering::Acquire);
        Hold { index, epoch, life, qid, owns_qid: false }
    }

    /// Ends the life that the caller knew; a later one in the same slot is left alone.
    fn kill(&self, cold: &mut Cold, life: u32) {
        if self.life.load(Ordering::Acquire) != life || cold.identity.is_none() {
            return;
        }
        cold.identity = None;
        self.enabled.store(0, Ordering::Release);
        self.life.fetch_add(1, Ordering::Release);
        self.epoch.fetch_add(1, Ordering::Release);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding it")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4420);

    fn identity(host: &str) -> Identity {
        let subsystem = Some(Nqn::new("nqn.2026-11.io.example:vol").unwrap());
        let hostnqn = Nqn::new(host).unwrap();
        let (peer, local, standing) = (None, LOCAL, Standing::Open);
        Identity { subsystem, hostnqn, hostid: HostId([1; 16]), peer, local, standing }
    }

    #[test]
    fn controller_dies_with_its_admin_queue_and_takes_its_io_queues_along() {
        let registry = Registry::new();
        let host = identity("nqn.host:a");
        let admin = registry.create(host, 0, Instant::ZERO).unwrap();
        assert_eq!(registry.join(admin.cntlid(), 1, &host), Err(JoinError::NotEnabled));
        registry.enable(admin);
        let io = registry.join(admin.cntlid(), 1, &host).unwrap();
        assert_eq!(registry.join(admin.cntlid(), 1, &host), Err(JoinError::QidTaken));
        assert_eq!(
            registry.join(admin.cntlid(), 2, &identity("nqn.host:b")),
            Err(JoinError::OtherHost)
        );
        assert!(registry.is_live(io));
        registry.leave(admin);
        assert!(!registry.is_live(io));
        assert_eq!(registry.join(admin.cntlid(), 2, &host), Err(JoinError::NoController));
        registry.release(io);
        registry.leave(io);
        assert!(registry.sessions().is_empty());
    }

    #[test]
    fn a_queue_that_is_not_proven_keeps_nobody_from_its_place() {
        let registry = Registry::new();
        let host = Identity { standing: Standing::Pending, ..identity("nqn.host:a") };
        let admin = registry.create(host, 0, Instant::ZERO).unwrap();
        assert!(registry.sessions().is_empty());
        registry.proven(admin).unwrap();
        registry.enable(admin);
        let thief = registry.join(admin.cntlid(), 1, &host).unwrap();
        let owner = registry.join(admin.cntlid(), 1, &host).unwrap();
        let owner = registry.proven(owner).unwrap();
        assert_eq!(registry.sessions()[0].io_queues, 1);
        assert_eq!(registry.proven(thief), None);
        registry.release(thief);
        registry.leave(thief);
        assert_eq!(registry.join(admin.cntlid(), 1, &host), Err(JoinError::QidTaken));
        registry.release(owner);
        registry.leave(owner);
        let again = registry.join(admin.cntlid(), 1, &host).unwrap();
        assert!(registry.proven(again).is_some());
    }

    #[test]
    fn slot_is_not_reused_while_an_old_queue_still_names_it() {
        let registry = Registry::new();
        let host = identity("nqn.host:a");
        let mut holds = Vec::new();
        for _ in 0..CONTROLLERS_MAX {
            holds.push(registry.create(host, 0, Instant::ZERO).unwrap());
        }
        assert_eq!(registry.create(host, 0, Instant::ZERO), None);
        let first = holds[0];
        registry.enable(first);
        let io = registry.join(first.cntlid(), 1, &host).unwrap();
        registry.leave(first);
        assert_eq!(registry.create(host, 0, Instant::ZERO), None);
        registry.leave(io);
        assert!(registry.create(host, 0, Instant::ZERO).is_some());
    }

    #[test]
    fn reset_closes_io_queues_and_keeps_the_admin_queue() {
        let registry = Registry::new();
        let host = identity("nqn.host:a");
        let admin = registry.create(host, 5000, Instant::ZERO).unwrap();
        registry.enable(admin);
        let io = registry.join(admin.cntlid(), 3, &host).unwrap();
        registry.disable(admin);
        assert!(registry.is_live(admin) && !registry.is_live(io));
        assert!(!registry.is_quiet(admin), "it may still have requests at a device");
        registry.release(io);
        assert!(registry.is_quiet(admin));
        assert_eq!(registry.kato_ms(admin), 5000);
    }
}
