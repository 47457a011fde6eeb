//! What arrives: PDUs in order, each to its command.

use bdev::CHECKSUM_BYTES;
use net::Landing;
use nvme_spec::{
    CapsuleCmdHeader, FatalError, H2cDataHeader, IcReq, NvmeStatus, PDO_DWORDS_MAX, PduType, Sqe,
    StatusCode, TERM_DATA_MAX, TermReqHeader, digest_flags, opcode, pdu_flags,
};

use crate::CloseReason;
use crate::command::{Carrier, Command, Phase, Plan, Segment, Transfer, check_sgl};
use crate::connection::{Connection, Cx};
use crate::framer::{Accepts, Digests, Fault, Head};
use crate::limits::{H2C_DATA_MAX, IN_CAPSULE_MAX, TRANSFER_MAX};
use crate::state::{Input, State};
use crate::transmit::{Out, TermReq};
use crate::{admin, fabrics, fused, io};

/// What a target accepts from a host.
pub(crate) const ACCEPTS: Accepts = Accepts {
    data_max: |pdu_type| match pdu_type {
        PduType::IcReq => Some(0),
        PduType::CapsuleCmd => Some(IN_CAPSULE_MAX),
        // Checked against MAXH2CDATA, with an error of its own, when the header is read.
        PduType::H2cData => Some(TRANSFER_MAX),
        PduType::H2cTermReq => Some(128),
        _ => None,
    },
};

const _: () = assert!(TERM_DATA_MAX == 128);

/// Where the data of the current PDU goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sink {
    Discard,
    Command(u32),
}

impl Connection {
    /// Takes apart what has arrived, as far as it goes: until bytes, buffers or room are missing.
    pub(crate) fn advance(&mut self, cx: Cx<'_>) {
        self.stalled = false;
        loop {
            match self.state {
                State::Closed | State::Draining => return,
                State::Closing => return self.framer.discard(),
                _ => (),
            }
            if self.framer.data_remaining().is_some() {
                if !self.drain(cx) {
                    return;
                }
                continue;
            }
            match self.framer.head() {
                Ok(None) => return,
                Ok(Some(head)) => match self.on_head(cx, head) {
                    Ok(true) => (),
                    Ok(false) => {
                        self.stalled = true;
                        return;
                    }
                    Err(fault) => return self.fault(cx, fault),
                },
                Err(fault) => return self.fault(cx, fault),
            }
        }
    }

    /// Ends the connection with a terminate request that quotes the header in error.
    //= NVMe-TCP 1.1 §3.6.2.5
    //# a fatal error is answered with C2HTermReq that carries the header in error
    pub(crate) fn fault(&mut self, cx: Cx<'_>, fault: Fault) {
        self.term = Some(TermReq::new(fault, self.framer.buffered()));
        self.outbox.push(Out::Term).expect("the outbox has a place for it");
        self.end(cx, CloseReason::Protocol(fault.fes));
        self.framer.discard();
    }

    /// Handles one PDU header. `Ok(false)` leaves it where it is: something is missing.
    fn on_head(&mut self, cx: Cx<'_>, head: Head) -> Result<bool, Fault> {
        //= NVMe-TCP 1.1 §3.6.2.2
        //# ICReq is the first PDU of a connection, and comes once
        let setup = self.state == State::AwaitIcReq;
        match head.pdu_type {
            PduType::IcReq if setup => self.on_ic_req(head),
            PduType::H2cTermReq => {
                let term: TermReqHeader = self.framer.read();
                self.end(cx, CloseReason::Terminated(term.fes.get()));
                Ok(true)
            }
            _ if setup => Err(Fault::of(FatalError::SequenceError)),
            PduType::CapsuleCmd => Ok(self.on_capsule(cx, head)),
            PduType::H2cData => self.on_h2c_data(head),
            _ => Err(Fault::of(FatalError::SequenceError)),
        }
    }

    fn on_ic_req(&mut self, head: Head) -> Result<bool, Fault> {
        let request: IcReq = self.framer.read();
        //= NVMe-TCP 1.1 §3.6.2.2
        //# PFV 0 is the only format; HPDA is at most 31
        if request.pfv.get() != 0 {
            return Err(Fault { fes: FatalError::UnsupportedParameter, fei: 8 });
        }
        if request.hpda > PDO_DWORDS_MAX {
            return Err(Fault::field(10));
        }
        self.framer.consume(head);
        self.hpda = (usize::from(request.hpda) + 1) * 4;
        //= NVMe-TCP 1.1 §3.6.2.3
        //# a digest is used when the host asks for it and the controller agrees
        let header = request.dgst & digest_flags::HEADER != 0;
        let data = request.dgst & digest_flags::DATA != 0;
        self.framer.digests = Digests { header, data };
        self.enter(Input::IcReq);
        self.outbox.push(Out::IcResp).expect("the outbox has a place for it");
        Ok(true)
    }

    /// Takes a command in; false when a place or a buffer is missing.
    fn on_capsule(&mut self, cx: Cx<'_>, head: Head) -> bool {
        // Before Connect one command at a time: its outcome decides what the next one is.
        let one_by_one = self.state == State::AwaitConnect && !self.commands.is_empty();
        if self.commands.is_full() || one_by_one {
            return false;
        }
        let capsule: CapsuleCmdHeader = self.framer.read();
        let planned = self
            .plan(&capsule.sqe)
            .and_then(|plan| Ok((plan, check_sgl(&capsule.sqe, plan.transfer, head.data_len)?)));
        let in_capsule = matches!(planned, Ok((_, Carrier::Capsule)));
        let mut room = None;
        if let (true, Ok((plan, _))) = (in_capsule, &planned) {
            let len = plan.buffer_len().max(head.data_len);
            room = self.capsule_room(cx, &capsule.sqe, head.data_len, len);
            if room.is_none() {
                return false;
            }
        }
        self.framer.consume(head);
        let (plan, refused) = match planned {
            Ok((plan, _)) => (plan, None),
            Err(status) => (Plan::admin(Transfer::None), Some(status)),
        };
        let mut command = Command::new(capsule.sqe, plan);
        if let Some(room) = room {
            (command.held, command.reserved) = (room.held, room.reserved);
            command.base = room.base;
            command.segment = Segment::Filling(room.buf);
            command.granted = head.data_len;
            command.phase = Phase::Receiving;
        }
        let key = self.commands.insert(command).expect("there was a free place");
        self.sink = if in_capsule { Sink::Command(key) } else { Sink::Discard };
        let fuses = self.lone > 0 || capsule.sqe.fuse() != 0;
        if fuses && self.state == State::Io && capsule.sqe.opcode != opcode::FABRICS {
            self.arrange(cx, key, refused);
        }
        if !in_capsule && self.is_doomed(key) {
            self.settle_half(key);
        } else if let Some(status) = refused {
            self.answer(key, status);
        } else if in_capsule {
            self.receiving += 1;
        } else {
            let needs_buffer = plan.buffer_len() > 0;
            let line = if needs_buffer { &mut self.waiting } else { &mut self.ready };
            line.push(key).expect("one entry per command");
        }
        true
    }

    /// What a command needs, or why it is refused.
    fn plan(&self, sqe: &Sqe) -> Result<Plan, NvmeStatus> {
        if sqe.fuse() != 0 && (self.state != State::Io || sqe.opcode == opcode::FABRICS) {
            return Err(NvmeStatus::never(StatusCode::INVALID_FIELD));
        }
        self.check_authenticated(sqe)?;
        if sqe.opcode == opcode::FABRICS {
            return fabrics::plan(sqe);
        }
        match (self.state, &self.queue) {
            (State::Io, Some(queue)) => {
                let view = queue.subsystem.as_ref().expect("I/O queues belong to a subsystem");
                let copy_formats = self.target.registry().copy_formats(queue.hold);
                match sqe.fuse() {
                    0 => io::plan(sqe, view, copy_formats),
                    _ => fused::plan(sqe, view),
                }
            }
            (State::Admin, Some(_)) => admin::plan(sqe),
            //= NVMe-Base 2.1 §3.3.2
            //# before Connect a queue takes Connect only
            _ => Err(NvmeStatus::never(StatusCode::COMMAND_SEQUENCE_ERROR)),
        }
    }

    /// Checks a data PDU against the R2T it answers.
    //= NVMe-TCP 1.1 §3.6.2.8
    //# data PDUs name command and tag, come in order, and stay inside what was asked for
    fn on_h2c_data(&mut self, head: Head) -> Result<bool, Fault> {
        let pdu: H2cDataHeader = self.framer.read();
        let key = u32::from(pdu.ttag.get());
        let command = self.commands.get(key).ok_or(Fault::field(10))?;
        // A tag that was guessed before its R2T went out is as wrong as any other.
        if command.phase != Phase::Receiving || !command.asked {
            return Err(Fault::field(10));
        }
        if command.sqe.cid != pdu.cccid {
            return Err(Fault::field(8));
        }
        if pdu.datal.get() != head.data_len {
            return Err(Fault::field(16));
        }
        if head.data_len > H2C_DATA_MAX {
            return Err(Fault::of(FatalError::LimitExceeded));
        }
        let left = command.granted - command.moved;
        if pdu.datao.get() != command.moved || head.data_len > left {
            return Err(Fault::of(FatalError::DataOutOfRange));
        }
        if (head.flags & pdu_flags::LAST != 0) != (head.data_len == left) {
            return Err(Fault::field(1));
        }
        self.framer.consume(head);
        self.sink = Sink::Command(key);
        Ok(true)
    }

    /// Moves what has arrived of the current PDU's data; false when more bytes are needed.
    fn drain(&mut self, cx: Cx<'_>) -> bool {
        match self.sink {
            Sink::Discard => {
                self.framer.skip_data(u32::MAX);
            }
            Sink::Command(key) => {
                let command = self.commands.get_mut(key).expect("the sink names a command");
                // While a landing is out its bytes come through `on_direct`.
                let Segment::Filling(buf) = &mut command.segment else { return false };
                let (start, end) = (command.base + command.moved, command.base + command.granted);
                let (start, end) = (start as usize, end as usize);
                let len = self.framer.take_data(&mut buf.bytes_mut()[start..end]);
                command.moved += crate::framer::narrow(len);
            }
        }
        let Some(intact) = self.framer.finish_data() else { return false };
        if let Sink::Command(key) = std::mem::replace(&mut self.sink, Sink::Discard) {
            self.on_data_end(cx, key, intact);
        }
        true
    }

    /// Data arrived directly in its segment.
    pub(crate) fn on_direct(&mut self, key: u32, landing: Landing, len: u32) {
        // The command is gone when the connection began to close meanwhile.
        if let Some(command) = self.commands.get_mut(key) {
            self.framer.on_direct(landing.received(len));
            command.moved += len;
            command.segment = Segment::Filling(landing.into_buf());
        }
    }

    /// The data of one PDU is complete.
    fn on_data_end(&mut self, _cx: Cx<'_>, key: u32, intact: bool) {
        let command = self.commands.get_mut(key).expect("the sink names a command");
        command.corrupt |= !intact;
        note_checksums(command, self.framer.block_digests());
        if command.moved < command.granted {
            return;
        }
        self.receiving -= 1;
        command.phase = Phase::Ready;
        if let Segment::Filling(buf) = &mut command.segment {
            buf.mark_summed(command.summed as usize);
        }
        if command.aborted {
            return self.answer(key, NvmeStatus::again(StatusCode::ABORT_REQUESTED));
        }
        if command.corrupt {
            //= NVMe-TCP 1.1 §3.6.1.2
            //# a data digest that does not match fails the command, not the connection
            let status = NvmeStatus::again(StatusCode::TRANSIENT_TRANSPORT_ERROR);
            if !command.is_half() {
                return self.answer(key, status);
            }
            command.doom.get_or_insert(status);
        }
        if command.is_half() {
            return self.settle_half(key);
        }
        self.ready.push(key).expect("one entry per command");
    }
}

/// Keeps the digests of the blocks of a PDU, which was the last one to arrive, with the buffer: the
/// device need not sum them again. As far as blocks of PDUs are blocks of the buffer.
fn note_checksums(command: &mut Command, digests: &[u32]) {
    if command.is_half() {
        return; // Nothing that is compared keeps checksums.
    }
    let Segment::Filling(buf) = &mut command.segment else { return };
    let block = crate::framer::narrow(CHECKSUM_BYTES);
    let start = command.moved / block - crate::framer::narrow(digests.len());
    if command.summed != start || !command.moved.is_multiple_of(block) {
        return;
    }
    for &digest in digests {
        buf.note_checksum(command.summed as usize, digest);
        command.summed += 1;
    }
}
