//! How the outcome of a block request becomes an NVMe status: the only place that decides it.

use bdev::Status;
use nvme_spec::{NvmeStatus, StatusCode};

/// A row: the outcome, what the host is told, and whether it is worth another try.
type Row = (Status, StatusCode, Retry);

/// DNR.
//= NVMe-Base 2.1 §4.2.3
//# DNR set: the command fails again if it is resubmitted
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    /// The reason is in the command itself, or in what is stored: it fails again.
    Never,
    /// Time, another path or an operator may help.
    Again,
}
use Retry::{Again, Never};

/// One row for each outcome, in the order of their numbers.
///
/// A *path* status (type 3h) makes a multipath host try its other paths and queue, never fail: it
/// is for what is somewhere else, or will be here again. Other statuses without DNR are tried again
/// a few times on the same path, and then fail.
const TABLE: [Row; Status::ALL.len()] = [
    (Status::Ok, StatusCode::SUCCESS, Again),
    // The command makes no sense, today and tomorrow.
    (Status::Invalid, StatusCode::INVALID_FIELD, Never),
    (Status::OutOfRange, StatusCode::LBA_OUT_OF_RANGE, Never),
    (Status::Unsupported, StatusCode::INVALID_OPCODE, Never),
    // The device, or a store that gave it up (quarantine), did not do it. Nothing says that what is
    // stored is bad: an operator opens the store again, and then it is there.
    (Status::Io, StatusCode::INTERNAL_ERROR, Again),
    // Nothing of the block was returned, and reading it again finds the same bytes.
    (Status::Integrity, StatusCode::UNRECOVERED_READ_ERROR, Never),
    // A retry at once cannot help, and the file system must hear of it now.
    (Status::NoSpace, StatusCode::CAPACITY_EXCEEDED, Never),
    (Status::Miscompare, StatusCode::COMPARE_FAILURE, Never),
    (Status::WriteProtected, StatusCode::WRITE_PROTECTED, Never),
    (Status::ReservationConflict, StatusCode::RESERVATION_CONFLICT, Never),
    (Status::Aborted, StatusCode::ABORT_REQUESTED, Again),
    // The volume is moving, or has left this node or this shard: another path, or this one a little
    // later, has it. A store that is being opened has no volumes yet.
    (Status::Retry, StatusCode::INTERNAL_PATH_ERROR, Again),
    // It waited too long for its turn and had no effect.
    (Status::TimedOut, StatusCode::NAMESPACE_NOT_READY, Again),
    (Status::Gone, StatusCode::INTERNAL_PATH_ERROR, Again),
];

/// The NVMe status of a request that ended with `status`.
pub(crate) fn nvme_status(status: Status) -> NvmeStatus {
    let (outcome, code, retry) = TABLE[status as usize];
    debug_assert_eq!(outcome, status);
    NvmeStatus { code, dnr: retry == Never }
}

/// The NVMe statuses of both halves of a compare-and-write that ended with `status`.
//= NVMe-NVM 1.1 §2.1.3
//# when Compare fails Write is not performed, and aborted with Failed Fused Command
pub(crate) fn fused_status(status: Status) -> (NvmeStatus, NvmeStatus) {
    // The pair may be sent again, with what is there now to compare with.
    let failed = NvmeStatus::again(StatusCode::ABORTED_FAILED_FUSED);
    match status {
        Status::Ok => (NvmeStatus::SUCCESS, NvmeStatus::SUCCESS),
        Status::Miscompare | Status::Integrity => (nvme_status(status), failed),
        _ => (failed, nvme_status(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_the_row_of_its_number() {
        for (row, status) in TABLE.iter().zip(Status::ALL) {
            assert_eq!(row.0, status);
            assert_eq!(nvme_status(status).is_success(), status.is_ok());
        }
    }

    #[test]
    fn every_row_is_on_the_wire_as_it_was_meant() {
        // SCT, SC and DNR of each.
        let expected = [
            (Status::Ok, 0, 0x00, false),
            (Status::Invalid, 0, 0x02, true),
            (Status::OutOfRange, 0, 0x80, true),
            (Status::Unsupported, 0, 0x01, true),
            (Status::Io, 0, 0x06, false),
            (Status::Integrity, 2, 0x81, true),
            (Status::NoSpace, 0, 0x81, true),
            (Status::Miscompare, 2, 0x85, true),
            (Status::WriteProtected, 0, 0x20, true),
            (Status::ReservationConflict, 0, 0x83, true),
            (Status::Aborted, 0, 0x07, false),
            (Status::Retry, 3, 0x00, false),
            (Status::TimedOut, 0, 0x82, false),
            (Status::Gone, 3, 0x00, false),
        ];
        assert_eq!(expected.len(), TABLE.len());
        for (status, sct, sc, dnr) in expected {
            let on_the_wire = nvme_status(status);
            let found = (on_the_wire.code.sct(), on_the_wire.code.sc(), on_the_wire.dnr);
            assert_eq!(found, (sct, sc, dnr), "{status:?}");
        }
    }

    #[test]
    fn path_errors_are_never_final() {
        for status in Status::ALL.map(nvme_status) {
            assert!(status.code.sct() != 3 || !status.dnr, "{status:?}");
        }
    }

    #[test]
    fn no_half_of_a_pair_succeeds_alone() {
        for status in Status::ALL {
            let (first, second) = fused_status(status);
            assert_eq!((first.is_success(), second.is_success()), (status.is_ok(), status.is_ok()));
        }
        let (first, second) = fused_status(Status::Miscompare);
        assert_eq!((first.code, first.dnr), (StatusCode::COMPARE_FAILURE, true));
        assert_eq!((second.code, second.dnr), (StatusCode::ABORTED_FAILED_FUSED, false));
    }

    #[test]
    fn what_is_wrong_with_the_command_is_no_path_error() {
        for status in [Status::Invalid, Status::OutOfRange, Status::Unsupported] {
            let status = nvme_status(status);
            assert!(status.code.sct() == 0 && status.dnr, "{status:?}");
        }
    }
}
