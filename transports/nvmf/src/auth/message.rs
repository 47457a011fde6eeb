//! The messages: what a host sends, checked; what it is sent, as bytes.

use nvme_spec::{
    AUTHID_DH_HMAC_CHAP, AuthChallenge, AuthFailure, AuthHeader, AuthNegotiate, AuthProtocol,
    AuthReply, AuthSuccess1, U16, U32, auth_failure, auth_id, auth_type,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::computation::{Computation, Reply};
use super::keys::{AuthFault, Group, Hash, HostKeys};

/// AUTH_TYPE, AUTH_ID and T_ID of a message.
pub(super) fn header(bytes: &[u8]) -> Option<AuthHeader> {
    Some(AuthHeader::read_from_prefix(bytes).ok()?.0)
}

/// The hash function and the group for an offer.
//= NVMe-Base 2.1 §8.3.4
//# the controller chooses among what the host offers, or answers with AUTH_Failure1
pub(super) fn choose(bytes: &[u8], keys: &HostKeys) -> Result<(Hash, Group), AuthFault> {
    let (negotiate, rest) =
        AuthNegotiate::read_from_prefix(bytes).map_err(|_| AuthFault::Payload)?;
    if negotiate.secure_channel != 0 {
        return Err(AuthFault::Concatenation);
    }
    let count = usize::from(negotiate.protocols);
    let (protocols, _) = <[AuthProtocol]>::ref_from_prefix_with_elems(rest, count)
        .map_err(|_| AuthFault::Payload)?;
    let ours = protocols.iter().find(|protocol| protocol.auth_id == AUTHID_DH_HMAC_CHAP);
    let ours = ours.ok_or(AuthFault::Protocol)?;
    let hashes = ours.hashes.get(..usize::from(ours.hash_count)).ok_or(AuthFault::Payload)?;
    let groups = ours.groups.get(..usize::from(ours.group_count)).ok_or(AuthFault::Payload)?;
    let strongest_first = Hash::ALL.into_iter().rev();
    let hash = strongest_first
        .filter(|hash| keys.hash.is_none_or(|only| only == *hash))
        .find(|hash| hashes.contains(&hash.id()));
    let group = (Group::PREFERRED.into_iter())
        .filter(|group| keys.group.is_none_or(|only| only == *group))
        .find(|group| groups.contains(&group.id()));
    Ok((hash.ok_or(AuthFault::Hash)?, group.ok_or(AuthFault::Group)?))
}

/// Copies a reply out of its message.
//= NVMe-Base 2.1 §8.3.4
//# HL is that of the chosen hash, and there is a DH value unless the group is null
pub(super) fn read_reply(
    bytes: &[u8],
    hash: Hash,
    group: Group,
    reply: &mut Reply,
) -> Result<(), AuthFault> {
    let (message, rest) = AuthReply::read_from_prefix(bytes).map_err(|_| AuthFault::Payload)?;
    let (len, public_len) = (hash.size(), usize::from(message.dh_len.get()));
    let fits = usize::from(message.hash_len) == len
        && public_len <= group.size()
        && (public_len == 0) == (group == Group::Null)
        && rest.len() >= 2 * len + public_len;
    if !fits || message.challenge_valid > 1 {
        return Err(AuthFault::Payload);
    }
    reply.response[..len].copy_from_slice(&rest[..len]);
    reply.challenge[..len].copy_from_slice(&rest[len..2 * len]);
    reply.public[..public_len].copy_from_slice(&rest[2 * len..2 * len + public_len]);
    reply.public_len = public_len;
    reply.challenged = message.challenge_valid == 1;
    reply.sequence = message.sequence.get();
    // A sequence number of 0 says that the challenge is for a secure channel only.
    if reply.challenged && reply.sequence == 0 {
        return Err(AuthFault::Concatenation);
    }
    Ok(())
}

/// Puts the parts one behind the other; `None` when there is no room.
fn put(page: &mut [u8], parts: &[&[u8]]) -> Option<()> {
    let mut at = 0;
    for part in parts {
        page.get_mut(at..at + part.len())?.copy_from_slice(part);
        at += part.len();
    }
    Some(())
}

fn head(kind: u8, id: u8, transaction: u16) -> AuthHeader {
    let mut header = AuthHeader::new_zeroed();
    (header.auth_type, header.auth_id) = (kind, id);
    header.transaction = U16::new(transaction);
    header
}

/// DH-HMAC-CHAP_Challenge.
pub(super) fn put_challenge(page: &mut [u8], computed: &Computation) -> Option<()> {
    let mut message = AuthChallenge::new_zeroed();
    message.header = head(auth_type::DH_HMAC_CHAP, auth_id::CHALLENGE, computed.transaction);
    message.hash_len = u8::try_from(computed.hash.size()).expect("at most 64");
    message.hash = computed.hash.id();
    message.group = computed.group.id();
    message.dh_len = U16::new(u16::try_from(computed.public().len()).expect("at most 1024"));
    message.sequence = U32::new(computed.sequence);
    put(page, &[message.as_bytes(), computed.challenge(), computed.public()])
}

/// DH-HMAC-CHAP_Success1.
pub(super) fn put_success(page: &mut [u8], computed: &Computation) -> Option<()> {
    let mut message = AuthSuccess1::new_zeroed();
    message.header = head(auth_type::DH_HMAC_CHAP, auth_id::SUCCESS1, computed.transaction);
    message.hash_len = u8::try_from(computed.hash.size()).expect("at most 64");
    let zeroes = [0; nvme_spec::AUTH_HASH_MAX];
    let answer = computed.answer();
    message.response_valid = u8::from(answer.is_some());
    put(page, &[message.as_bytes(), answer.unwrap_or(&zeroes[..computed.hash.size()])])
}

/// AUTH_Failure1.
pub(super) fn put_failure(page: &mut [u8], transaction: u16, fault: AuthFault) -> Option<()> {
    let mut message = AuthFailure::new_zeroed();
    message.header = head(auth_type::COMMON, auth_id::FAILURE1, transaction);
    message.reason = auth_failure::REASON;
    message.explanation = fault.explanation();
    put(page, &[message.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::super::keys::Secret;
    use super::*;
    use crate::Nqn;

    fn keys(hash: Option<Hash>, group: Option<Group>) -> HostKeys {
        let host = Nqn::new("nqn.2026-11.io.example:h").unwrap();
        let key = Secret::new(None, &[1; 32]).unwrap();
        HostKeys { host, key, controller_key: None, hash, group }
    }

    fn offer(hashes: &[u8], groups: &[u8]) -> Vec<u8> {
        let mut protocol = AuthProtocol::new_zeroed();
        protocol.auth_id = AUTHID_DH_HMAC_CHAP;
        protocol.hash_count = u8::try_from(hashes.len()).unwrap();
        protocol.group_count = u8::try_from(groups.len()).unwrap();
        protocol.hashes[..hashes.len()].copy_from_slice(hashes);
        protocol.groups[..groups.len()].copy_from_slice(groups);
        [&[0, 0, 0, 0, 7, 0, 0, 1][..], protocol.as_bytes()].concat()
    }

    #[test]
    fn the_strongest_hash_and_the_smallest_group_are_chosen() {
        let any = keys(None, None);
        let all = offer(&[1, 2, 3], &[0, 1, 2, 3, 4, 5]);
        assert_eq!(choose(&all, &any), Ok((Hash::Sha512, Group::Ffdhe2048)));
        assert_eq!(choose(&offer(&[1], &[0, 5]), &any), Ok((Hash::Sha256, Group::Ffdhe8192)));
        assert_eq!(choose(&offer(&[9, 2], &[0]), &any), Ok((Hash::Sha384, Group::Null)));
    }

    #[test]
    fn what_is_configured_is_used_or_nothing() {
        let only = keys(Some(Hash::Sha256), Some(Group::Ffdhe4096));
        let all = offer(&[1, 2, 3], &[0, 1, 2, 3, 4, 5]);
        assert_eq!(choose(&all, &only), Ok((Hash::Sha256, Group::Ffdhe4096)));
        assert_eq!(choose(&offer(&[2, 3], &[3]), &only), Err(AuthFault::Hash));
        assert_eq!(choose(&offer(&[1], &[0, 1]), &only), Err(AuthFault::Group));
    }

    #[test]
    fn offers_that_lie_about_their_length_are_refused() {
        let any = keys(None, None);
        let good = offer(&[1], &[0]);
        for len in 0..good.len() {
            assert_eq!(choose(&good[..len], &any), Err(AuthFault::Payload), "{len} bytes");
        }
        let changed = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            choose(&bytes, &any)
        };
        assert_eq!(changed(6, 1), Err(AuthFault::Concatenation));
        assert_eq!(changed(7, 0), Err(AuthFault::Protocol));
        assert_eq!(changed(7, 2), Err(AuthFault::Payload));
        assert_eq!(changed(8, 2), Err(AuthFault::Protocol));
        assert_eq!(changed(10, 31), Err(AuthFault::Payload));
        assert_eq!(changed(11, 31), Err(AuthFault::Payload));
        assert_eq!(changed(11, 0), Err(AuthFault::Group));
    }
}
