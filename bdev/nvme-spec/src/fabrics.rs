//! Fabrics commands: Connect, Disconnect, Property Get and Property Set.

use crate::{Sgl, U16, U32, U64, layout};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of an NQN field: the name, NUL-terminated and NUL-padded.
pub const NQN_FIELD_LEN: usize = 256;

/// Bytes of the longest NQN.
//= NVMe-Base 2.1 §4.7
//# an NQN has at most 223 bytes
pub const NQN_LEN_MAX: usize = 223;

/// CNTLID in Connect data: any controller, please (the dynamic controller model).
pub const CNTLID_DYNAMIC: u16 = 0xffff;

/// CNTLID in Connect data: any static controller.
pub const CNTLID_STATIC_ANY: u16 = 0xfffe;

/// The largest CNTLID a controller may have.
pub const CNTLID_MAX: u16 = 0xffef;

/// The Connect command.
//= NVMe-Base 2.1 §6.3
//# RECFMT, QID, SQSIZE, CATTR and KATO sit behind the SGL
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ConnectSqe {
    /// OPC: 7Fh.
    pub opcode: u8,
    /// PSDT in bits 7:6.
    pub flags: u8,
    /// CID.
    pub cid: U16,
    /// FCTYPE: 01h.
    pub fctype: u8,
    /// Reserved.
    pub reserved5: [u8; 19],
    /// SGL1: the Connect data.
    pub sgl1: Sgl,
    /// RECFMT: record format, 0.
    pub recfmt: U16,
    /// QID: queue identifier, 0 is the admin queue.
    pub qid: U16,
    /// SQSIZE: entries of the submission queue, 0's based.
    pub sqsize: U16,
    /// CATTR: bits in [`cattr`].
    pub cattr: u8,
    /// Reserved.
    pub reserved47: u8,
    /// KATO: keep alive timeout, milliseconds; 0 is none.
    pub kato: U32,
    /// Reserved.
    pub reserved52: [u8; 12],
}
layout!(ConnectSqe, 64, fctype = 4, sgl1 = 24, recfmt = 40, qid = 42, sqsize = 44, kato = 48);

/// Bits of CATTR.
pub mod cattr {
    /// Priority class, bits 1:0.
    pub const PRIORITY_CLASS: u8 = 0x03;
    /// Disable SQ flow control.
    pub const DISABLE_SQ_FLOW_CONTROL: u8 = 1 << 2;
    /// Individual I/O queue deletion support.
    pub const INDIVIDUAL_QUEUE_DELETION: u8 = 1 << 3;
}

/// The data of a Connect command.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ConnectData {
    /// HOSTID: host identifier.
    pub hostid: [u8; 16],
    /// CNTLID: controller identifier, or a wildcard on the admin queue.
    pub cntlid: U16,
    /// Reserved.
    pub reserved18: [u8; 238],
    /// SUBNQN: the NVM subsystem.
    pub subnqn: [u8; NQN_FIELD_LEN],
    /// HOSTNQN: the host.
    pub hostnqn: [u8; NQN_FIELD_LEN],
    /// Reserved.
    pub reserved768: [u8; 256],
}
layout!(ConnectData, 1024, cntlid = 16, subnqn = 256, hostnqn = 512);

/// The Disconnect command.
//= NVMe-Base 2.1 §6.4
//# disconnect names its record format only: it acts on the queue it arrives on
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct DisconnectSqe {
    /// OPC: 7Fh.
    pub opcode: u8,
    /// PSDT in bits 7:6.
    pub flags: u8,
    /// CID.
    pub cid: U16,
    /// FCTYPE: 08h.
    pub fctype: u8,
    /// Reserved.
    pub reserved5: [u8; 35],
    /// RECFMT: record format, 0.
    pub recfmt: U16,
    /// Reserved.
    pub reserved42: [u8; 22],
}
layout!(DisconnectSqe, 64, fctype = 4, recfmt = 40);

/// The Property Get command.
//= NVMe-Base 2.1 §6.5
//# ATTRIB tells 4 or 8 bytes, OFST the property
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct PropertyGetSqe {
    /// OPC: 7Fh.
    pub opcode: u8,
    /// PSDT in bits 7:6.
    pub flags: u8,
    /// CID.
    pub cid: U16,
    /// FCTYPE: 04h.
    pub fctype: u8,
    /// Reserved.
    pub reserved5: [u8; 35],
    /// ATTRIB: property size in bits 2:0, 0 is 4 bytes and 1 is 8 bytes.
    pub attrib: u8,
    /// Reserved.
    pub reserved41: [u8; 3],
    /// OFST: offset of the property.
    pub offset: U32,
    /// Reserved.
    pub reserved48: [u8; 16],
}
layout!(PropertyGetSqe, 64, fctype = 4, attrib = 40, offset = 44);

/// The Property Set command.
//= NVMe-Base 2.1 §6.6
//# as Property Get, with the value behind
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct PropertySetSqe {
    /// OPC: 7Fh.
    pub opcode: u8,
    /// PSDT in bits 7:6.
    pub flags: u8,
    /// CID.
    pub cid: U16,
    /// FCTYPE: 00h.
    pub fctype: u8,
    /// Reserved.
    pub reserved5: [u8; 35],
    /// ATTRIB: property size in bits 2:0.
    pub attrib: u8,
    /// Reserved.
    pub reserved41: [u8; 3],
    /// OFST: offset of the property.
    pub offset: U32,
    /// VALUE: the new value; 4-byte properties use the low half.
    pub value: U64,
    /// Reserved.
    pub reserved56: [u8; 8],
}
layout!(PropertySetSqe, 64, fctype = 4, attrib = 40, offset = 44, value = 48);
