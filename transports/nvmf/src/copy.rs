//! Copy: ranges of the namespaces of a subsystem, one after the other, to one range of one of them.
//!
//! The target does it part by part, with a read and a write for each, through the same queues as
//! everybody's: a namespace of another shard or store is no different. One buffer does for both the
//! descriptors, at its end, and the data, so that a copy that has begun never waits for memory.

use bdev::{Lba, Op, Request, Tag};
use nvme_spec::{CopyRange, NvmeStatus, Sqe, StatusCode};
use zerocopy::FromBytes;

use crate::NamespaceHandle;
use crate::command::{Command, Plan, Segment, Transfer};
use crate::config::Namespace;
use crate::framer::narrow;
use crate::io::{check_range, fua_of};
use crate::limits::{
    COPY_BLOCKS_MAX, COPY_RANGE_BLOCKS_MAX, COPY_RANGES_MAX, COPY_STRIDE, STEP_BUFFER,
};
use crate::view::HostView;

/// Formats of descriptors that exist only for hosts that enabled them: 2 and 3.
pub(crate) const FORMATS_TO_ENABLE: u32 = 1 << 2 | 1 << 3;

/// OCFS: the formats of descriptors that are supported.
pub(crate) const FORMATS: u16 = 0b1111;

/// Copies of the data that descriptors leave room for begin on a page.
const PAGE: u32 = 4096;

fn format_of(sqe: &Sqe) -> u32 {
    sqe.cdw12.get() >> 8 & 0xf
}

fn ranges_of(sqe: &Sqe) -> u32 {
    (sqe.cdw12.get() & 0xff) + 1
}

/// What a Copy command needs, or why it is refused before its descriptors came.
//= NVMe-NVM 1.1 §3.3.2
//# a format that is not supported, or not enabled by CDFE, is an invalid field
pub(crate) fn plan(sqe: &Sqe, enabled: u32, plan: Plan) -> Result<Plan, NvmeStatus> {
    let format = format_of(sqe);
    let bit = 1 << format;
    let usable = bit & FORMATS_TO_ENABLE == 0 || bit & enabled != 0;
    let len = u8::try_from(format).ok().and_then(CopyRange::len_of).filter(|_| usable);
    let len = len.ok_or(NvmeStatus::never(StatusCode::INVALID_FIELD))?;
    //= NVMe-NVM 1.1 §3.3.2
    //# more ranges than MSRC exceed the command's size limit
    if ranges_of(sqe) > COPY_RANGES_MAX {
        return Err(NvmeStatus::never(StatusCode::COMMAND_SIZE_LIMIT_EXCEEDED));
    }
    let transfer = Transfer::FromHost(ranges_of(sqe) * len);
    Ok(Plan { transfer, scratch: STEP_BUFFER, ..plan })
}

/// A descriptor of a Copy command, wherever its descriptors are now.
fn range_at(command: &Command, index: u32) -> Option<CopyRange> {
    let Transfer::FromHost(len) = command.plan.transfer else { return None };
    let count = ranges_of(&command.sqe);
    let start = index * (len / count);
    let bytes = command.bytes();
    let from = if command.steps.begun { bytes.len() - len as usize } else { 0 };
    let range = bytes.get(from..)?.get(start as usize..len as usize)?;
    Some(CopyRange::read_from_prefix(range).ok()?.0)
}

/// The namespace that a descriptor names.
fn source_of<'a>(
    sqe: &Sqe,
    range: &CopyRange,
    view: &'a HostView,
) -> Result<&'a Namespace, NvmeStatus> {
    let named = 1 << format_of(sqe) & FORMATS_TO_ENABLE != 0;
    let nsid = if named { range.snsid.get() } else { sqe.nsid.get() };
    if named && range.sopt.get() & CopyRange::FAST_COPY_ONLY != 0 {
        return Err(NvmeStatus::never(StatusCode::FAST_COPY_NOT_POSSIBLE));
    }
    view.reachable(nsid)
}

/// Checks all of a command before anything is copied: a command that is wrong in any part changes
/// nothing, and DW0 stays zero. Then moves the descriptors out of the data's way.
fn begin(command: &mut Command, view: &HostView) -> Result<(), NvmeStatus> {
    let never = NvmeStatus::never;
    let sqe = command.sqe;
    let total = total_of(command)?;
    let to = view.reachable(sqe.nsid.get())?;
    check_range(to, sqe.slba(), total)?;
    for index in 0..ranges_of(&sqe) {
        let range = range_at(command, index).expect("all of them came");
        let from = source_of(&sqe, &range, view)?;
        //= NVMe-NVM 1.1 §3.3.2
        //# source and destination have the same format
        if from.block_size != to.block_size {
            return Err(never(StatusCode::INCOMPATIBLE_NAMESPACE));
        }
        let (start, blocks) = (range.slba.get(), u64::from(range.blocks()));
        check_range(from, start, blocks)?;
        //= NVMe-NVM 1.1 §3.3.2
        //# a source that overlaps the destination is refused
        let apart = start + blocks <= sqe.slba() || sqe.slba() + total <= start;
        if from.handle == to.handle && !apart {
            return Err(never(StatusCode::OVERLAPPING_IO_RANGE));
        }
    }
    command.plan.blocks = total;
    let Transfer::FromHost(len) = command.plan.transfer else {
        unreachable!("descriptors come from the host")
    };
    let Segment::Filling(buf) = &mut command.segment else {
        unreachable!("its descriptors were received")
    };
    let end = buf.capacity();
    buf.bytes_mut().copy_within(..len as usize, end - len as usize);
    command.steps.begun = true;
    Ok(())
}

/// The blocks of all ranges together.
//= NVMe-NVM 1.1 §3.3.2
//# a range beyond MSSRL, or a sum beyond MCL, exceeds the command's size limit
fn total_of(command: &Command) -> Result<u64, NvmeStatus> {
    let mut total = 0;
    for index in 0..ranges_of(&command.sqe) {
        let blocks = range_at(command, index).expect("all of them came").blocks();
        total += u64::from(blocks);
        if blocks > u32::from(COPY_RANGE_BLOCKS_MAX) || total > u64::from(COPY_BLOCKS_MAX) {
            return Err(NvmeStatus::never(StatusCode::COMMAND_SIZE_LIMIT_EXCEEDED));
        }
    }
    Ok(total)
}

/// The next request of a Copy command: the read of a part, or its write.
//= NVMe-NVM 1.1 §3.3.2
//# the blocks go to consecutive ones in the order in which the ranges list them
pub(crate) fn next_request(
    command: &mut Command,
    view: &HostView,
    tag: Tag,
) -> Result<Option<(NamespaceHandle, Request)>, NvmeStatus> {
    if !command.steps.begun {
        begin(command, view)?;
    }
    let to = Lba(command.sqe.slba() + command.steps.done);
    if command.steps.has_read {
        let Segment::Filled(buf) = std::mem::take(&mut command.segment) else {
            unreachable!("what was read is there")
        };
        let write = Request::write(tag, to, command.steps.count, buf);
        let write = write.with_flags(fua_of(command.sqe.cdw12.get()));
        return Ok(Some((command.plan.handle, write)));
    }
    let range = range_at(command, command.steps.range).expect("ranges are left");
    let from = source_of(&command.sqe, &range, view).inspect_err(|_| name_failed(command))?;
    if from.block_size != command.plan.block_size {
        // Meanwhile another volume has the number.
        name_failed(command);
        return Err(NvmeStatus::never(StatusCode::INCOMPATIBLE_NAMESPACE));
    }
    let buf = match std::mem::take(&mut command.segment) {
        Segment::Filling(buf) => buf,
        Segment::Filled(buf) => buf.try_unique().expect("devices keep no clone of a buffer"),
        Segment::None => unreachable!("it has its buffer between its requests"),
    };
    let room = narrow(buf.capacity()).min(STEP_BUFFER);
    command.steps.count = step(command, &range, room);
    let lba = Lba(range.slba.get() + u64::from(command.steps.in_range));
    Ok(Some((from.handle, Request::read(tag, lba, command.steps.count, buf))))
}

/// How many blocks the next part has: what is left of the range, what the buffer holds beside the
/// descriptors, and then only up to where a stride of the destination ends.
fn step(command: &Command, range: &CopyRange, capacity: u32) -> u32 {
    let Transfer::FromHost(descriptors) = command.plan.transfer else { return 0 };
    let block_size = command.plan.block_size;
    let room = (capacity - descriptors) / PAGE * PAGE / block_size;
    let left = range.blocks() - command.steps.in_range;
    if left <= room {
        return left;
    }
    let stride = u64::from(COPY_STRIDE / block_size);
    let to = command.sqe.slba() + command.steps.done;
    let over = (to + u64::from(room)) % stride;
    // Whole strides go straight to their place in the store; a part of one goes through its log.
    match u32::try_from(over).ok().filter(|&over| over < room) {
        Some(over) => room - over,
        None => room,
    }
}

/// Takes the end of a request into account; whether there is another one.
pub(crate) fn has_more(command: &mut Command, ok: bool) -> bool {
    if !ok {
        name_failed(command);
        return false;
    }
    let wrote = command.doing == Op::Write;
    command.steps.has_read = !wrote;
    if wrote {
        command.steps.done += u64::from(command.steps.count);
        command.steps.in_range += command.steps.count;
        let range = range_at(command, command.steps.range).expect("it was just copied");
        if command.steps.in_range == range.blocks() {
            (command.steps.range, command.steps.in_range) = (command.steps.range + 1, 0);
        }
    }
    command.steps.done < command.plan.blocks
}

/// Names the range in DW0 that a command failed in.
//= NVMe-NVM 1.1 §3.3.2
//# DW0 has the lowest range that was not copied; zero when nothing was
pub(crate) fn name_failed(command: &mut Command) {
    command.dw0 = command.steps.range;
}

#[cfg(test)]
mod tests;
