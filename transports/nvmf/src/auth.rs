//! In-band authentication with DH-HMAC-CHAP: the controller's side of each queue.
//!
//! ```text
//!         Negotiate            computed           Challenge sent          Reply
//!  Idle -----------> Computing --------> Challenge ------------> AwaitReply ----> Computing
//!   ^                    |                                                            |
//!   |   Success2         |                   Success1 sent, host asked      computed  v
//!   |<---------------- AwaitSuccess2 <--------------------------------------------- Success1
//!   |                    |                                                            |
//!   `--------------------|------------------------- Success1 sent, host did not ask --'
//!                        v  anything wrong
//!                     Failure1 --sent--> the connection ends
//! ```
//!
//! The messages come and go with Authentication Send and Receive. What takes time, or needs to be
//! unpredictable, is not done here: it is handed out as a [`Computation`] and comes back. A Receive
//! that comes too early waits for it.
//!
//! A queue whose host has a secret takes nothing but these commands until it is through.

mod computation;
mod group;
mod keys;
mod mac;
mod message;

use std::sync::Arc;
use std::time::Duration;

use bdev::Instant;
use nvme_spec::opcode::{self, fctype};
use nvme_spec::{
    AuthenticationSqe, NvmeStatus, SECP_NVME, SPSP_AUTHENTICATION, Sqe, StatusCode, auth_id,
    auth_type,
};

use crate::admin::page_of;
use crate::command::{Phase, Plan, Transfer};
use crate::connection::{Connection, Cx};
use crate::limits::{AUTH_TIMEOUT_MS, AUTH_TRANSFER_MAX};
use crate::registry::Standing;
use crate::{CloseReason, Event, Nqn};

use computation::Work;
pub use computation::{Authenticator, Computation};
pub(crate) use group::{public_value, shared_value};
pub(crate) use keys::EXPONENT_MAX;
pub use keys::{AuthFault, Authentication, Group, Hash, HostKeys, Secret};
pub(crate) use mac::{Digest, Question};

/// Where an exchange stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Idle,
    /// A computation is wanted or out.
    Computing,
    /// The challenge waits to be fetched.
    Challenge,
    AwaitReply,
    /// The success waits to be fetched.
    Success1,
    AwaitSuccess2,
    /// The failure waits to be fetched.
    Failure1(AuthFault),
}

/// The authentication of one connection.
#[derive(Debug)]
pub(crate) struct Auth {
    /// Whether the host has proven, or has to prove, who it is.
    pub(crate) standing: Standing,
    step: Step,
    transaction: u16,
    hash: Hash,
    group: Group,
    keys: Option<Arc<HostKeys>>,
    /// When the time that the host has began.
    since: Instant,
    /// Which exchange this is.
    ticket: u64,
    wanted: Option<Work>,
    /// Here, unless it is being computed.
    computation: Option<Box<Computation>>,
    /// An Authentication Receive that waits.
    receiving: Option<u32>,
}

/// What a message of the host came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Progress,
    /// It is through.
    Proven,
    /// It gave up.
    GaveUp,
}

impl Auth {
    pub(crate) fn new(connection: u32, nobody: Nqn) -> Auth {
        Auth {
            standing: Standing::Open,
            step: Step::Idle,
            transaction: 0,
            hash: Hash::Sha256,
            group: Group::Null,
            keys: None,
            since: Instant::ZERO,
            ticket: 0,
            wanted: None,
            computation: Some(Computation::new(connection, nobody)),
            receiving: None,
        }
    }

    /// A queue was connected.
    pub(crate) fn begin(&mut self, standing: Standing, now: Instant) {
        self.reset();
        self.standing = standing;
        self.since = now;
    }

    /// Forgets the exchange.
    pub(crate) fn reset(&mut self) {
        self.ticket += 1;
        self.step = Step::Idle;
        self.wanted = None;
        self.receiving = None;
        self.keys = None;
        if let Some(computation) = &mut self.computation {
            computation.wipe();
        }
    }

    /// When the host must be through.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let waits = self.standing == Standing::Pending || self.step != Step::Idle;
        waits.then(|| self.since.saturating_add(Duration::from_millis(AUTH_TIMEOUT_MS)))
    }

    fn fail(&mut self, fault: AuthFault) {
        self.reset_but_receiving();
        self.step = Step::Failure1(fault);
    }

    fn reset_but_receiving(&mut self) {
        let receiving = self.receiving.take();
        self.reset();
        self.receiving = receiving;
    }

    /// Takes a message of the host.
    //= NVMe-Base 2.1 §8.3.4
    //# a message out of its turn ends the transaction with AUTH_Failure1
    fn hear(&mut self, bytes: &[u8], keys: Option<Arc<HostKeys>>, now: Instant) -> Heard {
        let Some(header) = message::header(bytes) else {
            self.fail(AuthFault::Payload);
            return Heard::Progress;
        };
        let transaction = header.transaction.get();
        let known = transaction == self.transaction;
        match (header.auth_type, header.auth_id, self.step) {
            (auth_type::COMMON, auth_id::NEGOTIATE, Step::Idle) => {
                self.transaction = transaction;
                self.negotiate(bytes, keys, now);
            }
            (auth_type::COMMON, auth_id::FAILURE2, step) if step != Step::Idle => {
                return Heard::GaveUp;
            }
            (auth_type::DH_HMAC_CHAP, auth_id::REPLY, Step::AwaitReply) if known => {
                self.take_reply(bytes, keys);
            }
            (auth_type::DH_HMAC_CHAP, auth_id::SUCCESS2, Step::AwaitSuccess2) if known => {
                return Heard::Proven;
            }
            (auth_type::DH_HMAC_CHAP, _, Step::AwaitReply | Step::AwaitSuccess2) if !known => {
                self.fail(AuthFault::Payload);
            }
            _ => self.fail(AuthFault::Message),
        }
        Heard::Progress
    }

    fn negotiate(&mut self, bytes: &[u8], keys: Option<Arc<HostKeys>>, now: Instant) {
        // One that has to authenticate does not gain time by beginning again.
        if self.standing != Standing::Pending {
            self.since = now;
        }
        let chosen = match &keys {
            None => Err(AuthFault::NoKey),
            Some(keys) => message::choose(bytes, keys),
        };
        match chosen {
            Err(fault) => self.fail(fault),
            Ok((hash, group)) => {
                (self.hash, self.group) = (hash, group);
                self.step = Step::Computing;
                self.wanted = Some(Work::Challenge);
            }
        }
    }

    fn take_reply(&mut self, bytes: &[u8], keys: Option<Arc<HostKeys>>) {
        let computation = self.computation.as_mut().expect("it made the challenge");
        match message::read_reply(bytes, self.hash, self.group, &mut computation.reply) {
            Err(fault) => self.fail(fault),
            Ok(()) => {
                self.keys = keys;
                self.step = Step::Computing;
                self.wanted = Some(Work::Verify);
            }
        }
    }

    /// Takes a computation back; true when it was waited for.
    fn computed(&mut self, mut computation: Box<Computation>) -> bool {
        let current = computation.ticket == self.ticket && self.step == Step::Computing;
        if !current {
            computation.wipe();
            self.computation = Some(computation);
            return false;
        }
        let (work, result) = (computation.work, computation.result);
        self.computation = Some(computation);
        match (work, result) {
            (Work::Challenge, Ok(())) => self.step = Step::Challenge,
            (Work::Verify, Ok(())) => self.step = Step::Success1,
            (_, Err(fault)) => self.fail(fault),
        }
        true
    }

    /// Writes the message that the host is to have, and says what becomes of the exchange; `None`
    /// when there is no room for it.
    fn write(&self, page: &mut [u8]) -> Option<Step> {
        let computed = || self.computation.as_deref().expect("it came back");
        match self.step {
            Step::Challenge => {
                message::put_challenge(page, computed())?;
                Some(Step::AwaitReply)
            }
            Step::Success1 => {
                message::put_success(page, computed())?;
                let asked = computed().answer().is_some();
                Some(if asked { Step::AwaitSuccess2 } else { Step::Idle })
            }
            Step::Failure1(fault) => {
                message::put_failure(page, self.transaction, fault)?;
                Some(self.step)
            }
            step => unreachable!("nothing to say in {step:?}"),
        }
    }

    fn has_something_to_say(&self) -> bool {
        matches!(self.step, Step::Challenge | Step::Success1 | Step::Failure1(_))
    }
}

/// What Authentication Send and Receive move, or why they are refused.
//= NVMe-Base 2.1 §6.2
//# SECP E9h, SPSP0 01h, SPSP1 01h and a length that is not 0
pub(crate) fn plan(sqe: &Sqe) -> Result<Plan, NvmeStatus> {
    let sqe: AuthenticationSqe = zerocopy::transmute!(*sqe);
    let len = sqe.len.get();
    let ours = sqe.secp == SECP_NVME
        && (sqe.spsp0, sqe.spsp1) == (SPSP_AUTHENTICATION, SPSP_AUTHENTICATION);
    if !ours || len == 0 || len > AUTH_TRANSFER_MAX {
        return Err(NvmeStatus::never(StatusCode::INVALID_FIELD));
    }
    Ok(Plan::admin(match sqe.fctype {
        fctype::AUTHENTICATION_SEND => Transfer::FromHost(len),
        _ => Transfer::ToHost(len),
    }))
}

/// Whether a command may come before its queue is authenticated.
fn is_allowed_before(sqe: &Sqe) -> bool {
    let [kind, ..] = sqe.nsid.get().to_le_bytes();
    let allowed = [fctype::AUTHENTICATION_SEND, fctype::AUTHENTICATION_RECEIVE, fctype::DISCONNECT];
    sqe.opcode == opcode::FABRICS && allowed.contains(&kind)
}

impl Connection {
    /// Refuses a command that has to wait until the host has proven who it is.
    //= NVMe-Base 2.1 §8.3.4
    //# until the queue is authenticated every other command fails: Authentication Required
    pub(crate) fn check_authenticated(&self, sqe: &Sqe) -> Result<(), NvmeStatus> {
        match self.auth.standing {
            Standing::Pending if self.queue.is_some() && !is_allowed_before(sqe) => {
                Err(NvmeStatus::never(StatusCode::AUTHENTICATION_REQUIRED))
            }
            _ => Ok(()),
        }
    }

    /// The keys of this queue's host, as they are now.
    fn host_keys(&self) -> Option<Arc<HostKeys>> {
        let queue = self.queue.as_ref()?;
        queue.subsystem.as_ref()?;
        self.snapshot.keys_of(&queue.hostnqn).map(Arc::clone)
    }

    pub(crate) fn authentication_send(&mut self, cx: Cx<'_>, key: u32) {
        let keys = self.host_keys();
        let command = self.commands.get(key).expect("ready commands exist");
        let Transfer::FromHost(len) = command.plan.transfer else {
            unreachable!("a message comes from the host")
        };
        let heard = self.auth.hear(&command.bytes()[..len as usize], keys, cx.now);
        self.answer(key, NvmeStatus::SUCCESS);
        match heard {
            Heard::Progress => self.say_when_ready(cx),
            Heard::Proven => self.proven(cx),
            Heard::GaveUp => self.not_proven(cx, AuthFault::Host),
        }
    }

    pub(crate) fn authentication_receive(&mut self, cx: Cx<'_>, key: u32) {
        let turn = self.auth.step == Step::Computing || self.auth.has_something_to_say();
        if !turn || self.auth.receiving.is_some() {
            //= NVMe-Base 2.1 §6.1
            //# a receive without a message to be received is out of sequence
            return self.answer(key, NvmeStatus::never(StatusCode::COMMAND_SEQUENCE_ERROR));
        }
        let command = self.commands.get_mut(key).expect("ready commands exist");
        command.phase = Phase::Computing;
        self.auth.receiving = Some(key);
        self.say_when_ready(cx);
    }

    /// Answers the Authentication Receive that waits, if there is something to say.
    fn say_when_ready(&mut self, cx: Cx<'_>) {
        if !self.auth.has_something_to_say() {
            return;
        }
        let Some(key) = self.auth.receiving.take() else { return };
        let command = self.commands.get_mut(key).expect("a command that waits exists");
        let Transfer::ToHost(len) = command.plan.transfer else {
            unreachable!("a message goes to the host")
        };
        let Some(next) = self.auth.write(page_of(&mut command.segment, len)) else {
            return self.answer(key, NvmeStatus::never(StatusCode::INVALID_FIELD));
        };
        self.answer_filled(key);
        match next {
            Step::Failure1(fault) => self.not_proven(cx, fault),
            Step::Idle => self.proven(cx),
            step => self.auth.step = step,
        }
    }

    /// The host has proven who it is.
    fn proven(&mut self, cx: Cx<'_>) {
        self.auth.reset();
        if std::mem::replace(&mut self.auth.standing, Standing::Proven) == Standing::Proven {
            return; // It did so again.
        }
        let queue = self.queue.as_mut().expect("a connected queue authenticates");
        let Some(hold) = self.target.registry().proven(queue.hold) else {
            return self.end(cx, CloseReason::Controller);
        };
        queue.hold = hold;
        self.target.registry().seen(hold, cx.now);
        self.tell_connected();
    }

    /// The host has not proven who it is: the connection ends.
    //= NVMe-Base 2.1 §8.3.4
    //# a failed authentication ends the connection of its queue
    pub(crate) fn not_proven(&mut self, cx: Cx<'_>, fault: AuthFault) {
        if let Some(queue) = &self.queue {
            let subsystem = queue.subsystem.as_ref().map(|view| view.nqn);
            self.event(Event::NotAuthenticated { hostnqn: queue.hostnqn, subsystem, fault });
        }
        self.end(cx, CloseReason::Authentication);
    }

    pub(crate) fn tell_connected(&mut self) {
        let queue = self.queue.as_ref().expect("a connected queue");
        let (cntlid, qid) = (queue.hold.cntlid(), queue.hold.qid);
        let (hostnqn, subsystem) = (queue.hostnqn, queue.subsystem.as_ref().map(|view| view.nqn));
        self.event(Event::Connected { cntlid, qid, hostnqn, subsystem });
    }

    /// Whether [`Connection::take_computation`] has something to give.
    pub fn wants_computation(&self) -> bool {
        self.auth.wanted.is_some() && self.auth.computation.is_some()
    }

    /// Something to be computed by an [`Authenticator`], on a thread that is no reactor; it comes
    /// back with [`Connection::on_computed`]. There is at most one of a connection at a time, and
    /// nothing is lost when it is taken late.
    pub fn take_computation(&mut self) -> Option<Box<Computation>> {
        if !self.wants_computation() {
            return None;
        }
        let queue = self.queue.as_ref()?;
        let subsystem = queue.subsystem.as_ref().expect("only its hosts have keys").nqn;
        let mut computation = self.auth.computation.take()?;
        computation.work = self.auth.wanted.take()?;
        computation.ticket = self.auth.ticket;
        (computation.host, computation.subsystem) = (queue.hostnqn, subsystem);
        (computation.hash, computation.group) = (self.auth.hash, self.auth.group);
        computation.transaction = self.auth.transaction;
        computation.keys = self.auth.keys.take();
        Some(computation)
    }

    /// A computation is done. Also when the connection has ended meanwhile, or begun again.
    ///
    /// # Panics
    /// When it is that of another connection.
    pub fn on_computed(&mut self, cx: Cx<'_>, computation: Box<Computation>) {
        assert_eq!(computation.connection(), self.index, "routed by its connection");
        if self.auth.computed(computation) {
            self.say_when_ready(cx);
        }
    }

    /// Whether the configuration still lets this queue's host be here.
    pub(crate) fn is_still_admitted(&self) -> bool {
        let Some(queue) = &self.queue else { return true };
        let Some(view) = &queue.subsystem else { return true };
        let current = self.snapshot.subsystem(&view.nqn);
        current.is_some_and(|view| self.snapshot.admits(view, &queue.hostnqn, self.auth.standing))
    }
}
