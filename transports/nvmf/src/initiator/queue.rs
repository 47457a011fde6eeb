//! One queue of a host.

use bdev::{Buf, BufMut, Completion, Data, Fifo, Pool, Request, Slots, Status, Tag};
use net::Landing;
use nvme_spec::{
    CNTLID_DYNAMIC, ConnectData, ConnectSqe, Cqe, NvmeStatus, Sqe, StatusCode, U16, U32, cattr,
    opcode,
};
use zerocopy::{FromZeros, IntoBytes};

use super::auth::HostExchange;
use super::incoming::ACCEPTS;
use super::mapping::command_of;
use crate::framer::{Digests, Framer, narrow};
use crate::limits::{IN_CAPSULE_MAX, QUEUE_ENTRIES_MAX, RECEIVE_SEGMENT};
use crate::{HostId, Nqn};

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
    /// The target asks for an authentication, and there is no secret.
    AuthenticationRequired,
    /// The target refused the authentication, with this explanation.
    NotAuthenticated(u8),
    /// The controller does not have the secret that it must have.
    WrongController,
    /// The target sent something that makes no sense.
    Protocol(&'static str),
    /// The target ended the connection with this FES and FEI.
    Terminated(u16, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Closed,
    AwaitIcResp,
    AwaitConnect,
    Authenticating,
    Ready,
    Failed(Failure),
}

/// A command that was submitted.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) tag: Tag,
    pub(super) sqe: Sqe,
    pub(super) into: Option<BufMut>,
    pub(super) from: Option<Buf>,
    pub(super) len: u32,
    pub(super) received: u32,
    pub(super) corrupt: bool,
    /// A block request, not a raw command.
    pub(super) block: bool,
    /// A command of an authentication.
    pub(super) authentication: bool,
    /// The data PDU that is arriving ends the command (SUCCESS).
    pub(super) ends: bool,
    pub(super) ttag: u16,
    /// The part that an R2T asked for and that was not sent.
    pub(super) sending: u32,
    pub(super) sending_end: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Out {
    IcReq,
    Command(u32),
    Data(u32),
}

/// One queue of a host on one TCP connection. All its memory is allocated by [`Initiator::new`].
#[derive(Debug)]
pub struct Initiator {
    pub(super) options: QueueOptions,
    pub(super) state: State,
    pub(super) framer: Framer,
    pub(super) pending: Slots<Pending>,
    pub(super) outbox: Fifo<Out>,
    pub(super) done: Fifo<HostResponse>,
    pub(super) done_blocks: Fifo<Completion>,
    pub(super) current: Option<u32>,
    pub(super) landing_out: Option<Option<u32>>,
    pub(super) batch_out: bool,
    pub(super) h2c_max: u32,
    pub(super) cntlid: u16,
    pub(super) connect_key: u32,
    pub(super) exchange: Option<Box<HostExchange>>,
}

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
            exchange: None,
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
        if !self.prepare_exchange(pool) {
            return false;
        }
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
            let Some((sqe, len)) = command_of(&request, nsid, block_size) else {
                let refused = request.complete(Status::Unsupported);
                self.done_blocks.push(refused).expect("room was checked");
                continue;
            };
            let mut pending = Pending::new(request.tag, sqe, request.data, len);
            pending.block = true;
            self.send(pending);
        }
    }

    /// Submits a raw command. It comes back through [`Initiator::poll_response`].
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

    pub(super) fn send(&mut self, pending: Pending) {
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

    pub(super) fn is_open(&self) -> bool {
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

    pub(super) fn fail(&mut self, failure: Failure) {
        self.state = State::Failed(failure);
        self.outbox.clear();
        self.current = None;
        for key in 0..narrow(self.pending.capacity()) {
            if let Some(pending) = self.pending.remove(key)
                && !pending.is_connect()
                && !pending.authentication
            {
                let mut cqe = Cqe::new_zeroed();
                let status = NvmeStatus::again(StatusCode::HOST_PATHING_ERROR);
                cqe.status = U16::new(status.to_field());
                self.finish(pending, cqe);
            }
        }
    }
}

impl Pending {
    pub(super) fn new(tag: Tag, sqe: Sqe, data: Data, len: u32) -> Pending {
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
            authentication: false,
            ends: false,
            ttag: 0,
            sending: 0,
            sending_end: 0,
        }
    }

    pub(super) fn is_connect(&self) -> bool {
        let [fctype, ..] = self.sqe.nsid.get().to_le_bytes();
        self.sqe.opcode == opcode::FABRICS && fctype == opcode::fctype::CONNECT
    }
}
