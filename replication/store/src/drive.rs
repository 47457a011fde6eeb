//! Running a machine to its end over a queue that nobody else uses.

use bdev::{Buffers, Completion, Fifo, Queue, Request};

use crate::{Format, Mount, Store};

/// What all machines of this crate have in common.
pub trait Machine {
    /// Appends the requests that are due.
    fn poll_requests(&mut self, requests: &mut Fifo<Request>, pool: &dyn Buffers);
    /// Takes the end of a request.
    fn on_completion(&mut self, completion: Completion);
}

/// One turn: requests out, completions in. For format, mount and tests, where the machine has the
/// queue to itself; a shard multiplexes instead. Returns how many completions came in.
pub fn turn(machine: &mut dyn Machine, queue: &mut dyn Queue, pool: &dyn Buffers) -> usize {
    let mut requests = Fifo::new(TURN_REQUESTS);
    let mut completions = Fifo::new(TURN_REQUESTS);
    machine.poll_requests(&mut requests, pool);
    let mut done = 0;
    while !requests.is_empty() || queue.in_flight() > 0 {
        queue.submit(&mut requests);
        queue.kick();
        queue.poll(&mut completions);
        while let Some(completion) = completions.pop() {
            machine.on_completion(completion);
            done += 1;
        }
    }
    done
}

const TURN_REQUESTS: usize = 64;

impl Machine for Store {
    fn poll_requests(&mut self, requests: &mut Fifo<Request>, pool: &dyn Buffers) {
        Store::poll_requests(self, requests, pool);
    }

    fn on_completion(&mut self, completion: Completion) {
        Store::on_completion(self, completion);
    }
}

impl Machine for Mount {
    fn poll_requests(&mut self, requests: &mut Fifo<Request>, pool: &dyn Buffers) {
        Mount::poll_requests(self, requests, pool);
    }

    fn on_completion(&mut self, completion: Completion) {
        Mount::on_completion(self, completion);
    }
}

impl Machine for Format {
    fn poll_requests(&mut self, requests: &mut Fifo<Request>, pool: &dyn Buffers) {
        Format::poll_requests(self, requests, pool);
    }

    fn on_completion(&mut self, completion: Completion) {
        Format::on_completion(self, completion);
    }
}
