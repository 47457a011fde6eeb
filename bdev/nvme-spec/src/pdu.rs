//! NVMe/TCP PDU headers.
//!
//! A PDU is: a header of HLEN bytes that starts with the common header; if header digests are on, 4
//! bytes of digest; padding up to PDO; data; if data digests are on, 4 bytes of digest.

use crate::{Cqe, Sqe, U16, U32, layout};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a header or data digest.
pub const DIGEST_LEN: usize = 4;

/// The largest HPDA or CPDA: alignment of (31 + 1) dwords.
pub const PDO_DWORDS_MAX: u8 = 31;

/// Bytes of offending PDU header that a terminate request carries at most.
//= NVMe-TCP 1.1 §3.6.2.4
//# the data of a TermReq is the header of the PDU in error; the whole PDU has at most 152 bytes
pub const TERM_DATA_MAX: usize = 128;

/// PDU types.
//= NVMe-TCP 1.1 §3.6.2.1
//# PDU-Type values
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PduType {
    /// ICReq, host to controller.
    IcReq = 0x00,
    /// ICResp, controller to host.
    IcResp = 0x01,
    /// H2CTermReq.
    H2cTermReq = 0x02,
    /// C2HTermReq.
    C2hTermReq = 0x03,
    /// CapsuleCmd, host to controller.
    CapsuleCmd = 0x04,
    /// CapsuleResp, controller to host.
    CapsuleResp = 0x05,
    /// H2CData.
    H2cData = 0x06,
    /// C2HData.
    C2hData = 0x07,
    /// R2T, controller to host.
    R2t = 0x09,
}

impl PduType {
    /// The type of a PDU-Type byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0x00 => Self::IcReq,
            0x01 => Self::IcResp,
            0x02 => Self::H2cTermReq,
            0x03 => Self::C2hTermReq,
            0x04 => Self::CapsuleCmd,
            0x05 => Self::CapsuleResp,
            0x06 => Self::H2cData,
            0x07 => Self::C2hData,
            0x09 => Self::R2t,
            _ => return None,
        })
    }

    /// HLEN of this type: bytes of its header.
    #[must_use]
    pub const fn header_len(self) -> usize {
        match self {
            Self::IcReq | Self::IcResp => 128,
            Self::CapsuleCmd => 72,
            Self::H2cTermReq
            | Self::C2hTermReq
            | Self::CapsuleResp
            | Self::H2cData
            | Self::C2hData
            | Self::R2t => 24,
        }
    }
}

/// Bits of FLAGS in the common header.
pub mod pdu_flags {
    /// HDGSTF: a header digest follows the header.
    pub const HDGST: u8 = 1;
    /// DDGSTF: a data digest follows the data.
    pub const DDGST: u8 = 1 << 1;
    /// LAST_PDU: the last data PDU of a transfer (data PDUs).
    pub const LAST: u8 = 1 << 2;
    /// SUCCESS: no response capsule follows, the command succeeded (C2HData).
    pub const SUCCESS: u8 = 1 << 3;
}

/// The common header, 8 bytes.
//= NVMe-TCP 1.1 §3.6.2.1
//# PDU-Type, FLAGS, HLEN, PDO, PLEN
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CommonHeader {
    /// PDU-Type: a [`PduType`].
    pub pdu_type: u8,
    /// FLAGS: bits in [`pdu_flags`].
    pub flags: u8,
    /// HLEN: bytes of the header, without digest.
    pub hlen: u8,
    /// PDO: offset of the data from the start of the PDU; 0 without data.
    pub pdo: u8,
    /// PLEN: bytes of the whole PDU.
    pub plen: U32,
}
layout!(CommonHeader, 8, plen = 4);

/// Initialize Connection Request, 128 bytes.
//= NVMe-TCP 1.1 §3.6.2.2
//# PFV, HPDA, DGST, MAXR2T
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IcReq {
    /// CH.
    pub ch: CommonHeader,
    /// PFV: PDU format version, 0.
    pub pfv: U16,
    /// HPDA: data alignment in PDUs to the host, dwords, 0's based.
    pub hpda: u8,
    /// DGST: digests the host wants, bits in [`digest_flags`].
    pub dgst: u8,
    /// MAXR2T: R2Ts outstanding per command, 0's based.
    pub maxr2t: U32,
    /// Reserved.
    pub reserved16: [u8; 112],
}
layout!(IcReq, 128, pfv = 8, maxr2t = 12);

/// Bits of DGST.
pub mod digest_flags {
    /// HDGST_ENABLE.
    pub const HEADER: u8 = 1;
    /// DDGST_ENABLE.
    pub const DATA: u8 = 1 << 1;
}

/// Initialize Connection Response, 128 bytes.
//= NVMe-TCP 1.1 §3.6.2.3
//# PFV, CPDA, DGST, MAXH2CDATA
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IcResp {
    /// CH.
    pub ch: CommonHeader,
    /// PFV: PDU format version, 0.
    pub pfv: U16,
    /// CPDA: data alignment in PDUs to the controller, dwords, 0's based.
    pub cpda: u8,
    /// DGST: digests in use, bits in [`digest_flags`].
    pub dgst: u8,
    /// MAXH2CDATA: data bytes of one H2CData PDU at most; at least 4096, a multiple of 4.
    pub maxh2cdata: U32,
    /// Reserved.
    pub reserved16: [u8; 112],
}
layout!(IcResp, 128, pfv = 8, maxh2cdata = 12);

/// Terminate Connection Request, both directions: 24 bytes, then the header in error.
//= NVMe-TCP 1.1 §3.6.2.4
//# FES, FEI, then the header of the PDU in error
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct TermReqHeader {
    /// CH.
    pub ch: CommonHeader,
    /// FES: fatal error status, a [`FatalError`].
    pub fes: U16,
    /// FEI: fatal error information: the offset of the field in error, for those that have one.
    pub fei: U32,
    /// Reserved.
    pub reserved14: [u8; 10],
}
layout!(TermReqHeader, 24, fes = 8, fei = 10);

/// FES values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum FatalError {
    /// 01h: Invalid PDU Header Field.
    InvalidHeaderField = 0x01,
    /// 02h: PDU Sequence Error.
    SequenceError = 0x02,
    /// 03h: Header Digest Error.
    HeaderDigestError = 0x03,
    /// 04h: Data Transfer Out of Range.
    DataOutOfRange = 0x04,
    /// 05h: R2T Limit Exceeded (C2H: Data Transfer Limit Exceeded).
    LimitExceeded = 0x05,
    /// 06h: Unsupported Parameter.
    UnsupportedParameter = 0x06,
}

/// Command capsule, 72 bytes; in-capsule data may follow.
//= NVMe-TCP 1.1 §3.6.2.6
//# the common header, then the SQE
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CapsuleCmdHeader {
    /// CH.
    pub ch: CommonHeader,
    /// CCSQE: the command.
    pub sqe: Sqe,
}
layout!(CapsuleCmdHeader, 72, sqe = 8);

/// Response capsule, 24 bytes.
//= NVMe-TCP 1.1 §3.6.2.7
//# the common header, then the CQE
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CapsuleRespHeader {
    /// CH.
    pub ch: CommonHeader,
    /// RCCQE: the completion.
    pub cqe: Cqe,
}
layout!(CapsuleRespHeader, 24, cqe = 8);

/// Host to controller data, 24 bytes; the data follows.
//= NVMe-TCP 1.1 §3.6.2.8
//# CCCID, TTAG, DATAO, DATAL
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct H2cDataHeader {
    /// CH.
    pub ch: CommonHeader,
    /// CCCID: the command.
    pub cccid: U16,
    /// TTAG: the tag of the R2T.
    pub ttag: U16,
    /// DATAO: offset of this data in the command's data.
    pub datao: U32,
    /// DATAL: bytes of data.
    pub datal: U32,
    /// Reserved.
    pub reserved20: [u8; 4],
}
layout!(H2cDataHeader, 24, cccid = 8, ttag = 10, datao = 12, datal = 16);

/// Controller to host data, 24 bytes; the data follows.
//= NVMe-TCP 1.1 §3.6.2.9
//# CCCID, DATAO, DATAL
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct C2hDataHeader {
    /// CH.
    pub ch: CommonHeader,
    /// CCCID: the command.
    pub cccid: U16,
    /// Reserved.
    pub reserved10: U16,
    /// DATAO: offset of this data in the command's data.
    pub datao: U32,
    /// DATAL: bytes of data.
    pub datal: U32,
    /// Reserved.
    pub reserved20: [u8; 4],
}
layout!(C2hDataHeader, 24, cccid = 8, datao = 12, datal = 16);

/// Ready to transfer, 24 bytes.
//= NVMe-TCP 1.1 §3.6.2.10
//# CCCID, TTAG, R2TO, R2TL
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct R2tHeader {
    /// CH.
    pub ch: CommonHeader,
    /// CCCID: the command.
    pub cccid: U16,
    /// TTAG: transfer tag, echoed by the data PDUs.
    pub ttag: U16,
    /// R2TO: offset of the requested data in the command's data.
    pub r2to: U32,
    /// R2TL: bytes requested.
    pub r2tl: U32,
    /// Reserved.
    pub reserved20: [u8; 4],
}
layout!(R2tHeader, 24, cccid = 8, ttag = 10, r2to = 12, r2tl = 16);

const _: () = assert!(PduType::IcReq.header_len() == core::mem::size_of::<IcReq>());
const _: () = assert!(PduType::CapsuleCmd.header_len() == core::mem::size_of::<CapsuleCmdHeader>());
const _: () = assert!(PduType::R2t.header_len() == core::mem::size_of::<R2tHeader>());
