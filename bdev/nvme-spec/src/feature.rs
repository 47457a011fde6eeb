//! Feature identifiers and the bits in their values.
//!
//! Sources: `NVMe-Base 2.1 §5.1.25` for all of them.

/// FID 01h: Arbitration.
pub const ARBITRATION: u8 = 0x01;
/// FID 02h: Power Management.
pub const POWER_MANAGEMENT: u8 = 0x02;
/// FID 04h: Temperature Threshold.
pub const TEMPERATURE_THRESHOLD: u8 = 0x04;
/// FID 05h: Error Recovery (NVM command set).
pub const ERROR_RECOVERY: u8 = 0x05;
/// FID 06h: Volatile Write Cache.
pub const VOLATILE_WRITE_CACHE: u8 = 0x06;
/// FID 07h: Number of Queues.
pub const NUMBER_OF_QUEUES: u8 = 0x07;
/// FID 0Ah: Write Atomicity Normal (NVM command set).
pub const WRITE_ATOMICITY: u8 = 0x0a;
/// FID 0Bh: Asynchronous Event Configuration; the bits are those of OAES.
pub const ASYNC_EVENT_CONFIG: u8 = 0x0b;
/// FID 0Eh: Timestamp.
pub const TIMESTAMP: u8 = 0x0e;
/// FID 0Fh: Keep Alive Timer.
pub const KEEP_ALIVE_TIMER: u8 = 0x0f;
/// FID 16h: Host Behavior Support.
pub const HOST_BEHAVIOR: u8 = 0x16;
/// FID 81h: Host Identifier.
pub const HOST_IDENTIFIER: u8 = 0x81;

/// FID 82h: Reservation Notification Mask.
pub const RESERVATION_MASK: u8 = 0x82;
/// FID 83h: Reservation Persistence.
pub const RESERVATION_PERSISTENCE: u8 = 0x83;

/// SEL of Get Features, bits 10:8 of CDW10.
pub mod select {
    /// Current value.
    pub const CURRENT: u8 = 0;
    /// Default value.
    pub const DEFAULT: u8 = 1;
    /// Saved value.
    pub const SAVED: u8 = 2;
    /// Supported capabilities.
    pub const CAPABILITIES: u8 = 3;
}

/// SV of Set Features: save the value across resets.
pub const SAVE: u32 = 1 << 31;

/// Capabilities (SEL 011b), bit 1: the feature is a namespace's.
pub const CAPABILITY_NAMESPACE: u32 = 1 << 1;

/// Capabilities (SEL 011b), bit 2: the feature can be changed.
pub const CAPABILITY_CHANGEABLE: u32 = 1 << 2;

/// Bytes of the Timestamp feature's data.
pub const TIMESTAMP_LEN: usize = 8;

/// Bytes of the Host Behavior Support feature's data.
pub const HOST_BEHAVIOR_LEN: usize = 512;

/// Where CDFE, 16 bits, is in the Host Behavior Support feature's data: bit n enables format n of
/// Copy's descriptors. Formats 0 and 1 need no enabling.
pub const HOST_BEHAVIOR_CDFE: usize = 4;

/// Bytes of an extended host identifier (EXHID set).
pub const HOST_IDENTIFIER_LEN: usize = 16;

/// Asynchronous event types, bits 2:0 of the completion's DW0.
pub mod event_type {
    /// Error status.
    pub const ERROR: u32 = 0;
    /// SMART and health.
    pub const SMART: u32 = 1;
    /// Notice.
    pub const NOTICE: u32 = 2;
    /// I/O command specific: information 0 is an available reservation log page.
    pub const IO_COMMAND: u32 = 6;
}

/// Asynchronous event information of a notice, bits 15:8 of the completion's DW0.
pub mod notice {
    /// Attached Namespace Attribute Changed: read log 04h.
    pub const NAMESPACE_CHANGED: u32 = 0x00;
    /// Asymmetric Namespace Access Change: read log 0Ch.
    pub const ANA_CHANGE: u32 = 0x03;
    /// Cross-Controller Reset Completed: read log 1Eh.
    pub const CROSS_RESET_COMPLETED: u32 = 0xf4;
    /// Discovery Log Page Change: read log 70h.
    pub const DISCOVERY_CHANGE: u32 = 0xf0;
}

/// SMART and health events: their bits in Asynchronous Event Configuration, which are those of the
/// critical warnings, and their information.
pub mod smart_event {
    /// The spare fell below its threshold.
    pub const SPARE_ENABLED: u32 = 1;
    /// Reliability is degraded.
    pub const RELIABILITY_ENABLED: u32 = 1 << 2;
    /// NVM subsystem reliability.
    pub const RELIABILITY: u32 = 0;
    /// Spare below threshold.
    pub const SPARE: u32 = 2;
}
