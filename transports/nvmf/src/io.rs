//! The commands of I/O queues: from entry to block request.

use bdev::{Data, Flags, Lba, Op, Request, Tag};
use nvme_spec::{DsmRange, NvmeStatus, Sqe, StatusCode, io_control, opcode};
use zerocopy::FromBytes;

use crate::command::{Command, Plan, Segment, Transfer};
use crate::config::Namespace;
use crate::limits::TRANSFER_MAX;
use crate::target::SubsystemView;

/// AD of Dataset Management: deallocate.
const DSM_DEALLOCATE: u32 = 1 << 2;

/// What an I/O command needs, or why it is refused.
pub(crate) fn plan(sqe: &Sqe, view: &SubsystemView) -> Result<Plan, NvmeStatus> {
    let op = match sqe.opcode {
        opcode::nvm::READ => Op::Read,
        opcode::nvm::WRITE => Op::Write,
        opcode::nvm::COMPARE => Op::Compare,
        opcode::nvm::FLUSH => Op::Flush,
        opcode::nvm::WRITE_ZEROES => Op::WriteZeroes,
        opcode::nvm::DATASET_MANAGEMENT => Op::Deallocate,
        _ => return Err(NvmeStatus::never(StatusCode::INVALID_OPCODE)),
    };
    //= NVMe-Base 2.1 §3.2.1
    //# an inactive NSID, and the broadcast one where it is not allowed, is an invalid namespace
    let namespace =
        view.namespace(sqe.nsid.get()).ok_or(NvmeStatus::never(StatusCode::INVALID_NAMESPACE))?;
    let (transfer, blocks) = match op {
        Op::Flush => (Transfer::None, 0),
        Op::Deallocate => {
            let ranges = (sqe.cdw10.get() & 0xff) + 1;
            (Transfer::FromHost(ranges * DSM_RANGE_LEN), 0)
        }
        _ => range(sqe, op, namespace)?,
    };
    Ok(Plan { transfer, handle: namespace.handle, op, blocks })
}

const DSM_RANGE_LEN: u32 = 16;
const _: () = assert!(DSM_RANGE_LEN as usize == size_of::<DsmRange>());

/// The transfer and the blocks of a command on one range.
fn range(sqe: &Sqe, op: Op, namespace: &Namespace) -> Result<(Transfer, u32), NvmeStatus> {
    let blocks = sqe.blocks();
    if op == Op::WriteZeroes && sqe.cdw12.get() & io_control::NSZ != 0 {
        // Zeroing whole namespaces is not offered.
        return Err(NvmeStatus::never(StatusCode::INVALID_FIELD));
    }
    let bytes = match op {
        Op::WriteZeroes => 0,
        _ => blocks * namespace.block_size,
    };
    //= NVMe-Base 2.1 §5.1.13.2.1
    //# a transfer beyond MDTS is an invalid field
    if bytes > TRANSFER_MAX {
        return Err(NvmeStatus::never(StatusCode::INVALID_FIELD));
    }
    //= NVMe-NVM 1.1 §3.3.4
    //# a range that exceeds the namespace is out of range
    let end = sqe.slba().checked_add(u64::from(blocks));
    if end.is_none_or(|end| end > namespace.blocks) {
        return Err(NvmeStatus::never(StatusCode::LBA_OUT_OF_RANGE));
    }
    let transfer = match op {
        Op::Read => Transfer::ToHost(bytes),
        Op::Write | Op::Compare => Transfer::FromHost(bytes),
        _ => Transfer::None,
    };
    Ok((transfer, blocks))
}

/// The next block request of a command that is ready; `None` when nothing is left to do.
pub(crate) fn next_request(command: &mut Command, tag: Tag) -> Option<Request> {
    let (op, blocks) = (command.plan.op, command.plan.blocks);
    let lba = Lba(command.sqe.slba());
    let control = command.sqe.cdw12.get();
    let request = match (op, std::mem::take(&mut command.segment)) {
        (Op::Read, Segment::Filling(buf)) => Request::read(tag, lba, blocks, buf),
        (Op::Write, Segment::Filling(buf)) => Request::write(tag, lba, blocks, buf.freeze()),
        //= NVMe-NVM 1.1 §3.3.1
        //# what differs ends with Compare Failure
        (Op::Compare, Segment::Filling(buf)) => {
            Request { op, ..Request::write(tag, lba, blocks, buf.freeze()) }
        }
        (Op::WriteZeroes, _) => {
            //= NVMe-NVM 1.1 §3.3.8
            //# DEAC asks to deallocate, as long as the blocks read as zeroes
            let unmap = control & io_control::DEAC != 0;
            let request = Request::range(tag, op, lba, blocks);
            request.with_flags(if unmap { Flags::UNMAP } else { Flags::NONE })
        }
        (Op::Deallocate, segment) => {
            command.segment = segment;
            return next_range(command, tag);
        }
        (_, _) => Request { data: Data::None, ..Request::flush(tag) },
    };
    let fua = matches!(op, Op::Read | Op::Write | Op::WriteZeroes);
    let fua = fua && control & io_control::FUA != 0;
    Some(request.with_flags(if fua { Flags::FUA } else { Flags::NONE }))
}

/// The next range of a Dataset Management command.
//= NVMe-NVM 1.1 §3.3.3
//# without AD the ranges are hints; with it each one may be deallocated
fn next_range(command: &mut Command, tag: Tag) -> Option<Request> {
    if command.sqe.cdw11.get() & DSM_DEALLOCATE == 0 {
        return None;
    }
    while let Some(range) = range_at(command, command.range) {
        command.range += 1;
        if range.llb.get() > 0 {
            let lba = Lba(range.slba.get());
            return Some(Request::range(tag, Op::Deallocate, lba, range.llb.get()));
        }
    }
    None
}

fn range_at(command: &Command, index: u32) -> Option<DsmRange> {
    let Transfer::FromHost(len) = command.plan.transfer else { return None };
    let ranges = command.bytes().get(..len as usize)?;
    let start = (index * DSM_RANGE_LEN) as usize;
    Some(DsmRange::read_from_prefix(ranges.get(start..)?).ok()?.0)
}

/// Whether a command whose request succeeded has another one to make.
pub(crate) fn has_more(command: &Command) -> bool {
    command.plan.op == Op::Deallocate && range_at(command, command.range).is_some()
}
