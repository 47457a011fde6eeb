//! The host's side of in-band authentication.
//!
//! ```text
//! Connect asks for it --> Negotiate --> Challenge --> Reply --> Success1 --> Success2 --> Ready
//!                                                                  `--- not asked back ---^
//! ```

use std::fmt;

use bdev::{BufMut, Data, Pool, Tag};
use nvme_spec::{
    AUTHID_DH_HMAC_CHAP, AuthChallenge, AuthFailure, AuthHeader, AuthNegotiate, AuthProtocol,
    AuthReply, AuthSuccess1, AuthSuccess2, AuthenticationSqe, Cqe, SECP_NVME, SPSP_AUTHENTICATION,
    U16, U32, auth_failure, auth_id, auth_type, opcode,
};
use subtle::ConstantTimeEq;
use zerocopy::{FromBytes, FromZeros, IntoBytes};
use zeroize::Zeroizing;

use super::queue::{Failure, Initiator, Pending, State};
use crate::auth::{Digest, EXPONENT_MAX, Question, public_value, shared_value};
use crate::framer::narrow;
use crate::{Group, Hash, Nqn, Secret};

/// Bytes of room for a message.
const PAGE: usize = 4096;
/// Messages of an exchange, in both directions.
const PAGES: usize = 5;

/// Fills bytes so that nobody can guess them.
pub type Random = Box<dyn FnMut(&mut [u8]) + Send>;

/// How a host proves who it is, and whether it wants the controller to do so as well.
///
/// Exponentiations are done in place, when messages arrive: a host has little else to do then.
pub struct HostAuthentication {
    /// The secret of the host.
    pub key: Secret,
    /// The secret that the controller must have.
    pub controller_key: Option<Secret>,
    /// Hash functions to offer.
    pub hashes: Vec<Hash>,
    /// Groups to offer.
    pub groups: Vec<Group>,
    /// Fills bytes so that nobody can guess them.
    pub random: Random,
}

impl fmt::Debug for HostAuthentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostAuthentication").finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Idle,
    Negotiate,
    Challenge,
    Reply,
    Success1,
    Success2,
    Failure2,
}

/// An exchange, and what is needed for the next.
#[derive(Debug)]
pub(super) struct HostExchange {
    with: HostAuthentication,
    host: Nqn,
    subsystem: Nqn,
    step: Step,
    transaction: u16,
    /// A buffer for each message that is still to come.
    pages: Vec<BufMut>,
    /// What the controller is to answer.
    expected: Option<Digest>,
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
    }
}

const NONSENSE: Failure = Failure::Protocol("an authentication message that makes no sense");

fn header(kind: u8, id: u8, transaction: u16) -> AuthHeader {
    let mut header = AuthHeader::new_zeroed();
    (header.auth_type, header.auth_id) = (kind, id);
    header.transaction = U16::new(transaction);
    header
}

fn concat(page: &mut [u8], parts: &[&[u8]]) -> usize {
    let mut at = 0;
    for part in parts {
        page[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    at
}

impl HostExchange {
    /// The buffer of the next message.
    fn page(&mut self) -> BufMut {
        self.pages.pop().expect("there is one for each message of an exchange")
    }

    fn negotiate(&self, page: &mut [u8]) -> usize {
        let mut protocol = AuthProtocol::new_zeroed();
        protocol.auth_id = AUTHID_DH_HMAC_CHAP;
        for (place, hash) in protocol.hashes.iter_mut().zip(&self.with.hashes) {
            *place = hash.id();
            protocol.hash_count += 1;
        }
        for (place, group) in protocol.groups.iter_mut().zip(&self.with.groups) {
            *place = group.id();
            protocol.group_count += 1;
        }
        let mut message = AuthNegotiate::new_zeroed();
        message.header = header(auth_type::COMMON, auth_id::NEGOTIATE, self.transaction);
        message.protocols = 1;
        concat(page, &[message.as_bytes(), protocol.as_bytes()])
    }

    /// Checks that a message is the one that is due.
    fn expect(&self, bytes: &[u8], id: u8) -> Result<(), Failure> {
        let (header, rest) = AuthHeader::read_from_prefix(bytes).map_err(|_| NONSENSE)?;
        if (header.auth_type, header.auth_id) == (auth_type::COMMON, auth_id::FAILURE1) {
            return Err(Failure::NotAuthenticated(rest.get(1).copied().unwrap_or(0)));
        }
        let due = (header.auth_type, header.auth_id, header.transaction.get())
            == (auth_type::DH_HMAC_CHAP, id, self.transaction);
        if due { Ok(()) } else { Err(NONSENSE) }
    }

    /// Turns a challenge into the reply.
    fn reply(&mut self, bytes: &[u8], page: &mut [u8]) -> Result<usize, Failure> {
        self.expect(bytes, auth_id::CHALLENGE)?;
        let (message, rest) = AuthChallenge::read_from_prefix(bytes).map_err(|_| NONSENSE)?;
        let hash = Hash::of(message.hash).filter(|hash| self.with.hashes.contains(hash));
        let group = Group::of(message.group).filter(|group| self.with.groups.contains(group));
        let (Some(hash), Some(group)) = (hash, group) else { return Err(NONSENSE) };
        let (len, dh_len) = (hash.size(), usize::from(message.dh_len.get()));
        if usize::from(message.hash_len) != len || rest.len() < len + dh_len {
            return Err(NONSENSE);
        }
        let mut private = Zeroizing::new([0; EXPONENT_MAX]);
        let private = &mut private[..group.exponent_len()];
        (self.with.random)(private);
        let shared = match group {
            Group::Null if dh_len == 0 => None,
            _ => {
                let value = &rest[len..len + dh_len];
                Some(shared_value(group, private, value).ok_or(NONSENSE)?)
            }
        };
        let question = Question {
            hash,
            challenge: &rest[..len],
            shared: shared.as_ref().map(|shared| shared.as_slice()),
            sequence: message.sequence.get(),
            transaction: self.transaction,
            host: &self.host,
            subsystem: &self.subsystem,
        };
        let response = question.host_response(&self.with.key);
        let mut challenge = [0; nvme_spec::AUTH_HASH_MAX];
        let mut reply = AuthReply::new_zeroed();
        self.expected = None;
        if let Some(controller_key) = &self.with.controller_key {
            (self.with.random)(&mut challenge[..len]);
            let mut sequence = [0; 4];
            (self.with.random)(&mut sequence);
            let sequence = u32::from_le_bytes(sequence).max(1);
            reply.challenge_valid = 1;
            reply.sequence = U32::new(sequence);
            let asked = Question { challenge: &challenge[..len], sequence, ..question };
            self.expected = Some(asked.controller_response(controller_key));
        }
        let public = public_value(group, private);
        reply.header = header(auth_type::DH_HMAC_CHAP, auth_id::REPLY, self.transaction);
        reply.hash_len = message.hash_len;
        reply.dh_len = U16::new(u16::try_from(public.len()).expect("at most 1024"));
        Ok(concat(page, &[reply.as_bytes(), response.bytes(), &challenge[..len], &public]))
    }

    /// Whether the controller's answer is right; `None` when none was asked for.
    fn judge(&mut self, page: &[u8]) -> Result<Option<bool>, Failure> {
        self.expect(page, auth_id::SUCCESS1)?;
        let (message, rest) = AuthSuccess1::read_from_prefix(page).map_err(|_| NONSENSE)?;
        let Some(expected) = self.expected.take() else { return Ok(None) };
        let answer = rest.get(..usize::from(message.hash_len)).unwrap_or_default();
        let right = message.response_valid == 1 && bool::from(expected.bytes().ct_eq(answer));
        Ok(Some(right))
    }

    fn success(&self, page: &mut [u8]) -> usize {
        let mut message = AuthSuccess2::new_zeroed();
        message.header = header(auth_type::DH_HMAC_CHAP, auth_id::SUCCESS2, self.transaction);
        concat(page, &[message.as_bytes()])
    }

    fn failure(&self, page: &mut [u8]) -> usize {
        let mut message = AuthFailure::new_zeroed();
        message.header = header(auth_type::COMMON, auth_id::FAILURE2, self.transaction);
        (message.reason, message.explanation) = (auth_failure::REASON, auth_failure::FAILED);
        concat(page, &[message.as_bytes()])
    }
}

impl Initiator {
    /// Gives the queue what it needs when it is asked to authenticate; for good, also when it is
    /// opened again.
    pub fn authenticate_with(&mut self, with: HostAuthentication) {
        let identity = self.options.identity;
        self.exchange = Some(Box::new(HostExchange {
            with,
            host: identity.hostnqn,
            subsystem: identity.subnqn,
            step: Step::Idle,
            transaction: 0,
            pages: Vec::with_capacity(PAGES),
            expected: None,
        }));
    }

    /// Authenticates again. False when it cannot now, or is doing so.
    pub fn reauthenticate(&mut self, pool: &Pool) -> bool {
        let idle = self.exchange.as_ref().is_some_and(|exchange| exchange.step == Step::Idle);
        idle && self.room() > 0 && self.prepare_exchange(pool) && self.begin_exchange().is_ok()
    }

    /// Whether an exchange is under way.
    pub fn is_authenticating(&self) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| exchange.step != Step::Idle)
    }

    /// Takes the buffers for messages. False when the pool is exhausted.
    pub(super) fn prepare_exchange(&mut self, pool: &Pool) -> bool {
        let Some(exchange) = &mut self.exchange else { return true };
        exchange.step = Step::Idle;
        exchange.pages.clear();
        exchange.pages.extend((0..PAGES).map_while(|_| pool.take(PAGE)));
        exchange.pages.len() == PAGES
    }

    pub(super) fn begin_exchange(&mut self) -> Result<(), Failure> {
        let exchange = self.exchange.as_mut().ok_or(Failure::AuthenticationRequired)?;
        let mut page = exchange.page();
        exchange.transaction = exchange.transaction.wrapping_add(1);
        let len = exchange.negotiate(page.bytes_mut());
        self.send_message(Step::Negotiate, page, len);
        Ok(())
    }

    fn send_message(&mut self, step: Step, page: BufMut, len: usize) {
        self.submit_authentication(step, Data::From(page.freeze()), len);
    }

    fn receive_message(&mut self, step: Step) {
        let page = self.exchange.as_mut().expect("an exchange is under way").page();
        self.submit_authentication(step, Data::Into(page), PAGE);
    }

    fn submit_authentication(&mut self, step: Step, data: Data, len: usize) {
        let mut sqe = AuthenticationSqe::new_zeroed();
        sqe.opcode = opcode::FABRICS;
        sqe.fctype = match data {
            Data::Into(_) => opcode::fctype::AUTHENTICATION_RECEIVE,
            _ => opcode::fctype::AUTHENTICATION_SEND,
        };
        (sqe.spsp0, sqe.spsp1) = (SPSP_AUTHENTICATION, SPSP_AUTHENTICATION);
        sqe.secp = SECP_NVME;
        sqe.len = U32::new(narrow(len));
        self.exchange.as_mut().expect("an exchange is under way").step = step;
        let mut pending = Pending::new(Tag(0), zerocopy::transmute!(sqe), data, narrow(len));
        pending.authentication = true;
        self.send(pending);
    }

    /// A command of the exchange ended: the next one.
    pub(super) fn on_authentication(&mut self, pending: Pending, cqe: &Cqe) -> Result<(), Failure> {
        let status = cqe.nvme_status();
        if !status.is_success() {
            return Err(Failure::Refused { status, dw0: 0 });
        }
        let received = pending.into.as_ref().map_or(&[][..], |buf| buf.bytes());
        let exchange = self.exchange.as_mut().expect("an exchange is under way");
        match exchange.step {
            Step::Idle => unreachable!("nothing was sent"),
            Step::Negotiate => self.receive_message(Step::Challenge),
            Step::Challenge => {
                let mut page = exchange.page();
                let len = exchange.reply(received, page.bytes_mut())?;
                self.send_message(Step::Reply, page, len);
            }
            Step::Reply => self.receive_message(Step::Success1),
            Step::Success1 => match exchange.judge(received)? {
                None => self.exchange_done(),
                Some(true) => {
                    let mut page = exchange.page();
                    let len = exchange.success(page.bytes_mut());
                    self.send_message(Step::Success2, page, len);
                }
                Some(false) => {
                    let mut page = exchange.page();
                    let len = exchange.failure(page.bytes_mut());
                    self.send_message(Step::Failure2, page, len);
                }
            },
            Step::Success2 => self.exchange_done(),
            Step::Failure2 => return Err(Failure::WrongController),
        }
        Ok(())
    }

    fn exchange_done(&mut self) {
        let exchange = self.exchange.as_mut().expect("an exchange is under way");
        exchange.pages.clear();
        exchange.step = Step::Idle;
        if self.state == State::Authenticating {
            self.state = State::Ready;
        }
    }
}
