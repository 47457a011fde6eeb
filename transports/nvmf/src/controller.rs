//! A controller, as its admin queue has it: properties, events and feature values.

use bdev::Instant;
use nvme_spec::feature::{event_type, notice};
use nvme_spec::property::{CAP, CC, CRTO, CSTS, VERSION_2_1, VS, cap, cc, csts};
use nvme_spec::{NvmeStatus, StatusCode, lid, oaes};

use crate::abort::Aborts;
use crate::command::Phase;
use crate::connection::Connection;
use crate::cross_reset::CrossResets;
use crate::features::BEHAVIOR_LEN;
use crate::framer::narrow;
use crate::limits::{ASYNC_EVENTS_MAX, COMMANDS_MAX, QUEUE_ENTRIES_MAX, QUIESCE_MS};
use crate::registry::{EVENT_CROSS_RESET, EVENT_DISCOVERY, EVENT_NAMESPACES, Identity};

/// What a controller controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Io,
    Discovery,
}

/// What CC asked for and takes its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// EN went to 0.
    Reset,
    /// SHN was set.
    Shutdown,
}

/// The state of a controller that only its admin queue needs.
#[derive(Debug)]
pub(crate) struct Controller {
    pub(crate) kind: Kind,
    pub(crate) identity: Identity,
    cc: u32,
    csts: u32,
    /// What is not complete before its I/O queues are quiet.
    ending: Option<Ending>,
    /// Asynchronous Event Configuration.
    pub(crate) event_config: u32,
    /// Events that came up and were not reported.
    pending: u32,
    /// Events that were reported and whose log page was not read since.
    masked: u32,
    /// Asynchronous Event Requests that wait, by their keys: the first `waiting_len`.
    waiting: [u32; ASYNC_EVENTS_MAX],
    waiting_len: usize,
    /// Resets of other controllers that this one caused.
    pub(crate) resets: CrossResets,
    /// Abort commands that wait for their I/O queue.
    pub(crate) aborts: Aborts,
    /// What Timestamp was set to, in milliseconds, and when.
    pub(crate) timestamp: Option<(u64, Instant)>,
    /// The bytes of Host Behavior Support that mean something.
    pub(crate) behavior: [u8; BEHAVIOR_LEN],
}

impl Controller {
    pub(crate) fn new(kind: Kind, identity: Identity) -> Controller {
        Controller {
            kind,
            identity,
            cc: 0,
            csts: 0,
            ending: None,
            event_config: 0,
            pending: 0,
            masked: 0,
            waiting: [0; ASYNC_EVENTS_MAX],
            waiting_len: 0,
            resets: CrossResets::default(),
            aborts: Aborts::default(),
            timestamp: None,
            behavior: [0; BEHAVIOR_LEN],
        }
    }

    /// Whether admin commands are processed.
    pub(crate) fn is_ready(&self) -> bool {
        self.csts & csts::RDY != 0 && self.ending != Some(Ending::Reset)
    }

    /// A property, if it exists with that size (0: 4 bytes, 1: 8 bytes).
    //= NVMe-Base 2.1 §6.5
    //# a property is read with its own size
    pub(crate) fn property(&self, offset: u32, size: u8) -> Option<u64> {
        let (value, its_size) = match offset {
            CAP => (capabilities(), 1),
            VS => (u64::from(VERSION_2_1), 0),
            CC => (u64::from(self.cc), 0),
            CSTS => (u64::from(self.csts), 0),
            CRTO => (READY_TIMEOUT, 0),
            _ => return None,
        };
        (size == its_size).then_some(value)
    }

    /// Which of its asynchronous events OAES offers.
    pub(crate) fn events_offered(&self) -> u32 {
        let own = EVENTS.iter().filter(|row| row.kind == self.kind);
        own.fold(0, |offered, row| offered | row.enabled)
    }

    /// The log page of an event was read: it may be reported again.
    pub(crate) fn unmask(&mut self, event: u32) {
        self.masked &= !event;
    }

    /// Keeps an Asynchronous Event Request; false when there are too many.
    pub(crate) fn park(&mut self, key: u32) -> bool {
        let Some(place) = self.waiting.get_mut(self.waiting_len) else { return false };
        *place = key;
        self.waiting_len += 1;
        true
    }

    /// Forgets the requests that wait: their commands are gone.
    pub(crate) fn unpark_all(&mut self) {
        self.waiting_len = 0;
    }

    /// Takes one request out of those that wait; false when it is none of them.
    pub(crate) fn unpark_one(&mut self, key: u32) -> bool {
        let waiting = &mut self.waiting[..self.waiting_len];
        let Some(at) = waiting.iter().position(|&waiting| waiting == key) else { return false };
        waiting.copy_within(at + 1.., at);
        self.waiting_len -= 1;
        true
    }

    fn unpark(&mut self) -> Option<u32> {
        self.waiting_len = self.waiting_len.checked_sub(1)?;
        Some(self.waiting[self.waiting_len])
    }

    /// The next request to complete, and with what, if an event is pending.
    fn next_event(&mut self) -> Option<(u32, u32)> {
        for row in EVENTS.iter().filter(|row| row.kind == self.kind) {
            if self.event_config & row.enabled == 0 {
                self.pending &= !row.event;
            }
            //= NVMe-Base 2.1 §5.1.2
            //# an event type stays masked until its log page is read
            if self.pending & row.event != 0 && self.masked & row.event == 0 {
                let key = self.unpark()?;
                self.pending &= !row.event;
                self.masked |= row.event;
                return Some((key, notice_of(row.notice, row.log_page)));
            }
        }
        None
    }
}

/// An asynchronous event: who reports it, the bit of OAES that offers it and of the configuration
/// that enables it, and what a host learns.
struct EventRow {
    kind: Kind,
    event: u32,
    enabled: u32,
    notice: u32,
    log_page: u8,
}

const EVENTS: &[EventRow] = &[
    EventRow {
        kind: Kind::Io,
        event: EVENT_NAMESPACES,
        enabled: oaes::NAMESPACE_ATTRIBUTE,
        notice: notice::NAMESPACE_CHANGED,
        log_page: lid::CHANGED_NAMESPACES,
    },
    EventRow {
        kind: Kind::Io,
        event: EVENT_CROSS_RESET,
        enabled: oaes::CROSS_RESET_COMPLETED,
        notice: notice::CROSS_RESET_COMPLETED,
        log_page: lid::CROSS_RESET,
    },
    EventRow {
        kind: Kind::Discovery,
        event: EVENT_DISCOVERY,
        enabled: oaes::DISCOVERY_CHANGE,
        notice: notice::DISCOVERY_CHANGE,
        log_page: lid::DISCOVERY,
    },
];

/// CAP.TO and CRTO.CRWMT, units of 500 ms: a reset waits for what is at the devices.
const READY_TIMEOUT: u64 = QUIESCE_MS.div_ceil(500);
const _: () = assert!(READY_TIMEOUT <= 0xff);

/// DW0 of an asynchronous event: type, information, log page.
fn notice_of(information: u32, log_page: u8) -> u32 {
    event_type::NOTICE | information << 8 | u32::from(log_page) << 16
}

/// CAP.
fn capabilities() -> u64 {
    //= NVMe-Base 2.1 §3.1.4.1
    //# message-based controllers set CQR; revision 2 and later set CRMS.CRWMS
    u64::from(QUEUE_ENTRIES_MAX - 1) << cap::MQES_SHIFT
        | cap::CQR
        | READY_TIMEOUT << cap::TO_SHIFT
        | cap::CSS_NVM
        | cap::CSS_IOCSS
        | cap::CRWMS
}

/// Whether CC asks for something that an I/O controller does not have.
fn unsupported(value: u32) -> bool {
    let field = |shift: u32, bits: u32| value >> shift & ((1 << bits) - 1);
    let css = field(cc::CSS_SHIFT, 3);
    let entries = (field(cc::IOSQES_SHIFT, 4), field(cc::IOCQES_SHIFT, 4));
    field(cc::MPS_SHIFT, 4) != 0
        || field(cc::AMS_SHIFT, 3) != 0
        || !matches!(css, cc::CSS_NVM | cc::CSS_ALL | cc::CSS_ADMIN)
        || (css != cc::CSS_ADMIN && entries != (6, 4))
}

impl Connection {
    /// CC was written: enable, disable, shut down.
    //= NVMe-Base 2.1 §3.1.4.5
    //# EN 0 to 1 enables, 1 to 0 resets, SHN asks for a shutdown
    pub(crate) fn set_cc(&mut self, value: u32) {
        let queue = self.queue.as_ref().expect("an admin queue is connected");
        let controller = self.controller.as_mut().expect("an admin queue has its controller");
        let before = std::mem::replace(&mut controller.cc, value);
        let (was, is) = (before & cc::EN != 0, value & cc::EN != 0);
        let shut = |value: u32| value >> cc::SHN_SHIFT & 3 != 0;
        if !was && is {
            let refused = controller.kind == Kind::Io && unsupported(value);
            controller.csts = if refused { csts::CFS } else { csts::RDY };
            controller.ending = None;
            if !refused {
                self.target.registry().enable(queue.hold);
            }
        }
        if was && !is {
            self.reset();
        } else if shut(value) && !shut(before) {
            self.target.registry().disable(queue.hold);
            controller.csts = controller.csts & !csts::SHST_MASK | csts::SHST_OCCURRING;
            controller.ending = Some(Ending::Shutdown);
        }
        self.finish_ending();
    }

    /// A controller level reset: what the host set is forgotten, its I/O queues close.
    fn reset(&mut self) {
        let queue = self.queue.as_ref().expect("an admin queue is connected");
        self.target.registry().disable(queue.hold);
        let controller = self.controller.as_mut().expect("an admin queue has its controller");
        controller.ending = Some(Ending::Reset);
        controller.event_config = 0;
        (controller.pending, controller.masked) = (0, 0);
        controller.behavior = [0; BEHAVIOR_LEN];
        controller.unpark_all();
        controller.aborts.clear();
        // A reset ends outstanding admin commands without a completion.
        for key in 0..narrow(COMMANDS_MAX) {
            if self.commands.get(key).is_some_and(|command| command.phase == Phase::Event) {
                self.drop_command(key);
            }
        }
    }

    /// Ends a reset or a shutdown once nothing of the controller's is under way any more.
    //= NVMe-Base 2.1 §3.1.4.6
    //# RDY 0, and SHST complete, tell that no earlier command has an effect any more
    pub(crate) fn finish_ending(&mut self) {
        let (Some(queue), Some(controller)) = (&self.queue, &mut self.controller) else { return };
        let Some(ending) = controller.ending else { return };
        if !self.target.registry().is_quiet(queue.hold) {
            return;
        }
        controller.ending = None;
        controller.csts = match ending {
            Ending::Reset => 0,
            Ending::Shutdown => controller.csts & !csts::SHST_MASK | csts::SHST_COMPLETE,
        };
    }

    /// Completes Asynchronous Event Requests for what came up.
    pub(crate) fn poll_async_events(&mut self) {
        let (Some(queue), Some(controller)) = (&self.queue, &mut self.controller) else { return };
        let registry = self.target.registry();
        controller.pending |= registry.take_events(queue.hold);
        if controller.resets.poll(registry) {
            controller.pending |= EVENT_CROSS_RESET;
        }
        while let Some((key, dw0)) = self.controller.as_mut().and_then(Controller::next_event) {
            self.answer_with(key, NvmeStatus::SUCCESS, dw0, 0);
        }
    }

    /// An Asynchronous Event Request: it waits for an event.
    //= NVMe-Base 2.1 §5.1.2
    //# beyond AERL the request is refused
    pub(crate) fn async_event_request(&mut self, key: u32) {
        let controller = self.controller.as_mut().expect("an admin queue has its controller");
        if controller.park(key) {
            let command = self.commands.get_mut(key).expect("ready commands exist");
            command.phase = Phase::Event;
        } else {
            self.answer(key, NvmeStatus::never(StatusCode::ASYNC_EVENT_LIMIT_EXCEEDED));
        }
    }
}
