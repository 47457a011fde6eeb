//! Submission and completion queue entries, and the data that I/O commands carry.

use crate::{NvmeStatus, Sgl, U16, U32, U64, layout};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A submission queue entry: 64 bytes, the command.
//= NVMe-Base 2.1 §4.1
//# the common command format: 16 dwords, CDW0 holds opcode, FUSE, PSDT and CID
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Sqe {
    /// OPC: opcode.
    pub opcode: u8,
    /// FUSE in bits 1:0, PSDT in bits 7:6.
    pub flags: u8,
    /// CID: command identifier.
    pub cid: U16,
    /// NSID: namespace identifier.
    pub nsid: U32,
    /// CDW2: command specific.
    pub cdw2: U32,
    /// CDW3: command specific.
    pub cdw3: U32,
    /// MPTR: metadata pointer.
    pub mptr: U64,
    /// DPTR: data pointer; over Fabrics always one SGL descriptor.
    pub dptr: Sgl,
    /// CDW10: command specific.
    pub cdw10: U32,
    /// CDW11: command specific.
    pub cdw11: U32,
    /// CDW12: command specific.
    pub cdw12: U32,
    /// CDW13: command specific.
    pub cdw13: U32,
    /// CDW14: command specific.
    pub cdw14: U32,
    /// CDW15: command specific.
    pub cdw15: U32,
}
layout!(Sqe, 64, cid = 2, nsid = 4, mptr = 16, dptr = 24, cdw10 = 40, cdw15 = 60);

/// PSDT 01b, in its place in [`Sqe::flags`]: SGL in the data pointer, contiguous metadata.
pub const PSDT_SGL: u8 = 0x40;

/// FUSE: values of bits 1:0 of [`Sqe::flags`].
pub mod fuse {
    /// The first command of a fused operation.
    pub const FIRST: u8 = 0b01;
    /// The second one.
    pub const SECOND: u8 = 0b10;
}

impl Sqe {
    /// FUSE: 0 normal, 1 first, 2 second of a fused pair.
    #[must_use]
    pub fn fuse(&self) -> u8 {
        self.flags & 0x03
    }

    /// PSDT: 0 PRP, 1 SGL with a contiguous metadata buffer, 2 SGL with a metadata SGL.
    #[must_use]
    pub fn psdt(&self) -> u8 {
        self.flags >> 6
    }

    /// SLBA: starting logical block (CDW10 and CDW11) of an NVM command.
    #[must_use]
    pub fn slba(&self) -> u64 {
        u64::from(self.cdw11.get()) << 32 | u64::from(self.cdw10.get())
    }

    /// Sets SLBA.
    pub fn set_slba(&mut self, slba: u64) {
        let (low, high) = split(slba);
        self.cdw10.set(low);
        self.cdw11.set(high);
    }

    /// NLB plus one: the number of logical blocks of an NVM command, 1 to 65536.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        (self.cdw12.get() & 0xffff) + 1
    }
}

/// The low and the high half of a 64-bit value.
pub(crate) fn split(value: u64) -> (u32, u32) {
    let bytes = value.to_le_bytes();
    let low = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let high = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    (low, high)
}

/// Bits of CDW12 in the NVM commands.
pub mod io_control {
    /// PRACT: protection information action.
    pub const PRACT: u32 = 1 << 29;
    /// LR: limited retry.
    pub const LR: u32 = 1 << 31;
    /// FUA: force unit access.
    pub const FUA: u32 = 1 << 30;
    /// PRINFO: protection information field, bits 29:26.
    pub const PRINFO: u32 = 0xf << 26;
    /// DEAC: deallocate (Write Zeroes).
    pub const DEAC: u32 = 1 << 25;
    /// STC: storage tag check.
    pub const STC: u32 = 1 << 24;
    /// NSZ: namespace zeroes (Write Zeroes).
    pub const NSZ: u32 = 1 << 23;
}

/// A completion queue entry: 16 bytes, the answer.
//= NVMe-Base 2.1 §4.2
//# DW0 and DW1 command specific, SQHD and SQID, CID, status with the phase tag in bit 0
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Cqe {
    /// DW0: command specific result.
    pub dw0: U32,
    /// DW1: command specific result.
    pub dw1: U32,
    /// SQHD: submission queue head pointer.
    pub sqhd: U16,
    /// SQID: submission queue identifier; reserved over Fabrics.
    pub sqid: U16,
    /// CID: the command that completed.
    pub cid: U16,
    /// P in bit 0 (reserved over Fabrics), STATUS in bits 15:1.
    pub status: U16,
}
layout!(Cqe, 16, dw1 = 4, sqhd = 8, sqid = 10, cid = 12, status = 14);

impl Cqe {
    /// The status field, without the phase tag.
    #[must_use]
    pub fn nvme_status(&self) -> NvmeStatus {
        NvmeStatus::from_field(self.status.get())
    }
}

/// One range of a Dataset Management command.
//= NVMe-NVM 1.1 §3.3.3
//# each range: context attributes, length in logical blocks, starting LBA
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct DsmRange {
    /// CATTR: context attributes.
    pub cattr: U32,
    /// LLB: length in logical blocks (not zero based).
    pub llb: U32,
    /// SLBA: starting LBA.
    pub slba: U64,
}
layout!(DsmRange, 16, llb = 4, slba = 8);

/// The part of a Copy command's source range that all descriptor formats have at the same place:
/// the first 24 bytes. Formats 0 and 1 have neither SNSID nor SOPT.
//= NVMe-NVM 1.1 §3.3.2
//# source namespace, starting LBA, number of blocks and source options
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CopyRange {
    /// SNSID: source namespace, in formats 2 and 3.
    pub snsid: U32,
    /// Reserved.
    pub reserved4: U32,
    /// SLBA: the first block.
    pub slba: U64,
    /// NLB: number of logical blocks, 0's based.
    pub nlb: U16,
    /// CETYPE: command extension type.
    pub cetype: u8,
    /// Reserved.
    pub reserved19: u8,
    /// CEV: command extension value.
    pub cev: U16,
    /// SOPT: source options, in formats 2 and 3; bit 15 is [`CopyRange::FAST_COPY_ONLY`].
    pub sopt: U16,
}
layout!(CopyRange, 24, slba = 8, nlb = 16, cev = 20, sopt = 22);

impl CopyRange {
    /// FCO: fail rather than move the data.
    pub const FAST_COPY_ONLY: u16 = 1 << 15;

    /// Bytes of one descriptor of this format; `None` for one that does not exist.
    #[must_use]
    pub const fn len_of(format: u8) -> Option<u32> {
        match format {
            0 | 2 => Some(32),
            1 | 3 => Some(40),
            _ => None,
        }
    }

    /// Number of blocks.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        u32::from(self.nlb.get()) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    #[test]
    fn sqe_fields_land_where_the_wire_has_them() {
        let mut sqe = Sqe::new_zeroed();
        sqe.opcode = 0x02;
        sqe.flags = PSDT_SGL;
        sqe.cid.set(0x1234);
        sqe.set_slba(0x1122_3344_5566_7788);
        sqe.cdw12.set(7 | io_control::FUA);
        let bytes = sqe.as_bytes();
        assert_eq!(bytes[..4], [0x02, 0x40, 0x34, 0x12]);
        assert_eq!(bytes[40..48], [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
        assert_eq!(bytes[51], 0x40);
        assert_eq!(sqe.blocks(), 8);
        assert_eq!((sqe.psdt(), sqe.fuse()), (1, 0));
    }
}
