//! A controller, as its admin queue has it: properties, events and feature values.

use bdev::Instant;
use nvme_spec::property::{CAP, CC, CRTO, CSTS, VERSION_2_1, VS, cap, cc, csts};

use crate::abort::Aborts;
use crate::command::Phase;
use crate::connection::Connection;
use crate::cross_reset::CrossResets;
use crate::features::BEHAVIOR_LEN;
use crate::framer::narrow;
use crate::limits::{COMMANDS_MAX, QUEUE_ENTRIES_MAX, QUIESCE_MS};
use crate::notices::Notices;
use crate::registry::Identity;

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
    /// When the interval of the keep alive timer began.
    pub(crate) interval: Instant,
    /// Asynchronous events.
    pub(crate) notices: Notices,
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
    pub(crate) fn new(kind: Kind, identity: Identity, now: Instant) -> Controller {
        Controller {
            kind,
            identity,
            cc: 0,
            csts: 0,
            ending: None,
            interval: now,
            notices: Notices::new(kind),
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

    /// Whether it is ready and not shut down, nor on the way there.
    pub(crate) fn is_active(&self) -> bool {
        self.is_ready() && self.csts & csts::SHST_MASK == 0
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
}

/// CAP.TO and CRTO.CRWMT, units of 500 ms: a reset waits for what is at the devices.
const READY_TIMEOUT: u64 = QUIESCE_MS.div_ceil(500);
const _: () = assert!(READY_TIMEOUT <= 0xff);

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
            self.refuse_aborts();
        }
        self.finish_ending();
    }

    /// A controller level reset: what the host set is forgotten, its I/O queues close.
    fn reset(&mut self) {
        let queue = self.queue.as_ref().expect("an admin queue is connected");
        self.target.registry().disable(queue.hold);
        self.target.registry().with_inbox(queue.hold, |inbox| *inbox = Default::default());
        let controller = self.controller.as_mut().expect("an admin queue has its controller");
        controller.ending = Some(Ending::Reset);
        controller.notices.reset();
        controller.behavior = [0; BEHAVIOR_LEN];
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
}
