//! A hop to a volume that another shard owns: two rings, and a queue like any other.
//!
//! ```text
//!   shard A                                              shard B, the owner
//!   RemoteQueue --.                                  .--> namespace's own queue
//!   RemoteQueue --+-- LinkClient ==requests==> LinkServer
//!                      ^                             |
//!                      `======completions============'
//! ```
//!
//! There is one link for each ordered pair of shards; the volumes of a shard share it. Both rings
//! hold [`LINK_DEPTH`] messages and no more are ever in flight, so neither can overflow. Buffers
//! travel as [`Parcel`]s: the sole handle moves, nothing is copied. A buffer that has further
//! handles here (a payload that is also being sent elsewhere) is copied once.

use std::cell::RefCell;
use std::rc::Rc;

use bdev::ring::{Consumer, Producer, spsc};
use bdev::{
    Buf, Client, Completion, Data, Fifo, Flags, Lba, Op, Parcel, Pool, Queue, Request, Slots,
};
use bdev::{Status, Tag};
use nvmf::NamespaceHandle;

use crate::limits::{LINK_DEPTH, NAMESPACES_MAX};

/// A request on its way to the shard that owns the volume.
pub(crate) struct RemoteRequest {
    pub(crate) handle: NamespaceHandle,
    /// The client's slot; comes back.
    pub(crate) slot: u32,
    lba: Lba,
    blocks: u32,
    op: Op,
    flags: Flags,
    client: Client,
    parcel: Parcel,
}

impl RemoteRequest {
    /// The request as the owner submits it.
    pub(crate) fn into_request(self, tag: Tag) -> Request {
        let RemoteRequest { lba, blocks, op, flags, client, parcel, .. } = self;
        Request { lba, tag, blocks, data: parcel.unpack(), op, flags, client }
    }
}

struct RemoteCompletion {
    slot: u32,
    status: Status,
    parcel: Parcel,
}

/// Both ends of a link, to be carried to their shards.
pub(crate) fn link(wake_owner: Wake, wake_client: Wake) -> (LinkClientSeed, LinkServer) {
    let (request_tx, request_rx) = spsc(LINK_DEPTH);
    let (done_tx, done_rx) = spsc(LINK_DEPTH);
    let client = LinkClientSeed { tx: request_tx, rx: done_rx, wake: wake_owner };
    (client, LinkServer { rx: request_rx, tx: done_tx, wake: wake_client, pushed: false })
}

/// Wakes a shard that may be sleeping. Cheap when it is not.
pub(crate) type Wake = std::sync::Arc<dyn Fn() + Send + Sync>;

/// The client's end before it has reached its shard.
pub(crate) struct LinkClientSeed {
    tx: Producer<RemoteRequest>,
    rx: Consumer<RemoteCompletion>,
    wake: Wake,
}

impl LinkClientSeed {
    pub(crate) fn start(self, pool: Rc<Pool>) -> LinkClient {
        let LinkClientSeed { tx, rx, wake } = self;
        let (slots, ports) = (Slots::new(LINK_DEPTH), Slots::new(NAMESPACES_MAX));
        let inner = Inner { tx, rx, wake, pool, slots, ports, pushed: false };
        LinkClient { inner: Rc::new(RefCell::new(inner)) }
    }
}

/// The client's end: makes queues to the owner's volumes.
#[derive(Clone)]
pub(crate) struct LinkClient {
    inner: Rc<RefCell<Inner>>,
}

struct Inner {
    tx: Producer<RemoteRequest>,
    rx: Consumer<RemoteCompletion>,
    wake: Wake,
    pool: Rc<Pool>,
    /// Requests at the owner.
    slots: Slots<Outstanding>,
    ports: Slots<Port>,
    pushed: bool,
}

struct Outstanding {
    tag: Tag,
    port: u32,
    /// The original of a buffer that was copied for the journey.
    kept: Option<Buf>,
}

/// One [`RemoteQueue`]'s share of the link.
struct Port {
    done: Fifo<Completion>,
    /// Requests at the owner.
    away: u32,
    /// The queue was dropped: what comes back is dropped too.
    abandoned: bool,
}

impl LinkClient {
    /// A queue of `depth` to the volume that the owner calls `handle`; `None` when there are too
    /// many.
    pub(crate) fn open(&self, handle: NamespaceHandle, depth: u32) -> Option<RemoteQueue> {
        let depth = depth as usize;
        let port = Port { done: Fifo::new(depth), away: 0, abandoned: false };
        let port = self.inner.borrow_mut().ports.insert(port).ok()?;
        let staged = Fifo::new(depth);
        Some(RemoteQueue { link: self.clone(), handle, port, depth, staged })
    }
}

/// One shard's queue to a volume of another.
pub(crate) struct RemoteQueue {
    link: LinkClient,
    handle: NamespaceHandle,
    port: u32,
    depth: usize,
    /// Taken, not yet on the link.
    staged: Fifo<Request>,
}

impl RemoteQueue {
    fn len(&self) -> usize {
        let inner = self.link.inner.borrow();
        let port = inner.ports.get(self.port).expect("ports live as long as their queues");
        self.staged.len() + port.away as usize + port.done.len()
    }
}

impl Queue for RemoteQueue {
    fn submit(&mut self, requests: &mut Fifo<Request>) {
        let room = self.depth - self.len();
        for _ in 0..room {
            let Some(request) = requests.pop() else { return };
            self.staged.push(request).expect("staged holds a whole queue");
        }
    }

    fn kick(&mut self) {
        let mut inner = self.link.inner.borrow_mut();
        while let Some(request) = self.staged.pop() {
            if let Err(request) = inner.send(self.handle, self.port, request) {
                self.staged.push_front(request).expect("it was just taken out");
                break;
            }
        }
        if std::mem::take(&mut inner.pushed) {
            (inner.wake)();
        }
    }

    fn poll(&mut self, completions: &mut Fifo<Completion>) {
        // What the link had no slot or buffer for goes out as others come back.
        if !self.staged.is_empty() {
            self.kick();
        }
        let mut inner = self.link.inner.borrow_mut();
        inner.collect();
        let port = inner.ports.get_mut(self.port).expect("ports live as long as their queues");
        while !completions.is_full() {
            let Some(completion) = port.done.pop() else { return };
            completions.push(completion).expect("room was checked");
        }
    }

    fn in_flight(&self) -> u32 {
        u32::try_from(self.len()).expect("bounded by the depth")
    }
}

impl Drop for RemoteQueue {
    fn drop(&mut self) {
        let mut inner = self.link.inner.borrow_mut();
        let port = inner.ports.get_mut(self.port).expect("dropped once");
        port.abandoned = true;
        if port.away == 0 {
            inner.ports.remove(self.port);
        }
    }
}

impl Inner {
    fn send(
        &mut self,
        handle: NamespaceHandle,
        port: u32,
        request: Request,
    ) -> Result<(), Request> {
        if self.slots.is_full() {
            return Err(request);
        }
        let Request { lba, tag, blocks, data, op, flags, client } = request;
        let (parcel, kept) = match self.pack(data) {
            Ok(packed) => packed,
            Err(data) => return Err(Request { lba, tag, blocks, data, op, flags, client }),
        };
        let slot = self.slots.insert(Outstanding { tag, port, kept });
        let slot = slot.ok().expect("room was checked");
        let remote = RemoteRequest { handle, slot, lba, blocks, op, flags, client, parcel };
        assert!(self.tx.push(remote).is_ok(), "the ring has a cell for each slot");
        self.ports.get_mut(port).expect("its queue is sending").away += 1;
        self.pushed = true;
        Ok(())
    }

    /// The data as a parcel, and the original where it had to be copied. No buffer free: as it was.
    fn pack(&self, data: Data) -> Result<(Parcel, Option<Buf>), Data> {
        match Parcel::pack(data) {
            Ok(parcel) => Ok((parcel, None)),
            Err(Data::From(shared)) => {
                let bytes = shared.bytes();
                let Some(mut copy) = self.pool.take(bytes.len()) else {
                    return Err(Data::From(shared));
                };
                copy.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
                let parcel = Parcel::pack(Data::From(copy.freeze()));
                Ok((parcel.expect("a fresh segment has one handle"), Some(shared)))
            }
            Err(data) => Err(data),
        }
    }

    /// Sorts what has come back to its queues.
    fn collect(&mut self) {
        while let Some(RemoteCompletion { slot, status, parcel }) = self.rx.pop() {
            let back = self.slots.remove(slot).expect("the owner answers each request once");
            let data = match back.kept {
                Some(original) => Data::From(original),
                None => parcel.unpack(),
            };
            let port = self.ports.get_mut(back.port).expect("ports wait for their requests");
            port.away -= 1;
            if !port.abandoned {
                let completion = Completion { tag: back.tag, data, status };
                port.done.push(completion).expect("a queue has room for its depth");
            } else if port.away == 0 {
                self.ports.remove(back.port);
            }
        }
    }
}

/// The owner's end.
pub(crate) struct LinkServer {
    rx: Consumer<RemoteRequest>,
    tx: Producer<RemoteCompletion>,
    wake: Wake,
    pushed: bool,
}

impl LinkServer {
    pub(crate) fn pop(&mut self) -> Option<RemoteRequest> {
        self.rx.pop()
    }

    /// Sends an answer back. Its buffer is unshared, as every device leaves it.
    pub(crate) fn answer(&mut self, slot: u32, data: Data, status: Status) {
        let parcel = Parcel::pack(data).expect("a device keeps no clone of a completed buffer");
        let done = RemoteCompletion { slot, status, parcel };
        // The client may be gone (shut-down): its buffers then go home by being dropped.
        let pushed = self.tx.push(done);
        assert!(pushed.is_ok() || self.tx.is_abandoned(), "the ring has a cell for each slot");
        self.pushed = true;
    }

    /// Wakes the client if it has something to collect.
    pub(crate) fn kick(&mut self) {
        if std::mem::take(&mut self.pushed) {
            (self.wake)();
        }
    }
}

#[cfg(test)]
mod tests;
