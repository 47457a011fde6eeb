//! What all connections share: the configuration as a snapshot, and the live controllers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use nvme_spec::DISCOVERY_NQN;

use crate::config::{Config, ConfigError, Hosts, Namespace, Port, Subsystem};
use crate::limits::NAMESPACES_MAX;
use crate::registry::{EVENT_DISCOVERY, EVENT_NAMESPACES, NsidSet, Registry};
use crate::{Nqn, Session};

/// An NVMe-oF target: one per node, shared by all shards.
///
/// The configuration is replaced as a whole; connections take the new snapshot at their next poll
/// and hosts are told by asynchronous events.
#[derive(Debug)]
pub struct Target {
    registry: Registry,
    generation: AtomicU64,
    snapshot: Mutex<Arc<Snapshot>>,
}

/// One configuration, checked and indexed.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// GENCTR of the discovery log: changes with every configuration.
    pub(crate) generation: u64,
    pub(crate) ports: Vec<Port>,
    pub(crate) subsystems: Vec<Arc<SubsystemView>>,
    pub(crate) discovery_nqn: Nqn,
}

/// A subsystem, indexed by NSID.
#[derive(Debug)]
pub(crate) struct SubsystemView {
    pub(crate) nqn: Nqn,
    pub(crate) serial: String,
    pub(crate) hosts: Hosts,
    pub(crate) ports: usize,
    by_nsid: Box<[Option<Namespace>]>,
}

impl SubsystemView {
    fn new(subsystem: Subsystem, ports: usize) -> SubsystemView {
        let mut by_nsid = vec![None; NAMESPACES_MAX as usize + 1];
        for namespace in subsystem.namespaces {
            let nsid = namespace.nsid as usize;
            by_nsid[nsid] = Some(namespace);
        }
        let Subsystem { nqn, serial, hosts, .. } = subsystem;
        SubsystemView { nqn, serial, hosts, ports, by_nsid: by_nsid.into() }
    }

    /// The active namespace with this NSID.
    pub(crate) fn namespace(&self, nsid: u32) -> Option<&Namespace> {
        self.by_nsid.get(nsid as usize)?.as_ref()
    }

    /// Active namespaces in the order of their NSIDs.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.by_nsid.iter().flatten()
    }

    /// The NSIDs whose namespace differs between two versions of a subsystem.
    fn difference(&self, other: Option<&SubsystemView>) -> NsidSet {
        let mut changed = NsidSet::default();
        for (nsid, namespace) in self.by_nsid.iter().enumerate() {
            let before = other.and_then(|other| other.by_nsid[nsid].as_ref());
            if namespace.as_ref() != before {
                changed[nsid / 64] |= 1 << (nsid % 64);
            }
        }
        changed
    }
}

impl Snapshot {
    fn new(config: Config, generation: u64) -> Result<Snapshot, ConfigError> {
        config.check()?;
        let ports = config.ports.len();
        let view = |subsystem| Arc::new(SubsystemView::new(subsystem, ports));
        let well_known = Nqn::new(DISCOVERY_NQN).expect("the specification's own name");
        Ok(Snapshot {
            generation,
            ports: config.ports,
            subsystems: config.subsystems.into_iter().map(view).collect(),
            discovery_nqn: config.discovery_nqn.unwrap_or(well_known),
        })
    }

    pub(crate) fn subsystem(&self, nqn: &Nqn) -> Option<&Arc<SubsystemView>> {
        self.subsystems.iter().find(|subsystem| subsystem.nqn == *nqn)
    }

    /// Whether this is the discovery subsystem, by its well-known or its unique name.
    pub(crate) fn is_discovery(&self, nqn: &Nqn) -> bool {
        nqn.as_str() == DISCOVERY_NQN || *nqn == self.discovery_nqn
    }
}

impl Target {
    /// A target that offers `config`.
    ///
    /// # Errors
    /// When the configuration is refused: see [`ConfigError`].
    pub fn new(config: Config) -> Result<Arc<Target>, ConfigError> {
        let snapshot = Arc::new(Snapshot::new(config, 1)?);
        Ok(Arc::new(Target {
            registry: Registry::new(),
            generation: AtomicU64::new(1),
            snapshot: Mutex::new(snapshot),
        }))
    }

    /// Replaces everything that the target offers, and tells the hosts that see a difference.
    ///
    /// A controller whose subsystem is gone, or whose host is no longer allowed, is ended. A
    /// namespace that is resized, added or removed is announced to the controllers of its
    /// subsystem; persistent discovery controllers are told of any change.
    ///
    /// # Errors
    /// When the configuration is refused; the old one stays.
    pub fn replace(&self, config: Config) -> Result<(), ConfigError> {
        let mut current = self.snapshot.lock().expect("nobody panics while holding it");
        let old = Arc::clone(&current);
        let new = Arc::new(Snapshot::new(config, old.generation + 1)?);
        *current = Arc::clone(&new);
        self.generation.store(new.generation, Ordering::Release);
        drop(current);
        self.registry.expel(|identity| match &identity.subsystem {
            None => true,
            Some(nqn) => {
                new.subsystem(nqn).is_some_and(|view| view.hosts.allows(&identity.hostnqn))
            }
        });
        for view in &new.subsystems {
            let changed = view.difference(old.subsystem(&view.nqn).map(Arc::as_ref));
            if changed != NsidSet::default() {
                self.registry.notify(Some(view.nqn), &changed, EVENT_NAMESPACES);
            }
        }
        self.registry.notify(None, &NsidSet::default(), EVENT_DISCOVERY);
        Ok(())
    }

    /// What the random numbers (CIRN) of controllers made from now on derive from: to be set once,
    /// at start, to a random number.
    pub fn seed_instances(&self, seed: u64) {
        self.registry.seed(seed);
    }

    /// Every live controller, for management. Allocates; not for the data path.
    pub fn sessions(&self) -> Vec<Session> {
        self.registry.sessions()
    }

    /// Ends the controller with this CNTLID; false when there is none.
    pub fn disconnect(&self, cntlid: u16) -> bool {
        self.registry.kill_cntlid(cntlid)
    }

    /// The number of the current configuration: one relaxed load.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// The current configuration.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.lock().expect("nobody panics while holding it"))
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }
}

/// The address through which a host came and the one it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// This side: discovery reports it for ports that listen on every address.
    pub local: SocketAddr,
    /// The host's side, for the session list.
    pub peer: SocketAddr,
}
