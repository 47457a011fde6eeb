//! How the outcome of a block request becomes an NVMe status: the only place that decides it.

use bdev::{Op, Status};
use nvme_spec::{NvmeStatus, StatusCode};

/// The NVMe status of a request that ended with `status`.
///
/// DNR is set where the same command fails again for a reason that is in the command itself or in
/// the media; it is clear where time, space or another path may help.
//= NVMe-Base 2.1 §4.2.3
//# DNR set: the command fails again if it is resubmitted
pub(crate) fn nvme_status(op: Op, status: Status) -> NvmeStatus {
    match status {
        Status::Ok => NvmeStatus::SUCCESS,
        Status::Invalid => NvmeStatus::never(StatusCode::INVALID_FIELD),
        Status::OutOfRange => NvmeStatus::never(StatusCode::LBA_OUT_OF_RANGE),
        Status::Unsupported => NvmeStatus::never(StatusCode::INVALID_OPCODE),
        Status::Io if op == Op::Write => NvmeStatus::again(StatusCode::WRITE_FAULT),
        Status::Io if op == Op::Read => NvmeStatus::again(StatusCode::UNRECOVERED_READ_ERROR),
        Status::Io => NvmeStatus::again(StatusCode::INTERNAL_ERROR),
        // Nothing of the block was returned, and reading it again finds the same bytes.
        Status::Integrity => NvmeStatus::never(StatusCode::UNRECOVERED_READ_ERROR),
        // A retry at once cannot help, and the file system must hear of it now.
        Status::NoSpace => NvmeStatus::never(StatusCode::CAPACITY_EXCEEDED),
        Status::Miscompare => NvmeStatus::never(StatusCode::COMPARE_FAILURE),
        Status::WriteProtected => NvmeStatus::never(StatusCode::WRITE_PROTECTED),
        Status::ReservationConflict => NvmeStatus::never(StatusCode::RESERVATION_CONFLICT),
        Status::Aborted => NvmeStatus::again(StatusCode::ABORT_REQUESTED),
        Status::TimedOut => NvmeStatus::again(StatusCode::NAMESPACE_NOT_READY),
        // The volume is moving or has left this node: another path, or this one a little later, may
        // have it. Multipath hosts queue on a path error and do not fail the file system.
        Status::Retry | Status::Gone => NvmeStatus::again(StatusCode::INTERNAL_PATH_ERROR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integrity_is_an_unrecovered_read_that_stays_one() {
        let status = nvme_status(Op::Read, Status::Integrity);
        assert_eq!((status.code.sct(), status.code.sc(), status.dnr), (2, 0x81, true));
    }

    #[test]
    fn full_store_is_capacity_exceeded() {
        let status = nvme_status(Op::Write, Status::NoSpace);
        assert_eq!((status.code.sct(), status.code.sc(), status.dnr), (0, 0x81, true));
    }

    #[test]
    fn only_ok_is_success() {
        for op in Op::ALL {
            for status in Status::ALL {
                assert_eq!(nvme_status(op, status).is_success(), status.is_ok());
            }
        }
    }
}
