//! Hosts that prove who they are.

use crate::{ApiError, DhchapGroup, DhchapHash, DhchapKey, Nqn};

/// How a host proves who it is. It is asked to wherever it connects.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostSet {
    nqn: Nqn,
    key: DhchapKey,
    controller_key: Option<DhchapKey>,
    hash: Option<DhchapHash>,
    group: Option<DhchapGroup>,
}

impl HostSet {
    /// A host with its keys.
    ///
    /// # Errors
    /// When both keys are the same: then a host could be had to answer its own questions.
    pub fn new(
        nqn: Nqn,
        key: DhchapKey,
        controller_key: Option<DhchapKey>,
        hash: Option<DhchapHash>,
        group: Option<DhchapGroup>,
    ) -> Result<Self, ApiError> {
        if controller_key.as_ref().is_some_and(|other| other.secret() == key.secret()) {
            let reason = "it is the key of the host as well";
            return Err(ApiError::invalid("dhchap-ctrl-key", reason, "make another one"));
        }
        Ok(Self { nqn, key, controller_key, hash, group })
    }

    /// The host.
    #[must_use]
    pub fn nqn(&self) -> &Nqn {
        &self.nqn
    }

    /// With what it proves who it is.
    #[must_use]
    pub fn key(&self) -> &DhchapKey {
        &self.key
    }

    /// With what the node proves to it that it is the node.
    #[must_use]
    pub fn controller_key(&self) -> Option<&DhchapKey> {
        self.controller_key.as_ref()
    }

    /// The hash function to use; without it the strongest that the host offers.
    #[must_use]
    pub fn hash(&self) -> Option<DhchapHash> {
        self.hash
    }

    /// The group to use; without it the smallest that the host offers, and the null group last.
    #[must_use]
    pub fn group(&self) -> Option<DhchapGroup> {
        self.group
    }
}

/// Forgets the keys of a host: it is not asked any more who it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostRemove {
    /// The host.
    pub nqn: Nqn,
}

/// What a node says of a host with keys. The keys themselves it never says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Host {
    /// The host.
    pub nqn: Nqn,
    /// The node can prove to it that it is the node.
    pub has_controller_key: bool,
    /// The hash function to use, if only one may be used.
    pub hash: Option<DhchapHash>,
    /// The group to use, if only one may be used.
    pub group: Option<DhchapGroup>,
}

impl From<&HostSet> for Host {
    fn from(set: &HostSet) -> Self {
        let has_controller_key = set.controller_key.is_some();
        Self { nqn: set.nqn.clone(), has_controller_key, hash: set.hash, group: set.group }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_keys_of_a_host_differ() {
        let key = |byte: u8| DhchapKey::new(None, &[byte; 32]).unwrap();
        let set = |other| {
            let nqn = "nqn.2014-08.com.example:h".parse().unwrap();
            HostSet::new(nqn, key(1), Some(other), None, None)
        };
        assert!(set(key(2)).is_ok());
        assert!(set(key(1)).is_err());
        let bound = DhchapKey::new(Some(DhchapHash::Sha256), &[1; 32]).unwrap();
        assert!(set(bound).is_err(), "the same secret in another form");
    }
}
