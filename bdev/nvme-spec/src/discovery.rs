//! The discovery log page.

use crate::{NQN_FIELD_LEN, U16, U32, U64, layout};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The well-known NQN of every discovery service.
//= NVMe-Base 2.1 §4.7
//# the well-known discovery service NQN
pub const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";

/// The head of the discovery log page (LID 70h), 1024 bytes; records follow.
//= NVMe-Base 2.1 §5.1.12.3.1
//# generation counter, number of records, record format
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct DiscoveryHeader {
    /// GENCTR: changes whenever the log does.
    pub genctr: U64,
    /// NUMREC: number of records.
    pub numrec: U64,
    /// RECFMT: record format, 0.
    pub recfmt: U16,
    /// DLPF: discovery log page flags.
    pub dlpf: u8,
    /// Reserved.
    pub reserved19: u8,
    /// TDLPL: total bytes, with extended records; 0 otherwise.
    pub tdlpl: U32,
    /// Reserved.
    pub reserved24: [u8; 1000],
}
layout!(DiscoveryHeader, 1024, numrec = 8, recfmt = 16, tdlpl = 20);

/// A discovery log page entry, 1024 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct DiscoveryRecord {
    /// TRTYPE: one of [`trtype`].
    pub trtype: u8,
    /// ADRFAM: one of [`adrfam`].
    pub adrfam: u8,
    /// SUBTYPE: one of [`discovery_subtype`].
    pub subtype: u8,
    /// TREQ: bits in [`discovery_treq`].
    pub treq: u8,
    /// PORTID: the subsystem port.
    pub portid: U16,
    /// CNTLID: FFFFh is the dynamic controller model.
    pub cntlid: U16,
    /// ASQSZ: maximum size of the admin submission queue, entries.
    pub asqsz: U16,
    /// EFLAGS: bits in [`discovery_eflags`].
    pub eflags: U16,
    /// Reserved.
    pub reserved12: [u8; 20],
    /// TRSVCID: transport service identifier, ASCII, space padded: the TCP port.
    pub trsvcid: [u8; 32],
    /// Reserved.
    pub reserved64: [u8; 192],
    /// SUBNQN: the subsystem, NUL-terminated.
    pub subnqn: [u8; NQN_FIELD_LEN],
    /// TRADDR: transport address, ASCII, space padded.
    pub traddr: [u8; 256],
    /// TSAS: transport specific; for TCP byte 0 is SECTYPE, 0 is none.
    pub tsas: [u8; 256],
}
layout!(
    DiscoveryRecord,
    1024,
    portid = 4,
    asqsz = 8,
    eflags = 10,
    trsvcid = 32,
    subnqn = 256,
    traddr = 512,
    tsas = 768,
);

/// TRTYPE values.
pub mod trtype {
    /// TCP.
    pub const TCP: u8 = 0x03;
}

/// ADRFAM values.
pub mod adrfam {
    /// IPv4.
    pub const IPV4: u8 = 0x01;
    /// IPv6.
    pub const IPV6: u8 = 0x02;
}

/// SUBTYPE values.
pub mod discovery_subtype {
    /// A referral to another discovery service.
    pub const REFERRAL: u8 = 0x01;
    /// An NVM subsystem.
    pub const NVM: u8 = 0x02;
    /// This discovery service itself.
    pub const CURRENT_DISCOVERY: u8 = 0x03;
}

/// Bits of TREQ.
pub mod discovery_treq {
    /// Secure channel: not specified (bits 1:0).
    pub const SECURE_CHANNEL_NOT_SPECIFIED: u8 = 0x00;
    /// Secure channel: required.
    pub const SECURE_CHANNEL_REQUIRED: u8 = 0x01;
    /// Secure channel: not required.
    pub const SECURE_CHANNEL_NOT_REQUIRED: u8 = 0x02;
    /// Disabling SQ flow control is supported.
    pub const DISABLE_SQ_FLOW_CONTROL: u8 = 1 << 2;
}

/// Bits of EFLAGS.
pub mod discovery_eflags {
    /// DUPRETINFO: the entry returns the same information as this service.
    pub const DUPLICATE_INFORMATION: u16 = 1;
    /// EPCSD: explicit persistent connections are supported.
    pub const PERSISTENT_CONNECTION: u16 = 1 << 1;
    /// NCC: no connectivity to a central discovery controller.
    pub const NO_CDC_CONNECTIVITY: u16 = 1 << 2;
}
