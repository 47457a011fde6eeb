//! Cross-Controller Reset: a host that lost one path ends the controller behind it through another,
//! and learns when nothing of it is under way any more. Then it may write elsewhere.
//!
//! A controller is named by its CNTLID and the two numbers of its instance (CIU, CIRN), which only
//! its host knows from Identify. If it is gone the answer says so at once; otherwise it is ended,
//! the answer says that it takes time, and an entry of log 1Eh and an event tell the end.

use nvme_spec::{
    CrossResetEntry, CrossResetHeader, NvmeStatus, Sqe, StatusCode, U16, cross_reset_flags,
    cross_reset_status,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::connection::Connection;
use crate::controller::Kind;
use crate::limits::{CROSS_RESET_ENTRIES, CROSS_RESETS_MAX};
use crate::logs::Window;
use crate::registry::{Ended, Hold, Registry};

/// What tells one controller from another of the same CNTLID, earlier or later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Instance {
    /// CIU: never zero.
    pub(crate) ciu: u8,
    /// CIRN: never zero.
    pub(crate) cirn: u64,
}

impl Instance {
    /// The next instance after this one; `random` differs for each.
    pub(crate) fn next(self, random: u64) -> Instance {
        Instance { ciu: self.ciu.checked_add(1).unwrap_or(1), cirn: random.max(1) }
    }
}

/// DW0: the controller has been reset already.
const IMMEDIATE: u32 = 1;

/// ACID: no other controller to ask.
const NO_OTHER: u16 = 0xffff;

/// A reset that a controller caused.
#[derive(Clone, Copy, Debug)]
struct Caused {
    icid: u16,
    instance: Instance,
    done: bool,
}

/// The resets of other controllers that a controller caused: its log page 1Eh.
#[derive(Debug, Default)]
pub(crate) struct CrossResets {
    caused: [Option<Caused>; CROSS_RESET_ENTRIES],
}

impl CrossResets {
    fn in_progress(&self) -> impl Iterator<Item = &Caused> {
        self.caused.iter().flatten().filter(|caused| !caused.done)
    }

    /// Whether another one may be caused.
    //= NVMe-Base 2.3 §5.4.3
    //# one of a controller at a time, CCRL at once, and a place in the log for each
    fn check(&self, icid: u16) -> Result<(), NvmeStatus> {
        let code = if self.in_progress().any(|caused| caused.icid == icid) {
            StatusCode::CROSS_RESET_IN_PROGRESS
        } else if self.in_progress().count() >= CROSS_RESETS_MAX {
            StatusCode::CROSS_RESET_LIMIT_EXCEEDED
        } else if self.caused.iter().all(Option::is_some) {
            StatusCode::CROSS_RESET_LOG_FULL
        } else {
            return Ok(());
        };
        Err(NvmeStatus::again(code))
    }

    /// Looks which ones are complete; true when there is a new one.
    pub(crate) fn poll(&mut self, registry: &Registry) -> bool {
        let mut found = false;
        for caused in self.caused.iter_mut().flatten().filter(|caused| !caused.done) {
            caused.done = registry.is_ended(caused.icid, caused.instance);
            found |= caused.done;
        }
        found
    }

    /// Bytes of the log page.
    pub(crate) fn log_len(&self) -> usize {
        let entries = self.caused.iter().flatten().count();
        size_of::<CrossResetHeader>() + entries * size_of::<CrossResetEntry>()
    }

    /// Fills the log page.
    pub(crate) fn fill(&self, window: &mut Window<'_>) {
        let mut header = CrossResetHeader::new_zeroed();
        let count = self.caused.iter().flatten().count();
        header.ne = U16::new(u16::try_from(count).expect("a few"));
        window.put(0, header.as_bytes());
        let mut at = size_of::<CrossResetHeader>() as u64;
        for caused in self.caused.iter().flatten() {
            let mut entry = CrossResetEntry::new_zeroed();
            entry.icid = U16::new(caused.icid);
            entry.ciu = caused.instance.ciu;
            entry.acid = U16::new(NO_OTHER);
            entry.ccrs = match caused.done {
                true => cross_reset_status::SUCCESS,
                false => cross_reset_status::IN_PROGRESS,
            };
            entry.ccrf = cross_reset_flags::VALIDATED | cross_reset_flags::INITIATED;
            window.put(at, entry.as_bytes());
            at += size_of::<CrossResetEntry>() as u64;
        }
    }

    /// RMC: takes the complete ones out of the log.
    pub(crate) fn remove_completed(&mut self) {
        for place in &mut self.caused {
            if place.is_some_and(|caused| caused.done) {
                *place = None;
            }
        }
    }
}

impl Connection {
    //= NVMe-Base 2.3 §5.4.3
    //# DW0 bit 0: the impacted controller was reset before this command completed
    pub(crate) fn cross_reset(&mut self, key: u32, sqe: &Sqe) {
        match self.try_cross_reset(sqe) {
            Ok(Ended::Already) => self.answer_with(key, NvmeStatus::SUCCESS, IMMEDIATE, 0),
            Ok(Ended::Soon) => self.answer(key, NvmeStatus::SUCCESS),
            Err(status) => self.answer(key, status),
        }
    }

    fn try_cross_reset(&mut self, sqe: &Sqe) -> Result<Ended, NvmeStatus> {
        let [a, b, ciu, _] = sqe.cdw10.get().to_le_bytes();
        let icid = u16::from_le_bytes([a, b]);
        let cirn = u64::from(sqe.cdw13.get()) << 32 | u64::from(sqe.cdw12.get());
        let hold: Hold = self.queue.as_ref().expect("an admin queue is connected").hold;
        let controller = self.controller.as_mut().expect("an admin queue has its controller");
        if controller.kind == Kind::Discovery {
            return Err(NvmeStatus::never(StatusCode::INVALID_OPCODE));
        }
        //= NVMe-Base 2.3 §5.4.3
        //# a controller does not reset itself this way
        if icid == hold.cntlid() {
            return Err(NvmeStatus::never(StatusCode::INVALID_FIELD));
        }
        controller.resets.check(icid)?;
        let instance = Instance { ciu, cirn };
        let ended = self.target.registry().end_instance(hold, icid, instance);
        let ended = ended.ok_or(NvmeStatus::never(StatusCode::INVALID_FIELD))?;
        if ended == Ended::Soon {
            let place = controller.resets.caused.iter_mut().find(|place| place.is_none());
            let place = place.expect("there was a place");
            *place = Some(Caused { icid, instance, done: false });
        }
        Ok(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caused(resets: &mut CrossResets, icid: u16, done: bool) {
        let instance = Instance { ciu: 1, cirn: 1 };
        let place = resets.caused.iter_mut().find(|place| place.is_none()).unwrap();
        *place = Some(Caused { icid, instance, done });
    }

    #[test]
    fn limits_hold_at_their_edges() {
        let mut resets = CrossResets::default();
        let code = |resets: &CrossResets, icid| resets.check(icid).map_err(|status| status.code);
        for icid in 1..=4 {
            assert_eq!(code(&resets, icid), Ok(()));
            caused(&mut resets, icid, false);
            let again = code(&resets, icid);
            assert_eq!(again, Err(StatusCode::CROSS_RESET_IN_PROGRESS));
        }
        assert_eq!(code(&resets, 9), Err(StatusCode::CROSS_RESET_LIMIT_EXCEEDED));
        resets.caused[0].as_mut().unwrap().done = true;
        assert_eq!(code(&resets, 1), Ok(()), "one that is complete may be repeated");
        while resets.caused.iter().any(Option::is_none) {
            caused(&mut resets, 1, true);
        }
        assert_eq!(code(&resets, 9), Err(StatusCode::CROSS_RESET_LOG_FULL));
        resets.remove_completed();
        assert_eq!(code(&resets, 9), Ok(()));
        assert_eq!(resets.in_progress().count(), 3);
    }

    #[test]
    fn instances_differ_and_are_never_zero() {
        let first = Instance::default().next(7);
        assert_eq!(first, Instance { ciu: 1, cirn: 7 });
        assert_eq!(Instance { ciu: 255, cirn: 7 }.next(0), Instance { ciu: 1, cirn: 1 });
    }
}
