//! Exports: volumes that hosts can reach.

use uuid::Uuid;

use crate::limits::{HOSTS_PER_EXPORT_MAX, NAMESPACES_PER_SUBSYSTEM_MAX};
use crate::{Access, ApiError, Nqn, VolumeName};

/// Who may connect to an export: the hosts to which the namespace is attached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HostAccess {
    /// Every host that reaches the listener.
    Any,
    /// Only these hosts, sorted and without repetition. An empty list admits nobody.
    Listed(Vec<Nqn>),
}

impl HostAccess {
    /// An allow list.
    ///
    /// # Errors
    /// `ResourceExhausted` when the list is longer than [`HOSTS_PER_EXPORT_MAX`].
    pub fn listed(mut hosts: Vec<Nqn>) -> Result<Self, ApiError> {
        hosts.sort();
        hosts.dedup();
        if hosts.len() > HOSTS_PER_EXPORT_MAX {
            let reason = format!("{} hosts are more than an export can list", hosts.len());
            let hint = format!("use at most {HOSTS_PER_EXPORT_MAX}, or allow any host");
            return Err(ApiError::exhausted(reason, hint));
        }
        Ok(Self::Listed(hosts))
    }

    /// Whether `host` may connect.
    #[must_use]
    pub fn admits(&self, host: &Nqn) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(hosts) => hosts.binary_search(host).is_ok(),
        }
    }

    /// The listed hosts; empty when any host may connect.
    #[must_use]
    pub fn hosts(&self) -> &[Nqn] {
        match self {
            Self::Any => &[],
            Self::Listed(hosts) => hosts,
        }
    }
}

/// Exports a volume as a namespace of a subsystem: of one of its own, or of one that is there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExportAdd {
    /// The volume.
    pub volume: VolumeName,
    /// The name of the subsystem; `None` lets the node choose one from its own name. The name of
    /// another export adds a namespace to its subsystem.
    pub nqn: Option<Nqn>,
    /// The NSID; `None` lets the node choose one that the subsystem does not use.
    pub nsid: Option<u32>,
    /// Who may connect.
    pub access: HostAccess,
    /// Whether hosts without keys are refused, also those that are listed.
    pub require_authentication: bool,
}

/// Checks an NSID that somebody chose.
///
/// # Errors
/// `InvalidArgument` when it is zero or beyond [`NAMESPACES_PER_SUBSYSTEM_MAX`].
pub fn check_nsid(nsid: u32) -> Result<u32, ApiError> {
    if (1..=NAMESPACES_PER_SUBSYSTEM_MAX).contains(&nsid) {
        return Ok(nsid);
    }
    let reason = format!("{nsid} is not the number of a namespace");
    let hint = format!("use 1 to {NAMESPACES_PER_SUBSYSTEM_MAX}");
    Err(ApiError::invalid("nsid", reason, hint))
}

/// Removes an export: its hosts are disconnected, the data stays.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExportRemove {
    /// The exported volume.
    pub volume: VolumeName,
}

/// Adds hosts to an allow list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostsAdd {
    /// The exported volume.
    pub volume: VolumeName,
    /// The hosts to admit.
    pub hosts: Vec<Nqn>,
}

/// Removes hosts from an allow list; their sessions end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostsRemove {
    /// The exported volume.
    pub volume: VolumeName,
    /// The hosts to refuse from now on.
    pub hosts: Vec<Nqn>,
}

/// What a node says of an export.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Export {
    /// The exported volume.
    pub volume: VolumeName,
    /// The subsystem that holds it.
    pub nqn: Nqn,
    /// The namespace in that subsystem.
    pub nsid: u32,
    /// The identity of the namespace: the volume's.
    pub uuid: Uuid,
    /// Who may connect.
    pub access: HostAccess,
    /// How good a path this node is to it.
    pub paths: Access,
    /// Whether hosts without keys are refused.
    pub require_authentication: bool,
    /// Addresses at which the subsystem listens, as `ip:port`.
    pub listeners: Vec<String>,
    /// Whether hosts can connect now.
    pub online: bool,
    /// Why they cannot, or empty.
    pub reason: String,
    /// Controllers connected now.
    pub sessions: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: usize) -> Nqn {
        format!("nqn.2014-08.com.example:host-{number}").parse().unwrap()
    }

    #[test]
    fn a_list_admits_exactly_its_members() {
        let access = HostAccess::listed(vec![host(2), host(1), host(2)]).unwrap();
        assert_eq!(access.hosts(), [host(1), host(2)]);
        assert!(access.admits(&host(1)));
        assert!(!access.admits(&host(3)));
        assert!(HostAccess::Any.admits(&host(3)));
        assert!(!HostAccess::listed(Vec::new()).unwrap().admits(&host(1)));
    }

    #[test]
    fn namespace_numbers_are_bounded() {
        assert_eq!(check_nsid(1), Ok(1));
        assert_eq!(check_nsid(NAMESPACES_PER_SUBSYSTEM_MAX), Ok(NAMESPACES_PER_SUBSYSTEM_MAX));
        assert!(check_nsid(0).is_err());
        assert!(check_nsid(NAMESPACES_PER_SUBSYSTEM_MAX + 1).is_err());
    }

    #[test]
    fn the_list_is_bounded_after_repetitions_are_removed() {
        let full: Vec<_> = (0..HOSTS_PER_EXPORT_MAX).chain(0..3).map(host).collect();
        assert!(HostAccess::listed(full).is_ok());
        let over: Vec<_> = (0..=HOSTS_PER_EXPORT_MAX).map(host).collect();
        assert!(HostAccess::listed(over).is_err());
    }
}
