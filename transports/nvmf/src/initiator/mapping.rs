//! Block requests as NVM commands, and NVMe statuses as block statuses.

use bdev::{Flags, Op, Request, Status};
use nvme_spec::{NvmeStatus, Sqe, StatusCode, U32, io_control, opcode};
use zerocopy::FromZeros;

/// The NVM command of a block request, and its bytes of data. `None` when one is not enough: fused
/// commands are not sent.
pub(super) fn command_of(request: &Request, nsid: u32, block_size: u32) -> Option<(Sqe, u32)> {
    let mut sqe = Sqe::new_zeroed();
    sqe.nsid = U32::new(nsid);
    let blocks = request.blocks;
    let mut control = 0;
    if request.flags.contains(Flags::FUA) {
        control |= io_control::FUA;
    }
    sqe.opcode = match request.op {
        Op::Read => opcode::nvm::READ,
        Op::Write => opcode::nvm::WRITE,
        Op::Flush => opcode::nvm::FLUSH,
        Op::Compare => opcode::nvm::COMPARE,
        Op::CompareAndWrite | Op::Reserve => return None,
        // One range needs no list as Write Zeroes with DEAC.
        Op::WriteZeroes | Op::Deallocate => opcode::nvm::WRITE_ZEROES,
    };
    let unmap = request.op == Op::Deallocate || request.flags.contains(Flags::UNMAP);
    if unmap && sqe.opcode == opcode::nvm::WRITE_ZEROES {
        control |= io_control::DEAC;
    }
    if request.op != Op::Flush {
        sqe.set_slba(request.lba.0);
        sqe.cdw12 = U32::new(control | (blocks.saturating_sub(1) & 0xffff));
    }
    let len = if request.op.has_data() { blocks.saturating_mul(block_size) } else { 0 };
    Some((sqe, len))
}

/// What an NVMe status means to whoever made the request.
pub(super) fn block_status(status: NvmeStatus) -> Status {
    match status.code {
        StatusCode::SUCCESS => Status::Ok,
        StatusCode::INVALID_FIELD | StatusCode::SGL_DATA_LENGTH_INVALID => Status::Invalid,
        StatusCode::INVALID_OPCODE => Status::Unsupported,
        StatusCode::LBA_OUT_OF_RANGE => Status::OutOfRange,
        StatusCode::CAPACITY_EXCEEDED => Status::NoSpace,
        StatusCode::COMPARE_FAILURE => Status::Miscompare,
        StatusCode::WRITE_PROTECTED => Status::WriteProtected,
        StatusCode::RESERVATION_CONFLICT => Status::ReservationConflict,
        StatusCode::ABORT_REQUESTED => Status::Aborted,
        StatusCode::UNRECOVERED_READ_ERROR if status.dnr => Status::Integrity,
        StatusCode::INVALID_NAMESPACE
        | StatusCode::INTERNAL_PATH_ERROR
        | StatusCode::HOST_PATHING_ERROR => Status::Gone,
        StatusCode::NAMESPACE_NOT_READY | StatusCode::TRANSIENT_TRANSPORT_ERROR => Status::Retry,
        _ => Status::Io,
    }
}
