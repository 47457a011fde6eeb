//! Identify data that describes namespaces, and lists of them.

use crate::{U16, U32, U64, layout};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bits of NSFEAT in [`IdentifyNamespace`].
pub mod nsfeat {
    /// THINP: NUSE is tracked, the namespace is thin.
    pub const THIN: u8 = 1;
    /// NSABP: the namespace's atomic write fields are valid.
    pub const NAMESPACE_ATOMICS: u8 = 1 << 1;
    /// DAE: reading a deallocated block can fail.
    pub const DEALLOCATED_ERROR: u8 = 1 << 2;
    /// UIDREUSE: NGUID and EUI64 are never reused.
    pub const IDS_NOT_REUSED: u8 = 1 << 3;
    /// OPTPERF: NPWG, NPWA, NPDG, NPDA and NOWS are valid.
    pub const OPTIMAL_PERFORMANCE: u8 = 1 << 4;
}

/// Bits of DLFEAT.
pub mod dlfeat {
    /// Deallocated blocks read as zeroes (value 001b of bits 2:0).
    pub const READS_ZEROES: u8 = 0x01;
    /// Write Zeroes supports the deallocate bit.
    pub const WRITE_ZEROES_DEALLOCATES: u8 = 1 << 3;
}

/// An LBA format: 4 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct LbaFormat {
    /// MS: metadata bytes.
    pub ms: U16,
    /// LBADS: logical block size, power of two.
    pub lbads: u8,
    /// RP: relative performance.
    pub rp: u8,
}
layout!(LbaFormat, 4, lbads = 2);

/// Identify Namespace (CNS 00h), 4096 bytes.
//= NVMe-NVM 1.1 §4.1.5.1
//# size, capacity, utilization, formats, granularities, identifiers
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IdentifyNamespace {
    /// NSZE: size, logical blocks.
    pub nsze: U64,
    /// NCAP: capacity, logical blocks.
    pub ncap: U64,
    /// NUSE: utilization, logical blocks.
    pub nuse: U64,
    /// NSFEAT: features, bits in [`nsfeat`].
    pub nsfeat: u8,
    /// NLBAF: number of LBA formats, 0's based.
    pub nlbaf: u8,
    /// FLBAS: the format in use.
    pub flbas: u8,
    /// MC: metadata capabilities.
    pub mc: u8,
    /// DPC: data protection capabilities.
    pub dpc: u8,
    /// DPS: data protection settings.
    pub dps: u8,
    /// NMIC: multi-path and sharing; bit 0 shared.
    pub nmic: u8,
    /// RESCAP: reservation capabilities.
    pub rescap: u8,
    /// FPI: format progress.
    pub fpi: u8,
    /// DLFEAT: deallocate features, bits in [`dlfeat`].
    pub dlfeat: u8,
    /// NAWUN: atomic write unit normal, 0's based.
    pub nawun: U16,
    /// NAWUPF: atomic write unit power fail, 0's based.
    pub nawupf: U16,
    /// NACWU: atomic compare and write unit.
    pub nacwu: U16,
    /// NABSN: atomic boundary size normal.
    pub nabsn: U16,
    /// NABO: atomic boundary offset.
    pub nabo: U16,
    /// NABSPF: atomic boundary size power fail.
    pub nabspf: U16,
    /// NOIOB: optimal I/O boundary.
    pub noiob: U16,
    /// NVMCAP: capacity, bytes.
    pub nvmcap: [u8; 16],
    /// NPWG: preferred write granularity, logical blocks, 0's based.
    pub npwg: U16,
    /// NPWA: preferred write alignment, 0's based.
    pub npwa: U16,
    /// NPDG: preferred deallocate granularity, 0's based.
    pub npdg: U16,
    /// NPDA: preferred deallocate alignment, 0's based.
    pub npda: U16,
    /// NOWS: optimal write size, 0's based.
    pub nows: U16,
    /// MSSRL: maximum single source range length.
    pub mssrl: U16,
    /// MCL: maximum copy length.
    pub mcl: U32,
    /// MSRC: maximum source range count.
    pub msrc: u8,
    /// Key per I/O and unique LBA formats.
    pub reserved81: [u8; 11],
    /// ANAGRPID: ANA group.
    pub anagrpid: U32,
    /// Reserved.
    pub reserved96: [u8; 3],
    /// NSATTR: attributes; bit 0 write protected.
    pub nsattr: u8,
    /// NVMSETID: NVM set.
    pub nvmsetid: U16,
    /// ENDGID: endurance group.
    pub endgid: U16,
    /// NGUID: namespace globally unique identifier, big-endian.
    pub nguid: [u8; 16],
    /// EUI64: IEEE extended unique identifier, big-endian.
    pub eui64: [u8; 8],
    /// LBAF: LBA formats 0 to 63.
    pub lbaf: [LbaFormat; 64],
    /// VS: vendor specific.
    pub vendor: [u8; 3712],
}
layout!(
    IdentifyNamespace,
    4096,
    nsfeat = 24,
    dlfeat = 33,
    nawun = 34,
    noiob = 46,
    npwg = 64,
    mssrl = 74,
    anagrpid = 92,
    nsattr = 99,
    nguid = 104,
    eui64 = 120,
    lbaf = 128,
    vendor = 384,
);

/// I/O command set independent Identify Namespace (CNS 08h), 4096 bytes.
//= NVMe-Base 2.1 §5.1.13
//# what holds for a namespace of any command set
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IdentifyNamespaceIndependent {
    /// NSFEAT: common namespace features; bit 3 UIDREUSE.
    pub nsfeat: u8,
    /// NMIC: multi-path and sharing.
    pub nmic: u8,
    /// RESCAP: reservation capabilities.
    pub rescap: u8,
    /// FPI: format progress.
    pub fpi: u8,
    /// ANAGRPID: ANA group.
    pub anagrpid: U32,
    /// NSATTR: attributes.
    pub nsattr: u8,
    /// Reserved.
    pub reserved9: u8,
    /// NVMSETID: NVM set.
    pub nvmsetid: U16,
    /// ENDGID: endurance group.
    pub endgid: U16,
    /// NSTAT: status; bit 0 ready.
    pub nstat: u8,
    /// Key per I/O and reachability fields.
    pub reserved15: [u8; 4081],
}
layout!(IdentifyNamespaceIndependent, 4096, anagrpid = 4, nsattr = 8, nstat = 14);

/// Identify Namespace of the NVM command set (CNS 05h, CSI 00h), 4096 bytes.
//= NVMe-NVM 1.1 §4.1.5.3
//# protection information details of each format: all clear without metadata
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IdentifyNamespaceNvm {
    /// LBSTM: logical block storage tag mask.
    pub lbstm: U64,
    /// PIC: protection information capabilities.
    pub pic: u8,
    /// PIFA: protection information format attribute.
    pub pifa: u8,
    /// Reserved.
    pub reserved10: [u8; 2],
    /// ELBAF: extended LBA formats.
    pub elbaf: [U32; 64],
    /// NPDGL and the read granularities of later revisions.
    pub reserved268: [u8; 3828],
}
layout!(IdentifyNamespaceNvm, 4096, elbaf = 12);

/// The head of one namespace identification descriptor (CNS 03h); the identifier follows.
//= NVMe-Base 2.1 §5.1.13
//# type, length, two reserved bytes, then the identifier
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct NamespaceDescriptorHeader {
    /// NIDT: one of [`nidt`].
    pub nidt: u8,
    /// NIDL: bytes of the identifier.
    pub nidl: u8,
    /// Reserved.
    pub reserved2: [u8; 2],
}
layout!(NamespaceDescriptorHeader, 4);

/// NIDT values.
pub mod nidt {
    /// EUI64, 8 bytes.
    pub const EUI64: u8 = 1;
    /// NGUID, 16 bytes.
    pub const NGUID: u8 = 2;
    /// UUID, 16 bytes.
    pub const UUID: u8 = 3;
    /// CSI, 1 byte.
    pub const CSI: u8 = 4;
}

/// A namespace list (CNS 02h and 07h): increasing NSIDs, zero behind the last one.
//= NVMe-Base 2.1 §4.6
//# 1024 identifiers in increasing order, unused entries zero
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct NamespaceList {
    /// Identifier 0 to 1023.
    pub nsid: [U32; 1024],
}
layout!(NamespaceList, 4096);
