//! How commands run: a buffer, a request or an answer, and the end.

use bdev::{BufMut, Client, Completion, Data, Fifo, Request, Tag};
use nvme_spec::{NvmeStatus, StatusCode, opcode};

use crate::NamespaceHandle;
use crate::command::{Command, Phase, Segment, Transfer, Work};
use crate::connection::{Connection, Cx};
use crate::fused::{Fuse, Room};
use crate::limits::TAG_COMMAND_BITS;
use crate::state::State;
use crate::status::nvme_status;
use crate::transmit::Out;
use crate::{io, reservation};

impl Connection {
    /// Starts what is ready, then gives buffers to what waits for one, each in the order of
    /// arrival. Commands that have their buffer never queue behind those that have not.
    pub(crate) fn start_ready(
        &mut self,
        cx: Cx<'_>,
        requests: &mut Fifo<(NamespaceHandle, Request)>,
    ) {
        self.start_all(cx, requests);
        while self.state != State::Closing
            && let Some(key) = self.waiting.pop()
        {
            if !self.give_buffer(cx, key) {
                self.waiting.push_front(key).expect("it was just taken");
                break;
            }
        }
        self.start_all(cx, requests);
    }

    fn start_all(&mut self, cx: Cx<'_>, requests: &mut Fifo<(NamespaceHandle, Request)>) {
        while self.state != State::Closing
            && let Some(key) = self.ready.pop()
        {
            if !self.start(cx, key, requests) {
                self.ready.push_front(key).expect("it was just taken");
                return;
            }
        }
    }

    /// Starts one command; false when there is no room for its request.
    fn start(
        &mut self,
        cx: Cx<'_>,
        key: u32,
        requests: &mut Fifo<(NamespaceHandle, Request)>,
    ) -> bool {
        let command = self.commands.get(key).expect("ready commands exist");
        assert_eq!(command.phase, Phase::Ready);
        if command.sqe.opcode == opcode::FABRICS {
            self.execute_fabrics(cx, key);
        } else if self.state == State::Io || command.plan.work == Work::Reserve {
            return self.submit(key, requests);
        } else {
            self.execute_admin(cx, key);
        }
        true
    }

    /// Gives a command its buffer, and has it filled; false when there is none.
    fn give_buffer(&mut self, cx: Cx<'_>, key: u32) -> bool {
        let command = self.commands.get(key).expect("waiting commands exist");
        let plan = command.plan;
        assert!(plan.buffer_len() > 0, "what needs no buffer waits for none");
        let inherited = match (command.fuse, plan.transfer) {
            (Fuse::Second { first }, Transfer::FromHost(len)) => self.inherit(first, len),
            _ => None,
        };
        let room = inherited.or_else(|| self.own_room(cx, key));
        let Some(Room { buf, held, reserved, base }) = room else { return false };
        let command = self.commands.get_mut(key).expect("waiting commands exist");
        (command.held, command.reserved, command.base) = (held, reserved, base);
        command.segment = Segment::Filling(buf);
        match plan.transfer {
            Transfer::FromHost(len) => self.ask(cx, key, len),
            Transfer::ToHost(_) | Transfer::None => {
                self.ready.push(key).expect("one entry per command");
            }
        }
        true
    }

    /// A buffer from the pool for a command.
    fn own_room(&mut self, cx: Cx<'_>, key: u32) -> Option<Room> {
        let command = self.commands.get(key).expect("waiting commands exist");
        let room = Command::room(&command.sqe, command.plan.buffer_len());
        let buf = self.take_buffer(cx, room)?;
        Some(Room { held: buf.capacity(), buf, reserved: false, base: 0 })
    }

    /// Asks the host for the data of a command, all at once: its buffer is there.
    //= NVMe-TCP 1.1 §3.6.2.10
    //# at most MAXR2T are outstanding per command: one always is allowed
    fn ask(&mut self, cx: Cx<'_>, key: u32, len: u32) {
        let command = self.commands.get_mut(key).expect("waiting commands exist");
        command.granted = len;
        command.phase = Phase::Receiving;
        self.receiving += 1;
        self.progress = cx.now;
        self.outbox.push(Out::R2t(key)).expect("one entry per command");
    }

    /// Hands out the next request of an I/O command, or answers it when there is none left.
    fn submit(&mut self, key: u32, requests: &mut Fifo<(NamespaceHandle, Request)>) -> bool {
        if requests.is_full() {
            return false;
        }
        if self.state == State::Io
            && let Some(status) = self.barred(key)
        {
            let command = self.commands.get_mut(key).expect("ready commands exist");
            io::stop(command);
            if let Fuse::Second { first } = command.fuse {
                self.answer(first, NvmeStatus::again(StatusCode::ABORTED_FAILED_FUSED));
            }
            self.answer(key, status);
            return true;
        }
        let tag = Tag(self.index << TAG_COMMAND_BITS | key);
        let command = self.commands.get_mut(key).expect("ready commands exist");
        assert!(!command.aborted, "a deferred abort ends a command before its next request");
        let queue = self.queue.as_ref().expect("a queue is connected");
        let view = queue.subsystem.as_ref().expect("commands with requests belong to a subsystem");
        let client = Client(queue.hold.cntlid());
        let next = match command.plan.work {
            Work::Reserve => {
                let host = self.target.host_of(client);
                reservation::next_request(command, host, tag).map(Some)
            }
            _ => io::next_request(command, view, tag),
        };
        let (handle, request) = match next {
            Ok(Some(next)) => next,
            Ok(None) => {
                self.answer(key, NvmeStatus::SUCCESS);
                return true;
            }
            Err(status) => {
                self.answer(key, status);
                return true;
            }
        };
        (command.phase, command.doing) = (Phase::Submitted, request.op);
        requests.push((handle, request.with_client(client))).expect("there was room");
        self.in_flight += 1;
        true
    }

    /// Why an I/O command that was planned is not executed: its namespace was detached meanwhile,
    /// or this path closed. A write that comes late must not pass what another path wrote.
    fn barred(&self, key: u32) -> Option<NvmeStatus> {
        let command = self.commands.get(key).expect("ready commands exist");
        let view = self.queue.as_ref().and_then(|queue| queue.subsystem.as_ref());
        let view = view.expect("I/O queues belong to a subsystem");
        match view.namespace(command.sqe.nsid.get()) {
            Some(namespace) if namespace.handle == command.plan.handle => {
                view.state_of(namespace).refusal()
            }
            _ => Some(NvmeStatus::never(StatusCode::INVALID_NAMESPACE)),
        }
    }

    /// A request came back.
    pub(crate) fn finish_request(&mut self, cx: Cx<'_>, completion: Completion) {
        let key = completion.tag.0 & ((1 << TAG_COMMAND_BITS) - 1);
        let command = self.commands.get_mut(key).expect("a request in flight has its command");
        assert_eq!(command.phase, Phase::Submitted, "one completion per request");
        self.in_flight -= 1;
        if matches!(self.state, State::Closing | State::Draining) {
            self.drop_command(key);
            self.release_queue();
            return;
        }
        self.progress = self.progress.max(cx.now);
        let status = nvme_status(completion.status);
        match completion.data {
            Data::Into(buf) if command.plan.work == Work::Reserve => {
                return self.finish_reserve(key, status, buf);
            }
            // A buffer that is filled again, or not at all.
            Data::Into(buf) if command.plan.work == Work::Verify || !status.is_success() => {
                command.segment = Segment::Filling(buf);
            }
            Data::Into(buf) => command.segment = Segment::Filled(buf.freeze()),
            Data::From(buf) => command.segment = Segment::Filled(buf),
            Data::None => (),
        }
        if let Fuse::Second { first } = command.fuse {
            return self.finish_pair(first, key, completion.status);
        }
        let more = io::has_more(command, status.is_success());
        if more && command.aborted {
            io::stop(command);
            return self.answer(key, NvmeStatus::again(StatusCode::ABORT_REQUESTED));
        }
        if more {
            command.phase = Phase::Ready;
            self.ready.push(key).expect("one entry per command");
            return;
        }
        self.answer(key, status);
    }

    /// A reservation command came back.
    fn finish_reserve(&mut self, key: u32, status: NvmeStatus, mut buf: BufMut) {
        let command = self.commands.get_mut(key).expect("a request in flight has its command");
        let done = match status.is_success() {
            true => reservation::finish(command, &mut buf),
            false => Err(status),
        };
        if done.is_ok() {
            match self.next_reserved(key, buf) {
                Some(left) => buf = left,
                None => return,
            }
        }
        let command = self.commands.get_mut(key).expect("a request in flight has its command");
        command.segment = match command.plan.transfer {
            Transfer::ToHost(_) if done.is_ok() => Segment::Filled(buf.freeze()),
            _ => Segment::Filling(buf),
        };
        match done {
            Ok(dw0) => self.answer_with(key, NvmeStatus::SUCCESS, dw0, 0),
            Err(status) => self.answer(key, status),
        }
    }

    /// Ends a command: its response is queued, its buffer kept only if it goes to the host.
    pub(crate) fn answer(&mut self, key: u32, status: NvmeStatus) {
        let more = self.note_end(key, status);
        let command = self.commands.get_mut(key).expect("answered commands exist");
        assert_ne!(command.phase, Phase::Done, "answered once");
        command.phase = Phase::Done;
        (command.status, command.more) = (status, more);
        let to_host = matches!(command.plan.transfer, Transfer::ToHost(_));
        if !(to_host && status.is_success()) {
            let segment = std::mem::take(&mut command.segment);
            self.held -= std::mem::take(&mut command.held);
            if command.reserved {
                // Devices keep no clone, so the buffer is unique again; or it is taken anew.
                self.reserve = match segment {
                    Segment::Filling(buf) => Some(buf),
                    Segment::Filled(buf) => buf.try_unique().ok(),
                    Segment::None => None,
                };
            }
        }
        self.outbox.push(Out::Done(key)).expect("one entry per command");
    }

    /// Ends a command with results in DW0 and DW1.
    pub(crate) fn answer_with(&mut self, key: u32, status: NvmeStatus, dw0: u32, dw1: u32) {
        let command = self.commands.get_mut(key).expect("answered commands exist");
        (command.dw0, command.dw1) = (dw0, dw1);
        self.answer(key, status);
    }

    /// Ends an admin command that wrote its data into its buffer.
    pub(crate) fn answer_filled(&mut self, key: u32) {
        let command = self.commands.get_mut(key).expect("answered commands exist");
        if let Segment::Filling(buf) = std::mem::take(&mut command.segment) {
            command.segment = Segment::Filled(buf.freeze());
        }
        self.answer(key, NvmeStatus::SUCCESS);
    }
}
