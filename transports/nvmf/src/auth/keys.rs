//! Secrets, and what they may be used with.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::Nqn;

/// A hash function of DH-HMAC-CHAP, the strongest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Hash {
    /// All of them.
    pub const ALL: [Hash; 3] = [Hash::Sha256, Hash::Sha384, Hash::Sha512];

    /// Its identifier on the wire and in secrets: 1 to 3.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Hash::Sha256 => 1,
            Hash::Sha384 => 2,
            Hash::Sha512 => 3,
        }
    }

    /// The function with this identifier.
    #[must_use]
    pub fn of(id: u8) -> Option<Hash> {
        Hash::ALL.into_iter().find(|hash| hash.id() == id)
    }

    /// Bytes of a hash.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Hash::Sha256 => 32,
            Hash::Sha384 => 48,
            Hash::Sha512 => 64,
        }
    }
}

/// A Diffie-Hellman group of DH-HMAC-CHAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// None: the exchange is HMAC-CHAP.
    Null,
    /// ffdhe2048 of RFC 7919.
    Ffdhe2048,
    /// ffdhe3072 of RFC 7919.
    Ffdhe3072,
    /// ffdhe4096 of RFC 7919.
    Ffdhe4096,
    /// ffdhe6144 of RFC 7919.
    Ffdhe6144,
    /// ffdhe8192 of RFC 7919.
    Ffdhe8192,
}

impl Group {
    /// All of them.
    pub const ALL: [Group; 6] = [
        Group::Null,
        Group::Ffdhe2048,
        Group::Ffdhe3072,
        Group::Ffdhe4096,
        Group::Ffdhe6144,
        Group::Ffdhe8192,
    ];

    /// Which one is taken when a host offers several and none is configured: the cheapest that
    /// keeps the exchange from being an oracle for guessing the secret, and the null group last.
    pub(crate) const PREFERRED: [Group; 6] = [
        Group::Ffdhe2048,
        Group::Ffdhe3072,
        Group::Ffdhe4096,
        Group::Ffdhe6144,
        Group::Ffdhe8192,
        Group::Null,
    ];

    /// Its identifier on the wire.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Group::Null => 0,
            Group::Ffdhe2048 => 1,
            Group::Ffdhe3072 => 2,
            Group::Ffdhe4096 => 3,
            Group::Ffdhe6144 => 4,
            Group::Ffdhe8192 => 5,
        }
    }

    /// The group with this identifier.
    #[must_use]
    pub fn of(id: u8) -> Option<Group> {
        Group::ALL.into_iter().find(|group| group.id() == id)
    }

    /// Bytes of its values; none for the null group.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Group::Null => 0,
            Group::Ffdhe2048 => 256,
            Group::Ffdhe3072 => 384,
            Group::Ffdhe4096 => 512,
            Group::Ffdhe6144 => 768,
            Group::Ffdhe8192 => 1024,
        }
    }

    /// Bytes of a private exponent.
    //= RFC 7919 §5.2
    //# Peers concerned with performance may also prefer to choose their secret exponent from a
    //# smaller range, doing fewer multiplications, while retaining the same level of overall
    //# security.
    pub(crate) const fn exponent_len(self) -> usize {
        // At least what the table of that section asks for, in whole multiples of 64 bits.
        match self {
            Group::Null => 0,
            Group::Ffdhe2048 => 32,
            Group::Ffdhe3072 => 40,
            Group::Ffdhe4096 => 48,
            Group::Ffdhe6144 => 56,
            Group::Ffdhe8192 => 64,
        }
    }
}

/// Bytes of the longest private exponent.
pub(crate) const EXPONENT_MAX: usize = 64;

const _: () = assert!(Group::Ffdhe8192.exponent_len() == EXPONENT_MAX);
const _: () = assert!(Group::Ffdhe8192.size() == nvme_spec::AUTH_DH_MAX);
const _: () = assert!(Hash::Sha512.size() == nvme_spec::AUTH_HASH_MAX);

/// A secret of DH-HMAC-CHAP. It is wiped when it is dropped and never printed.
#[derive(Clone)]
pub struct Secret {
    transform: Option<Hash>,
    key: Zeroizing<Vec<u8>>,
}

impl Secret {
    /// A secret of 32, 48 or 64 bytes; `None` for any other length. `transform` is the hash with
    /// which the secret is bound to a name before it is used.
    #[must_use]
    pub fn new(transform: Option<Hash>, key: &[u8]) -> Option<Secret> {
        matches!(key.len(), 32 | 48 | 64)
            .then(|| Secret { transform, key: Zeroizing::new(key.to_vec()) })
    }

    pub(crate) fn transform(&self) -> Option<Hash> {
        self.transform
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.transform == other.transform && bool::from(self.key.ct_eq(&other.key))
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// How one host proves who it is. A host that has this must authenticate wherever it connects,
/// but for discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKeys {
    /// The host.
    pub host: Nqn,
    /// The secret of the host.
    pub key: Secret,
    /// The secret with which the controller answers a host that challenges it. Without one such a
    /// host is refused.
    pub controller_key: Option<Secret>,
    /// The hash function to use; the strongest that is offered without it.
    pub hash: Option<Hash>,
    /// The group to use; the smallest that is offered without it, and the null group last.
    pub group: Option<Group>,
}

/// Who has to prove who it is, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authentication {
    /// Hosts with secrets, in any order.
    pub hosts: Vec<HostKeys>,
    /// Subsystems that take hosts with secrets only.
    pub required: Vec<Nqn>,
}

/// Why a host did not prove who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthFault {
    /// Its response is wrong: it does not have the secret.
    Response,
    /// It wants an answer from the controller, which has no secret for that.
    NoControllerKey,
    /// It has no secret (any more).
    NoKey,
    /// It offers no protocol that is known here.
    Protocol,
    /// It wants a secure channel made from the exchange.
    Concatenation,
    /// It offers no hash function that may be used.
    Hash,
    /// It offers no group that may be used.
    Group,
    /// It sent something that makes no sense.
    Payload,
    /// It sent something out of turn.
    Message,
    /// It refused the controller's response, or gave up.
    Host,
    /// It took too long.
    Timeout,
}

impl AuthFault {
    /// What the host is told.
    pub(crate) fn explanation(self) -> u8 {
        use nvme_spec::auth_failure as explanation;
        match self {
            AuthFault::Response
            | AuthFault::NoControllerKey
            | AuthFault::Host
            | AuthFault::Timeout => explanation::FAILED,
            AuthFault::NoKey | AuthFault::Protocol => explanation::PROTOCOL_UNUSABLE,
            AuthFault::Concatenation => explanation::CONCATENATION_MISMATCH,
            AuthFault::Hash => explanation::HASH_UNUSABLE,
            AuthFault::Group => explanation::GROUP_UNUSABLE,
            AuthFault::Payload => explanation::INCORRECT_PAYLOAD,
            AuthFault::Message => explanation::INCORRECT_MESSAGE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_one_of_three_lengths_and_is_never_printed() {
        for len in 0..=65 {
            let secret = Secret::new(None, &vec![0x5a; len]);
            assert_eq!(secret.is_some(), [32, 48, 64].contains(&len), "{len} bytes");
        }
        let secret = Secret::new(Some(Hash::Sha256), &[0x5a; 32]).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_ne!(secret, Secret::new(None, &[0x5a; 32]).unwrap());
        assert_ne!(secret, Secret::new(Some(Hash::Sha256), &[0x5a; 48]).unwrap());
    }

    #[test]
    fn identifiers_name_hashes_and_groups_both_ways() {
        assert!(Hash::ALL.into_iter().all(|hash| Hash::of(hash.id()) == Some(hash)));
        assert!(Group::ALL.into_iter().all(|group| Group::of(group.id()) == Some(group)));
        assert_eq!((Hash::of(0), Hash::of(4), Group::of(6)), (None, None, None));
    }
}
