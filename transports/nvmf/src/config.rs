//! What a target offers: ports, subsystems, namespaces and the hosts that may use them.
//!
//! A [`Config`] is plain data. [`crate::Target::new`] and [`crate::Target::replace`] check it and
//! turn it into a snapshot that connections share.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use nvme_spec::DISCOVERY_NQN;

use crate::limits::{
    HOST_KEYS_MAX, HOSTS_MAX, NAMESPACES_MAX, PORTS_MAX, REFERRALS_MAX, SUBSYSTEMS_MAX,
};
use crate::{AnaState, Authentication, Nqn};

/// Names a namespace to the shard, which maps it to a queue. Connections copy it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceHandle(pub u32);

/// One volume as hosts see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// NSID: 1 to [`NAMESPACES_MAX`], unique in its subsystem.
    pub nsid: u32,
    /// What the shard calls it.
    pub handle: NamespaceHandle,
    /// The volume's UUID: the same on every node, never all zero. NGUID and EUI64 derive from it.
    pub uuid: [u8; 16],
    /// Bytes in a logical block: 512 or 4096.
    pub block_size: u32,
    /// Logical blocks; at least one.
    pub blocks: u64,
    /// Logical blocks that are written all or not at all, also across a power failure: 1 to 65536.
    pub atomic_blocks: u32,
    /// Who reaches it, and how.
    pub reach: Reach,
}

/// Which hosts a namespace is attached to, and how good a path this node is to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Of the hosts that may connect to the subsystem, those that see the namespace.
    pub hosts: Hosts,
    /// What holds for it on this node.
    pub state: AnaState,
    /// What holds at single ports, by their identifiers, where that is worse.
    pub ports: Vec<(u16, AnaState)>,
    /// What is reserved here can outlive a restart of the node.
    pub persists: bool,
}

impl Default for Reach {
    /// Every host, optimized everywhere; what is reserved goes with the node.
    fn default() -> Reach {
        let (hosts, state, ports) = (Hosts::Any, AnaState::Optimized, Vec::new());
        Reach { hosts, state, ports, persists: false }
    }
}

impl Reach {
    /// The state at a port: the worse of the node's and the port's own.
    pub(crate) fn state_at(&self, port: Option<u16>) -> AnaState {
        let of_port =
            self.ports.iter().filter(|(id, _)| Some(*id) == port).map(|(_, state)| *state);
        of_port.fold(self.state, AnaState::max)
    }
}

impl Namespace {
    /// Whether the two differ in nothing that namespace attributes are.
    pub(crate) fn looks_like(&self, other: &Namespace) -> bool {
        let identity = |namespace: &Namespace| (namespace.nsid, namespace.handle, namespace.uuid);
        let shape = |namespace: &Namespace| {
            (namespace.block_size, namespace.blocks, namespace.atomic_blocks)
        };
        identity(self) == identity(other) && shape(self) == shape(other)
    }

    /// NGUID: the volume's UUID.
    pub fn nguid(&self) -> [u8; 16] {
        self.uuid
    }

    /// EUI64: both halves of the UUID folded, marked as locally administered and so never zero.
    pub fn eui64(&self) -> [u8; 8] {
        let mut eui: [u8; 8] = std::array::from_fn(|i| self.uuid[i] ^ self.uuid[i + 8]);
        eui[0] = eui[0] & !0x01 | 0x02;
        eui
    }
}

/// Which hosts may connect to a subsystem, and find it by discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Every host.
    Any,
    /// These alone.
    List(Vec<Nqn>),
}

impl Hosts {
    /// Whether `host` may connect.
    pub fn allows(&self, host: &Nqn) -> bool {
        match self {
            Hosts::Any => true,
            Hosts::List(list) => list.contains(host),
        }
    }
}

/// A subsystem: a name, namespaces and the hosts that may use them. It is on every port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subsystem {
    /// SUBNQN.
    pub nqn: Nqn,
    /// SN: 1 to 20 printable ASCII characters; the same on every node.
    pub serial: String,
    /// Who may connect.
    pub hosts: Hosts,
    /// Its namespaces, in any order.
    pub namespaces: Vec<Namespace>,
}

/// A listening address for I/O connections, as discovery reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// PORTID: unique in the target.
    pub id: u16,
    /// The address. An unspecified one (`0.0.0.0`, `::`) is reported to each host as the address
    /// through which that host came.
    pub address: SocketAddr,
}

/// Another discovery service, which hosts are told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referral {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its unique name; `None` for the well-known one.
    pub nqn: Option<Nqn>,
}

/// Everything a target offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Where I/O connections are accepted.
    pub ports: Vec<Port>,
    /// What can be connected to.
    pub subsystems: Vec<Subsystem>,
    /// The unique NQN of this target's discovery subsystem, beside the well-known one.
    pub discovery_nqn: Option<Nqn>,
    /// Other discovery services.
    pub referrals: Vec<Referral>,
    /// Who has to prove who it is.
    pub authentication: Authentication,
}

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// More of something than a limit allows.
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        max: usize,
    },
    /// Two subsystems have this NQN, or one has a discovery NQN.
    DuplicateNqn(Box<Nqn>),
    /// Two ports have this identifier.
    DuplicatePort(u16),
    /// Two secrets are for this host.
    DuplicateHost(Box<Nqn>),
    /// Two namespaces of this subsystem have this NSID.
    DuplicateNsid(Box<Nqn>, u32),
    /// A serial number that is empty, too long, or not printable ASCII.
    Serial(Box<Nqn>),
    /// A namespace with an impossible field.
    Namespace {
        /// The subsystem.
        nqn: Box<Nqn>,
        /// The namespace.
        nsid: u32,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::TooMany { what, max } => write!(f, "more than {max} {what}"),
            ConfigError::DuplicateNqn(nqn) => write!(f, "{nqn} is used twice"),
            ConfigError::DuplicateHost(nqn) => write!(f, "host {nqn} has two secrets"),
            ConfigError::DuplicatePort(id) => write!(f, "port {id} is used twice"),
            ConfigError::DuplicateNsid(nqn, nsid) => write!(f, "{nqn} has namespace {nsid} twice"),
            ConfigError::Serial(nqn) => {
                write!(f, "{nqn}: the serial number needs 1 to 20 printable ASCII characters")
            }
            ConfigError::Namespace { nqn, nsid, what } => {
                write!(f, "{nqn}, namespace {nsid}: {what}")
            }
        }
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Checks everything that the protocol and the limits ask for.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        at_most("ports", self.ports.len(), PORTS_MAX)?;
        at_most("subsystems", self.subsystems.len(), SUBSYSTEMS_MAX)?;
        at_most("referrals", self.referrals.len(), REFERRALS_MAX)?;
        let hosts = &self.authentication.hosts;
        at_most("hosts with secrets", hosts.len(), HOST_KEYS_MAX)?;
        let mut names: Vec<&str> = hosts.iter().map(|keys| keys.host.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let nqn = Nqn::new(twice[0]).expect("it is the name of one");
            return Err(ConfigError::DuplicateHost(nqn.into()));
        }
        for (i, port) in self.ports.iter().enumerate() {
            if self.ports[..i].iter().any(|other| other.id == port.id) {
                return Err(ConfigError::DuplicatePort(port.id));
            }
        }
        let mut names = BTreeSet::new();
        for subsystem in &self.subsystems {
            let nqn = subsystem.nqn;
            let taken = !names.insert(nqn);
            if taken || nqn.as_str() == DISCOVERY_NQN || self.discovery_nqn == Some(nqn) {
                return Err(ConfigError::DuplicateNqn(nqn.into()));
            }
            subsystem.check()?;
        }
        Ok(())
    }
}

impl Subsystem {
    fn check(&self) -> Result<(), ConfigError> {
        let serial = self.serial.as_bytes();
        let printable = serial.iter().all(|b| (0x20..0x7f).contains(b));
        if !(1..=20).contains(&serial.len()) || !printable {
            return Err(ConfigError::Serial(self.nqn.into()));
        }
        if let Hosts::List(list) = &self.hosts {
            at_most("hosts on one allow list", list.len(), HOSTS_MAX)?;
        }
        let mut nsids = BTreeSet::new();
        for namespace in &self.namespaces {
            let nsid = namespace.nsid;
            if !nsids.insert(nsid) {
                return Err(ConfigError::DuplicateNsid(self.nqn.into(), nsid));
            }
            if let Hosts::List(list) = &namespace.reach.hosts {
                at_most("hosts of one namespace", list.len(), HOSTS_MAX)?;
            }
            at_most("ports of one namespace", namespace.reach.ports.len(), PORTS_MAX)?;
            if let Some(what) = namespace.fault() {
                return Err(ConfigError::Namespace { nqn: self.nqn.into(), nsid, what });
            }
        }
        Ok(())
    }
}

impl Namespace {
    fn fault(&self) -> Option<&'static str> {
        if !(1..=NAMESPACES_MAX).contains(&self.nsid) {
            return Some("the NSID is zero or larger than the limit");
        }
        if self.uuid == [0; 16] {
            return Some("the UUID is all zero");
        }
        if self.block_size != 512 && self.block_size != 4096 {
            return Some("the block size is neither 512 nor 4096");
        }
        if self.blocks == 0 || self.blocks.checked_mul(u64::from(self.block_size)).is_none() {
            return Some("the size is zero or beyond 64 bits");
        }
        if !(1..=65536).contains(&self.atomic_blocks) {
            return Some("the atomic unit is not 1 to 65536 blocks");
        }
        None
    }
}

fn at_most(what: &'static str, count: usize, max: usize) -> Result<(), ConfigError> {
    if count > max { Err(ConfigError::TooMany { what, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(nsid: u32) -> Namespace {
        let handle = NamespaceHandle(nsid);
        let (uuid, reach) = ([7; 16], Reach::default());
        Namespace { nsid, handle, uuid, block_size: 512, blocks: 8, atomic_blocks: 1, reach }
    }

    fn config(namespaces: Vec<Namespace>) -> Config {
        let nqn = Nqn::new("nqn.2026-11.io.example:a").unwrap();
        let subsystem = Subsystem { nqn, serial: "S1".into(), hosts: Hosts::Any, namespaces };
        Config { subsystems: vec![subsystem], ..Config::default() }
    }

    #[test]
    fn limits_hold_at_their_edges() {
        assert_eq!(config(vec![namespace(1), namespace(NAMESPACES_MAX)]).check(), Ok(()));
        assert!(config(vec![namespace(0)]).check().is_err());
        assert!(config(vec![namespace(NAMESPACES_MAX + 1)]).check().is_err());
        assert!(config(vec![namespace(3), namespace(3)]).check().is_err());
        let mut twice = config(vec![]);
        twice.subsystems.push(twice.subsystems[0].clone());
        assert!(matches!(twice.check(), Err(ConfigError::DuplicateNqn(_))));
        let mut serial = config(vec![]);
        serial.subsystems[0].serial = "x".repeat(21);
        assert!(matches!(serial.check(), Err(ConfigError::Serial(_))));
    }

    #[test]
    fn worse_of_node_and_port_is_reported() {
        use AnaState::{Inaccessible, NonOptimized, Optimized, PersistentLoss};
        let reach = |state| Reach { state, ports: vec![(2, Inaccessible)], ..Reach::default() };
        let seen = |state| [None, Some(1), Some(2)].map(|port| reach(state).state_at(port));
        assert_eq!(seen(Optimized), [Optimized, Optimized, Inaccessible]);
        assert_eq!(seen(NonOptimized), [NonOptimized, NonOptimized, Inaccessible]);
        assert_eq!(seen(PersistentLoss), [PersistentLoss; 3]);
    }

    #[test]
    fn identifiers_are_never_zero() {
        let folded = Namespace { uuid: [0x11; 16], ..namespace(1) };
        assert_eq!(folded.eui64(), [2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(folded.nguid(), [0x11; 16]);
    }
}
