//! What has to be computed for an authentication, somewhere else: a connection hands it out, and
//! takes it back when it is done.

use std::fmt;
use std::sync::Arc;

use nvme_spec::{AUTH_DH_MAX, AUTH_HASH_MAX};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::group::{public_value, shared_value};
use super::keys::{AuthFault, EXPONENT_MAX, Group, Hash, HostKeys};
use super::mac::Question;
use crate::Nqn;

/// Something that a connection wants to have computed: a challenge, or whether a response is right.
/// It takes up to tens of milliseconds, so no reactor does it: see [`crate::Connection`].
///
/// One exists for each connection, from the start; it goes out and comes back.
pub struct Computation {
    pub(super) connection: u32,
    /// Which exchange it belongs to: that of an earlier one is void.
    pub(super) ticket: u64,
    pub(super) work: Work,
    pub(super) result: Result<(), AuthFault>,
    pub(super) keys: Option<Arc<HostKeys>>,
    pub(super) host: Nqn,
    pub(super) subsystem: Nqn,
    pub(super) hash: Hash,
    pub(super) group: Group,
    pub(super) transaction: u16,
    /// S1.
    pub(super) sequence: u32,
    challenge: [u8; AUTH_HASH_MAX],
    private: [u8; EXPONENT_MAX],
    public: [u8; AUTH_DH_MAX],
    pub(super) reply: Reply,
    answer: [u8; AUTH_HASH_MAX],
}

/// What is to be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// A challenge and a DH value.
    Challenge,
    /// Whether the reply is right, and the answer to its challenge.
    Verify,
}

/// What a host replied.
pub(super) struct Reply {
    pub(super) response: [u8; AUTH_HASH_MAX],
    /// The host wants an answer from the controller.
    pub(super) challenged: bool,
    pub(super) challenge: [u8; AUTH_HASH_MAX],
    /// S2.
    pub(super) sequence: u32,
    pub(super) public: [u8; AUTH_DH_MAX],
    pub(super) public_len: usize,
}

impl Computation {
    pub(super) fn new(connection: u32, nobody: Nqn) -> Box<Computation> {
        Box::new(Computation {
            connection,
            ticket: 0,
            work: Work::Challenge,
            result: Ok(()),
            keys: None,
            host: nobody,
            subsystem: nobody,
            hash: Hash::Sha256,
            group: Group::Null,
            transaction: 0,
            sequence: 0,
            challenge: [0; AUTH_HASH_MAX],
            private: [0; EXPONENT_MAX],
            public: [0; AUTH_DH_MAX],
            reply: Reply {
                response: [0; AUTH_HASH_MAX],
                challenged: false,
                challenge: [0; AUTH_HASH_MAX],
                sequence: 0,
                public: [0; AUTH_DH_MAX],
                public_len: 0,
            },
            answer: [0; AUTH_HASH_MAX],
        })
    }

    /// The index of the connection that wants it back.
    #[must_use]
    pub fn connection(&self) -> u32 {
        self.connection
    }

    /// The challenge.
    pub(super) fn challenge(&self) -> &[u8] {
        &self.challenge[..self.hash.size()]
    }

    /// The DH value; empty in the null group.
    pub(super) fn public(&self) -> &[u8] {
        &self.public[..self.group.size()]
    }

    /// The answer to the host's challenge, if it made one.
    pub(super) fn answer(&self) -> Option<&[u8]> {
        self.reply.challenged.then(|| &self.answer[..self.hash.size()])
    }

    /// Forgets everything that is secret, or answers something.
    pub(super) fn wipe(&mut self) {
        self.keys = None;
        self.challenge.zeroize();
        self.private.zeroize();
        self.answer.zeroize();
        self.reply.response.zeroize();
        self.reply.challenge.zeroize();
        self.reply.challenged = false;
    }

    fn make_challenge(&mut self, random: &mut dyn FnMut(&mut [u8]), sequence: u32) {
        let exponent_len = self.group.exponent_len();
        random(&mut self.challenge);
        random(&mut self.private[..exponent_len]);
        let value = public_value(self.group, &self.private[..exponent_len]);
        self.public[..value.len()].copy_from_slice(&value);
        self.sequence = sequence;
    }

    fn verify(&mut self) -> Result<(), AuthFault> {
        let keys = self.keys.take().ok_or(AuthFault::NoKey)?;
        let len = self.hash.size();
        let shared = match self.group {
            Group::Null => None,
            group => {
                let private = &self.private[..group.exponent_len()];
                let peer = &self.reply.public[..self.reply.public_len];
                Some(shared_value(group, private, peer).ok_or(AuthFault::Payload)?)
            }
        };
        let question = Question {
            hash: self.hash,
            challenge: &self.challenge[..len],
            shared: shared.as_ref().map(|shared| shared.as_slice()),
            sequence: self.sequence,
            transaction: self.transaction,
            host: &self.host,
            subsystem: &self.subsystem,
        };
        let expected = question.host_response(&keys.key);
        if !bool::from(expected.bytes().ct_eq(&self.reply.response[..len])) {
            return Err(AuthFault::Response);
        }
        if !self.reply.challenged {
            return Ok(());
        }
        // A host that sends our own challenge back wants us to do its work.
        if self.reply.challenge[..len] == self.challenge[..len] {
            return Err(AuthFault::Payload);
        }
        let controller_key = keys.controller_key.as_ref().ok_or(AuthFault::NoControllerKey)?;
        let answering = Question {
            challenge: &self.reply.challenge[..len],
            sequence: self.reply.sequence,
            ..question
        };
        let answer = answering.controller_response(controller_key);
        self.answer[..len].copy_from_slice(answer.bytes());
        Ok(())
    }
}

impl Drop for Computation {
    fn drop(&mut self) {
        self.wipe();
    }
}

impl fmt::Debug for Computation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Computation").field("connection", &self.connection).finish_non_exhaustive()
    }
}

/// Does the computations of a node. It is driven by a thread that is no reactor; the randomness
/// comes from outside, as everything does.
pub struct Authenticator<R> {
    random: R,
    sequence: u32,
}

impl<R: FnMut(&mut [u8])> Authenticator<R> {
    /// `random` fills bytes so that nobody can guess them.
    pub fn new(mut random: R) -> Authenticator<R> {
        let mut start = [0; 4];
        random(&mut start);
        Authenticator { random, sequence: u32::from_le_bytes(start) }
    }

    /// Computes what is wanted; hand it back with [`crate::Connection::on_computed`].
    pub fn compute(&mut self, computation: &mut Computation) {
        computation.result = match computation.work {
            Work::Challenge => {
                let sequence = self.next_sequence();
                computation.make_challenge(&mut self.random, sequence);
                Ok(())
            }
            Work::Verify => computation.verify(),
        };
    }

    //= NVMe-Base 2.1 §8.3.4
    //# sequence numbers start at random, grow by one, and are never 0
    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.sequence
    }
}

impl<R> fmt::Debug for Authenticator<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_are_never_zero() {
        let mut authenticator = Authenticator::new(|bytes: &mut [u8]| bytes.fill(0xff));
        assert_eq!(authenticator.next_sequence(), 1);
        assert_eq!(authenticator.next_sequence(), 2);
    }
}
