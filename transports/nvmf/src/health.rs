//! How the stores behind namespaces are, as the control plane reports it: what SMART tells hosts.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::NamespaceHandle;
use crate::notices::{EVENT_RELIABILITY, EVENT_SPARE};
use crate::view::HostView;

/// How the store behind a namespace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Percent of the store that is free; 0 when it refuses writes for want of space.
    pub spare: u8,
    /// The store failed, or its device was given up: what it holds may be out of reach.
    pub degraded: bool,
}

impl Default for Health {
    fn default() -> Health {
        Health { spare: 100, degraded: false }
    }
}

/// AVSPT: below this percentage the spare is critical. A store is low on space from 80 % on.
pub(crate) const SPARE_THRESHOLD: u8 = 20;

/// CW bit 0: the spare is below its threshold.
const SPARE_LOW: u8 = 1;
/// CW bit 2: reliability is degraded.
const DEGRADED: u8 = 1 << 2;

impl Health {
    /// CW: the critical warnings.
    //= NVMe-Base 2.1 §5.1.12.1.3
    //# CW has a bit for a spare below its threshold and one for degraded reliability
    pub(crate) fn warnings(self) -> u8 {
        let low = if self.spare < SPARE_THRESHOLD { SPARE_LOW } else { 0 };
        low | if self.degraded { DEGRADED } else { 0 }
    }

    /// Both together: the worse of each.
    fn worse(self, other: Health) -> Health {
        let degraded = self.degraded || other.degraded;
        Health { spare: self.spare.min(other.spare), degraded }
    }

    /// The events that a host is owed when this becomes `new`.
    pub(crate) fn events(self, new: Health) -> u32 {
        let risen = new.warnings() & !self.warnings();
        let spare = if risen & SPARE_LOW != 0 { EVENT_SPARE } else { 0 };
        spare | if risen & DEGRADED != 0 { EVENT_RELIABILITY } else { 0 }
    }
}

/// What was reported, by namespace. Its mutex is for reports and for SMART alone.
#[derive(Debug, Default)]
pub(crate) struct Healths {
    known: Mutex<BTreeMap<NamespaceHandle, Health>>,
}

impl Healths {
    /// Notes a report; what was known before.
    pub(crate) fn set(&self, handle: NamespaceHandle, health: Health) -> Health {
        let mut known = self.known.lock().expect("nobody panics while holding it");
        known.insert(handle, health).unwrap_or_default()
    }

    /// Of all namespaces of a subsystem together. What nobody reported on is well.
    pub(crate) fn of(&self, view: &HostView) -> Health {
        let known = self.known.lock().expect("nobody panics while holding it");
        let healths = view.namespaces().filter_map(|namespace| known.get(&namespace.handle));
        healths.fold(Health::default(), |worst, &health| worst.worse(health))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_begin_at_their_edges_and_are_told_once() {
        let of = |spare, degraded| Health { spare, degraded };
        assert_eq!(of(20, false).warnings(), 0);
        assert_eq!(of(19, false).warnings(), 1);
        assert_eq!(of(100, true).warnings(), 4);
        assert_eq!(of(20, false).events(of(19, true)), EVENT_SPARE | EVENT_RELIABILITY);
        assert_eq!(of(19, true).events(of(0, true)), 0);
        assert_eq!(of(19, true).events(of(100, false)), 0);
    }
}
