//! Status codes, and the status field that carries them.

/// SCT in bits 10:8 and SC in bits 7:0: what happened.
//= NVMe-Base 2.1 §4.2.3
//# status code type and status code tell the outcome of a command
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatusCode(u16);

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $value:literal),* $(,)?) => {
        impl StatusCode {
            $($(#[doc = $doc])* pub const $name: StatusCode = StatusCode($value);)*

            /// The constant's name, for logs; `None` for a code that has none here.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// Successful Completion.
    SUCCESS = 0x000,
    /// Invalid Command Opcode.
    INVALID_OPCODE = 0x001,
    /// Invalid Field in Command.
    INVALID_FIELD = 0x002,
    /// Command ID Conflict.
    COMMAND_ID_CONFLICT = 0x003,
    /// Data Transfer Error.
    DATA_TRANSFER_ERROR = 0x004,
    /// Commands Aborted due to Power Loss Notification.
    POWER_LOSS = 0x005,
    /// Internal Error.
    INTERNAL_ERROR = 0x006,
    /// Command Abort Requested.
    ABORT_REQUESTED = 0x007,
    /// Command Aborted due to SQ Deletion.
    ABORTED_SQ_DELETION = 0x008,
    /// Command Aborted due to Failed Fused Command.
    ABORTED_FAILED_FUSED = 0x009,
    /// Command Aborted due to Missing Fused Command.
    ABORTED_MISSING_FUSED = 0x00a,
    /// Invalid Namespace or Format.
    INVALID_NAMESPACE = 0x00b,
    /// Command Sequence Error.
    COMMAND_SEQUENCE_ERROR = 0x00c,
    /// Invalid SGL Segment Descriptor.
    SGL_INVALID_SEGMENT = 0x00d,
    /// Invalid Number of SGL Descriptors.
    SGL_INVALID_COUNT = 0x00e,
    /// Data SGL Length Invalid.
    SGL_DATA_LENGTH_INVALID = 0x00f,
    /// SGL Descriptor Type Invalid.
    SGL_TYPE_INVALID = 0x011,
    /// Atomic Write Unit Exceeded.
    ATOMIC_WRITE_UNIT_EXCEEDED = 0x014,
    /// Operation Denied.
    OPERATION_DENIED = 0x015,
    /// SGL Offset Invalid.
    SGL_OFFSET_INVALID = 0x016,
    /// Host Identifier Inconsistent Format.
    HOST_ID_INCONSISTENT = 0x018,
    /// Keep Alive Timer Expired.
    KEEP_ALIVE_EXPIRED = 0x019,
    /// Keep Alive Timeout Invalid.
    KEEP_ALIVE_INVALID = 0x01a,
    /// SGL Data Block Granularity Invalid.
    SGL_GRANULARITY_INVALID = 0x01e,
    /// Command Interrupted.
    COMMAND_INTERRUPTED = 0x021,
    /// Transient Transport Error.
    TRANSIENT_TRANSPORT_ERROR = 0x022,
    /// Namespace is Write Protected.
    WRITE_PROTECTED = 0x020,
    /// Admin Command Media Not Ready.
    ADMIN_MEDIA_NOT_READY = 0x024,
    /// Invalid I/O Command Set Combination Rejected, as seen by Identify and Set Features.
    INVALID_COMMAND_SET = 0x02b,
    /// LBA Out of Range.
    LBA_OUT_OF_RANGE = 0x080,
    /// Capacity Exceeded.
    CAPACITY_EXCEEDED = 0x081,
    /// Namespace Not Ready.
    NAMESPACE_NOT_READY = 0x082,
    /// Reservation Conflict.
    RESERVATION_CONFLICT = 0x083,
    /// Invalid Log Page.
    INVALID_LOG_PAGE = 0x109,
    /// Abort Command Limit Exceeded.
    ABORT_LIMIT_EXCEEDED = 0x103,
    /// Asynchronous Event Request Limit Exceeded.
    ASYNC_EVENT_LIMIT_EXCEEDED = 0x105,
    /// Feature Identifier Not Saveable.
    FEATURE_NOT_SAVEABLE = 0x10d,
    /// Feature Not Changeable.
    FEATURE_NOT_CHANGEABLE = 0x10e,
    /// Feature Not Namespace Specific.
    FEATURE_NOT_NAMESPACE_SPECIFIC = 0x10f,
    /// Controller List Invalid.
    CONTROLLER_LIST_INVALID = 0x11c,
    /// Cross-Controller Reset In Progress.
    CROSS_RESET_IN_PROGRESS = 0x13f,
    /// Cross-Controller Reset Log Page Full.
    CROSS_RESET_LOG_FULL = 0x140,
    /// Cross-Controller Reset Limit Exceeded.
    CROSS_RESET_LIMIT_EXCEEDED = 0x141,
    /// Connect: Incompatible Format.
    CONNECT_INCOMPATIBLE_FORMAT = 0x180,
    /// Connect: Controller Busy.
    CONNECT_CONTROLLER_BUSY = 0x181,
    /// Connect: Invalid Parameters.
    CONNECT_INVALID_PARAMETERS = 0x182,
    /// Connect: Restart Discovery.
    CONNECT_RESTART_DISCOVERY = 0x183,
    /// Connect: Invalid Host.
    CONNECT_INVALID_HOST = 0x184,
    /// Disconnect: Invalid Queue Type.
    DISCONNECT_INVALID_QUEUE_TYPE = 0x185,
    /// Fast Copy Not Possible.
    FAST_COPY_NOT_POSSIBLE = 0x186,
    /// Overlapping I/O Range.
    OVERLAPPING_IO_RANGE = 0x187,
    /// Discover Restart.
    DISCOVER_RESTART = 0x190,
    /// Authentication Required.
    AUTHENTICATION_REQUIRED = 0x191,
    /// Write Fault.
    WRITE_FAULT = 0x280,
    /// Unrecovered Read Error.
    UNRECOVERED_READ_ERROR = 0x281,
    /// Compare Failure.
    COMPARE_FAILURE = 0x285,
    /// Access Denied.
    ACCESS_DENIED = 0x286,
    /// Deallocated or Unwritten Logical Block.
    DEALLOCATED_BLOCK = 0x287,
    /// Internal Path Error.
    INTERNAL_PATH_ERROR = 0x300,
    /// Asymmetric Access Persistent Loss.
    ANA_PERSISTENT_LOSS = 0x301,
    /// Asymmetric Access Inaccessible.
    ANA_INACCESSIBLE = 0x302,
    /// Asymmetric Access Transition.
    ANA_TRANSITION = 0x303,
    /// Controller Pathing Error.
    CONTROLLER_PATHING_ERROR = 0x360,
    /// Host Pathing Error.
    HOST_PATHING_ERROR = 0x370,
    /// Command Aborted By Host.
    ABORTED_BY_HOST = 0x371,
}

/// Codes of the NVM command set that have the number of a Connect code: what they mean follows from
/// the command that they answer.
impl StatusCode {
    /// Command Size Limit Exceeded.
    pub const COMMAND_SIZE_LIMIT_EXCEEDED: StatusCode = StatusCode(0x183);
    /// Incompatible Namespace or Format.
    pub const INCOMPATIBLE_NAMESPACE: StatusCode = StatusCode(0x185);
}

impl StatusCode {
    /// The code of a status code type (3 bits used) and a status code.
    #[must_use]
    pub const fn of(sct: u8, sc: u8) -> Self {
        Self(((sct as u16) & 0x7) << 8 | sc as u16)
    }

    /// SCT: status code type.
    #[must_use]
    pub const fn sct(self) -> u8 {
        self.0.to_le_bytes()[1]
    }

    /// SC: status code.
    #[must_use]
    pub const fn sc(self) -> u8 {
        self.0.to_le_bytes()[0]
    }
}

impl core::fmt::Debug for StatusCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#05x}", self.0),
        }
    }
}

/// A whole status: the code and the bits about retrying.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NvmeStatus {
    /// What happened.
    pub code: StatusCode,
    /// DNR: the same command, sent again, fails again.
    pub dnr: bool,
}

impl NvmeStatus {
    /// Success.
    pub const SUCCESS: NvmeStatus = NvmeStatus { code: StatusCode::SUCCESS, dnr: false };

    /// M, in the 16-bit field: the error log says more.
    pub const MORE: u16 = 1 << 14;

    /// A failure that stays one however often it is tried.
    #[must_use]
    pub const fn never(code: StatusCode) -> Self {
        Self { code, dnr: true }
    }

    /// A failure that may pass: the host is welcome to retry.
    #[must_use]
    pub const fn again(code: StatusCode) -> Self {
        Self { code, dnr: false }
    }

    /// Whether the command succeeded.
    #[must_use]
    pub fn is_success(self) -> bool {
        self.code == StatusCode::SUCCESS
    }

    /// The 16-bit field of a completion entry: P clear, SC, SCT, CRD clear, M clear, DNR.
    #[must_use]
    pub const fn to_field(self) -> u16 {
        self.code.0 << 1 | (self.dnr as u16) << 15
    }

    /// Reads the 16-bit field of a completion entry.
    #[must_use]
    pub const fn from_field(field: u16) -> Self {
        Self { code: StatusCode(field >> 1 & 0x7ff), dnr: field >> 15 == 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_field_has_dnr_on_top_and_the_phase_tag_free() {
        let status = NvmeStatus::never(StatusCode::UNRECOVERED_READ_ERROR);
        assert_eq!(status.to_field(), 0x8502);
        assert_eq!(NvmeStatus::from_field(0x8503), status);
        assert_eq!(NvmeStatus::again(StatusCode::of(3, 2)).to_field(), 0x0604);
    }
}
