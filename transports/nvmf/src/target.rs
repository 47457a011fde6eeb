//! What all connections share: the configuration as a snapshot, and the live controllers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bdev::Client;
use nvme_spec::DISCOVERY_NQN;
use reservation::Notice;

use crate::config::{Config, ConfigError, Hosts, Namespace, Port, Referral, Subsystem};
use crate::generations::Generations;
use crate::health::{Health, Healths};
use crate::notices::{EVENT_ANA, EVENT_DISCOVERY, EVENT_NAMESPACES};
use crate::registry::{Identity, News, Registry, Standing};
use crate::{HostId, HostKeys, NamespaceHandle, Nqn, Session};

/// An NVMe-oF target: one per node, shared by all shards.
///
/// The configuration is replaced as a whole; connections take the new snapshot at their next poll
/// and hosts are told by asynchronous events.
#[derive(Debug)]
pub struct Target {
    registry: Registry,
    healths: Healths,
    generation: AtomicU64,
    snapshot: Mutex<Arc<Snapshot>>,
    /// Held by [`Target::replace`]: news are told in the order of the configurations.
    replacing: Mutex<()>,
}

/// One configuration, checked and indexed.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Counts the configurations.
    pub(crate) generation: u64,
    /// GENCTR of the discovery logs.
    pub(crate) generations: Generations,
    pub(crate) ports: Vec<Port>,
    pub(crate) subsystems: Vec<Arc<SubsystemView>>,
    pub(crate) referrals: Vec<Referral>,
    pub(crate) discovery_nqn: Nqn,
    /// Where in `subsystems` each one is.
    places: BTreeMap<Nqn, usize>,
    /// By the name of the host.
    keys: Vec<Arc<HostKeys>>,
}

/// A subsystem, indexed by NSID.
#[derive(Debug)]
pub(crate) struct SubsystemView {
    pub(crate) nqn: Nqn,
    pub(crate) serial: String,
    pub(crate) hosts: Hosts,
    pub(crate) ports: usize,
    /// It takes hosts with secrets only.
    needs_key: bool,
    /// Up to the largest NSID.
    by_nsid: Box<[Option<Namespace>]>,
    /// How often the access information has changed, in all and by group.
    ana_changes: u64,
    ana_group_changes: Box<[u64]>,
}

impl SubsystemView {
    /// Indexes a subsystem that follows an older version of it.
    fn new(
        subsystem: Subsystem,
        ports: usize,
        needs_key: bool,
        old: Option<&SubsystemView>,
    ) -> SubsystemView {
        let Subsystem { nqn, serial, hosts, namespaces } = subsystem;
        let last = namespaces.iter().map(|namespace| namespace.nsid).max().unwrap_or(0) as usize;
        let counted = old.map_or(0, |old| old.ana_group_changes.len()).max(last + 1);
        let mut by_nsid = vec![None; last + 1];
        for namespace in namespaces {
            let nsid = namespace.nsid as usize;
            by_nsid[nsid] = Some(namespace);
        }
        let mut view = SubsystemView {
            nqn,
            serial,
            hosts,
            ports,
            needs_key,
            by_nsid: by_nsid.into(),
            ana_changes: old.map_or(0, |old| old.ana_changes),
            ana_group_changes: vec![0; counted].into(),
        };
        view.count_changes(old);
        view
    }

    /// Goes on with the change counts of the access information.
    fn count_changes(&mut self, old: Option<&SubsystemView>) {
        let Some(old) = old else { return };
        let mut any = false;
        for nsid in 0..self.ana_group_changes.len() {
            let before = old.ana_group_changes.get(nsid).copied().unwrap_or(0);
            let access = |view: &SubsystemView| {
                let namespace = view.by_nsid.get(nsid).and_then(Option::as_ref)?;
                Some((namespace.reach.state, namespace.reach.ports.clone()))
            };
            let changed = access(self) != access(old);
            self.ana_group_changes[nsid] = before + u64::from(changed);
            any |= changed;
        }
        self.ana_changes += u64::from(any);
    }

    /// The namespace with this NSID, whether or not it is attached to anybody.
    pub(crate) fn allocated(&self, nsid: u32) -> Option<&Namespace> {
        self.by_nsid.get(nsid as usize)?.as_ref()
    }

    /// All of them in the order of their NSIDs.
    pub(crate) fn all_allocated(&self) -> impl Iterator<Item = &Namespace> {
        self.by_nsid.iter().flatten()
    }

    /// Those that are attached to the controllers of `host`.
    pub(crate) fn attached_to(&self, host: &Nqn) -> impl Iterator<Item = &Namespace> {
        self.all_allocated().filter(|namespace| namespace.reach.hosts.allows(host))
    }

    /// The change count of the access information.
    pub(crate) fn ana_changes(&self) -> u64 {
        self.ana_changes
    }

    /// The change count of the group of one namespace.
    pub(crate) fn ana_group_changes(&self, nsid: u32) -> u64 {
        self.ana_group_changes.get(nsid as usize).copied().unwrap_or(0)
    }

    fn is_like(&self, other: &SubsystemView) -> bool {
        let names = |view: &SubsystemView| (view.nqn, view.ports, view.needs_key);
        names(self) == names(other)
            && self.serial == other.serial
            && self.hosts == other.hosts
            && self.by_nsid == other.by_nsid
    }

    /// What a controller of `host` is told when this version follows `old`. Its port was and is one
    /// of `ports`.
    fn news(&self, old: &SubsystemView, host: &Nqn, ports: [Option<u16>; 2]) -> News {
        let mut news = News::default();
        let last = self.by_nsid.len().max(old.by_nsid.len());
        for nsid in 0..crate::framer::narrow(last) {
            let attached = |namespace: &&Namespace| namespace.reach.hosts.allows(host);
            let before = old.allocated(nsid).filter(attached);
            match (before, self.allocated(nsid).filter(attached)) {
                (None, None) => (),
                (Some(before), Some(after)) if before.looks_like(after) => {
                    if before.reach.state_at(ports[0]) != after.reach.state_at(ports[1]) {
                        news.events |= EVENT_ANA;
                    }
                }
                _ => news.changed.insert(nsid),
            }
        }
        if !news.changed.is_empty() {
            news.events |= EVENT_NAMESPACES;
        }
        news
    }
}

impl Snapshot {
    /// Checks and indexes a configuration that follows an older one.
    pub(crate) fn new(config: Config, old: Option<&Snapshot>) -> Result<Snapshot, ConfigError> {
        config.check()?;
        let ports = config.ports.len();
        let required = config.authentication.required;
        let view = |subsystem: Subsystem| {
            let needs_key = required.contains(&subsystem.nqn);
            let old = old.and_then(|old| old.subsystem(&subsystem.nqn));
            let new = SubsystemView::new(subsystem, ports, needs_key, old.map(Arc::as_ref));
            match old {
                Some(old) if new.is_like(old) => Arc::clone(old),
                _ => Arc::new(new),
            }
        };
        let subsystems: Vec<_> = config.subsystems.into_iter().map(view).collect();
        let places = subsystems.iter().enumerate().map(|(place, view)| (view.nqn, place)).collect();
        let mut keys: Vec<_> = config.authentication.hosts.into_iter().map(Arc::new).collect();
        keys.sort_unstable_by(|one, other| one.host.as_str().cmp(other.host.as_str()));
        let well_known = Nqn::new(DISCOVERY_NQN).expect("the specification's own name");
        let mut new = Snapshot {
            generation: old.map_or(1, |old| old.generation + 1),
            generations: Generations::first(),
            ports: config.ports,
            subsystems,
            referrals: config.referrals,
            discovery_nqn: config.discovery_nqn.unwrap_or(well_known),
            places,
            keys,
        };
        if let Some(old) = old {
            new.generations = old.generations.after(old, &new);
        }
        Ok(new)
    }

    pub(crate) fn subsystem(&self, nqn: &Nqn) -> Option<&Arc<SubsystemView>> {
        self.places.get(nqn).map(|&place| &self.subsystems[place])
    }

    /// The secrets of a host.
    pub(crate) fn keys_of(&self, host: &Nqn) -> Option<&Arc<HostKeys>> {
        let at = self.keys.binary_search_by(|keys| keys.host.as_str().cmp(host.as_str())).ok()?;
        Some(&self.keys[at])
    }

    /// How a host stands that connects to a subsystem; `None` when it may not.
    //= NVMe-Base 2.1 §8.3.4
    //# a host with a secret authenticates
    pub(crate) fn standing(&self, view: &SubsystemView, host: &Nqn) -> Option<Standing> {
        match self.keys_of(host) {
            Some(_) => Some(Standing::Pending),
            None if view.needs_key => None,
            None => Some(Standing::Open),
        }
    }

    /// Whether a connected host may stay, as it stands.
    pub(crate) fn admits(&self, view: &SubsystemView, host: &Nqn, standing: Standing) -> bool {
        let enough = match self.standing(view, host) {
            None => false,
            Some(Standing::Pending | Standing::Proven) => standing != Standing::Open,
            Some(Standing::Open) => true,
        };
        enough && view.hosts.allows(host)
    }

    /// Whether this is the discovery subsystem, by its well-known or its unique name.
    pub(crate) fn is_discovery(&self, nqn: &Nqn) -> bool {
        nqn.as_str() == DISCOVERY_NQN || *nqn == self.discovery_nqn
    }

    /// The port that a connection with this local address came through.
    pub(crate) fn port_at(&self, local: SocketAddr) -> Option<u16> {
        let ip = local.ip().to_canonical();
        let listens = |port: &&Port| port.address.port() == local.port();
        let exact = |port: &&Port| port.address.ip().to_canonical() == ip;
        let any = |port: &&Port| port.address.ip().is_unspecified();
        let mut ports = self.ports.iter().filter(listens);
        let found = ports.clone().find(exact).or_else(|| ports.find(any));
        found.map(|port| port.id)
    }

    /// What a controller is told when this configuration follows `old`.
    fn news(&self, old: &Snapshot, identity: &Identity) -> News {
        let Some(nqn) = &identity.subsystem else {
            let host = &identity.hostnqn;
            let changed = self.generations.of(host) != old.generations.of(host);
            let events = if changed { EVENT_DISCOVERY } else { 0 };
            return News { events, ..News::default() };
        };
        match (self.subsystem(nqn), old.subsystem(nqn)) {
            (Some(new_view), Some(old_view)) => {
                let ports = [old.port_at(identity.local), self.port_at(identity.local)];
                if Arc::ptr_eq(new_view, old_view) && ports[0] == ports[1] {
                    return News::default();
                }
                new_view.news(old_view, &identity.hostnqn, ports)
            }
            _ => News::default(),
        }
    }
}

impl Target {
    /// A target that offers `config`.
    ///
    /// # Errors
    /// When the configuration is refused: see [`ConfigError`].
    pub fn new(config: Config) -> Result<Arc<Target>, ConfigError> {
        let snapshot = Arc::new(Snapshot::new(config, None)?);
        Ok(Arc::new(Target {
            registry: Registry::new(),
            healths: Healths::default(),
            generation: AtomicU64::new(snapshot.generation),
            snapshot: Mutex::new(snapshot),
            replacing: Mutex::new(()),
        }))
    }

    /// Replaces everything that the target offers, and tells the hosts that see a difference.
    ///
    /// A controller whose subsystem is gone, or whose host is no longer allowed or would have to
    /// authenticate now and has not, is ended; a host that did so stays when its secret changes. A
    /// namespace that is resized, added or removed, attached or detached, and a change of how it is
    /// reached, is announced to the controllers that see it; discovery controllers are told when
    /// the log of their own host changed.
    ///
    /// # Errors
    /// When the configuration is refused; the old one stays.
    pub fn replace(&self, config: Config) -> Result<(), ConfigError> {
        let _turn = self.replacing.lock().expect("nobody panics while holding it");
        let old = self.snapshot();
        let new = Arc::new(Snapshot::new(config, Some(&old))?);
        *self.snapshot.lock().expect("nobody panics while holding it") = Arc::clone(&new);
        self.generation.store(new.generation, Ordering::Release);
        self.registry.expel(|identity| match &identity.subsystem {
            None => true,
            Some(nqn) => new
                .subsystem(nqn)
                .is_some_and(|view| new.admits(view, &identity.hostnqn, identity.standing)),
        });
        self.registry.notify(|identity| new.news(&old, identity));
        Ok(())
    }

    /// Reports how the store behind a namespace is: SMART says so from now on, and hosts that asked
    /// for it are told of what became critical.
    pub fn set_health(&self, handle: NamespaceHandle, health: Health) {
        let events = self.healths.set(handle, health).events(health);
        if events == 0 {
            return;
        }
        let snapshot = self.snapshot();
        self.registry.notify(|identity| {
            let view = identity.subsystem.and_then(|nqn| snapshot.subsystem(&nqn));
            let sees = view.is_some_and(|view| {
                let mut attached = view.attached_to(&identity.hostnqn);
                attached.any(|namespace| namespace.handle == handle)
            });
            News { events: if sees { events } else { 0 }, ..News::default() }
        });
    }

    pub(crate) fn healths(&self) -> &Healths {
        &self.healths
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

    /// The host that a request comes from; `None` when it is the node itself.
    pub fn host_of(&self, client: Client) -> Option<HostId> {
        self.registry.host_of(client)
    }

    /// Tells all controllers of `host` that can reach the volume with this UUID.
    pub fn notify_reservation(&self, volume: [u8; 16], host: HostId, notice: Notice) {
        let snapshot = self.snapshot();
        self.registry.notify_reservation(host, notice, |identity| {
            let view = snapshot.subsystem(identity.subsystem.as_ref()?)?;
            let mut namespaces = view.attached_to(&identity.hostnqn);
            namespaces.find(|namespace| namespace.uuid == volume).map(|namespace| namespace.nsid)
        });
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
