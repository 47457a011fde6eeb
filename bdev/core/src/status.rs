//! How a request ended: one byte, `Copy`, no allocation.

/// The outcome of one request.
///
/// Each transport translates it in exactly one file (NVMe status, SCSI sense). It says *what* went
/// wrong for the host; details for the operator are counted and logged where they were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// Done. A write with this status is as durable as the device promises.
    Ok = 0,
    /// The request makes no sense (no buffer, zero blocks, buffer too small or too large).
    Invalid = 1,
    /// The block range does not lie inside the device.
    OutOfRange = 2,
    /// The device does not have this operation.
    Unsupported = 3,
    /// The device failed the operation. What a failed write left behind is unspecified.
    Io = 4,
    /// The data on the device does not match its checksum; nothing of it was returned.
    Integrity = 5,
    /// There is no space left for the write. Reads go on; writes succeed again once space is freed.
    NoSpace = 6,
    /// The compare step of a compare operation found different data.
    Miscompare = 7,
    /// The device may not be written.
    WriteProtected = 8,
    /// A reservation of another host stands against this request.
    ReservationConflict = 9,
    /// The request was aborted before it took effect.
    Aborted = 10,
    /// A temporary condition (a transition, a drain): the host may try again.
    Retry = 11,
    /// The request's deadline passed before it could be served; it had no effect.
    TimedOut = 12,
    /// The device is gone or was closed; nothing more will come from it.
    Gone = 13,
}

impl Status {
    /// Every status, in the order of its number.
    pub const ALL: [Status; 14] = [
        Status::Ok,
        Status::Invalid,
        Status::OutOfRange,
        Status::Unsupported,
        Status::Io,
        Status::Integrity,
        Status::NoSpace,
        Status::Miscompare,
        Status::WriteProtected,
        Status::ReservationConflict,
        Status::Aborted,
        Status::Retry,
        Status::TimedOut,
        Status::Gone,
    ];

    /// True for [`Status::Ok`] alone.
    pub const fn is_ok(self) -> bool {
        matches!(self, Status::Ok)
    }

    /// The status with this number, if there is one.
    pub fn from_u8(number: u8) -> Option<Status> {
        Status::ALL.get(usize::from(number)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        for status in Status::ALL {
            assert_eq!(Status::from_u8(status as u8), Some(status));
        }
        assert_eq!(Status::from_u8(14), None);
        assert_eq!(size_of::<Status>(), 1);
    }
}
