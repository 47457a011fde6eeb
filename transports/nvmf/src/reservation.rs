//! Reservation commands, features and log page: from NVMe to the commands of crate `reservation`.
//!
//! A command goes, as a request with its words in a buffer, to whoever owns the volume; nothing is
//! decided here. Who asks is the host identifier of the controller: all controllers of a host are
//! one.

use bdev::{BufMut, Op, Request, Tag};
use nvme_spec::reservation::{
    EXTENDED, IGNORE_KEY, PERSISTS, RegistrantStatus, ReservationKeys, ReservationNotification,
    ReservationStatus, acquire_action, change_persistence, register_action, release_action, rescap,
};
use nvme_spec::{NvmeStatus, Sqe, StatusCode, U16, U32, U64, feature, opcode};
use reservation::{Action, Command as Wish, Host, IMAGE_LEN, Notice, Table, Type};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::command::{Command, Phase, Plan, Segment, Transfer, Work};
use crate::config::Namespace;
use crate::connection::{Connection, Cx};
use crate::framer::narrow;
use crate::limits::{NAMESPACES_MAX, RESERVATION_NOTICES_MAX, TRANSFER_MAX};
use crate::{HostId, NamespaceHandle};

/// CNTLID of a registrant in a report: controllers are dynamic.
const CNTLID_ANY: u16 = 0xffff;

/// Bits of the Reservation Notification Mask that mean something.
const MASK_BITS: u32 = 0b1110;

/// RESCAP of a namespace.
//= NVMe-Base 2.1 §8.1.22
//# RESCAP says which types there are, whether they persist, and how IEKEY is used
pub(crate) fn capabilities(namespace: &Namespace) -> u8 {
    let persists = if namespace.reach.persists { rescap::PERSISTS } else { 0 };
    rescap::ALL_TYPES | rescap::IGNORE_KEY_1_3 | persists
}

/// What a reservation command needs, or why it is refused.
pub(crate) fn plan(sqe: &Sqe, plan: Plan) -> Result<Plan, NvmeStatus> {
    let transfer = match sqe.opcode {
        opcode::nvm::RESERVATION_REPORT => report_transfer(sqe)?,
        opcode::nvm::RESERVATION_RELEASE => Transfer::FromHost(8),
        _ => Transfer::FromHost(16),
    };
    // With any keys: whether the other fields make sense does not depend on them.
    action_of(sqe, 1, 1)?;
    Ok(Plan { transfer, scratch: narrow(IMAGE_LEN), ..plan })
}

//= NVMe-Base 2.1 §7.8
//# with host identifiers of 128 bits a report without EDS is aborted with Host Identifier
//# Inconsistent Format
fn report_transfer(sqe: &Sqe) -> Result<Transfer, NvmeStatus> {
    if sqe.cdw11.get() & EXTENDED == 0 {
        return Err(NvmeStatus::never(StatusCode::HOST_ID_INCONSISTENT));
    }
    let len = sqe.cdw10.get().checked_add(1).and_then(|dwords| dwords.checked_mul(4));
    let len = len.filter(|&len| len <= TRANSFER_MAX);
    Ok(Transfer::ToHost(len.ok_or(NvmeStatus::never(StatusCode::INVALID_FIELD))?))
}

/// What a command asks for, and the change of persistence that comes with it.
fn action_of(sqe: &Sqe, key: u64, other: u64) -> Result<(Action, Option<bool>), NvmeStatus> {
    let invalid = NvmeStatus::never(StatusCode::INVALID_FIELD);
    let word = sqe.cdw10.get();
    let (what, ignores) = (word & 7, word & IGNORE_KEY != 0);
    let kind = Type::from_raw(word.to_le_bytes()[1]);
    if sqe.opcode == opcode::nvm::RESERVATION_REGISTER {
        let key = (!ignores).then_some(key);
        let action = match what {
            register_action::REGISTER => Action::Register { new: other },
            register_action::UNREGISTER => Action::Unregister { key },
            register_action::REPLACE => Action::Replace { key, new: other },
            _ => return Err(invalid),
        };
        //= NVMe-Base 2.1 §7.6
        //# CPTPL 01b is reserved
        let persist = match word >> 30 {
            change_persistence::NO => None,
            change_persistence::CLEAR => Some(false),
            change_persistence::SET => Some(true),
            _ => return Err(invalid),
        };
        return Ok((action, persist));
    }
    if sqe.opcode == opcode::nvm::RESERVATION_REPORT {
        return Ok((Action::Report, None));
    }
    //= NVMe-Base 2.1 §7.5
    //# IEKEY set is an invalid field of Acquire and Release
    if ignores {
        return Err(invalid);
    }
    let action = match (sqe.opcode, what) {
        (opcode::nvm::RESERVATION_RELEASE, release_action::CLEAR) => Action::Clear { key },
        (opcode::nvm::RESERVATION_RELEASE, release_action::RELEASE) => {
            Action::Release { key, kind: kind.ok_or(invalid)? }
        }
        (opcode::nvm::RESERVATION_ACQUIRE, acquire_action::ACQUIRE) => {
            Action::Acquire { key, kind: kind.ok_or(invalid)? }
        }
        (opcode::nvm::RESERVATION_ACQUIRE, acquire_action::PREEMPT) => {
            Action::Preempt { key, kind: kind.ok_or(invalid)?, victim: other, abort: false }
        }
        (opcode::nvm::RESERVATION_ACQUIRE, acquire_action::PREEMPT_AND_ABORT) => {
            Action::Preempt { key, kind: kind.ok_or(invalid)?, victim: other, abort: true }
        }
        _ => return Err(invalid),
    };
    Ok((action, None))
}

/// What a Set or Get Features of Reservation Persistence asks for.
fn persistence_of(sqe: &Sqe) -> (Action, Option<bool>) {
    match sqe.opcode {
        opcode::admin::SET_FEATURES => (Action::Persist, Some(sqe.cdw11.get() & PERSISTS != 0)),
        _ => (Action::Report, None),
    }
}

/// The request of a command whose data is there.
pub(crate) fn next_request(
    command: &mut Command,
    host: Option<HostId>,
    tag: Tag,
) -> Result<(NamespaceHandle, Request), NvmeStatus> {
    //= NVMe-Base 2.1 §8.1.22
    //# a host without an identifier cannot use reservations
    let host = host.filter(|host| host.0 != [0; 16]);
    let host = host.ok_or(NvmeStatus::never(StatusCode::COMMAND_SEQUENCE_ERROR))?;
    let Segment::Filling(mut buf) = std::mem::take(&mut command.segment) else {
        unreachable!("a reservation command has its buffer")
    };
    let (action, persist) = match command.plan.transfer {
        Transfer::None => persistence_of(&command.sqe),
        transfer => {
            let keys = ReservationKeys::read_from_prefix(buf.bytes()).expect("a page").0;
            let other = if transfer == Transfer::FromHost(16) { keys.other.get() } else { 0 };
            action_of(&command.sqe, keys.crkey.get(), other).expect("checked when it arrived")
        }
    };
    Wish { host: Host(host.0), action, persist }.encode(buf.bytes_mut());
    Ok((command.plan.handle, Request::reserve(tag, buf)))
}

/// Turns what a report carries into what the host asked for. The result is DW0.
pub(crate) fn finish(command: &Command, buf: &mut BufMut) -> Result<u32, NvmeStatus> {
    let len = match command.plan.transfer {
        Transfer::ToHost(len) => Some(len as usize),
        Transfer::None if command.sqe.opcode == opcode::admin::GET_FEATURES => None,
        _ => return Ok(0),
    };
    let volume = buf.bytes()[8..24].first_chunk().copied().unwrap_or_default();
    let unknown = NvmeStatus::again(StatusCode::INTERNAL_ERROR);
    let table = Table::decode(volume, buf.bytes()).ok_or(unknown)?;
    if let Some(len) = len {
        fill_report(&table, &mut buf.bytes_mut()[..len]);
        return Ok(0);
    }
    Ok(u32::from(table.persists()))
}

//= NVMe-Base 2.1 §7.8
//# as much of the structure as fits what the host asked for; the count is that of all
fn fill_report(table: &Table, page: &mut [u8]) {
    page.fill(0);
    let mut head = ReservationStatus::new_zeroed();
    head.generation = U32::new(table.generation());
    head.rtype = table.kind().map_or(0, |kind| kind as u8);
    let count = u16::try_from(table.registrants().len()).expect("at most REGISTRANTS_MAX");
    head.registrants = U16::new(count);
    head.ptpls = u8::from(table.persists());
    let heads = std::iter::once(*head.as_bytes().first_chunk::<64>().expect("64 bytes"));
    let entries = table.registrants().iter().map(|registrant| {
        let mut entry = RegistrantStatus::new_zeroed();
        entry.cntlid = U16::new(CNTLID_ANY);
        entry.rcsts = u8::from(table.holds(registrant.host));
        entry.rkey = U64::new(registrant.key);
        entry.hostid = registrant.host.0;
        *entry.as_bytes().first_chunk::<64>().expect("64 bytes")
    });
    for (place, bytes) in page.chunks_mut(64).zip(heads.chain(entries)) {
        place.copy_from_slice(&bytes[..place.len()]);
    }
}

/// What a controller is told of reservations: masks and waiting notifications. It lives with the
/// controller, which any shard may have something to tell.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// Reservation Notification Mask, by NSID.
    masks: [u8; NAMESPACES_MAX as usize + 1],
    /// What waits, the oldest first.
    waiting: [(u64, Option<Notice>, u32); RESERVATION_NOTICES_MAX],
    len: usize,
    /// Notifications so far.
    count: u64,
}

impl Default for Inbox {
    fn default() -> Inbox {
        let waiting = [(0, None, 0); RESERVATION_NOTICES_MAX];
        Inbox { masks: [0; NAMESPACES_MAX as usize + 1], waiting, len: 0, count: 0 }
    }
}

impl Inbox {
    /// Takes a notification, unless it is masked. When there are too many the oldest goes: the
    /// gap in the numbers tells.
    //= NVMe-Base 2.1 §8.1.22
    //# each notification that is not masked becomes a log page, with a number of its own
    pub(crate) fn push(&mut self, nsid: u32, notice: Notice) -> bool {
        let masked = self.masks.get(nsid as usize).is_none_or(|mask| mask >> notice as u8 & 1 == 1);
        if masked {
            return false;
        }
        if self.len == self.waiting.len() {
            self.waiting.copy_within(1.., 0);
            self.len -= 1;
        }
        self.count += 1;
        self.waiting[self.len] = (self.count, Some(notice), nsid);
        self.len += 1;
        true
    }

    /// The oldest notification, which is forgotten when `take`; an empty one when there is none.
    pub(crate) fn read(&mut self, take: bool) -> ReservationNotification {
        let mut page = ReservationNotification::new_zeroed();
        if let (count, Some(notice), nsid) = self.waiting[0]
            && self.len > 0
        {
            page.count = U64::new(count);
            page.kind = notice as u8;
            page.available = u8::try_from(self.len - 1).unwrap_or(u8::MAX);
            page.nsid = U32::new(nsid);
            if take {
                self.waiting.copy_within(1.., 0);
                self.len -= 1;
            }
        }
        page
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn mask(&self, nsid: u32) -> u32 {
        self.masks.get(nsid as usize).map_or(0, |&mask| u32::from(mask))
    }

    fn set_mask(&mut self, nsid: u32, mask: u32) {
        let mask = u8::try_from(mask & MASK_BITS).expect("four bits");
        match self.masks.get_mut(nsid as usize) {
            Some(place) => *place = mask,
            None => self.masks.fill(mask),
        }
    }
}

/// NSID of all namespaces.
const ALL: u32 = u32::MAX;

impl Connection {
    /// Get or Set Features of Reservation Notification Mask and Reservation Persistence.
    //= NVMe-Base 2.1 §5.1.25
    //# both features are a namespace's; FFFFFFFFh sets them for all, and is invalid to get them
    pub(crate) fn reservation_feature(&mut self, cx: Cx<'_>, key: u32, sqe: &Sqe, default: bool) {
        let sets = sqe.opcode == opcode::admin::SET_FEATURES;
        let queue = self.queue.as_ref().expect("an admin queue is connected");
        let view = queue.subsystem.as_ref().expect("an I/O controller has its subsystem");
        let nsid = sqe.nsid.get();
        let namespace = match view.namespace(nsid) {
            None if sets && nsid == ALL => view.namespaces().next(),
            found => found,
        };
        let Some(namespace) = namespace else {
            if sets && nsid == ALL {
                return self.answer(key, NvmeStatus::SUCCESS);
            }
            return self.answer(key, NvmeStatus::never(StatusCode::INVALID_NAMESPACE));
        };
        let (handle, first) = (namespace.handle, namespace.nsid);
        if default {
            return self.answer(key, NvmeStatus::SUCCESS);
        }
        let [fid, ..] = sqe.cdw10.get().to_le_bytes();
        if fid == feature::RESERVATION_MASK {
            let registry = self.target.registry();
            let mut mask = sqe.cdw11.get() & MASK_BITS;
            match sets {
                true => registry.with_inbox(queue.hold, |inbox| inbox.set_mask(nsid, mask)),
                false => mask = registry.with_inbox(queue.hold, |inbox| inbox.mask(nsid)),
            }
            return self.answer_with(key, NvmeStatus::SUCCESS, mask, 0);
        }
        // It is the volume's: asked where the volume lives.
        let Some(buf) = self.take_buffer(cx, IMAGE_LEN) else {
            return self.answer(key, NvmeStatus::again(StatusCode::COMMAND_INTERRUPTED));
        };
        let command = self.commands.get_mut(key).expect("ready commands exist");
        command.held = buf.capacity();
        command.segment = Segment::Filling(buf);
        let (op, work) = (Op::Reserve, Work::Reserve);
        command.plan = Plan { handle, op, work, ..Plan::admin(Transfer::None) };
        command.steps.range = first;
        self.ready.push(key).expect("one entry per command");
    }

    /// Goes on with the next namespace of a Set Features for all; false when there is none.
    pub(crate) fn next_reserved(&mut self, key: u32, buf: BufMut) -> Option<BufMut> {
        let command = self.commands.get_mut(key).expect("finished commands exist");
        let view = self.queue.as_ref().and_then(|queue| queue.subsystem.as_ref());
        let next = match (command.plan.transfer, command.sqe.nsid.get(), view) {
            (Transfer::None, ALL, Some(view)) => {
                view.namespaces().find(|namespace| namespace.nsid > command.steps.range)
            }
            _ => None,
        };
        let Some(next) = next else { return Some(buf) };
        (command.steps.range, command.plan.handle) = (next.nsid, next.handle);
        command.segment = Segment::Filling(buf);
        command.phase = Phase::Ready;
        self.ready.push(key).expect("one entry per command");
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inbox_keeps_the_newest_and_numbers_all() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.read(true).count.get(), 0);
        inbox.set_mask(2, 1 << Notice::ReservationReleased as u8);
        assert!(!inbox.push(2, Notice::ReservationReleased));
        assert!(!inbox.push(NAMESPACES_MAX + 1, Notice::ReservationReleased));
        for _ in 0..=RESERVATION_NOTICES_MAX {
            assert!(inbox.push(2, Notice::RegistrationPreempted));
        }
        assert_eq!(inbox.read(false).count.get(), 2);
        let first = inbox.read(true);
        let left = u8::try_from(RESERVATION_NOTICES_MAX - 1).unwrap();
        assert_eq!((first.count.get(), first.kind, first.available), (2, 1, left));
        (0..left).for_each(|_| assert_ne!(inbox.read(true).count.get(), 0));
        assert!(inbox.is_empty());
        inbox.set_mask(ALL, MASK_BITS);
        assert_eq!(inbox.mask(7), MASK_BITS);
    }

    #[test]
    fn report_is_cut_where_the_host_asked_for_no_more() {
        let mut table = Table::new();
        for host in 1..=3 {
            let (host, action) = (Host([host; 16]), Action::Register { new: u64::from(host) });
            let wish = Wish { host, action, persist: None };
            table.apply(&wish, &mut reservation::Notices::new()).unwrap();
        }
        let mut page = [0xee; 256 + 8];
        fill_report(&table, &mut page[..100]);
        assert_eq!((page[5], page[64], page[65], page[72]), (3, 0xff, 0xff, 1));
        assert_eq!(page[80..100], [&[1; 16][..], &[0; 4]].concat());
        assert_eq!(page[100], 0xee);
        fill_report(&table, &mut page);
        assert_eq!(page[200], 3);
        assert_eq!(page[256..], [0; 8]);
    }
}
