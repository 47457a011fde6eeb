//! How commands run: a buffer, a request or an answer, and the end.

use bdev::{Completion, Data, Fifo, Request, Tag};
use nvme_spec::{NvmeStatus, opcode};

use crate::NamespaceHandle;
use crate::command::{Phase, Segment, Transfer};
use crate::connection::{Connection, Cx};
use crate::io;
use crate::limits::TAG_COMMAND_BITS;
use crate::state::State;
use crate::status::nvme_status;
use crate::transmit::Out;

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
        } else if self.state == State::Io {
            return self.submit(key, requests);
        } else {
            self.execute_admin(cx, key);
        }
        true
    }

    /// Gives a command its buffer, and has it filled; false when there is none.
    fn give_buffer(&mut self, cx: Cx<'_>, key: u32) -> bool {
        let command = self.commands.get(key).expect("waiting commands exist");
        let (len, from_host) = match command.plan.transfer {
            Transfer::FromHost(len) => (len, true),
            Transfer::ToHost(len) => (len, false),
            Transfer::None => unreachable!("without data nothing waits for a buffer"),
        };
        let Some(buf) = self.take_buffer(cx, len as usize) else { return false };
        let command = self.commands.get_mut(key).expect("waiting commands exist");
        command.held = buf.capacity();
        command.segment = Segment::Filling(buf);
        if from_host {
            self.ask(cx, key, len);
        } else {
            self.ready.push(key).expect("one entry per command");
        }
        true
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
        let tag = Tag(self.index << TAG_COMMAND_BITS | key);
        let command = self.commands.get_mut(key).expect("ready commands exist");
        let Some(request) = io::next_request(command, tag) else {
            self.answer(key, NvmeStatus::SUCCESS);
            return true;
        };
        command.phase = Phase::Submitted;
        let handle = command.plan.handle;
        requests.push((handle, request)).expect("there was room");
        self.in_flight += 1;
        true
    }

    /// A request came back.
    pub(crate) fn finish_request(&mut self, cx: Cx<'_>, completion: Completion) {
        let key = completion.tag.0 & ((1 << TAG_COMMAND_BITS) - 1);
        let command = self.commands.get_mut(key).expect("a request in flight has its command");
        assert_eq!(command.phase, Phase::Submitted, "one completion per request");
        self.in_flight -= 1;
        if matches!(self.state, State::Closing | State::Draining) {
            self.drop_command(key);
            return;
        }
        self.progress = self.progress.max(cx.now);
        let status = nvme_status(command.plan.op, completion.status);
        match completion.data {
            Data::Into(buf) if status.is_success() => {
                command.segment = Segment::Filled(buf.freeze())
            }
            Data::From(buf) if command.reserved => command.segment = Segment::Filled(buf),
            _ => (),
        }
        if status.is_success() && io::has_more(command) {
            command.phase = Phase::Ready;
            self.ready.push(key).expect("one entry per command");
            return;
        }
        self.answer(key, status);
    }

    /// Ends a command: its response is queued, its buffer kept only if it goes to the host.
    pub(crate) fn answer(&mut self, key: u32, status: NvmeStatus) {
        let command = self.commands.get_mut(key).expect("answered commands exist");
        assert_ne!(command.phase, Phase::Done, "answered once");
        command.phase = Phase::Done;
        command.status = status;
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
