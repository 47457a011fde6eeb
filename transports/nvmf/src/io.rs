//! The commands of I/O queues: from entry to block request.

use bdev::{Data, Flags, Lba, Op, Request, Tag};
use nvme_spec::{DsmRange, NvmeStatus, Sqe, StatusCode, io_control, opcode};
use zerocopy::FromBytes;

use crate::command::{Command, Plan, Segment, Transfer, Work};
use crate::config::Namespace;
use crate::limits::{STEP_BUFFER, TRANSFER_MAX, ZERO_BLOCKS_STEP};
use crate::view::HostView;
use crate::{NamespaceHandle, commands, copy, reservation};

/// AD of Dataset Management: deallocate.
const DSM_DEALLOCATE: u32 = 1 << 2;

/// What an I/O command needs, or why it is refused. `copy_formats` are the formats of Copy's
/// descriptors that the host enabled, a bit each.
pub(crate) fn plan(sqe: &Sqe, view: &HostView, copy_formats: u32) -> Result<Plan, NvmeStatus> {
    commands::check(commands::IO, sqe.opcode)?;
    //= NVMe-Base 2.1 §3.2.1
    //# an inactive NSID, and the broadcast one where it is not allowed, is an invalid namespace
    let namespace = view.reachable(sqe.nsid.get())?;
    let plan = |op, work| Plan {
        transfer: Transfer::None,
        handle: namespace.handle,
        op,
        blocks: 0,
        block_size: namespace.block_size,
        scratch: 0,
        work,
    };
    match sqe.opcode {
        opcode::nvm::FLUSH => Ok(plan(Op::Flush, Work::Once)),
        opcode::nvm::READ => on_range(sqe, namespace, plan(Op::Read, Work::Once)),
        opcode::nvm::WRITE => on_range(sqe, namespace, plan(Op::Write, Work::Once)),
        opcode::nvm::COMPARE => on_range(sqe, namespace, plan(Op::Compare, Work::Once)),
        opcode::nvm::WRITE_ZEROES if control(sqe) & io_control::NSZ != 0 => {
            zero_all(sqe, namespace, plan(Op::WriteZeroes, Work::ZeroAll))
        }
        opcode::nvm::WRITE_ZEROES => on_range(sqe, namespace, plan(Op::WriteZeroes, Work::Once)),
        opcode::nvm::VERIFY => verify(sqe, namespace, plan(Op::Read, Work::Verify)),
        opcode::nvm::DATASET_MANAGEMENT => {
            let ranges = (sqe.cdw10.get() & 0xff) + 1;
            let transfer = Transfer::FromHost(ranges * DSM_RANGE_LEN);
            Ok(Plan { transfer, ..plan(Op::Deallocate, Work::Ranges) })
        }
        opcode::nvm::RESERVATION_REGISTER
        | opcode::nvm::RESERVATION_REPORT
        | opcode::nvm::RESERVATION_ACQUIRE
        | opcode::nvm::RESERVATION_RELEASE => {
            reservation::plan(sqe, plan(Op::Reserve, Work::Reserve))
        }
        opcode::nvm::COPY => copy::plan(sqe, copy_formats, plan(Op::Write, Work::Copy)),
        _ => unreachable!("the table has no other command"),
    }
}

const DSM_RANGE_LEN: u32 = 16;
const _: () = assert!(DSM_RANGE_LEN as usize == size_of::<DsmRange>());

fn control(sqe: &Sqe) -> u32 {
    sqe.cdw12.get()
}

/// The plan of a command on one range: its blocks, and its transfer if it has one.
fn on_range(sqe: &Sqe, namespace: &Namespace, plan: Plan) -> Result<Plan, NvmeStatus> {
    let blocks = sqe.blocks();
    let bytes = if plan.op.has_data() { blocks * namespace.block_size } else { 0 };
    //= NVMe-Base 2.1 §5.1.13.2.1
    //# a transfer beyond MDTS is an invalid field
    if bytes > TRANSFER_MAX {
        return Err(NvmeStatus::never(StatusCode::INVALID_FIELD));
    }
    let transfer = match plan.op {
        Op::Read => Transfer::ToHost(bytes),
        Op::Write | Op::Compare => Transfer::FromHost(bytes),
        _ => Transfer::None,
    };
    check_range(namespace, sqe.slba(), u64::from(blocks))?;
    Ok(Plan { transfer, blocks: u64::from(blocks), ..plan })
}

//= NVMe-NVM 1.1 §3.3.4
//# a range that exceeds the namespace is out of range
pub(crate) fn check_range(namespace: &Namespace, slba: u64, blocks: u64) -> Result<(), NvmeStatus> {
    match slba.checked_add(blocks) {
        Some(end) if end <= namespace.blocks => Ok(()),
        _ => Err(NvmeStatus::never(StatusCode::LBA_OUT_OF_RANGE)),
    }
}

/// Write Zeroes with NSZ.
//= NVMe-NVM 1.1 §3.3.8
//# NSZ zeroes the whole namespace by deallocation, whatever SLBA and NLB say: DEAC goes with it
fn zero_all(sqe: &Sqe, namespace: &Namespace, plan: Plan) -> Result<Plan, NvmeStatus> {
    if control(sqe) & io_control::DEAC == 0 {
        return Err(NvmeStatus::never(StatusCode::INVALID_FIELD));
    }
    Ok(Plan { blocks: namespace.blocks, ..plan })
}

//= NVMe-NVM 1.1 §3.3.5
//# Verify reads without a transfer; PRACT is clear
fn verify(sqe: &Sqe, namespace: &Namespace, plan: Plan) -> Result<Plan, NvmeStatus> {
    if control(sqe) & io_control::PRACT != 0 {
        return Err(NvmeStatus::never(StatusCode::INVALID_FIELD));
    }
    let blocks = sqe.blocks();
    check_range(namespace, sqe.slba(), u64::from(blocks))?;
    let scratch = STEP_BUFFER.min(blocks * namespace.block_size);
    Ok(Plan { blocks: u64::from(blocks), scratch, ..plan })
}

/// The next block request of a command that is ready; `None` when nothing is left to do.
pub(crate) fn next_request(
    command: &mut Command,
    view: &HostView,
    tag: Tag,
) -> Result<Option<(NamespaceHandle, Request)>, NvmeStatus> {
    let handle = command.plan.handle;
    let next = match command.plan.work {
        Work::Once => Some(only_request(command, tag)),
        Work::Ranges => next_range(command, tag),
        Work::Verify => next_read(command, tag),
        Work::ZeroAll => next_zeroes(command, tag),
        Work::Copy => return copy::next_request(command, view, tag),
        Work::Reserve => unreachable!("made where the host is known"),
    };
    Ok(next.map(|request| (handle, request)))
}

/// The one request of a plain command.
fn only_request(command: &mut Command, tag: Tag) -> Request {
    let op = command.plan.op;
    let blocks = u32::try_from(command.plan.blocks).expect("NLB has 16 bits");
    let (lba, control) = (Lba(command.sqe.slba()), control(&command.sqe));
    let request = match (op, std::mem::take(&mut command.segment)) {
        (Op::Read, Segment::Filling(buf)) => Request::read(tag, lba, blocks, buf),
        (Op::Write, Segment::Filling(buf)) => Request::write(tag, lba, blocks, buf.freeze()),
        //= NVMe-NVM 1.1 §3.3.1
        //# what differs ends with Compare Failure
        (Op::Compare, Segment::Filling(buf)) => {
            Request { op, ..Request::write(tag, lba, blocks, buf.freeze()) }
        }
        //= NVMe-NVM 1.1 §2.1.3
        //# nothing else changes the blocks between the two halves of a Compare and Write
        (Op::CompareAndWrite, Segment::Filling(buf)) => {
            Request::compare_and_write(tag, lba, blocks, buf.freeze())
        }
        (Op::WriteZeroes, _) => {
            //= NVMe-NVM 1.1 §3.3.8
            //# DEAC asks to deallocate, as long as the blocks read as zeroes
            let unmap = control & io_control::DEAC != 0;
            let request = Request::range(tag, op, lba, blocks);
            request.with_flags(if unmap { Flags::UNMAP } else { Flags::NONE })
        }
        (_, _) => Request { data: Data::None, ..Request::flush(tag) },
    };
    let fua = matches!(op, Op::Read | Op::Write | Op::WriteZeroes | Op::CompareAndWrite);
    request.with_flags(if fua { fua_of(control) } else { Flags::NONE })
}

pub(crate) fn fua_of(control: u32) -> Flags {
    if control & io_control::FUA != 0 { Flags::FUA } else { Flags::NONE }
}

/// The next range of a Dataset Management command.
//= NVMe-NVM 1.1 §3.3.3
//# without AD the ranges are hints; with it each one may be deallocated
fn next_range(command: &mut Command, tag: Tag) -> Option<Request> {
    if command.sqe.cdw11.get() & DSM_DEALLOCATE == 0 {
        return None;
    }
    while let Some(range) = range_at(command, command.steps.range) {
        command.steps.range += 1;
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

/// The next part of a Verify command: as much as its buffer holds, so that a long one has no more
/// of the device than a read of that length.
fn next_read(command: &mut Command, tag: Tag) -> Option<Request> {
    let left = command.plan.blocks - command.steps.done;
    let Segment::Filling(buf) = std::mem::take(&mut command.segment) else {
        unreachable!("it has its buffer between its requests")
    };
    let room = crate::framer::narrow(buf.capacity()) / command.plan.block_size;
    let room = room.min(STEP_BUFFER / command.plan.block_size);
    command.steps.count = u32::try_from(left).unwrap_or(u32::MAX).min(room);
    let lba = Lba(command.sqe.slba() + command.steps.done);
    let request = Request::read(tag, lba, command.steps.count, buf);
    Some(request.with_flags(fua_of(control(&command.sqe))))
}

/// The next part of a namespace that is zeroed as a whole.
fn next_zeroes(command: &mut Command, tag: Tag) -> Option<Request> {
    let left = command.plan.blocks - command.steps.done;
    command.steps.count = u32::try_from(left).unwrap_or(u32::MAX).min(ZERO_BLOCKS_STEP);
    let lba = Lba(command.steps.done);
    let request = Request::range(tag, Op::WriteZeroes, lba, command.steps.count);
    Some(request.with_flags(Flags::UNMAP).with_flags(fua_of(control(&command.sqe))))
}

/// Ends a command that has more to do.
pub(crate) fn stop(command: &mut Command) {
    if command.plan.work == Work::Copy {
        copy::name_failed(command);
    }
}

/// Whether a command has another request to make, now that its last one ended.
pub(crate) fn has_more(command: &mut Command, ok: bool) -> bool {
    match command.plan.work {
        Work::Once | Work::Reserve => false,
        Work::Ranges => ok && range_at(command, command.steps.range).is_some(),
        Work::Verify | Work::ZeroAll if ok => {
            command.steps.done += u64::from(command.steps.count);
            command.steps.done < command.plan.blocks
        }
        Work::Verify | Work::ZeroAll => false,
        Work::Copy => copy::has_more(command, ok),
    }
}
