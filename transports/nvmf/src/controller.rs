//! A controller, as its admin queue has it: properties, events and feature values.

use bdev::Instant;
use nvme_spec::feature::{event_type, notice};
use nvme_spec::property::{CAP, CC, CRTO, CSTS, VERSION_2_1, VS, cap, cc, csts};
use nvme_spec::{NvmeStatus, StatusCode, lid, oaes};

use crate::connection::Connection;
use crate::limits::{ASYNC_EVENTS_MAX, QUEUE_ENTRIES_MAX};
use crate::registry::{EVENT_DISCOVERY, EVENT_NAMESPACES, Identity};

/// What a controller controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Io,
    Discovery,
}

/// CAP.TO and CRTO.CRWMT, units of 500 ms. Enabling takes no time at all; this is for the host.
const READY_TIMEOUT: u8 = 30;

/// The state of a controller that only its admin queue needs.
#[derive(Debug)]
pub(crate) struct Controller {
    pub(crate) kind: Kind,
    pub(crate) identity: Identity,
    cc: u32,
    csts: u32,
    /// Asynchronous Event Configuration.
    pub(crate) event_config: u32,
    /// Events that came up and were not reported.
    pending: u32,
    /// Events that were reported and whose log page was not read since.
    masked: u32,
    /// Asynchronous Event Requests that wait, by their keys: the first `waiting_len`.
    waiting: [u32; ASYNC_EVENTS_MAX],
    waiting_len: usize,
    /// What Timestamp was set to, in milliseconds, and when.
    pub(crate) timestamp: Option<(u64, Instant)>,
    /// The bytes of Host Behavior Support that mean something.
    pub(crate) behavior: [u8; 4],
}

impl Controller {
    pub(crate) fn new(kind: Kind, identity: Identity) -> Controller {
        Controller {
            kind,
            identity,
            cc: 0,
            csts: 0,
            event_config: 0,
            pending: 0,
            masked: 0,
            waiting: [0; ASYNC_EVENTS_MAX],
            waiting_len: 0,
            timestamp: None,
            behavior: [0; 4],
        }
    }

    /// Whether admin commands are processed.
    pub(crate) fn is_ready(&self) -> bool {
        self.csts & csts::RDY != 0
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
            CRTO => (u64::from(READY_TIMEOUT), 0),
            _ => return None,
        };
        (size == its_size).then_some(value)
    }

    /// Which of its asynchronous events OAES offers.
    pub(crate) fn events_offered(&self) -> u32 {
        match self.kind {
            Kind::Io => oaes::NAMESPACE_ATTRIBUTE,
            Kind::Discovery => oaes::DISCOVERY_CHANGE,
        }
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

    fn unpark(&mut self) -> Option<u32> {
        self.waiting_len = self.waiting_len.checked_sub(1)?;
        Some(self.waiting[self.waiting_len])
    }

    /// The next request to complete, and with what, if an event is pending.
    fn next_event(&mut self) -> Option<(u32, u32)> {
        let (event, enabled, dw0) = match self.kind {
            Kind::Io => (
                EVENT_NAMESPACES,
                oaes::NAMESPACE_ATTRIBUTE,
                notice_of(notice::NAMESPACE_CHANGED, lid::CHANGED_NAMESPACES),
            ),
            Kind::Discovery => (
                EVENT_DISCOVERY,
                oaes::DISCOVERY_CHANGE,
                notice_of(notice::DISCOVERY_CHANGE, lid::DISCOVERY),
            ),
        };
        if self.event_config & enabled == 0 {
            self.pending &= !event;
        }
        //= NVMe-Base 2.1 §5.1.2
        //# an event type stays masked until its log page is read
        if self.pending & event == 0 || self.masked & event != 0 {
            return None;
        }
        let key = self.unpark()?;
        self.pending &= !event;
        self.masked |= event;
        Some((key, dw0))
    }
}

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
        | u64::from(READY_TIMEOUT) << cap::TO_SHIFT
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
        if !was && is {
            let refused = controller.kind == Kind::Io && unsupported(value);
            controller.csts = if refused { csts::CFS } else { csts::RDY };
            if !refused {
                self.target.registry().enable(queue.hold);
            }
        }
        if was && !is {
            controller.csts = 0;
            controller.event_config = 0;
            (controller.pending, controller.masked) = (0, 0);
            self.target.registry().disable(queue.hold);
            // A reset ends the outstanding requests for events without a completion.
            while let Some(key) = self.controller.as_mut().and_then(Controller::unpark) {
                self.drop_command(key);
            }
        }
        let controller = self.controller.as_mut().expect("an admin queue has its controller");
        //= NVMe-Base 2.1 §3.1.4.6
        //# SHST tells when shutdown processing is complete: nothing is volatile, so at once
        if value >> cc::SHN_SHIFT & 3 != 0 {
            controller.csts = controller.csts & !csts::SHST_MASK | csts::SHST_COMPLETE;
        } else if is {
            controller.csts &= !csts::SHST_MASK;
        }
    }

    /// Completes Asynchronous Event Requests for what came up.
    pub(crate) fn poll_async_events(&mut self) {
        let (Some(queue), Some(controller)) = (&self.queue, &mut self.controller) else { return };
        controller.pending |= self.target.registry().take_events(queue.hold);
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
            command.phase = crate::command::Phase::Event;
        } else {
            self.answer(key, NvmeStatus::never(StatusCode::ASYNC_EVENT_LIMIT_EXCEEDED));
        }
    }
}
