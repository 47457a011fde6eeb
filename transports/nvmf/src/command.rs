//! One command in progress: its entry, its buffer, and where it stands.

use bdev::{Buf, BufMut, Op};
use nvme_spec::{NvmeStatus, PSDT_SGL, Sgl, Sqe, StatusCode, sgl_type};

use crate::NamespaceHandle;
use crate::fused::Fuse;

/// What a command moves, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transfer {
    None,
    ToHost(u32),
    FromHost(u32),
}

/// How a command will be done: decided when its capsule arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) transfer: Transfer,
    /// For I/O commands: where the request goes and what it is.
    pub(crate) handle: NamespaceHandle,
    pub(crate) op: Op,
    /// Logical blocks of its range: those of the namespace when it is the whole of it.
    pub(crate) blocks: u64,
    /// Bytes in a block.
    pub(crate) block_size: u32,
    /// Bytes of the buffer that it works with, when it needs more than what it transfers.
    pub(crate) scratch: u32,
    pub(crate) work: Work,
}

/// How many block requests an I/O command makes, and of which kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// One, of its operation on its range.
    Once,
    /// One for each range of Dataset Management.
    Ranges,
    /// Reads of one part after the other, whose data goes nowhere.
    Verify,
    /// Zeroes of one part of the namespace after the other.
    ZeroAll,
    /// A read and a write of one part after the other.
    Copy,
    /// One, of reservations, for whoever owns the volume.
    Reserve,
}

/// How far a command of several requests has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Steps {
    /// Copy: its ranges were checked, and are at the end of the buffer.
    pub(crate) begun: bool,
    /// The range that is next.
    pub(crate) range: u32,
    /// Copy: blocks of that range that are done.
    pub(crate) in_range: u32,
    /// Blocks that are done.
    pub(crate) done: u64,
    /// Blocks of the request in flight.
    pub(crate) count: u32,
    /// Copy: what was read waits to be written.
    pub(crate) has_read: bool,
}

impl Plan {
    /// A command that is no block request.
    pub(crate) const fn admin(transfer: Transfer) -> Plan {
        Plan {
            transfer,
            handle: NamespaceHandle(0),
            op: Op::Flush,
            blocks: 0,
            block_size: 0,
            scratch: 0,
            work: Work::Once,
        }
    }

    /// Bytes of the buffer that the command needs before it can start; zero is none.
    pub(crate) fn buffer_len(&self) -> u32 {
        match self.transfer {
            Transfer::None => self.scratch,
            Transfer::ToHost(len) | Transfer::FromHost(len) => len.max(self.scratch),
        }
    }
}

/// The buffer of a command.
#[derive(Debug, Default)]
pub(crate) enum Segment {
    /// None yet, or lent out.
    #[default]
    None,
    /// Being filled.
    Filling(BufMut),
    /// Filled: on its way to the device, or to the host.
    Filled(Buf),
}

/// Where a command stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its data is arriving.
    Receiving,
    /// It can be started, given a buffer and room.
    Ready,
    /// A half of a fused pair that has its data, or will get none, and waits for the other.
    Half,
    /// A request is in flight.
    Submitted,
    /// An Asynchronous Event Request that waits for an event, or an Abort for an I/O queue.
    Event,
    /// An Authentication Receive that waits for what is computed.
    Computing,
    /// Its response waits to be sent.
    Done,
}

/// One command in progress.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) sqe: Sqe,
    pub(crate) plan: Plan,
    pub(crate) phase: Phase,
    pub(crate) segment: Segment,
    /// Bytes of the pool that it holds.
    pub(crate) held: usize,
    /// Its buffer is the connection's reserve.
    pub(crate) reserved: bool,
    /// Where in its buffer its data starts.
    pub(crate) base: u32,
    /// Bytes that were received.
    pub(crate) moved: u32,
    /// Bytes that are on their way: in the capsule, or asked for by R2T.
    pub(crate) granted: u32,
    /// The R2T went out: data PDUs may come.
    pub(crate) asked: bool,
    /// Blocks of 4 KiB, from the front, whose checksums were noted with the buffer.
    pub(crate) summed: u32,
    /// A data digest did not match.
    pub(crate) corrupt: bool,
    /// The operation of its request in flight, or of its last one.
    pub(crate) doing: Op,
    pub(crate) steps: Steps,
    /// It ends when what is under way is here: a deferred abort.
    pub(crate) aborted: bool,
    /// The pair it belongs to.
    pub(crate) fuse: Fuse,
    /// How a half of a pair will end, whatever becomes of the other.
    pub(crate) doom: Option<NvmeStatus>,
    pub(crate) status: NvmeStatus,
    /// The error log says more about its status.
    pub(crate) more: bool,
    pub(crate) dw0: u32,
    pub(crate) dw1: u32,
    /// Connect with SQ flow control disabled answers with SQHD FFFFh.
    pub(crate) sqhd_override: bool,
}

impl Command {
    pub(crate) fn new(sqe: Sqe, plan: Plan) -> Command {
        Command {
            sqe,
            plan,
            phase: Phase::Ready,
            segment: Segment::None,
            held: 0,
            reserved: false,
            base: 0,
            moved: 0,
            granted: 0,
            asked: false,
            summed: 0,
            corrupt: false,
            doing: plan.op,
            steps: Steps::default(),
            aborted: false,
            fuse: Fuse::No,
            doom: None,
            status: NvmeStatus::SUCCESS,
            more: false,
            dw0: 0,
            dw1: 0,
            sqhd_override: false,
        }
    }

    /// Bytes of the data that was received or is to be sent.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.segment {
            Segment::None => &[],
            Segment::Filling(buf) => buf.bytes(),
            Segment::Filled(buf) => buf.bytes(),
        }
    }
}

/// How the data of a command travels, by its SGL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// In the capsule.
    Capsule,
    /// In data PDUs.
    Pdus,
}

/// Checks the data pointer of a command that moves `len` bytes, with `capsule_len` bytes of data
/// in its capsule.
//= NVMe-Base 2.1 §4.3.2
//# over Fabrics the data pointer is one SGL descriptor of a type that the transport supports
pub(crate) fn check_sgl(
    sqe: &Sqe,
    transfer: Transfer,
    capsule_len: u32,
) -> Result<Carrier, NvmeStatus> {
    let sgl = sqe.dptr;
    let (len, to_host) = match transfer {
        Transfer::None if capsule_len == 0 => return Ok(Carrier::Pdus),
        Transfer::None => return Err(NvmeStatus::never(StatusCode::SGL_DATA_LENGTH_INVALID)),
        Transfer::ToHost(len) => (len, true),
        Transfer::FromHost(len) => (len, false),
    };
    if sqe.flags & 0xc0 != PSDT_SGL {
        return Err(NvmeStatus::never(StatusCode::INVALID_FIELD));
    }
    let carrier = match sgl.kind {
        sgl_type::TRANSPORT_DATA_BLOCK => Carrier::Pdus,
        sgl_type::DATA_BLOCK_OFFSET if !to_host => Carrier::Capsule,
        _ => return Err(NvmeStatus::never(StatusCode::SGL_TYPE_INVALID)),
    };
    check_lengths(sgl, carrier, len, capsule_len)?;
    Ok(carrier)
}

fn check_lengths(sgl: Sgl, carrier: Carrier, len: u32, capsule_len: u32) -> Result<(), NvmeStatus> {
    let in_capsule = if carrier == Carrier::Capsule { sgl.length.get() } else { 0 };
    if sgl.length.get() < len || in_capsule != capsule_len {
        return Err(NvmeStatus::never(StatusCode::SGL_DATA_LENGTH_INVALID));
    }
    if carrier == Carrier::Capsule && sgl.address.get() != 0 {
        return Err(NvmeStatus::never(StatusCode::SGL_OFFSET_INVALID));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn check(sgl: Sgl, transfer: Transfer, capsule_len: u32) -> Result<Carrier, StatusCode> {
        let mut sqe = Sqe::new_zeroed();
        sqe.flags = PSDT_SGL;
        sqe.dptr = sgl;
        check_sgl(&sqe, transfer, capsule_len).map_err(|status| status.code)
    }

    #[test]
    fn only_the_transports_own_descriptors_are_taken() {
        let write = Transfer::FromHost(4096);
        let read = Transfer::ToHost(4096);
        assert_eq!(check(Sgl::in_capsule(0, 4096), write, 4096), Ok(Carrier::Capsule));
        assert_eq!(check(Sgl::transport(4096), write, 0), Ok(Carrier::Pdus));
        assert_eq!(check(Sgl::transport(8192), read, 0), Ok(Carrier::Pdus));
        let short = Err(StatusCode::SGL_DATA_LENGTH_INVALID);
        assert_eq!(check(Sgl::in_capsule(0, 4095), write, 4095), short);
        assert_eq!(check(Sgl::in_capsule(0, 4096), write, 4000), short);
        assert_eq!(check(Sgl::transport(4096), write, 512), short);
        assert_eq!(check(Sgl::transport(4095), read, 0), short);
        assert_eq!(check(Sgl::transport(0), Transfer::None, 512), short);
        let offset = check(Sgl::in_capsule(512, 4096), write, 4096);
        assert_eq!(offset, Err(StatusCode::SGL_OFFSET_INVALID));
        let kind = Err(StatusCode::SGL_TYPE_INVALID);
        assert_eq!(check(Sgl::in_capsule(0, 4096), read, 0), kind);
        let mut address = Sgl::transport(4096);
        address.kind = sgl_type::DATA_BLOCK_ADDRESS;
        assert_eq!(check(address, write, 0), kind);
    }
}
