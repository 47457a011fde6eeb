//! The SGL descriptor: the only data pointer that Fabrics knows.

use crate::{U32, U64, layout};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An SGL descriptor, 16 bytes.
//= NVMe-Base 2.1 §4.3.2
//# type and sub type in the last byte; a data block has address and length
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Sgl {
    /// ADDR: an address, or an offset into the capsule with sub type 1h.
    pub address: U64,
    /// LEN: bytes.
    pub length: U32,
    /// Reserved.
    pub reserved: [u8; 3],
    /// SGLT in bits 7:4, SGLS in bits 3:0: one of [`sgl_type`].
    pub kind: u8,
}
layout!(Sgl, 16, length = 8, kind = 15);

/// Descriptor type and sub type as one byte, as [`Sgl::kind`] has them.
pub mod sgl_type {
    /// SGL Data Block descriptor with an address: not usable over TCP.
    pub const DATA_BLOCK_ADDRESS: u8 = 0x00;
    /// SGL Data Block descriptor whose address is an offset into the capsule's data.
    pub const DATA_BLOCK_OFFSET: u8 = 0x01;
    /// Transport SGL Data Block descriptor: the transport moves the data (Ah is TCP's sub type).
    pub const TRANSPORT_DATA_BLOCK: u8 = 0x5a;
}

impl Sgl {
    /// The descriptor for `length` bytes that travel in the capsule, at `offset` of its data.
    #[must_use]
    pub fn in_capsule(offset: u64, length: u32) -> Self {
        Self::of(offset, length, sgl_type::DATA_BLOCK_OFFSET)
    }

    /// The descriptor for `length` bytes that the transport moves (R2T and data PDUs).
    #[must_use]
    pub fn transport(length: u32) -> Self {
        Self::of(0, length, sgl_type::TRANSPORT_DATA_BLOCK)
    }

    fn of(address: u64, length: u32, kind: u8) -> Self {
        Self { address: U64::new(address), length: U32::new(length), reserved: [0; 3], kind }
    }
}
