//! The registrants of one volume, its reservation, and what may be done to both.

use std::fmt;

use crate::command::{Action, Command};
use crate::notice::{Notice, Notices};

/// Registrants of one volume at most: twice as many as the largest cluster file systems have hosts.
///
/// One more is refused with [`Refusal::Full`].
pub const REGISTRANTS_MAX: usize = 128;

/// A host, by what it calls itself: NVMe's host identifier. A host has one, however many
/// controllers it is connected to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(pub [u8; 16]);

/// A host that has registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registrant {
    /// Who.
    pub host: Host,
    /// With which key: never zero; others may have the same one.
    pub key: u64,
}

/// The types of reservations, numbered as in NVMe.
//= NVMe-Base 2.1 §8.1.22
//# six types: exclusive for writes or for all access; for the holder, for all registrants, or held
//# by all registrants
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Type {
    /// The holder alone writes; everybody reads.
    WriteExclusive = 1,
    /// The holder alone reads and writes.
    ExclusiveAccess = 2,
    /// Registrants write; everybody reads.
    WriteExclusiveRegistrants = 3,
    /// Registrants read and write.
    ExclusiveAccessRegistrants = 4,
    /// Registrants write, and each of them is a holder; everybody reads.
    WriteExclusiveAll = 5,
    /// Registrants read and write, and each of them is a holder.
    ExclusiveAccessAll = 6,
}

impl Type {
    /// Every type, in the order of its number.
    pub const ALL: [Type; 6] = [
        Type::WriteExclusive,
        Type::ExclusiveAccess,
        Type::WriteExclusiveRegistrants,
        Type::ExclusiveAccessRegistrants,
        Type::WriteExclusiveAll,
        Type::ExclusiveAccessAll,
    ];

    /// The type with this number.
    pub fn from_raw(raw: u8) -> Option<Type> {
        Type::ALL.into_iter().find(|kind| *kind as u8 == raw)
    }

    /// Whether every registrant is a holder.
    pub fn is_held_by_all(self) -> bool {
        matches!(self, Type::WriteExclusiveAll | Type::ExclusiveAccessAll)
    }

    /// Whether a registrant may what it covers, although somebody else holds it.
    fn admits_registrants(self) -> bool {
        !matches!(self, Type::WriteExclusive | Type::ExclusiveAccess)
    }

    fn covers(self, access: Access) -> bool {
        let reads = matches!(
            self,
            Type::ExclusiveAccess | Type::ExclusiveAccessRegistrants | Type::ExclusiveAccessAll
        );
        access == Access::Write || reads
    }
}

/// What somebody wants to do with the blocks of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read, compare, verify.
    Read,
    /// Change anything, or make changes durable.
    Write,
}

/// Why a command was refused. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The host is no registrant, or its key another, or the reservation somebody else's.
    Conflict,
    /// The command makes no sense.
    Invalid,
    /// There are [`REGISTRANTS_MAX`] registrants.
    Full,
}

/// All that there is to know of the reservation of one volume.
#[derive(Clone, PartialEq, Eq)]
pub struct Table {
    pub(crate) generation: u32,
    /// Registrations and reservation outlive a power cut.
    pub(crate) persists: bool,
    pub(crate) kind: Option<Type>,
    /// Which registrant holds it; zero when all do, or there is none.
    pub(crate) holder: usize,
    pub(crate) registrants: [Registrant; REGISTRANTS_MAX],
    pub(crate) len: usize,
}

impl Table {
    /// Nobody is registered.
    pub fn new() -> Table {
        Table {
            generation: 0,
            persists: false,
            kind: None,
            holder: 0,
            registrants: [Registrant::default(); REGISTRANTS_MAX],
            len: 0,
        }
    }

    /// The hosts that are registered, in the order of their registration.
    pub fn registrants(&self) -> &[Registrant] {
        &self.registrants[..self.len]
    }

    /// The type of the reservation, if there is one.
    pub fn kind(&self) -> Option<Type> {
        self.kind
    }

    /// Whether this host holds the reservation, alone or with others.
    pub fn holds(&self, host: Host) -> bool {
        self.find(host).is_some_and(|index| self.holds_at(index))
    }

    /// How often registrations were changed: it wraps.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether registrations and reservation are to outlive a restart.
    pub fn persists(&self) -> bool {
        self.persists
    }

    /// Whether nothing would be lost with the table.
    pub fn is_blank(&self) -> bool {
        self.len == 0 && !self.persists && self.generation == 0
    }

    /// Whether this host may do this now.
    //= NVMe-Base 2.1 §8.1.22
    //# reads conflict with exclusive access, writes with every type, unless the host holds the
    //# reservation or is a registrant and the type is for registrants
    pub fn allows(&self, host: Host, access: Access) -> bool {
        let Some(kind) = self.kind else { return true };
        if !kind.covers(access) {
            return true;
        }
        match self.find(host) {
            Some(index) => kind.admits_registrants() || index == self.holder,
            None => false,
        }
    }

    /// Runs a command, and says who is to be told of it.
    ///
    /// # Errors
    /// When it is refused: then nothing has changed.
    pub fn apply(&mut self, command: &Command, notices: &mut Notices) -> Result<(), Refusal> {
        let host = command.host;
        match command.action {
            Action::Report => return Ok(()),
            Action::Persist => (),
            Action::Register { new } => self.register(host, new)?,
            Action::Unregister { key } => {
                let index = self.registrant(host, key)?;
                self.remove(index, notices);
            }
            Action::Replace { key, new } => {
                let index = self.registrant(host, key)?;
                self.registrants[index].key = some_key(new)?;
            }
            Action::Acquire { key, kind } => {
                let index = self.registrant(host, Some(key))?;
                return self.acquire(index, kind);
            }
            Action::Preempt { key, kind, victim, abort: _ } => {
                let index = self.registrant(host, Some(key))?;
                self.preempt(index, kind, victim, notices)?;
            }
            Action::Release { key, kind } => {
                let index = self.registrant(host, Some(key))?;
                return self.release(index, kind, notices);
            }
            Action::Clear { key } => {
                self.registrant(host, Some(key))?;
                self.clear(Some(host), notices);
            }
            Action::Evict => self.clear(None, notices),
        }
        if let Some(persists) = command.persist {
            self.persists = persists;
        }
        //= NVMe-Base 2.1 §8.1.22
        //# the generation counts Register, Clear and Preempt, not Acquire and Release
        if command.action != Action::Persist {
            self.generation = self.generation.wrapping_add(1);
        }
        Ok(())
    }

    //= NVMe-Base 2.1 §7.6
    //# a registrant that registers another key is a conflict
    fn register(&mut self, host: Host, new: u64) -> Result<(), Refusal> {
        let new = some_key(new)?;
        if let Some(index) = self.find(host) {
            let same = self.registrants[index].key == new;
            return if same { Ok(()) } else { Err(Refusal::Conflict) };
        }
        let place = self.registrants.get_mut(self.len).ok_or(Refusal::Full)?;
        *place = Registrant { host, key: new };
        self.len += 1;
        Ok(())
    }

    //= NVMe-Base 2.1 §7.5
    //# acquiring what the host holds already succeeds when the type is the same
    fn acquire(&mut self, index: usize, kind: Type) -> Result<(), Refusal> {
        match self.kind {
            None => self.take(index, kind),
            Some(current) if current == kind && self.holds_at(index) => (),
            Some(_) => return Err(Refusal::Conflict),
        }
        Ok(())
    }

    //= NVMe-Base 2.1 §8.1.22
    //# the holder's key takes its place; zero takes the place of all who hold it together; another
    //# key only unregisters
    fn preempt(
        &mut self,
        index: usize,
        kind: Type,
        victim: u64,
        notices: &mut Notices,
    ) -> Result<(), Refusal> {
        let own = self.registrants[index].host;
        let before = self.kind;
        match before {
            Some(current) if current.is_held_by_all() && victim == 0 => {
                self.remove_all(notices, |other| other.host != own);
                self.take_for(own, kind);
            }
            Some(current)
                if !current.is_held_by_all() && self.registrants[self.holder].key == victim =>
            {
                self.kind = None;
                self.remove_all(notices, |other| other.host != own && other.key == victim);
                self.take_for(own, kind);
                if before != Some(kind) {
                    self.tell_released(own, notices);
                }
            }
            Some(_) if victim == 0 => return Err(Refusal::Invalid),
            _ => {
                if !self.registrants().iter().any(|other| other.key == victim) {
                    return Err(Refusal::Conflict);
                }
                // The host's own registration goes, too, when it has that key; it knows of it.
                self.remove_all(notices, |other| other.key == victim && other.host != own);
                if let Some(index) = self.find(own).filter(|_| own_key_is(self, own, victim)) {
                    self.remove(index, notices);
                }
            }
        }
        Ok(())
    }

    //= NVMe-Base 2.1 §7.7
    //# a release by a host that holds nothing changes nothing; another type than the reservation's
    //# is an invalid field
    fn release(&mut self, index: usize, kind: Type, notices: &mut Notices) -> Result<(), Refusal> {
        let Some(current) = self.kind else { return Ok(()) };
        if !self.holds_at(index) {
            return Ok(());
        }
        if current != kind {
            return Err(Refusal::Invalid);
        }
        self.kind = None;
        if current.admits_registrants() {
            self.tell_released(self.registrants[index].host, notices);
        }
        Ok(())
    }

    fn clear(&mut self, by: Option<Host>, notices: &mut Notices) {
        for registrant in &self.registrants[..self.len] {
            if by != Some(registrant.host) {
                notices.push(registrant.host, Notice::ReservationPreempted);
            }
        }
        self.registrants[..self.len].fill(Registrant::default());
        (self.len, self.kind, self.holder) = (0, None, 0);
    }

    fn take_for(&mut self, host: Host, kind: Type) {
        let index = self.find(host).expect("who preempts stays registered");
        self.take(index, kind);
    }

    fn take(&mut self, index: usize, kind: Type) {
        (self.kind, self.holder) = (Some(kind), if kind.is_held_by_all() { 0 } else { index });
    }

    /// Removes registrants, and tells them so.
    fn remove_all(&mut self, notices: &mut Notices, which: impl Fn(&Registrant) -> bool) {
        let mut index = 0;
        while index < self.len {
            let registrant = self.registrants[index];
            if which(&registrant) {
                notices.push(registrant.host, Notice::RegistrationPreempted);
                self.remove_quietly(index);
            } else {
                index += 1;
            }
        }
        if self.len == 0 {
            self.kind = None;
        }
    }

    /// Removes one registrant by its own wish, and what it held.
    fn remove(&mut self, index: usize, notices: &mut Notices) {
        let host = self.registrants[index].host;
        let held = self.kind.filter(|kind| !kind.is_held_by_all() && index == self.holder);
        self.remove_quietly(index);
        if let Some(kind) = held {
            self.kind = None;
            if kind.admits_registrants() {
                self.tell_released(host, notices);
            }
        }
        if self.len == 0 {
            self.kind = None;
        }
    }

    fn remove_quietly(&mut self, index: usize) {
        self.registrants.copy_within(index + 1..self.len, index);
        self.len -= 1;
        self.registrants[self.len] = Registrant::default();
        self.holder = match self.holder {
            holder if holder > index => holder - 1,
            holder if holder < index => holder,
            _ => 0,
        };
    }

    /// Tells the registrants, except who did it, that the reservation was released.
    fn tell_released(&self, by: Host, notices: &mut Notices) {
        for registrant in self.registrants().iter().filter(|registrant| registrant.host != by) {
            notices.push(registrant.host, Notice::ReservationReleased);
        }
    }

    /// The place of a registrant whose key this is; without one, whatever its key is.
    fn registrant(&self, host: Host, key: Option<u64>) -> Result<usize, Refusal> {
        let index = self.find(host).ok_or(Refusal::Conflict)?;
        let right = key.is_none_or(|key| key == self.registrants[index].key);
        if right { Ok(index) } else { Err(Refusal::Conflict) }
    }

    fn holds_at(&self, index: usize) -> bool {
        self.kind.is_some_and(|kind| kind.is_held_by_all() || index == self.holder)
    }

    pub(crate) fn find(&self, host: Host) -> Option<usize> {
        self.registrants().iter().position(|registrant| registrant.host == host)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Table { generation, persists, kind, holder, .. } = self;
        write!(f, "generation {generation}, persists {persists}, {kind:?} of {holder}, ")?;
        f.debug_list().entries(self.registrants()).finish()
    }
}

impl Default for Table {
    fn default() -> Table {
        Table::new()
    }
}

fn own_key_is(table: &Table, host: Host, key: u64) -> bool {
    table.find(host).is_some_and(|index| table.registrants[index].key == key)
}

/// Zero is no key: preempting it means all registrants.
fn some_key(key: u64) -> Result<u64, Refusal> {
    if key == 0 { Err(Refusal::Invalid) } else { Ok(key) }
}
