//! One queue of a host.

use bdev::{Buf, BufMut, Completion, Data, Fifo, Flags, Op, Pool, Request, Slots, Status, Tag};
use net::{Batch, Landing};
use nvme_spec::{
    C2hDataHeader, CNTLID_DYNAMIC, CapsuleCmdHeader, CapsuleRespHeader, ConnectData, ConnectSqe,
    Cqe, DIGEST_LEN, H2cDataHeader, IcReq, IcResp, NvmeStatus, PSDT_SGL, PduType, R2tHeader, Sgl,
    Sqe, StatusCode, TermReqHeader, U16, U32, cattr, digest_flags, io_control, opcode, pdu_flags,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::digest::crc32c;
use crate::framer::{Accepts, Digests, Framer, Head, narrow};
use crate::limits::{IN_CAPSULE_MAX, QUEUE_ENTRIES_MAX, RECEIVE_SEGMENT, TRANSFER_MAX};
use crate::transmit::common;
use crate::{HostId, Nqn};

/// What a host accepts from a target.
const ACCEPTS: Accepts = Accepts {
    data_max: |pdu_type| match pdu_type {
        PduType::IcResp | PduType::CapsuleResp | PduType::R2t => Some(0),
        PduType::C2hData => Some(TRANSFER_MAX),
        PduType::C2hTermReq => Some(128),
        _ => None,
    },
};

/// Who connects to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostIdentity {
    /// HOSTNQN.
    pub hostnqn: Nqn,
    /// HOSTID.
    pub hostid: HostId,
    /// SUBNQN.
    pub subnqn: Nqn,
}

/// How a queue is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// Who connects to what.
    pub identity: HostIdentity,
    /// QID: 0 is the admin queue.
    pub qid: u16,
    /// CNTLID of the controller that an I/O queue joins; ignored for the admin queue.
    pub cntlid: u16,
    /// Entries of the queue: 2 to [`QUEUE_ENTRIES_MAX`]. One less can be outstanding.
    pub entries: u16,
    /// Digests to ask for.
    pub digests: Digests,
    /// HPDA: alignment of received data, dwords, 0's based.
    pub hpda: u8,
    /// KATO, milliseconds; for the admin queue.
    pub kato_ms: u32,
    /// Asks to disable SQ flow control, which lets reads end without a response capsule.
    pub disable_flow_control: bool,
    /// Bytes of write data that travel in the capsule at most: what IOCCSZ allows, or less.
    pub in_capsule_max: u32,
}

impl QueueOptions {
    /// An admin queue of 32 entries without digests.
    pub fn admin(identity: HostIdentity) -> QueueOptions {
        QueueOptions {
            identity,
            qid: 0,
            cntlid: CNTLID_DYNAMIC,
            entries: 32,
            digests: Digests::default(),
            hpda: 0,
            kato_ms: 0,
            disable_flow_control: false,
            in_capsule_max: IN_CAPSULE_MAX,
        }
    }

    /// An I/O queue of the largest size on controller `cntlid`, SQ flow control disabled.
    pub fn io(identity: HostIdentity, cntlid: u16, qid: u16) -> QueueOptions {
        let admin = QueueOptions::admin(identity);
        let entries = QUEUE_ENTRIES_MAX;
        QueueOptions { qid, cntlid, entries, disable_flow_control: true, ..admin }
    }
}

/// A raw command.
#[derive(Debug)]
pub struct HostCommand {
    /// Comes back with the response.
    pub tag: Tag,
    /// The command; CID, PSDT and the SGL are filled in.
    pub sqe: Sqe,
    /// The data: [`Data::Into`] for what comes back, [`Data::From`] for what is sent.
    pub data: Data,
    /// Bytes of data, at most 1 MiB and what the buffer holds; 0 without data.
    pub len: u32,
}

/// The end of a raw command.
#[derive(Debug)]
pub struct HostResponse {
    /// The tag of the command.
    pub tag: Tag,
    /// What the target answered.
    pub cqe: Cqe,
    /// The buffer of the command.
    pub data: Data,
    /// Bytes that came back.
    pub received: u32,
}

/// Why a queue is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// The connection ended.
    Closed,
    /// Connect was refused.
    Refused {
        /// With this status.
        status: NvmeStatus,
        /// And this DW0: where the parameter in error is.
        dw0: u32,
    },
    /// The target sent something that makes no sense.
    Protocol(&'static str),
    /// The target ended the connection with this FES and FEI.
    Terminated(u16, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    AwaitIcResp,
    AwaitConnect,
    Ready,
    Failed(Failure),
}

/// A command that was submitted.
#[derive(Debug)]
struct Pending {
    tag: Tag,
    sqe: Sqe,
    into: Option<BufMut>,
    from: Option<Buf>,
    len: u32,
    received: u32,
    corrupt: bool,
    /// A block request, not a raw command.
    block: bool,
    /// The data PDU that is arriving ends the command (SUCCESS).
    ends: bool,
    ttag: u16,
    /// The part that an R2T asked for and that was not sent.
    sending: u32,
    sending_end: u32,
}

#[derive(Clone, Copy, Debug)]
enum Out {
    IcReq,
    Command(u32),
    Data(u32),
}

/// One queue of a host on one TCP connection. All its memory is allocated by [`Initiator::new`].
#[derive(Debug)]
pub struct Initiator {
    options: QueueOptions,
    state: State,
    framer: Framer,
    pending: Slots<Pending>,
    outbox: Fifo<Out>,
    done: Fifo<HostResponse>,
    done_blocks: Fifo<Completion>,
    current: Option<u32>,
    landing_out: Option<Option<u32>>,
    batch_out: bool,
    h2c_max: u32,
    cntlid: u16,
    connect_key: u32,
}

/// Scratch that one entry of the outbox needs at most.
const SCRATCH_MAX: usize = 256;

impl Initiator {
    /// A closed queue.
    ///
    /// # Panics
    /// When `entries` is not 2 to [`QUEUE_ENTRIES_MAX`].
    pub fn new(options: QueueOptions) -> Initiator {
        assert!((2..=QUEUE_ENTRIES_MAX).contains(&options.entries));
        let depth = usize::from(options.entries) - 1;
        Initiator {
            options,
            state: State::Closed,
            framer: Framer::new(ACCEPTS),
            pending: Slots::new(depth),
            outbox: Fifo::new(2 * depth + 1),
            done: Fifo::new(depth),
            done_blocks: Fifo::new(depth),
            current: None,
            landing_out: None,
            batch_out: false,
            h2c_max: 4096,
            cntlid: options.cntlid,
            connect_key: 0,
        }
    }

    /// Starts on a fresh TCP connection: ICReq and Connect go out by themselves. False when the
    /// pool is exhausted.
    ///
    /// # Panics
    /// When it is open.
    pub fn open(&mut self, pool: &Pool) -> bool {
        assert!(matches!(self.state, State::Closed), "closed before it is opened");
        let connect_len = size_of::<ConnectData>();
        let (Some(segment), Some(mut data)) = (pool.take(RECEIVE_SEGMENT), pool.take(connect_len))
        else {
            return false;
        };
        self.framer.open(segment);
        self.state = State::AwaitIcResp;
        self.outbox.push(Out::IcReq).expect("the outbox is empty");
        let identity = self.options.identity;
        let mut connect = ConnectData::new_zeroed();
        connect.hostid = identity.hostid.0;
        connect.cntlid = U16::new(self.options.cntlid);
        connect.subnqn = identity.subnqn.to_field();
        connect.hostnqn = identity.hostnqn.to_field();
        data.bytes_mut()[..connect_len].copy_from_slice(connect.as_bytes());
        let pending = Pending::new(
            Tag(0),
            self.connect_sqe(),
            Data::From(data.freeze()),
            narrow(connect_len),
        );
        self.connect_key = self.pending.insert(pending).expect("nothing is outstanding");
        true
    }

    fn connect_sqe(&self) -> Sqe {
        let mut sqe = ConnectSqe::new_zeroed();
        sqe.opcode = opcode::FABRICS;
        sqe.fctype = opcode::fctype::CONNECT;
        sqe.qid = U16::new(self.options.qid);
        sqe.sqsize = U16::new(self.options.entries - 1);
        let disable = self.options.disable_flow_control;
        sqe.cattr = if disable { cattr::DISABLE_SQ_FLOW_CONTROL } else { 0 };
        sqe.kato = U32::new(self.options.kato_ms);
        zerocopy::transmute!(sqe)
    }

    /// Whether commands can be submitted.
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// What went wrong, if something did.
    pub fn failure(&self) -> Option<Failure> {
        match self.state {
            State::Failed(failure) => Some(failure),
            _ => None,
        }
    }

    /// CNTLID, once it is ready.
    pub fn cntlid(&self) -> u16 {
        self.cntlid
    }

    /// Commands outstanding, responses not yet polled included.
    pub fn in_flight(&self) -> usize {
        self.pending.len() + self.done.len() + self.done_blocks.len()
    }

    /// How many more commands can be submitted now.
    pub fn room(&self) -> usize {
        let depth = self.pending.capacity();
        if self.is_ready() { depth.saturating_sub(self.in_flight()) } else { 0 }
    }

    /// Takes block requests from the front, for namespace `nsid` with blocks of `block_size`, while
    /// there is room. They come back through [`Initiator::poll`].
    pub fn submit(&mut self, nsid: u32, block_size: u32, requests: &mut Fifo<Request>) {
        while self.room() > 0
            && let Some(request) = requests.pop()
        {
            let (sqe, len) = command_of(&request, nsid, block_size);
            let mut pending = Pending::new(request.tag, sqe, request.data, len);
            pending.block = true;
            self.send(pending);
        }
    }

    /// Submits a raw command. It comes back through [`Initiator::poll_responses`].
    ///
    /// # Errors
    /// The command itself, when there is no room or the queue is not ready.
    ///
    /// # Panics
    /// When the data is shorter than `len`.
    pub fn submit_command(&mut self, command: HostCommand) -> Result<(), HostCommand> {
        if self.room() == 0 {
            return Err(command);
        }
        let HostCommand { tag, sqe, data, len } = command;
        self.send(Pending::new(tag, sqe, data, len));
        Ok(())
    }

    fn send(&mut self, pending: Pending) {
        let key = self.pending.insert(pending).expect("room was checked");
        self.outbox.push(Out::Command(key)).expect("one entry per command");
    }

    /// Appends finished block requests while there is room.
    pub fn poll(&mut self, completions: &mut Fifo<Completion>) {
        while !completions.is_full()
            && let Some(completion) = self.done_blocks.pop()
        {
            completions.push(completion).expect("there was room");
        }
    }

    /// The next finished raw command.
    pub fn poll_response(&mut self) -> Option<HostResponse> {
        self.done.pop()
    }

    /// Where the next bytes should land. `None` while one is out, and when closed.
    pub fn landing(&mut self) -> Option<Landing> {
        if self.landing_out.is_some() || !self.is_open() {
            return None;
        }
        if let (Some(len), Some(key)) = (self.framer.direct_len(), self.current)
            && let Some(pending) = self.pending.get_mut(key)
            && let Some(buf) = pending.into.take()
        {
            self.landing_out = Some(Some(key));
            return Some(Landing::new(buf, pending.received, len));
        }
        let landing = self.framer.landing()?;
        self.landing_out = Some(None);
        Some(landing)
    }

    fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed | State::Failed(_))
    }

    /// The first `len` bytes of `landing` were received. Zero is the peer's end of stream.
    ///
    /// # Panics
    /// When no landing is out.
    pub fn on_received(&mut self, landing: Landing, len: u32) {
        let out = self.landing_out.take();
        if !self.is_open() {
            return;
        }
        match out.expect("a landing comes back once") {
            None => self.framer.on_received(landing, len),
            Some(key) => {
                self.framer.on_direct(landing.received(len));
                let pending = self.pending.get_mut(key).expect("its data is arriving");
                pending.received += len;
                pending.into = Some(landing.into_buf());
            }
        }
        if len == 0 {
            return self.fail(Failure::Closed);
        }
        if let Err(failure) = self.advance() {
            self.fail(failure);
        }
    }

    /// Bytes were received elsewhere; how many were taken.
    pub fn on_bytes(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            let Some(mut landing) = self.landing() else { break };
            let len = (bytes.len() - taken).min(landing.len() as usize);
            landing.bytes_mut()[..len].copy_from_slice(&bytes[taken..taken + len]);
            self.on_received(landing, narrow(len));
            taken += len;
        }
        taken
    }

    /// The connection is gone: everything outstanding ends with a path error.
    pub fn on_closed(&mut self) {
        if self.is_open() {
            self.fail(Failure::Closed);
        }
        self.landing_out = None;
        self.batch_out = false;
        self.framer.close();
    }

    /// Forgets a failed connection, so that the queue can be opened again.
    ///
    /// # Panics
    /// When responses were not polled.
    pub fn reset(&mut self) {
        self.on_closed();
        assert!(self.in_flight() == 0, "poll everything first");
        self.state = State::Closed;
    }

    fn fail(&mut self, failure: Failure) {
        self.state = State::Failed(failure);
        self.outbox.clear();
        self.current = None;
        for key in 0..narrow(self.pending.capacity()) {
            if let Some(pending) = self.pending.remove(key)
                && !pending.is_connect()
            {
                let mut cqe = Cqe::new_zeroed();
                let status = NvmeStatus::again(StatusCode::HOST_PATHING_ERROR);
                cqe.status = U16::new(status.to_field());
                self.finish(pending, cqe);
            }
        }
    }

    fn advance(&mut self) -> Result<(), Failure> {
        loop {
            if self.framer.data_remaining().is_some() {
                if !self.drain() {
                    return Ok(());
                }
                continue;
            }
            match self.framer.head() {
                Ok(None) => return Ok(()),
                Ok(Some(head)) => self.on_head(head)?,
                Err(_) => return Err(Failure::Protocol("a header that makes no sense")),
            }
        }
    }

    fn on_head(&mut self, head: Head) -> Result<(), Failure> {
        match (head.pdu_type, self.state) {
            (PduType::IcResp, State::AwaitIcResp) => self.on_ic_resp(head),
            (PduType::C2hTermReq, _) => {
                let term: TermReqHeader = self.framer.read();
                Err(Failure::Terminated(term.fes.get(), term.fei.get()))
            }
            (_, State::AwaitIcResp) => Err(Failure::Protocol("something before ICResp")),
            (PduType::CapsuleResp, _) => {
                let resp: CapsuleRespHeader = self.framer.read();
                self.framer.consume(head);
                self.on_response(resp.cqe)
            }
            (PduType::C2hData, _) => self.on_c2h_data(head),
            (PduType::R2t, _) => self.on_r2t(head),
            _ => Err(Failure::Protocol("a PDU out of place")),
        }
    }

    fn on_ic_resp(&mut self, head: Head) -> Result<(), Failure> {
        let resp: IcResp = self.framer.read();
        self.framer.consume(head);
        let asked = self.options.digests;
        let header = resp.dgst & digest_flags::HEADER != 0;
        let data = resp.dgst & digest_flags::DATA != 0;
        let h2c_max = resp.maxh2cdata.get();
        let sane = h2c_max >= 4096 && h2c_max.is_multiple_of(4);
        if resp.pfv.get() != 0
            || resp.cpda != 0
            || !sane
            || (header, data) != (asked.header, asked.data)
        {
            return Err(Failure::Protocol("ICResp with values that were not asked for"));
        }
        self.framer.digests = asked;
        self.h2c_max = h2c_max;
        self.state = State::AwaitConnect;
        self.outbox.push(Out::Command(self.connect_key)).expect("the outbox is empty");
        Ok(())
    }

    fn on_response(&mut self, cqe: Cqe) -> Result<(), Failure> {
        let unknown = Failure::Protocol("a response to nothing");
        let pending = self.pending.remove(u32::from(cqe.cid.get())).ok_or(unknown)?;
        if self.state == State::AwaitConnect {
            let (status, dw0) = (cqe.nvme_status(), cqe.dw0.get());
            if !status.is_success() {
                return Err(Failure::Refused { status, dw0 });
            }
            self.cntlid = u16::try_from(dw0 & 0xffff).expect("masked");
            self.state = State::Ready;
            return Ok(());
        }
        self.finish(pending, cqe);
        Ok(())
    }

    fn finish(&mut self, mut pending: Pending, mut cqe: Cqe) {
        if pending.corrupt {
            let status = NvmeStatus::again(StatusCode::TRANSIENT_TRANSPORT_ERROR);
            cqe.status = U16::new(status.to_field());
        }
        let data = match (pending.into.take(), pending.from.take()) {
            (Some(buf), _) => Data::Into(buf),
            (_, Some(buf)) => Data::From(buf),
            _ => Data::None,
        };
        let (tag, received) = (pending.tag, pending.received);
        if pending.block {
            let mut status = block_status(cqe.nvme_status());
            if status.is_ok() && matches!(data, Data::Into(_)) && received != pending.len {
                status = Status::Io;
            }
            let completion = Completion { tag, data, status };
            self.done_blocks.push(completion).expect("one place per command");
        } else {
            let response = HostResponse { tag, cqe, data, received };
            self.done.push(response).expect("one place per command");
        }
    }

    fn on_c2h_data(&mut self, head: Head) -> Result<(), Failure> {
        let pdu: C2hDataHeader = self.framer.read();
        let key = u32::from(pdu.cccid.get());
        let Some(pending) = self.pending.get(key) else {
            return Err(Failure::Protocol("data for nothing"));
        };
        let fits = pdu.datal.get() == head.data_len
            && pdu.datao.get() == pending.received
            && pending.into.is_some()
            && head.data_len <= pending.len - pending.received;
        let last = head.flags & pdu_flags::LAST != 0;
        if !fits || (head.flags & pdu_flags::SUCCESS != 0 && !last) {
            return Err(Failure::Protocol("data that was not asked for"));
        }
        if head.flags & pdu_flags::SUCCESS != 0 && !self.options.disable_flow_control {
            return Err(Failure::Protocol("SUCCESS with SQ flow control"));
        }
        self.framer.consume(head);
        self.current = Some(key);
        let pending = self.pending.get_mut(key).expect("just seen");
        pending.ends = head.flags & pdu_flags::SUCCESS != 0;
        Ok(())
    }

    fn drain(&mut self) -> bool {
        let Some(key) = self.current else {
            self.framer.skip_data(u32::MAX);
            return self.framer.finish_data().is_some();
        };
        let pending = self.pending.get_mut(key).expect("its data is arriving");
        let Some(buf) = &mut pending.into else { return false };
        let (start, end) = (pending.received as usize, pending.len as usize);
        pending.received += narrow(self.framer.take_data(&mut buf.bytes_mut()[start..end]));
        let Some(intact) = self.framer.finish_data() else { return false };
        self.current = None;
        pending.corrupt |= !intact;
        if pending.ends {
            let pending = self.pending.remove(key).expect("just seen");
            self.finish(pending, Cqe::new_zeroed());
        }
        true
    }

    fn on_r2t(&mut self, head: Head) -> Result<(), Failure> {
        let r2t: R2tHeader = self.framer.read();
        let key = u32::from(r2t.cccid.get());
        let Some(pending) = self.pending.get_mut(key) else {
            return Err(Failure::Protocol("R2T for nothing"));
        };
        let (offset, len) = (r2t.r2to.get(), r2t.r2tl.get());
        let end = offset.checked_add(len).filter(|&end| end <= pending.len);
        let (Some(end), true) = (end, len > 0 && pending.from.is_some()) else {
            return Err(Failure::Protocol("R2T beyond the data"));
        };
        if offset < pending.sending_end || pending.sending < pending.sending_end {
            return Err(Failure::Protocol("R2T out of order"));
        }
        pending.ttag = r2t.ttag.get();
        (pending.sending, pending.sending_end) = (offset, end);
        self.framer.consume(head);
        self.outbox.push(Out::Data(key)).expect("one R2T per command");
        Ok(())
    }

    /// Fills an empty `batch` with what is to be sent; false when there is nothing. Hand it back
    /// with [`Initiator::on_sent`] before the next.
    pub fn poll_transmit(&mut self, batch: &mut Batch) -> bool {
        if self.batch_out || !self.is_open() {
            return false;
        }
        while batch.pieces_room() >= 3 && batch.scratch_room() >= SCRATCH_MAX {
            let Some(out) = self.outbox.pop() else { break };
            match out {
                Out::IcReq => self.put_ic_req(batch),
                Out::Command(key) => self.put_command(batch, key),
                Out::Data(key) => self.put_data(batch, key),
            }
        }
        self.batch_out = !batch.is_empty();
        self.batch_out
    }

    /// The batch was sent, or will never be. It is emptied.
    pub fn on_sent(&mut self, batch: &mut Batch) {
        batch.clear();
        self.batch_out = false;
    }

    fn put_ic_req(&mut self, batch: &mut Batch) {
        let mut req = IcReq::new_zeroed();
        req.ch = common(PduType::IcReq, 0, 0, size_of::<IcReq>());
        req.hpda = self.options.hpda;
        req.dgst = if self.options.digests.header { digest_flags::HEADER } else { 0 };
        req.dgst |= if self.options.digests.data { digest_flags::DATA } else { 0 };
        put(batch, req.as_bytes());
    }

    fn put_command(&mut self, batch: &mut Batch, key: u32) {
        let digests = self.framer.digests;
        // Admin and Fabrics capsules have 8 KiB for data by definition.
        let in_capsule_max =
            if self.options.qid == 0 { IN_CAPSULE_MAX } else { self.options.in_capsule_max };
        let pending = self.pending.get_mut(key).expect("queued commands are pending");
        let in_capsule = match &pending.from {
            Some(buf) if pending.len <= in_capsule_max || pending.is_connect() => Some(buf.clone()),
            _ => None,
        };
        let mut sqe = pending.sqe;
        sqe.cid = U16::new(u16::try_from(key).expect("a queue has few entries"));
        sqe.flags |= PSDT_SGL;
        sqe.dptr = match in_capsule {
            Some(_) => Sgl::in_capsule(0, pending.len),
            None => Sgl::transport(pending.len),
        };
        let len = pending.len as usize;
        let hlen = size_of::<CapsuleCmdHeader>() + digests.header_len();
        let mut flags = if digests.header { pdu_flags::HDGST } else { 0 };
        let (pdo, plen) = match in_capsule {
            Some(_) => {
                flags |= if digests.data { pdu_flags::DDGST } else { 0 };
                (hlen, hlen + len + digests.data_len())
            }
            None => (0, hlen),
        };
        let ch = common(PduType::CapsuleCmd, flags, pdo, plen);
        put_header(batch, CapsuleCmdHeader { ch, sqe }.as_bytes(), digests);
        if let Some(buf) = in_capsule {
            put_buf(batch, buf, 0, len, digests);
        }
    }

    /// Sends one H2CData PDU; the command is queued again when the R2T wants more.
    fn put_data(&mut self, batch: &mut Batch, key: u32) {
        let digests = self.framer.digests;
        let Some(pending) = self.pending.get_mut(key) else { return };
        let Some(buf) = &pending.from else { return };
        let left = pending.sending_end - pending.sending;
        let len = left.min(self.h2c_max);
        let hlen = size_of::<H2cDataHeader>() + digests.header_len();
        let mut flags = if digests.header { pdu_flags::HDGST } else { 0 };
        flags |= if digests.data { pdu_flags::DDGST } else { 0 };
        flags |= if len == left { pdu_flags::LAST } else { 0 };
        let plen = hlen + len as usize + digests.data_len();
        let mut header = H2cDataHeader::new_zeroed();
        header.ch = common(PduType::H2cData, flags, hlen, plen);
        header.cccid = U16::new(u16::try_from(key).expect("a queue has few entries"));
        header.ttag = U16::new(pending.ttag);
        header.datao = U32::new(pending.sending);
        header.datal = U32::new(len);
        put_header(batch, header.as_bytes(), digests);
        put_buf(batch, buf.clone(), pending.sending as usize, len as usize, digests);
        pending.sending += len;
        if pending.sending < pending.sending_end {
            self.outbox.push(Out::Data(key)).expect("its own place is free");
        }
    }
}

impl Pending {
    fn new(tag: Tag, sqe: Sqe, data: Data, len: u32) -> Pending {
        let (into, from) = match data {
            Data::None => (None, None),
            Data::Into(buf) => (Some(buf), None),
            Data::From(buf) => (None, Some(buf)),
        };
        let capacity = match (&into, &from) {
            (Some(buf), _) => buf.capacity(),
            (_, Some(buf)) => buf.capacity(),
            _ => 0,
        };
        assert!(len as usize <= capacity, "the data is in the buffer");
        Pending {
            tag,
            sqe,
            into,
            from,
            len,
            received: 0,
            corrupt: false,
            block: false,
            ends: false,
            ttag: 0,
            sending: 0,
            sending_end: 0,
        }
    }

    fn is_connect(&self) -> bool {
        let [fctype, ..] = self.sqe.nsid.get().to_le_bytes();
        self.sqe.opcode == opcode::FABRICS && fctype == opcode::fctype::CONNECT
    }
}

fn put(batch: &mut Batch, bytes: &[u8]) {
    assert!(batch.push_bytes(bytes), "room was checked");
}

fn put_header(batch: &mut Batch, header: &[u8], digests: Digests) {
    put(batch, header);
    if digests.header {
        put(batch, &crc32c(header).to_le_bytes());
    }
}

fn put_buf(batch: &mut Batch, buf: Buf, offset: usize, len: usize, digests: Digests) {
    let digest = digests.data.then(|| crc32c(&buf.bytes()[offset..offset + len]));
    batch.push_buf(buf, offset, len).expect("room was checked");
    if let Some(digest) = digest {
        put(batch, &digest.to_le_bytes());
    }
}

const _: () = assert!(SCRATCH_MAX >= size_of::<IcReq>());
const _: () = assert!(SCRATCH_MAX >= size_of::<CapsuleCmdHeader>() + 2 * DIGEST_LEN);

/// The NVM command of a block request, and its bytes of data.
fn command_of(request: &Request, nsid: u32, block_size: u32) -> (Sqe, u32) {
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
    (sqe, len)
}

/// What an NVMe status means to whoever made the request.
fn block_status(status: NvmeStatus) -> Status {
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
