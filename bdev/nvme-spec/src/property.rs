//! Controller properties: their offsets and the bits in them.
//!
//! Over Fabrics a host reaches these through Property Get and Property Set instead of memory.

/// CAP: controller capabilities, 8 bytes.
pub const CAP: u32 = 0x00;
/// VS: version, 4 bytes.
pub const VS: u32 = 0x08;
/// CC: controller configuration, 4 bytes.
pub const CC: u32 = 0x14;
/// CSTS: controller status, 4 bytes.
pub const CSTS: u32 = 0x1c;
/// NSSR: NVM subsystem reset, 4 bytes.
pub const NSSR: u32 = 0x20;
/// CRTO: controller ready timeouts, 4 bytes.
pub const CRTO: u32 = 0x68;

/// Fields of CAP.
//= NVMe-Base 2.1 §3.1.4.1
//# basic capabilities of the controller
pub mod cap {
    /// MQES: maximum queue entries supported, 0's based, bits 15:0.
    pub const MQES_SHIFT: u32 = 0;
    /// CQR: contiguous queues required.
    pub const CQR: u64 = 1 << 16;
    /// TO: timeout, units of 500 ms, bits 31:24.
    pub const TO_SHIFT: u32 = 24;
    /// CSS.NCSS: the NVM command set is supported.
    pub const CSS_NVM: u64 = 1 << 37;
    /// CSS.IOCSS: one or more I/O command sets are supported, told by CNS 1Ch.
    pub const CSS_IOCSS: u64 = 1 << 43;
    /// CSS.NOIOCSS: no I/O command set.
    pub const CSS_ADMIN_ONLY: u64 = 1 << 44;
    /// MPSMIN: smallest memory page, 2 to the power of 12 plus this, bits 51:48.
    pub const MPSMIN_SHIFT: u32 = 48;
    /// MPSMAX: largest memory page, bits 55:52.
    pub const MPSMAX_SHIFT: u32 = 52;
    /// CRMS.CRWMS: controller ready with media support.
    pub const CRWMS: u64 = 1 << 59;
    /// CRMS.CRIMS: controller ready independent of media support.
    pub const CRIMS: u64 = 1 << 60;
}

/// Fields of CC.
//= NVMe-Base 2.1 §3.1.4.5
//# what the host sets: enable, command set, shutdown notification, entry sizes
pub mod cc {
    /// EN: enable.
    pub const EN: u32 = 1;
    /// CSS: command set selected, bits 6:4; 000b NVM, 110b all supported, 111b admin only.
    pub const CSS_SHIFT: u32 = 4;
    /// CSS value: NVM command set.
    pub const CSS_NVM: u32 = 0b000;
    /// CSS value: all supported I/O command sets.
    pub const CSS_ALL: u32 = 0b110;
    /// CSS value: admin command set only.
    pub const CSS_ADMIN: u32 = 0b111;
    /// MPS: memory page size, bits 10:7.
    pub const MPS_SHIFT: u32 = 7;
    /// AMS: arbitration mechanism, bits 13:11.
    pub const AMS_SHIFT: u32 = 11;
    /// SHN: shutdown notification, bits 15:14; 01b normal, 10b abrupt.
    pub const SHN_SHIFT: u32 = 14;
    /// IOSQES: I/O submission entry size, bits 19:16.
    pub const IOSQES_SHIFT: u32 = 16;
    /// IOCQES: I/O completion entry size, bits 23:20.
    pub const IOCQES_SHIFT: u32 = 20;
    /// CRIME: ready independent of media enable.
    pub const CRIME: u32 = 1 << 24;
}

/// Fields of CSTS.
//= NVMe-Base 2.1 §3.1.4.6
//# what the controller answers: ready, fatal, shutdown status
pub mod csts {
    /// RDY: ready.
    pub const RDY: u32 = 1;
    /// CFS: controller fatal status.
    pub const CFS: u32 = 1 << 1;
    /// SHST: shutdown status, bits 3:2.
    pub const SHST_MASK: u32 = 3 << 2;
    /// SHST 01b: shutdown processing occurring.
    pub const SHST_OCCURRING: u32 = 1 << 2;
    /// SHST 10b: shutdown processing complete.
    pub const SHST_COMPLETE: u32 = 2 << 2;
}

/// VS of NVMe Base 2.1.
pub const VERSION_2_1: u32 = 0x0002_0100;
