//! The polled initiator: a controller of a target and its I/O queues, each a [`bdev::Queue`].
//!
//! ```text
//!  NamespaceQueue --.                         .-- lane 0: admin queue
//!  NamespaceQueue --+-- hub (one dyn Net) ----+-- lane 1: I/O queue 1
//!                                             `-- lane n: I/O queue n
//! ```
//!
//! All lanes share one thread's sockets, so that a round over many queues costs one system call:
//! `kick` hands bytes to the sockets, and the next `poll` of any lane makes them visible.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use bdev::{Completion, Fifo, Instant, Pool, Queue, Request, Rng, Status};
use net::{CloseReason, Net};
use nvme_spec::{NvmeStatus, StatusCode};
use nvmf::initiator::{
    Admin, AdminInfo, Failure, HostIdentity, Initiator, NamespaceInfo, QueueOptions,
};
use nvmf::{Digests, HostId, Nqn};
use thiserror::Error;

use crate::hub::{Hub, Machine};
use crate::limits::{CONNECT_TIMEOUT, JOBS_MAX};

/// Block sizes that make sense: 512 bytes to 64 KiB.
const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 512..=65_536;

/// Who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// HOSTNQN: what an allow list names.
    pub nqn: Nqn,
    /// HOSTID: the same for the same name.
    pub id: HostId,
}

impl Host {
    /// The host that measures when nobody says otherwise. It holds no reservation and needs no
    /// secret.
    ///
    /// # Panics
    /// Never: it is a constant name.
    pub fn bench() -> Host {
        let nqn = "nqn.2014-08.org.nvmexpress:uuid:68667462-656e-4368-8000-000000000001";
        Host {
            nqn: Nqn::new(nqn).expect("a constant name"),
            id: HostId(*b"hftbench\x80\0\0\0\0\0\0\x01"),
        }
    }

    /// The host of this name. Its identifier is the UUID in the name, or is made from the name.
    pub fn named(nqn: Nqn) -> Host {
        let own = Host::bench();
        if nqn == own.nqn {
            return own;
        }
        let id = uuid_in(nqn.as_str()).unwrap_or_else(|| digest(nqn.as_str()));
        Host { nqn, id: HostId(id) }
    }

    pub(crate) fn identity(self, subnqn: Nqn) -> HostIdentity {
        HostIdentity { hostnqn: self.nqn, hostid: self.id, subnqn }
    }
}

/// The UUID that a name of the UUID form ends with.
fn uuid_in(nqn: &str) -> Option<[u8; 16]> {
    let text = nqn.strip_prefix("nqn.2014-08.org.nvmexpress:uuid:")?;
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let digits = std::str::from_utf8(&digits).ok().filter(|digits| digits.len() == 32)?;
    u128::from_str_radix(digits, 16).ok().map(u128::to_be_bytes)
}

/// An identifier that follows from a name.
fn digest(nqn: &str) -> [u8; 16] {
    // FNV-1a: whoever has the same name is the same host, and that is all that it must say.
    let seed = nqn.bytes().fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut id = [0; 16];
    Rng::new(seed).fill(&mut id);
    id
}

/// What to connect to, and how.
#[derive(Clone, Copy, Debug)]
pub struct Destination {
    /// Where the target listens.
    pub address: SocketAddr,
    /// NQN of the subsystem.
    pub subsystem: Nqn,
    /// The namespace; `None` for the first that there is.
    pub nsid: Option<u32>,
    /// Who connects.
    pub host: Host,
    /// I/O queues: 1 to [`JOBS_MAX`].
    pub queues: u16,
    /// Digests on all connections.
    pub digests: Digests,
}

impl Destination {
    /// One I/O queue of [`Host::bench`] to the first namespace, without digests.
    pub fn new(address: SocketAddr, subsystem: Nqn) -> Destination {
        let (host, digests) = (Host::bench(), Digests::default());
        Destination { address, subsystem, nsid: None, host, queues: 1, digests }
    }
}

/// Why a target could not be connected to.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The sockets refused.
    #[error("{0}")]
    Net(#[from] net::NetError),
    /// The target did.
    #[error("connecting queue {qid}: {}", explain(*failure))]
    Failed {
        /// 0 is the admin queue.
        qid: u16,
        /// Why.
        failure: Failure,
    },
    /// The target refused a command that is needed.
    #[error("{what}: {}", status(*answer))]
    Command {
        /// What was asked for.
        what: &'static str,
        /// What the target answered.
        answer: NvmeStatus,
    },
    /// The connection could not be had, or ended.
    #[error("connecting queue {qid}: {reason}")]
    Closed {
        /// 0 is the admin queue.
        qid: u16,
        /// Why.
        reason: CloseReason,
    },
    /// The target grants fewer I/O queues.
    #[error("the target grants {granted} I/O queues of {asked}")]
    Queues {
        /// How many were asked for.
        asked: u16,
        /// How many there are.
        granted: u16,
    },
    /// The target did not answer in time.
    #[error("the target did not answer for {CONNECT_TIMEOUT:?}")]
    TimedOut,
    /// The subsystem has no such namespace for this host.
    #[error("the subsystem has no namespace{}", numbered(*nsid))]
    NoNamespace {
        /// The one that was asked for; `None` for any.
        nsid: Option<u32>,
    },
    /// The namespace has blocks of an impossible size.
    #[error("namespace {nsid} has blocks of {bytes} bytes")]
    BlockSize {
        /// The namespace.
        nsid: u32,
        /// What the target said.
        bytes: u32,
    },
    /// The pool has no receive segment left.
    #[error("no buffer is free for a connection")]
    Buffers,
}

impl ConnectError {
    /// Whether the target says that this host may not connect.
    pub fn refuses_host(&self) -> bool {
        let ConnectError::Failed { failure: Failure::Refused { status, .. }, .. } = self else {
            return false;
        };
        status.code == StatusCode::CONNECT_INVALID_HOST
    }
}

/// The namespace that was asked for, behind a noun.
fn numbered(nsid: Option<u32>) -> String {
    nsid.map_or(String::new(), |nsid| format!(" {nsid}"))
}

/// What a failure means to somebody who reads it.
fn explain(failure: Failure) -> String {
    match failure {
        Failure::Closed => "the target closed the connection".to_owned(),
        Failure::Refused { status: answer, .. } => status(answer),
        Failure::Protocol(what) => format!("the target does not speak NVMe/TCP: {what}"),
        Failure::Terminated(fes, fei) => {
            format!("the target ended the connection (FES {fes:#x}, FEI {fei:#x})")
        }
        other => format!("{other:?}"),
    }
}

fn status(answer: NvmeStatus) -> String {
    let meaning = match answer.code {
        StatusCode::CONNECT_INVALID_HOST => "this host is not allowed to connect",
        StatusCode::CONNECT_INVALID_PARAMETERS => "there is no such subsystem at this address",
        StatusCode::CONNECT_CONTROLLER_BUSY => "the target has no controller left",
        StatusCode::AUTHENTICATION_REQUIRED => "the target asks for authentication",
        _ => "refused",
    };
    format!("{meaning} ({:?})", answer.code)
}

/// A connected controller. Dropping it and its queues closes the connections.
pub struct Client {
    hub: Rc<RefCell<Hub>>,
    info: AdminInfo,
    namespace: NamespaceInfo,
    queues: u16,
}

impl Client {
    /// Connects the admin queue and then all I/O queues. `idle` is called while there is nothing to
    /// do but wait: it returns the time, and lets a test turn the target.
    ///
    /// # Errors
    /// See [`ConnectError`].
    ///
    /// # Panics
    /// When the number of queues is zero or beyond [`JOBS_MAX`].
    pub fn connect(
        net: Box<dyn Net>,
        pool: Rc<Pool>,
        destination: &Destination,
        idle: &mut dyn FnMut() -> Instant,
    ) -> Result<Client, ConnectError> {
        let Destination { address, queues: asked, nsid, digests, .. } = *destination;
        assert!(asked > 0 && u32::from(asked) <= JOBS_MAX);
        let identity = destination.host.identity(destination.subsystem);
        let options = QueueOptions { digests, ..QueueOptions::admin(identity) };
        let mut hub = Hub::new(net, pool, usize::from(asked) + 1);
        hub.add(address, Machine::Admin(Box::new(Admin::new(options, asked))))?;
        let info = hub.bring_up(idle, |hub| hub.admin_info())?;
        if info.io_queues < asked {
            return Err(ConnectError::Queues { asked, granted: info.io_queues });
        }
        let namespace = chosen(&info, nsid)?;
        for qid in 1..=asked {
            let in_capsule_max = options.in_capsule_max.min(info.in_capsule_max);
            let io = QueueOptions::io(identity, info.cntlid, qid);
            let options = QueueOptions { digests, in_capsule_max, ..io };
            hub.add(address, Machine::Io(Box::new(Initiator::new(options))))?;
        }
        hub.bring_up(idle, |hub| hub.all_ready().then_some(()))?;
        Ok(Client { hub: Rc::new(RefCell::new(hub)), info, namespace, queues: asked })
    }

    /// The namespace that the queues lead to.
    pub fn namespace(&self) -> NamespaceInfo {
        self.namespace
    }

    /// What the controller said of itself.
    pub fn info(&self) -> &AdminInfo {
        &self.info
    }

    /// I/O queue `number`, from zero. Each is to be taken once.
    ///
    /// # Panics
    /// When there is no such queue.
    pub fn queue(&self, number: u16) -> Box<dyn Queue> {
        assert!(number < self.queues);
        let lane = usize::from(number) + 1;
        let NamespaceInfo { nsid, block_size, .. } = self.namespace;
        Box::new(NamespaceQueue { hub: Rc::clone(&self.hub), lane, nsid, block_size })
    }
}

/// The namespace that was asked for.
fn chosen(info: &AdminInfo, nsid: Option<u32>) -> Result<NamespaceInfo, ConnectError> {
    let mut all = info.namespaces.iter();
    let found = all.find(|found| nsid.is_none_or(|nsid| nsid == found.nsid));
    let found = *found.ok_or(ConnectError::NoNamespace { nsid })?;
    let NamespaceInfo { nsid, block_size: bytes, .. } = found;
    if !bytes.is_power_of_two() || !BLOCK_SIZES.contains(&bytes) {
        return Err(ConnectError::BlockSize { nsid, bytes });
    }
    Ok(found)
}

struct NamespaceQueue {
    hub: Rc<RefCell<Hub>>,
    lane: usize,
    nsid: u32,
    block_size: u32,
}

impl Queue for NamespaceQueue {
    fn submit(&mut self, requests: &mut Fifo<Request>) {
        let lane = &mut self.hub.borrow_mut().lanes[self.lane];
        if lane.closed.is_none() && lane.machine.failure().is_none() {
            lane.machine.initiator().submit(self.nsid, self.block_size, requests);
            return;
        }
        while !lane.done.is_full()
            && let Some(request) = requests.pop()
        {
            let pushed = lane.done.push(request.complete(Status::Gone));
            assert!(pushed.is_ok(), "room was checked");
        }
    }

    fn kick(&mut self) {
        self.hub.borrow_mut().flush(self.lane);
    }

    fn poll(&mut self, completions: &mut Fifo<Completion>) {
        let mut hub = self.hub.borrow_mut();
        hub.turn();
        hub.lanes[self.lane].collect(completions);
    }

    fn in_flight(&self) -> u32 {
        let lane = &mut self.hub.borrow_mut().lanes[self.lane];
        let held = lane.machine.initiator().in_flight() + lane.done.len();
        u32::try_from(held).expect("bounded by the depth")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_follow_from_names() {
        let host = |nqn| Host::named(Nqn::new(nqn).unwrap());
        let uuid = host("nqn.2014-08.org.nvmexpress:uuid:00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(uuid.id.0[..4], [0x00, 0x11, 0x22, 0x33]);
        let named = host("nqn.2026-11.io.example:h");
        assert_eq!(named, host("nqn.2026-11.io.example:h"));
        assert_ne!(named.id, host("nqn.2026-11.io.example:i").id);
        assert_eq!(Host::named(Host::bench().nqn), Host::bench());
    }

    #[test]
    fn impossible_namespaces_are_refused() {
        let with = |block_size| {
            let namespace = NamespaceInfo { nsid: 3, block_size, blocks: 8, nguid: [0; 16] };
            AdminInfo { namespaces: vec![namespace], ..AdminInfo::default() }
        };
        assert!(chosen(&with(512), None).is_ok());
        assert!(chosen(&with(4096), Some(3)).is_ok());
        assert!(matches!(chosen(&with(512), Some(1)), Err(ConnectError::NoNamespace { .. })));
        for bytes in [0, 1, 256, 520, 1 << 31] {
            let refused = chosen(&with(bytes), None);
            assert!(matches!(refused, Err(ConnectError::BlockSize { .. })), "{bytes}");
        }
    }
}
