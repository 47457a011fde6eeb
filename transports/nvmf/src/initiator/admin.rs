//! An admin queue that takes the steps a host takes before its first I/O, and stays alive.

use std::time::Duration;

use bdev::{Data, Instant, Pool, Tag};
use nvme_spec::property::{self, cc, csts};
use nvme_spec::{
    IdentifyController, IdentifyNamespace, NamespaceList, NvmeStatus, PropertyGetSqe,
    PropertySetSqe, Sqe, U32, U64, cns, csi, feature, oaes, opcode,
};
use zerocopy::{FromBytes, FromZeros};

use super::queue::{Failure, HostCommand, HostResponse, Initiator, QueueOptions};
use crate::limits::NAMESPACES_MAX;

/// What a host learns of a controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminInfo {
    /// CNTLID.
    pub cntlid: u16,
    /// I/O queues that were granted.
    pub io_queues: u16,
    /// Bytes of data in an I/O command capsule.
    pub in_capsule_max: u32,
    /// Bytes of the largest transfer.
    pub transfer_max: u64,
    /// Active namespaces, in the order of their NSIDs.
    pub namespaces: Vec<NamespaceInfo>,
}

/// What a host learns of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// NSID.
    pub nsid: u32,
    /// Bytes in a logical block.
    pub block_size: u32,
    /// Logical blocks.
    pub blocks: u64,
    /// NGUID.
    pub nguid: [u8; 16],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Connect,
    GetCap,
    SetCc,
    GetCsts,
    IdentifyController,
    SetQueues,
    SetEvents,
    ListNamespaces,
    IdentifyNamespace(usize),
    Ready,
}

const TAG_STEP: Tag = Tag(1);
const TAG_KEEP_ALIVE: Tag = Tag(2);
const TAG_EVENT: Tag = Tag(3);
const PAGE: u32 = 4096;

/// An admin queue and its bring-up. Drive the connection through [`Admin::queue_mut`] and call
/// [`Admin::poll`] each turn.
#[derive(Debug)]
pub struct Admin {
    queue: Initiator,
    kato_ms: u32,
    io_queues: u16,
    step: Step,
    waiting: bool,
    event_waiting: bool,
    event: Option<u32>,
    failed: Option<NvmeStatus>,
    nsids: Vec<u32>,
    info: AdminInfo,
    alive_at: Instant,
}

impl Admin {
    /// A closed admin queue that will ask for `io_queues` I/O queues.
    ///
    /// # Panics
    /// When the options are not those of an admin queue.
    pub fn new(options: QueueOptions, io_queues: u16) -> Admin {
        assert!(options.qid == 0 && io_queues > 0);
        Admin {
            queue: Initiator::new(options),
            kato_ms: options.kato_ms,
            io_queues,
            step: Step::Connect,
            waiting: false,
            event_waiting: false,
            event: None,
            failed: None,
            nsids: Vec::with_capacity(NAMESPACES_MAX as usize),
            info: AdminInfo::default(),
            alive_at: Instant::ZERO,
        }
    }

    /// Starts on a fresh TCP connection. False when the pool is exhausted.
    pub fn open(&mut self, pool: &Pool) -> bool {
        self.step = Step::Connect;
        (self.waiting, self.event_waiting) = (false, false);
        (self.event, self.failed) = (None, None);
        self.queue.open(pool)
    }

    /// The queue below, to move its bytes.
    pub fn queue_mut(&mut self) -> &mut Initiator {
        &mut self.queue
    }

    /// What was learned, once all steps are done.
    pub fn info(&self) -> Option<&AdminInfo> {
        (self.step == Step::Ready).then_some(&self.info)
    }

    /// The status that a step failed with, or what ended the connection.
    pub fn failure(&self) -> Option<Failure> {
        let refused = self.failed.map(|status| Failure::Refused { status, dw0: 0 });
        self.queue.failure().or(refused)
    }

    /// DW0 of the last asynchronous event; [`Admin::rescan`] reads the namespaces again.
    pub fn take_event(&mut self) -> Option<u32> {
        self.event.take()
    }

    /// Reads the list of namespaces again.
    pub fn rescan(&mut self) {
        if self.step == Step::Ready {
            self.step = Step::ListNamespaces;
        }
    }

    /// When the next keep alive is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        (self.step == Step::Ready && self.kato_ms > 0).then_some(self.alive_at)
    }

    /// Takes answers and the next step. Call it each turn.
    pub fn poll(&mut self, pool: &Pool, now: Instant) {
        while let Some(response) = self.queue.poll_response() {
            self.on_response(&response);
        }
        if !self.queue.is_ready() || self.failed.is_some() {
            return;
        }
        if self.step == Step::Connect {
            self.info.cntlid = self.queue.cntlid();
            self.step = Step::GetCap;
            self.alive_at = now;
        }
        if self.step == Step::Ready {
            self.stay(now);
        } else if !self.waiting && self.queue.room() > 0 {
            self.take_step(pool);
        }
    }

    /// Keeps the controller alive, and a request for events outstanding.
    fn stay(&mut self, now: Instant) {
        if self.kato_ms > 0 && now >= self.alive_at && self.queue.room() > 1 {
            let half = Duration::from_millis(u64::from(self.kato_ms) / 2);
            self.alive_at = now.saturating_add(half);
            self.send(TAG_KEEP_ALIVE, sqe_of(opcode::admin::KEEP_ALIVE), Data::None, 0);
        }
        if !self.event_waiting && self.queue.room() > 1 {
            self.event_waiting = true;
            self.send(TAG_EVENT, sqe_of(opcode::admin::ASYNC_EVENT), Data::None, 0);
        }
    }

    fn take_step(&mut self, pool: &Pool) {
        let (sqe, len) = self.command();
        let mut data = Data::None;
        if len > 0 {
            let Some(buf) = pool.take(len as usize) else { return };
            data = Data::Into(buf);
        }
        self.waiting = true;
        self.send(TAG_STEP, sqe, data, len);
    }

    fn send(&mut self, tag: Tag, sqe: Sqe, data: Data, len: u32) {
        let command = HostCommand { tag, sqe, data, len };
        self.queue.submit_command(command).expect("room was checked");
    }

    /// The command of the current step, and the bytes it brings.
    fn command(&self) -> (Sqe, u32) {
        match self.step {
            Step::GetCap => (property_get(property::CAP, 1), 0),
            Step::SetCc => (property_set_cc(), 0),
            Step::GetCsts => (property_get(property::CSTS, 0), 0),
            Step::IdentifyController => (identify(cns::CONTROLLER, 0), PAGE),
            Step::SetQueues => {
                let count = u32::from(self.io_queues - 1);
                (set_feature(feature::NUMBER_OF_QUEUES, count << 16 | count), 0)
            }
            Step::SetEvents => {
                (set_feature(feature::ASYNC_EVENT_CONFIG, oaes::NAMESPACE_ATTRIBUTE), 0)
            }
            Step::ListNamespaces => (identify(cns::ACTIVE_NAMESPACES, 0), PAGE),
            Step::IdentifyNamespace(i) => (identify(cns::NAMESPACE, self.nsids[i]), PAGE),
            Step::Connect | Step::Ready => unreachable!("these steps send nothing"),
        }
    }

    fn on_response(&mut self, response: &HostResponse) {
        let status = response.cqe.nvme_status();
        match response.tag {
            TAG_STEP => {
                self.waiting = false;
                if status.is_success() {
                    self.on_step(response);
                } else {
                    self.failed = Some(status);
                }
            }
            TAG_EVENT => {
                self.event_waiting = false;
                if status.is_success() {
                    self.event = Some(response.cqe.dw0.get());
                }
            }
            _ => (),
        }
    }

    fn on_step(&mut self, response: &HostResponse) {
        let page: &[u8] = match &response.data {
            Data::Into(buf) => buf.bytes(),
            _ => &[],
        };
        let dw0 = response.cqe.dw0.get();
        self.step = match self.step {
            Step::GetCap => Step::SetCc,
            Step::SetCc => Step::GetCsts,
            Step::GetCsts if dw0 & csts::RDY == 0 => Step::GetCsts,
            Step::GetCsts => Step::IdentifyController,
            Step::IdentifyController => {
                let id = IdentifyController::ref_from_prefix(page).expect("a whole page").0;
                self.info.in_capsule_max = (id.ioccsz.get() * 16).saturating_sub(64);
                self.info.transfer_max = transfer_max(id.mdts);
                Step::SetQueues
            }
            Step::SetQueues => {
                let granted = u16::try_from(dw0 & 0xffff).expect("masked") + 1;
                self.info.io_queues = granted.min(self.io_queues);
                Step::SetEvents
            }
            Step::SetEvents => Step::ListNamespaces,
            Step::ListNamespaces => {
                let list = NamespaceList::ref_from_prefix(page).expect("a whole page").0;
                let nsids = list.nsid.iter().map(|nsid| nsid.get()).take_while(|&nsid| nsid > 0);
                self.nsids.clear();
                self.nsids.extend(nsids.take(NAMESPACES_MAX as usize));
                self.info.namespaces.clear();
                self.next_namespace(0)
            }
            Step::IdentifyNamespace(i) => {
                let id = IdentifyNamespace::ref_from_prefix(page).expect("a whole page").0;
                let format = id.lbaf[usize::from(id.flbas & 0x0f)];
                let block_size = 1u32.checked_shl(u32::from(format.lbads)).unwrap_or(0);
                let (nsid, blocks) = (self.nsids[i], id.nsze.get());
                let info = NamespaceInfo { nsid, block_size, blocks, nguid: id.nguid };
                self.info.namespaces.push(info);
                self.next_namespace(i + 1)
            }
            step @ (Step::Connect | Step::Ready) => step,
        };
    }

    fn next_namespace(&self, i: usize) -> Step {
        if i < self.nsids.len() { Step::IdentifyNamespace(i) } else { Step::Ready }
    }
}

/// Bytes of the largest transfer: MDTS is a power of two in pages of 4 KiB, and zero is no limit.
fn transfer_max(mdts: u8) -> u64 {
    match mdts {
        0 => u64::MAX,
        mdts => 1u64.checked_shl(u32::from(mdts) + 12).unwrap_or(u64::MAX),
    }
}

fn sqe_of(opcode: u8) -> Sqe {
    let mut sqe = Sqe::new_zeroed();
    sqe.opcode = opcode;
    sqe
}

fn identify(cns: u8, nsid: u32) -> Sqe {
    let mut sqe = sqe_of(opcode::admin::IDENTIFY);
    sqe.nsid = U32::new(nsid);
    sqe.cdw10 = U32::new(u32::from(cns));
    sqe.cdw11 = U32::new(u32::from(csi::NVM) << 24);
    sqe
}

fn set_feature(fid: u8, value: u32) -> Sqe {
    let mut sqe = sqe_of(opcode::admin::SET_FEATURES);
    sqe.cdw10 = U32::new(u32::from(fid));
    sqe.cdw11 = U32::new(value);
    sqe
}

fn property_get(offset: u32, size: u8) -> Sqe {
    let mut sqe = PropertyGetSqe::new_zeroed();
    sqe.opcode = opcode::FABRICS;
    sqe.fctype = opcode::fctype::PROPERTY_GET;
    sqe.attrib = size;
    sqe.offset = U32::new(offset);
    zerocopy::transmute!(sqe)
}

fn property_set_cc() -> Sqe {
    let mut sqe = PropertySetSqe::new_zeroed();
    sqe.opcode = opcode::FABRICS;
    sqe.fctype = opcode::fctype::PROPERTY_SET;
    sqe.offset = U32::new(property::CC);
    let entries = 6 << cc::IOSQES_SHIFT | 4 << cc::IOCQES_SHIFT;
    sqe.value = U64::new(u64::from(cc::EN | cc::CSS_ALL << cc::CSS_SHIFT | entries));
    zerocopy::transmute!(sqe)
}

#[cfg(test)]
mod tests {
    use super::transfer_max;

    #[test]
    fn transfers_are_bounded_by_mdts_and_not_at_all_by_zero() {
        let bytes = [0, 1, 8, 51, 52, 255].map(transfer_max);
        assert_eq!(bytes, [u64::MAX, 8192, 1 << 20, 1 << 63, u64::MAX, u64::MAX]);
    }
}
