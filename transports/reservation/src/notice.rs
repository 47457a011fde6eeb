//! What hosts are told of what another host did.

use crate::table::{Host, REGISTRANTS_MAX};

/// What a host is told. The numbers are NVMe's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Notice {
    /// Its registration was removed by somebody else.
    RegistrationPreempted = 1,
    /// The reservation was released, and it is still a registrant.
    ReservationReleased = 2,
    /// All registrations, and the reservation, were cleared.
    ReservationPreempted = 3,
}

/// The notices of one command: one for each host at most.
#[derive(Clone, Debug)]
pub struct Notices {
    list: [(Host, Notice); REGISTRANTS_MAX],
    len: usize,
}

impl Notices {
    /// None.
    pub fn new() -> Notices {
        Notices { list: [(Host([0; 16]), Notice::ReservationReleased); REGISTRANTS_MAX], len: 0 }
    }

    /// Who is told what.
    pub fn iter(&self) -> impl Iterator<Item = (Host, Notice)> {
        self.list.iter().take(self.len).copied()
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Whether somebody lost his registration: his requests may still be on their way.
    pub fn has_victims(&self) -> bool {
        self.iter().any(|(_, notice)| notice != Notice::ReservationReleased)
    }

    pub(crate) fn push(&mut self, host: Host, notice: Notice) {
        let place = self.list.get_mut(self.len).expect("each registrant is told once");
        *place = (host, notice);
        self.len += 1;
    }
}

impl Default for Notices {
    fn default() -> Notices {
        Notices::new()
    }
}
