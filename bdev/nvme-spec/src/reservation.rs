//! Reservation commands: their data, their bits, their log page.

use crate::{U16, U32, U64, layout};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// IEKEY: bit 3 of CDW10 of Register, Acquire and Release.
pub const IGNORE_KEY: u32 = 1 << 3;
/// EDS: bit 0 of CDW11 of Report: extended data structure.
pub const EXTENDED: u32 = 1;
/// PTPL: bit 0 of the value of Reservation Persistence.
pub const PERSISTS: u32 = 1;

/// RREGA: bits 2:0 of CDW10 of Register.
pub mod register_action {
    /// Register a key.
    pub const REGISTER: u32 = 0;
    /// Unregister the key.
    pub const UNREGISTER: u32 = 1;
    /// Replace the key.
    pub const REPLACE: u32 = 2;
}

/// CPTPL: bits 31:30 of CDW10 of Register.
pub mod change_persistence {
    /// Stay as it is.
    pub const NO: u32 = 0;
    /// What is registered and reserved goes with the power.
    pub const CLEAR: u32 = 2;
    /// It stays.
    pub const SET: u32 = 3;
}

/// RACQA: bits 2:0 of CDW10 of Acquire.
pub mod acquire_action {
    /// Acquire.
    pub const ACQUIRE: u32 = 0;
    /// Preempt.
    pub const PREEMPT: u32 = 1;
    /// Preempt and Abort.
    pub const PREEMPT_AND_ABORT: u32 = 2;
}

/// RRELA: bits 2:0 of CDW10 of Release.
pub mod release_action {
    /// Release.
    pub const RELEASE: u32 = 0;
    /// Clear.
    pub const CLEAR: u32 = 1;
}

/// Bits of RESCAP.
pub mod rescap {
    /// Persist Through Power Loss.
    pub const PERSISTS: u8 = 1;
    /// All six types, bits 6:1.
    pub const ALL_TYPES: u8 = 0x7e;
    /// IEKEY is used as revision 1.3 and later say.
    pub const IGNORE_KEY_1_3: u8 = 1 << 7;
}

/// Data of Register, and of Acquire: the key there is, and another.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ReservationKeys {
    /// CRKEY: current reservation key.
    pub crkey: U64,
    /// NRKEY, the new key of Register; PRKEY, the key to preempt of Acquire.
    pub other: U64,
}
layout!(ReservationKeys, 16, other = 8);

/// The head of a Reservation Status data structure, extended, 64 bytes.
//= NVMe-Base 2.1 §7.8
//# the extended structure: generation, type, number of registrants, PTPLS
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ReservationStatus {
    /// GEN: generation.
    pub generation: U32,
    /// RTYPE: the type of the reservation; zero is none.
    pub rtype: u8,
    /// REGSTRNT: number of registrants.
    pub registrants: U16,
    /// Reserved.
    pub reserved7: [u8; 2],
    /// PTPLS: persist through power loss state.
    pub ptpls: u8,
    /// Reserved.
    pub reserved10: [u8; 54],
}
layout!(ReservationStatus, 64, rtype = 4, registrants = 5, ptpls = 9);

/// A registrant in it, extended, 64 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RegistrantStatus {
    /// CNTLID: FFFFh where controllers are dynamic.
    pub cntlid: U16,
    /// RCSTS: bit 0, it holds the reservation.
    pub rcsts: u8,
    /// Reserved.
    pub reserved3: [u8; 5],
    /// RKEY: its key.
    pub rkey: U64,
    /// HOSTID.
    pub hostid: [u8; 16],
    /// Reserved.
    pub reserved32: [u8; 32],
}
layout!(RegistrantStatus, 64, rcsts = 2, rkey = 8, hostid = 16);

/// Reservation Notification (LID 80h), 64 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ReservationNotification {
    /// LPC: which one since the controller was made, 1 for the first; zero in an empty page.
    pub count: U64,
    /// RNLPT: 0 empty, 1 registration preempted, 2 reservation released, 3 reservation preempted.
    pub kind: u8,
    /// NALP: how many further ones wait.
    pub available: u8,
    /// Reserved.
    pub reserved10: [u8; 2],
    /// NSID: namespace.
    pub nsid: U32,
    /// Reserved.
    pub reserved16: [u8; 48],
}
layout!(ReservationNotification, 64, kind = 8, available = 9, nsid = 12);
