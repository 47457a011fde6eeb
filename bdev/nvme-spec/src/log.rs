//! Log pages.

use crate::{U16, U32, U64, layout};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// LID: log page identifiers.
//= NVMe-Base 2.1 §5.1.12
//# log page identifiers
pub mod lid {
    /// Supported Log Pages.
    pub const SUPPORTED: u8 = 0x00;
    /// Error Information.
    pub const ERROR: u8 = 0x01;
    /// SMART / Health Information.
    pub const SMART: u8 = 0x02;
    /// Firmware Slot Information.
    pub const FIRMWARE_SLOT: u8 = 0x03;
    /// Changed Attached Namespace List.
    pub const CHANGED_NAMESPACES: u8 = 0x04;
    /// Commands Supported and Effects.
    pub const EFFECTS: u8 = 0x05;
    /// Asymmetric Namespace Access.
    pub const ANA: u8 = 0x0c;
    /// Feature Identifiers Supported and Effects.
    pub const FID_EFFECTS: u8 = 0x12;
    /// Cross-Controller Reset.
    pub const CROSS_RESET: u8 = 0x1e;
    /// Discovery.
    pub const DISCOVERY: u8 = 0x70;
    /// Reservation Notification.
    pub const RESERVATION: u8 = 0x80;
}

/// Supported Log Pages (LID 00h), 1024 bytes: per LID, bit 0 says it is supported.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SupportedLogPages {
    /// LSUPP in bit 0, IOS in bit 1, a LID specific value in bits 31:16.
    pub lid: [U32; 256],
}
layout!(SupportedLogPages, 1024);

/// One Error Information entry (LID 01h), 64 bytes. An entry with ERRCNT zero is unused.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ErrorEntry {
    /// ERRCNT: a counter of errors since the controller was made, 1 for the first.
    pub errcnt: U64,
    /// SQID: queue.
    pub sqid: U16,
    /// CID: command.
    pub cid: U16,
    /// STAT: status field, phase tag included.
    pub stat: U16,
    /// PERRLOC: where in the command the error is; FFFFh is nowhere in particular.
    pub perrloc: U16,
    /// LBA: the first one that failed.
    pub lba: U64,
    /// NSID: namespace.
    pub nsid: U32,
    /// VSIA: vendor specific information available.
    pub vsia: u8,
    /// TRTYPE: transport type.
    pub trtype: u8,
    /// CSI: command set of the command.
    pub csi: u8,
    /// OPC: opcode of the command.
    pub opc: u8,
    /// CSINFO: command specific information.
    pub csinfo: U64,
    /// TTSI: transport specific information.
    pub ttsi: U16,
    /// Reserved, and LPVER in the last byte.
    pub reserved42: [u8; 22],
}
layout!(ErrorEntry, 64, stat = 12, lba = 16, nsid = 24, trtype = 29, csinfo = 32, ttsi = 40);

/// SMART / Health Information (LID 02h), 512 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SmartLog {
    /// CW: critical warning bits.
    pub critical_warning: u8,
    /// CTEMP: composite temperature, kelvin.
    pub composite_temperature: U16,
    /// AVSP: available spare, per cent.
    pub available_spare: u8,
    /// AVSPT: available spare threshold, per cent.
    pub available_spare_threshold: u8,
    /// PUSED: percentage used.
    pub percentage_used: u8,
    /// EGCWS: endurance group critical warnings.
    pub endurance_warning: u8,
    /// Reserved.
    pub reserved7: [u8; 25],
    /// DUR: data units read, thousands of 512 bytes.
    pub data_units_read: [u8; 16],
    /// DUW: data units written.
    pub data_units_written: [u8; 16],
    /// HRC: host read commands.
    pub host_reads: [u8; 16],
    /// HWC: host write commands.
    pub host_writes: [u8; 16],
    /// CBT: controller busy time, minutes.
    pub busy_time: [u8; 16],
    /// PWRC: power cycles.
    pub power_cycles: [u8; 16],
    /// POH: power on hours.
    pub power_on_hours: [u8; 16],
    /// UPL: unexpected power losses.
    pub unsafe_shutdowns: [u8; 16],
    /// MDIE: media and data integrity errors.
    pub media_errors: [u8; 16],
    /// NEILE: number of error information log entries.
    pub error_entries: [u8; 16],
    /// Temperature times, sensors and thermal management.
    pub reserved192: [u8; 320],
}
layout!(SmartLog, 512, available_spare = 3, data_units_read = 32, error_entries = 176);

/// Firmware Slot Information (LID 03h), 512 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FirmwareSlots {
    /// AFI: active slot in bits 2:0.
    pub afi: u8,
    /// Reserved.
    pub reserved1: [u8; 7],
    /// FRS: revisions of slots 1 to 7, ASCII.
    pub frs: [[u8; 8]; 7],
    /// Reserved.
    pub reserved64: [u8; 448],
}
layout!(FirmwareSlots, 512, frs = 8);

/// Changed Attached Namespace List (LID 04h), 4096 bytes: increasing NSIDs, then zeroes; the first
/// entry FFFFFFFFh alone says that more than 1024 changed.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ChangedNamespaces {
    /// Identifier 0 to 1023.
    pub nsid: [U32; 1024],
}
layout!(ChangedNamespaces, 4096);

/// Commands Supported and Effects (LID 05h), 4096 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct EffectsLog {
    /// ACS: admin commands by opcode, bits in [`effects`].
    pub acs: [U32; 256],
    /// IOCS: I/O commands by opcode.
    pub iocs: [U32; 256],
    /// Reserved.
    pub reserved2048: [u8; 2048],
}
layout!(EffectsLog, 4096, iocs = 1024);

/// Bits of an entry of [`EffectsLog`].
pub mod effects {
    /// CSUPP: the command is supported.
    pub const SUPPORTED: u32 = 1;
    /// LBCC: logical blocks may change.
    pub const BLOCKS_CHANGE: u32 = 1 << 1;
    /// NCC: capabilities of a namespace may change.
    pub const NAMESPACE_CHANGE: u32 = 1 << 2;
    /// NIC: the inventory of namespaces may change.
    pub const INVENTORY_CHANGE: u32 = 1 << 3;
    /// CCC: capabilities of the controller may change.
    pub const CONTROLLER_CHANGE: u32 = 1 << 4;
}

/// Feature Identifiers Supported and Effects (LID 12h), 1024 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FidEffectsLog {
    /// Features by identifier, bits in [`fid_effects`].
    pub fid: [U32; 256],
}
layout!(FidEffectsLog, 1024);

/// Bits of an entry of [`FidEffectsLog`].
pub mod fid_effects {
    /// FSUPP: the feature is supported.
    pub const SUPPORTED: u32 = 1;
    /// UDCC: user data may change.
    pub const DATA_CHANGE: u32 = 1 << 1;
    /// CCC: controller capabilities may change.
    pub const CONTROLLER_CHANGE: u32 = 1 << 4;
    /// FSP: the scope is the namespace.
    pub const SCOPE_NAMESPACE: u32 = 1 << 20;
    /// FSP: the scope is the controller.
    pub const SCOPE_CONTROLLER: u32 = 1 << 21;
}

/// The head of the Asymmetric Namespace Access log page (LID 0Ch), 16 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct AnaHeader {
    /// CHGCNT: change count.
    pub chgcnt: U64,
    /// NANAGDESC: number of group descriptors.
    pub groups: U16,
    /// Reserved.
    pub reserved10: [u8; 6],
}
layout!(AnaHeader, 16, groups = 8);

/// The head of one ANA group descriptor, 32 bytes; its NSIDs follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct AnaGroupDescriptor {
    /// AGID: group identifier.
    pub agid: U32,
    /// NNV: number of NSID values.
    pub nnv: U32,
    /// CHGCNT: change count of the group.
    pub chgcnt: U64,
    /// ANAS: one of [`ana_state`], bits 3:0.
    pub anas: u8,
    /// Reserved.
    pub reserved17: [u8; 15],
}
layout!(AnaGroupDescriptor, 32, nnv = 4, chgcnt = 8, anas = 16);

/// ANA states.
pub mod ana_state {
    /// ANA Optimized.
    pub const OPTIMIZED: u8 = 0x01;
    /// ANA Non-Optimized.
    pub const NON_OPTIMIZED: u8 = 0x02;
    /// ANA Inaccessible.
    pub const INACCESSIBLE: u8 = 0x03;
    /// ANA Persistent Loss.
    pub const PERSISTENT_LOSS: u8 = 0x04;
    /// ANA Change.
    pub const CHANGE: u8 = 0x0f;
}

/// The head of the Cross-Controller Reset log page (LID 1Eh), 8 bytes; its entries follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CrossResetHeader {
    /// NE: number of entries.
    pub ne: U16,
    /// Reserved.
    pub reserved2: [u8; 6],
}
layout!(CrossResetHeader, 8, reserved2 = 2);

/// One entry of the Cross-Controller Reset log page, 8 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CrossResetEntry {
    /// ICID: the controller that is reset.
    pub icid: U16,
    /// CIU: its uniquifier.
    pub ciu: u8,
    /// Reserved.
    pub reserved3: u8,
    /// ACID: another controller to ask; FFFFh is none.
    pub acid: U16,
    /// CCRS: how it went, one of [`cross_reset_status`].
    pub ccrs: u8,
    /// CCRF: bits in [`cross_reset_flags`].
    pub ccrf: u8,
}
layout!(CrossResetEntry, 8, ciu = 2, acid = 4, ccrs = 6, ccrf = 7);

/// CCRS values.
pub mod cross_reset_status {
    /// In progress.
    pub const IN_PROGRESS: u8 = 0;
    /// Success.
    pub const SUCCESS: u8 = 1;
}

/// Bits of CCRF.
pub mod cross_reset_flags {
    /// V: the request was validated.
    pub const VALIDATED: u8 = 1;
    /// CLRI: the controller level reset was initiated.
    pub const INITIATED: u8 = 1 << 1;
}
