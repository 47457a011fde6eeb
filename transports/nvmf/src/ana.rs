//! Asymmetric namespace access: how good a path each port of this node is to each namespace.
//!
//! Each namespace is a group of its own, whose ANAGRPID is its NSID: replication moves volumes one
//! by one. What a controller reports is the worse of what holds for the namespace on this node and
//! what holds for it at the controller's port.

use nvme_spec::{AnaGroupDescriptor, AnaHeader, NvmeStatus, StatusCode, U16, U32, U64, ana_state};
use zerocopy::{FromZeros, IntoBytes};

use crate::framer::narrow;
use crate::logs::Window;
use crate::view::HostView;

/// ANATT: seconds that a transition takes at most.
pub(crate) const TRANSITION_SECONDS: u8 = 10;

/// ANACAP: every state may be reported, and ANAGRPID does not change.
pub(crate) const CAPABILITIES: u8 = 1 << 6 | 0x1f;

/// How a namespace can be reached through a controller. The later, the worse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnaState {
    /// As well as through any other.
    #[default]
    Optimized,
    /// Through another one better.
    NonOptimized,
    /// Between two states: for a moment not at all. Hosts wait for it, at most ANATT.
    Change,
    /// Not now; through another controller perhaps.
    Inaccessible,
    /// Never again through this controller.
    PersistentLoss,
}

impl AnaState {
    /// All of them.
    pub const ALL: [AnaState; 5] = [
        AnaState::Optimized,
        AnaState::NonOptimized,
        AnaState::Change,
        AnaState::Inaccessible,
        AnaState::PersistentLoss,
    ];

    /// ANAS of the log page.
    fn code(self) -> u8 {
        match self {
            AnaState::Optimized => ana_state::OPTIMIZED,
            AnaState::NonOptimized => ana_state::NON_OPTIMIZED,
            AnaState::Change => ana_state::CHANGE,
            AnaState::Inaccessible => ana_state::INACCESSIBLE,
            AnaState::PersistentLoss => ana_state::PERSISTENT_LOSS,
        }
    }

    /// What a command for the namespace's data ends with; nothing when it is executed.
    ///
    /// Never with DNR: the command may well succeed through another controller, and a host that is
    /// told not to retry fails its file system instead.
    //= NVMe-Base 2.1 §8.1.1
    //# each state that gives no access has a path related status of its own
    pub(crate) fn refusal(self) -> Option<NvmeStatus> {
        match self {
            AnaState::Optimized | AnaState::NonOptimized => None,
            AnaState::Change => Some(NvmeStatus::again(StatusCode::ANA_TRANSITION)),
            AnaState::Inaccessible => Some(NvmeStatus::again(StatusCode::ANA_INACCESSIBLE)),
            AnaState::PersistentLoss => Some(NvmeStatus::again(StatusCode::ANA_PERSISTENT_LOSS)),
        }
    }
}

/// Bytes of the log page.
pub(crate) fn log_len(view: &HostView, groups_only: bool) -> usize {
    let nsid = if groups_only { 0 } else { size_of::<U32>() };
    let groups = view.namespaces().count();
    size_of::<AnaHeader>() + groups * (size_of::<AnaGroupDescriptor>() + nsid)
}

/// Fills the part of the log page that `window` shows.
//= NVMe-Base 2.1 §5.1.12.1.13
//# one descriptor per group in the order of their identifiers, with the NSIDs of its namespaces
//# unless RGO is set; the change counts grow with the log page and with each group
pub(crate) fn fill(view: &HostView, groups_only: bool, window: &mut Window<'_>) {
    let mut header = AnaHeader::new_zeroed();
    header.chgcnt = U64::new(view.ana_changes());
    let groups = narrow(view.namespaces().count());
    header.groups = U16::new(u16::try_from(groups).expect("fewer than 2^16 namespaces"));
    window.put(0, header.as_bytes());
    let mut at = size_of::<AnaHeader>() as u64;
    for namespace in view.namespaces() {
        let mut group = AnaGroupDescriptor::new_zeroed();
        group.agid = U32::new(namespace.nsid);
        group.nnv = U32::new(u32::from(!groups_only));
        group.chgcnt = U64::new(view.ana_group_changes(namespace.nsid));
        group.anas = view.state_of(namespace).code();
        window.put(at, group.as_bytes());
        at += size_of::<AnaGroupDescriptor>() as u64;
        if !groups_only {
            window.put(at, &namespace.nsid.to_le_bytes());
            at += size_of::<U32>() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_access_is_a_path_error_that_hosts_retry_elsewhere() {
        let refused = AnaState::ALL.map(|state| {
            let status = state.refusal()?;
            Some((status.code.sct(), status.code.sc(), status.dnr))
        });
        let expected = [None, None, Some((3, 3, false)), Some((3, 2, false)), Some((3, 1, false))];
        assert_eq!(refused, expected);
    }
}
