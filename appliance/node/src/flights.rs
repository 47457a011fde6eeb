//! Every command that a shard has accepted and not answered, in a slot of its own.
//!
//! A command's slot is its tag: connections number theirs by connection and command, links from
//! other shards by link and slot. A request that its device queue cannot take yet waits right
//! there, in a list threaded through the slots: nothing that a peer may have in flight can overflow
//! anything, and a full volume holds up no other.

use bdev::{Instant, Op, Request, Tag};

use crate::limits::{COMMANDS_PER_CONNECTION, LINK_DEPTH};

/// Who waits for a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A connection of this shard.
    Connection(u32),
    /// A slot of the link from another shard.
    Link { link: usize, slot: u32 },
}

pub(crate) struct Flights {
    slots: Box<[Flight]>,
    links_from: usize,
}

pub(crate) struct Flight {
    pub(crate) started: Instant,
    pub(crate) bytes: u32,
    pub(crate) op: Op,
    pub(crate) handle: u32,
    /// The era of its namespace in which it was placed.
    pub(crate) era: u8,
    pub(crate) busy: bool,
    parked: Option<Request>,
    next: u32,
}

/// A list of parked requests, oldest first.
#[derive(Debug)]
pub(crate) struct Parked {
    head: u32,
    tail: u32,
    len: u32,
}

const NONE: u32 = u32::MAX;

impl Flights {
    pub(crate) fn new(connections: usize, links: usize) -> Flights {
        let links_from = connections * COMMANDS_PER_CONNECTION;
        let empty = || Flight {
            started: Instant::ZERO,
            bytes: 0,
            op: Op::Flush,
            handle: 0,
            era: 0,
            busy: false,
            parked: None,
            next: NONE,
        };
        let slots = (0..links_from + links * LINK_DEPTH).map(|_| empty()).collect();
        Flights { slots, links_from }
    }

    /// The tag of a request that came over a link.
    pub(crate) fn link_tag(&self, link: usize, slot: u32) -> Tag {
        let index = self.links_from + link * LINK_DEPTH + slot as usize;
        Tag(u32::try_from(index).expect("limits keep every slot below 32 bits"))
    }

    pub(crate) fn origin(&self, tag: Tag) -> Origin {
        let index = tag.0 as usize;
        match index.checked_sub(self.links_from) {
            None => Origin::Connection(nvmf::Connection::index_of(tag)),
            Some(index) => Origin::Link {
                link: index / LINK_DEPTH,
                slot: u32::try_from(index % LINK_DEPTH).expect("below LINK_DEPTH"),
            },
        }
    }

    /// A command starts.
    pub(crate) fn start(
        &mut self,
        handle: u32,
        era: u8,
        request: &Request,
        bytes: u32,
        now: Instant,
    ) {
        let flight = &mut self.slots[request.tag.0 as usize];
        assert!(!flight.busy, "a tag in flight is not used again");
        flight.busy = true;
        flight.started = now;
        flight.bytes = bytes;
        flight.op = request.op;
        (flight.handle, flight.era) = (handle, era);
    }

    /// A command ends.
    pub(crate) fn end(&mut self, tag: Tag) -> &Flight {
        let flight = &mut self.slots[tag.0 as usize];
        assert!(flight.busy, "a command completes once");
        flight.busy = false;
        flight
    }
}

impl Parked {
    pub(crate) fn new() -> Parked {
        Parked { head: NONE, tail: NONE, len: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn push(&mut self, flights: &mut Flights, request: Request) {
        let index = request.tag.0;
        let flight = &mut flights.slots[index as usize];
        assert!(flight.busy && flight.parked.is_none());
        flight.parked = Some(request);
        flight.next = NONE;
        match self.tail {
            NONE => self.head = index,
            tail => flights.slots[tail as usize].next = index,
        }
        self.tail = index;
        self.len += 1;
    }

    pub(crate) fn pop(&mut self, flights: &mut Flights) -> Option<Request> {
        if self.head == NONE {
            return None;
        }
        let flight = &mut flights.slots[self.head as usize];
        let request = flight.parked.take().expect("listed requests are parked");
        self.head = flight.next;
        if self.head == NONE {
            self.tail = NONE;
        }
        self.len -= 1;
        Some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parked_requests_leave_in_order() {
        let mut flights = Flights::new(1, 1);
        let mut parked = Parked::new();
        for round in 0..3 {
            let tags = [Tag(5 + round), Tag(1), flights.link_tag(0, 7)];
            for tag in tags {
                let request = Request::flush(tag);
                flights.start(0, 0, &request, 0, Instant::ZERO);
                parked.push(&mut flights, request);
            }
            let order: Vec<Tag> =
                std::iter::from_fn(|| parked.pop(&mut flights)).map(|r| r.tag).collect();
            assert_eq!(order, tags);
            assert!(parked.is_empty());
            for tag in tags {
                flights.end(tag);
            }
        }
    }

    #[test]
    fn tags_name_their_origin() {
        let flights = Flights::new(2, 3);
        assert_eq!(flights.origin(Tag(0x1ff)), Origin::Connection(1));
        for (link, slot) in [(0, 0), (2, 511)] {
            assert_eq!(flights.origin(flights.link_tag(link, slot)), Origin::Link { link, slot });
        }
    }
}
